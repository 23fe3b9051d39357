"""Stage 4: guardrails on the request, and on a whole answer (stage 6 uses the same two steps).

What is scanned is what is forwarded: the leaves come from the parse of the very bytes that go out,
and a rewrite is spliced into those bytes.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from proxy.gateway.gates import pass_gates
from proxy.gateway.noting import note_judgement
from proxy.gateway.outside import ask_outside
from proxy.gateway.snapshot import Rules
from proxy.gateway.turn import Gateway, Turn
from proxy.guardrails.engine import Guard, Judgement
from proxy.guardrails.placeholders import Placeholders, workspace_key
from proxy.model.errors import Blocked, Forbidden, NoEndpoint, TooLarge, Unreadable
from proxy.model.exchange import Exchange, Json, Leaf
from proxy.wire.dialect import DialectReader
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.jsonbody import read_object
from proxy.wire.leaves import Unscannable, apply_rewrites

OFF_LOOP_BYTES: Final = 64 * 1024
_ANSWERED_IN_WORDS: Final = frozenset({"chat", "completions", "messages"})


async def ask(turn: Turn, rules: Rules, gateway: Gateway) -> None:
    """Judge the request.  Raises Blocked, Forbidden, Unreadable, TooLarge; may rewrite the
    exchange."""
    exchange, dialect, guard = turn.exchange, turn.dialect, turn.route.guard
    doc = exchange.doc
    if doc is None or dialect is None or guard is None:
        return  # no body: nothing to look at (listings)
    off_loop = gateway.off_loop if len(exchange.body) > OFF_LOOP_BYTES else None
    collect = partial(_leaves, dialect, doc, guard)
    try:
        leaves = await off_loop.run(collect) if off_loop else collect()
    except Unscannable as what:
        raise Forbidden(
            f"{what} The route {turn.route.doc.id!r} has policy packs.", code="unscannable_content"
        ) from what
    except ValueError as why:
        raise Unreadable(f"The request is not {dialect.name}: {why}") from why
    if len(leaves) > rules.doc.guard.max_leaves:
        raise TooLarge(f"The request holds more than {rules.doc.guard.max_leaves} texts.")
    began = gateway.clock.monotonic()
    if guard.gates:
        gate = partial(_gated, turn, dialect, guard, leaves)
        leaves = await off_loop.run(gate) if off_loop else gate()
    placeholders: Placeholders | None = None
    if guard.reversible:
        placeholders = Placeholders(workspace_key(gateway.server_key, turn.route.workspace_id))
    work = partial(_judged, guard, leaves, turn.draw, placeholders)
    judged = await off_loop.run(work) if off_loop else work()
    turn.record.guard_request_s = gateway.clock.monotonic() - began
    note_judgement(turn.record, judged, gateway)
    if judged.block is not None:
        turn.record.outcome = "blocked"
        raise Blocked(judged.message, judged.block.policy_id)
    if judged.reroute:
        _reroute(turn, judged.reroute)
    rewrites = judged.rewrites
    if turn.route.checks is not None:
        rewrites = await ask_outside(turn, leaves, rewrites, placeholders, gateway)
    if rewrites:
        splice = partial(_rewritten, exchange, rewrites)
        exchange.body, exchange.doc = await off_loop.run(splice) if off_loop else splice()
        if placeholders and exchange.surface.operation in _ANSWERED_IN_WORDS:
            turn.placeholders, turn.guarded = placeholders, True


def _gated(turn: Turn, dialect: DialectReader, guard: Guard, leaves: list[Leaf]) -> list[Leaf]:
    """The texts of the request that the gates let through."""
    if not pass_gates(turn, guard, leaves):
        return leaves
    assert turn.exchange.doc is not None
    return _leaves(dialect, turn.exchange.doc, guard)


def _rewritten(
    exchange: Exchange, rewrites: Sequence[tuple[Leaf, str]]
) -> tuple[bytes, dict[str, Json]]:
    """The body as it goes out, and its parse."""
    assert exchange.doc is not None
    body = apply_rewrites(exchange.body, exchange.doc, rewrites)
    return body, read_object(body)


def _judged(
    guard: Guard, leaves: list[Leaf], draw: float, placeholders: Placeholders | None
) -> Judgement:
    judged = guard.judge(leaves, "request", draw, placeholders)
    if placeholders:
        placeholders.in_order()
    return judged


def _leaves(dialect: DialectReader, doc: dict[str, Json], guard: Guard) -> list[Leaf]:
    """The texts of a request.  Raises Unscannable for what a pack's `unscannable` forbids
    (guardrails.md §7.4), ValueError for what is not this dialect."""
    wanted = guard.unscannable
    if not isinstance(dialect, (ChatReader, MessagesReader)) or (
        wanted.binary == "allow" and wanted.remote == "allow"
    ):
        return dialect.request_leaves(doc)
    mapped = dialect.request_map(doc)
    if wanted.binary == "block" and mapped.binary:
        raise Unscannable("The request holds images, audio or files, which cannot be scanned.")
    if wanted.remote == "block" and mapped.remote:
        raise Unscannable("The request refers to content that is kept elsewhere.")
    return mapped.leaves


def _reroute(turn: Turn, names: Sequence[str]) -> None:
    """SECURITY: the request goes to these endpoints and to no other, even when none is there."""
    known = turn.visit.workspace.endpoints
    turn.rerouted = tuple(known[name] for name in names if name in known)
    if not turn.rerouted:
        raise NoEndpoint("No endpoint that a rule sends this request to can be used.")
