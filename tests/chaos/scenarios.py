"""S01–S16 (failover.md §12), in every dialect of §12.1: the fault at the primary, and the bar."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.chaos import outages
from tests.chaos.checks import (
    adds,
    classes,
    costs_where_answered,
    decided,
    dropped,
    ends_soon,
    gap,
    names_the_fallback,
    outcome,
    quoted,
    resumed,
    stops_with,
    usage,
)
from tests.chaos.dialects import FRAMED, Dialect
from tests.chaos.profile import Profile
from tests.chaos.rows import Row
from tests.chaos.words import LEADING, TRAILING
from tests.kit.replies import Script, ok, reset, silence, status
from tests.kit.reply import Prefill, Reply

PACE_S = 0.002


def said(*, trailing: bool = False) -> Reply:
    """The sixty words, one after the other."""
    return ok(pieces=TRAILING if trailing else LEADING).paced(PACE_S)


def after_first_content(profile: Profile) -> float:
    return profile.first_content_s + 2


def after_idle(profile: Profile) -> float:
    return profile.idle_s + 2


def twenty_s(profile: Profile) -> float:
    return 20.0


def _slow(dialect: Dialect, profile: Profile) -> Script:
    if dialect.faults.pings:
        late = said().first_content_after(profile.slow_start_s)
        return late.pinging(profile.ping_every_s)
    return said().first_event_after(profile.slow_start_s)


def _falls_silent(*, trailing: bool) -> Callable[[Dialect, Profile], Script]:
    def maker(dialect: Dialect, profile: Profile) -> Script:
        reply = said(trailing=trailing).stall(after=20, seconds=profile.stall_s)
        return reply.pinging(profile.ping_every_s) if dialect.faults.pings else reply

    return maker


def _cut(*, trailing: bool) -> Callable[[Dialect, Profile], Script]:
    return lambda dialect, profile: said(trailing=trailing).cut(after=40)


def _continues(prefill: Prefill) -> Callable[[Dialect, Profile], Script]:
    return lambda dialect, profile: said().continuing(prefill)


def manners(row: Row, maker: Callable[..., Callable[[Dialect, Profile], Script]]) -> Sequence[Row]:
    """The row with both manners of continuing, with and without a guard that holds text back.

    Under the guard the seam lies inside a word; who begins with a space there is asked once more.
    """
    guarded: dict[str, object] = {"policy_packs": ["holding"]}
    return (
        replace(row, primary=maker(trailing=False), answers=_continues("exact")),
        replace(
            row, id=f"{row.id}-spaced", primary=maker(trailing=True), answers=_continues("spaced")
        ),
        replace(
            row,
            id=f"{row.id}-guard",
            primary=maker(trailing=False),
            answers=_continues("exact"),
            route=guarded,
        ),
        replace(
            row,
            id=f"{row.id}-guard-spaced",
            primary=maker(trailing=False),
            answers=_continues("spaced"),
            route=guarded,
            attempts=(1, 2),
        ),
    )


# fmt: off
_PLAIN = (
    Row("S01", "429, retry-after 2, once",
        lambda d, p: [status(429, retry_after="2"), said()], (2, 0), within=twenty_s,
        checks=(gap(1.8, 2.4), classes("rate_limited", "success")), meanwhile=outages.is_held),
    Row("S02", "429 for ever, no hint",
        lambda d, p: status(429), (1, 1),
        checks=(adds(0.1), classes("rate_limited", "success"), decided("rate_limited"))),
    Row("S03", "500 once",
        lambda d, p: [status(500), said()], (2, 0),
        checks=(gap(0.05, 0.2), classes("upstream_5xx", "success"))),
    Row("S04", "503 (529) for ever",
        lambda d, p: d.faults.overloaded, (2, 1),
        checks=(adds(0.3), decided("upstream_error"))),
    Row("S05", "RST before headers, once",
        lambda d, p: [reset(), said()], (2, 0), within=twenty_s,
        checks=(classes("connect", "success"),)),
    Row("S06", "accepts, then silence",
        lambda d, p: silence(), (1, 1), within=after_first_content,
        checks=(classes("no_answer", "success"),)),
    Row("S07", "headers, first event late",
        _slow, (1, 1), within=after_first_content,
        checks=(classes("no_answer", "success"),)),
    Row("S10", "one extra event of bad JSON",
        lambda d, p: said().bad_json(after=10), (1, 0),
        checks=(usage, dropped(1))),
    Row("S11", "the trailer is missing",
        lambda d, p: said().without_trailer(), (1, 0),
        checks=(usage, ends_soon(1.0))),
    Row("S12", "400, prompt too long",
        lambda d, p: d.faults.too_long, (1, 1),
        checks=(classes("context_window", "success"), decided("context_window"))),
    Row("S12-small", "the same, no larger context elsewhere",
        lambda d, p: d.faults.too_long, (1, 0), ends="refused", spares=("noprefill",),
        checks=(quoted("maximum context length", "prompt is too long"),)),
    Row("S16", "503 (529) for ever: who answered",
        lambda d, p: d.faults.overloaded, (2, 1),
        checks=(usage, names_the_fallback, costs_where_answered, decided("upstream_error"))),
)
_CHAT_REFUSES = Row(
    "S13", "400, content policy",
    lambda d, p: d.faults.refused, (1, 0), ends="refused", dialects=("chat",),
    checks=(quoted("Rejected by our safety system."), quoted("content_policy_violation")))
_CLAUDE_REFUSES = Row(
    "S13", "200, stop_reason refusal",
    lambda d, p: d.faults.refused, (1, 0), dialects=("messages", "seed"),
    checks=(stops_with("refusal"), classes("success")))
_RECOVERED = (
    *manners(Row("S08", "cut after 40 of 60 tokens", attempts=(1, 1), dialects=FRAMED,
                 checks=(usage, resumed(), outcome("success"))), _cut),
    *manners(Row("S09", "silence after 20 tokens, then closed", attempts=(1, 1),
                 within=after_idle, checks=(usage, resumed(), outcome("success"))), _falls_silent),
    Row("S10-structural", "bad JSON in an event of the frame; a wrong checksum",
        lambda d, p: said().bad_json(after=10, structural=True), (1, 1),
        dialects=("messages", "seed", "invoke"), checks=(resumed(),)),
    Row("S14", "cut; the fallback refuses any prefill", _cut(trailing=False), (1, 1),
        spares=("noprefill",), answers=_continues("refused"), checks=(resumed("restart"),)),
    Row("S14-declared", "the same, declared to continue", _cut(trailing=False), (1, 2),
        spares=("liar",), answers=_continues("refused"), checks=(resumed("restart"),)),
)
_OUTAGE = Row(
    "S15", "503 (529) for a while, then healthy", conduct=outages.heals, lanes=("sdk",),
    lasts=lambda p: p.outage_every_s * p.outage_requests)
# fmt: on

SCENARIOS: Sequence[Row] = (*_PLAIN, _CHAT_REFUSES, _CLAUDE_REFUSES, *_RECOVERED, _OUTAGE)
