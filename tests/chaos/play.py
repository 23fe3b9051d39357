"""Plays one row that is one request: by the official SDK and by a raw client, each in its lane."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from tests.chaos.checks import told_as_seen
from tests.chaos.dialects import Dialect
from tests.chaos.layout import endpoint_id, spare_id
from tests.chaos.rows import LEVELS, Evidence, Level, Result, Row
from tests.chaos.said import Judge, Said
from tests.chaos.stage import Stage

JUDGES: tuple[Judge, ...] = ("sdk", "raw")


async def played(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """The verdict over a row."""
    conduct = row.conduct or one_request
    result = await conduct(stage, row, dialect)
    if await stage.is_alive():
        return result
    return worse(result, "fail", "a healthy call is not answered afterwards")


def worse(result: Result, level: Level, why: str) -> Result:
    found = max(result.level, level, key=LEVELS.index)
    return replace(result, level=found, short=(*result.short, why))


async def one_request(stage: Stage, row: Row, dialect: Dialect) -> Result:
    seen = await asyncio.gather(*(evidence(stage, row, dialect, judge) for judge in JUDGES))
    result = Result(row.id, dialect.name, "pass", counted(seen[0], row), seen[0].said.took_s)
    for each in seen:
        for level, why in verdict(each, row):
            result = worse(result, level, f"{each.said.judge}: {why}")
    return result


async def evidence(stage: Stage, row: Row, dialect: Dialect, judge: Judge) -> Evidence:
    """Asks once, and gathers what is known of it."""
    lane = row.lane(dialect, judge)
    stage.open(row, dialect, lane)
    caller, ask = stage.caller(dialect), stage.ask(lane, row)
    said, noted = await asyncio.gather(
        caller.sdk(ask) if judge == "sdk" else caller.raw(ask),
        row.meanwhile(stage, lane) if row.meanwhile else _nothing(),
    )
    events = await stage.event(lane)
    asked = {"wall": stage.lanes.asked(lane, endpoint_id("wall", dialect.primary))}
    for role in row.spares:
        asked[role] = stage.lanes.asked(lane, spare_id(role, dialect.fallback, lane))
    requests = [each for each in events if "upstream_attempts" in each["payload"]]
    decisions = [each for each in events if each["type"] == "runtime.failover.decision"]
    return Evidence(
        dialect, stage.profile, said, asked, requests[-1] if requests else {}, decisions, noted
    )


async def _nothing() -> list[str]:
    return []


def counted(seen: Evidence, row: Row) -> str:
    """Attempts as `primary/fallback`."""
    return "/".join(str(len(seen.asked[role])) for role in ("wall", *row.spares))


def verdict(seen: Evidence, row: Row) -> Iterator[tuple[Level, str]]:
    """What falls short, and how bad that is."""
    said = seen.said
    if said.hung:
        yield "fail", f"no end after {said.took_s:.0f} s"
        return
    ends = list(_whole(said, row) if row.ends == "whole" else _error(said, row))
    yield from ends
    if ends:
        return
    for flaw in said.flaws:
        yield "fail", flaw
    wanted = "/".join(map(str, row.attempts))
    if counted(seen, row) != wanted:
        yield "partial", f"attempts {counted(seen, row)}, not {wanted}"
    if said.took_s > row.within(seen.profile):
        yield "partial", f"{said.took_s:.1f} s, not within {row.within(seen.profile):.1f}"
    for note in seen.noted:
        yield "partial", note
    checks = row.checks if "gone" in row.spares else (told_as_seen, *row.checks)
    for check in checks:
        for short in check(seen):
            yield "partial", short


def _whole(said: Said, row: Row) -> Iterator[tuple[Level, str]]:
    if said.error:
        level: Level = "safe" if said.proper else "fail"
        yield level, f"{said.error}: {said.message[:80]}"
    elif said.text != row.text:
        yield "fail", f"{len(said.text)} of {len(row.text)} characters, told as a success"


def _error(said: Said, row: Row) -> Iterator[tuple[Level, str]]:
    if not said.error:
        yield "fail", f"no error; {len(said.text)} of {len(row.text)} characters as a success"
    elif not said.proper:
        yield "fail", f"{said.error} is no proper error"
    if not row.text.startswith(said.text):
        yield "fail", "text that is not of the answer"
