"""The checks that every request passes, in one fixed order (control-api.md §4; tests rely on it).

Step 1, the connection, is `listener.py`.  Steps 14 to 17 are the handler's, in that order.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web

from proxy.control import ratelimit
from proxy.control.aging import handled
from proxy.control.auth import authenticate
from proxy.control.body import BodyPace, check_declared, gunzip, read_body
from proxy.control.conditions import check_grammar
from proxy.control.config import ControlConfig, Principal
from proxy.control.denials import Denials
from proxy.control.deprecations import Deprecated, headers_of, named_in, warned
from proxy.control.frame import (
    ANY_KEY,
    JSON,
    METRICS,
    PROBLEM,
    PUBLIC,
    SERVER_ADMIN,
    ControlDeps,
    Operation,
    Passage,
    Reply,
)
from proxy.control.idempotency import read_key
from proxy.control.negotiation import accepts, media_of
from proxy.control.problems import Problem, retry_later
from proxy.control.ratelimit import Streams
from proxy.control.routes import OPERATIONS
from proxy.control.table import Found, Table
from proxy.control.validation import read_json, read_query
from proxy.model.batch import StoreUnavailable
from proxy.model.events import SERVER_WORKSPACE
from proxy.storage.coord import Buckets
from proxy.wire import jsonbody

HANDLER_S: Final = 30.0
LINE_BYTES: Final = 8190
PASSAGE: Final = web.RequestKey("passage", Passage)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_ALWAYS: Final = ("healthz", "readyz", "metrics")  # answered while draining, too
SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
}
_CORS_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, "
    "X-Request-Id"
)


@dataclass(slots=True)
class Checks:
    """Carries one request through all checks to its handler; what outlives a request is here."""

    deps: ControlDeps
    pace: BodyPace = field(default_factory=BodyPace)
    handler_s: float = HANDLER_S
    table: Table = field(default_factory=lambda: Table(OPERATIONS))
    streams: Streams = field(default_factory=Streams)
    failures: Buckets = field(init=False)
    denials: Denials = field(init=False)

    def __post_init__(self) -> None:
        self.failures = Buckets(self.deps.clock)
        self.denials = Denials(self.deps)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        passage = self._begin(request)
        request[PASSAGE] = passage
        try:
            found = await self._answer(passage)
        except Problem as problem:
            found = await self._refuse(passage, problem)
        except StoreUnavailable as down:
            found = problem_reply(passage, retry_later(down.code, down.detail))
        status = found.status
        self.count(passage, status)
        if isinstance(found, web.StreamResponse):
            return found
        return _response(passage, found)

    def count(self, passage: Passage, status: int) -> None:
        operation = passage.operation.operation_id if passage.operation else "none"
        self.deps.metrics.add("control_requests_total", (operation, str(status)))

    def _begin(self, request: web.BaseRequest) -> Passage:
        asked = request.headers.get("X-Request-Id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else self.deps.ids.new("req-")
        config = self.deps.config()
        headers = {"X-Request-Id": request_id, **SECURITY_HEADERS}
        origin = request.headers.get("Origin")
        if origin is not None and config.control.cors_origins:
            headers["Vary"] = "Origin"
            if origin in config.control.cors_origins or "*" in config.control.cors_origins:
                headers["Access-Control-Allow-Origin"] = origin
        return Passage(request, request_id, request.remote or "", config, headers)

    async def _answer(self, passage: Passage) -> Reply | web.StreamResponse:
        request, deps = passage.request, self.deps
        _check_framing(request)  # what of step 1 the parser lets through
        found = self.table.find(passage.path)  # 3 (2 needs its result)
        passage.operation = found.operation(request.method) if found else None
        always = passage.operation is not None and passage.operation.operation_id in _ALWAYS
        if deps.status.draining() and not always:  # 2
            raise retry_later("draining", close=True)
        if found is None:  # 3
            raise Problem("not-found", "no such path")
        if request.method == "OPTIONS":
            return _options(passage, found)
        operation = passage.operation
        if operation is None:  # 4
            raise Problem("method-not-allowed", headers={"Allow": found.allow})
        passage.params = found.params
        scope = _scope(operation, passage.config)
        if scope == PUBLIC:
            return await self._handle(passage, operation)
        passage.principal = authenticate(  # 5
            request, passage.address, passage.config, self.failures, deps.clock.now_ms()
        )
        deps.key_uses.by(passage.principal, deps.clock.now_ms())
        release = await self._limit(passage, operation)  # 6
        try:
            _permit(passage, scope)  # 7 8 9
            return await self._handle(passage, operation)
        finally:
            if release is not None:
                self.streams.release(release)

    async def _limit(self, passage: Passage, operation: Operation) -> str | None:
        """Take from the key's quota; the key that must give its stream back."""
        caller, rate_class = passage.caller, operation.rate_class
        owner = caller.key_id
        limit = ratelimit.limit_of(passage.config.control.rate_limits, rate_class)
        stream = rate_class == "stream"
        quota = (
            self.streams.take(owner, limit)
            if stream
            else await self.deps.coord.take(_home(caller), rate_class, owner, limit)
        )
        passage.headers |= ratelimit.headers(rate_class, quota, self.deps.clock.now_ms())
        if not quota.allowed:
            seconds = int(passage.headers["Retry-After"])
            raise Problem(
                "quota-exceeded",
                extra={"violated-policies": [rate_class], "retry_after_seconds": seconds},
            )
        return owner if stream else None

    async def _handle(self, passage: Passage, operation: Operation) -> Reply | web.StreamResponse:
        request = passage.request
        if operation.takes:
            check_declared(request, operation.body_cap)  # 10
            passage.media, packed = media_of(request, operation)  # 11
        else:
            packed = False
        if not accepts(request.headers.get("Accept"), operation.gives):  # 11
            raise Problem("not-acceptable", extra={"offered": [*operation.gives]})
        check_grammar(request)  # 12
        key = request.headers.getall("Idempotency-Key", [])
        if key and operation.idempotent:
            if len(key) > 1:
                raise Problem("invalid-idempotency-key", "more than one Idempotency-Key")
            read_key(key[0])
        if operation.takes:
            body = await read_body(request, operation.body_cap, self.pace)
            passage.body = gunzip(body) if packed else body
        sent: dict[str, list[str]] = {}
        for name, value in request.rel_url.query.items():
            sent.setdefault(name, []).append(value)
        if sent and operation.takes and passage.media.endswith("json"):
            read_json(passage.body)  # 12 comes before 13
        leaving = named_in(
            self.deps.contract.deprecated, operation.operation_id, sent, passage.body
        )
        passage.headers |= headers_of(leaving)
        passage.query = read_query(operation.query, sent)  # 13
        if operation.rate_class == "stream":
            return await operation.handler(passage, self.deps)
        try:
            async with asyncio.timeout(self.handler_s):
                reply = await handled(operation.handler, passage, self.deps)  # 13 to 17
        except TimeoutError:
            raise retry_later("unavailable") from None
        return _with_notice(passage, reply, leaving) if leaving else reply

    async def _refuse(self, passage: Passage, problem: Problem) -> Reply:
        if problem.slug == "forbidden":
            await self.denials.tell(passage, problem)
        elif problem.slug == "unauthenticated":
            await self.denials.unauthenticated(passage)
        return problem_reply(passage, problem)


