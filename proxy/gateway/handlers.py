"""The front of the data plane: aiohttp's server, a slim request, and one handler that lets nothing
escape once a byte is out.

`web.Server` without router, middleware, access log; `handler_cancellation=True`, so that a caller
who leaves cancels his request.  Slow heads are cut by a sweep, not by a timer per request.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from proxy.gateway.downstream import (
    CLOSED,
    KEPT,
    DateLine,
    FrontProtocol,
    FrontRequest,
    HttpDownstream,
    Written,
)
from proxy.gateway.pipeline import serve
from proxy.gateway.turn import Gateway
from proxy.model.errors import InternalFault, InvalidRequest, Overloaded, ProxyError
from proxy.model.exchange import Dialect, Inbound
from proxy.wire.errors import render_error
from proxy.wire.headers import render, walk

KEEPALIVE_S: Final = 75.0
HEAD_S: Final = 10.0
_GZIP: Final = (b"gzip", b"x-gzip")


class FrontServer(web.Server):
    """aiohttp's low-level server with our protocol and our request."""

    def __init__(self, handler: "Front") -> None:
        super().__init__(
            handler.handle,  # type: ignore[arg-type]
            request_factory=_make_request,  # type: ignore[arg-type]
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=2.0,
        )
        self._front = handler

    def __call__(self) -> FrontProtocol:
        return FrontProtocol(self, loop=self._loop, **self._kwargs)

    def sweep(self, now: float) -> int:
        """Close connections whose request head has been incomplete for `HEAD_S`."""
        slow = [
            connection
            for connection in self.connections
            if isinstance(connection, FrontProtocol)
            and connection.head_since
            and now - connection.head_since > HEAD_S
            and not connection.busy()
        ]
        for connection in slow:
            connection.force_close()
        return len(slow)


def _make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: FrontProtocol,
    _writer: object,
    task: object,
) -> FrontRequest:
    return FrontRequest(message, payload, protocol, task)


class Front:
    """Turns a parsed request into an `Inbound` and a `Downstream`, and runs the pipeline."""

    def __init__(self, gateway: Gateway, on_bug: Callable[[BaseException], None]) -> None:
        self._gateway = gateway
        self._on_bug = on_bug
        self._date = DateLine()

    async def handle(self, request: FrontRequest) -> Written:
        gateway = self._gateway
        message, protocol = request.message, request.protocol
        protocol.head_since = 0.0
        caller = HttpDownstream(
            protocol,
            request.payload,
            self._date,
            http11=message.version.minor == 1 and message.version.major == 1,
            keep_alive=not message.should_close,
        )
        headers, marks = walk(message.raw_headers)
        inbound = Inbound(
            gateway.ids.new("req-"),
            message.method,
            message.path,
            headers,
            peer=protocol.peer,
            marks=marks,
        )
        gateway.in_flight += 1
        try:
            refusal = self._at_the_door(inbound, caller)
            if refusal is not None:
                self._refuse(inbound, refusal, caller)
            else:
                await serve(inbound, caller, gateway)
        except asyncio.CancelledError:
            raise
        except BaseException as bug:
            self._on_bug(bug)
            if caller.begun:
                caller.hold(b"", cut=True)
            else:
                self._refuse(inbound, InternalFault("Internal error."), caller)
            caller.end()
        finally:
            gateway.in_flight -= 1
        return KEPT if caller.keep_alive else CLOSED

    def _at_the_door(self, inbound: Inbound, caller: HttpDownstream) -> ProxyError | None:
        """Before a byte of the body is read: overload, drain, what the head says of the body."""
        gateway = self._gateway
        marks = inbound.marks
        length, coding = marks.get(b"content-length", b""), marks.get(b"content-encoding", b"")
        if coding or b"expect" in marks or inbound.method == "HEAD" or len(length) > 6:
            coding = coding.strip().lower()
            caller.expect(
                continue_=marks.get(b"expect", b"").lower() == b"100-continue",
                gzip=coding in _GZIP,
                length=int(length) if length.isdigit() else None,
                head_only=inbound.method == "HEAD",
            )
        if gateway.draining():
            caller.keep_alive = False  # served, and the connection ends with the answer
        if gateway.in_flight > gateway.rules().doc.max_in_flight:
            caller.keep_alive = False
            return Overloaded("Too many requests are under way: try again.", retry_after_s=1)
        if coding and coding != b"identity" and coding not in _GZIP:
            return InvalidRequest(
                "The content-encoding of the request is not supported: send it plain or as gzip."
            )
        if (
            marks.get(b"host") == b""
            or inbound.method == "CONNECT"
            or not inbound.target.startswith("/")
        ):
            caller.keep_alive = False
            return InvalidRequest("The request target must be a path, with one Host header.")
        return None

    def _refuse(self, inbound: Inbound, fault: ProxyError, caller: HttpDownstream) -> None:
        dialect: Dialect = "anthropic_messages" if "/messages" in inbound.target else "openai_chat"
        status, headers, body = render_error(dialect, fault, inbound.request_id)
        lines = render(headers) + b"x-parapet-request-id: " + inbound.request_id.encode() + b"\r\n"
        caller.begin(status, lines, length=len(body))
        caller.hold(body)
        caller.end()
