"""A record as one line of the spool, and the line as events (storage.md §5, events.md §3).

`line_of` runs on the request's clock, so it does nothing that `events_of` can do later: one dict,
one `dumps`, one checksum.  A line is `<8 hex of crc32(json)> SP <json> LF`, its JSON
`{"v":1,"w":workspace,"e":event,"f":[failover decisions]}`; `f` only when there are some.

`events_of` makes of it the request's event, one `runtime.policy.result` per entry of
`policy_results` and one `runtime.failover.decision` per decision, with derived ids: a line that is
read twice gives the same events.
"""

import hashlib
from binascii import crc32
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from proxy.model.events import (
    FAILOVER_DECISION,
    POLICY_RESULT,
    REQUEST_COMPLETED,
    REQUEST_FAILED,
    STREAM_INTERRUPTED,
    TYPE_OF_OUTCOME,
    NewEvent,
    derived,
    parse_time,
)
from proxy.model.exchange import Json, Usage
from proxy.model.failover import Attempt, FailoverDecision
from proxy.model.policy import PolicyResult
from proxy.model.records import RequestRecord
from proxy.wire import jsonbody

VERSION = 1
POLICY_RESULTS = 50
ERROR_MESSAGE_CHARS = 256
_FRACTIONS = ("Z", *(f".{ms:03d}Z" for ms in range(1, 1000)))
NO_TOKENS: dict[str, int] = {"input": 0, "output": 0, "total": 0}

Object = dict[str, Json]


class BadLine(ValueError):
    """Not a line of ours: the checksum or the shape is wrong."""


@dataclass(slots=True)
class Expanded:
    """What one line says: events of one workspace, the request's own first."""

    workspace_id: str
    events: list[NewEvent]


def is_critical(record: RequestRecord) -> bool:
    """A violation, failure, failover or cancellation: kept when plain lines must go."""
    return (
        record.outcome != "success"
        or record.failover
        or bool(record.decisions)
        or any(result.verdict in ("violation", "error") for result in record.policy_results)
    )


def framed(body: bytes) -> bytes:
    """JSON as a line."""
    return b"%08x %b\n" % (crc32(body), body)


def line_of(record: RequestRecord) -> bytes:
    """The record as a line.  It holds no text of prompt or answer, since the record has none."""
    kind = TYPE_OF_OUTCOME.get(record.outcome, REQUEST_FAILED)
    usage = record.usage
    payload: dict[str, object] = {
        "latency_ms": _rounded(record.latency_ms),
        "tokens": NO_TOKENS if usage is None else _tokens(usage),
        "cost": None if record.cost_nano is None else _usd(record.cost_nano),
        "model": record.model or record.requested_model,
        "provider": record.provider,
        "outcome": record.outcome,
        "attempts": len(record.attempts),
        "failover": record.failover,
        "stream": record.stream,
        "operation": record.operation,
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
    }
    _add_answer(payload, record)
    _add_rare(payload, record)
    if record.attempts:
        payload["upstream_attempts"] = [_attempt(attempt) for attempt in record.attempts]
    if record.policy_results:
        payload["policy_results"] = [
            _policy_result(result) for result in record.policy_results[:POLICY_RESULTS]
        ]
    if kind is not REQUEST_COMPLETED:
        _add_failure(payload, record, kind)
    event: dict[str, object] = {
        "event_id": record.event_id,
        "type": kind,
        "timestamp": _time(record.finished_at_ms or record.received_at_ms),
        "route_id": record.route_id,
        "request_id": record.request_id,
        "payload": payload,
    }
    if record.trace_id is not None:
        event["trace_id"] = record.trace_id
    if record.policy_profile is not None:
        event["policy_profile"] = record.policy_profile
    line: dict[str, object] = {"v": VERSION, "w": record.workspace_id, "e": event}
    if record.decisions:
        line["f"] = [_decision(decision) for decision in record.decisions]
    return framed(jsonbody.dumps(line))


