"""The load: requests as raw bytes, answers checked one by one.

A process of its own, fed one job per line of JSON on stdin and answering in lines on stdout:
`ready` once its connections stand (the caller reads the clocks and says `go`), then for jobs that
hold streams one `step` per level, at last `done` with the result.

Closed loop is for CPU figures.  Latency is open loop: each request has an absolute intended time
and is timed from it, so that a stall is charged to all who had to wait.
"""

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial

import orjson
import uvloop

from benchmarks.load import texts
from benchmarks.load.answers import StreamReader, judge_stream, judge_unary
from benchmarks.load.jobs import Connection, Job, Requests
from benchmarks.load.pacer import Pacer
from benchmarks.stats import percentile

FORTY_MS = (38.0, 45.0)  # where delayed acknowledgements would show


class Load:
    """What all kinds of load share: connections, faults, the end."""

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self.job, self.loop = job, loop
        self.requests = Requests(job)
        self.faults: Counter[str] = Counter()
        self.ended = loop.create_future()
        self.connections: list[Connection] = []
        self.expected: list[bytes] = []
        self.latencies_ms: list[float] = []
        self.done = 0
        self.closing = False
        self.intended = 0
        self.pacer = Pacer(loop)
        self.must_carry = job.must_carry.lower().encode()
        self.begun_ns = 0
        if job.kind in ("closed", "open"):
            count = texts.POOL if job.answer_bytes <= 32_768 else 200
            self.expected = [
                texts.answer(job.dialect, number, job.answer_bytes) for number in range(count)
            ]

    async def connect(self, count: int) -> list[Connection]:
        """`count` more connections, a few dozen at a time."""
        made: list[Connection] = []
        for start in range(0, count, 64):
            batch = [
                self.loop.create_connection(lambda: Connection(self), self.job.host, self.job.port)
                for _ in range(min(64, count - start))
            ]
            made += [connection for _, connection in await asyncio.gather(*batch)]
        self.connections += made
        return made

    async def prepare(self) -> None:
        """Open what must be open before the clock runs."""

    async def run(self) -> None:
        raise NotImplementedError

    def received(self, connection: Connection, data: bytes) -> None:
        raise NotImplementedError

    def lost(self, connection: Connection) -> None:
        if not self.closing:
            self.fail("connection lost")
            if not any(one.alive for one in self.connections):
                self.end()

    def fail(self, what: str) -> None:
        self.faults[what] += 1
        if sum(self.faults.values()) > 100:
            self.end()

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        self.closing = True
        for connection in self.connections:
            connection.close()
        self.pacer.close()

    def judge(self, connection: Connection) -> None:
        wrong = judge_unary(connection.unary, self.expected, exact=self.job.exact)
        if wrong is None and self.must_carry and self.must_carry not in connection.unary.head:
            wrong = f"answer without {self.job.must_carry}"
        if wrong is not None:
            self.fail(wrong)
        self.done += 1

    def result(self) -> dict[str, object]:
        seconds = (time.monotonic_ns() - self.begun_ns) / 1e9
        slips = [slip / 1e6 for slip in self.pacer.slips_ns]
        return {
            "done": self.done,
            "seconds": seconds,
            "body_sum": self.requests.body_sum,
            "errors": sum(self.faults.values()),
            "faults": dict(self.faults.most_common(3)),
            "slip_p99_ms": percentile(slips, 99) if slips else 0.0,
            "latency_ms": spread_of(self.latencies_ms),
        }


class ClosedLoad(Load):
    """Each connection sends its next request when its answer is there."""

    async def prepare(self) -> None:
        await self.connect(self.job.connections)

    async def run(self) -> None:
        self.begun_ns = time.monotonic_ns()
        self._stop_ns = self.begun_ns + int(self.job.max_seconds * 1e9)
        self.intended = len(self.connections)
        for connection in self.connections:
            connection.send(self.requests.next(), 0)
        await self.ended

    def received(self, connection: Connection, data: bytes) -> None:
        if not connection.unary.feed(data):
            return
        self.judge(connection)
        more = self.intended < self.job.requests and time.monotonic_ns() < self._stop_ns
        if more and connection.alive:
            self.intended += 1
            connection.send(self.requests.next(), 0)
        elif self.done >= self.intended:
            self.end()

    def lost(self, connection: Connection) -> None:
        self.intended -= 1  # the answer it owed will not come
        super().lost(connection)


class OpenLoad(Load):
    """Requests at a fixed rate, whatever becomes of those before."""

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(job, loop)
        self._idle: deque[Connection] = deque()
        self._waiting: deque[int] = deque()

    async def prepare(self) -> None:
        self._idle.extend(await self.connect(self.job.connections))

    async def run(self) -> None:
        self.begun_ns = time.monotonic_ns() + 5_000_000
        self._plan_next()
        await self.ended

    def _plan_next(self) -> None:
        due_ns = self.begun_ns + int(self.intended * 1e9 / self.job.rate)
        self.pacer.at(due_ns, partial(self._fire, due_ns))

    def _fire(self, due_ns: int) -> None:
        self.intended += 1
        if self.intended < self.job.requests:
            self._plan_next()
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                connection.send(self.requests.next(), due_ns)
                return
        self._waiting.append(due_ns)

    def received(self, connection: Connection, data: bytes) -> None:
        if not connection.unary.feed(data):
            return
        self.latencies_ms.append((time.monotonic_ns() - connection.sent_ns) / 1e6)
        self.judge(connection)
        if self._waiting and connection.alive:
            connection.send(self.requests.next(), self._waiting.popleft())
        else:
            self._idle.append(connection)
        if self.done >= self.job.requests:
            self.end()


