"""What the data plane does with each request: a few words at the door, then the pipeline.

Nothing escapes `Front.handle`.  Before a byte of the answer is out a bug is told as a 500 of the
caller's dialect; afterwards the answer is cut, for a second head on the same connection would be
taken for the answer to the next request.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.gateway.downstream import HttpDownstream
from proxy.gateway.pipeline import serve
from proxy.gateway.turn import Gateway
from proxy.model.errors import InternalFault, InvalidRequest, Overloaded, ProxyError
from proxy.model.exchange import Dialect, Inbound
from proxy.wire.errors import render_error
from proxy.wire.headers import render

_GZIP: Final = (b"gzip", b"x-gzip")


class Front:
    """Serves what the front has parsed."""

    def __init__(self, gateway: Gateway, on_bug: Callable[[BaseException], None]) -> None:
        self._gateway = gateway
        self._on_bug = on_bug

    async def handle(self, inbound: Inbound, caller: HttpDownstream) -> None:
        gateway = self._gateway
        inbound.request_id = gateway.ids.new("req-")
        gateway.in_flight += 1
        try:
            await serve(inbound, caller, gateway, self._at_the_door(inbound, caller))
        except asyncio.CancelledError:
            caller.keep_alive = False
            raise
        except BaseException as bug:
            self._on_bug(bug)
            if caller.begun:
                caller.hold(b"", cut=True)
            else:
                self._answer_bug(inbound, caller)
            caller.end()
        finally:
            gateway.in_flight -= 1
            caller.over()

    def _at_the_door(self, inbound: Inbound, caller: HttpDownstream) -> ProxyError | None:
        """Before a byte of the body is read: overload, drain, how the body is coded."""
        gateway = self._gateway
        if gateway.draining():
            caller.keep_alive = False  # served, and the connection ends with the answer
        if gateway.in_flight > gateway.rules().doc.max_in_flight:
            caller.keep_alive = False
            return Overloaded("Too many requests are under way: try again.", retry_after_s=1)
        coding = inbound.marks.get(b"content-encoding")
        if coding is None:
            return None
        coding = coding.lower()
        if coding in _GZIP:
            caller.gzip = True
        elif coding and coding != b"identity":
            return InvalidRequest(
                "The content-encoding of the request is not supported: send it plain or as gzip."
            )
        return None

    def _answer_bug(self, inbound: Inbound, caller: HttpDownstream) -> None:
        fault = InternalFault("Internal error.")
        dialect: Dialect = "anthropic_messages" if "/messages" in inbound.target else "openai_chat"
        status, headers, body = render_error(dialect, fault, inbound.request_id)
        lines = render(headers) + b"x-parapet-request-id: " + inbound.request_id.encode() + b"\r\n"
        caller.begin(status, lines, length=len(body))
        caller.hold(body)
