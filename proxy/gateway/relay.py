"""Stage 6: the answer to the caller; and what he is told when there is none.

Everything but the last write leaves here; the last bytes are held until the record is on disk
(`tell`).  An answer's head leaves with its first bytes, in one write.
"""

import asyncio
from typing import Final

from proxy.gateway.answer import ERROR, PASS, STREAM, Answer
from proxy.gateway.blocks import answer_blocked, policy_line
from proxy.gateway.faults import fault_of
from proxy.gateway.judging import guarded, texts_of, wait_beside
from proxy.gateway.noting import note, note_reasoning_off, note_too_large
from proxy.gateway.outside import look_back
from proxy.gateway.reach import dropped_names
from proxy.gateway.turn import Gateway, Turn
from proxy.model.errors import Blocked, ProxyError
from proxy.model.exchange import Dialect, Inbound, Surface, Usage
from proxy.model.failover import Attempt, Outcome
from proxy.model.observations import GuardOverflowed, StreamEventDropped
from proxy.model.policy import PolicyResult
from proxy.model.ports import Downstream
from proxy.model.records import RequestRecord
from proxy.routing.outcomes import CONSEQUENCES, judge_transport
from proxy.wire.errors import render_error
from proxy.wire.headers import REQUEST_ID, down, down_lines, render, upstream_request_id
from proxy.wire.paths import read_target
from proxy.wire.usage import estimate_bytes, estimate_input

MASK: Final = b"***"
_UNCHECKED: Final = "The response could not be checked and was blocked."


async def relay(turn: Turn, answer: Answer, gateway: Gateway) -> None:
    """Hand the answer on.  Raises Blocked when the guard stops it before its first byte."""
    record, attempt = turn.record, turn.record.attempts[-1]
    record.status_code = answer.status
    record.forwarding = answer.plan.level
    record.dropped = dropped_names(answer.plan.dropped)
    record.model = answer.plan.model
    record.endpoint_id = answer.candidate.doc.id
    record.provider = answer.candidate.doc.provider
    record.upstream_status = answer.status
    record.ttft_ms = attempt.ttft_ms
    if turn.beside is not None:
        await wait_beside(turn.beside, answer, attempt, gateway)
    if answer.mode in (STREAM, PASS):
        flow = _stream if answer.mode == STREAM else _pass
        try:
            await flow(turn, answer, attempt, gateway)
        finally:
            gateway.answers.discard(answer)
    elif answer.mode == ERROR:
        _error(turn, answer)
    elif answer.too_big:
        _too_big(turn, gateway)
    else:
        await _unary(turn, answer, attempt, gateway)
    checks = turn.route.checks
    if checks is not None and checks.watching and record.outcome == "success":
        await look_back(turn, await texts_of(turn, answer, gateway), gateway)


# --- whole answers


async def _unary(turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway) -> None:
    record, dialect, doc, body = turn.record, turn.dialect, answer.doc, answer.body
    assert dialect is not None
    assert doc is not None
    record.usage = dialect.answer_usage(doc) or _estimated(turn, len(body))
    record.finish_reason = dialect.answer_finish(doc)
    if turn.guarded:
        body = await guarded(turn, answer, attempt, gateway)
    record.outcome = "success"
    _begin(turn, answer, gateway, length=len(body))
    turn.caller.hold(body)


def _estimated(turn: Turn, answer_bytes: int) -> Usage:
    """An answer that does not say its usage is counted all the same (wire.md §9.3)."""
    asked = estimate_input(turn.exchange.doc) if turn.exchange.doc is not None else 0
    said = 0 if turn.exchange.surface.operation == "embeddings" else estimate_bytes(answer_bytes)
    return Usage(input=asked, output=said, estimated=True)


def _too_big(turn: Turn, gateway: Gateway) -> None:
    """Over `guard.max_answer_bytes`: it cannot be checked whole, so nothing of it leaves."""
    turn.record.truncated_by_policy = True
    profile = turn.record.policy_profile or ""
    unchecked = PolicyResult(
        profile.partition("@")[0], "error", None, 1.0, "block", direction="response",
        message="answer over guard.max_answer_bytes",
    )  # fmt: skip
    note(turn.record, [unchecked], gateway.clock.now_ms())
    raise Blocked(_UNCHECKED, unchecked.policy_id)


def _error(turn: Turn, answer: Answer) -> None:
    """The provider's own error, as it came, but for our credentials: some quote what they got."""
    _scrub(answer)
    record, attempt = turn.record, turn.record.attempts[-1]
    record.outcome = CONSEQUENCES[attempt.outcome].told_as
    record.error_class = str(attempt.outcome)
    lines = _passed_down(answer)
    if turn.chained:
        told = [pair for pair in answer.headers if pair[0] != b"x-should-retry"]
        lines = down_lines(told, decoded=answer.decoded) + b"x-should-retry: false\r\n"
    lines += _own_lines(turn, answer)
    turn.caller.begin(answer.status, lines, length=len(answer.body))
    turn.caller.hold(answer.body)


