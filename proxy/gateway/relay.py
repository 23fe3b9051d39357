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
from proxy.gateway.noting import note, note_too_large
from proxy.gateway.outside import look_back
from proxy.gateway.reach import dropped_names
from proxy.gateway.snapshot import Rules
from proxy.gateway.streaming import relay_stream
from proxy.gateway.tops import begin, note_fault, own_lines, passed_down
from proxy.gateway.turn import Gateway, Turn
from proxy.model.errors import Blocked, ProxyError
from proxy.model.exchange import Dialect, Inbound, Surface, Usage
from proxy.model.failover import Outcome
from proxy.model.policy import PolicyResult
from proxy.model.ports import Downstream
from proxy.model.records import Attempt, RequestRecord
from proxy.routing.outcomes import CONSEQUENCES, judge_transport, told_unsent
from proxy.wire.errors import render_error
from proxy.wire.headers import down_lines, render
from proxy.wire.paths import read_target
from proxy.wire.usage import estimate_bytes, estimate_input

MASK: Final = b"***"
_UNCHECKED: Final = "The response could not be checked and was blocked."


async def relay(turn: Turn, answer: Answer, rules: Rules, gateway: Gateway) -> None:
    """Hand the answer on.  Raises Blocked when the guard stops it before its first byte."""
    record, attempt = turn.record, turn.record.attempts[-1]
    record.status_code = answer.status
    record.forwarding = answer.plan.level
    record.dropped = dropped_names(answer.plan.dropped)
    record.model = answer.plan.model
    record.endpoint_id = answer.candidate.id
    record.provider = answer.candidate.doc.provider
    record.upstream_status = answer.status
    record.ttft_ms = attempt.ttft_ms
    if turn.early and answer.mode != STREAM:
        if attempt.outcome is Outcome.SUCCESS:
            attempt.outcome, attempt.why = Outcome.BAD_ANSWER, "no stream"
        raise fault_of(attempt, answer.status)
    if turn.beside is not None:
        await wait_beside(turn.beside, answer, attempt, gateway)
    if answer.mode in (STREAM, PASS):
        first = answer
        try:
            if answer.mode == STREAM:
                answer = await relay_stream(turn, answer, attempt, rules, gateway)
            else:
                await _pass(turn, answer, attempt, gateway)
        finally:
            gateway.answers.discard(first)
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
    begin(turn, answer, gateway, length=len(body))
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
    lines = passed_down(answer)
    if turn.chained:
        told = [pair for pair in answer.headers if pair[0] != b"x-should-retry"]
        lines = down_lines(told, decoded=answer.decoded) + b"x-should-retry: false\r\n"
    lines += own_lines(turn, answer)
    turn.caller.begin(answer.status, lines, length=len(answer.body))
    turn.caller.hold(answer.body)


def _scrub(answer: Answer) -> None:
    """SECURITY: the endpoint's secrets are the owner's, and a caller is somebody else."""
    for secret in answer.candidate.secrets:
        answer.body = answer.body.replace(secret, MASK)
        answer.headers = [(name, value.replace(secret, MASK)) for name, value in answer.headers]


# --- answers that flow


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
    begin(turn, answer, gateway, length=length)
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
    note_fault(record, fault_of(attempt))
    turn.caller.hold(b"", cut=True)


# --- refusals


def refuse(
    inbound: Inbound,
    turn: Turn | None,
    fault: ProxyError,
    record: RequestRecord,
    caller: Downstream,
) -> None:
    """Tell the caller in his own dialect what is wrong; nothing of an answer has left."""
    note_fault(record, fault)
    if isinstance(fault, Blocked):
        record.outcome = "blocked"
        if turn is not None and answer_blocked(turn, fault):
            return
    elif record.attempts and record.outcome == "gateway_error":
        record.outcome = told_unsent(record.attempts[-1].outcome)
    elif record.outcome == "gateway_error" and fault.status < 500:
        record.outcome = "rate_limited" if fault.status == 429 else "invalid_request"
    if turn is not None and turn.early and turn.dialect is not None:
        record.status_code = 200
        reader = turn.dialect.stream(hold_tools=False, hold_reasoning=False, want_usage=False)
        caller.hold(reader.error_end(fault, record.request_id), cut=True)
        return
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
