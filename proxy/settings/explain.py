"""What pydantic found, in our words: path, what is wrong, what would be accepted.

Where a member takes one of several shapes (a secret: text, `{$env}` or `{$file}`), pydantic tells
the faults of every shape; here one shape is chosen, the one that was most likely meant.
"""

import difflib
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from proxy.model.exchange import Json
from proxy.settings.problems import Path, Problem

_SHAPES = {"EnvRef": "{$env: NAME}", "FileRef": "{$file: PATH}"}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_TYPES = {
    "missing": "is required",
    "string_type": "must be text (put it in quotes)",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "union_tag_not_found": "needs a type",
    "finite_number": "must be a finite number",
}
_NOT_THIS_SHAPE = set(_TYPES) - {"missing", "finite_number"} | {"literal_error"}


def explain(
    error: ValidationError, raw: Json, model: type[BaseModel], below: Path = ()
) -> list[Problem]:
    """One problem per fault.  `below` is where `raw` stands in its file."""
    told = [
        _tell(detail, path, model) for detail, path in _chosen(error.errors(include_url=False), raw)
    ]
    problems = [Problem((*below, *each.path), each.message) for each in told]
    return sorted(set(problems), key=lambda problem: [str(part) for part in problem.path])


def _chosen(details: Sequence[ErrorDetails], raw: Json) -> list[tuple[ErrorDetails, Path]]:
    """Of the faults below one union, those of the shape that was most likely meant."""
    alone: list[tuple[ErrorDetails, Path]] = []
    unions: dict[Path, dict[str, list[tuple[ErrorDetails, Path]]]] = {}
    for detail in details:
        path, fork = _real_path(detail, raw)
        if fork is None:
            alone.append((detail, path))
        else:
            at, shape = fork
            unions.setdefault(path[:at], {}).setdefault(shape, []).append((detail, path))
    for root, shapes in unions.items():
        alone += _best_shape(root, shapes)
    return alone


def _best_shape(
    root: Path, shapes: dict[str, list[tuple[ErrorDetails, Path]]]
) -> list[tuple[ErrorDetails, Path]]:
    inside = {
        shape: found
        for shape, found in shapes.items()
        if not any(path == root and detail["type"] in _NOT_THIS_SHAPE for detail, path in found)
    }
    if inside:
        return min(inside.values(), key=len)
    firsts = {shape: found[0][0] for shape, found in shapes.items()}
    forms = [_SHAPES.get(shape) or _form(detail) for shape, detail in firsts.items()]
    *others, last = dict.fromkeys(forms)
    said = f"must be {', '.join(others)} or {last}" if others else f"must be {last}"
    example = next(iter(firsts.values()))
    detail = ErrorDetails(
        type="value_error",
        loc=example["loc"],
        msg=said,
        input=example["input"],
        ctx={"error": ValueError(said)},
    )
    return [(detail, root)]


def _form(detail: ErrorDetails) -> str:
    """What one shape of a union would take."""
    if detail["type"] == "literal_error":
        return str(detail["ctx"]["expected"]).replace("'", "")
    said = _TYPES.get(detail["type"], "something else").partition(" (")[0]
    return said.removeprefix("must be ")


def _real_path(detail: ErrorDetails, raw: Json) -> tuple[Path, tuple[int, str] | None]:
    """The path in the file, and where pydantic's path names a shape instead of a member."""
    path: list[str | int] = []
    fork: tuple[int, str] | None = None
    here: Json = raw
    loc = detail["loc"]
    for index, part in enumerate(loc):
        last_missing = index == len(loc) - 1 and detail["type"] == "missing"
        there, value = step_into(here, part)
        if there:
            here = value
        elif not last_missing:
            if part != "[key]" and not (isinstance(here, dict) and here.get("type") == part):
                fork = fork or (len(path), str(part))
            continue
        path.append(part)
    return tuple(path), fork


def step_into(here: Json, part: str | int) -> tuple[bool, Json]:
    """Whether a value has such a member or item, and which."""
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return True, here[part]
    if isinstance(here, dict) and isinstance(part, str) and part in here:
        return True, here[part]
    return False, None


def _tell(detail: ErrorDetails, path: Path, model: type[BaseModel]) -> Problem:
    kind, given = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(path, _unknown(str(path[-1]), fields_at(model, path[:-1])))
    if kind == "literal_error":
        expected = str(given.get("expected", "")).replace("'", "").replace(" or ", ", ")
        return Problem(path, f"must be one of {expected}{_found(detail['input'])}")
    if kind in _BOUNDS:
        words, member = _BOUNDS[kind]
        return Problem(path, f"must be {words} {given[member]}{_found(detail['input'])}")
    if kind == "value_error":
        return Problem(path, str(given.get("error", detail["msg"])))
    if kind == "string_pattern_mismatch":
        return Problem(path, f"must match {given['pattern']}")
    if kind == "union_tag_invalid":
        return Problem((*path, "type"), f"must be one of {given['expected_tags']}")
    return Problem(path, _TYPES.get(kind) or detail["msg"][:1].lower() + detail["msg"][1:])


def _found(value: object) -> str:
    """A number or a short word may be shown; anything longer could be a secret in a wrong place."""
    if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 24):
        return f" (found {value})"
    return ""


def _unknown(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"unknown member; did you mean {near[0]}?"
    return f"unknown member; known are {', '.join(known)}" if known else "unknown member"


def fields_at(model: type[BaseModel], path: Path) -> set[str]:
    """The members that the documents at `path` may have, by the names that the file uses."""
    kinds: list[Any] = [model]
    for part in path:
        kinds = [below for kind in kinds for below in _step(kind, part)]
    return {
        field.alias or name
        for kind in kinds
        for document in _documents(kind)
        for name, field in document.model_fields.items()
    }


def _step(kind: Any, part: str | int) -> list[Any]:
    """What stands at a member or an item of a type."""
    found: list[Any] = []
    for option in unwrapped(kind):
        origin, arguments = get_origin(option), get_args(option)
        if isinstance(option, type) and issubclass(option, BaseModel):
            for name, member in option.model_fields.items():
                if part in (name, member.alias):
                    found.append(member.annotation)
        elif origin is list and isinstance(part, int):
            found.append(arguments[0])
        elif origin is dict:
            found.append(arguments[1])
    return found


def _documents(kind: Any) -> list[type[BaseModel]]:
    return [
        option
        for option in unwrapped(kind)
        if isinstance(option, type) and issubclass(option, BaseModel)
    ]


def unwrapped(kind: Any) -> list[Any]:
    """The members of a union, unwrapped; a plain type alone."""
    origin = get_origin(kind)
    if origin is Annotated:
        return unwrapped(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return [option for each in get_args(kind) for option in unwrapped(each)]
    return [kind]