def _scrub(answer: Answer) -> None:
    """SECURITY: the endpoint's secrets are the owner's, and a caller is somebody else."""
    for secret in answer.candidate.secrets:
        answer.body = answer.body.replace(secret, MASK)
        answer.headers = [(name, value.replace(secret, MASK)) for name, value in answer.headers]


# --- answers that flow


async def _stream(turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway) -> None:
    left: asyncio.CancelledError | None = None
    try:
        await _flow(turn, answer, attempt, gateway)
    except asyncio.CancelledError as why:
        left = why
    except BaseException:
        _note_stream(turn, answer, attempt, gateway)
        raise
    if left is not None:
        answer.cancel()
        attempt.outcome = Outcome.CANCELLED
        await answer.still()
    _note_stream(turn, answer, attempt, gateway)
    if left is not None:
        raise left


async def _flow(turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway) -> None:
    pump = answer.pump
    assert pump is not None
    if pump.blocked is not None and not pump.released:
        raise Blocked(pump.message, pump.blocked.policy_id)
    _begin(turn, answer, gateway, length=None)
    held = b""
    if answer.over:  # small and quick: one write carries all of it
        held = answer.take_held()
    else:
        await answer.flow(turn.caller)
    _end_stream(turn, answer, attempt, held)


def _end_stream(turn: Turn, answer: Answer, attempt: Attempt, held: bytes) -> None:
    """How the stream ended, and the bytes that say so."""
    pump, record, caller = answer.pump, turn.record, turn.caller
    assert pump is not None
    if pump.blocked is not None:
        attempt.outcome = Outcome.BLOCKED
        record.outcome = "blocked"
        record.truncated_by_policy = True
        guard = turn.route.guard
        said = guard.saying(pump.blocked.policy_id) if guard is not None else None
        caller.hold(held + pump.reader.blocked_end(said))
    elif answer.fault is None and pump.terminal:
        record.outcome = "success"
        caller.hold(held + pump.last)
    elif answer.fault is not None and answer.fault.phase == "caller":
        attempt.outcome = Outcome.CANCELLED
        record.outcome = "client_cancelled"
        caller.hold(b"", cut=True)
    else:
        fault = _interrupted(answer, attempt)
        record.outcome = "interrupted"
        record.interrupted = True
        _note_fault(record, fault)
        caller.hold(held + pump.reader.error_end(fault, record.request_id), cut=True)


def _interrupted(answer: Answer, attempt: Attempt) -> ProxyError:
    """After content: `cut` or `stall`, told in-band (failover.md §10.4)."""
    pump = answer.pump
    assert pump is not None
    if answer.fault is not None:
        phase = answer.fault.phase
        attempt.outcome = judge_transport(
            phase, response_bytes=answer.fault.response_bytes, content_sent=True
        )
        attempt.why = f"stream {phase}"
        attempt.timed_out = phase if phase in ("idle", "total") else ""
    else:
        attempt.outcome = Outcome.CUT
        attempt.why = "stream cut"
        if pump.error is not None:
            kind = answer.candidate.masked(pump.error.type or pump.error.code)
            attempt.why = f"error {kind}"
        elif pump.broken:
            attempt.why = pump.broken
    return fault_of(attempt)


def _note_stream(turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway) -> None:
    pump, record = answer.pump, turn.record
    assert pump is not None
    reader = pump.reader
    attempt.latency_ms = (gateway.clock.monotonic() - answer.started) * 1000
    record.events_dropped = pump.dropped
    if answer.restoration is not None:
        record.placeholders_unrestored = answer.restoration.unrestored
    record.finish_reason = reader.finish_reason
    record.model = reader.model or record.model
    record.usage = reader.usage
    if record.usage is None or not pump.terminal:
        seen = record.usage or Usage()
        counted = max(seen.output, estimate_bytes(reader.output_bytes))
        known = seen.input or estimate_bytes(len(turn.exchange.body))
        record.usage = Usage(
            known, seen.cache_read, seen.cache_write_5m, seen.cache_write_1h, counted,
            seen.reasoning, estimated=True,
        )  # fmt: skip
    for _ in range(pump.dropped):
        gateway.observe(StreamEventDropped(answer.candidate.doc.id))
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


