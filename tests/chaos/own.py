"""P01–P12 (failover.md §13): what the public scenarios do not try."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace

from tests.chaos.checks import classes, outcome, resumed, usage
from tests.chaos.dialects import CROSSED, FRAMED, Dialect
from tests.chaos.layout import endpoint_id
from tests.chaos.outages import Tally, at_primary, every, opened, spread
from tests.chaos.play import evidence, verdict
from tests.chaos.profile import Profile
from tests.chaos.rows import Result, Row
from tests.chaos.scenarios import after_first_content, after_idle, said
from tests.chaos.stage import Stage
from tests.chaos.words import OTHER, TEXT, TORN
from tests.kit.replies import Script, half_json, html, ok, raw, silence
from tests.kit.reply import Reply
from tests.kit.script import Request, ToolCall

SHORT = "One small flame burns."
KILLS_AT_ONCE = 12
DECIDED_WITHIN_S = 10.0
NO_USAGE = "0 × usage"
SDK_EVERY = 10  # so many cuts are read by the raw client, then one by the SDK
_MARK = re.compile(rb"cut (\d+)")
FREE = {
    "conditions": {"error_rate_threshold": 1.0, "consecutive_failures": 0},
    "request_failover": {"same_endpoint_retries": 0, "budget_percent": 100, "min_concurrency": 100},
}
"""A policy that nothing trips: each request meets the fault anew."""


async def killed_everywhere(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """P03: one stream, ended after each of its bytes: the whole answer, or an error."""
    tally = Tally(row, dialect)
    step, tried, ends = stage.profile.kills_step, 0, dict.fromkeys(row.lanes, 0)
    for mode in row.lanes:
        lane = row.lane(dialect, mode)
        primary = endpoint_id("wall", dialect.primary)
        stage.lanes.open(lane, {primary: _cut_as_asked, "*": ok(SHORT).continuing("exact")})
        at = 0
        while not ends[mode]:
            places = range(at, at + KILLS_AT_ONCE * step, step)
            await asyncio.gather(
                *(_killed(stage, row, dialect, lane, tally, place) for place in places)
            )
            at, tried = places.stop, tried + len(places)
            latest = stage.lanes.asked(lane, primary)[-KILLS_AT_ONCE:]
            ends[mode] = any(entry.end == "served" for entry in latest) * at
    return tally.result(f"{tried} kills")


def _cut_as_asked(request: Request) -> Reply:
    found = _MARK.search(request.body)
    assert found is not None, "the request says where"
    return ok(SHORT).cut_bytes(int(found[1]))


async def _killed(
    stage: Stage, row: Row, dialect: Dialect, lane: str, tally: Tally, place: int
) -> None:
    caller, ask = stage.caller(dialect), stage.ask(lane, row, f"cut {place}")
    heard = await (caller.raw(ask) if place % SDK_EVERY else caller.sdk(ask))
    tally.need(not heard.hung, f"byte {place}: no end", "fail")
    flaws = [each for each in heard.flaws if each != NO_USAGE]  # that may be what was cut
    tally.need(not flaws, f"byte {place}: {flaws}", "fail")
    if heard.error:
        tally.need(heard.proper, f"byte {place}: {heard.error} {heard.message[:40]}", "fail")
        tally.need(SHORT.startswith(heard.text), f"byte {place}: other text", "fail")
    else:
        tally.need(heard.text == SHORT, f"byte {place}: {heard.text!r} as a success", "fail")


async def refused_once_and_remembered(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """P08: the first continuation is refused and restarted; the second request is not tried so."""
    tally = Tally(row, dialect)
    for wanted in ((1, 2), (2, 3)):
        seen = await evidence(stage, row, dialect, "raw")
        for level, why in verdict(seen, replace(row, attempts=wanted, checks=())):
            if "arrived" not in why:
                tally.need(False, why, level)
        counts = tuple(len(found) for found in seen.asked.values())
        tally.need(counts == wanted, f"attempts {counts} in all, not {wanted}")
    return tally.result(spread(stage, dialect, row.lane(dialect, "raw")))


async def slow_primary(stage: Stage, row: Row, dialect: Dialect) -> Result:
    """P12: the seed's policy leaves a primary that is 3 s slow, after ten requests at most."""
    tally = Tally(row, dialect)
    lane = opened(stage, row, dialect, ok(row.text).first_content_after(3.0))
    first = asyncio.gather(every(stage, row, dialect, lane, count=10, every_s=0.05, judge="sdk"))
    await stage.decided(lane, DECIDED_WITHIN_S)
    later = await every(stage, row, dialect, lane, count=5, every_s=0.05, judge="sdk")
    tally.served([*(await first)[0], *later])
    slow = len(at_primary(stage, dialect, lane))
    tally.need(slow <= 10, f"{slow} requests met the slow primary, not 10")
    told = await stage.decisions(lane)
    found = [
        (each["trigger_condition"], each["original_endpoint"], each["selected_fallback"])
        for each in told
    ]
    wanted = ("latency > 2000ms", "anthropic-claude", "bedrock-claude")
    tally.need(found[:1] == [wanted], f"decisions {found}")
    events = [each for each in await stage.event(lane, 15) if _decides(each)]
    tally.need(bool(events), "no event of scope endpoint")
    return tally.result(spread(stage, dialect, lane))


