"""Stage 5: decide, then do, until an answer has begun or nothing is left.

`next_move` decides over what was tried; the transport does; `judged` says what became of it.  Every
attempt starts from the original exchange and is told in the record.
"""

import asyncio
from functools import partial
from typing import Final

from proxy.gateway.answer import ERROR, PASS, STREAM, UNARY, Answer
from proxy.gateway.ask import OFF_LOOP_BYTES
from proxy.gateway.ends import judge_death, usage_of
from proxy.gateway.faults import fault_of, nothing_admits
from proxy.gateway.gates import SKIPPED, all_forbidden, may_send
from proxy.gateway.going import GoingOn
from proxy.gateway.local import ANSWERED_HERE
from proxy.gateway.snapshot import Rules
from proxy.gateway.turn import Gateway, Turn
from proxy.gateway.way import OTHER_VECTORS, PINNED, Way
from proxy.model.exchange import ErrorSeen, Refused
from proxy.model.failover import FailoverDecision, Outcome
from proxy.model.observations import RetryBudgetSpent, StreamRecovery
from proxy.model.records import Attempt
from proxy.routing.failover import BUDGET, CUT_SHORT, Fail, final_attempt
from proxy.routing.outcomes import judge_refusal, judge_transport
from proxy.routing.recovery import DIED, REFUSED_STATUSES
from proxy.routing.saying import why_sent_on
from proxy.wire.failures import read_error
from proxy.wire.jsonbody import loads_event, strict_object

_ONCE: Final = frozenset({"pass", "models", "model", "count_tokens"})  # tried once, no samples
_CALLERS: Final = frozenset({Outcome.CALLER, Outcome.REFUSAL, Outcome.CONTEXT_WINDOW})
_SUCCESS: Final = Outcome.SUCCESS
_BLOCKED: Final = Outcome.BLOCKED
_CANCELLED: Final = Outcome.CANCELLED


async def reach(turn: Turn, rules: Rules, gateway: Gateway) -> Answer | None:
    """Return an answer that has begun, or a provider's error that passes on as it is; None when no
    endpoint speaks of it and it is answered here.

    Raises the fault of the chain when nothing is left.
    """
    once = turn.exchange.surface.operation in _ONCE
    way = Way(turn, gateway, once)
    tried, answers = turn.record.attempts, list[Answer]()
    turn.record.original_endpoint = turn.route.order[0].id
    while True:
        move = way.next_move()
        if isinstance(move, Fail):
            if move.because == BUDGET or way.broke:
                _tell_broke(turn, gateway)
            return _settle(turn, answers, way)
        place = move.place
        if move.after_s:
            await gateway.clock.sleep(move.after_s)
            if way.no_longer_takes(place):
                continue
        answer = await attempt_at(turn, place, rules, gateway, way, charged=move.charged)
        if isinstance(answer, Refused):
            way.skip(place, answer.reason)
            continue
        answers.append(answer)
        outcome = tried[-1].outcome
        if outcome is _SUCCESS or outcome is _BLOCKED:
            turn.record.failover = way.has_moved(place)
            return answer


async def attempt_at(
    turn: Turn,
    place: int,
    rules: Rules,
    gateway: Gateway,
    way: Way,
    *,
    charged: bool,
    going_on: GoingOn | None = None,
) -> Answer | Refused:
    """Plan, send, wait until the answer has begun or failed, judge.  `going_on`: the answer that it
    is to go on with."""
    route, exchange = turn.route, turn.exchange if going_on is None else going_on.exchange
    candidate = turn.order[place]
    plan = candidate.adapter.plan(
        exchange,
        turn.visit.credential,
        same_origin=candidate.origin == route.order[0].origin,
        inject_usage=route.doc.usage_capture == "inject",
        aliases=route.aliases,
    )
    if isinstance(plan, Refused):
        return plan
    if turn.permits is not None and not may_send(turn, candidate, plan.model):
        return Refused(SKIPPED)
    if way.other_vectors(place, plan.model):
        return Refused(OTHER_VECTORS)
    phase, limit_s = ("first_content", route.first_content_s) if exchange.stream else (
        "unary", route.unary_s
    )  # fmt: skip
    flight = way.start(candidate, plan.model, limit_s, charged=charged)
    if isinstance(flight, str):
        return Refused(flight)
    if turn.record.attempts:
        _tell_switch(turn, place, gateway, way)
    limit_bytes = rules.doc.guard.max_answer_bytes
    answer = Answer(turn, candidate, plan, gateway, limit_bytes, going_on)
    answer.way = way
    if flight is not None and flight.permit is not None:
        limit_s = min(limit_s, flight.permit.limit_s)
    due = answer.started + limit_s
    if due > turn.total_due:
        due, phase = turn.total_due, "total"
    answer.call = candidate.upstream.start(
        plan.outgoing, answer, connect_s=route.connect_s, due=due, phase=phase
    )
    attempt = Attempt(candidate.id, _CANCELLED)
    turn.record.attempts.append(attempt)
    gateway.answers.add(answer)
    try:
        await answer.decided
        if answer.mode == UNARY and len(answer.body) > OFF_LOOP_BYTES:
            await gateway.off_loop.run(partial(read_answer, turn, answer))
    except asyncio.CancelledError:
        answer.cancel()
        gateway.answers.discard(answer)
        attempt.latency_ms = (gateway.clock.monotonic() - answer.started) * 1000
        way.left()
        raise
    finally:
        if answer.over:
            gateway.answers.discard(answer)
    judged(turn, answer, attempt, gateway.clock.monotonic())
    if going_on is not None and answer.status in REFUSED_STATUSES:
        attempt.outcome = Outcome.CALLER  # it does not take such a request: no fault, no sample
    way.came(attempt, stream=answer.mode == STREAM)
    return answer


