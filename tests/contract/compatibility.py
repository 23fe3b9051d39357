"""What an edit of an OpenAPI description breaks (control-api.md §11).

`breaks(old, new, …)` gives one line per broken promise.  Of a request everything that was allowed
stays allowed; of an answer everything that was there stays there, and nothing comes that a client
could not expect.  What was deprecated for 90 days and announced may go.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

Schema = dict[str, Any]
Side = Literal["request", "answer"]
NOTICE_DAYS = 90
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
FIXED = ("pattern", "format", "multipleOf", "uniqueItems", "propertyNames", "contains")
METHODS = ("get", "post", "put", "patch", "delete")


def breaks(
    old: Schema, new: Schema, *, today: date, announced: Set[str] = frozenset()
) -> list[str]:
    """What is broken, by place.  `announced`: names that the changelog says are going."""
    return list(dict.fromkeys(_Edit(old, new, today, announced).paths()))


@dataclass
class _Edit:
    old: Schema
    new: Schema
    today: date
    announced: Set[str]

    # --- operations

    def paths(self) -> Iterator[str]:
        for path, methods in self.old["paths"].items():
            if path not in self.new["paths"]:
                if not all(self._may_go(one, one["operationId"]) for one in methods.values()):
                    yield f"{path}: the path is gone"
                continue
            for method in METHODS:
                if method not in methods:
                    continue
                before, after = methods[method], self.new["paths"][path].get(method)
                where = f"{method.upper()} {path}"
                if after is None:
                    if not self._may_go(before, before["operationId"]):
                        yield f"{where}: the method is gone"
                    continue
                yield from self._operation(where, before, after)

    def _operation(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        if old.get("security") == [] and new.get("security") != []:
            yield f"{where}: a key is needed now"
        yield from self._parameters(where, old, new)
        built = old.get("x-not-implemented") is True and "x-not-implemented" not in new
        if not built:  # what could only be answered with 501 promised nothing of its body
            yield from self._body(where, old.get("requestBody"), new.get("requestBody"))
        for status, before in old["responses"].items():
            after = new["responses"].get(status)
            at = f"{where} {status}"
            if after is None and built and status == "501":
                continue
            if after is None:
                yield f"{at}: the response is gone"
                continue
            before, after = _at(self.old, before), _at(self.new, after)
            for name in before.get("headers", {}):
                if name not in after.get("headers", {}):
                    yield f"{at}: the header {name} is gone"
            yield from self._contents(at, before, after, "answer")

    def _parameters(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        before, after = _by_name(self.old, old), _by_name(self.new, new)
        for key, parameter in before.items():
            at = f"{where} {key[0]} {key[1]}"
            if key not in after:
                if not self._may_go(parameter, key[1]):
                    yield f"{at}: the parameter is gone"
                continue
            if after[key]["required"] and not parameter["required"]:
                yield f"{at}: the parameter is required now"
            yield from self._schema(at, parameter["schema"], after[key]["schema"], "request", ())
        for key, parameter in after.items():
            if key not in before and parameter["required"]:
                yield f"{where} {key[0]} {key[1]}: a new required parameter"

    def _body(self, where: str, old: Schema | None, new: Schema | None) -> Iterator[str]:
        if old is None:
            if new is not None and new.get("required"):
                yield f"{where} body: a body is required now"
            return
        if new is None:
            yield f"{where} body: the body is gone"
            return
        if new.get("required") and not old.get("required"):
            yield f"{where} body: the body is required now"
        yield from self._contents(f"{where} body", old, new, "request")

    def _contents(self, at: str, old: Schema, new: Schema, side: Side) -> Iterator[str]:
        for media, before in old.get("content", {}).items():
            after = new.get("content", {}).get(media)
            if after is None:
                yield f"{at}: {media} is gone"
            else:
                yield from self._schema(at, before["schema"], after["schema"], side, ())

    # --- schemas

    def _schema(
        self, at: str, old: Schema, new: Schema, side: Side, seen: tuple[str, ...]
    ) -> Iterator[str]:
        mark = f"{old.get('$ref')}>{new.get('$ref')}"
        if "$ref" in old and "$ref" in new:
            if mark in seen:
                return
            seen = (*seen, mark)
        old, new = _at(self.old, old), _at(self.new, new)
        yield from _types(at, old, new, side)
        yield from _values(at, old, new, side)
        if side == "request":
            yield from _bounds(at, old, new)
        yield from self._members(at, old, new, side, seen)
        yield from self._unions(at, old, new, side, seen)
        for word in ("items", "additionalProperties"):
            if isinstance(old.get(word), dict) and isinstance(new.get(word), dict):
                yield from self._schema(f"{at}/*", old[word], new[word], side, seen)

    def _members(
        self, at: str, old: Schema, new: Schema, side: Side, seen: tuple[str, ...]
    ) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        gone = set()
        for name, member in before.items():
            if name in after:
                yield from self._schema(f"{at}/{name}", member, after[name], side, seen)
            elif self._may_go(_at(self.old, member), name):
                gone.add(name)
            else:
                yield f"{at}/{name}: the member is gone"
        must, needs = set(old.get("required", ())), set(new.get("required", ()))
        if side == "request":
            yield from (f"{at}/{name}: required now" for name in sorted(needs - must))
        else:
            lost = sorted(must - needs - gone - (set(before) - set(after)))
            yield from (f"{at}/{name}: not always there now" for name in lost)

    def _unions(
        self, at: str, old: Schema, new: Schema, side: Side, seen: tuple[str, ...]
    ) -> Iterator[str]:
        before, after = _arms(old), _arms(new)
        for arm in before:
            yield from self._nearest(at, arm, after, side, seen)
        if side == "answer" and before:
            for number, arm in enumerate(after):
                fits = any(not [*self._schema(at, each, arm, side, seen)] for each in before)
                if not fits and len(after) > len(before):
                    yield f"{at}: form {number + 1} is new"
        for each, other in zip(old.get("allOf", ()), new.get("allOf", ()), strict=False):
            yield from self._schema(at, each, other, side, seen)
        if side == "request" and len(new.get("allOf", ())) > len(old.get("allOf", ())):
            yield f"{at}: a new condition"

    def _nearest(
        self, at: str, arm: Schema, others: list[Schema], side: Side, seen: tuple[str, ...]
    ) -> list[str]:
        """What is broken about the form that is most like it."""
        told = [[*self._schema(at, arm, other, side, seen)] for other in others]
        return min(told, key=len, default=[])

    def _may_go(self, thing: Schema, name: str) -> bool:
        since = thing.get("x-deprecated-since")
        if not (thing.get("deprecated") and since and name in self.announced):
            return False
        return (self.today - date.fromisoformat(since)).days >= NOTICE_DAYS


def _types(at: str, old: Schema, new: Schema, side: Side) -> Iterator[str]:
    before, after = _kinds(old), _kinds(new)
    wide, narrow = (after, before) if side == "request" else (before, after)
    if wide and narrow and not narrow <= wide:
        yield f"{at}: the type was {_words(before)}, is {_words(after)}"
    elif side == "request" and after and not before and not _arms(old):
        yield f"{at}: the type was any, is {_words(after)}"


def _kinds(schema: Schema) -> set[str]:
    """Types; those of the forms of a union as well, so that null may be told either way."""
    told = schema.get("type")
    if told is None:
        return set().union(*(_kinds(arm) for arm in _arms(schema))) if _simple(schema) else set()
    kinds = {told} if isinstance(told, str) else set(told)
    return kinds | ({"integer"} if "number" in kinds else set())


def _simple(schema: Schema) -> bool:
    arms = _arms(schema)
    return bool(arms) and all("type" in arm for arm in arms)


def _values(at: str, old: Schema, new: Schema, side: Side) -> Iterator[str]:
    before, after = _enum(old), _enum(new)
    known, now = old.get("x-extensible-enum"), new.get("x-extensible-enum")
    if before is None and known is None:
        if side == "request" and after is not None:
            yield f"{at}: any value was allowed"
        return
    if known is not None:
        gone = [value for value in known if value not in (now or after or ())]
        yield from (f"{at}: the value {value!r} is gone" for value in gone)
        if now is None and after is not None:
            yield f"{at}: the enumeration was open"
        return
    assert before is not None
    if after is None and now is None:
        if side == "answer":
            yield f"{at}: any value may come now"
        return
    listed = after if after is not None else now
    assert listed is not None
    yield from (f"{at}: the value {value!r} is gone" for value in before if value not in listed)
    if side == "answer" and now is None:
        added = [value for value in listed if value not in before]
        yield from (f"{at}: the value {value!r} is new" for value in added)


def _enum(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def _bounds(at: str, old: Schema, new: Schema) -> Iterator[str]:
    for words, tighter in ((LOWER, lambda a, b: b > a), (UPPER, lambda a, b: b < a)):
        for word in words:
            if word in new and (word not in old or tighter(old[word], new[word])):
                yield f"{at}: {word} is {new[word]}, was {old.get(word, 'free')}"
    for word in FIXED:
        if word in new and new[word] != old.get(word):
            yield f"{at}: {word} is {new[word]}, was {old.get(word, 'free')}"
    if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
        yield f"{at}: other members were allowed"


def _arms(schema: Schema) -> list[Schema]:
    found: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    return found


def _words(kinds: set[str]) -> str:
    return " or ".join(sorted(kinds)) or "any"


def _by_name(doc: Schema, operation: Schema) -> dict[tuple[str, str], Schema]:
    found = [_at(doc, each) for each in operation.get("parameters", ())]
    return {(each["in"], each["name"]): {"required": False, **each} for each in found}


def _at(doc: Schema, thing: Schema) -> Schema:
    while "$ref" in thing:
        found: Any = doc
        for step in thing["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        thing = {**found, **{name: value for name, value in thing.items() if name != "$ref"}}
    return thing
