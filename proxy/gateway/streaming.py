"""A stream handed on to the caller: its flow, its end, and what is noted of it."""

import asyncio

from proxy.gateway.answer import Answer
from proxy.gateway.ends import added, has_died, is_whole, judge_death, note_attempt, usage_of
from proxy.gateway.faults import fault_of
from proxy.gateway.noting import note, note_reasoning_off
from proxy.gateway.snapshot import Rules
from proxy.gateway.splice import Splice, open_splice
from proxy.gateway.tops import begin, note_fault
from proxy.gateway.turn import Gateway, Turn
from proxy.model.errors import Blocked
from proxy.model.failover import Outcome
from proxy.model.observations import GuardOverflowed
from proxy.model.records import Attempt


async def relay_stream(
    turn: Turn, answer: Answer, attempt: Attempt, rules: Rules, gateway: Gateway
) -> Answer:
    """Hand a stream on, and what goes on with it; returns the answer that ended it.  Raises Blocked
    before the first byte."""
    splice = open_splice(turn, answer, attempt, rules, gateway)
    left: asyncio.CancelledError | None = None
    try:
        await _flow(turn, answer, attempt, gateway, splice)
    except asyncio.CancelledError as why:
        left = why
    except BaseException:
        _note_stream(turn, answer, attempt, gateway)
        raise
    finally:
        if splice is not None:
            splice.outlet.close()
    if splice is not None:
        answer, attempt = splice.answer, splice.attempt
    if left is not None:
        if splice is not None and splice.next_answer is not None:
            answer, attempt = splice.next_answer, turn.record.attempts[-1]
        if attempt.usage is None:  # else it had died before
            attempt.outcome = Outcome.CANCELLED
        answer.cancel()
        await answer.still()
    _note_stream(turn, answer, attempt, gateway)
    if left is not None:
        raise left
    return answer


async def _flow(
    turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway, splice: Splice | None
) -> None:
    pump = answer.pump
    assert pump is not None
    if pump.blocked is not None and not answer.begun:
        raise Blocked(pump.message, pump.blocked.policy_id)
    begin(turn, answer, gateway, length=None)
    held = b""
    if answer.over:  # small and quick: one write carries all of it
        held = answer.take_held()
    elif splice is None:
        await answer.flow(turn.caller)
    else:
        await answer.flow(splice.outlet)
    if splice is not None and has_died(answer):
        splice.outlet.write(held)
        held = b""
        await splice.recover()
        answer, attempt = splice.answer, splice.attempt
    _end_stream(turn, answer, attempt, held, splice)


def _end_stream(
    turn: Turn, answer: Answer, attempt: Attempt, held: bytes, splice: Splice | None
) -> None:
    """How the stream ended, and the bytes that say so."""
    pump, record, caller = answer.pump, turn.record, turn.caller
    assert pump is not None
    if pump.blocked is not None:
        attempt.outcome = Outcome.BLOCKED
        record.outcome = "blocked"
        record.truncated_by_policy = True
        guard = turn.route.guard
        said = guard.saying(pump.blocked.policy_id) if guard is not None else None
        last = pump.reader.blocked_end(said)
        caller.hold(held + (last if splice is None else splice.outlet.last(last)))
    elif is_whole(answer):
        record.outcome = "success"
        record.recovered = (splice is not None and splice.recovered) or any(
            each.recovery is not None for each in record.decisions
        )
        caller.hold(held + pump.last)
    elif answer.fault is not None and answer.fault.phase == "caller":
        attempt.outcome = Outcome.CANCELLED
        record.outcome = "client_cancelled"
        caller.hold(b"", cut=True)
    else:
        if attempt.usage is None:  # it was not tried to go on
            judge_death(turn, answer, attempt)
        fault = fault_of(attempt)
        record.outcome = "interrupted"
        record.interrupted = True
        record.error_class = str(attempt.outcome)
        note_fault(record, fault)
        caller.hold(held + pump.reader.error_end(fault, record.request_id), cut=True)


def _note_stream(turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway) -> None:
    pump, record = answer.pump, turn.record
    assert pump is not None
    reader = pump.reader
    if answer.restoration is not None:
        record.placeholders_unrestored = answer.restoration.unrestored
    record.finish_reason = reader.finish_reason
    record.model = reader.model or record.model
    if attempt.usage is None:
        note_attempt(turn, answer, attempt, gateway)
    record.usage = attempt.usage or usage_of(turn, answer)
    earlier = [each for each in record.attempts if each is not attempt and each.usage is not None]
    if earlier:
        attempt.usage, attempt.model = record.usage, record.model
    for other in earlier:
        if other.usage is not None:
            record.usage = added(record.usage, other.usage)
    texts = pump.texts
    if texts is None:
        return
    said = answer.gate.untold() if answer.gate is not None else None
    if said is not None:
        pump.outside(said)
    record.scanned_chars += texts.coverage()
    record.total_chars += texts.chars
    record.unknown_events = reader.unknown_events
    note_reasoning_off(record, texts.reasoning_off)
    record.guard_lane_s, record.held_counts = answer.guard_s, answer.held_counts
    found = texts.results()
    note(record, found, gateway.clock.now_ms())
    record.flagged = record.flagged or any(r.action_taken == "flag" for r in found)
    for policy_id, rule_id in texts.overflows():
        gateway.observe(GuardOverflowed(policy_id, rule_id))
