"""Rows of many requests: an outage that heals, a provider that hangs, a policy that trips.

Every one gives a `Result` like the rows of one request do; `Tally` gathers what fell short.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.dialects import Dialect
from tests.chaos.layout import endpoint_id
from tests.chaos.rows import LEVELS, Level, Result, Row
from tests.chaos.said import Judge, Said
from tests.chaos.stage import Stage
from tests.kit.provider import Entry
from tests.kit.replies import Script, for_seconds, ok

AGAIN_WITHIN_S = 24.0
PUBLIC_AGAIN_S = 30.0
ALL_BACK_S = 50.0


@dataclass
class Tally:
    """What fell short in a row of many requests, and how bad the worst of it is."""

    row: Row
    dialect: Dialect
    began: float = field(default_factory=time.monotonic)
    level: Level = "pass"
    short: list[str] = field(default_factory=list)

    def need(self, true: bool, why: str, level: Level = "partial") -> None:
        """`why` is what to say when it is not so."""
        if not true:
            self.short.append(why)
            self.level = max(self.level, level, key=LEVELS.index)

    def served(self, answers: list[Said]) -> None:
        """Every caller has the whole answer."""
        for said, count in Counter(map(self._shortfall, answers)).items():
            level: Level = "safe" if said and not said.startswith("!") else "fail"
            self.need(not said, f"{count} of {len(answers)}: {said.removeprefix('!')}", level)

    def _shortfall(self, said: Said) -> str:
        if said.hung:
            return "!no end"
        if said.error:
            return f"{'' if said.proper else '!'}{said.error}: {said.message[:60]}"
        return "" if said.text == self.row.text and not said.flaws else "!not the whole answer"

    def result(self, attempts: str = "") -> Result:
        took_s = time.monotonic() - self.began
        return Result(
            self.row.id, self.dialect.name, self.level, attempts, took_s, tuple(self.short)
        )


async def every(
    stage: Stage, row: Row, dialect: Dialect, lane: str, *, count: int, every_s: float,
    judge: Judge = "raw",
) -> list[Said]:  # fmt: skip
    """So many requests, one each `every_s` seconds whatever became of those before."""
    caller = stage.caller(dialect)
    began = time.monotonic()

    async def one(number: int) -> Said:
        await asyncio.sleep(began + number * every_s - time.monotonic())
        ask = stage.ask(lane, row, f"number {number}")
        return await (caller.sdk(ask) if judge == "sdk" else caller.raw(ask))

    return list(await asyncio.gather(*map(one, range(count))))


def opened(stage: Stage, row: Row, dialect: Dialect, primary: Script) -> str:
    """The row's only lane with that script at the primary, and good answers elsewhere."""
    lane = row.lane(dialect, row.lanes[0])
    good = row.answers(dialect, stage.profile)
    stage.lanes.open(lane, {endpoint_id("wall", dialect.primary): primary, "*": good})
    return lane


def at_primary(stage: Stage, dialect: Dialect, lane: str) -> list[Entry]:
    return stage.lanes.asked(lane, endpoint_id("wall", dialect.primary))


def spread(stage: Stage, dialect: Dialect, lane: str) -> str:
    """Attempts as `primary/elsewhere`."""
    first = len(at_primary(stage, dialect, lane))
    return f"{first}/{len(stage.lanes.asked(lane)) - first}"


async def heals(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """S15: an outage, one request each few seconds, and the way back."""
    profile, tally = stage.profile, Tally(row, dialect)
    outage = for_seconds(profile.outage_s, dialect.faults.overloaded, ok(row.text))
    lane = opened(stage, row, dialect, outage)
    answers = await every(
        stage, row, dialect, lane, count=profile.outage_requests, every_s=profile.outage_every_s,
        judge="sdk",
    )  # fmt: skip
    while await _is_away(stage, dialect, lane, PUBLIC_AGAIN_S):
        answers += await every(stage, row, dialect, lane, count=1, every_s=0, judge="sdk")
        await asyncio.sleep(profile.outage_every_s)
    tally.served(answers)
    asked = at_primary(stage, dialect, lane)
    healed = asked[0].at + profile.outage_s
    tally.need(
        sum(entry.at < healed for entry in asked) <= 10,
        f"{sum(entry.at < healed for entry in asked)} primary attempts in the outage, not 10",
    )
    back = [entry.at - healed for entry in asked if entry.at >= healed]
    tally.need(bool(back), f"not back after {PUBLIC_AGAIN_S:g} s")
    if back:
        tally.need(back[0] <= AGAIN_WITHIN_S, f"back after {back[0]:.0f} s")
    return tally.result(spread(stage, dialect, lane))


async def _is_away(stage: Stage, dialect: Dialect, lane: str, most_s: float) -> bool:
    """Whether the primary has not been asked since it healed, and there is time left."""
    asked = at_primary(stage, dialect, lane)
    healed = asked[0].at + stage.profile.outage_s
    return asked[-1].at < healed and time.monotonic() < healed + most_s


async def is_held(stage: Stage, lane: str) -> list[str]:
    """S01: while a request waits for the end of a hold, the policy says so."""
    await asyncio.sleep(1.0)
    status = (await stage.policy(lane)).get("primary_status")
    return [] if status == "rate_limited" else [f"primary_status {status} while it waits"]
