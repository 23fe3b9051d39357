"""What the arguments of a tool call may be (guardrails.md §5.9: `args`).

Fails closed: a value of another type than a constraint speaks of, or something else where a member
or a list is looked for, is refused.  An absent value and null are the same: fine, unless required.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy.guardrails.linear import Regex
from proxy.model.exchange import Json

PATH: Final = r"^\$(\.[^.\[\]*$\s]{1,64}|\[\*\]){0,16}$"
_STEP: Final = re.compile(r"\.([^.\[\]*$\s]+)|\[\*\]")
Steps = tuple[str | None, ...]  # None: every element of a list


def steps_of(path: str) -> Steps:
    """`$.filters[*].url` as steps; `path` fits `PATH`."""
    return tuple(found[1] for found in _STEP.finditer(path))


class Misshapen(Exception):
    """Something else stands where an object or a list is looked for."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One entry of `args`.  `regex` is anchored at both ends; `low` and `high` are inclusive."""

    steps: Steps
    regex: Regex | None = None
    enum: tuple[Json, ...] | None = None
    low: float | None = None
    high: float | None = None
    max_chars: int | None = None
    required: bool = False
    forbidden: bool = False

    def accepts(self, args: Json) -> bool:
        """Whether these arguments are as they must be."""
        found = False
        try:
            for value in _values(args, self.steps):
                if value is None:
                    if self.required:
                        return False
                    continue
                found = True
                if self.forbidden or not self._fits(value):
                    return False
        except Misshapen:
            return False
        return found or not self.required

    def _fits(self, value: Json) -> bool:
        if self.enum is not None and not any(_same(value, allowed) for allowed in self.enum):
            return False
        if self.regex is not None or self.max_chars is not None:
            text = _text(value)
            if text is None:
                return False
            if self.max_chars is not None and len(text) > self.max_chars:
                return False
            data = text.encode("utf-8", "replace")
            if self.regex is not None and self.regex.search(data) is None:
                return False
        if self.low is not None or self.high is not None:
            if type(value) is not int and type(value) is not float:
                return False
            return not (
                (self.low is not None and value < self.low)
                or (self.high is not None and value > self.high)
            )
        return True


def _values(value: Json, steps: Steps) -> Iterator[Json]:
    """What stands at the path: None for each place where it is absent.  Raises Misshapen."""
    if not steps or value is None:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if step is None:
        if type(value) is not list:
            raise Misshapen
        for child in value:
            yield from _values(child, rest)
    elif type(value) is dict:
        yield from _values(value.get(step), rest)
    else:
        raise Misshapen


def _text(value: Json) -> str | None:
    """A string, or a number as it is written; None for anything else."""
    if type(value) is str:
        return value
    return str(value) if type(value) is int or type(value) is float else None


def _same(value: Json, allowed: Json) -> bool:
    """Equal as JSON: 1 is 1.0, and true is not 1."""
    numbers = (int, float)
    if type(value) in numbers and type(allowed) in numbers:
        return value == allowed
    if type(value) is dict and type(allowed) is dict:
        return value.keys() == allowed.keys() and all(
            _same(value[name], allowed[name]) for name in value
        )
    if type(value) is list and type(allowed) is list:
        return len(value) == len(allowed) and all(map(_same, value, allowed))
    return type(value) is type(allowed) and value == allowed
