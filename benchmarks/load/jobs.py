"""A piece of load in words, the requests it sends, the connections it sends them on."""

import asyncio
import itertools
import zlib
from dataclasses import dataclass, field
from typing import Protocol, cast

from benchmarks.load import texts
from benchmarks.load.answers import StreamReader, UnaryReader

READY_BODY_BYTES = 32_768  # requests up to this size are made before the clock runs


@dataclass(slots=True)
class Job:
    """One piece of load on one target."""

    kind: str  # closed | open | streams | hold
    host: str
    port: int
    path: str
    headers: dict[str, str]
    dialect: texts.Dialect
    body_bytes: int = 1024
    model: str = "gpt-4o-mini"
    exact: bool = True
    must_carry: str = ""  # a header line without which an answer does not count
    answer_bytes: int = 1024
    connections: int = 32
    requests: int = 10_000
    max_seconds: float = 60  # after which a closed loop asks no more
    rate: float = 1000
    streams: int = 100
    events: int = 200
    event_bytes: int = 200
    gap_ms: float = 20
    steps: list[int] = field(default_factory=list)
    open_rate: float = 400
    settle_s: float = 2.5
    timeout_s: float = 60


class Requests:
    """Whole requests, each with a text of its own, and the sum of the CRCs of their bodies."""

    _numbers = itertools.count()

    def __init__(self, job: Job) -> None:
        self._shape = texts.Shape(
            job.dialect, job.body_bytes, job.kind in ("streams", "hold"), job.model
        )
        lines = [f"POST {job.path} HTTP/1.1", f"Host: {job.host}:{job.port}"]
        lines += [f"{name}: {value}" for name, value in job.headers.items()]
        lines += ["Content-Type: application/json", "Content-Length: %d", "", ""]
        self._head = "\r\n".join(lines).encode()
        self._ready: list[tuple[bytes, int]] = []
        if job.body_bytes <= READY_BODY_BYTES and job.kind in ("closed", "open"):
            self._ready = [self._make(number) for number in range(texts.POOL)]
        self.body_sum = 0

    def next(self) -> bytes:
        number = next(self._numbers) % texts.POOL
        request, crc = self._ready[number] if self._ready else self._make(number)
        self.body_sum += crc
        return request

    def _make(self, number: int) -> tuple[bytes, int]:
        body = self._shape.body(number)
        return self._head % len(body) + body, zlib.crc32(body)


class Receiver(Protocol):
    """Who is told about a connection."""

    def received(self, connection: "Connection", data: bytes) -> None: ...

    def lost(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """One keep-alive connection to the target."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport
        self.alive = True
        self.sent_ns = 0
        self.unary = UnaryReader()
        self.stream: StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._receiver.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._receiver.lost(self)

    def send(self, request: bytes, intended_ns: int) -> None:
        self.sent_ns = intended_ns
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()
