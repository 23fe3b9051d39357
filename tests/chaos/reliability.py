"""R14–R27 and R51 (reliability.md §3), as far as they are the failover's: what a policy does about
an endpoint, seen over many requests."""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence

from tests.chaos.checks import classes, outcome
from tests.chaos.dialects import Dialect
from tests.chaos.layout import endpoint_id
from tests.chaos.leaving import leavers
from tests.chaos.outages import (
    AGAIN_WITHIN_S,
    ALL_BACK_S,
    Tally,
    at_primary,
    every,
    opened,
    spread,
)
from tests.chaos.profile import Profile
from tests.chaos.rows import Conduct, Result, Row
from tests.chaos.said import Said
from tests.chaos.scenarios import said
from tests.chaos.stage import Stage
from tests.kit.replies import for_seconds, ok, silence, status
from tests.kit.reply import Reply
from tests.kit.script import Request

PAIR: Sequence[str] = ("chat", "messages")
TRIPS_WITHIN_S = 4.5
MOST_PER_REQUEST = 1.2
EXHAUSTED_MS = 50
HARD_FAILURES = 3
TOUCHED = 5  # requests by which an endpoint that only fails is left
TOUCHED_ALONE = 3  # and what one worker needs, as each request asks twice
TRIPPED = 20  # so many events later the policy has left its primary


