"""The API's description, OpenAPI 3.1, made from the table of operations and the models that
validate (control-api.md §11).

Everything that is said of an operation follows from its row: whoever adds one adds nothing here.
The summary is the first line of the handler's docstring; operations that every kind of document
has are told in the kind's noun.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from proxy.control.deprecations import Deprecated
from proxy.control.frame import EVENT_STREAM, METRICS, PUBLIC, SERVER_ADMIN, Operation
from proxy.control.kinds import Kind
from proxy.control.openapi_answers import (
    header,
    headers,
    problem_name,
    problems,
    rate_headers,
    refusals,
)
from proxy.control.openapi_deprecated import mark
from proxy.control.openapi_rows import (
    conditional,
    is_list,
    kind_of,
    public_scope,
    rest_of,
    summary_of,
    tag_of,
    tags,
)
from proxy.control.shapes import Schema, Shapes, references_of
from proxy.control.wire import ListQuery

VERSION: Final = "1.0.0"  # of this document, semver
_TEXT: Final = {"type": "string"}
_SERVER_SENT: Final = {
    "type": "object",
    "description": "one event of the stream",
    "properties": {
        "id": {"type": "string"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}
_ID: Final = {"type": "string", "minLength": 1, "maxLength": 256}
_KEY: Final = r'^([!#-~]{1,255}|"([!#-\[\]-~]|\\["\\]){1,255}")$'
_TAGS_LIST: Final = r'^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$'
ABOUT: Final = """\
The control API of Parapet: guardrail policies, failover, alerts, incidents, events.

* Send a key as `Authorization: Bearer <key>`; each operation names the scope that it needs.
* Errors are problem details (RFC 9457): `errors` lists everything that is wrong, with pointers.
* Lists take `page` (from 1), `limit` (25, at most 100) and `sort=field:asc|desc`; `Link` leads on.
* A POST takes an `Idempotency-Key`: repeated within {ttl} hours it has one effect, and the same
  answer comes again with `Idempotent-Replayed: true`.
* PUT replaces each member that is sent and keeps the others, `null` is the default again; PATCH
  is a merge patch (RFC 7396). Members that only the server writes are ignored when sent back.
* A secret is written, never read: it is answered as a mask, which sent back keeps it; beside it
  stands `<member>_fingerprint`.
* Values under `x-extensible-enum` may become more; other enumerations stay as they are or get
  values that no answer has before it is asked for.
