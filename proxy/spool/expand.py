"""A line of the spool as events (events.md §3): the other half of `record.py`.

A line becomes the request's event, one `runtime.policy.result` per entry of `policy_results`, one
`runtime.failover.decision` per decision and one `runtime.permission.decision` per denial, with
derived ids: a line that is read twice gives the same events.  Nothing but BadLine is raised,
whatever the bytes are.
"""

from binascii import crc32
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Final, cast

from proxy.model.batch import Idem
from proxy.model.events import (
    FAILOVER_DECISION,
    PERMISSION_DECISION,
    POLICY_RESULT,
    REQUEST_COMPLETED,
    REQUEST_FAILED,
    RUNTIME_TYPES,
    STREAM_INTERRUPTED,
    TYPE_OF_OUTCOME,
    NewEvent,
    derived,
    parse_time,
)
from proxy.model.exchange import Json
from proxy.spool.record import CHANGE, VERSION, time_text
from proxy.wire import jsonbody

LAST_MS: Final = 253_402_300_800_000  # the year 10000

# members of a line, those from `_TOLD` and `_HELD` on in the order of `line_of`
_ROUTE: Final = 6
_COST: Final = 9
_TOLD: Final = 18
_IF_TOLD: Final = (
    "requested_model", "endpoint_id", "status_code", "upstream_status", "finish_reason",
    "forwarding", "price_version", "cost_basis", "api_key_id", "user_id_hash",
    "conversation_id_hash", "original_endpoint", "client_retry_count",
)  # fmt: skip
_KEY: Final = _TOLD + _IF_TOLD.index("api_key_id")
_HELD: Final = _TOLD + len(_IF_TOLD)
_IF_TRUE: Final = ("dropped", "events_dropped", "recovered", "flagged", "truncated_by_policy")
_REST: Final = _HELD + len(_IF_TRUE)
_LENGTHS: Final = {2: 46, 3: 48, VERSION: 49, CHANGE: 7}  # older lines are in spools and in the log
_LATER: Final[list[Any]] = [None, 0, None]  # what a line says of what came after its version
_ALL_TEXT: Final = {str}

Object = dict[str, Json]
DECISION_PREFIX: Final = "dec-"
NO_TOKENS: Final[Object] = {"input": 0, "output": 0, "total": 0}


class BadLine(ValueError):
    """Not a line of ours: the checksum or the shape is wrong."""


@dataclass(slots=True)
class Expanded:
    """What one line says: events of one workspace, the request's own first, and the Parapet key
    that the request was made with.  `idem`: what must be known of their request once they are in
    the log; `cost_nano`: what the request cost, in billionths of a USD, on its route."""

    workspace_id: str
    events: list[NewEvent]
    key_id: str | None = None
    idem: Idem | None = None
    route_id: str = ""
    cost_nano: int = 0


def events_of(line: bytes) -> Expanded:
    """A line, without its LF, as events.  Raises BadLine."""
    return of_array(array_of(line))


def array_of(line: bytes) -> list[Json]:
    """The array that a line holds.  Raises BadLine."""
    body = line[9:]
    if line[8:9] != b" " or line[:8] != b"%08x" % crc32(body):
        raise BadLine("checksum")
    try:
        doc = jsonbody.loads(body)
    except ValueError as fault:
        raise BadLine(str(fault)) from fault
    if not isinstance(doc, list) or not doc or type(doc[0]) is not int:
        raise BadLine("not of this version")
    if _LENGTHS.get(doc[0]) != len(doc):
        raise BadLine("not of this version")
    return doc


def of_array(doc: list[Json]) -> Expanded:
    """The array of a line as events.  Raises BadLine."""
    if doc[0] == CHANGE:
        return _change(doc)
    try:
        workspace_id, at_ms, event, results, decisions, permissions = _request(doc)
        events = [NewEvent(event, at_ms)]
        if results:
            covered = _covered(event, results)
            events += _parts(workspace_id, event, "policy", POLICY_RESULT, covered)
        if decisions:
            events += _parts(workspace_id, event, "failover", FAILOVER_DECISION, decisions)
        if permissions:
            events += _parts(workspace_id, event, "permission", PERMISSION_DECISION, permissions)
    except (TypeError, ValueError, OverflowError) as fault:
        raise BadLine(str(fault)) from fault
    return asked_with(Expanded(workspace_id, events), doc)


