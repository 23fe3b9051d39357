"""The connection: what happens before there is a request (control-api.md §4 step 1, §10).

aiohttp parses; here is what it leaves open: a head that does not come in time, too many
connections, and its own error pages, which become problems.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from proxy.control.middleware import HANDLER_S, PASSAGE, SECURITY_HEADERS, Checks, problem_reply
from proxy.control.problems import Problem
from proxy.model.exchange import Json
from proxy.wire import jsonbody

HEAD_FIELD_BYTES: Final = 8190
TARGET_BYTES: Final = HEAD_FIELD_BYTES - len("GET  HTTP/1.1")  # of a request line of 8190
HEAD_FIELDS: Final = 128


@dataclass(slots=True, frozen=True)
class ListenerLimits:
    """Bounds on connections and on what a request may take.

    `head_s`: from the first byte (or the start) to a complete head.
    """

    head_s: float = 10.0
    keepalive_s: float = 75.0
    linger_s: float = 2.0
    connections: int = 1000
    per_address: int = 100
    handler_s: float = HANDLER_S


class ControlRequest(web.BaseRequest):
    """A request whose answer does not say what serves it."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)


class Listener(web.Server):
    """Makes one `Connection` per TCP connection, and counts them by address."""

    def __init__(self, checks: Checks, limits: ListenerLimits) -> None:
        super().__init__(
            self._serve,
            request_factory=self._request,
            handler_cancellation=True,  # a caller that leaves ends its own request, at once
        )
        self.checks = checks
        self.limits = limits
        self._by_address: dict[str, int] = {}
        self._open = 0

    def __call__(self) -> "Connection":
        return Connection(self)

    def admit(self, address: str) -> bool:
        """Count a connection; False: there are too many."""
        held = self._by_address.get(address, 0)
        if self._open >= self.limits.connections or held >= self.limits.per_address:
            return False
        self._open += 1
        self._by_address[address] = held + 1
        return True

    def gone(self, address: str) -> None:
        self._open -= 1
        held = self._by_address[address] - 1
        if held:
            self._by_address[address] = held
        else:
            del self._by_address[address]

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection), "made above"
        connection.begun()
        try:
            return await self.checks.serve(request)
        finally:
            connection.done()

    def _request(self, message, payload, protocol, writer, task):  # type: ignore[no-untyped-def]
        return ControlRequest(message, payload, protocol, writer, task, self._loop)

    def __repr__(self) -> str:
        return f"<Listener {self._open} open>"


class Connection(web.RequestHandler):
    """One connection.

    The head timer runs from the start, and from the first byte that comes while no request is
    served.  What came together with the request before is left to the keep-alive limit.
    """

    __slots__ = ("_address", "_admitted", "_head_timer", "_listener", "_serving")

    def __init__(self, listener: Listener) -> None:
        limits = listener.limits
        super().__init__(
            listener,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=limits.keepalive_s,
            lingering_time=limits.linger_s,
            max_line_size=TARGET_BYTES,
            max_field_size=HEAD_FIELD_BYTES,
            max_headers=HEAD_FIELDS,
            auto_decompress=False,
        )
        self._listener = listener
        self._address = ""
        self._admitted = False
        self._serving = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._admitted = self._listener.admit(self._address)
        if self._admitted:
            self._expect_head()
        else:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._drop_timer()
        if self._admitted:
            self._admitted = False
            self._listener.gone(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._serving and self._head_timer is None:
            self._expect_head()
        super().data_received(data)

    def begun(self) -> None:
        """A head is complete."""
        self._drop_timer()
        self._serving = True

    def done(self) -> None:
        self._serving = False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp could not parse, and what our own code did not foresee."""
        self._drop_timer()
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        problem = _problem_of(status, exc)
        checks = self._listener.checks
        passage = request.get(PASSAGE)
        if passage is not None:
            told: dict[str, Json] = {"request_id": passage.request_id, "path": passage.path}
            checks.deps.tell("control.crashed", told, exc)
            checks.count(passage, problem.kind.status)
            reply = problem_reply(passage, problem)
            headers = {**passage.headers, **reply.headers, "Content-Type": reply.media}
            response = web.Response(status=reply.status, body=reply.body, headers=headers)
        else:
            response = self._unparsed(problem)
        response.force_close()
        return response

    def _unparsed(self, problem: Problem) -> web.Response:
        checks = self._listener.checks
        request_id = checks.deps.ids.new("req-")
        doc = problem.doc(checks.deps.config().public_url, "", request_id)
        headers = {
            "X-Request-Id": request_id,
            **SECURITY_HEADERS,
            "Content-Type": "application/problem+json",
        }
        checks.deps.metrics.add("control_requests_total", ("none", str(problem.kind.status)))
        return web.Response(status=problem.kind.status, body=jsonbody.dumps(doc), headers=headers)

    def log_exception(self, *args: object, **kw: object) -> None:
        """aiohttp's own log lines; what matters is told in `handle_error`."""

    def _expect_head(self) -> None:
        self._head_timer = asyncio.get_running_loop().call_later(
            self._listener.limits.head_s, self._head_late
        )

    def _drop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        """There is no request to answer, so the answer is written as it is."""
        self._head_timer = None
        if self.transport is None or self._serving:
            return
        response = self._unparsed(Problem("request-timeout", "the request head came too slowly"))
        body = response.body
        assert isinstance(body, bytes), "made from bytes"
        lines = [f"{name}: {value}" for name, value in response.headers.items()]
        head = "\r\n".join(
            [
                "HTTP/1.1 408 Request Timeout",
                *lines,
                f"Content-Length: {len(body)}",
                "Connection: close",
            ]
        )
        self.transport.write(head.encode("latin-1") + b"\r\n\r\n" + body)
        self.force_close()


def _problem_of(status: int, exc: BaseException | None) -> Problem:
    if isinstance(exc, LineTooLong):
        # aiohttp says which limit was passed, not what passed it
        line = exc.args[1] == TARGET_BYTES
        slug = "uri-too-long" if line else "header-fields-too-large"
        return Problem(slug, extra={"limit": HEAD_FIELD_BYTES})
    if isinstance(exc, BadHttpMessage):
        if "Too many headers" in exc.message:
            return Problem("header-fields-too-large", extra={"limit": HEAD_FIELDS})
        return Problem("invalid-header", "the request is not well-formed HTTP/1.1")
    return Problem("internal" if status >= 500 else "invalid-header", "")
