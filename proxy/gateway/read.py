"""Stage 3: bytes to an Exchange.  Here a body is parsed once, by the rules of its route.

On a guarded route two parsers must not see two texts (guardrails.md §7.1): duplicate members,
broken UTF-8, unpaired surrogates and absurd depth are refused.  Elsewhere the provider judges its
own grammar; we need only the model, and whether a stream is wanted.
"""

import hashlib
import hmac
from typing import Final

from proxy.gateway.admission import Visit, route_by_model
from proxy.gateway.ask import OFF_LOOP_BYTES
from proxy.gateway.snapshot import RouteView
from proxy.gateway.tell import MODEL_CHARS
from proxy.gateway.turn import Gateway, Turn
from proxy.model.errors import Forbidden, InvalidRequest, Unreadable
from proxy.model.exchange import Exchange, Inbound, Json
from proxy.model.ports import Downstream
from proxy.model.records import RequestRecord
from proxy.wire.dialects.registry import reader_of, request_view
from proxy.wire.jsonbody import read_object, strict_object

_WITH_BODY: Final = frozenset({"chat", "completions", "embeddings", "messages", "count_tokens"})


async def read(
    visit: Visit,
    inbound: Inbound,
    record: RequestRecord,
    caller: Downstream,
    gateway: Gateway,
    started: float,
) -> Turn:
    """Parse the body and settle the route.

    Raises InvalidRequest (not JSON, or ambiguous), Unreadable, NoSuchRoute, Forbidden (a path or a
    content that cannot be scanned on a guarded route).
    """
    surface, route = visit.surface, visit.route
    operation = surface.operation
    record.dialect, record.operation = surface.dialect, operation
    record.workspace_id = visit.workspace.id
    record.request_bytes = len(inbound.body)
    if visit.key is not None:
        record.api_key_id = visit.key.doc.id
    doc: dict[str, Json] | None = None
    dialect = None
    model: str | None = surface.model
    stream = want_usage = False
    user: str | None = None
    if operation in _WITH_BODY:
        dialect = reader_of(surface)
        strict = visit.workspace.guarded or (route is not None and route.guard is not None)
        doc = await _parse(inbound.body, gateway, strict=strict)
        model, stream, want_usage, user = _view(visit, doc)
        if route is None:
            route = route_by_model(visit, model)
            if route.guard is not None and not strict:
                doc = await _parse(inbound.body, gateway, strict=True)
                model, stream, want_usage, user = _view(visit, doc)
    elif route is None:
        route = route_by_model(visit, model)
    record.requested_model = model if model is None else model[:MODEL_CHARS]
    record.stream = stream
    record.route_id = route.doc.id
    if route.guard is not None:
        record.policy_profile = route.guard.profile
        _must_be_scannable(visit, route, doc)
    if user is not None:
        record.user_id_hash = pseudonym(gateway.server_key, user)
    exchange = Exchange(surface, inbound, inbound.body, doc, model, stream, want_usage, user)
    guarded = route.answers and dialect is not None
    turn = Turn(visit, route, exchange, dialect, record, caller, started, guarded)
    if route.guard is not None:
        turn.draw = route.guard.draw(record.request_id)
    return turn


def pseudonym(server_key: bytes, user: str) -> str:
    """16 hex digits that stand for a user (events.md §3.2): the name itself is stored nowhere."""
    return hmac.new(server_key, user.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]


async def _parse(body: bytes, gateway: Gateway, *, strict: bool) -> dict[str, Json]:
    parse = strict_object if strict else read_object
    try:
        if strict and len(body) > OFF_LOOP_BYTES:
            return await gateway.off_loop.run(lambda: parse(body))
        return parse(body)
    except ValueError as why:
        raise InvalidRequest(f"The request body cannot be read: {why}") from why


def _view(visit: Visit, doc: dict[str, Json]) -> tuple[str | None, bool, bool, str | None]:
    try:
        return request_view(visit.surface, doc)
    except ValueError as why:
        raise Unreadable(f"The request body cannot be read: {why}") from why


def _must_be_scannable(visit: Visit, route: RouteView, doc: dict[str, Json] | None) -> None:
    """guardrails.md §7.4: what no rule can look at does not pass in silence."""
    operation = visit.surface.operation
    if operation == "pass":
        raise Forbidden(
            f"The path {visit.surface.path[:128]!r} cannot be scanned, and the route "
            f"{route.doc.id!r} has policy packs. Use a route without packs for it.",
            code="unscannable_endpoint",
        )
    if doc is None:
        return
    member = {"completions": "prompt", "embeddings": "input"}.get(operation)
    if member is not None and _holds_token_ids(doc.get(member)):
        raise Forbidden(
            f"Token ids in {member!r} cannot be scanned, and the route {route.doc.id!r} has "
            "policy packs. Send text.",
            code="unscannable_content",
        )


def _holds_token_ids(value: Json) -> bool:
    if not isinstance(value, list):
        return False
    return any(
        isinstance(item, (int, float)) or (isinstance(item, list) and _holds_token_ids(item))
        for item in value
    )
