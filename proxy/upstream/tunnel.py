"""The one exchange with a forward proxy before it becomes a mere wire: CONNECT and its answer."""

import asyncio
from typing import cast

from proxy.model.ports import TransportFault
from proxy.upstream import failures

ANSWER_LIMIT_BYTES = 16_384


class Tunnel(asyncio.Protocol):
    """`opened` is done when the proxy has said 2xx, and failed with a TransportFault otherwise.

    Until TLS begins the endpoint says nothing, so a byte behind the proxy's answer is a fault.
    """

    def __init__(self, authority: str, authorization: str = "") -> None:
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if authorization:
            lines.append(f"Proxy-Authorization: {authorization}")
        self._request = "\r\n".join([*lines, "", ""]).encode()
        self._answer = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, ended, rest = self._answer.partition(b"\r\n\r\n")
        if not ended:
            if len(self._answer) > ANSWER_LIMIT_BYTES:
                self._fail(TransportFault("refused", "the forward proxy said too much"))
            return
        words = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if rest or len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            self._fail(TransportFault("refused", "the forward proxy said nonsense"))
        elif words[1].isdigit() and len(words[1]) == 3 and words[1].startswith(b"2"):
            if not self.opened.done():
                self.opened.set_result(None)
        else:
            status = words[1][:3].decode("latin-1")
            self._fail(TransportFault("refused", f"the forward proxy answered {status}"))

    def connection_lost(self, exc: Exception | None) -> None:
        detail = "the forward proxy closed"
        if exc is not None:
            detail = f"the forward proxy: {failures.while_open(exc, 0).detail}"
        self._fail(TransportFault("refused", detail))

    def _fail(self, fault: TransportFault) -> None:
        if not self.opened.done():
            self.opened.set_exception(fault)
            self.opened.exception()  # seen, even if nobody waits any more
