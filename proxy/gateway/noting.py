"""What guardrails found, kept in the record of the request."""

from typing import Final

from proxy.gateway.turn import Gateway, Turn
from proxy.guardrails.engine import Judgement
from proxy.model.policy import PolicyResult
from proxy.model.records import REASONING_OFF, RequestRecord

_MOST_RESULTS: Final = 50
_SEVERITY: Final = {"critical": 0, "high": 1, "medium": 2, "low": 3, "info": 4}


def note_judgement(record: RequestRecord, judged: Judgement, gateway: Gateway) -> None:
    """Keep what the guard found."""
    record.scanned_chars += judged.scanned_chars
    record.total_chars += judged.total_chars
    if judged.results:
        note(record, judged.results, gateway.clock.now_ms())
        record.flagged = record.flagged or judged.flagged


def note_unread(turn: Turn) -> None:
    """Count what of a guarded request goes on without a rule that could read it."""
    if turn.dialect is not None and turn.dialect.unread:
        turn.record.unread_chars = {str(why): n for why, n in turn.dialect.unread.items()}


def note_reasoning_off(record: RequestRecord, chars: int) -> None:
    """Count reasoning of an answer that no rule looks at because no pack scans it."""
    _note_unseen(record, REASONING_OFF, chars)


def note_too_large(record: RequestRecord, chars: int) -> None:
    """Count an answer that was too long to be looked at, where rules only watch."""
    _note_unseen(record, "too_large", chars)


def _note_unseen(record: RequestRecord, reason: str, chars: int) -> None:
    if chars:
        record.unread_chars = {**(record.unread_chars or {}), reason: chars}


def note(record: RequestRecord, results: list[PolicyResult], now_ms: int) -> None:
    """Keep results in the record, the strongest first, at most 50."""
    if not results:
        return
    for result in results:
        result.timestamp_ms = now_ms
    record.policy_results = sorted(
        record.policy_results + results, key=lambda r: (not r.enforced, _SEVERITY[r.severity])
    )[:_MOST_RESULTS]


def tell_permits(turn: Turn, gateway: Gateway) -> None:
    """Put what was denied into the record, once, when the request is over."""
    permits = turn.permits
    if permits is None:
        return
    now_ms = gateway.clock.now_ms()
    note(turn.record, permits.results, now_ms)
    turn.record.flagged = turn.record.flagged or permits.flagged
    for decision in permits.decisions:
        decision.timestamp_ms = now_ms
    turn.record.permissions = permits.decisions