def asked_with(said: Expanded, doc: Sequence[Json]) -> Expanded:
    """The same, with the key, the route and the cost of the line's request."""
    key_id, route_id, cost_nano = doc[_KEY], doc[_ROUTE], doc[_COST]
    said.key_id = key_id if isinstance(key_id, str) else None
    said.route_id = route_id if isinstance(route_id, str) else ""
    said.cost_nano = cost_nano if type(cost_nano) is int and cost_nano > 0 else 0
    return said


def _change(doc: Sequence[Json]) -> Expanded:
    """The event of a `change_line`.  Raises BadLine."""
    _, workspace_id, event_id, at_ms, kind, route_id, payload = doc
    if (
        not isinstance(workspace_id, str)
        or not isinstance(event_id, str)
        or type(at_ms) is not int
        or not 0 <= at_ms < LAST_MS
        or kind not in RUNTIME_TYPES
        or not isinstance(payload, dict)
    ):
        raise BadLine("no change")
    if kind == FAILOVER_DECISION:
        payload = {**payload, "decision_id": decision_id(event_id)}
    event: Object = {
        "event_id": event_id,
        "type": kind,
        "timestamp": time_text(at_ms),
        "route_id": route_id,
        "payload": payload,
    }
    return Expanded(workspace_id, [NewEvent(event, at_ms)])


def _request(
    doc: Sequence[Json],
) -> tuple[str, int, Object, list[Json], list[Json], list[Json]]:
    """(workspace, time, the request's event, policy results, failover decisions, denials).

    Raises BadLine, TypeError, ValueError.
    """
    (
        _, workspace_id, event_id, request_id, at_ms, outcome, route_id, latency_ms, usage,
        cost_nano, model, provider, failover, stream, operation, request_bytes, response_bytes,
        attempts,
    ) = cast("list[Any]", doc[:_TOLD])  # fmt: skip
    (
        ttft_ms, upstream_latency_ms, overhead_ms, scanned_chars, total_chars, trace_id,
        policy_profile, failure, results, decisions, *since_3,
    ) = cast("list[Any]", doc[_REST:])  # fmt: skip
    texts = {type(workspace_id), type(event_id), type(request_id), type(outcome), type(route_id)}
    if texts != _ALL_TEXT:
        raise BadLine("no text where one must be")
    if type(at_ms) is not int or not 0 <= at_ms < LAST_MS:
        raise BadLine("no time")
    payload: Object = {
        "latency_ms": int(latency_ms * 1000 + 0.5) / 1000,  # `round` would cost much more
        "tokens": NO_TOKENS if usage is None else _tokens(*usage),
        "cost": None if cost_nano is None else _usd(cost_nano),
        "model": model or doc[_TOLD],
        "provider": provider,
        "outcome": outcome,
        "attempts": len(attempts),
        "failover": failover,
        "stream": stream,
        "operation": operation,
        "request_bytes": request_bytes,
        "response_bytes": response_bytes,
    }
    for name, value in zip(_IF_TOLD, doc[_TOLD:_HELD], strict=True):
        if value is not None:
            payload[name] = value
    held = doc[_HELD:_REST]
    if any(held):
        payload.update({name: value for name, value in zip(_IF_TRUE, held, strict=True) if value})
    permissions, unrestored, unread = since_3 + _LATER[len(since_3) :]
    if unrestored:
        payload["placeholders_unrestored"] = int(unrestored)
    if ttft_ms is not None:
        payload["ttft_ms"] = int(ttft_ms * 1000 + 0.5) / 1000
    if upstream_latency_ms is not None:
        payload["upstream_latency_ms"] = int(upstream_latency_ms * 1000 + 0.5) / 1000
    if overhead_ms is not None:
        payload["overhead_ms"] = int(overhead_ms * 1000 + 0.5) / 1000
    if unread is not None and type(unread) is not dict:
        raise BadLine("no counts of what was not read")
    if total_chars or unread:
        coverage: Object = {"scanned_chars": scanned_chars, "total_chars": total_chars}
        payload["coverage"] = coverage | {"unread_chars": unread} if unread else coverage
    if attempts:
        payload["upstream_attempts"] = [*starmap(_attempt, attempts)]
    if results:
        payload["policy_results"] = results
    kind = REQUEST_COMPLETED
    if outcome != "success":
        kind = TYPE_OF_OUTCOME.get(outcome, REQUEST_FAILED)
        _add_failure(payload, kind, outcome, failure)
    event: Object = {
        "event_id": event_id,
        "type": kind,
        "timestamp": time_text(at_ms),
        "route_id": route_id,
        "request_id": request_id,
        "payload": payload,
    }
    if trace_id is not None:
        event["trace_id"] = trace_id
    if policy_profile is not None:
        event["policy_profile"] = policy_profile
    return workspace_id, at_ms, event, results, decisions, permissions