def _add_answer(payload: dict[str, object], record: RequestRecord) -> None:
    """What most requests that reached an endpoint have."""
    if record.requested_model is not None:
        payload["requested_model"] = record.requested_model
    if record.endpoint_id is not None:
        payload["endpoint_id"] = record.endpoint_id
    if record.status_code is not None:
        payload["status_code"] = record.status_code
    if record.upstream_status is not None:
        payload["upstream_status"] = record.upstream_status
    if record.ttft_ms is not None:
        payload["ttft_ms"] = _rounded(record.ttft_ms)
    if record.upstream_latency_ms is not None:
        payload["upstream_latency_ms"] = _rounded(record.upstream_latency_ms)
    if record.overhead_ms is not None:
        payload["overhead_ms"] = _rounded(record.overhead_ms)
    if record.finish_reason is not None:
        payload["finish_reason"] = record.finish_reason
    if record.forwarding is not None:
        payload["forwarding"] = record.forwarding
    if record.price_version is not None:
        payload["price_version"] = record.price_version
    if record.cost_basis is not None:
        payload["cost_basis"] = record.cost_basis
    if record.api_key_id is not None:
        payload["api_key_id"] = record.api_key_id
    if record.total_chars:
        payload["coverage"] = {
            "scanned_chars": record.scanned_chars,
            "total_chars": record.total_chars,
        }


def _add_rare(payload: dict[str, object], record: RequestRecord) -> None:
    if record.user_id_hash is not None:
        payload["user_id_hash"] = record.user_id_hash
    if record.conversation_id_hash is not None:
        payload["conversation_id_hash"] = record.conversation_id_hash
    if record.original_endpoint is not None:
        payload["original_endpoint"] = record.original_endpoint
    if record.client_retry_count is not None:
        payload["client_retry_count"] = record.client_retry_count
    if record.dropped:
        payload["dropped"] = record.dropped
    if record.events_dropped:
        payload["events_dropped"] = record.events_dropped
    if record.recovered:
        payload["recovered"] = True
    if record.flagged:
        payload["flagged"] = True
    if record.truncated_by_policy:
        payload["truncated_by_policy"] = True


def _add_failure(payload: dict[str, object], record: RequestRecord, kind: str) -> None:
    if kind is STREAM_INTERRUPTED:
        payload["bytes_sent"] = record.response_bytes
    if record.error_class is not None or kind in (REQUEST_FAILED, STREAM_INTERRUPTED):
        payload["error"] = {
            "class": record.error_class or record.outcome,
            "code": record.error_code or record.outcome,
            "message": (record.error_message or "")[:ERROR_MESSAGE_CHARS],
        }


def _rounded(ms: float) -> float:
    """Microseconds are enough; `round` would cost as much as the rest of the line."""
    return int(ms * 1000 + 0.5) / 1000


def _usd(nano: int) -> float:
    """Nano-dollars as USD with 6 decimals."""
    return (nano + 500) // 1000 / 1_000_000


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(at_ms: int) -> str:
    """As `model.events.iso`, for a time that was just asked for."""
    second, fraction = divmod(at_ms, 1000)
    return _second(second) + _FRACTIONS[fraction]


def _tokens(usage: Usage) -> dict[str, int | bool]:
    cache_write = usage.cache_write_5m + usage.cache_write_1h
    all_input = usage.input + usage.cache_read + cache_write
    tokens: dict[str, int | bool] = {
        "input": all_input,
        "output": usage.output,
        "cached_input": usage.cache_read,
        "cache_write_input": cache_write,
        "reasoning": usage.reasoning,
        "total": all_input + usage.output,
    }
    if usage.estimated:
        tokens["estimated"] = True
    return tokens