def _decides(event: dict[str, dict[str, str]]) -> bool:
    payload = event["payload"]
    return str(event["type"]) == "runtime.failover.decision" and payload.get("scope") == "endpoint"


def _torn(dialect: Dialect, profile: Profile) -> Script:
    """Ends after `lant`, of which a guard of `tern…` holds the last letter."""
    place = TEXT.index("lantern") + 4
    pieces = [TEXT[:place], *TORN]
    return ok(pieces=pieces).cut(after=1)


def _tool(dialect: Dialect, profile: Profile) -> Script:
    call = ToolCall("weather", {"city": "Oslo"}, "toolu_0")
    return ok(tools=[call]).cut(after=2)


# fmt: off
_GUARDED: dict[str, object] = {"policy_packs": ["holding"]}
OWN: Sequence[Row] = (
    Row("P01", "an error in the stream before content",
        lambda d, p: said().error_after(0, d.faults.overloaded_type, status=529), (2, 1),
        dialects=FRAMED, checks=(usage, classes("upstream_5xx", "upstream_5xx", "success"))),
    Row("P02", "headers, then pings for ever",
        lambda d, p: ok().keepalives(0.5), (1, 1), within=after_first_content,
        dialects=FRAMED, checks=(classes("no_answer", "success"),)),
    Row("P03", "a stream killed at every byte", conduct=killed_everywhere, lanes=("off", "resume"),
        text=SHORT, policy=FREE, dialects=FRAMED, alone=True, lasts=lambda p: 60.0),
    Row("P04", "an error in the stream after 40 tokens",
        lambda d, p: said().error_after(40, d.faults.overloaded_type), (1, 1),
        dialects=FRAMED, checks=(usage, resumed(), outcome("success"))),
    Row("P04-429", "a 429 in the stream after 40 tokens",
        lambda d, p: said().error_after(40, "" if d.primary == "openai" else "rate_limit_error",
                                        status=429), (1, 1),
        checks=(usage, resumed(), outcome("success"))),
    Row("P05", "cut inside a word while the guard holds text",
        _torn, (1, 1), answers=lambda d, p: ok(pieces=TORN).continuing("exact"),
        route=_GUARDED, checks=(usage, resumed())),
    Row("P05-spaced", "the same; it continues with a space",
        _torn, (1, 2), answers=lambda d, p: ok(pieces=TORN).continuing("spaced"),
        route=_GUARDED, checks=(usage, resumed("restart"))),
    Row("P06", "the restart differs",
        lambda d, p: said().cut(after=40), (1, 1), ends="in_band", spares=("noprefill",),
        answers=lambda d, p: ok(OTHER), checks=(outcome("interrupted"),)),
    Row("P07-cut", "unary: the body is cut at 60 %",
        lambda d, p: ok(TEXT).cut_bytes(450), (1, 1), stream=False, checks=(usage,)),
    Row("P07-silence", "unary: headers, then silence",
        lambda d, p: ok(TEXT).silent(), (1, 1), stream=False, within=after_idle),
    Row("P07-json", "unary: half a document",
        lambda d, p: half_json(), (2, 1), stream=False, checks=(usage,)),
    Row("P07-error", "unary: 200 with an error object",
        lambda d, p: raw(b'{"error":{"type":"server_error","message":"oh"}}'), (2, 1),
        stream=False, checks=(usage,)),
    Row("P07-html", "unary: 502 with HTML",
        lambda d, p: html(502), (2, 1), stream=False, checks=(usage,)),
    Row("P08", "a continuation is refused, once", lambda d, p: said().cut(after=40),
        spares=("liar",), answers=lambda d, p: said().continuing("refused"),
        conduct=refused_once_and_remembered, lanes=("raw",)),
    Row("P09", "cut inside the arguments of a tool call",
        _tool, (1, 0), ends="in_band", text="", tools=True, dialects=FRAMED,
        checks=(outcome("interrupted"),)),
    Row("P10", "the fallback speaks another dialect",
        lambda d, p: d.faults.overloaded, (2, 1), dialects=CROSSED, checks=(usage,)),
    Row("P10-cut", "the same, after 40 tokens",
        lambda d, p: said().cut(after=40), (1, 1), dialects=CROSSED, checks=(usage, resumed())),
    Row("P11", "one hangs, one refuses, one answers",
        lambda d, p: silence(), (1, 0, 1), spares=("gone", "third"), within=after_first_content,
        checks=(classes("no_answer", "connect", "connect", "success"), outcome("success"))),
    Row("P12", "the seed's primary is 3 s slow", conduct=slow_primary, lanes=("sdk",),
        dialects=("seed",), policy={"primary_endpoint": "anthropic-claude",
                                    "fallback_endpoints": ["bedrock-claude"]},
        route={"timeouts": {"first_content_ms": 10_000}}),
)
# fmt: on
