"""A provider that costs next to nothing: OpenAI Chat and Anthropic Messages over raw sockets.

A process of its own.  How it answers is one `Plan` for everybody, set by `POST /bench/plan`;
`GET /bench/report` says what it saw since.  Paced events leave at absolute deadlines, so that a
late one does not push back those behind it.
"""

import argparse
import asyncio
import itertools
import signal
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import cast

import orjson
import uvloop

from benchmarks.load import texts
from benchmarks.load.pacer import Pacer
from benchmarks.stats import percentile

CHUNKED_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"
FAULTS = {429: b"rate_limit_exceeded", 500: b"server_error"}


@dataclass(slots=True)
class Plan:
    """How requests are answered from now on."""

    kind: str = "unary"  # unary | stream | status | half_open
    answer_bytes: int = 1024
    events: int = 200
    event_bytes: int = 200
    gap_ms: float = 0  # 0: one write each, as fast as they go
    one_write: bool = False
    delay_ms: float = 0
    status: int = 200
    reset_after: int = -1  # events after which the connection is reset


@dataclass(slots=True)
class Seen:
    requests: int = 0
    body_sum: int = 0  # sum of the bodies' CRCs: the same on both sides when nothing was rewritten
    body_bytes: int = 0
    streams_open: int = 0
    streams_cut: int = 0


class House:
    """What all connections of the mock share."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.plan = Plan()
        self.seen = Seen()
        self.pacer = Pacer(loop)
        self._numbers = itertools.count()
        self._ready: dict[texts.Dialect, list[bytes]] = {}

    def number(self) -> int:
        return next(self._numbers) % texts.POOL

    def take(self, plan: Plan) -> None:
        """Follow `plan` from now on, its answers made in advance."""
        if plan.answer_bytes != self.plan.answer_bytes:
            self._ready.clear()
        self.plan, self.seen = plan, Seen(streams_open=self.seen.streams_open)
        self.pacer.slips_ns.clear()

    def unary(self, dialect: texts.Dialect) -> bytes:
        pool = self._ready.get(dialect)
        if pool is None:
            pool = self._ready[dialect] = self._answers(dialect)
        return pool[self.number() % len(pool)]

    def _answers(self, dialect: texts.Dialect) -> list[bytes]:
        size = self.plan.answer_bytes
        count = texts.POOL if size <= 32_768 else 200
        bodies = (texts.answer(dialect, number, size) for number in range(count))
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return [head % len(body) + body for body in bodies]

    def report(self) -> dict[str, object]:
        slips = [slip / 1e6 for slip in self.pacer.slips_ns]
        return asdict(self.seen) | {"slip_p99_ms": percentile(slips, 99) if slips else 0.0}


class Provider(asyncio.Protocol):
    """One connection: requests in order, each answered as the plan says."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._buffer = b""
        self._stream: _Streaming | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.cut()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            size = body_end(self._buffer, end)
            if size is None:
                return
            head, body = self._buffer[:end], self._buffer[end + 4 : size]
            self._buffer = self._buffer[size:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        house = self._house
        path = head[head.find(b" ") + 1 : head.find(b" ", 6)]
        if path.startswith(b"/bench/"):
            self._control(path, body)
            return
        seen = house.seen
        seen.requests += 1
        seen.body_bytes += len(body)
        seen.body_sum += zlib.crc32(body)
        anthropic = path.endswith(b"/messages")
        dialect: texts.Dialect = "anthropic-messages" if anthropic else "openai-chat"
        if house.plan.delay_ms:
            house.pacer.at(
                time.monotonic_ns() + int(house.plan.delay_ms * 1e6),
                lambda: self._send(dialect),
            )
        else:
            self._send(dialect)

    def _send(self, dialect: texts.Dialect) -> None:
        plan = self._house.plan
        if plan.kind == "unary":
            self._transport.write(self._house.unary(dialect))
        elif plan.kind == "stream":
            self._stream = _Streaming(self._house, self._transport, dialect, self._ended)
            self._stream.begin()
        elif plan.kind == "status":
            code = FAULTS.get(plan.status, b"error")
            fault = b'{"error":{"message":"planned","type":"%s","code":"%s"}}' % (code, code)
            self._json(plan.status, fault)

    def _ended(self) -> None:
        self._stream = None

    def _control(self, path: bytes, body: bytes) -> None:
        if path == b"/bench/plan":
            self._house.take(Plan(**orjson.loads(body)))
        self._json(200, orjson.dumps(self._house.report()))

    def _json(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % (status, len(body)) + body)


class _Streaming:
    """One streamed answer on its way out."""

    def __init__(
        self,
        house: House,
        transport: asyncio.Transport,
        dialect: texts.Dialect,
        ended: Callable[[], None],
    ) -> None:
        plan = house.plan
        self._house, self._transport, self._ended = house, transport, ended
        self._answer = texts.stream(dialect, house.number(), plan.events, plan.event_bytes)
        self._gap_ns = int(plan.gap_ms * 1e6)
        self._one_write, self._reset_after = plan.one_write, plan.reset_after
        self._index = 0
        self._begun_ns = time.monotonic_ns()
        self._open = True
        house.seen.streams_open += 1

    def begin(self) -> None:
        if self._one_write:
            self._transport.write(CHUNKED_HEAD + chunk(self._answer.whole()) + LAST_CHUNK)
            self._close()
            return
        self._transport.write(CHUNKED_HEAD + chunk(self._answer.opening + self._answer.event(0)))
        self._index = 1
        self._wait()

    def cut(self) -> None:
        if self._open:
            self._house.seen.streams_cut += 1
            self._close()

    def _wait(self) -> None:
        if self._gap_ns:
            self._house.pacer.at(self._begun_ns + self._index * self._gap_ns, self._next)
        else:
            self._house.loop.call_soon(self._next)

    def _next(self) -> None:
        if not self._open:
            return
        answer, index = self._answer, self._index
        if index == self._reset_after:
            self._transport.abort()
            return
        self._index += 1
        if self._index < answer.events:
            self._transport.write(chunk(answer.event(index)))
            self._wait()
            return
        last = answer.event(index) if index < answer.events else b""
        self._transport.write(chunk(last + answer.closing) + LAST_CHUNK)
        self._close()

    def _close(self) -> None:
        self._open = False
        self._house.seen.streams_open -= 1
        self._ended()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def body_end(buffer: bytes, head_end: int) -> int | None:
    """Where the request that begins `buffer` ends; None while it is not all there."""
    head = buffer[:head_end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        stop = head.find(b"\r\n", at + 2)
        size = head_end + 4 + int(head[at + 17 : stop if stop >= 0 else head_end])
    elif b"\r\ntransfer-encoding: chunked" in head:
        last = buffer.find(b"\r\n" + LAST_CHUNK, head_end)
        if last < 0:
            return None
        size = last + 2 + len(LAST_CHUNK)
    else:
        size = head_end + 4
    return size if len(buffer) >= size else None


async def serve(port: int) -> None:
    """Answer until told to stop; the first line of output names the port."""
    loop = asyncio.get_running_loop()
    house = House(loop)
    texts.corpus()
    server = await loop.create_server(lambda: Provider(house), "127.0.0.1", port, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer like a provider, at next to no cost.")
    parser.add_argument("--port", type=int, default=0, help="0: any free port, printed")
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
