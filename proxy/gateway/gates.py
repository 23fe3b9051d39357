"""Who may use what, applied: the first two groups of stage 4, and the calls of an answer.

`permits.py` judges; here the bodies are edited, endpoints refused.  Order
(guardrails.md §6): models and limits, then tools; a block stops before the next group.
"""

from collections.abc import Sequence
from typing import Final

from proxy.gateway.snapshot import EndpointView
from proxy.gateway.turn import Turn
from proxy.guardrails.engine import Guard
from proxy.guardrails.gates import Amounts
from proxy.guardrails.permits import Permits, told_name
from proxy.model.errors import Blocked, Forbidden, ProxyError
from proxy.model.exchange import Json, Leaf, Seen
from proxy.model.tools import Call
from proxy.wire.dialects.registry import tools_of
from proxy.wire.dialects.tools import CallWatch, Edit, ToolGrammar
from proxy.wire.jsonbody import read_object

Parsed = tuple[bytes, dict[str, Json]]  # a body and its parse
SKIPPED: Final = "forbidden"  # the reason of an endpoint that a rule refuses


def grammar_of(turn: Turn) -> ToolGrammar:
    """Raises Forbidden: a path whose tools nobody can find does not pass in silence."""
    grammar = tools_of(turn.exchange.surface.dialect)
    if grammar is None:
        raise Forbidden(
            "The tools of this path cannot be looked at, and the route "
            f"{turn.route.doc.id!r} has rules about them.",
            code="unscannable_endpoint",
        )
    return grammar


def pass_gates(turn: Turn, guard: Guard, leaves: Sequence[Leaf]) -> bool:
    """Judge the request by the rules that look at no text.  True: its body was edited.

    Raises Forbidden, Blocked.
    """
    exchange = turn.exchange
    assert exchange.doc is not None, "a body was read"
    permits = turn.permits = Permits(guard.gates, turn.visit.role)
    grammar, doc = grammar_of(turn), exchange.doc
    permits.ask_model(exchange.model or "")
    clamped = _limited(turn, permits, grammar, leaves) if guard.gates.limits else {}
    _stop(turn, permits)
    changed: dict[str, Json] = {**clamped}
    edit = Edit(changed)
    if guard.gates.tools:
        tools = grammar.declared(doc)
        permits.aliases = {tool.names[0]: tool.names for tool in tools if len(tool.names) > 1}
        permits.forced(grammar.forced(doc))
        gone = permits.declared(tools)
        permits.history(grammar.history(doc))
        _stop(turn, permits)
        if gone:
            edit = grammar.without(doc, gone)
            edit.changed |= changed
    if not edit.changed and not edit.dropped:
        return False
    exchange.body = edit.apply(exchange.body, doc)
    exchange.doc = read_object(exchange.body)
    return True


def _limited(
    turn: Turn, permits: Permits, grammar: ToolGrammar, leaves: Sequence[Leaf]
) -> dict[str, int]:
    doc, operation = turn.exchange.doc or {}, turn.exchange.surface.operation
    lengths, member = grammar.outputs(operation)
    amounts = Amounts(
        counts={**grammar.count(doc), "max_input_chars": sum(len(leaf.text) for leaf in leaves)},
        outputs={name: doc[name] for name in lengths if name in doc},
        output_member=member,
        choices={name: doc[name] for name in ("n", "best_of") if name in doc},
    )
    return permits.limit(amounts)


def _stop(turn: Turn, permits: Permits) -> None:
    if permits.blocked is None:
        return
    turn.record.outcome = "blocked"
    message, pack = permits.message, permits.blocked.policy_id
    fault: ProxyError = Forbidden(message) if permits.forbidden else Blocked(message, pack)
    fault.final = True
    raise fault


# --- endpoints


def may_send(turn: Turn, candidate: EndpointView, model: str | None) -> bool:
    """Whether a rule lets this endpoint have the request, for that model of its provider."""
    permits = turn.permits
    if permits is None:
        return True
    doc, asked = candidate.doc, turn.exchange.model or ""
    return permits.may_send(doc.id, model or "", doc.provider, asked)


def all_forbidden(turn: Turn, reasons: Sequence[str]) -> ProxyError | None:
    """No endpoint was left but such as a rule refuses: that is told as 403, not as 503."""
    permits = turn.permits
    if permits is None or not reasons or any(reason != SKIPPED for reason in reasons):
        return None
    turn.record.outcome = "blocked"
    fault = Forbidden(permits.refusal)
    fault.final = True
    return fault


# --- answers


class StreamCalls:
    """The tool calls of one streamed answer: those that a reader assembled are judged before they
    leave, of others it is told at the end what they were."""

    __slots__ = ("_grammar", "_guard", "_watch", "permits")

    def __init__(self, permits: Permits, guard: Guard, grammar: ToolGrammar) -> None:
        self.permits = permits
        self._guard = guard
        self._grammar = grammar
        self._watch = CallWatch(grammar)

    def __repr__(self) -> str:
        return f"<StreamCalls {self._watch!r}>"

    def see(self, seen: Seen) -> None:
        """Of an event that nobody holds back: the pieces of calls in it."""
        if not seen.whole and seen.doc is not None:
            self._watch.see(seen.doc)

    def judge(self, seen: Seen) -> str:
        """The notice that stands for a denied call; empty when it may leave.  A block is told by
        the permits."""
        call = self._grammar.streamed(seen)
        if call is None or self.permits.called(call) != "redact":
            return ""
        return notice_of(self._guard, call)

    def settle(self) -> None:
        """The stream is over: judge what was only watched."""
        for call in self._watch.calls():
            self.permits.called(call)


def stream_calls(turn: Turn) -> StreamCalls | None:
    """None: no rule looks at the calls of this answer."""
    permits, guard = turn.permits, turn.route.guard
    if permits is None or guard is None or not permits.looks_at_calls:
        return None
    return StreamCalls(permits, guard, grammar_of(turn))


def permitted(turn: Turn, came: Parsed) -> Parsed:
    """A unary answer, and its parse, with a notice in the place of each denied call; untouched
    where one is blocked, which the permits tell.  Raises ValueError: it cannot be edited."""
    permits, guard = turn.permits, turn.route.guard
    if permits is None or guard is None or not permits.looks_at_calls:
        return came
    grammar, (body, doc) = grammar_of(turn), came
    denied = [call for call in grammar.answered(doc) if permits.called(call) == "redact"]
    gone = [(call, notice_of(guard, call)) for call in denied]
    if permits.blocked is not None or not gone:
        return came
    body = grammar.replaced(doc, gone).apply(body, doc)
    return body, read_object(body)


def notice_of(guard: Guard, call: Call) -> str:
    """What stands for a denied call.  The name is the model's word: rules of texts hold for it."""
    text = f"[tool call {told_name(call.names[0])} denied]"
    judged = guard.judge([Leaf(text, "text", "assistant", ())], "response")
    if judged.block is not None:
        return "[tool call denied]"
    return judged.rewrites[0][1] if judged.rewrites else text