async def _pass(turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway) -> None:
    """A body that is not looked at: a listing, an unknown path, a long unguarded answer."""
    record = turn.record
    if turn.dialect is not None:
        record.usage = _estimated(turn, answer.size)
    length = next(
        (int(v) for n, v in answer.headers if n == b"content-length" and v.isdigit()), None
    )
    if any(name == b"content-encoding" for name, _ in answer.headers) and turn.dialect is not None:
        length = None  # it was decoded on the way
    _begin(turn, answer, gateway, length=length)
    try:
        await answer.flow(turn.caller)
    except asyncio.CancelledError:
        answer.cancel()
        attempt.outcome = Outcome.CANCELLED
        raise
    if turn.guarded:
        note_too_large(record, answer.size)
    attempt.latency_ms = (gateway.clock.monotonic() - answer.started) * 1000
    if answer.fault is None and not answer.bad:
        record.outcome = CONSEQUENCES[attempt.outcome].told_as
        turn.caller.hold(b"")
        return
    phase = answer.fault.phase if answer.fault is not None else "cut"
    attempt.outcome = judge_transport(phase, response_bytes=1, content_sent=True)
    record.outcome = CONSEQUENCES[attempt.outcome].told_as
    record.interrupted = attempt.outcome is not Outcome.CANCELLED
    _note_fault(record, fault_of(attempt))
    turn.caller.hold(b"", cut=True)


# --- heads and refusals


def _begin(turn: Turn, answer: Answer, gateway: Gateway, *, length: int | None) -> None:
    record = turn.record
    waited_ms = 0.0
    for attempt in record.attempts:
        waited_ms += attempt.latency_ms
    overhead_ms = (gateway.clock.monotonic() - turn.started) * 1000 - waited_ms
    lines = b"%b%bx-parapet-overhead-ms: %.2f\r\n" % (
        _passed_down(answer),
        _own_lines(turn, answer),
        overhead_ms if overhead_ms > 0 else 0.0,
    )
    turn.caller.begin(answer.status, lines, length=length)


def _passed_down(answer: Answer) -> bytes:
    """The provider's headers, as lines.  In another envelope the dialect's own name of the request
    id gets the provider's id (wire.md §3.1), and frames have become events."""
    if answer.plan.level == "L0":
        return down_lines(answer.headers, decoded=answer.decoded)
    reframed = answer.mode == STREAM and answer.plan.framing != "sse"
    headers = down(
        answer.headers,
        decoded=answer.decoded,
        content_type=b"text/event-stream" if reframed else None,
    )
    request_id = upstream_request_id(answer.headers)
    if request_id is not None:
        headers.append((REQUEST_ID[answer.dialect], request_id))
    return render(headers)


def _own_lines(turn: Turn, answer: Answer) -> bytes:
    """The `x-parapet-` headers (architecture.md: laws)."""
    record = turn.record
    lines = b"x-parapet-request-id: %b\r\n%b%bx-parapet-attempts: %d\r\n" % (
        record.request_id.encode("ascii"),
        turn.head_lines,
        answer.candidate.head_lines,
        len(record.attempts),
    )
    if record.decisions:
        lines += b"x-parapet-failover: %b\r\n" % record.decisions[-1].reason_code.encode("ascii")
    if record.dropped:
        lines += b"x-parapet-dropped: %b\r\n" % ",".join(record.dropped).encode("ascii")
    return lines + policy_line(turn)


def refuse(
    inbound: Inbound,
    turn: Turn | None,
    fault: ProxyError,
    record: RequestRecord,
    caller: Downstream,
) -> None:
    """Tell the caller in his own dialect what is wrong; nothing of an answer has left."""
    _note_fault(record, fault)
    if isinstance(fault, Blocked):
        record.outcome = "blocked"
        if turn is not None and answer_blocked(turn, fault):
            return
    elif record.attempts and record.outcome == "gateway_error":
        record.outcome = CONSEQUENCES[record.attempts[-1].outcome].told_as
    elif record.outcome == "gateway_error" and fault.status < 500:
        record.outcome = "rate_limited" if fault.status == 429 else "invalid_request"
    dialect = turn.visit.surface.dialect if turn is not None else _dialect_of(inbound)
    status, headers, body = render_error(dialect, fault, record.request_id)
    record.status_code = status
    lines = render(headers) + b"x-parapet-request-id: %b\r\n" % record.request_id.encode("ascii")
    if turn is not None:
        lines += turn.head_lines + policy_line(turn)
        if record.attempts:
            lines += b"x-parapet-attempts: %d\r\n" % len(record.attempts)
        if turn.starved:
            lines += b"x-parapet-retry: budget\r\n"
    caller.begin(status, lines, length=len(body))
    caller.hold(body)


def _dialect_of(inbound: Inbound) -> Dialect:
    surface = read_target(inbound.method, inbound.target, inbound.headers)
    return surface.dialect if isinstance(surface, Surface) else "openai_chat"


def _note_fault(record: RequestRecord, fault: ProxyError) -> None:
    record.error_class = record.error_class or (
        str(record.attempts[-1].outcome) if record.attempts else fault.kind
    )
    record.error_code = fault.public_code
    record.error_message = fault.told[:256]