def judged(turn: Turn, answer: Answer, attempt: Attempt, now: float) -> None:
    """Fill in what became of the attempt, at the moment its answer has begun or failed."""
    attempt.upstream_status = answer.status or None
    attempt.latency_ms = (now - answer.started) * 1000
    if answer.first_content_at:
        attempt.ttft_ms = (answer.first_content_at - answer.started) * 1000
    own = answer.candidate.own_credential
    pump = answer.pump
    if pump is not None and answer.died_unseen:
        judge_death(turn, answer, attempt)
        attempt.usage = usage_of(turn, answer)
        attempt.model = pump.reader.model or answer.plan.model
    elif answer.fault is not None:
        phase = answer.fault.phase
        attempt.outcome = judge_transport(
            phase,
            response_bytes=answer.fault.response_bytes,
            content_sent=False,
            answering=answer.mode == UNARY and answer.status > 0,
        )
        attempt.why, attempt.timed_out = _why_transport(turn, phase)
        if attempt.outcome is Outcome.CUT:
            attempt.why = CUT_SHORT
    elif answer.too_big:
        attempt.outcome = _BLOCKED  # a check that cannot be made is no fault of the endpoint
    elif answer.bad:
        attempt.outcome, attempt.why = Outcome.BAD_ANSWER, answer.bad
    elif answer.mode == ERROR:
        seen = error_of(answer)
        attempt.outcome = judge_refusal(seen, own_credential=own)
        attempt.retry_after_s = seen.retry_after_s
        attempt.why = f"status {answer.status}"
    elif answer.mode == PASS:
        attempt.outcome = _SUCCESS
        if answer.status >= 400:
            attempt.outcome = judge_refusal(ErrorSeen(answer.status), own_credential=own)
    elif answer.mode == STREAM and pump is not None and not answer.begun:
        if pump.blocked is not None:
            attempt.outcome = _BLOCKED
        elif pump.error is not None:
            attempt.outcome = judge_refusal(pump.error, own_credential=own)
            attempt.why = f"error {pump.error.type or pump.error.code or 'in the stream'}"
            attempt.retry_after_s = pump.error.retry_after_s
        else:
            attempt.outcome = Outcome.BAD_ANSWER
            attempt.why = pump.broken or "the stream ended before its content"
    elif answer.mode == STREAM:
        attempt.outcome = _SUCCESS
    else:
        attempt.outcome, attempt.why = _judge_unary(turn, answer)
    if attempt.why:  # SECURITY: it is told to the caller, and a provider may quote what it got
        attempt.why = answer.candidate.masked(attempt.why)


def read_answer(turn: Turn, answer: Answer) -> None:
    """Parse a whole body, if it can be read.  On a guarded route two parsers must not see two
    texts; elsewhere half an emoji is no fault."""
    try:
        doc = strict_object(answer.body) if turn.guarded else loads_event(answer.body)
    except ValueError:
        doc = None
    answer.doc, answer.is_read = doc if isinstance(doc, dict) else None, True


def _judge_unary(turn: Turn, answer: Answer) -> tuple[Outcome, str]:
    """A whole 2xx body must be this dialect's JSON, and no error in disguise."""
    if not answer.is_read:
        read_answer(turn, answer)
    if answer.doc is None:
        return Outcome.BAD_ANSWER, "unreadable answer" if answer.body else "empty answer"
    assert turn.dialect is not None
    if turn.dialect.answer_error(answer.doc):
        return Outcome.BAD_ANSWER, "an error object in a 2xx answer"
    return _SUCCESS, ""


_NAME_CHARS: Final = 64
_NAMES: Final = 20