* What is deprecated is announced in [/v1/changelog](/v1/changelog) at least 90 days before it goes.
"""


def describe(
    operations: Sequence[Operation],
    deprecated: Sequence[Deprecated] = (),
    examples: Schema | None = None,
    ttl_hours: int = 24,
) -> Schema:
    """The whole document.  `examples`: bodies by operation id; `ttl_hours`: how long an
    Idempotency-Key is known."""
    shapes = Shapes(*shapes_of(operations))
    paths: Schema = {}
    for operation in operations:
        one = _operation(
            operation, operations, shapes, (examples or {}).get(operation.operation_id)
        )
        paths.setdefault(operation.template, {})[operation.method.lower()] = one
    doc: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Parapet control API",
            "version": VERSION,
            "description": ABOUT.format(ttl=ttl_hours),
            "x-idempotency-ttl-hours": ttl_hours,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in tags(operations)],
        "paths": paths,
        "components": {
            "schemas": shapes.components,
            "headers": headers(),
            "responses": problems(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of the configuration, or the server's admin key.",
                }
            },
        },
    }
    mark(doc, deprecated)
    _forget_unused(doc)
    return doc


def shapes_of(operations: Sequence[Operation]) -> tuple[list[object], list[object]]:
    """All shapes of bodies, and all of answers."""
    sent: list[object] = [one.sends for one in operations if one.sends is not None]
    shapes = [one.tells for one in operations if one.tells is not None]
    told: list[object] = [each for each in shapes if not isinstance(each, Kind)]
    named = [each for each in shapes if isinstance(each, Kind)]
    kinds = list({id(each): each for each in (*map(kind_of, operations), *named) if each}.values())
    told += [kind.told for kind in kinds if kind.told is not None]
    queries = [one.query for one in operations]
    return [*sent, *kinds, *queries], [*told, *kinds]


def _forget_unused(doc: Schema) -> None:
    """Components that nothing leads to."""
    schemas = doc["components"]["schemas"]
    waiting = [*references_of(doc["paths"]), *references_of(doc["components"]["responses"])]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in schemas and name not in needed:
            needed.add(name)
            waiting += references_of(schemas[name])
    doc["components"]["schemas"] = {name: schemas[name] for name in sorted(needed)}


# --- one operation


def _operation(
    operation: Operation, table: Sequence[Operation], shapes: Shapes, examples: Any
) -> Schema:
    open_to_all = operation.scope in (PUBLIC, METRICS)
    one: Schema = {
        "operationId": operation.operation_id,
        "summary": summary_of(operation),
        "tags": [tag_of(operation)],
        "x-scope": public_scope(operation),
        "x-rate-class": "none" if operation.scope == PUBLIC else operation.rate_class,
    }
    if kind_of(operation) is None and operation.built:
        rest = rest_of(operation)
        one |= {"description": rest} if rest else {}
    if not operation.built:
        one["x-not-implemented"] = True
        one["description"] = "Documented; its machinery is not part of this version."
    if operation.lacks:
        one["x-not-implemented"] = operation.lacks
    if operation.scope == SERVER_ADMIN:
        one["description"] = "For keys with the role admin in all workspaces."
    one["parameters"] = [*_in_path(operation), *_in_query(operation, shapes), *_in_head(operation)]
    if operation.takes:
        one["requestBody"] = _body(operation, shapes, examples)
    answers: Schema = {str(operation.success): _success(operation, table, shapes)}
    for status in operation.also:
        answers[str(status)] = _also(operation, status, shapes)
    if conditional(operation):
        answers["304"] = {
            "description": "What the client has is still good",
            "headers": {"ETag": header("ETag"), **rate_headers(operation)},
        }
    for status in refusals(operation):
        problem = {"$ref": f"#/components/responses/{problem_name(status)}"}
        answers.setdefault(str(status), problem)
    one["responses"] = dict(sorted(answers.items()))
    if operation.scope == METRICS:
        one["security"] = [{}, {"bearer": []}]
    else:
        one["security"] = [] if open_to_all else [{"bearer": []}]
    return one


def _in_path(operation: Operation) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": dict(_ID)}
        for name in re.findall(r"\{(\w+)\}", operation.template)
    ]


def _in_query(operation: Operation, shapes: Shapes) -> list[Schema]:
    if not operation.query.model_fields:
        return []
    schema = shapes.whole(shapes.sent(operation.query))
    found: list[Schema] = []
    for name, value in schema["properties"].items():
        shown = _in_order(operation, name, _not_null(value))
        one: Schema = {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": shown,
        }
        if "description" in shown:
            one["description"] = shown.pop("description")
        if shown.get("type") == "array":
            one |= {"style": "form", "explode": False}
        found.append(one)
    return found


def _in_order(operation: Operation, name: str, schema: Schema) -> Schema:
    """`sort`, where the fields are known."""
    kind = kind_of(operation)
    if name != "sort" or not issubclass(operation.query, ListQuery):
        return schema
    fields = kind.sorts if kind is not None else operation.query.sorts
    if not fields:
        return schema
    one = f"({'|'.join(fields)})(:(asc|desc))?"
    about = f"`field:asc` or `field:desc`, several by comma: {', '.join(fields)}"
    return {**schema, "pattern": f"^{one}(,{one})*$", "description": about}


def _not_null(schema: Schema) -> Schema:
    """A parameter is there or not; it is never null."""
    if "anyOf" not in schema:
        return dict(schema)
    arms = [arm for arm in schema["anyOf"] if arm.get("type") != "null"]
    rest = {k: v for k, v in schema.items() if k not in ("anyOf", "default")}
    return {**arms[0], **rest} if len(arms) == 1 else {**rest, "anyOf": arms}


def _in_head(operation: Operation) -> list[Schema]:
    def one(name: str, about: str, pattern: str | None = None) -> Schema:
        schema = {"type": "string"} | ({"pattern": pattern} if pattern else {})
        return {"name": name, "in": "header", "required": False, "description": about,
                "schema": schema}  # fmt: skip

    found = []
    if operation.idempotent:
        found.append(one("Idempotency-Key", "one effect per key and request", _KEY))
    writes = operation.method in ("PUT", "PATCH", "DELETE")
    if writes and kind_of(operation):
        found.append(one("If-Match", "only if it is still this revision", _TAGS_LIST))
    if conditional(operation):
        found.append(one("If-None-Match", "304 if it is still this", _TAGS_LIST))
    if kind_of(operation) and operation.method == "POST":
        found.append(one("If-None-Match", "`*`: 412 if there is one with this id", _TAGS_LIST))
    if kind_of(operation) and operation.method in ("POST", "PUT", "PATCH"):
        strict = "`handling=strict`: what it refers to must exist"
        found.append(one("Prefer", strict))
    if operation.rate_class == "stream":
        found.append(one("Last-Event-ID", "go on after this event", r"^[0-9]{0,18}$"))
    return found


def _body(operation: Operation, shapes: Shapes, examples: Any) -> Schema:
    kind = kind_of(operation)
    if operation.sends is not None:
        schema = shapes.sent(operation.sends)
    elif kind is not None:
        form = {"POST": "new", "PUT": "put", "PATCH": "patch"}[operation.method]
        schema = shapes.document(kind, form)  # type: ignore[arg-type]
    else:
        schema = {"type": "object"}
    content: Schema = {}
    for media in operation.takes:
        if media.endswith("ndjson"):
            content[media] = {"schema": _lines(schema)}
            continue
        content[media] = {"schema": schema}
        if examples:
            content[media]["examples"] = examples
    return {"required": True, "content": content}


def _lines(schema: Schema) -> Schema:
    """NDJSON: the list among the forms of the body, one item per line."""
    whole = next((arm for arm in schema.get("anyOf", ()) if arm.get("type") == "array"), schema)
    return {**whole, "description": "one JSON text per line"}


# --- its answers


def _success(operation: Operation, table: Sequence[Operation], shapes: Shapes) -> Schema:
    answer: Schema = {"description": _told(operation), "headers": rate_headers(operation)}
    if operation.success != 204:
        answer["content"] = _content(operation, shapes)
    kind = kind_of(operation)
    document = kind is not None and not is_list(operation) and operation.method != "DELETE"
    if document or operation.cached:
        answer["headers"]["ETag"] = header("ETag", required=operation.success != 204)
    if operation.success == 201:
        answer["headers"]["Location"] = header("Location")
        answer["links"] = _links(operation, table, shapes)
    if is_list(operation):
        answer["headers"] |= {"Link": header("Link", required=True)}
        answer["headers"] |= {"X-Total-Count": header("X-Total-Count")}
    if kind is not None and operation.method == "GET":
        answer["headers"]["X-Parapet-Stale"] = header("X-Parapet-Stale")
    if operation.idempotent:
        answer["headers"]["Idempotent-Replayed"] = header("Idempotent-Replayed")
    if kind is not None and operation.method in ("POST", "PUT", "PATCH"):
        answer["headers"]["Preference-Applied"] = header("Preference-Applied")
    if not answer.get("links", True):
        del answer["links"]
    return answer


def _told(operation: Operation) -> str:
    match operation.success:
        case 201:
            return "Made"
        case 202:
            return "Accepted"
        case 204:
            return "Done; there is nothing to say"
        case _:
            return "One page of the list" if is_list(operation) else "As asked for"


def _content(operation: Operation, shapes: Shapes) -> Schema:
    schema = answer_schema(operation, shapes)
    others = {EVENT_STREAM: _SERVER_SENT}
    return {
        media: {"schema": schema if media.endswith("json") else others.get(media, _TEXT)}
        for media in operation.gives
    }


def answer_schema(operation: Operation, shapes: Shapes) -> Schema:
    """Of the success answer in JSON; `{}` where the row says nothing."""
    kind = operation.tells if isinstance(operation.tells, Kind) else kind_of(operation)
    if operation.tells is not None and not isinstance(operation.tells, Kind):
        item = shapes.told(operation.tells)
    elif kind is not None and operation.success != 204:
        item = shapes.representation(kind)
    else:
        return {}
    if not is_list(operation) or "data" in shapes.members(item):
        return item
    return shapes.page_of(item, log="cursor" in operation.query.model_fields)


def _also(operation: Operation, status: int, shapes: Shapes) -> Schema:
    """Another answer that is not a problem: the same document under another status."""
    answer: Schema = {"description": "The same, not well" if status >= 500 else "The same"}
    answer["headers"] = rate_headers(operation)
    answer["content"] = _content(operation, shapes)
    return answer


def _links(operation: Operation, table: Sequence[Operation], shapes: Shapes) -> Schema:
    """From what was made to the operations on it."""
    links: Schema = {}
    members = shapes.members(answer_schema(operation, shapes))
    for other in table:
        place, _, last = other.template.rpartition("/")
        if place != operation.template or not last.startswith("{"):
            continue
        if other.method not in ("GET", "PUT", "PATCH", "DELETE"):
            continue
        name = last[1:-1]
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        kind = kind_of(operation)
        member = kind.id_member if kind else snake if snake in members else "id"
        parameters = {each: f"$request.path.{each}" for each in re.findall(r"\{(\w+)\}", place)}
        parameters[name] = f"$response.body#/{member}"
        links[other.operation_id] = {"operationId": other.operation_id, "parameters": parameters}
    return links
