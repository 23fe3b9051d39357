"""`python -m tests.chaos.steady`: a steady load while the primary fails in one way after the other.

The fallback is healthy all the time, so no caller may see an error.  Every phase is a healthy
moment, a fault, and the way back, over routes of its own: the guard against flapping would keep a
policy on its fallback after the third outage in ten minutes.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.callers import AnthropicMessages, Ask, Caller, OpenAIChat
from tests.chaos.said import Said
from tests.chaos.words import TEXT
from tests.kit.lanes import lane_of
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok, reset, silence, status
from tests.kit.reply import Reply
from tests.kit.script import Request

SLOW_S = 3.0
FAULTS: Mapping[str, Reply | None] = {
    "refused": None,
    "reset": reset(),
    "silent": silence(),
    "500": status(500),
    "529": status(529, "overloaded_error"),
    "429": status(429),
    "slow": ok(TEXT).after(SLOW_S),
}
CALLERS: Mapping[str, type[Caller]] = {"openai": OpenAIChat, "anthropic": AnthropicMessages}
HEALTHY_SHARE, FAULT_SHARE = 0.05, 0.3
FIRST_CONTENT_MS = 4000
TRIPS_AFTER_S = 5.0
PROBES_AFTER_S = 2.5
MOST_PER_REQUEST = 1.2


@dataclass
class Phase:
    """One fault and what came of it.  Times are `time.monotonic()`."""

    name: str
    broken_at: float = 0.0
    healed_at: float = 0.0
    answers: list[tuple[str, Said]] = field(default_factory=list)

    def lane(self, kind: str) -> str:
        return f"{self.name}-{kind}"

    @property
    def lanes(self) -> list[str]:
        return [self.lane(kind) for kind in CALLERS]


@dataclass
class Field:
    """Who takes part."""

    primary: FakeProvider
    fallback: FakeProvider
    parapet: Parapet
    callers: dict[str, Caller]


def settings(primary: str, fallback: str) -> dict[str, object]:
    """A route and a policy per phase and caller."""
    tails = {"openai": "/v1", "anthropic": ""}
    endpoints = [
        endpoint(f"{role}-{kind}", kind, url + tail)
        for kind, tail in tails.items()
        for role, url in (("primary", primary), ("fallback", fallback))
    ]
    lanes = [(f"{name}-{kind}", kind) for name in FAULTS for kind in CALLERS]
    routes = [
        {
            "id": lane,
            "endpoint": f"primary-{kind}",
            "timeouts": {"first_content_ms": FIRST_CONTENT_MS, "unary_ms": FIRST_CONTENT_MS},
        }
        for lane, kind in lanes
    ]
    policies = [
        {
            "id": f"over-{lane}",
            "route_id": lane,
            "primary_endpoint": f"primary-{kind}",
            "fallback_endpoints": [f"fallback-{kind}"],
            "conditions": {"latency_threshold_ms": 2000, "error_rate_threshold": 0.1},
        }
        for lane, kind in lanes
    ]
    return workspace(endpoints, routes, *policies)


async def play(phase: Phase, field_: Field, seconds: float, rps: float) -> None:
    """Healthy, broken, healed; the load never stops."""
    field_.primary.script = ok(TEXT)
    load = asyncio.gather(*_load(phase, field_, seconds, rps))
    await asyncio.sleep(seconds * HEALTHY_SHARE)
    fault = FAULTS[phase.name]
    phase.broken_at = time.monotonic()
    if fault is None:
        await field_.primary.down()
    else:
        field_.primary.script = fault
    await asyncio.sleep(seconds * FAULT_SHARE)
    phase.healed_at = time.monotonic()
    field_.primary.script = ok(TEXT)
    if fault is None:
        await field_.primary.up()
    await load


def _load(phase: Phase, field_: Field, seconds: float, rps: float) -> Sequence[Awaitable[None]]:
    """Both callers in turn, streamed and whole in turn."""
    began = time.monotonic()

    async def one(number: int) -> None:
        await asyncio.sleep(began + number / rps - time.monotonic())
        kind = list(CALLERS)[number % 2]
        ask = Ask(phase.lane(kind), stream=number // 2 % 2 == 0, mark=f"number {number}.")
        phase.answers.append((ask.mark, await field_.callers[kind].sdk(ask)))

    return [one(number) for number in range(int(seconds * rps))]


@dataclass
class Found:
    """The figures of one phase.  `away_s`: the last request of the outage that met the primary;
    `back_s`: the first after it; `all_back_s`: the last that the fallback answered."""

    name: str
    requests: int
    errors: list[str]
    upstream: int
    repeats: int
    switches: int
    p50_ms: float
    p99_ms: float
    away_s: float | None
    back_s: float | None
    all_back_s: float | None


async def found_in(phase: Phase, field_: Field) -> Found:
    first = _asked(field_.primary, phase.lanes)
    later = _asked(field_.fallback, phase.lanes)
    out = [at for at, _ in first if phase.broken_at <= at < phase.healed_at]
    back = [at for at, _ in first if at >= phase.healed_at]
    tripped = [mark for at, mark in first if phase.broken_at + TRIPS_AFTER_S < at]
    elsewhere = [at for at, _ in later if at >= phase.healed_at]
    took = sorted(said.took_s * 1000 for _, said in phase.answers)
    return Found(
        name=phase.name,
        requests=len(phase.answers),
        errors=[_fault(said) for _, said in phase.answers if _fault(said)],
        upstream=len(first) + len(later),
        repeats=len(tripped) - len(set(tripped)),
        switches=sum([await _switches(field_.parapet, lane) for lane in phase.lanes]),
        p50_ms=statistics.median(took),
        p99_ms=took[int(len(took) * 0.99)],
        away_s=_last_before_gap(out) - phase.broken_at if out else None,
        back_s=min(back) - phase.healed_at if back else None,
        all_back_s=max(elsewhere) - phase.healed_at if elsewhere else None,
    )


def _last_before_gap(times: Sequence[float]) -> float:
    """When the primary was left: what comes after a while are probes."""
    for at, later in itertools.pairwise(times):
        if later - at > PROBES_AFTER_S:
            return at
    return times[-1]


def _asked(provider: FakeProvider, lanes: Sequence[str]) -> list[tuple[float, str]]:
    return [
        (entry.at, _mark(entry.request))
        for entry in provider.journal
        if lane_of(entry.request) in lanes
    ]


def _mark(request: Request) -> str:
    text = request.body.decode()
    return text[text.index("number ") :].partition(".")[0]


def _fault(said: Said) -> str:
    if said.error:
        return f"{said.error}: {said.message[:80]}"
    return "" if said.text == TEXT and not said.hung else "not the whole answer"


async def _switches(parapet: Parapet, lane: str) -> int:
    path = f"/v1/workspaces/default/failover-policies/over-{lane}/decisions?limit=100"
    answer = await parapet.control("GET", path)
    assert answer.status == 200, answer.text
    return sum(each.get("scope") == "endpoint" for each in answer.json["data"])


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def table(rows: Sequence[Found]) -> str:
    head = (
        f"{'phase':<9}{'requests':>9}{'errors':>8}{'upstream':>10}{'repeats':>9}{'switches':>10}"
        f"{'p50 ms':>9}{'p99 ms':>9}{'away s':>8}{'back s':>8}{'all back s':>12}"
    )
    lines = [
        f"{row.name:<9}{row.requests:>9}{len(row.errors):>8}"
        f"{row.upstream / row.requests:>10.2f}{row.repeats:>9}{row.switches:>10}"
        f"{row.p50_ms:>9.0f}{row.p99_ms:>9.0f}{_seconds(row.away_s):>8}"
        f"{_seconds(row.back_s):>8}{_seconds(row.all_back_s):>12}"
        for row in rows
    ]
    return "\n".join([head, "-" * len(head), *lines])


def verdict(rows: Sequence[Found]) -> list[str]:
    """What falls short."""
    requests = sum(row.requests for row in rows)
    errors = list(itertools.chain.from_iterable(row.errors for row in rows))
    upstream = sum(row.upstream for row in rows)
    short = [f"{len(errors)} of {requests} callers saw an error"] if errors else []
    short += sorted(set(errors))[:5]
    if upstream > MOST_PER_REQUEST * requests:
        short.append(f"{upstream / requests:.2f} upstream requests per request")
    repeats = sum(row.repeats for row in rows)
    if repeats:
        short.append(f"{repeats} requests met the primary twice while it was open")
    return short


@contextlib.asynccontextmanager
async def fielded(state_dir: Path, workers: int) -> AsyncIterator[Field]:
    """All of them, running."""
    async with FakeProvider() as primary, FakeProvider(ok(TEXT)) as fallback:
        config = settings(primary.url, fallback.url)
        config["server"] = {"workers": workers}
        parapet = Parapet(config, state_dir, single=False)
        callers: dict[str, Caller] = {}
        try:
            await parapet.start(ready=False)
            await parapet.ready(60)
            callers = {name: kind(parapet.url) for name, kind in CALLERS.items()}
            yield Field(primary, fallback, parapet, callers)
        finally:
            for caller in callers.values():
                await caller.close()
            await parapet.kill()


async def run(seconds: float, rps: float, workers: int, say: Callable[[str], None]) -> list[Found]:
    """Every phase in turn, `seconds` in all."""
    found = []
    with tempfile.TemporaryDirectory(prefix="parapet-steady-") as place:
        async with fielded(Path(place), workers) as field_:
            for name in FAULTS:
                phase = Phase(name)
                await play(phase, field_, seconds / len(FAULTS), rps)
                await asyncio.sleep(0.5)
                found.append(await found_in(phase, field_))
                say(table(found[-1:]).splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.steady", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rps", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    said = parser.parse_args()

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    rows = asyncio.run(run(said.seconds, said.rps, said.workers, say))
    say("\n" + table(rows))
    requests = sum(row.requests for row in rows)
    short = verdict(rows)
    say(f"\n{requests} requests in {said.seconds:g} s: " + ("; ".join(short) or "no errors"))
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
