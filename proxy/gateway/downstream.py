"""The caller's side of one request: its body as it comes in, its answer as it goes out.

The connection (`front.py`) pushes the body in; the answer leaves straight through its transport,
the head and the first bytes of the body in one write.  Nothing else in the code base writes there
while a request is being answered.
"""

import asyncio
import zlib
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, Protocol

from proxy.model.errors import InvalidRequest, ProxyError, TooLarge
from proxy.model.ports import Call

HIGH_WATER_BYTES: Final = 64 * 1024
BODY_FREE_S: Final = 5.0
BODY_MIN_BYTES_PER_S: Final = 1024

STATUS_LINES: Final = {
    s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode("ascii") for s in HTTPStatus
}
_ANY_SIZE: Final = 1 << 62


class Line(Protocol):
    """The connection, as the request on it sees it.

    `leaving`: it ends with the answer under way.  `left`: the caller has gone.
    """

    transport: asyncio.Transport | None
    loop: asyncio.AbstractEventLoop
    date: "DateLine"
    following: Call | None
    writing_paused: bool
    leaving: bool
    left: bool

    def served(self, caller: "HttpDownstream") -> None: ...
    def wanted(self) -> None:
        """Somebody waits for the rest of the body."""
        ...


class DateLine:
    """The `date` header line, rendered once per second of the monotonic clock."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def at(self, loop_time: float) -> bytes:
        second = int(loop_time)
        if second != self._second:
            self._second = second
            self._line = b"date: " + formatdate(usegmt=True).encode("ascii") + b"\r\n"
        return self._line


class HttpDownstream:
    """`model.ports.Downstream` over one connection.

    The connection appends to `chunks` and `size`, then says `completed` or `broken`, once; it sets
    `length`, `expects` and `no_body` by what the request's head says, the handler sets `gzip`.
    """

    __slots__ = (
        "_chunked",
        "_cut",
        "_fault",
        "_head",
        "_http11",
        "_last",
        "_limit_bytes",
        "_line",
        "_pieces",
        "_since",
        "_waiter",
        "begun",
        "bytes_sent",
        "chunks",
        "complete",
        "ended",
        "expects",
        "gzip",
        "keep_alive",
        "length",
        "no_body",
        "size",
    )

    def __init__(self, line: Line, *, http11: bool, keep_alive: bool) -> None:
        self._line = line
        self._http11 = http11
        self.keep_alive = keep_alive
        self.length: int | None = None
        self.expects = False
        self.gzip = False
        self.no_body = False
        self.chunks: list[bytes] = []
        self.size = 0
        self.complete = False
        self._fault: ProxyError | None = None
        self._limit_bytes = _ANY_SIZE
        self._pieces = 0
        self._waiter: asyncio.Future[None] | None = None
        self._since = 0.0
        self._head: bytes | None = None
        self._last = b""
        self._cut = False
        self._chunked = False
        self.ended = False
        self.begun = False
        self.bytes_sent = 0

    def __repr__(self) -> str:
        body = "whole" if self.complete else "partial"
        state = "ended" if self.ended else "begun" if self.begun else "waiting"
        return f"<HttpDownstream {state}, {body} body of {self.size} bytes>"

    @property
    def gone(self) -> bool:
        line = self._line
        return line.left or line.transport is None or line.transport.is_closing()

    # --- the request's body

    async def body(self, limit_bytes: int) -> bytes:
        if self.length is not None and self.length > limit_bytes:
            self.keep_alive = False
            raise _too_large(limit_bytes)
        if not self.complete and self._fault is None:
            await self._arrival(limit_bytes)
        if self._fault is not None:
            raise self._fault
        if self.size > limit_bytes:
            raise _too_large(limit_bytes)
        chunks, self.chunks = self.chunks, []
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return _gunzip(data, limit_bytes) if self.gzip else data

    async def _arrival(self, limit_bytes: int) -> None:
        line = self._line
        if self.expects and not self.size and line.transport is not None:
            line.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.expects = False
        self._limit_bytes = limit_bytes
        self._since = line.loop.time()
        self._waiter = line.loop.create_future()
        line.wanted()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def unclaimed(self) -> bool:
        """Nobody has asked for the body yet."""
        return self._limit_bytes == _ANY_SIZE and not self.ended

    def grown(self) -> bool:
        """More of the body came, and not its end.  False: it is over the limit."""
        chunks = self.chunks
        if self.ended:
            chunks.clear()  # nobody wants it: only its end counts
            return True
        if len(chunks) > self._pieces + 1:  # many tiny chunks: one piece of memory
            chunks[self._pieces :] = [b"".join(chunks[self._pieces :])]
        self._pieces = len(chunks)
        if self.size > self._limit_bytes:
            self.broken(_too_large(self._limit_bytes))
            return False
        return True

    def too_slow(self, now: float) -> bool:
        """Somebody waits for the body, and it comes too slowly: he is told."""
        allowed_s = BODY_FREE_S + self.size / BODY_MIN_BYTES_PER_S
        if self._waiter is None or now <= self._since + allowed_s:
            return False
        self.broken(
            InvalidRequest("The request body came too slowly: send at least 1 KiB per second.")
        )
        return True

    def completed(self) -> None:
        self.complete = True
        self._wake()

    def broken(self, fault: ProxyError) -> None:
        """The body will not be whole: the answer is `fault`, and the connection ends with it."""
        self.keep_alive = False
        self._fault = fault
        self.chunks.clear()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _must_close(self) -> bool:
        """What follows the answer on this connection could not be told from the rest of the
        body, or that rest is too long to be read for nothing."""
        if self.complete:
            return False
        return self.expects or self.length is None or self.length - self.size > HIGH_WATER_BYTES

    # --- the answer

    def begin(self, status: int, head: bytes, *, length: int | None) -> None:
        """`head`: rendered header lines, each ended by CR LF, without framing headers."""
        first = STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode("ascii")
        line = self._line
        if line.leaving or self._must_close():
            self.keep_alive = False
        framing = b""
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif status not in (204, 304):
            if self._http11:
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
            else:
                self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif not self._http11:
            framing += b"connection: keep-alive\r\n"
        self._head = first + head + framing + line.date.at(line.loop.time()) + b"\r\n"

    def write(self, data: bytes) -> None:
        transport = self._line.transport
        if transport is None or not data:
            return
        self.bytes_sent += len(data)
        self.begun = True
        if self.no_body:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head is not None:
            data, self._head = self._head + data, None
        if data:
            transport.write(data)

    def hold(self, last: bytes, *, cut: bool = False) -> None:
        self._last, self._cut = last, cut

    def release(self) -> None:
        last, self._last = self._last, b""
        self.write(last)

    def end(self) -> None:
        """The last write.  Does nothing the second time."""
        if self.ended:
            return
        self.ended = True
        self._line.following = None
        transport = self._line.transport
        if transport is None:
            return
        data = self._last
        self.bytes_sent += len(data)
        if self.no_body:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if not self._cut:
                data += b"0\r\n\r\n"
        if self._head is not None:
            data, self._head = self._head + data, None
        if data:
            self.begun = True
            transport.write(data)
        if self._cut:
            self.keep_alive = False
            transport.close()  # flushes what was written, then ends without the last chunk

    def follow(self, call: Call | None) -> None:
        self._line.following = call
        if call is not None and self._line.writing_paused:
            call.pause()

    def over(self) -> None:
        """The handler is done.  A request that was not answered ends its connection."""
        if not self.begun:
            self.keep_alive = False
        self._line.served(self)


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"The request body is over the limit of {limit_bytes} bytes.")


def _gunzip(data: bytes, limit_bytes: int) -> bytes:
    """Decode within the limit; a bomb is refused before it is blown up."""
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        out = decoder.decompress(data, limit_bytes + 1)
    except zlib.error:
        raise InvalidRequest("The request body is not valid gzip.") from None
    if len(out) > limit_bytes:
        raise _too_large(limit_bytes)
    if not decoder.eof:
        raise InvalidRequest("The request body is a gzip stream that ends early.")
    return out
