"""Where the API's description shows what is deprecated (control-api.md §11)."""

from collections.abc import Iterator, Sequence
from typing import Any

from proxy.control.deprecations import Deprecated
from proxy.control.shapes import PREFIX, Schema


def mark(doc: Schema, table: Sequence[Deprecated]) -> None:
    """Write each row of the table at every member or parameter that it names.

    Raises ValueError when it names nothing.
    """
    operations = {
        one["operationId"]: one for path in doc["paths"].values() for one in path.values()
    }
    for row in table:
        operation = operations.get(row.operation_id)
        found = list(_places(doc, operation, row)) if operation is not None else []
        if not found:
            raise ValueError(f"{row.operation_id} has no {row.place} {row.pointer}")
        for place in found:
            place |= _said(row, str(place.get("description", "")))


def _said(row: Deprecated, before: str) -> Schema:
    lines = [row.text] + [line for line in [before] if line and not before.startswith(row.text)]
    return {
        "deprecated": True,
        "x-deprecated-since": row.since.isoformat(),
        "x-removed-in": row.removed_in,
        "description": "\n".join(lines),
    }


def _places(doc: Schema, operation: Schema, row: Deprecated) -> Iterator[Schema]:
    """What is to be marked.  The parameter; or the member in the body and in the answer."""
    if row.place == "query":
        for parameter in operation["parameters"]:
            if (parameter["in"], parameter["name"]) == ("query", row.pointer):
                yield parameter
        return
    bodies = [operation.get("requestBody", {})]
    bodies += [one for status, one in operation["responses"].items() if status < "300"]
    for body in bodies:
        for media in body.get("content", {}).values():
            yield from _members(doc, media["schema"], row.path, set())


def _members(doc: Schema, schema: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[Schema]:
    if not isinstance(schema, dict) or id(schema) in seen:
        return
    if not path:
        yield schema
        return
    seen = seen | {id(schema)}
    if "$ref" in schema:
        target = doc["components"]["schemas"][schema["$ref"].removeprefix(PREFIX)]
        yield from _members(doc, target, path, seen)
    for word in ("anyOf", "oneOf", "allOf"):
        for arm in schema.get(word, ()):
            yield from _members(doc, arm, path, seen)
    if path[0] == "*" and "items" in schema:
        yield from _members(doc, schema["items"], path[1:], seen)
    member = schema.get("properties", {}).get(path[0])
    yield from _members(doc, member, path[1:], seen)
