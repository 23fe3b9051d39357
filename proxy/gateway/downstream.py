"""The caller's side of the data plane: aiohttp parses the request, we write the answer.

The head and the first bytes of the body leave in one write, straight to the transport; nothing
else in the code base writes there.  aiohttp touches three things of what a handler returns:
`prepare`, `write_eof` and `keep_alive`; by then everything has been written.

Trap: aiohttp does not know of our writes.  An exception that left the handler after a byte is out
would make it append a second, complete answer; `handlers.py` lets nothing escape.
"""

import asyncio
import zlib
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from proxy.model.errors import InvalidRequest, TooLarge
from proxy.model.ports import Call

HIGH_WATER_BYTES: Final = 64 * 1024
BODY_FREE_S: Final = 5.0
BODY_MIN_BYTES_PER_S: Final = 1024
GUNZIP_CHUNK_BYTES: Final = 64 * 1024

_STATUS_LINES: Final = {
    s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode("ascii") for s in HTTPStatus
}


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


class FrontProtocol(RequestHandler):
    """One connection of a caller.  Adds to aiohttp's: who to pause when he does not read, and
    since when a request head has been incomplete (slow headers are cut by `FrontServer.sweep`)."""

    __slots__ = ("following", "head_since", "peer")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.following: Call | None = None
        self.head_since = self._loop.time()
        self.peer: str = (self.peername or ("",))[0]
        assert self.transport is not None
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self.head_since = 0.0
        elif not self.head_since and self._current_request is None:
            self.head_since = self._loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.following is not None:
            self.following.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.following is not None:
            self.following.resume()

    def busy(self) -> bool:
        return bool(self._messages) or self._current_request is not None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A request that aiohttp could not parse: answered in the OpenAI shape, then closed."""
        if self.transport is not None:
            reason = "The request is not valid HTTP/1.1." if status < 500 else "Internal error."
            kind = "invalid_request_error" if status < 500 else "server_error"
            body = (
                f'{{"error":{{"message":"{reason}","type":"{kind}","param":null,"code":null}}}}'
            ).encode()
            head = (
                _STATUS_LINES.get(status, _STATUS_LINES[400])
                + b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
                + str(len(body)).encode("ascii")
                + b"\r\n\r\n"
            )
            self.transport.write(head + body)
        return Written(keep_alive=False)


class FrontRequest:
    """What the protocol hands to the handler: the parsed head and the body's reader, no more."""

    __slots__ = ("_task", "message", "payload", "protocol")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: FrontProtocol,
        task: object,
    ) -> None:
        self.message = message
        self.payload = payload
        self.protocol = protocol
        self._task = task

    def _cancel(self, exc: BaseException) -> None:
        self.payload.set_exception(exc)

    def _finish(self) -> None:
        """Nothing to clean: no files, no forms."""


class Written(web.StreamResponse):
    """An answer that has been written already."""

    def __init__(self, *, keep_alive: bool) -> None:
        self._kept = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._kept

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


KEPT: Final = Written(keep_alive=True)
CLOSED: Final = Written(keep_alive=False)


class HttpDownstream:
    """`model.ports.Downstream` over one aiohttp connection."""

    __slots__ = (
        "_chunked",
        "_closing",
        "_cut",
        "_date",
        "_ended",
        "_expects",
        "_gzip",
        "_head",
        "_http11",
        "_last",
        "_length",
        "_no_body",
        "_payload",
        "_protocol",
        "begun",
        "bytes_sent",
        "keep_alive",
    )

    def __init__(
        self,
        protocol: FrontProtocol,
        payload: StreamReader,
        date: DateLine,
        *,
        http11: bool,
        keep_alive: bool,
    ) -> None:
        self._protocol = protocol
        self._payload = payload
        self._date = date
        self._http11 = http11
        self.keep_alive = keep_alive
        self._head: bytes | None = None
        self._last = b""
        self._cut = False
        self._ended = False
        self._chunked = False
        self._no_body = False
        self._closing = False
        self._expects = False
        self._gzip = False
        self._length: int | None = None
        self.begun = False
        self.bytes_sent = 0

    def expect(self, *, continue_: bool, gzip: bool, length: int | None, head_only: bool) -> None:
        """What the request's head says of its body and of the answer's."""
        self._expects, self._gzip, self._length, self._no_body = continue_, gzip, length, head_only

    @property
    def gone(self) -> bool:
        transport = self._protocol.transport
        return transport is None or transport.is_closing()

    # --- the request's body

    async def body(self, limit_bytes: int) -> bytes:
        if self._length is not None and self._length > limit_bytes:
            self.keep_alive = False
            raise _too_large(limit_bytes)
        payload = self._payload
        if payload.is_eof():
            data = payload.read_nowait(-1)
            if len(data) > limit_bytes:
                raise _too_large(limit_bytes)
        else:
            data = await self._collect(limit_bytes)
        return _gunzip(data, limit_bytes) if self._gzip else data

    async def _collect(self, limit_bytes: int) -> bytes:
        if self._expects and self._protocol.transport is not None:
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        loop = asyncio.get_running_loop()
        started, size = loop.time(), 0
        chunks: list[bytes] = []
        while True:
            due = started + BODY_FREE_S + size / BODY_MIN_BYTES_PER_S
            try:
                async with asyncio.timeout_at(due):
                    chunk = await self._payload.readany()
            except TimeoutError:
                self.keep_alive = False
                raise InvalidRequest(
                    "The request body came too slowly: send at least 1 KiB per second."
                ) from None
            except (web.RequestPayloadError, ValueError):
                self.keep_alive = False
                raise InvalidRequest("The request body is not valid HTTP.") from None
            if not chunk:
                return b"".join(chunks)
            size += len(chunk)
            if size > limit_bytes:
                self.keep_alive = False
                raise _too_large(limit_bytes)
            chunks.append(chunk)

    # --- the answer

    def begin(self, status: int, head: bytes, *, length: int | None) -> None:
        """`head`: rendered header lines, each ended by CR LF, without framing headers."""
        line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode("ascii")
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
        now = self._protocol._loop.time()  # noqa: SLF001 - our own subclass's loop
        self._head = line + head + framing + self._date.at(now) + b"\r\n"

    def write(self, data: bytes) -> None:
        transport = self._protocol.transport
        if transport is None or not data:
            return
        self.bytes_sent += len(data)
        self.begun = True
        if self._no_body:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head is not None:
            data, self._head = self._head + data, None
        if data:
            transport.write(data)

    def hold(self, last: bytes, *, cut: bool = False) -> None:
        self._last, self._cut = last, cut

    def end(self) -> None:
        """The last write.  Does nothing the second time."""
        if self._ended:
            return
        self._ended = True
        self.follow(None)
        transport = self._protocol.transport
        if transport is None:
            return
        data = self._last
        self.bytes_sent += len(data)
        if self._no_body:
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
        self._protocol.following = call
        if call is not None and self._protocol.writing_paused:
            call.pause()


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
