"""JSON in and out: the only module that knows orjson and json.

`loads` is orjson's: UTF-8 only, no NaN, integers beyond 64 bits become floats, of duplicate members
the last one wins.  Where that matters there is the strict pass: two parsers must not see two texts,
so what is scanned or spliced has one meaning or is refused.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, cast

import orjson

from proxy.model.exchange import Json
from proxy.wire.jsonshape import INT_MAX, INT_MIN, deeper_than, is_unambiguous, opens_over

JsonError = orjson.JSONDecodeError
Object = dict[str, Json]

MAX_DEPTH: Final = 64


class BodyFault(ValueError):
    """A body that is not what it must be; the text says why, in words for the caller."""


def loads(data: bytes | str | memoryview) -> Json:
    """Parse.  Raises JsonError (a ValueError) with the position."""
    return cast(Json, orjson.loads(data))


def dumps(value: Any) -> bytes:
    """Compact JSON.  Dataclasses and str enums are written as what they are."""
    return orjson.dumps(value)


def dumps_sorted(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def dumps_indented(value: Any) -> bytes:
    """JSON for people, two spaces a level."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


# --- what a caller sends


def read_object(body: bytes) -> Object:
    """An object, read as providers read it.  Raises BodyFault."""
    try:
        doc = orjson.loads(body)
    except JsonError as fault:
        raise BodyFault(f"The body is not JSON: {fault}.") from None
    if type(doc) is not dict:
        raise BodyFault("The body is not a JSON object.")
    return doc


def strict_object(body: bytes, *, max_depth: int = MAX_DEPTH) -> Object:
    """An object that every parser reads alike (guardrails.md §7.1).  Raises BodyFault."""
    try:
        doc: Json = orjson.loads(body)
    except JsonError:
        doc = None
    if type(doc) is not dict or not is_unambiguous(body, doc, max_depth, orjson.dumps):
        doc = strict_value(body, max_depth=max_depth)
    if type(doc) is not dict:
        raise BodyFault("The body is not a JSON object.")
    return doc


