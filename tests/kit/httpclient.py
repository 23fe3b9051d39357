"""A small raw HTTP/1.1 client that tells what other clients hide.

When each piece came, whether the body ended in good order, and what was on the socket.  It can
stop reading, leave in the middle, and send bytes that are no HTTP at all.

    answer = await post(url + "/v1/chat/completions", {"model": "m"}, stream=True)
    async with opened(url) as wire:             by hand
        await wire.send(b"POST / HTTP/1.1\r\n")
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from tests.kit.frames import Message, SseEvent, read_messages, read_sse

Ended = Literal["whole", "cut", "reset", "late", "left"]


@dataclass(frozen=True)
class Piece:
    """Body bytes and the moment at which they came (`time.monotonic()`)."""

    at: float
    data: bytes


@dataclass
class Answer:
    """`ended`: whole, cut (FIN too early), reset, late (time ran out), left (this client went)."""

    status: int
    headers: dict[str, str]
    raw_headers: tuple[tuple[str, str], ...]
    asked_at: float
    head_at: float
    pieces: list[Piece] = field(default_factory=list)
    ended: Ended = "left"
    end_at: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(piece.data for piece in self.pieces)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def whole(self) -> bool:
        return self.ended == "whole"

    @property
    def events(self) -> list[SseEvent]:
        """The SSE events of the body."""
        return read_sse(self.body)

    @property
    def messages(self) -> list[Message]:
        """The event-stream messages of the body."""
        return read_messages(self.body)

    @property
    def took_s(self) -> float:
        return self.end_at - self.asked_at

    def reached_at(self, data: bytes) -> float:
        """When the body first held `data`."""
        seen = b""
        for piece in self.pieces:
            seen += piece.data
            if data in seen:
                return piece.at
        raise AssertionError(f"{data!r} never came")


class Wire:
    """One connection, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A request with a right `host` and `content-length`, unless `headers` says other."""
        host, port = self.writer.get_extra_info("peername")[:2]
        usual = {"host": f"{host}:{port}", "content-length": str(len(body))}
        named = usual | {name.lower(): value for name, value in (headers or {}).items()}
        lines = [f"{method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in named.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def head(self) -> Answer:
        """The status and the headers; informational answers are skipped."""
        asked_at = time.monotonic()
        while True:
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
            status = int(first.split(" ")[1])
            if status >= 200:
                break
        pairs = tuple(
            (name.lower(), value.strip()) for name, _, value in (li.partition(":") for li in lines)
        )
        return Answer(status, dict(pairs), pairs, asked_at, time.monotonic())

    async def body(self, answer: Answer, *, enough: int | None = None) -> Answer:
        """Reads on to the end of the body, or until `enough` bytes of it are there."""
        try:
            async for data in self._pieces(answer):
                answer.pieces.append(Piece(time.monotonic(), data))
                if enough is not None and len(answer.body) >= enough:
                    return answer
            answer.ended = "whole"
        except asyncio.IncompleteReadError:
            answer.ended = "cut"
        except ConnectionError:
            answer.ended = "reset"
        finally:
            answer.end_at = time.monotonic()
        return answer

    async def answer(self) -> Answer:
        return await self.body(await self.head())

    async def closed(self, within_s: float = 5.0) -> bool:
        """Whether the other side closes without another byte."""
        try:
            async with asyncio.timeout(within_s):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    def stop_reading(self) -> None:
        """Takes no more bytes from the socket: what the other side writes piles up there."""
        cast(asyncio.ReadTransport, self.writer.transport).pause_reading()

    def go_on_reading(self) -> None:
        cast(asyncio.ReadTransport, self.writer.transport).resume_reading()

    def leave(self) -> float:
        """FIN; gives the moment."""
        self.writer.close()
        return time.monotonic()

    def reset(self) -> float:
        """RST; gives the moment."""
        sock = cast(socket.socket, self.writer.get_extra_info("socket"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        return time.monotonic()

    async def _pieces(self, answer: Answer) -> AsyncIterator[bytes]:
        if answer.status in (204, 304):
            return
        if answer.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._line()).split(b";")[0], 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            while await self._line() != b"\r\n":
                pass
            return
        left = int(answer.headers.get("content-length", "-1"))
        while left:
            data = await self.reader.read(65_536 if left < 0 else min(left, 65_536))
            if not data and left < 0:
                return
            if not data:
                raise asyncio.IncompleteReadError(b"", left)
            yield data
            left -= len(data) if left > 0 else 0

    async def _line(self) -> bytes:
        return await self.reader.readuntil(b"\r\n")


@contextlib.asynccontextmanager
async def opened(url: str, *, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    """A connection to the host of `url`.  `receive_buffer`: bytes of the kernel's buffer."""
    parts = urlsplit(url)
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, (parts.hostname, parts.port))
    except OSError:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 24)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def request(
    method: str,
    url: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    within_s: float = 30.0,
) -> Answer:
    """One request on a connection of its own, answered to the end.

    A body that does not end in time comes back as `late`; a head that does not, as TimeoutError.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    asked_at = time.monotonic()
    answer: Answer | None = None
    async with opened(url) as wire:
        try:
            async with asyncio.timeout(within_s):
                await wire.ask(method, target, body, headers)
                answer = await wire.head()
                answer.asked_at = asked_at
                return await wire.body(answer)
        except TimeoutError:
            if answer is None:
                raise
            answer.ended = "late"
            return answer


async def get(url: str, headers: Mapping[str, str] | None = None) -> Answer:
    return await request("GET", url, headers=headers)


async def post(
    url: str,
    body: Mapping[str, object] | bytes,
    headers: Mapping[str, str] | None = None,
    *,
    within_s: float = 30.0,
) -> Answer:
    """JSON, unless `body` is bytes already."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"content-type": "application/json"} | dict(headers or {})
    return await request("POST", url, data, named, within_s=within_s)
