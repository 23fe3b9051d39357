"""One accepted connection: requests in, bytes out, and the moment at which the client goes.

Every wait ends at once when the client leaves, by `Gone`; `on_gone` is called at that very moment.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

_FLUSH_S = 0.02  # a reset throws away what the peer has not read: give it the time to read


class Gone(Exception):
    """The client has left."""


@dataclass(frozen=True)
class RequestHead:
    at: float
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


class Connection(asyncio.Protocol):
    """Reads and writes one connection; whoever accepts it starts to serve it."""

    def __init__(self, accept: Callable[["Connection"], None]) -> None:
        self.number = 0
        self.asked = 0
        self.on_gone: Callable[[], None] = lambda: None
        self._accept = accept
        self._buffer = bytearray()
        self._fresh = asyncio.Event()
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._waits_for_head = False

    @property
    def idle(self) -> bool:
        return self._waits_for_head and not self._buffer and self.asked > 0

    # --- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._accept(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._fresh.set()

    def eof_received(self) -> bool:
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _leave(self) -> None:
        if not self._gone.is_set():
            self._gone.set()
            self._fresh.set()
            self._writable.set()
            self.on_gone()

    # --- requests

    async def read_head(self) -> RequestHead:
        """The next request line and headers.  Raises ValueError when that is not HTTP."""
        self._waits_for_head = True
        text = (await self._read_until(b"\r\n\r\n")).decode("latin-1")
        self._waits_for_head = False
        self.asked += 1
        first, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = tuple((name, value.strip()) for name, _, value in pairs)
        return RequestHead(time.monotonic(), method, target, headers)

    async def read_body(self, head: RequestHead) -> bytes:
        if head.header("expect").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.header("transfer-encoding").lower() != "chunked":
            return await self._read_exactly(int(head.header("content-length") or 0))
        body = b""
        while size := int((await self._read_until(b"\r\n")).split(b";")[0], 16):
            body += await self._read_exactly(size)
            await self._read_exactly(2)
        while await self._read_until(b"\r\n") != b"\r\n":
            pass
        return body

    async def _read_until(self, end: bytes) -> bytes:
        while (place := self._buffer.find(end)) < 0:
            await self._more()
        return await self._read_exactly(place + len(end))

    async def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _more(self) -> None:
        if self._gone.is_set():
            raise Gone
        self._fresh.clear()
        await self._fresh.wait()

    # --- answers

    async def send(self, data: bytes) -> None:
        if self._gone.is_set() or self._transport.is_closing():
            raise Gone
        self._transport.write(data)
        await self._writable.wait()
        if self._gone.is_set():
            raise Gone

    async def sleep(self, seconds: float | None) -> None:
        """Waits; None: until the client goes."""
        try:
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            return
        raise Gone

    def close(self) -> None:
        """FIN, after everything written has left."""
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    async def reset(self) -> None:
        """RST, after everything written has left."""
        while self._transport.get_write_buffer_size():
            await self.sleep(_FLUSH_S)
        await self.sleep(_FLUSH_S)
        sock = cast(socket.socket, self._transport.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
