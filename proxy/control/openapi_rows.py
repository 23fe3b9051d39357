"""What a row of the table of operations says of itself: its kind, its summary, its tag."""

import inspect
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from proxy.control.frame import METRICS, PUBLIC, Operation
from proxy.control.kinds import Kind
from proxy.control.wire import ListQuery

_SERVER: Final = "Server"
_OF_SERVER: Final = ("Admin", "Status", "Schemas", "Changelog")
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def kind_of(operation: Operation) -> Kind | None:
    """The kind of document that the operation is one of: its handler is bound to it, and its path
    ends where the documents are."""
    arguments = operation.handler.args if isinstance(operation.handler, partial) else ()
    kind = next((each for each in arguments if isinstance(each, Kind)), None)
    if kind is None:
        return None
    place = f"{{{kind.parameter}}}"
    at_one, beneath = operation.template.endswith(place), place in operation.template
    return kind if at_one or not beneath else None


def is_list(operation: Operation) -> bool:
    return operation.method == "GET" and issubclass(operation.query, ListQuery)


def summary_of(operation: Operation) -> str:
    """One line for people: of a kind of document in its noun, else the docstring's first."""
    kind = kind_of(operation)
    if kind is not None:
        plural = f"{kind.noun[:-1]}ies" if kind.noun.endswith("y") else f"{kind.noun}s"
        article = "an" if kind.noun[0] in "aeiou" else "a"
        match operation.method:
            case "GET":
                one = not is_list(operation)
                return f"Get {article} {kind.noun}" if one else f"List {plural}"
            case "POST":
                return f"Create {article} {kind.noun}"
            case "PUT":
                return f"Replace members of {article} {kind.noun}"
            case "PATCH":
                return f"Change {article} {kind.noun} by a merge patch"
            case "DELETE":
                return f"Delete {article} {kind.noun}"
    if not operation.built:
        return " ".join(_WORDS.findall(operation.operation_id)).capitalize()
    return _docstring(operation).partition("\n")[0].rstrip(".")


def rest_of(operation: Operation) -> str:
    """What the docstring says after its first line."""
    return _docstring(operation).partition("\n")[2].strip()


def _docstring(operation: Operation) -> str:
    handler: Any = operation.handler
    while isinstance(handler, partial):
        handler = handler.func
    return inspect.getdoc(handler) or ""


def tag_of(operation: Operation) -> str:
    """What it is about: the first word of the path after the workspace."""
    parts = [part for part in operation.template.split("/") if part and not part.startswith("{")]
    rest = parts[1:] if parts and parts[0] == "v1" else []
    if rest[:1] == ["workspaces"] and len(rest) > 1:
        rest = rest[1:]
    name = rest[0].replace("-", " ").capitalize() if rest else _SERVER
    return _SERVER if name in _OF_SERVER else name


def tags(operations: Sequence[Operation]) -> list[str]:
    """In the order of the table, the server itself last."""
    return sorted(dict.fromkeys(map(tag_of, operations)), key=lambda name: name == _SERVER)


def public_scope(operation: Operation) -> str:
    return PUBLIC if operation.scope == METRICS else operation.scope


def conditional(operation: Operation) -> bool:
    """Whether If-None-Match is honoured."""
    kind = kind_of(operation)
    document = kind is not None and operation.method == "GET" and not is_list(operation)
    return (document and kind is not None and kind.conditional_get) or operation.cached
