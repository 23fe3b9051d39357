"""R26: callers who go away at any point: nobody's endpoint is blamed, nothing stays behind."""

import asyncio
import json
import random
import re
import statistics
from typing import Any

from tests.chaos.dialects import Dialect
from tests.chaos.outages import Tally, at_primary, opened, spread
from tests.chaos.rows import Result, Row
from tests.chaos.stage import Stage
from tests.chaos.words import LEADING
from tests.kit.httpclient import opened as connected
from tests.kit.lanes import prompt
from tests.kit.replies import ok

PACE_S = 0.1
EVERY_S = 0.02
STAY_MOST_S = 1.5
USUAL_S = 0.1
LONGEST_S = 1.0
_NUMBER = re.compile(rb"number (\d+)")


async def leavers(stage: Stage, row: Row, dialect: Dialect) -> Result:
    tally, count = Tally(row, dialect), stage.profile.leavers
    lane = opened(stage, row, dialect, ok(pieces=LEADING).paced(PACE_S))
    chance = random.Random(26)
    left = await asyncio.gather(
        *(
            _asks_and_leaves(
                stage, dialect, lane, number, number * EVERY_S, chance.random() * STAY_MOST_S
            )
            for number in range(count)
        )
    )
    for entry in at_primary(stage, dialect, lane):
        await asyncio.wait_for(entry.over.wait(), LONGEST_S + 5)
    waits = []
    for entry in at_primary(stage, dialect, lane):
        found = _NUMBER.search(entry.request.body)
        assert found is not None
        assert entry.end_at is not None
        tally.need(entry.end == "client gone", f"an answer ends {entry.end}")
        waits.append(entry.end_at - left[int(found[1])])
    usual, longest = statistics.median(waits), max(waits)
    tally.need(usual <= USUAL_S, f"closed upstream after {usual * 1000:.0f} ms (median)")
    tally.need(longest <= LONGEST_S, f"closed upstream after {longest * 1000:.0f} ms (max)")
    await _told_once(stage, tally, lane, len(waits))
    tally.need(not await stage.decisions(lane), "the policy moved")
    return tally.result(spread(stage, dialect, lane))


async def _asks_and_leaves(
    stage: Stage, dialect: Dialect, lane: str, number: int, after_s: float, stays_s: float
) -> float:
    await asyncio.sleep(after_s)
    chat = dialect.name == "chat"
    said = [{"role": "user", "content": prompt(lane, f"number {number}")}]
    body: dict[str, Any] = {"model": lane, "messages": said, "stream": True, "max_tokens": 400}
    path = "/v1/chat/completions" if chat else "/v1/messages"
    headers = {
        "x-parapet-route": lane, "content-type": "application/json",
        **({} if chat else {"anthropic-version": "2023-06-01"}),
    }  # fmt: skip
    async with connected(stage.parapet.url) as wire:
        await wire.ask("POST", path, json.dumps(body).encode(), headers)
        await asyncio.sleep(stays_s)
        return wire.leave()


async def _told_once(stage: Stage, tally: Tally, lane: str, count: int) -> None:
    events = await stage.event(lane, count)
    told = [each["payload"] for each in events if "outcome" in each["payload"]]
    tally.need(len(told) >= count, f"{len(told)} events of {count} requests")
    found = {each["outcome"] for each in told}
    tally.need(found <= {"client_cancelled"}, f"outcomes {sorted(found)}")
    blamed = {
        each["class"] for payload in told for each in payload.get("upstream_attempts", [])
    } - {"cancelled"}
    tally.need(not blamed, f"attempts told as {sorted(blamed)}")