def strict_value(text: bytes | str, *, max_depth: int = MAX_DEPTH) -> Json:
    """Any JSON value without duplicate members, unpaired surrogates, numbers beyond 64 bits, or
    more than `max_depth` levels.  Raises BodyFault."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as fault:
            raise BodyFault(f"The body is not UTF-8 (byte {fault.start}).") from None
    try:
        doc: Json = _STRICT.decode(text)
    except BodyFault:
        raise
    except json.JSONDecodeError as fault:
        raise BodyFault(f"The body is not JSON: {fault}.") from None
    except RecursionError:
        raise BodyFault(f"The body is nested deeper than {max_depth} levels.") from None
    except ValueError:
        raise BodyFault("The body holds a number beyond 64 bits.") from None
    if text.count("{") + text.count("[") > max_depth and deeper_than(doc, max_depth):
        raise BodyFault(f"The body is nested deeper than {max_depth} levels.")
    if "\\" in text and ("\\ud" in text or "\\uD" in text) and _has_surrogate(doc):
        raise BodyFault("The body holds half of a surrogate pair.")
    return doc


def must_be_unique(data: bytes) -> None:
    """Of an event that is scanned: no member stands twice, so that whoever keeps the first and
    whoever keeps the last read the same.  Half an emoji is allowed.  Raises ValueError."""
    try:
        doc: Json = orjson.loads(data)
    except JsonError:
        doc = None
    if type(doc) is not dict or not is_unambiguous(data, doc, MAX_DEPTH, orjson.dumps):
        try:
            _STRICT.decode(data.decode("utf-8"))
        except RecursionError:
            raise BodyFault("The event is nested too deeply.") from None


def _unique(pairs: list[tuple[str, Json]]) -> Object:
    doc = dict(pairs)
    if len(doc) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise BodyFault(f"The member {name[:64]!r} stands twice in one object.")
            seen.add(name)
    return doc


def _int64(digits: str) -> int:
    if len(digits) > 18:
        value = int(digits) if len(digits) <= 20 else None
        if value is None or not INT_MIN <= value <= INT_MAX:
            raise BodyFault("The body holds a number beyond 64 bits.")
        return value
    return int(digits)


def _float64(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise BodyFault("The body holds a number beyond 64 bits.")
    return value


def _no_constant(name: str) -> Json:
    raise BodyFault(f"The body is not JSON: {name} is no number.")


_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_int64,
    parse_float=_float64,
    parse_constant=_no_constant,
)


def _has_surrogate(doc: Json) -> bool:
    try:
        orjson.dumps(doc)
    except TypeError:
        return True
    return False


# --- what a provider streams


SHALLOW_BYTES: Final = 500  # no text of so many bytes is nested too deeply to be written again
_EVENT_DEPTH: Final = 200


def loads_event(data: bytes) -> Json:
    """One event: orjson, and once more leniently.  Providers split the surrogate pair of an emoji
    over two deltas, each half legal JSON.  Raises ValueError."""
    try:
        doc = cast(Json, orjson.loads(data))
    except JsonError:
        try:
            doc = cast(Json, json.loads(data.decode("utf-8")))
        except RecursionError:
            raise BodyFault("The event is nested too deeply.") from None
    if len(data) > SHALLOW_BYTES:
        refuse_depth(doc, data)
    return doc


def refuse_depth(doc: Json, data: bytes) -> None:
    """Raise BodyFault when `doc`, the parse of `data`, could not be written again."""
    if opens_over(data, _EVENT_DEPTH) and deeper_than(doc, _EVENT_DEPTH):
        raise BodyFault("The event is nested too deeply.")


def dumps_event(doc: Json) -> bytes:
    """Compact JSON, with escapes where a text holds half of a surrogate pair."""
    try:
        return orjson.dumps(doc)
    except TypeError:
        return json.dumps(doc, separators=(",", ":")).encode("ascii")


# --- changing bytes in place

Path = tuple[str | int, ...]
_SKIM: Final = json.JSONDecoder(parse_int=str, parse_float=str, strict=True)
_scan_value: Final = cast(Any, _SKIM).scan_once
_scan_string: Final = cast(Any, json.decoder).scanstring
_ESCAPED_NAME: Final = (b"\\u005", b"\\u006", b"\\u007")  # letters of member names, escaped


def top_members(body: bytes) -> list[tuple[str, bytes]]:
    """The members of an object with the bytes of their values, in order.  Raises BodyFault."""
    text = _text_of(body)
    return [(name, text[a:b].encode()) for name, a, b in _members(text, _space(text, 0))]


def join_members(members: list[tuple[str, bytes]]) -> bytes:
    """An object of these members."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + value for name, value in members) + b"}"


def splice_member(body: bytes, doc: Object, name: str, value: bytes) -> bytes:
    """`body` with the value of the top-level member `name` replaced, or the member added.

    `doc` is its parse.  Nothing else changes, unless the member stands twice: then the body is
    written anew from the parse, so that what was routed is what is sent (wire.md §2.5).
    """
    if name not in doc:
        at = body.index(b"{") + 1
        comma = b"" if body[at:].lstrip()[:1] == b"}" else b","
        return body[:at] + orjson.dumps(name) + b":" + value + comma + body[at:]
    span = _string_member(body, b'"' + name.encode("ascii") + b'"')
    if span is not None:
        start, end = span
        return body if body[start:end] == value else body[:start] + value + body[end:]
    text = _text_of(body)
    found = [(a, b) for key, a, b in _members(text, _space(text, 0)) if key == name]
    if len(found) != 1:
        return orjson.dumps({**doc, name: orjson.loads(value)})
    start, end = found[0]
    return text[:start].encode() + value + text[end:].encode()


def _string_member(body: bytes, key: bytes) -> tuple[int, int] | None:
    """The span of the string that follows `key`, if `key` stands only once in all of `body` and
    nothing could be that name in other spelling.  None: look closer."""
    at = body.find(key)
    if at < 0 or body.rfind(key) != at or body[at - 1 : at] == b"\\":
        return None
    if b"\\" in body and any(escaped in body for escaped in _ESCAPED_NAME):
        return None
    start = at + len(key)
    while body[start] in b" \t\r\n":
        start += 1
    if body[start] != 0x3A:  # a value, not a name
        return None
    start += 1
    while body[start] in b" \t\r\n":
        start += 1
    if body[start] != 0x22:
        return None
    end = body.index(b'"', start + 1)
    return None if b"\\" in body[start:end] else (start, end + 1)


