"""A TCP server that does exactly what a script says, byte by byte, and notes what it got.

Each connection is played by the script, a coroutine function over its `Peer`; when it returns the
connection is closed.  Nothing is parsed but the length of a request.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE_BYTES = 65_536


class Gone(Exception):
    """The other side closed."""


class Peer:
    """One connection, seen from the server.  `number` counts from 1."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """A whole request, head and body.  Raises Gone when the other side closed instead."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            return head + await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Gone from error

    async def send(self, data: bytes) -> None:
        """Send, and wait until the kernel has most of it.  Raises Gone."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as error:
            raise Gone from error

    async def gone(self) -> None:
        """Wait until the other side closes, whatever it sends before."""
        with suppress(ConnectionError):
            while await self._reader.read(_PIECE_BYTES):
                pass

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be a wire to another connection until either side closes, then close that one."""
        ways = [(self._reader, writer), (reader, self._writer)]
        copying = [asyncio.create_task(_copy(*way)) for way in ways]  # noqa: TID251
        try:
            await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in copying:
                task.cancel()
            writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()

    def reset(self) -> None:
        """Close with RST: what was sent last may be lost, as in life."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_PIECE_BYTES):
            writer.write(data)
            await writer.drain()


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """Plays `script` on every connection to `port` of 127.0.0.1.

    `peers` counts the connections, `closed` those of them that are closed on both sides.
    """

    def __init__(self, script: Script, *, context: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.peers = 0
        self.closed = 0
        self._script = script
        self._context = context
        self._server: asyncio.Server | None = None
        self._playing: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._play, "127.0.0.1", 0, ssl=self._context, backlog=1000
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_listening()
        for task in list(self._playing):
            task.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)

    def stop_listening(self) -> None:
        """New connections are refused; those that there are go on."""
        assert self._server is not None
        self._server.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        self.peers += 1
        peer = Peer(reader, writer, self.peers)
        try:
            await self._script(peer)
        except Gone:
            pass
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over
        finally:
            self._playing.discard(task)
            self.closed += 1
            await peer.close()


def answering(*answers: bytes, requests: list[bytes] | None = None) -> Script:
    """One request, one of `answers` (the last for ever), until the other side goes."""

    async def script(peer: Peer) -> None:
        left = list(answers)
        while True:
            request = await peer.request()
            if requests is not None:
                requests.append(request)
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def whole(body: bytes = b"hello", status: bytes = b"200 OK", *fields: bytes) -> bytes:
    """An answer with a length."""
    lines = [b"HTTP/1.1 " + status, *fields, b"content-length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


def chunked(*pieces: bytes) -> bytes:
    """An answer in chunks."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
