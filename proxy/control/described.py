"""GET /openapi.json, /docs, /v1/schemas, /v1/changelog: the API about itself (control-api.md §11).

All of it is public, so that a client can be built before there is a key.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from proxy.control.conditions import check_none
from proxy.control.contract import changelog, examples, page
from proxy.control.deprecations import headers_for
from proxy.control.docs_page import render
from proxy.control.frame import JSON, ControlDeps, Operation, Passage, Reply
from proxy.control.negotiation import accepts
from proxy.control.objects import Published
from proxy.control.openapi import describe
from proxy.control.problems import Problem
from proxy.model.exchange import Json
from proxy.wire import jsonbody

Operations = Callable[[], Sequence[Operation]]
HTML: Final = "text/html; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"
_OWN: Final = {"Content-Security-Policy": "default-src 'self'", "Referrer-Policy": "no-referrer"}


async def get_openapi(operations: Operations, passage: Passage, deps: ControlDeps) -> Reply:
    """Get the description of this API, OpenAPI 3.1."""
    return _unless_known(passage, await _openapi(operations, passage, deps), JSON)


async def get_docs(operations: Operations, passage: Passage, deps: ControlDeps) -> Reply:
    """Read the description of this API as a page."""
    described = await _openapi(operations, passage, deps)

    def make() -> bytes:
        doc = jsonbody.loads(described)
        assert isinstance(doc, dict), "we wrote it"
        return render(doc, changelog())

    body = await asyncio.to_thread(deps.contract.once, f"docs {_tag(described)}", make)
    return _unless_known(passage, body, HTML, _OWN)


async def get_docs_file(name: str, media: str, passage: Passage, deps: ControlDeps) -> Reply:
    """Get a file that the page needs."""
    body = await asyncio.to_thread(deps.contract.once, name, lambda: page(name))
    return _unless_known(passage, body, f"{media}; charset=utf-8", _OWN)


async def list_schemas(_: Passage, deps: ControlDeps) -> Reply:
    """List the objects that have a schema, and until when each is kept."""
    return Reply.json(200, {"data": [each.summary() for each in deps.contract.schemas]})


async def get_schema(passage: Passage, deps: ControlDeps) -> Reply:
    """Get the schema of an object, JSON Schema 2020-12."""
    named = {each.name: each for each in deps.contract.schemas}
    found = named.get(passage.params["name"])
    if found is None:
        raise Problem("not-found", "no such schema", extra={"known": [*named]})
    body = jsonbody.dumps(found.schema())
    return _unless_known(passage, body, JSON, _leaving(found))


async def get_changelog(passage: Passage, _: ControlDeps) -> Reply:
    """Get what changed in this API.

    Newest first; as text where `Accept` asks for it."""
    changes = await asyncio.to_thread(changelog)
    entries: list[Json] = [*reversed(changes)]
    if accepts(passage.request.headers.get("Accept"), (JSON,)):
        return Reply.json(200, {"data": entries})
    lines = [
        f"{entry['version']}  {entry['date']}  {entry['kind']:<10}  {entry['text']}\n"
        for entry in reversed(changes)
    ]
    return Reply(200, "".join(lines).encode(), media=TEXT)


async def _openapi(operations: Operations, passage: Passage, deps: ControlDeps) -> bytes:
    """Made once, beside the loop; a reload that changes what it tells makes it anew."""
    contract, ttl_hours = deps.contract, passage.config.control.idempotency_ttl_hours

    def make() -> bytes:
        return jsonbody.dumps(describe(operations(), contract.deprecated, examples(), ttl_hours))

    return await asyncio.to_thread(contract.once, f"openapi {ttl_hours}", make)


def _leaving(schema: Published) -> dict[str, str]:
    if schema.succeeded_on is None or schema.sunset is None:
        return {}
    return headers_for(schema.succeeded_on, schema.sunset)


def _unless_known(
    passage: Passage, body: bytes, media: str, headers: dict[str, str] | None = None
) -> Reply:
    """The body with its entity tag, or 304 to who has it."""
    etag = _tag(body)
    told = {**(headers or {}), "ETag": etag}
    if check_none(passage.request, etag):
        return Reply(304, media="", headers=told)
    return Reply(200, body, media, told)


def _tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'
