"""JSON Schema, the part of it that a rule may ask for (guardrails.md §5.11).

A schema is checked when its pack is written: what is not of this part is refused by name, so
nothing that a schema says is left unchecked in silence.  No `$ref` leads in a ring and every
pattern is RE2's, so a text is judged in bounded time; what only patience bounds (`allOf` of
`allOf`) has a number of steps, and a text that needs more breaks the check.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from proxy.guardrails.checks.jsontext import (
    TYPES,
    NotJson,
    Steps,
    exact,
    frozen,
    is_integer,
    number_of,
    parsed,
    without_fence,
)
from proxy.guardrails.linear import LinearError, Regex

Test = Callable[[object, Steps], bool]

MAX_DEPTH: Final = 64  # of a schema, references followed
MAX_NODES: Final = 10_000
_ANNOTATIONS: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"$schema", "$comment", "$defs", "definitions", "format"}
)


class SchemaFault(ValueError):
    """What is wrong with a schema: where (`.properties.a`), a code, and why."""

    def __init__(self, where: str, code: str, message: str) -> None:
        super().__init__(message)
        self.where, self.code, self.message = where, code, message


class Schema:
    """A schema, compiled.  `formats`: it names formats, which are notes and are not checked."""

    def __init__(self, document: object) -> None:
        """Raises SchemaFault."""
        compiler = _Compiler(document)
        self._test = compiler.node(document, "", 0)
        compiler.definitions()
        self.formats = compiler.formats

    def fits(self, text: str, *, strip_fence: bool) -> bool:
        """The text is one JSON value that fits.  Raises TooManySteps."""
        try:
            value = parsed(without_fence(text) if strip_fence else text)
        except NotJson:
            return False
        return self._test(value, Steps())


# --- the schema


class _Compiler:
    def __init__(self, document: object) -> None:
        self._document = document
        self._known: dict[str, Test] = {}  # by pointer
        self._under_way: set[str] = set()
        self._nodes = 0
        self.formats = False

    def definitions(self) -> None:
        """What no reference leads to is checked as well."""
        if isinstance(self._document, dict):
            for place in ("$defs", "definitions"):
                for name, each in self._object(self._document, place, "").items():
                    self.node(each, f".{place}.{name}", 1)

    def node(self, said: object, where: str, depth: int) -> Test:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise SchemaFault(where, "schema_too_large", "The schema is too deep or too large.")
        if isinstance(said, bool):
            return _always if said else _never
        if not isinstance(said, dict):
            raise SchemaFault(where, "invalid_schema", "A schema is an object or a boolean.")
        makers: dict[Maker, None] = {}  # each once: some look at two keywords
        for name in said:
            maker = _MAKERS.get(name)
            if maker is not None:
                makers[maker] = None
            elif name not in _ANNOTATIONS:
                raise SchemaFault(
                    f"{where}.{name}",
                    "unsupported_schema_keyword",
                    f"The keyword {name[:64]!r} is not checked here.",
                )
            self.formats = self.formats or name == "format"
        return _all([test for make in makers for test in make(self, said, where, depth)])

    def nodes(self, said: object, where: str, depth: int) -> list[Test]:
        if not isinstance(said, list) or not said:
            raise SchemaFault(where, "invalid_schema", "A list of schemas is expected.")
        return [self.node(each, f"{where}[{at}]", depth + 1) for at, each in enumerate(said)]

    def reference(self, said: object, where: str, depth: int) -> Test:
        if not isinstance(said, str) or not (said == "#" or said.startswith("#/")):
            raise SchemaFault(where, "invalid_schema", "Only local references (#/…) are followed.")
        if said in self._under_way or said == "#":
            raise SchemaFault(where, "invalid_schema", "A reference leads back to itself.")
        if said not in self._known:
            target = self._document
            for step in said[2:].split("/"):
                name = step.replace("~1", "/").replace("~0", "~")
                if isinstance(target, list) and name.isdecimal() and int(name) < len(target):
                    target = target[int(name)]
                elif isinstance(target, dict) and name in target:
                    target = target[name]
                else:
                    raise SchemaFault(where, "invalid_schema", "The reference leads nowhere.")
            self._under_way.add(said)
            self._known[said] = self.node(target, where, depth + 1)
            self._under_way.remove(said)
        return self._known[said]

    def _object(self, said: Mapping[str, object], name: str, where: str) -> dict[str, object]:
        value = said.get(name, {})
        if not isinstance(value, dict):
            raise SchemaFault(f"{where}.{name}", "invalid_schema", "An object is expected.")
        return value

    # makers: keyword -> tests

    def type(self, said: Mapping[str, object], where: str, _: int) -> list[Test]:
        named = said["type"]
        names = named if isinstance(named, list) else [named]
        kinds = [TYPES[name] for name in names if isinstance(name, str) and name in TYPES]
        if not kinds or len(kinds) != len(names):
            raise SchemaFault(f"{where}.type", "invalid_schema", "No such type.")
        return [lambda value, _: any(kind(value) for kind in kinds)]

    def const(self, said: Mapping[str, object], _where: str, _: int) -> list[Test]:
        wanted = frozen(said["const"], Steps())
        return [lambda value, steps: frozen(value, steps) == wanted]

    def enum(self, said: Mapping[str, object], where: str, _: int) -> list[Test]:
        values = said["enum"]
        if not isinstance(values, list):
            raise SchemaFault(f"{where}.enum", "invalid_schema", "A list is expected.")
        wanted = {frozen(value, Steps()) for value in values}
        return [lambda value, steps: frozen(value, steps) in wanted]

    def members(self, said: Mapping[str, object], where: str, depth: int) -> list[Test]:
        """`properties` and `additionalProperties` together."""
        known = {
            name: self.node(each, f"{where}.properties.{name}", depth + 1)
            for name, each in self._object(said, "properties", where).items()
        }
        others: Test | None = None
        if "additionalProperties" in said:
            below = f"{where}.additionalProperties"
            others = self.node(said["additionalProperties"], below, depth + 1)

        def test(value: object, steps: Steps) -> bool:
            if not isinstance(value, dict):
                return True
            for name, each in value.items():
                steps.take()
                wanted = known.get(name, others)
                if wanted is not None and not wanted(each, steps):
                    return False
            return True

        return [test]

    def required(self, said: Mapping[str, object], where: str, _: int) -> list[Test]:
        names = said["required"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SchemaFault(f"{where}.required", "invalid_schema", "A list of names is expected.")
        wanted = frozenset(map(str, names))
        return [lambda value, _: not isinstance(value, dict) or wanted <= value.keys()]

    def elements(self, said: Mapping[str, object], where: str, depth: int) -> list[Test]:
        """`prefixItems` and `items` together."""
        first: list[Test] = []
        if "prefixItems" in said:
            first = self.nodes(said["prefixItems"], f"{where}.prefixItems", depth)
        rest = self.node(said["items"], f"{where}.items", depth + 1) if "items" in said else None

        def test(value: object, steps: Steps) -> bool:
            if not isinstance(value, list):
                return True
            for at, each in enumerate(value):
                steps.take()
                wanted = first[at] if at < len(first) else rest
                if wanted is not None and not wanted(each, steps):
                    return False
            return True

        return [test]

    def unique(self, said: Mapping[str, object], where: str, _: int) -> list[Test]:
        if not isinstance(said["uniqueItems"], bool):
            raise SchemaFault(f"{where}.uniqueItems", "invalid_schema", "A boolean is expected.")
        if not said["uniqueItems"]:
            return []

        def test(value: object, steps: Steps) -> bool:
            if not isinstance(value, list):
                return True
            return len({frozen(each, steps) for each in value}) == len(value)

        return [test]

    def multiple(self, said: Mapping[str, object], where: str, _: int) -> list[Test]:
        step = number_of(said["multipleOf"])
        if step is None or abs(step) == math.inf or step <= 0:
            raise SchemaFault(f"{where}.multipleOf", "invalid_schema", "A number above 0.")
        of = exact(step)

        def test(value: object, _: Steps) -> bool:
            number = number_of(value)
            if number is None:
                return True
            return abs(number) != math.inf and exact(number) % of == 0

        return [test]

    def pattern(self, said: Mapping[str, object], where: str, _: int) -> list[Test]:
        text = said["pattern"]
        if not isinstance(text, str):
            raise SchemaFault(f"{where}.pattern", "invalid_schema", "A string is expected.")
        try:
            regex = Regex(text)
        except LinearError as fault:
            raise SchemaFault(f"{where}.pattern", "regex_syntax", str(fault)) from fault

        def test(value: object, steps: Steps) -> bool:
            if not isinstance(value, str):
                return True
            data = value.encode("utf-8", "replace")
            steps.take(1 + len(data) // 1024)
            return regex.search_start(data, 0) >= 0

        return [test]

    def one_of(self, said: Mapping[str, object], where: str, depth: int) -> list[Test]:
        each = self.nodes(said["oneOf"], f"{where}.oneOf", depth)
        return [lambda value, steps: sum(_taken(test, value, steps) for test in each) == 1]

    def any_of(self, said: Mapping[str, object], where: str, depth: int) -> list[Test]:
        each = self.nodes(said["anyOf"], f"{where}.anyOf", depth)
        return [lambda value, steps: any(_taken(test, value, steps) for test in each)]

    def all_of(self, said: Mapping[str, object], where: str, depth: int) -> list[Test]:
        each = self.nodes(said["allOf"], f"{where}.allOf", depth)
        return [lambda value, steps: all(_taken(test, value, steps) for test in each)]

    def none_of(self, said: Mapping[str, object], where: str, depth: int) -> list[Test]:
        test = self.node(said["not"], f"{where}.not", depth + 1)
        return [lambda value, steps: not _taken(test, value, steps)]

    def ref(self, said: Mapping[str, object], where: str, depth: int) -> list[Test]:
        return [self.reference(said["$ref"], f"{where}.$ref", depth)]


def _taken(test: Test, value: object, steps: Steps) -> bool:
    steps.take()
    return test(value, steps)


def _always(_: object, __: Steps) -> bool:
    return True


def _never(_: object, __: Steps) -> bool:
    return False


def _all(tests: Sequence[Test]) -> Test:
    if not tests:
        return _always
    return lambda value, steps: all(_taken(test, value, steps) for test in tests)


Maker = Callable[[_Compiler, Mapping[str, object], str, int], list[Test]]


def _size(name: str, measure: Callable[[object], int | None], *, most: bool) -> Maker:
    """`minItems`, `maxLength`: a bound of what is counted."""

    def make(_: _Compiler, said: Mapping[str, object], where: str, __: int) -> list[Test]:
        bound = said[name]
        if not is_integer(bound) or not isinstance(bound, (int, float)) or bound < 0:
            raise SchemaFault(f"{where}.{name}", "invalid_schema", "An integer of at least 0.")

        def test(value: object, _: Steps) -> bool:
            size = measure(value)
            return size is None or (size <= bound if most else size >= bound)

        return [test]

    return make


def _bound(name: str, holds: Callable[[float, float], bool]) -> Maker:
    """`minimum` and its kin."""

    def make(_: _Compiler, said: Mapping[str, object], where: str, __: int) -> list[Test]:
        bound = number_of(said[name])
        if bound is None:
            raise SchemaFault(f"{where}.{name}", "invalid_schema", "A number is expected.")

        def test(value: object, _: Steps) -> bool:
            number = number_of(value)
            return number is None or holds(number, bound)

        return [test]

    return make


def _chars(value: object) -> int | None:
    return len(value) if isinstance(value, str) else None


def _items(value: object) -> int | None:
    return len(value) if isinstance(value, list) else None


_MAKERS: Final[Mapping[str, Maker]] = {
    "type": _Compiler.type,
    "properties": _Compiler.members,
    "additionalProperties": _Compiler.members,
    "required": _Compiler.required,
    "items": _Compiler.elements,
    "prefixItems": _Compiler.elements,
    "minItems": _size("minItems", _items, most=False),
    "maxItems": _size("maxItems", _items, most=True),
    "uniqueItems": _Compiler.unique,
    "enum": _Compiler.enum,
    "const": _Compiler.const,
    "minimum": _bound("minimum", lambda number, bound: number >= bound),
    "maximum": _bound("maximum", lambda number, bound: number <= bound),
    "exclusiveMinimum": _bound("exclusiveMinimum", lambda number, bound: number > bound),
    "exclusiveMaximum": _bound("exclusiveMaximum", lambda number, bound: number < bound),
    "multipleOf": _Compiler.multiple,
    "minLength": _size("minLength", _chars, most=False),
    "maxLength": _size("maxLength", _chars, most=True),
    "pattern": _Compiler.pattern,
    "anyOf": _Compiler.any_of,
    "oneOf": _Compiler.one_of,
    "allOf": _Compiler.all_of,
    "not": _Compiler.none_of,
    "$ref": _Compiler.ref,
}
