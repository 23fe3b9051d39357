"""Fakes of the ports for tests in memory: time that tests move, upstreams that follow a script,
callers and journals that remember."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from proxy.model.errors import TooLarge
from proxy.model.exchange import Outgoing, RawHeaders
from proxy.model.observations import Observation
from proxy.model.ports import Call, Sink, TransportFault
from proxy.model.records import RequestRecord
from proxy.model.tenancy import Endpoint
from proxy.routing.effects import Effect


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self, now_ms: int = 1_710_513_000_000) -> None:
        self._now_ms = now_ms
        self._seconds = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._seconds + seconds, waiter))
        await waiter

    def advance(self, seconds: float) -> None:
        self._seconds += seconds
        self._now_ms += int(seconds * 1000)
        due = [waiter for at, waiter in self._sleepers if at <= self._seconds]
        self._sleepers = [(at, waiter) for at, waiter in self._sleepers if at > self._seconds]
        for waiter in due:
            if not waiter.done():
                waiter.set_result(None)


class CountingIds:
    """`req-1`, `evt-2`, …"""

    def __init__(self) -> None:
        self._count = 0

    def new(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"


T = TypeVar("T")


class InLine:
    """`OffLoop` that runs the work at once."""

    async def run(self, work: Callable[[], T]) -> T:
        return work()


Step = tuple[int, RawHeaders] | bytes | TransportFault | None
"""A head, a piece of the body, a fault, or None for the end."""


class FakeCall:
    """What the gateway holds of an attempt."""

    def __init__(self, due: float, phase: str) -> None:
        self.due = due
        self.phase = phase
        self.cancelled = False
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedUpstream:
    """Each `start` plays the next script into the sink, one step per turn of the loop.

    A script that ends without None or a fault stays silent: the test goes on by `sinks[-1]`.
    """

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self._scripts = list(scripts)
        self.sent: list[Outgoing] = []
        self.calls: list[FakeCall] = []
        self.sinks: list[Sink] = []

    def start(
        self, outgoing: Outgoing, sink: Sink, *, connect_s: float, due: float, phase: str
    ) -> Call:
        call = FakeCall(due, phase)
        self.sent.append(outgoing)
        self.calls.append(call)
        self.sinks.append(sink)
        script = self._scripts.pop(0) if self._scripts else []
        asyncio.get_running_loop().call_soon(self._play, list(script), sink, call)
        return call

    def _play(self, script: list[Step], sink: Sink, call: FakeCall) -> None:
        if not script or call.cancelled:
            return
        step = script.pop(0)
        if step is None:
            sink.end()
        elif isinstance(step, bytes):
            sink.data(step)
        elif isinstance(step, TransportFault):
            sink.failed(step)
        else:
            sink.head(*step)
        asyncio.get_running_loop().call_soon(self._play, script, sink, call)


class ScriptedUpstreams:
    """`Upstreams` by endpoint id."""

    def __init__(self, by_id: dict[str, ScriptedUpstream]) -> None:
        self.by_id = by_id

    def of(self, workspace_id: str, endpoint: Endpoint) -> ScriptedUpstream:
        return self.by_id.setdefault(endpoint.id, ScriptedUpstream())


@dataclass
class RecordingDownstream:
    """A caller in memory.  `pieces` are the writes; `cut` an end without the last chunk."""

    request_body: bytes = b""
    status: int = 0
    head: bytes = b""
    length: int | None = None
    pieces: list[bytes] = field(default_factory=list)
    cut: bool = False
    ended: bool = False
    gone: bool = False
    begun: bool = False
    bytes_sent: int = 0
    followed: Call | None = None
    _last: bytes = b""
    _cut: bool = False

    async def body(self, limit_bytes: int) -> bytes:
        if len(self.request_body) > limit_bytes:
            raise TooLarge("The request body is too large.")
        return self.request_body

    def begin(self, status: int, head: bytes, *, length: int | None) -> None:
        self.status, self.head, self.length = status, head, length

    def write(self, data: bytes) -> None:
        if data:
            self.begun = True
            self.bytes_sent += len(data)
            self.pieces.append(data)

    def hold(self, last: bytes, *, cut: bool = False) -> None:
        self._last, self._cut = last, cut

    def release(self) -> None:
        last, self._last = self._last, b""
        self.write(last)

    def end(self) -> None:
        if self.ended:
            return
        self.ended, self.cut = True, self._cut
        self.write(self._last)

    def follow(self, call: Call | None) -> None:
        self.followed = call

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n"):
            key, _, value = line.partition(": ")
            if key == name:
                return value
        return None


class Notebook:
    """An observer, and a journal of lines, in the order in which things happened."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.lines: list[tuple[bytes, bool]] = []
        self.records: list[RequestRecord] = []
        self.effects: list[Effect] = []

    def __call__(self, what: Observation) -> None:
        self.seen.append(what)

    def tell(self, _standing: object, effect: Effect) -> None:
        """What changed about the endpoints of a policy."""
        self.effects.append(effect)

    def append(self, line: bytes, *, critical: bool) -> None:
        self.lines.append((line, critical))
