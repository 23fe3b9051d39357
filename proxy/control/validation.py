"""From bytes to values, and from what is wrong to stable codes with pointers (control-api.md §5).

All that is wrong is told at once.  pydantic's codes are mapped by one table and never passed
through; no value that was sent is ever echoed.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from proxy.control.problems import FieldError, Problem, invalid
from proxy.model.exchange import Json
from proxy.wire import jsonbody

MAX_DEPTH: Final = 32
MAX_READ: Final = 200  # errors of one body, of which MAX_ERRORS are told
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f]")
_QUOTED: Final = re.compile(r"'([^']*)'")
Where = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class _Code(NamedTuple):
    """Our code, how to say it, and which bound of the context stands behind it."""

    code: str
    detail: str
    bound: str = ""


# fmt: off
CODES: Final[Mapping[str, _Code]] = {
    "missing":                   _Code("missing", "is required"),
    "extra_forbidden":           _Code("extra_forbidden", "is not a known member"),
    "less_than_equal":           _Code("less_than_equal", "must be <= {}", "le"),
    "less_than":                 _Code("less_than", "must be < {}", "lt"),
    "greater_than_equal":        _Code("greater_than_equal", "must be >= {}", "ge"),
    "greater_than":              _Code("greater_than", "must be > {}", "gt"),
    "multiple_of":               _Code("multiple_of", "must be a multiple of {}", "multiple_of"),
    "finite_number":             _Code("wrong_type", "must be a finite number"),
    "string_too_short":          _Code("too_short", "needs at least {} characters", "min_length"),
    "string_too_long":           _Code("too_long", "must have at most {} characters", "max_length"),
    "too_short":                 _Code("too_short", "must have at least {} items", "min_length"),
    "too_long":                  _Code("too_long", "must have at most {} items", "max_length"),
    "string_pattern_mismatch":   _Code("pattern", "must match {}", "pattern"),
    "literal_error":             _Code("unknown_value", "must be one of the allowed values"),
    "enum":                      _Code("unknown_value", "must be one of the allowed values"),
    "string_type":               _Code("wrong_type", "must be a string"),
    "int_type":                  _Code("wrong_type", "must be an integer"),
    "int_parsing":               _Code("wrong_type", "must be an integer"),
    "int_from_float":            _Code("wrong_type", "must be an integer"),
    "int_parsing_size":          _Code("wrong_type", "is too large a number"),
    "float_type":                _Code("wrong_type", "must be a number"),
    "float_parsing":             _Code("wrong_type", "must be a number"),
    "bool_type":                 _Code("wrong_type", "must be true or false"),
    "bool_parsing":              _Code("wrong_type", "must be true or false"),
    "list_type":                 _Code("wrong_type", "must be a list"),
    "dict_type":                 _Code("wrong_type", "must be an object"),
    "model_type":                _Code("wrong_type", "must be an object"),
    "model_attributes_type":     _Code("wrong_type", "must be an object"),
    "none_required":             _Code("wrong_type", "must be null"),
    "union_tag_invalid":         _Code("unknown_value", "has a type that is not known"),
    "union_tag_not_found":       _Code("missing", "has no type"),
    "value_error":               _Code("invalid_value", "{}", "error"),
}
# fmt: on
_OTHER: Final = _Code("invalid_value", "is not valid")


def read_json(data: bytes, start: int = 0) -> Json:
    """Parse a body, or what of it begins at `start`.  Raises Problem 400 with the byte offset."""
    try:
        return jsonbody.loads(data)
    except jsonbody.JsonError as fault:
        if "depth" in str(fault):
            raise too_deep() from fault
        detail = "the body is empty" if not data.strip() else f"invalid JSON: {fault.msg}"
        # the position counts characters; what stands before it may take more bytes
        text = data.decode(errors="replace")
        offset = start + len(text[: fault.pos].encode())
        raise Problem("malformed-json", detail, extra={"offset": offset}) from fault


def read_as(
    model: type[Model], data: bytes, strict: Callable[[dict[str, Json]], Json] | None = None
) -> Model:
    """The body of an action.  Raises Problem 400, 422 with all that is wrong.

    `strict`: what of the body may hold no control characters; None: all of it."""
    sent = read_json(data)
    if not isinstance(sent, dict):
        raise invalid([FieldError("wrong_type", "must be an object", pointer="#")])
    wrong = unfit(strict(sent) if strict else sent)
    if wrong:
        raise invalid(wrong)
    check_unique(data)
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as fault:
        raise invalid([*errors_of(fault, sent)]) from fault


def check_unique(data: bytes) -> None:
    """SECURITY: of a name that stands twice the parser keeps the last, and a reader sees the first.

    Raises Problem 422."""
    try:
        jsonbody.must_be_unique(data)
    except ValueError as why:
        raise invalid([FieldError("duplicate_member", str(why), pointer="#")]) from why


def too_deep() -> Problem:
    return invalid([_at((), "too_deep", f"nested deeper than {MAX_DEPTH} levels")])


def unfit(value: Json, start: Where = ()) -> list[FieldError]:
    """What no member may hold: nesting beyond 32 levels, control characters but tab and newline."""
    return [] if _fits(value, MAX_DEPTH) else _faults(value, start)


def _fits(value: Json, levels: int) -> bool:
    """The question alone, without the places: nearly all that comes is fit."""
    if isinstance(value, str):
        return value.isprintable() or not _CONTROL.search(value)
    if isinstance(value, dict):
        if not levels:
            return False
        for name, inner in value.items():
            if not (name.isprintable() or not _CONTROL.search(name)):
                return False
            if isinstance(inner, (str, dict, list)) and not _fits(inner, levels - 1):
                return False
    elif isinstance(value, list):
        return levels > 0 and all(_fits(inner, levels - 1) for inner in value)
    return True


def _faults(value: Json, start: Where) -> list[FieldError]:
    found: list[FieldError] = []
    waiting: list[tuple[Json, Where]] = [(value, start)]
    while waiting:
        item, where = waiting.pop()
        if isinstance(item, str):
            if _CONTROL.search(item):
                found.append(_at(where, "control_character", "must not hold control characters"))
        elif isinstance(item, (dict, list)):
            if len(where) >= MAX_DEPTH + len(start):
                return [_at(start, "too_deep", f"nested deeper than {MAX_DEPTH} levels")]
            if isinstance(item, dict):
                for name, inner in item.items():
                    if _CONTROL.search(name):
                        found.append(
                            _at(where, "control_character", "has a name with control characters")
                        )
                    waiting.append((inner, (*where, name)))
            else:
                waiting.extend((inner, (*where, index)) for index, inner in enumerate(item))
    return found


def _at(where: Where, code: str, detail: str) -> FieldError:
    return FieldError(code, detail, field_of(where), pointer_of(where))


def pointer_of(where: Sequence[str | int]) -> str:
    """A JSON Pointer as a fragment."""
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in where)
    return "#" + "".join(f"/{part}" for part in parts)


def field_of(where: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in where)


def errors_of(
    fault: ValidationError, body: Json, start: Where = (), place: str = "body"
) -> Iterator[FieldError]:
    """pydantic's errors in our words.  `start` is where the validated value stands in the body."""
    told: set[tuple[str, str]] = set()
    for error in fault.errors(include_url=False, include_input=False)[:MAX_READ]:
        missing = error["type"] == "missing"
        where = (*start, *_resolved(error["loc"], body, missing=missing))
        ours = CODES.get(error["type"], _OTHER)
        if (field_of(where), ours.code) in told:  # the arms of a union say the same
            continue
        told.add((field_of(where), ours.code))
        detail, extra = _details(ours, error)
        yield FieldError(ours.code, detail, field_of(where), pointer_of(where), place, extra)