class StreamLoad(Load):
    """Streams side by side, begun one after the other over one second, each to its end."""

    async def prepare(self) -> None:
        await self.connect(self.job.streams)

    async def run(self) -> None:
        self.begun_ns = time.monotonic_ns() + 5_000_000
        apart_ns = int(1e9 / self.job.streams)
        for index, connection in enumerate(self.connections):
            due_ns = self.begun_ns + index * apart_ns
            self.pacer.at(due_ns, partial(self._begin, connection, due_ns))
        await self.ended

    def _begin(self, connection: Connection, due_ns: int) -> None:
        connection.stream = StreamReader()
        connection.send(self.requests.next(), due_ns)

    def received(self, connection: Connection, data: bytes) -> None:
        reader = connection.stream
        if reader is None:
            self.fail("bytes before the request")
            return
        if not reader.refused:
            reader.feed(data)
            if reader.ended or reader.refused:
                self._over()

    def lost(self, connection: Connection) -> None:
        reader = connection.stream
        if not self.closing and not (reader and (reader.ended or reader.refused)):
            self.fail("connection lost")
            self._over()

    def _over(self) -> None:
        self.done += 1
        if self.done >= self.job.streams:
            self.end()

    def result(self) -> dict[str, object]:
        job = self.job
        first_ms: list[float] = []
        gaps_ms: list[float] = []
        for connection in self.connections:
            reader = connection.stream
            first_ns = reader.first_ns() if reader else None
            if reader is None or not reader.raw:
                self.fail("nothing came")
                continue
            wrong = judge_stream(reader, job.dialect, job.events, job.event_bytes, exact=job.exact)
            if wrong is not None or first_ns is None:
                self.fail(wrong or "no event came")
                continue
            first_ms.append((first_ns - connection.sent_ns) / 1e6)
            gaps_ms += reader.gaps_ms()
        return super().result() | {
            "done": self.done * job.events,
            "first_ms": spread_of(first_ms),
            "gap_ms": spread_of(gaps_ms),
            "stalls": sum(gap > 5 * job.gap_ms for gap in gaps_ms) if job.gap_ms else 0,
            "at_40_ms": sum(FORTY_MS[0] <= first <= FORTY_MS[1] for first in first_ms),
        }


class HoldLoad(Load):
    """Slow streams opened step by step and held, so that the memory of one can be told."""

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(job, loop)
        self._heard: set[Connection] = set()

    async def run(self) -> None:
        self.begun_ns = time.monotonic_ns()
        for step in self.job.steps:
            await self._grow(step - len(self.connections))
            await asyncio.sleep(self.job.settle_s)
            self.done = len(self._heard)
            tell({"event": "step", "open": self.done})
            sys.stdin.readline()
        if self.done < self.job.steps[-1]:
            self.fail(f"{self.done} of {self.job.steps[-1]} streams began")

    async def _grow(self, count: int) -> None:
        for start in range(0, count, 20):
            for connection in await self.connect(min(20, count - start)):
                connection.send(self.requests.next(), 0)
            await asyncio.sleep(20 / self.job.open_rate)

    def received(self, connection: Connection, data: bytes) -> None:
        if connection not in self._heard:
            self._heard.add(connection)
            if data[9:12] != b"200":
                self.fail(f"status {data[9:12].decode(errors='replace')}")


KINDS = {"closed": ClosedLoad, "open": OpenLoad, "streams": StreamLoad, "hold": HoldLoad}


def spread_of(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "p50": percentile(values, 50),
        "p99": percentile(values, 99),
        "p999": percentile(values, 99.9),
    }


def tell(what: dict[str, object]) -> None:
    sys.stdout.write(orjson.dumps(what).decode() + "\n")
    sys.stdout.flush()


async def carry_out(job: Job) -> dict[str, object]:
    """Connect, wait for `go`, run, say how it was."""
    load = KINDS[job.kind](job, asyncio.get_running_loop())
    try:
        await load.prepare()
        tell({"event": "ready"})
        sys.stdin.readline()
        try:
            await asyncio.wait_for(load.run(), job.timeout_s)
        except TimeoutError:
            load.fail(f"not done in {job.timeout_s:g} s: {load.done} answers")
        return {"event": "done"} | load.result()
    except OSError as error:
        return {"event": "done", "errors": 1, "done": 0, "faults": {str(error): 1}}
    finally:
        load.close()
        await asyncio.sleep(0.05)


def jobs() -> Iterator[Job]:
    for line in iter(sys.stdin.readline, ""):
        yield Job(**orjson.loads(line))


def main() -> None:
    texts.corpus()
    tell({"event": "here"})
    for job in jobs():
        tell(uvloop.run(carry_out(job)))


if __name__ == "__main__":
    main()
