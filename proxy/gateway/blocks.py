"""What the caller is told of the guardrails: a block as an answer, and the policy header.

A block is an error unless its pack says `block_style: finish`: then it is an answer of the caller's
dialect with nothing in it but the pack's `message`, ended by the dialect's own word for it
(guardrails.md §9.9, §10).  What has no such word (embeddings, counts) stays an error.
"""

from collections.abc import Sequence
from typing import Final

from proxy.gateway.turn import Turn
from proxy.model.errors import Blocked
from proxy.model.policy import ActionTaken, PolicyResult, Verdict
from proxy.model.records import RequestRecord
from proxy.wire.dialects.lanes import SPEAKING, choices_asked
from proxy.wire.headers import REQUEST_ID

_MOST_RULES: Final = 20
_VERDICTS: Final[tuple[Verdict, ...]] = ("error", "violation", "bypassed", "skipped", "pass")
_ACTIONS: Final[tuple[ActionTaken, ...]] = (
    "block", "reroute", "redact", "replace", "flag", "log", "allow", "none",
)  # fmt: skip


def finishes(turn: Turn, policy_id: str) -> bool:
    """A block by that pack is told as an answer."""
    guard = turn.route.guard
    known = guard is not None and guard.finishes(policy_id)
    return known and turn.dialect is not None and turn.exchange.surface.operation in SPEAKING


def answer_blocked(turn: Turn, fault: Blocked) -> bool:
    """Write the answer that says the block; False where it is to be told as an error.  Nothing of
    another answer may have left."""
    if not finishes(turn, fault.policy_id):
        return False
    guard, dialect, record, exchange = turn.route.guard, turn.dialect, turn.record, turn.exchange
    assert guard is not None
    assert dialect is not None
    said = guard.saying(fault.policy_id)
    choices = choices_asked(exchange.surface.operation, exchange.doc)
    kind = b"application/json"
    if exchange.stream:
        kind = b"text/event-stream"
        reader = dialect.stream(
            hold_tools=False,
            hold_reasoning=False,
            want_usage=exchange.want_usage,
            choices=choices,
        )
        reader.model, reader.usage = record.model or exchange.model, record.usage
        body = reader.blocked_end(said)
    else:
        model = record.model or exchange.model
        body = dialect.answer_block(
            said, record.request_id, model, usage=record.usage, choices=choices
        )
    record.status_code = 200
    if not turn.early:
        length = None if exchange.stream else len(body)
        turn.caller.begin(200, _lines(turn, kind), length=length)
    turn.caller.hold(body)
    return True


def _lines(turn: Turn, kind: bytes) -> bytes:
    record = turn.record
    request_id = record.request_id.encode("ascii")
    lines = b"content-type: %b\r\n%b: %b\r\nx-parapet-request-id: %b\r\n%b" % (
        kind,
        REQUEST_ID[turn.exchange.surface.dialect],
        request_id,
        request_id,
        turn.head_lines,
    )
    if record.attempts:
        lines += b"x-parapet-attempts: %d\r\n" % len(record.attempts)
    return lines + policy_line(turn)


# --- the header


def policy_line(turn: Turn) -> bytes:
    """The `x-parapet-policy` header line: what has been found so far; empty where it is off."""
    guard = turn.route.guard
    if guard is None or guard.header == "off":
        return b""
    return _policy_line(turn.record, with_rules=guard.header == "rules")


def _policy_line(record: RequestRecord, *, with_rules: bool) -> bytes:
    counted = [result for result in record.policy_results if result.enforced]
    verdict = min((result.verdict for result in counted), key=_VERDICTS.index, default="pass")
    action = min((result.action_taken for result in counted), key=_ACTIONS.index, default="none")
    value = f"verdict={verdict};action={action}"
    if with_rules and counted:
        value += f";rules={','.join(_names(counted))}"
    return b"x-parapet-policy: %b\r\n" % value.encode("ascii", "replace")


def _names(results: Sequence[PolicyResult]) -> list[str]:
    """`pack/rule` of each, once."""
    names = [f"{result.policy_id}/{result.rule_matched or ''}" for result in results]
    return list(dict.fromkeys(names))[:_MOST_RULES]
