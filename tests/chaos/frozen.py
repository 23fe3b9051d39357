"""`python -m tests.chaos.frozen`: what callers notice while Redis, or the control process, is
frozen (failover.md §11: no failed request, at most 1 ms added to the p99).

A paced load over connections that stay open, at a route with a policy and limits.  Each is frozen
for some seconds, again and again, so that what else happens on the machine meets both: a p99 is
compared with those right before and after it, and what two slices without anything frozen differ
by is told as the noise.  Only processes of its own are stopped.
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.words import TEXT
from tests.kit.httpclient import Wire
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.redis import RedisServer
from tests.kit.replies import ok

ADDED_MS: Final = 1.0
LONGEST_S: Final = 20.0  # of a slice; a frozen process is ended after a minute
CONNECTIONS: Final = 24
WARM_S: Final = 3.0
WITHIN_S: Final = 10.0
BODY: Final = json.dumps(
    {"model": "gpt-4o", "messages": [{"role": "user", "content": "Tell me of the keeper."}]}
).encode()
HEADERS: Final = {"content-type": "application/json", "x-parapet-route": "chat"}
FREEZES: Final = ("redis", "control")
EXAMPLE: Final = "example: python -m tests.chaos.frozen --cycles 5 --rps 200 --workers 4"


@dataclass
class Slice:
    """Some seconds of load.  `frozen`: what stands still meanwhile; empty: nothing."""

    around: str  # the slices of one measurement
    frozen: str
    took_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        return p99(self.took_ms)


@dataclass(frozen=True)
class Found:
    """What freezing it has done.  `added_ms`: to the p99, the median over all times; `noise_ms`:
    what neighbours differ by in which nothing was frozen, the median, too."""

    what: str
    requests: int
    failures: int
    added_ms: float
    noise_ms: float


def p99(took_ms: Sequence[float]) -> float:
    ordered = sorted(took_ms)
    return ordered[int(len(ordered) * 0.99)] if ordered else 0.0


def found_of(what: str, slices: Sequence[Slice]) -> Found:
    """`slices` in turn: nothing frozen, frozen, nothing frozen, …"""
    mine = [each for each in slices if each.around == what]
    frozen, calm = mine[1::2], mine[0::2]
    added = [
        each.p99_ms - (before.p99_ms + after.p99_ms) / 2
        for each, before, after in zip(frozen, calm, calm[1:], strict=False)
    ]
    noise = [abs(one.p99_ms - next_.p99_ms) for one, next_ in itertools.pairwise(calm)]
    return Found(
        what,
        sum(len(each.took_ms) for each in frozen),
        sum(len(each.failures) for each in mine),
        statistics.median(added),
        statistics.median(noise),
    )


def short_of(found: Found) -> str:
    """What falls short of the bar; empty: nothing."""
    if found.failures:
        return f"{found.what} frozen: {found.failures} requests failed"
    if found.added_ms > max(ADDED_MS, found.noise_ms):
        return f"{found.what} frozen: {found.added_ms:.2f} ms added to the p99, not {ADDED_MS:g}"
    return ""


def table(slices: Sequence[Slice]) -> str:
    """All slices of each kind together."""
    head = f"{'':<10}{'':<14}{'requests':>9}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}"
    lines = [head, "-" * len(head)]
    for what in FREEZES:
        for frozen in ("", what):
            mine = [each for each in slices if each.around == what and each.frozen == frozen]
            took_ms = [took for each in mine for took in each.took_ms]
            failures = sum(len(each.failures) for each in mine)
            p50_ms = statistics.median(took_ms) if took_ms else 0.0
            lines.append(
                f"{what:<10}{'frozen' if frozen else 'not frozen':<14}{len(took_ms):>9}"
                f"{failures:>8}{p50_ms:>9.2f}{p99(took_ms):>9.2f}"
            )
    return "\n".join(lines)


class Load:
    """So many requests a second for ever, each counted where it began."""

    def __init__(self, url: str, rps: float) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._place = host, int(port)
        self._every_s = 1 / rps
        self._idle: deque[Wire] = deque()  # all in turn, so that none is idle for long
        self._asking: set[asyncio.Task[None]] = set()
        self.now = Slice("", "")

    async def run(self) -> None:
        """Until it is cancelled."""
        self._idle.extend([await self._open() for _ in range(CONNECTIONS)])
        due = time.monotonic()
        while True:
            due += self._every_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._ask(self.now))  # noqa: TID251 - no task of the product
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def over(self) -> None:
        """What is under way has ended."""
        await asyncio.gather(*self._asking)

    async def _open(self) -> Wire:
        return Wire(*await asyncio.open_connection(*self._place))

    async def _ask(self, slice_: Slice) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                wire = self._idle.popleft() if self._idle else await self._open()
                began = time.perf_counter()
                await wire.ask("POST", "/v1/chat/completions", BODY, HEADERS)
                answer = await wire.answer()
            slice_.took_ms.append((time.perf_counter() - began) * 1000)
            self._idle.append(wire)
            if answer.status != 200 or not answer.whole:
                slice_.failures.append(f"{answer.status} {answer.ended}")
        except (OSError, EOFError, TimeoutError) as fault:
            slice_.failures.append(type(fault).__name__)


def settings(url: str, redis_url: str, workers: int) -> dict[str, object]:
    """A route with all that is shared: a policy, and limits that are never reached."""
    endpoints = [endpoint(name, "openai", url + "/v1") for name in ("first", "second")]
    routes = [{"id": "chat", "endpoint": "first", "limits": {"rpm": 1_000_000}}]
    policy = {
        "id": "over",
        "route_id": "chat",
        "primary_endpoint": "first",
        "fallback_endpoints": ["second"],
        "conditions": {"latency_threshold_ms": 5000, "error_rate_threshold": 0.1},
    }
    config = workspace(endpoints, routes, policy)
    return {**config, "store": redis_url, "server": {"workers": workers}}


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process of ours stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def fielded(place: Path, workers: int) -> AsyncIterator[tuple[Parapet, dict[str, int]]]:
    """A Parapet over a Redis of its own, and the ids of what is to be frozen."""
    async with FakeProvider(ok(TEXT)) as provider:
        with RedisServer(place / "redis") as redis:
            config = settings(provider.url, redis.url, workers)
            parapet = Parapet(config, place / "state", single=False)
            try:
                await parapet.start(ready=False)
                await parapet.ready(60)
                yield parapet, {"redis": redis.pid, "control": await parapet.pid_of("control")}
            finally:
                await parapet.kill()


async def run(
    cycles: int, seconds: float, rps: float, workers: int, say: Callable[[str], None]
) -> list[Slice]:
    """Freeze each so many times, `seconds` long and as long apart."""
    slices: list[Slice] = []
    with tempfile.TemporaryDirectory(prefix="parapet-frozen-") as place:
        async with fielded(Path(place), workers) as (parapet, pids):
            load = Load(parapet.url, rps)
            loading = asyncio.create_task(load.run())  # noqa: TID251
            await asyncio.sleep(WARM_S)
            gc.collect()
            gc.freeze()
            gc.disable()
            for what in FREEZES:
                for at in range(2 * cycles + 1):
                    load.now = Slice(what, what if at % 2 else "")
                    slices.append(load.now)
                    with stopped(pids[what]) if at % 2 else contextlib.nullcontext():
                        await asyncio.sleep(seconds)
                say(f"{what}: frozen {cycles} times")
            loading.cancel()
            await load.over()
            gc.enable()
    return slices


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.frozen",
        description="What callers notice while Redis, or the control process, is frozen.",
        epilog=EXAMPLE,
    )
    parser.add_argument("--cycles", type=int, default=4, help="how often each is frozen")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long, and how long between")
    parser.add_argument("--rps", type=float, default=100.0, help="requests a second")
    parser.add_argument("--workers", type=int, default=2, help="of the Parapet that is tried")
    said = parser.parse_args()
    if not 0 < said.seconds <= LONGEST_S or said.cycles < 1 or said.rps <= 0:
        parser.error(f"--cycles at least 1, --seconds at most {LONGEST_S:g}, --rps above 0")
    return said


def main() -> int:
    said = options()

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the children end with their parent
    slices = asyncio.run(run(said.cycles, said.seconds, said.rps, said.workers, say))
    say("\n" + table(slices) + "\n")
    short = []
    for what in FREEZES:
        found = found_of(what, slices)
        short.append(short_of(found))
        say(
            f"{what} frozen: {found.failures} failed, {found.added_ms:+.2f} ms p99 "
            f"(neighbours that are not frozen differ by {found.noise_ms:.2f} ms)"
        )
    failures = {each for slice_ in slices for each in slice_.failures}
    say("; ".join([*filter(None, short), *sorted(failures)[:5]]) or "nothing falls short")
    return 1 if any(short) else 0


if __name__ == "__main__":
    sys.exit(main())
