"""What the tests of the transport share: a sink that remembers, a clock that stands, a way up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from proxy.model.exchange import Outgoing, RawHeaders
from proxy.model.observations import Observation
from proxy.model.ports import Call, TransportFault
from proxy.model.tenancy import Endpoint
from proxy.runtime.clock import SystemClock
from proxy.runtime.tasks import spawn
from proxy.upstream.origin import Proxies
from proxy.upstream.pool import Pool
from proxy.upstream.resolver import Resolver
from proxy.upstream.transports import Transports

WITHIN_S = 5.0
GET = Outgoing(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"")


def post(body: bytes = b"{}", *, replayable: bool = True) -> Outgoing:
    head = b"POST /v1 HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    return Outgoing(head, body, replayable)


class Clock(SystemClock):
    """The machine's clock, plus `ahead_s`: tests of limits move it instead of waiting."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


class Recorder:
    """A `Sink` that remembers what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.status = 0
        self.headers: RawHeaders = []
        self.chunks: list[bytes] = []
        self.fault: TransportFault | None = None
        self.on_head: Callable[[], None] | None = None
        self.on_data: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self._over = asyncio.Event()
        self._news = asyncio.Event()

    def head(self, status: int, headers: RawHeaders) -> None:
        self._note("head")
        self.status, self.headers = status, headers
        if self.on_head:
            self.on_head()

    def data(self, chunk: bytes) -> None:
        if self.told[-1:] != ["data"]:
            self._note("data")
        self.chunks.append(chunk)
        self._news.set()
        if self.on_data:
            self.on_data()

    def end(self) -> None:
        self._note("end")
        self._over.set()
        if self.on_end:
            self.on_end()

    def failed(self, fault: TransportFault) -> None:
        self._note("failed")
        self.fault = fault
        self._over.set()

    def _note(self, what: str) -> None:
        self.told.append(what)
        self._news.set()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def phase(self) -> str | None:
        return self.fault.phase if self.fault else None

    async def over(self) -> "Recorder":
        async with asyncio.timeout(WITHIN_S):
            await self._over.wait()
        return self

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not happened():
                self._news.clear()
                await self._news.wait()


@dataclass
class Way:
    """The way to one endpoint, with its sweeper under way."""

    transports: Transports
    pool: Pool
    clock: Clock
    seen: list[Observation] = field(default_factory=list)

    def start(
        self,
        sink: Recorder,
        outgoing: Outgoing = GET,
        *,
        connect_s: float = 3.0,
        limit_s: float = 60.0,
        phase: str = "unary",
    ) -> Call:
        due = self.clock.monotonic() + limit_s
        return self.pool.start(outgoing, sink, connect_s=connect_s, due=due, phase=phase)

    async def ask(self, outgoing: Outgoing = GET, **limits: float) -> Recorder:
        sink = Recorder()
        self.start(sink, outgoing, **limits)  # type: ignore[arg-type]
        return await sink.over()

    def sweep(self, *, ahead_s: float = 0.0) -> None:
        """One pass of the sweeper, with the clock moved on first."""
        self.clock.ahead_s += ahead_s
        self.transports.sweeper.sweep(self.clock.monotonic())


def endpoint(url: str, **settings: object) -> Endpoint:
    members = {"id": "bedrock-claude", "provider": "openai", "base_url": url, "allow_private": True}
    return Endpoint.model_validate(members | settings)


@asynccontextmanager
async def way_to(
    url: str,
    *,
    resolver: Resolver | None = None,
    proxies: Proxies | None = None,
    sweeping: bool = False,
    **settings: object,
) -> AsyncIterator[Way]:
    clock, seen = Clock(), list[Observation]()
    transports = Transports(clock, seen.append, resolver=resolver, proxies=proxies)
    sweeper = spawn(transports.sweeper.run(), name="sweeper") if sweeping else None
    try:
        pool = transports.of("default", endpoint(url, **settings))
        yield Way(transports, pool, clock, seen)
    finally:
        if sweeper is not None:
            sweeper.cancel()
        await transports.close()


async def soon(happened: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """Wait for something in the other player of a real socket."""
    async with asyncio.timeout(within_s):
        while not happened():  # noqa: ASYNC110 - no event reaches us from there
            await asyncio.sleep(0.001)