def _check_framing(request: web.BaseRequest) -> None:
    """One Host, and a path as the target: what names the server twice is a smuggler's tool."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) > 1 or (not hosts and request.version >= (1, 1)):
        raise Problem("invalid-header", "a request has exactly one Host", close=True)
    if request.version not in (HttpVersion10, HttpVersion11):
        raise Problem("invalid-header", "only HTTP/1.0 and HTTP/1.1 are spoken here", close=True)
    if len(request.method) + len(request.raw_path) + len("  HTTP/1.1") > LINE_BYTES:
        raise Problem("uri-too-long", extra={"limit": LINE_BYTES}, close=True)
    if not request.raw_path.startswith("/"):
        raise Problem("invalid-header", "the request target is not a path", close=True)


def _home(caller: Principal) -> str:
    """The workspace that a key's bucket is kept with."""
    bound = caller.workspaces
    return next(iter(bound)) if bound is not None and len(bound) == 1 else SERVER_WORKSPACE


def _scope(operation: Operation, config: ControlConfig) -> str:
    if operation.scope == METRICS:
        return ANY_KEY if config.control.metrics_auth == "key" else PUBLIC
    return operation.scope


def _permit(passage: Passage, scope: str) -> None:
    """Steps 7, 8 and 9.  Raises Problem 403, 404."""
    caller, config = passage.caller, passage.config
    workspace_id = passage.params.get("workspace")
    # SECURITY: what the key is not bound to is refused alike whether it exists or not.
    if workspace_id is not None and not caller.bound_to(workspace_id):
        raise Problem("forbidden", extra={"reason": "workspace_mismatch"})
    if not caller.admits(passage.address):
        raise Problem("forbidden", extra={"reason": "ip_not_allowed"})
    if scope == SERVER_ADMIN:
        if not caller.server_admin:
            raise Problem(
                "forbidden",
                extra={"reason": "role_restriction", "required_scopes": [SERVER_ADMIN]},
            )
    elif scope != ANY_KEY and scope not in caller.scopes:
        raise Problem("forbidden", extra={"reason": "scope_missing", "required_scopes": [scope]})
    if workspace_id is not None:
        if workspace_id not in config.workspaces:
            raise Problem("not-found", "no such workspace")
        passage.workspace_id = workspace_id


def _with_notice(
    passage: Passage, reply: Reply | web.StreamResponse, leaving: Sequence[Deprecated]
) -> Reply | web.StreamResponse:
    """What a request that uses something deprecated is told; a replay is told it, too."""
    if isinstance(reply, Reply):
        if "Link" in reply.headers:
            reply.headers["Link"] += f", {passage.headers['Link']}"
        if reply.status < 300 and reply.media == JSON:
            reply.body = warned(reply.body, leaving)
    return reply


def problem_reply(passage: Passage, problem: Problem) -> Reply:
    doc = problem.doc(passage.config.public_url, passage.path, passage.request_id)
    headers = dict(problem.headers)
    if problem.close:
        headers["Connection"] = "close"
    return Reply(problem.kind.status, jsonbody.dumps(doc), PROBLEM, headers)


def _options(passage: Passage, found: Found) -> Reply:
    headers = {"Allow": found.allow}
    if "Access-Control-Allow-Origin" in passage.headers:
        headers["Access-Control-Allow-Methods"] = found.allow
        headers["Access-Control-Allow-Headers"] = _CORS_HEADERS
        headers["Access-Control-Max-Age"] = "600"
    return Reply(204, media="", headers=headers)


def _response(passage: Passage, reply: Reply) -> web.Response:
    headers = {**passage.headers, **reply.headers}
    if reply.media:
        headers["Content-Type"] = reply.media
    response = web.Response(status=reply.status, body=reply.body, headers=headers)
    if headers.get("Connection") == "close":
        response.force_close()
    return response