async def refuses(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """R14: three refusals, and nobody asks it again; each other worker may have one under way, and
    in the fast profile, where all rows are played at once, each may find it out alone."""
    tally = Tally(row, dialect)
    lane = opened(stage, row, dialect, ok())
    answers = [
        *await every(stage, row, dialect, lane, count=1, every_s=0),
        *await every(stage, row, dialect, lane, count=9, every_s=0.15),
    ]
    tally.served(answers)
    events = [each["payload"] for each in await stage.event(lane, 10)]
    attempts = [each for told in events for each in told.get("upstream_attempts", [])]
    refused = [each for each in attempts if each["class"] == "connect"]
    most = HARD_FAILURES + stage.workers - 1
    if stage.profile.crowded:
        most = HARD_FAILURES * stage.workers
    tally.need(HARD_FAILURES <= len(refused) <= most, f"{len(refused)} refused, not 3 to {most}")
    await _trips_by(stage, tally, lane, "hard_failure")
    return tally.result(f"{len(refused)}/{len(stage.lanes.asked(lane))}")


async def fails_always(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """R15: at most five requests touch it, however many workers there are."""
    tally = Tally(row, dialect)
    lane = opened(stage, row, dialect, status(500))
    tally.served(await every(stage, row, dialect, lane, count=20, every_s=0.15))
    events = [each["payload"] for each in await stage.event(lane, 20)]
    name = endpoint_id("wall", dialect.primary)
    touched = sum(
        any(each["endpoint_id"] == name for each in told.get("upstream_attempts", []))
        for told in events
    )
    most = TOUCHED
    if stage.profile.crowded:
        most = max(TOUCHED, TOUCHED_ALONE * stage.workers)
    tally.need(touched <= most, f"{touched} requests touch it, not {most}")
    return tally.result(spread(stage, dialect, lane))


def hangs(reply: Callable[[], Reply]) -> Conduct:
    """R16, R17: five requests a second at a provider that says nothing of content."""

    async def conduct(stage: Stage, row: Row, dialect: Dialect) -> Result:
        tally = Tally(row, dialect)
        lane = opened(stage, row, dialect, reply())
        answers = await every(stage, row, dialect, lane, count=30, every_s=0.2)
        tally.served(answers)
        asked = at_primary(stage, dialect, lane)
        left_s = asked[-1].at - asked[0].at
        tally.need(left_s <= TRIPS_WITHIN_S, f"asked for {left_s:.1f} s, not {TRIPS_WITHIN_S}")
        longest_s = max(each.took_s for each in answers)
        most_s = stage.profile.first_content_s + 2
        tally.need(longest_s <= most_s, f"one waited {longest_s:.1f} s, not {most_s:g}")
        events = [each["payload"] for each in await stage.event(lane, 30)]
        _at_most_once(tally, events, endpoint_id("wall", dialect.primary))
        return tally.result(spread(stage, dialect, lane))

    return conduct


def _at_most_once(tally: Tally, events: Sequence[dict[str, object]], primary: str) -> None:
    """No request asks the primary twice."""
    for told in events:
        attempts = told.get("upstream_attempts")
        if isinstance(attempts, list):
            asked = sum(each["endpoint_id"] == primary for each in attempts)
            tally.need(asked <= 1, f"a request asks the primary {asked} times")


async def _trips_by(stage: Stage, tally: Tally, lane: str, code: str) -> None:
    found = [each.get("reason_code") for each in await stage.decisions(lane)]
    tally.need(found[:1] == [code], f"decisions {found}, not {code}")


async def comes_back(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """R21: it heals; one probe at a time, then a share, then all."""
    tally, profile = Tally(row, dialect), stage.profile
    healthy = ok(row.text).first_content_after(0.2)
    lane = opened(stage, row, dialect, for_seconds(profile.heal_s, status(500), healthy))
    answers: list[Said] = []
    while True:
        answers += await every(stage, row, dialect, lane, count=10, every_s=0.4)
        asked, latest = at_primary(stage, dialect, lane), stage.lanes.asked(lane)[-10:]
        healed = asked[0].at + profile.heal_s
        if latest == asked[-10:] and latest[0].at > healed:
            break
        if time.monotonic() > healed + ALL_BACK_S + 5:
            break
    tally.served(answers)
    after = [entry for entry in asked if entry.at >= healed]
    tally.need(bool(after) and after[0].at - healed <= AGAIN_WITHIN_S, "no answer in 24 s")
    elsewhere = [entry.at for entry in stage.lanes.asked(lane) if entry not in asked]
    last_s = max(elsewhere, default=healed) - healed
    tally.need(last_s <= ALL_BACK_S, f"the fallback still answers {last_s:.0f} s later")
    probes = itertools.pairwise(after[:3])
    overlap = any((first.end_at or second.at) > second.at for first, second in probes)
    tally.need(not overlap, "two probes at once")
    events = [each["payload"] for each in await stage.event(lane, len(answers))]
    _at_most_once(tally, events[TRIPPED:], endpoint_id("wall", dialect.primary))
    return tally.result(spread(stage, dialect, lane))


async def nothing_left(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """R24: all endpoints fail: told at once and until when, at little cost; then it heals."""
    tally, down_s = Tally(row, dialect), 5.0
    lane = row.lane(dialect, row.lanes[0])
    down = for_seconds(down_s, dialect.faults.overloaded, ok(row.text))
    stage.lanes.open(lane, {"*": down})
    count = 100
    answers = await every(stage, row, dialect, lane, count=count, every_s=down_s / count)
    asked = len(stage.lanes.asked(lane))
    told = [each for each in answers if "No endpoint of this route" in each.message]
    status_code = {each.status for each in told}
    tally.need(bool(told), f"nobody is told failover_exhausted: {answers[-1].error}", "safe")
    wanted = 503 if dialect.name == "chat" else 529
    tally.need(status_code <= {wanted}, f"told with {status_code}, not {wanted}")
    waits = [int(each.headers.get("retry-after", 0)) for each in told]
    tally.need(all(1 <= wait <= 25 for wait in waits), f"retry-after {sorted({*waits})}")
    events = [each["payload"] for each in await stage.event(lane, count)]
    took = [each["latency_ms"] for each in events if each.get("attempts") == 0]
    if took:
        took_ms = statistics.median(took)
        tally.need(took_ms < EXHAUSTED_MS, f"told after {took_ms:.0f} ms, not {EXHAUSTED_MS}")
    ratio = asked / count
    tally.need(ratio <= MOST_PER_REQUEST, f"{ratio:.2f} attempts per request")
    again = [each for each in await _until_served(stage, row, dialect, lane, 30) if not each.error]
    tally.need(bool(again), "not served 30 s after all have healed", "fail")
    return tally.result(f"{asked}/{count}")


async def _until_served(
    stage: Stage, row: Row, dialect: Dialect, lane: str, most_s: float
) -> list[Said]:
    until, found = time.monotonic() + most_s, list[Said]()
    while time.monotonic() < until and not any(not each.error for each in found):
        found += await every(stage, row, dialect, lane, count=1, every_s=0)
        await asyncio.sleep(0.3)
    return found


async def held(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """R25: a hold of five seconds is not shortened by a 429 without a hint."""
    tally = Tally(row, dialect)
    first, second = status(429, retry_after="5").after(0.1), status(429).after(0.3)
    lane = opened(stage, row, dialect, [first, second, ok(row.text)])
    began = time.monotonic()
    answers = await every(stage, row, dialect, lane, count=2, every_s=0.01)
    answers += await every(stage, row, dialect, lane, count=40, every_s=0.2)
    tally.served(answers)
    asked = [entry.at - began for entry in at_primary(stage, dialect, lane)]
    early = [at for at in asked[2:] if at < 5.1]
    tally.need(not early, f"asked again after {[f'{at:.1f}' for at in early]} s")
    tally.need(len(asked) > 2, "never asked again")
    events = [each["payload"] for each in await stage.event(lane, 42)]
    found = {
        each["class"] for told in events for each in told.get("upstream_attempts", [])
    }  # fmt: skip
    tally.need(found <= {"rate_limited", "success"}, f"classes {sorted(found)}")
    return tally.result(spread(stage, dialect, lane))


async def half_fails(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """R27: every other answer is an error, at many requests a second."""
    tally, profile = Tally(row, dialect), stage.profile
    turn = itertools.count()

    def alternates(_: Request) -> Reply:
        return status(500) if next(turn) % 2 else ok(row.text)

    lane = opened(stage, row, dialect, alternates)
    count = int(profile.load_rps * profile.load_s)
    every_s = 1 / profile.load_rps
    tally.served(await every(stage, row, dialect, lane, count=count, every_s=every_s))
    asked = len(stage.lanes.asked(lane))
    tally.need(asked <= MOST_PER_REQUEST * count, f"{asked / count:.2f} attempts per request")
    return tally.result(f"{asked}/{count}")


async def stale(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """R51: a provider that closes idle connections, and bursts just behind that."""
    tally, profile = Tally(row, dialect), stage.profile
    lane = opened(stage, row, dialect, ok(row.text))
    stage.dozing.play(ok(row.text))
    answers: list[Said] = []
    for _ in range(profile.bursts):
        answers += await every(stage, row, dialect, lane, count=profile.burst, every_s=0)
        await asyncio.sleep(profile.burst_gap_s - random.random() * 0.01)
    tally.served(answers)
    count = len(answers)
    asked = len(stage.dozing.journal)
    tally.need(asked <= 2 * count, f"{asked} requests arrived for {count}")
    tally.need(not await stage.decisions(lane), "the policy moved")
    return tally.result(f"{asked}/{count}")


def _lasting(profile: Profile) -> float:
    return profile.heal_s + ALL_BACK_S


# fmt: off
RELIABILITY: Sequence[Row] = (
    Row("R14", "the primary refuses connections", conduct=refuses, lanes=("run",),
        dialects=("chat",), policy={"primary_endpoint": "wall-dead"}),
    Row("R15", "500 for ever, many requests", conduct=fails_always, lanes=("run",), dialects=PAIR),
    Row("R16", "the primary hangs, 5 a second", conduct=hangs(silence), lanes=("run",),
        dialects=PAIR, lasts=lambda p: 20.0),
    Row("R17", "pings without content, 5 a second",
        conduct=hangs(lambda: ok().keepalives(0.5)), lanes=("run",), dialects=PAIR,
        lasts=lambda p: 20.0),
    Row("R20", "cut after 5 chunks, stream_recovery off",
        lambda d, p: said().cut(after=5), (1, 0), ends="in_band",
        route={"stream_recovery": "off"}, checks=(classes("cut"), outcome("interrupted"))),
    Row("R21", "an outage heals under load", conduct=comes_back, lanes=("run",), dialects=PAIR,
        lasts=_lasting),
    Row("R24", "all endpoints fail", conduct=nothing_left, lanes=("run",), dialects=PAIR,
        stream=False, lasts=lambda p: 15.0),
    Row("R25", "429 with a hint, then one without", conduct=held, lanes=("run",), dialects=PAIR,
        lasts=lambda p: 10.0),
    Row("R26", "callers leave at any point", conduct=leavers, lanes=("run",), dialects=PAIR,
        alone=True),
    Row("R27", "half of the answers are errors", conduct=half_fails, lanes=("run",),
        dialects=("chat",), stream=False, alone=True),
    Row("R51", "the provider closes idle connections", conduct=stale, lanes=("run",),
        dialects=("chat",), stream=False, policy={"primary_endpoint": "wall-dozing"},
        lasts=lambda p: p.bursts * p.burst_gap_s),
)
# fmt: on