def _details(ours: _Code, error: ErrorDetails) -> tuple[str, dict[str, Json] | None]:
    context = error.get("ctx", {})
    if ours.code == "unknown_value":
        allowed: list[Json] = [*_QUOTED.findall(str(context.get("expected", "")))]
        return ours.detail, {"allowed": allowed} if allowed else None
    if not ours.bound:
        return ours.detail, None
    bound = context.get(ours.bound)
    extra: dict[str, Json] | None = None
    if isinstance(bound, (int, float)):
        extra = {"limit": bound}
    return ours.detail.format(bound), extra


def _resolved(loc: Sequence[str | int], body: Json, *, missing: bool) -> Where:
    """The part of a location that exists in the body: tags of unions are left out."""
    where: list[str | int] = []
    here = body
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        match here:
            case dict() if isinstance(part, str) and part in here:
                here = here[part]
            case list() if isinstance(part, int) and part < len(here):
                here = here[part]
            case _:
                if not (missing and last):
                    continue
        where.append(part)
    return tuple(where)


@cache
def _unasked(model: type[Model]) -> Model:
    """Nothing stands behind `?`.  One for all requests: queries are frozen."""
    return _read_query(model, {})


def read_query(model: type[Model], sent: Mapping[str, Sequence[str]]) -> Model:
    """What stands behind `?`, validated by `model`.  Raises Problem 422 with all that is wrong.

    A list member takes repetition and commas; another member that comes twice is an error.
    """
    return _read_query(model, sent) if sent else _unasked(model)


def _read_query(model: type[Model], sent: Mapping[str, Sequence[str]]) -> Model:
    fields = model.model_fields
    names = {field.alias or name: name for name, field in fields.items()}
    values: dict[str, object] = {}
    errors: list[FieldError] = []
    for name, given in sent.items():
        if name not in names:
            allowed: list[Json] = [*sorted(names)]
            errors.append(_parameter(name, "unknown_parameter", "is not known", allowed=allowed))
        elif _is_list(fields[names[name]].annotation):
            values[name] = [item for value in given for item in value.split(",")]
        elif len(given) > 1:
            errors.append(_parameter(name, "repeated", "must stand once"))
        else:
            values[name] = given[0]
    read: Model | None = None
    try:
        read = model.model_validate(values)
    except ValidationError as fault:
        told = {(error.field, error.code) for error in errors}
        for error in errors_of(fault, jsonbody.loads(jsonbody.dumps(values)), place="query"):
            error.field = error.field.partition(".")[0]  # the parameter, not its n-th value
            if (error.field, error.code) not in told:
                told.add((error.field, error.code))
                errors.append(error)
    if errors or read is None:
        raise invalid(errors)
    return read


def _is_list(annotation: object) -> bool:
    return "list[" in str(annotation)


def _parameter(name: str, code: str, detail: str, **extra: Json) -> FieldError:
    return FieldError(code, detail, name[:64], place="query", extra=extra or None)
