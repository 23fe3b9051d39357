"""A record as one line of the spool (storage.md §5); `expand.py` makes events of it.

`line_of` runs on the request's clock, so it does nothing that can be done later: one tuple, one
`dumps`, one checksum.  A line is `<8 hex of crc32(json)> SP <json> LF`.  Its JSON is an array, the
members of the record in one fixed order that is written down twice, here and in `expand.py`;
whoever changes it gives it another VERSION.
"""

from binascii import crc32
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from proxy.model.failover import FailoverDecision
from proxy.model.policy import PolicyResult
from proxy.model.records import RequestRecord
from proxy.model.tools import PermissionDecision
from proxy.wire import jsonbody

VERSION: Final = 4
CHANGE: Final = 100  # in the place of a version: a line of `change_line`
POLICY_RESULTS: Final = 50
ERROR_MESSAGE_CHARS: Final = 256
_FRACTIONS: Final = ("Z", *(f".{ms:03d}Z" for ms in range(1, 1000)))


def is_critical(record: RequestRecord) -> bool:
    """A violation, failure, failover or cancellation: kept when plain lines must go."""
    if record.outcome != "success" or record.failover or record.decisions:
        return True
    results = record.policy_results
    return bool(results) and any(result.verdict in ("violation", "error") for result in results)


def framed(body: bytes) -> bytes:
    """JSON as a line."""
    return b"%08x %b\n" % (crc32(body), body)


def change_line(
    workspace_id: str, event_id: str, at_ms: int, kind: str, route_id: str, payload: object
) -> bytes:
    """Something that is no request has happened: an event of that kind, as a line."""
    return framed(_json((CHANGE, workspace_id, event_id, at_ms, kind, route_id, payload)))


def line_of(record: RequestRecord) -> bytes:
    """The record as a line.  It holds no text of prompt or answer, since the record has none."""
    outcome, usage = record.outcome, record.usage
    results, decisions = record.policy_results, record.decisions
    permissions = record.permissions
    attempts = []
    for attempt in record.attempts:
        attempts.append(  # noqa: PERF401  # nearly always one: a comprehension is a call
            (
                attempt.endpoint_id,
                attempt.outcome,
                attempt.upstream_status,
                attempt.latency_ms,
                attempt.ttft_ms,
                attempt.tokens,
                attempt.cost_nano,
                attempt.why,
            )
        )
    body = _json(
        (
            VERSION,
            record.workspace_id,
            record.event_id,
            record.request_id,
            record.finished_at_ms or record.received_at_ms,
            outcome,
            record.route_id,
            record.latency_ms,
            None
            if usage is None
            else (
                usage.input,
                usage.output,
                usage.cache_read,
                usage.cache_write_5m + usage.cache_write_1h,
                usage.reasoning,
                usage.estimated,
            ),
            record.cost_nano,
            record.model,
            record.provider,
            record.failover,
            record.stream,
            record.operation,
            record.request_bytes,
            record.response_bytes,
            attempts,
            # told when they are not None
            record.requested_model,
            record.endpoint_id,
            record.status_code,
            record.upstream_status,
            record.finish_reason,
            record.forwarding,
            record.price_version,
            record.cost_basis,
            record.api_key_id,
            record.user_id_hash,
            record.conversation_id_hash,
            record.original_endpoint,
            record.client_retry_count,
            # told when they are something
            record.dropped,
            record.events_dropped,
            record.recovered,
            record.flagged,
            record.truncated_by_policy,
            # told in their own way
            record.ttft_ms,
            record.upstream_latency_ms,
            record.overhead_ms,
            record.scanned_chars,
            record.total_chars,
            record.trace_id,
            record.policy_profile,
            None if outcome == "success" else _failure(record),
            [policy_result_doc(result) for result in results[:POLICY_RESULTS]] if results else None,
            [decision_doc(decision) for decision in decisions] if decisions else None,
            # since version 3
            [_permission(decision) for decision in permissions] if permissions else None,
            record.placeholders_unrestored,
            # since version 4
            record.unread_chars,
        )
    )
    return b"%08x %b\n" % (crc32(body), body)


def _json(value: tuple[object, ...]) -> bytes:
    """Half of a surrogate pair in a name from outside must not cost the line."""
    try:
        return jsonbody.dumps(value)
    except (TypeError, ValueError):
        return jsonbody.dumps(_clean(value))


def _clean(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, (tuple, list)):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return value


def _failure(record: RequestRecord) -> tuple[str | None, str | None, str]:
    message = (record.error_message or "")[:ERROR_MESSAGE_CHARS]
    return record.error_class, record.error_code, message


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def time_text(at_ms: int) -> str:
    """As `model.events.iso`, for a time that was just asked for."""
    second, fraction = divmod(at_ms, 1000)
    return _second(second) + _FRACTIONS[fraction]


def policy_result_doc(result: PolicyResult) -> dict[str, object]:
    """The seed's policy-result, extended."""
    told: dict[str, object] = {
        "policy_id": result.policy_id,
        "verdict": result.verdict,
        "rule_matched": result.rule_matched,
        "confidence": result.confidence,
        "action_taken": result.action_taken,
        "timestamp": time_text(result.timestamp_ms),
        "policy_version": result.policy_version,
        "severity": result.severity,
        "applies_to": result.applies_to,
        "direction": result.direction,
        "span": {"start": result.span_start, "end": result.span_end},
        "count": result.count,
        "enforced": result.enforced,
        "detector": result.detector,
        "elapsed_us": result.elapsed_us,
    }
    if result.message is not None:
        told["message"] = result.message
    return told


def _permission(decision: PermissionDecision) -> dict[str, object]:
    """The seed's permission-decision, extended; the line's reader adds its request."""
    return {
        "resource": decision.resource,
        "action": decision.action,
        "decision": "denied",
        "reason": decision.reason,
        "role_required": decision.role_required,
        "role": decision.role,
        "policy_id": decision.policy_id,
        "timestamp": time_text(decision.timestamp_ms),
        "count": decision.count,
    }


def _plain(value: float) -> object:
    """A count as a whole number, whatever compiled it."""
    return int(value) if value == int(value) else value


def decision_doc(decision: FailoverDecision) -> dict[str, object]:
    """The seed's failover-decision, extended; the line's reader adds what only it knows."""
    told: dict[str, object] = {
        "failover_policy_id": decision.failover_policy_id,
        "trigger_condition": decision.trigger_condition,
        "original_endpoint": decision.original_endpoint,
        "selected_fallback": decision.selected_fallback,
        "timestamp": time_text(decision.timestamp_ms),
        "scope": decision.scope,
        "reason_code": decision.reason_code,
        "skipped": [
            {"endpoint": endpoint, "reason": reason} for endpoint, reason in decision.skipped
        ],
    }
    if decision.resumed_at_chars is not None:
        told["resumed_at_chars"] = decision.resumed_at_chars
        told["recovery"] = decision.recovery
    seen = decision.observed
    if seen is not None:
        told["observed"] = {
            "value": _plain(seen.value),
            "threshold": _plain(seen.threshold),
            "samples": seen.samples,
            "window_seconds": seen.window_seconds,
        }
    if decision.route_id is not None:
        told["route_id"] = decision.route_id
    if decision.state_version is not None:
        told["state_version"] = decision.state_version
    return told
