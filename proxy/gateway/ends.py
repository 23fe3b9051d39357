"""How the attempt behind a stream has ended, and what it has cost."""

from proxy.gateway.answer import Answer
from proxy.gateway.turn import Gateway, Turn
from proxy.model.exchange import Usage
from proxy.model.failover import Outcome
from proxy.model.observations import StreamEventDropped
from proxy.model.records import Attempt
from proxy.routing.outcomes import judge_transport
from proxy.wire.usage import estimate_bytes


def is_whole(answer: Answer) -> bool:
    """It ended as its dialect says."""
    pump = answer.pump
    assert pump is not None
    return answer.fault is None and pump.terminal


def has_died(answer: Answer) -> bool:
    """Its provider has failed in the middle: not the guard, and not the caller."""
    pump = answer.pump
    assert pump is not None
    if pump.blocked is not None or (answer.fault is not None and answer.fault.phase == "caller"):
        return False
    return not is_whole(answer)


def judge_death(turn: Turn, answer: Answer, attempt: Attempt, chars: int | None = None) -> None:
    """After content: `cut` or `stall`.  `chars`: what the caller has of the answer."""
    pump = answer.pump
    assert pump is not None
    after = "" if chars is None else f" after {chars} chars"
    if answer.fault is not None:
        phase = answer.fault.phase
        attempt.outcome = judge_transport(
            phase, response_bytes=answer.fault.response_bytes, content_sent=True
        )
        attempt.timed_out = phase if phase in ("idle", "total") else ""
        attempt.why = f"stream cut{after}" if after else f"stream {phase}"
        if phase == "idle":
            attempt.why = f"stream idle > {turn.route.doc.timeouts.idle_ms}ms"
        elif phase == "total":
            attempt.why = f"total > {turn.route.doc.timeouts.total_ms}ms"
        return
    attempt.outcome = Outcome.CUT
    attempt.why = f"stream cut{after}"
    if pump.error is not None:
        kind = answer.candidate.masked(pump.error.type or pump.error.code)
        attempt.why = f"error {kind}"
    elif pump.broken:
        attempt.why = pump.broken


def usage_of(turn: Turn, answer: Answer) -> Usage:
    """What it has said that it took; an estimate where it could not say all of it."""
    pump = answer.pump
    assert pump is not None
    reader = pump.reader
    if reader.usage is not None and pump.terminal:
        return reader.usage
    seen = reader.usage or Usage()
    return Usage(
        seen.input or estimate_bytes(len(turn.exchange.body)),
        seen.cache_read,
        seen.cache_write_5m,
        seen.cache_write_1h,
        max(seen.output, estimate_bytes(reader.output_bytes)),
        seen.reasoning,
        estimated=True,
    )


def note_attempt(turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway) -> None:
    """Its time, and the events that were not passed on."""
    pump = answer.pump
    assert pump is not None
    attempt.latency_ms = (gateway.clock.monotonic() - answer.started) * 1000
    turn.record.events_dropped += pump.dropped
    for _ in range(pump.dropped):
        gateway.observe(StreamEventDropped(answer.candidate.doc.id))


def added(one: Usage, other: Usage) -> Usage:
    """The sum of two attempts'."""
    return Usage(
        one.input + other.input,
        one.cache_read + other.cache_read,
        one.cache_write_5m + other.cache_write_5m,
        one.cache_write_1h + other.cache_write_1h,
        one.output + other.output,
        one.reasoning + other.reasoning,
        one.estimated or other.estimated,
    )