def _add_failure(payload: Object, kind: str, outcome: str, failure: Sequence[Any]) -> None:
    error_class, error_code, message = failure
    if kind is STREAM_INTERRUPTED:
        payload["bytes_sent"] = payload["response_bytes"]
    if error_class is not None or kind in (REQUEST_FAILED, STREAM_INTERRUPTED):
        payload["error"] = {
            "class": error_class or outcome,
            "code": error_code or outcome,
            "message": message,
        }


def _usd(nano: int) -> float:
    """Nano-dollars as USD with 6 decimals."""
    return (nano + 500) // 1000 / 1_000_000


def _tokens(
    uncached: int, output: int, cache_read: int, cache_write: int, reasoning: int, estimated: bool
) -> Object:
    all_input = uncached + cache_read + cache_write
    tokens: Object = {
        "input": all_input,
        "output": output,
        "cached_input": cache_read,
        "cache_write_input": cache_write,
        "reasoning": reasoning,
        "total": all_input + output,
    }
    if estimated:
        tokens["estimated"] = True
    return tokens


def _attempt(
    endpoint_id: Json,
    outcome: Json,
    upstream_status: Json,
    latency_ms: float,
    ttft_ms: float | None,
    tokens: Json,
    cost_nano: int | None,
    why: Json,
) -> Json:
    told: Object = {
        "endpoint_id": endpoint_id,
        "class": outcome,
        "upstream_status": upstream_status,
        "latency_ms": int(latency_ms * 1000 + 0.5) / 1000,
    }
    if ttft_ms is not None:
        told["ttft_ms"] = int(ttft_ms * 1000 + 0.5) / 1000
    if tokens is not None:
        told["tokens"] = tokens
    if cost_nano is not None:
        told["cost"] = _usd(cost_nano)
    if why:
        told["why"] = why
    return told


def _covered(event: Object, results: Sequence[Json]) -> list[Json]:
    """Each result with how much of its request and answer was looked at."""
    payload = event["payload"]
    coverage = payload.get("coverage") if isinstance(payload, dict) else None
    if not isinstance(coverage, dict):
        return [*results]
    seen = {name: coverage[name] for name in ("scanned_chars", "total_chars")}
    return [
        {**result, "coverage": seen} if isinstance(result, dict) else result for result in results
    ]


def _parts(
    workspace_id: str, event: Object, word: str, kind: str, members: Sequence[Json]
) -> list[NewEvent]:
    """Results or decisions of a request as events of their own."""
    found = []
    for index, member in enumerate(members):
        if not isinstance(member, dict):
            raise BadLine(f"{word} {index} is not an object")
        part_id = derived("evt-", 20, workspace_id, str(event["event_id"]), word, str(index))
        part = _part(event, part_id, kind, member)
        found.append(NewEvent(part, _at_ms(part)))
    return found


def _part(event: Object, part_id: str, kind: str, member: Object) -> Object:
    """A result or a decision of a request as an event of its own."""
    route_id, request_id = event.get("route_id"), event.get("request_id")
    if kind == FAILOVER_DECISION:
        member = {**member, "decision_id": decision_id(part_id)}
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


def decision_id(event_id: str) -> str:
    """A decision's own id: that of the event which tells it, under another prefix."""
    return DECISION_PREFIX + event_id.removeprefix("evt-")


def _at_ms(event: Object) -> int:
    stamp = event.get("timestamp")
    at_ms = parse_time(stamp) if isinstance(stamp, str) else None
    if at_ms is None:
        raise BadLine("no timestamp")
    return at_ms
