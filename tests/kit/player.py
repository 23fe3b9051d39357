"""Plays one reply on one connection: the steps, put on the wire the way the reply says."""

import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

from tests.kit.connection import Connection
from tests.kit.grammars import Grammar
from tests.kit.reply import Reply, Wire
from tests.kit.script import Finish, Flood, Head, How, Request, Send, Wait

Played = Literal["kept", "closed", "cut"]
Sent = Callable[[int], None]


async def play(
    reply: Reply, connection: Connection, request: Request, grammar: Grammar, sent: Sent
) -> Played:
    """Answer.  `kept`: the connection may be used again; `cut`: the script broke the answer off.

    `sent` is told of every byte written.  Raises Gone when the client leaves meanwhile.
    """
    body = _Body(connection, reply.wire, sent)
    for step in reply.steps(grammar, request):
        match step:
            case Head():
                await body.head(step)
            case Send(data, _, of):
                await body.send(data, of)
            case Wait(seconds, every_s):
                await _wait(body, grammar, seconds, every_s)
            case Flood():
                await _flood(body, step)
            case Finish(how):
                return await _finish(body, how)
    return await _finish(body, "clean")


async def _wait(
    body: "_Body", grammar: Grammar, seconds: float | None, every_s: float | None
) -> None:
    if every_s is None:
        await body.connection.sleep(seconds)
        return
    left = seconds
    while left is None or left > 0:
        await body.connection.sleep(every_s if left is None else min(left, every_s))
        left = None if left is None else left - every_s
        if left is None or left > 0:
            await body.send(grammar.ping())


async def _flood(body: "_Body", flood: Flood) -> None:
    left = flood.total_bytes
    while left is None or left > 0:
        await body.send(flood.data)
        await body.connection.sleep(flood.every_s)
        left = None if left is None else left - len(flood.data)


async def _finish(body: "_Body", how: How) -> Played:
    connection = body.connection
    if how == "clean":
        return await body.end()
    if how == "silence":
        await connection.sleep(None)
    if how == "rst":
        await connection.reset()
    connection.close()
    return "cut"


class _Body:
    """Frames the body bytes: chunks, a length, or the end of the connection."""

    def __init__(self, connection: Connection, wire: Wire, sent: Sent) -> None:
        self.connection = connection
        self._wire = wire
        self._sent = sent
        self._chunked = False
        self._keeps = wire.keep_alive
        self._packer = zlib.compressobj(wbits=31) if wire.gzipped else None

    async def head(self, head: Head) -> None:
        wire, length = self._wire, head.length
        framing = wire.framing
        if framing == "auto":
            framing = "chunked" if length is None else "length"
        lines = [f"HTTP/1.1 {head.status} {_reason(head.status)}"]
        if wire.interim is not None:
            interim = f"HTTP/1.1 {wire.interim} {_reason(wire.interim)}\r\n\r\n"
            await self._write(interim.encode())
        lines += [f"{name}: {value}" for name, value in head.headers]
        if wire.gzipped:
            lines.append("content-encoding: gzip")
        if length is not None:
            self._packer = None  # compressed already, or its length would be wrong
        if framing == "chunked":
            self._chunked = True
            lines.append("transfer-encoding: chunked")
        elif framing == "length":
            count = wire.declared_length if wire.declared_length is not None else length
            lines.append(f"content-length: {count}")
        else:
            self._keeps = False
        if not self._keeps:
            lines.append("connection: close")
        await self._write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def send(self, data: bytes, of: int | None = None) -> None:
        """`of`: the size that the chunk announces, when it is cut inside."""
        if self._packer is not None:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        step = self._wire.piece_bytes or len(data) or 1
        for start in range(0, len(data), step):
            if start:
                await self.connection.sleep(self._wire.trickle_every_s)
            piece = data[start : start + step]
            if not self._chunked:
                await self._write(piece)
            elif of is not None and of > len(data):
                await self._write(b"%x\r\n" % of + piece)
            else:
                await self._write(b"%x\r\n" % len(piece) + piece + b"\r\n")

    async def end(self) -> Played:
        if self._packer is not None:
            tail, self._packer = self._packer.flush(), None
            await self.send(tail)
        if self._chunked:
            await self._write(b"0\r\n\r\n")
        await self._write(self._wire.afterwards)
        return "kept" if self._keeps else "closed"

    async def _write(self, data: bytes) -> None:
        if data:
            await self.connection.send(data)
            self._sent(len(data))


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Scripted"