def _attempt(attempt: Attempt) -> dict[str, object]:
    told: dict[str, object] = {
        "endpoint_id": attempt.endpoint_id,
        "class": attempt.outcome,
        "upstream_status": attempt.upstream_status,
        "latency_ms": _rounded(attempt.latency_ms),
    }
    if attempt.ttft_ms is not None:
        told["ttft_ms"] = _rounded(attempt.ttft_ms)
    if attempt.tokens is not None:
        told["tokens"] = attempt.tokens
    if attempt.cost_nano is not None:
        told["cost"] = _usd(attempt.cost_nano)
    if attempt.why:
        told["why"] = attempt.why
    return told


def _policy_result(result: PolicyResult) -> dict[str, object]:
    told: dict[str, object] = {
        "policy_id": result.policy_id,
        "verdict": result.verdict,
        "rule_matched": result.rule_matched,
        "confidence": result.confidence,
        "action_taken": result.action_taken,
        "timestamp": _time(result.timestamp_ms),
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


def _decision(decision: FailoverDecision) -> dict[str, object]:
    return {
        "failover_policy_id": decision.failover_policy_id,
        "trigger_condition": decision.trigger_condition,
        "original_endpoint": decision.original_endpoint,
        "selected_fallback": decision.selected_fallback,
        "timestamp": _time(decision.timestamp_ms),
        "scope": decision.scope,
        "reason_code": decision.reason_code,
        "skipped": [
            {"endpoint": endpoint, "reason": reason} for endpoint, reason in decision.skipped
        ],
    }


def events_of(line: bytes) -> Expanded:
    """A line, without its LF, as events.  Raises BadLine."""
    body = line[9:]
    if line[8:9] != b" " or line[:8] != b"%08x" % crc32(body):
        raise BadLine("checksum")
    try:
        doc = jsonbody.loads(body)
    except ValueError as fault:
        raise BadLine(str(fault)) from fault
    if not isinstance(doc, dict) or doc.get("v") != VERSION:
        raise BadLine("not of this version")
    return expand(doc, hashlib.sha256(body).digest())


def expand(doc: Object, content_hash: bytes) -> Expanded:
    """The JSON of a line as events.  All of them carry the hash of the line.  Raises BadLine."""
    workspace, event, decisions = doc.get("w"), doc.get("e"), doc.get("f", [])
    if not isinstance(workspace, str) or not isinstance(event, dict):
        raise BadLine("no workspace or no event")
    payload, event_id = event.get("payload"), event.get("event_id")
    if not isinstance(payload, dict) or not isinstance(event_id, str):
        raise BadLine("no payload or no event id")
    events = [NewEvent(event, _at_ms(event), content_hash)]
    told = (
        (POLICY_RESULT, "policy", payload.get("policy_results", [])),
        (FAILOVER_DECISION, "failover", decisions),
    )
    for kind, word, members in told:
        for index, member in enumerate(members if isinstance(members, list) else []):
            if not isinstance(member, dict):
                raise BadLine(f"{word} {index} is not an object")
            part_id = derived("evt-", 20, workspace, event_id, word, str(index))
            part = _part(event, part_id, kind, member)
            events.append(NewEvent(part, _at_ms(part), content_hash))
    return Expanded(workspace, events)


def _part(event: Object, part_id: str, kind: str, member: Object) -> Object:
    """A result or a decision of a request as an event of its own."""
    route_id, request_id = event.get("route_id"), event.get("request_id")
    part: Object = {
        "event_id": part_id,
        "type": kind,
        "timestamp": member.get("timestamp"),
        "route_id": route_id,
        "request_id": request_id,
        "payload": {**member, "route_id": route_id, "request_id": request_id},
    }
    for name in ("trace_id", "policy_profile"):
        if name in event:
            part[name] = event[name]
    return part


def _at_ms(event: Object) -> int:
    stamp = event.get("timestamp")
    at_ms = parse_time(stamp) if isinstance(stamp, str) else None
    if at_ms is None:
        raise BadLine("no timestamp")
    return at_ms
