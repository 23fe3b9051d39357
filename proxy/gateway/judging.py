"""An answer before the rules that need all of it: whole bodies, and what checks outside wait for.

Order (guardrails.md §6): calls, texts, the answer as a whole, services outside, and at last the
placeholders of the request are undone.  A block stops before the next.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from proxy.gateway.answer import Answer
from proxy.gateway.ask import OFF_LOOP_BYTES
from proxy.gateway.faults import fault_of
from proxy.gateway.gates import Parsed, permitted
from proxy.gateway.noting import note_judgement, note_reasoning_off
from proxy.gateway.outside import judged_outside
from proxy.gateway.turn import Beside, Gateway, Turn
from proxy.gateway.whole import spoken
from proxy.guardrails.engine import Guard, Judgement
from proxy.model.errors import Blocked
from proxy.model.exchange import Json, Leaf
from proxy.model.failover import Outcome
from proxy.model.records import Attempt
from proxy.wire.signed import rewritten

T = TypeVar("T")


async def guarded(turn: Turn, answer: Answer, attempt: Attempt, gateway: Gateway) -> bytes:
    """The body that may leave.  What cannot be read unambiguously is not passed on.

    Raises Blocked, and the fault of an answer that cannot be scanned."""
    guard, doc, permits = turn.route.guard, answer.doc, turn.permits
    assert doc is not None
    assert guard is not None
    came = (answer.body, doc)
    try:
        is_long = bool(guard.gates) and len(answer.body) > OFF_LOOP_BYTES
        left = await _run(gateway, is_long, partial(permitted, turn, came))
        if permits is not None and permits.blocked is not None:
            block, message = permits.blocked, permits.message
        else:
            judged, leaves = await _judged(turn, left, guard, gateway)
            if judged.block is None:
                return await _restored(turn, answer, left, leaves, judged, gateway)
            block, message = judged.block, judged.message
    except ValueError as why:
        attempt.outcome, attempt.why = Outcome.BAD_ANSWER, "an answer that cannot be scanned"
        raise fault_of(attempt) from why
    attempt.outcome = Outcome.BLOCKED
    turn.record.truncated_by_policy = True
    raise Blocked(message, block.policy_id)


async def _judged(
    turn: Turn, left: Parsed, guard: Guard, gateway: Gateway
) -> tuple[Judgement, list[Leaf]]:
    """What all rules say of the answer as the provider wrote it, and its texts."""
    record, dialect, (body, doc) = turn.record, turn.dialect, left
    assert dialect is not None
    record.finish_reason = dialect.answer_finish(doc)
    is_long = len(body) > OFF_LOOP_BYTES
    leaves = await _run(gateway, is_long, partial(dialect.answer_leaves, doc))
    began = gateway.clock.monotonic()
    work = partial(guard.judge, leaves, "response", turn.draw)
    judged = await _run(gateway, is_long, work)
    record.guard_unary_s = gateway.clock.monotonic() - began
    note_judgement(record, judged, gateway)
    if guard.reasoning == "off":
        unseen = sum(len(leaf.text) for leaf in leaves if leaf.part == "reasoning")
        note_reasoning_off(record, unseen)
    if judged.block is None and guard.schemas:
        whole = await _run(gateway, is_long, partial(_whole, turn, guard, doc, leaves))
        note_judgement(record, whole, gateway)
        if whole.block is not None:
            return whole, leaves
    checks = turn.route.checks
    if judged.block is None and checks is not None and checks.holding:
        judged = await judged_outside(
            checks.holding, leaves, "response", judged.rewrites, None, turn, gateway
        )
    return judged, leaves


def _whole(turn: Turn, guard: Guard, doc: dict[str, Json], leaves: list[Leaf]) -> Judgement:
    return guard.judge_whole(spoken(turn, doc, leaves), turn.draw)


async def _restored(
    turn: Turn,
    answer: Answer,
    left: Parsed,
    leaves: list[Leaf],
    judged: Judgement,
    gateway: Gateway,
) -> bytes:
    """The body with what the rules have rewritten, and with the caller's own values."""
    (body, doc), rewrites, restoration = left, judged.rewrites, answer.restoration
    is_long = len(body) > OFF_LOOP_BYTES
    if restoration is not None:
        work = partial(restoration.leaves, leaves, rewrites)
        rewrites = await _run(gateway, is_long, work)
        turn.record.placeholders_unrestored = restoration.unrestored
    if not rewrites:
        return body
    drops = turn.route.guard is not None and turn.route.guard.reasoning == "hold"
    return await _run(gateway, is_long, partial(rewritten, body, doc, rewrites, drops=drops))


async def _run(gateway: Gateway, is_long: bool, work: Callable[[], T]) -> T:
    return await gateway.off_loop.run(work) if is_long else work()


# --- checks outside


async def wait_beside(beside: Beside, answer: Answer, attempt: Attempt, gateway: Gateway) -> None:
    """Nothing of an answer leaves before the checks of its request are over.  Raises Blocked."""
    source = answer.source
    if source is not None:
        source.pause()
    try:
        await beside.verdict()
    except BaseException as why:
        answer.cancel()
        gateway.answers.discard(answer)
        attempt.outcome = Outcome.BLOCKED if isinstance(why, Blocked) else Outcome.CANCELLED
        raise
    if source is not None:
        source.resume()


async def texts_of(turn: Turn, answer: Answer, gateway: Gateway) -> list[Leaf] | None:
    """What an answer said, for the checks that are asked afterwards; None: more than is kept."""
    if answer.gate is not None:
        return None if answer.gate.too_long else answer.gate.leaves()
    if turn.dialect is None or answer.doc is None:
        return []
    is_long = len(answer.body) > OFF_LOOP_BYTES
    return await _run(gateway, is_long, partial(turn.dialect.answer_leaves, answer.doc))
