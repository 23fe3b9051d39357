"""JSON as a model writes it: one value, read in one way, and what makes two values equal."""

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final

MAX_STEPS: Final = 1_000_000


class TooManySteps(RuntimeError):
    """The text would take too long to judge."""


class NotJson(ValueError):
    """The text is not one JSON value that every parser reads alike."""


class Steps:
    """What is left of the patience with one text."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def take(self, count: int = 1) -> None:
        self.left -= count
        if self.left < 0:
            raise TooManySteps


def without_fence(text: str) -> str:
    """What stands inside the Markdown fence around the text; the text when there is none."""
    bare = text.strip()
    head, newline, rest = bare.partition("\n")
    if not newline or head[:3] != "```" or "`" in head[3:] or not rest.endswith("```"):
        return text
    return rest[:-3]


def parsed(text: str) -> object:
    """Raises NotJson, also for a member that stands twice."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as why:
        raise NotJson(str(why)) from why


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def frozen(value: object, steps: Steps) -> object:
    """The value, so that equal ones of JSON are equal: 1 and 1.0 are, 1 and true are not."""
    steps.take()
    if isinstance(value, dict):
        return "o", frozenset((name, frozen(v, steps)) for name, v in value.items())
    if isinstance(value, list):
        return "l", tuple([frozen(each, steps) for each in value])
    return ("b", value) if isinstance(value, bool) else ("v", value)


def number_of(value: object) -> float | None:
    """None for what is no number; an int may be of any size."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def is_integer(value: object) -> bool:
    """1.0 is one."""
    number = number_of(value)
    return number is not None and number % 1 == 0


TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: number_of(value) is not None,
    "integer": is_integer,
}


def exact(number: float) -> Fraction:
    """As it is written: 0.1 is one tenth."""
    return Fraction(str(number))
