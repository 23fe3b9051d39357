"""What reads a streamed answer, made for one request: with which rules, and what they hold."""

from proxy.gateway.arguments import around_arguments, leaves_live, may_flow
from proxy.gateway.gates import stream_calls
from proxy.gateway.going import GoingOn
from proxy.gateway.snapshot import EndpointView
from proxy.gateway.stream import Pump
from proxy.gateway.texts import Wrap
from proxy.gateway.turn import Turn
from proxy.gateway.whole import WholePump
from proxy.guardrails.placeholders import Restoration
from proxy.model.exchange import Plan
from proxy.wire.dialect import StreamReader
from proxy.wire.dialects.lanes import SPEAKING, choices_asked
from proxy.wire.providers.adapter import Framer

Ears = tuple[Framer, StreamReader]


def open_ear(
    turn: Turn, candidate: EndpointView, plan: Plan, restoration: Restoration | None
) -> Ears:
    """Who cuts the bytes into events, and who reads these."""
    guard, dialect = turn.route.guard if turn.guarded else None, turn.dialect
    assert dialect is not None, "what is not read is no stream"
    live = guard is not None and leaves_live(guard, restoration)
    reader = dialect.stream(
        hold_tools=guard is not None
        and (restoration is not None or guard.enforces("response", "tool_args")),
        flows=may_flow(turn.permits) if live else None,
        hold_reasoning=guard is not None
        and guard.reasoning == "hold"
        and guard.enforces("response", "reasoning"),
        want_usage=turn.exchange.want_usage or not plan.usage_injected,
        choices=choices_asked(turn.exchange.surface.operation, turn.exchange.doc),
    )
    return candidate.adapter.framer(), reader


def open_pump(
    turn: Turn,
    candidate: EndpointView,
    plan: Plan,
    restoration: Restoration | None,
    limit_bytes: int,
    wrap: Wrap | None = None,
    going_on: GoingOn | None = None,
) -> Pump:
    """`limit_bytes`: how much of an answer may be held.  `wrap`: what goes around its lanes.
    `going_on`: the answer that it goes on with."""
    framer, reader = open_ear(turn, candidate, plan, restoration)
    guard = turn.route.guard if turn.guarded else None
    if guard is None:
        return Pump(framer, reader, None)
    if leaves_live(guard, restoration):
        wrap = around_arguments(guard, turn.draw, wrap)
    operation, calls = turn.exchange.surface.operation, stream_calls(turn)
    if going_on is not None and going_on.texts is not None:
        texts = going_on.texts
        texts.go_on(going_on.lane, reader, calls)
        return Pump(framer, reader, guard, turn.draw, calls, restoration, wrap, texts)
    if guard.schemas and operation in SPEAKING:
        return WholePump(
            framer, reader, guard, turn.draw, calls, restoration, wrap,
            limit=limit_bytes, joined=operation == "messages",
        )  # fmt: skip
    return Pump(framer, reader, guard, turn.draw, calls, restoration, wrap)