def splice(body: bytes, changes: Mapping[Path, bytes]) -> bytes:
    """`body` with the values at these paths replaced by this JSON; everything else as it came.

    Raises BodyFault when a path is not there, or not only once.
    """
    text = _text_of(body)
    spans: list[tuple[int, int, bytes]] = []
    start = _space(text, 0)
    _find_spans(text, start, _tree(changes), spans)
    if len(spans) != len(changes):
        raise BodyFault("A string to be rewritten is not where it was read.")
    spans.sort()
    out, at = [], 0
    for begin, end, value in spans:
        out += [text[at:begin].encode(), value]
        at = end
    return b"".join([*out, text[at:].encode()])


def splice_strings(body: bytes, changes: Mapping[Path, str]) -> bytes:
    """The same for strings."""
    return splice(body, {path: dump_text(text) for path, text in changes.items()})


def dump_text(text: str) -> bytes:
    """A JSON string; halves of surrogate pairs become U+FFFD."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


_Tree = dict[str | int, Any]


def _tree(changes: Mapping[Path, bytes]) -> _Tree:
    root: _Tree = {}
    for path, value in changes.items():
        node = root
        for step in path[:-1]:
            below: Any = node.setdefault(step, {})
            if type(below) is not dict:
                raise BodyFault("Two changes, one inside the other.")
            node = below
        if path[-1] in node:
            raise BodyFault("Two changes, one inside the other.")
        node[path[-1]] = value
    return root


def _find_spans(text: str, at: int, tree: _Tree, spans: list[tuple[int, int, bytes]]) -> None:
    if text[at : at + 1] == "{":
        children: Any = _members(text, at)
    elif text[at : at + 1] == "[":
        children = _items(text, at)
    else:
        return
    for step, start, end in children:
        below = tree.get(step)
        if type(below) is dict:
            _find_spans(text, start, below, spans)
        elif below is not None:
            spans.append((start, end, below))


def _text_of(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise BodyFault("The body is not UTF-8.") from None


def _space(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\n", "\t", "\r"):
        at += 1
    return at


def _skip(text: str, at: int) -> int:
    """Where the value that begins here ends."""
    try:
        return cast(int, _scan_value(text, at)[1])
    except (StopIteration, RecursionError, ValueError):
        raise BodyFault("The body is not JSON.") from None


def _members(text: str, at: int) -> list[tuple[str, int, int]]:
    """(name, start, end of the value) of each member of the object that begins here."""
    found: list[tuple[str, int, int]] = []
    if text[at : at + 1] != "{":
        raise BodyFault("The body is not a JSON object.")
    at = _space(text, at + 1)
    if text[at : at + 1] == "}":
        return found
    while True:
        if text[at : at + 1] != '"':
            raise BodyFault("The body is not JSON.")
        try:
            name, at = _scan_string(text, at + 1, True)
        except ValueError:
            raise BodyFault("The body is not JSON.") from None
        at = _space(text, at)
        if text[at : at + 1] != ":":
            raise BodyFault("The body is not JSON.")
        start = _space(text, at + 1)
        end = _skip(text, start)
        found.append((name, start, end))
        at = _space(text, end)
        if text[at : at + 1] == "}":
            return found
        if text[at : at + 1] != ",":
            raise BodyFault("The body is not JSON.")
        at = _space(text, at + 1)


def _items(text: str, at: int) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    at = _space(text, at + 1)
    if text[at : at + 1] == "]":
        return found
    while True:
        end = _skip(text, at)
        found.append((len(found), at, end))
        at = _space(text, end)
        if text[at : at + 1] == "]":
            return found
        if text[at : at + 1] != ",":
            raise BodyFault("The body is not JSON.")
        at = _space(text, at + 1)