def dropped_names(names: list[str]) -> list[str]:
    """Members that a translation lost, fit for an event and a header: they are the caller's words,
    so only plain names are repeated."""
    plain = [name if name.isascii() and name.isidentifier() else "?" for name in names[:_NAMES]]
    return [name if len(name) <= _NAME_CHARS else "?" for name in plain]


def error_of(answer: Answer) -> ErrorSeen:
    return read_error(
        answer.candidate.doc.provider, answer.status, answer.headers, answer.body, answer.wall_ms()
    )


def _why_transport(turn: Turn, phase: str) -> tuple[str, str]:
    """(trigger_condition, the limit that expired)"""
    limits, flight = turn.route.doc.timeouts, turn.flight
    expired = {
        "first_content": limits.first_content_ms,
        "idle": limits.idle_ms,
        "total": round(turn.route.total_s * 1000),
        "unary": limits.unary_ms,
        "connect_timeout": limits.connect_ms,
    }
    if phase in expired:
        if flight is not None and flight.permit is not None and phase in ("first_content", "unary"):
            expired[phase] = round(flight.permit.limit_s * 1000)
        name = "connect" if phase == "connect_timeout" else phase
        return f"{name} > {expired[phase]}ms", name
    return f"connection {phase}", ""


def _tell_switch(turn: Turn, place: int, gateway: Gateway, way: Way) -> None:
    """One request-scope decision per switch (failover.md §14), made when it is sent."""
    last, policy, candidate = turn.record.attempts[-1], turn.policy, turn.order[place]
    if policy is None or last.endpoint_id == candidate.id:
        return
    now_ms = gateway.clock.now_ms()
    code, trigger = why_sent_on(last, now_ms)
    buffered = last.outcome in DIED and turn.buffers
    if buffered:
        gateway.observe(StreamRecovery("buffer", "failed_over"))
    turn.record.decisions.append(
        FailoverDecision(
            failover_policy_id=policy.effective_id,
            trigger_condition=trigger,
            original_endpoint=last.endpoint_id,
            selected_fallback=candidate.id,
            timestamp_ms=now_ms,
            reason_code=code,
            skipped=way.skipped_before(place),
            recovery="buffer" if buffered else None,
        )
    )


def _tell_broke(turn: Turn, gateway: Gateway) -> None:
    """A retry was not made because too many are under way (failover.md §8.3)."""
    turn.starved = True
    if turn.policy is not None:
        gateway.observe(RetryBudgetSpent(turn.policy.effective_id))


def _settle(turn: Turn, answers: list[Answer], way: Way) -> Answer | None:
    """Nothing is left: the most useful class of the chain, or the provider's own words."""
    order, tried = turn.order, turn.record.attempts
    if not tried:
        skipped = way.refused()
        forbidden = all_forbidden(turn, [why for why in skipped.values() if why != PINNED])
        if forbidden is not None:
            raise forbidden
        if turn.exchange.surface.operation in ANSWERED_HERE:
            return None
        told = [(order[at].doc.id, skipped[at]) for at in sorted(skipped)]
        raise nothing_admits(told, way.admits_in_s())
    at = final_attempt(tried)
    attempt, answer = tried[at], answers[at]
    record, candidate = turn.record, answer.candidate.doc
    record.endpoint_id, record.provider = candidate.id, candidate.provider
    record.model, record.upstream_status = answer.plan.model, attempt.upstream_status
    record.forwarding, record.dropped = answer.plan.level, dropped_names(answer.plan.dropped)
    if _passes_on(turn, answer, attempt):
        return answer
    may_say = attempt.outcome in _CALLERS and answer.mode == ERROR
    fault = fault_of(attempt, answer.status)
    if attempt.outcome is Outcome.RATE_LIMITED and turn.chained:
        fault.retry_after_s = way.hold_left_s() or fault.retry_after_s
    if may_say:
        fault.quote(error_of(answer).message)
    fault.final = turn.chained
    raise fault


def _passes_on(turn: Turn, answer: Answer, attempt: Attempt) -> bool:
    """wire.md §8.2: without a policy the provider's error is the caller's; with one only what is
    the caller's to fix.  Never an error in another grammar, HTML, or a 401 on our own key."""
    if answer.mode != ERROR or not answer.complete or answer.plan.level != "L0":
        return False
    if attempt.outcome in (Outcome.AUTH, Outcome.BAD_ANSWER) or answer.status < 400:
        return False  # a redirect would send the prompt and the key to wherever it points
    if turn.chained and attempt.outcome not in _CALLERS:
        return False
    kind = dict(answer.headers).get(b"content-type", b"")
    return kind.startswith(b"application/json") and bool(answer.body)
