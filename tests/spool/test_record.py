"""A record as a line and as events (events.md §3, §5; storage.md §5)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.events import derived, iso
from proxy.model.exchange import Json, Usage
from proxy.model.failover import Outcome
from proxy.model.policy import PolicyResult
from proxy.model.records import Attempt, RequestRecord
from proxy.model.tools import PermissionDecision
from proxy.spool.expand import BadLine, events_of
from proxy.spool.record import change_line, framed, is_critical, line_of, time_text
from proxy.wire import jsonbody
from tests.kit.spool import AT_MS, a_blocked_record, a_failover_record, a_record


def payload_of(record: RequestRecord) -> dict[str, Json]:
    payload = events_of(line_of(record)[:-1]).events[0].body["payload"]
    assert isinstance(payload, dict)
    return payload


def test_the_frame_is_the_pages() -> None:
    assert framed(b'{"event_id":"evt-1"}') == b'b9ca1f24 {"event_id":"evt-1"}\n'


def test_t_evt_01_a_request_as_its_event() -> None:
    said = events_of(line_of(a_record())[:-1])
    assert said.workspace_id == "default"
    (event,) = said.events
    assert event.at_ms == AT_MS + 1250
    assert event.body == {
        "event_id": "evt-1",
        "type": "runtime.request.completed",
        "timestamp": "2024-03-15T14:30:01.250Z",
        "route_id": "prod-chat",
        "request_id": "req-1",
        "policy_profile": "safety-v2@2.1.0",
        "payload": {
            "latency_ms": 1250.0,
            "tokens": {
                "input": 512, "output": 256, "cached_input": 0, "cache_write_input": 0,
                "reasoning": 0, "total": 768,
            },
            "cost": 0.0214,
            "model": "claude-3-opus",
            "provider": "anthropic",
            "requested_model": "claude",
            "outcome": "success",
            "attempts": 1,
            "failover": False,
            "stream": False,
            "operation": "pass",
            "request_bytes": 0,
            "response_bytes": 0,
            "endpoint_id": "anthropic-claude",
            "status_code": 200,
            "upstream_status": 200,
            "upstream_attempts": [
                {"endpoint_id": "anthropic-claude", "class": "success", "upstream_status": 200,
                 "latency_ms": 1248.5},
            ],
        },
    }  # fmt: skip


# fmt: off
TYPES = [
    ("success",          "runtime.request.completed",  False),
    ("blocked",          "runtime.request.blocked",    True),
    ("client_cancelled", "runtime.request.cancelled",  True),
    ("interrupted",      "runtime.stream.interrupted", True),
    ("upstream_error",   "runtime.request.failed",     True),
    ("timeout",          "runtime.request.failed",     True),
    ("rate_limited",     "runtime.request.failed",     True),
    ("gateway_error",    "runtime.request.failed",     True),
    ("invalid_request",  "runtime.request.failed",     True),
    ("not yet known",    "runtime.request.failed",     True),
]
# fmt: on


@pytest.mark.parametrize(("outcome", "kind", "critical"), TYPES)
def test_outcome_to_type_and_class(outcome: str, kind: str, critical: bool) -> None:
    record = a_record(outcome=outcome, error_message="x" * 1000, response_bytes=77)
    event = events_of(line_of(record)[:-1]).events[0]
    assert event.body["type"] == kind
    assert is_critical(record) is critical
    payload = payload_of(record)
    if kind in ("runtime.request.failed", "runtime.stream.interrupted"):
        error = payload["error"]
        assert isinstance(error, dict)
        assert set(error) == {"class", "code", "message"}
        assert error["message"] == "x" * 256
    assert ("bytes_sent" in payload) == (kind == "runtime.stream.interrupted")


def test_a_pass_that_was_only_logged_is_critical_when_it_violated() -> None:
    result = PolicyResult("p", "violation", "r", 1.0, "log")
    skipped = PolicyResult("p", "skipped", "r", 1.0, "none")
    assert is_critical(a_record(policy_results=[result]))
    assert not is_critical(a_record(policy_results=[skipped]))
    assert not is_critical(a_record())


def test_one_blocked_request_is_one_policy_result() -> None:
    request, result = events_of(line_of(a_blocked_record())[:-1]).events
    assert request.body["type"] == "runtime.request.blocked"
    assert result.body["type"] == "runtime.policy.result"
    assert result.body["event_id"] == derived("evt-", 20, "default", "evt-1", "policy", "0")
    assert result.body["request_id"] == "req-1"
    assert result.body["policy_profile"] == "safety-v2@2.1.0"
    payload = result.body["payload"]
    assert isinstance(payload, dict)
    seed = {
        "policy_id": "safety-v1", "verdict": "violation", "rule_matched": "hate_speech",
        "confidence": 0.95, "action_taken": "block", "timestamp": "2024-03-15T14:30:00Z",
    }  # fmt: skip
    assert {name: payload[name] for name in seed} == seed
    assert payload["span"] == {"start": 0, "end": 0}
    assert payload["route_id"] == "prod-chat"


def test_t_fo_72_a_decision_has_the_seeds_members() -> None:
    _, decision = events_of(line_of(a_failover_record())[:-1]).events
    assert decision.body["type"] == "runtime.failover.decision"
    assert decision.body["event_id"] == derived("evt-", 20, "default", "evt-1", "failover", "0")
    payload = decision.body["payload"]
    assert isinstance(payload, dict)
    seed = {
        "failover_policy_id": "latency-failover", "trigger_condition": "latency > 2000ms",
        "original_endpoint": "anthropic-claude", "selected_fallback": "bedrock-claude",
        "timestamp": "2024-03-15T14:30:00Z",
    }  # fmt: skip
    assert {name: payload[name] for name in seed} == seed
    assert payload["scope"] == "request"
    assert payload["skipped"] == [{"endpoint": "gemini", "reason": "no_credential"}]
    assert payload["decision_id"] == decision.body["event_id"].replace("evt-", "dec-")
    assert (payload["route_id"], payload["request_id"]) == ("prod-chat", "req-1")
    assert "recovery" not in payload


def test_t_fo_72_a_stream_that_goes_on_elsewhere_says_where() -> None:
    record = a_failover_record()
    record.decisions[0].resumed_at_chars, record.decisions[0].recovery = 0, "restart"
    _, decision = events_of(line_of(record)[:-1]).events
    payload = decision.body["payload"]
    assert isinstance(payload, dict)
    assert (payload["resumed_at_chars"], payload["recovery"]) == (0, "restart")


def test_t_fo_72_a_decision_of_an_endpoint_has_an_id() -> None:
    line = change_line("default", "evt-7", AT_MS, "runtime.failover.decision", "chat", {"a": 1})
    (decision,) = events_of(line[:-1]).events
    assert decision.body["payload"] == {"a": 1, "decision_id": "dec-7"}


def test_t_gr_25_a_denial_has_the_seeds_members() -> None:
    denied = PermissionDecision(
        "export-tool", "execute", "role_restriction", "admin", "app", "tool-permission", AT_MS, 2
    )
    record = a_record(request_id="req-123", permissions=[denied])
    _, decision = events_of(line_of(record)[:-1]).events
    assert decision.body["type"] == "runtime.permission.decision"
    assert decision.body["event_id"] == derived("evt-", 20, "default", "evt-1", "permission", "0")
    seed = {
        "request_id": "req-123", "resource": "export-tool", "action": "execute",
        "decision": "denied", "reason": "role_restriction", "role_required": "admin",
    }  # fmt: skip
    more = {
        "role": "app", "policy_id": "tool-permission", "count": 2, "route_id": "prod-chat",
        "timestamp": "2024-03-15T14:30:00Z",
    }  # fmt: skip
    assert decision.body["payload"] == seed | more


def test_a_line_read_twice_gives_the_same_events() -> None:
    line = line_of(a_blocked_record())[:-1]
    assert events_of(line) == events_of(line)


def test_no_price_is_null_and_no_usage_is_zero() -> None:
    payload = payload_of(a_record(cost_nano=None, usage=None))
    assert payload["cost"] is None
    assert payload["tokens"] == {"input": 0, "output": 0, "total": 0}


# fmt: off
COSTS = [(0, 0.0), (499, 0.0), (500, 0.000001), (1_499, 0.000001), (21_400_000, 0.0214),
         (123_456_789_012, 123.456789)]
# fmt: on


@pytest.mark.parametrize(("nano", "usd"), COSTS)
def test_cost_has_six_decimals(nano: int, usd: float) -> None:
    assert payload_of(a_record(cost_nano=nano))["cost"] == usd


def test_tokens_count_every_bucket_once() -> None:
    usage = Usage(100, 20, 3, 4, 50, 10, estimated=True)
    assert payload_of(a_record(usage=usage))["tokens"] == {
        "input": 127, "output": 50, "cached_input": 20, "cache_write_input": 7, "reasoning": 10,
        "total": 177, "estimated": True,
    }  # fmt: skip


def test_what_is_rare_is_there_when_it_is() -> None:
    attempt = Attempt("a", Outcome.UPSTREAM_5XX, 503, 10.0, "status 503")
    attempt.ttft_ms, attempt.tokens, attempt.cost_nano = 5.0, {"input": 1}, 2_000
    record = a_record(
        trace_id="t", user_id_hash="u", conversation_id_hash="c", client_retry_count=0,
        original_endpoint="a", ttft_ms=213.4567, upstream_latency_ms=1.0, overhead_ms=0.25,
        finish_reason="end_turn", forwarding="L2", dropped=["seed"], events_dropped=2,
        recovered=True, flagged=True, truncated_by_policy=True, price_version="v", api_key_id="k",
        cost_basis="fallback", scanned_chars=5, total_chars=9, attempts=[attempt],
        placeholders_unrestored=3,
    )  # fmt: skip
    payload = payload_of(record)
    assert payload["ttft_ms"] == 213.457
    assert payload["coverage"] == {"scanned_chars": 5, "total_chars": 9}
    assert payload["upstream_attempts"] == [
        {"endpoint_id": "a", "class": "upstream_5xx", "upstream_status": 503, "latency_ms": 10.0,
         "ttft_ms": 5.0, "tokens": {"input": 1}, "cost": 0.000002, "why": "status 503"},
    ]  # fmt: skip
    assert set(payload) - set(payload_of(a_record())) == {
        "user_id_hash", "conversation_id_hash", "client_retry_count", "original_endpoint",
        "ttft_ms", "upstream_latency_ms", "overhead_ms", "finish_reason", "forwarding", "dropped",
        "events_dropped", "recovered", "flagged", "truncated_by_policy", "price_version",
        "api_key_id", "cost_basis", "coverage", "placeholders_unrestored",
    }  # fmt: skip
    assert events_of(line_of(record)[:-1]).events[0].body["trace_id"] == "t"


def test_each_result_says_how_much_was_looked_at() -> None:
    result = PolicyResult("p", "violation", "r", 1.0, "log")
    record = a_record(policy_results=[result], scanned_chars=5, total_chars=9)
    request, told = events_of(line_of(record)[:-1]).events
    payload, whole = told.body["payload"], request.body["payload"]
    assert isinstance(payload, dict)
    assert isinstance(whole, dict)
    assert payload["coverage"] == whole["coverage"] == {"scanned_chars": 5, "total_chars": 9}


def test_what_no_rule_could_read_is_told() -> None:
    record = a_record(total_chars=9, scanned_chars=9, unread_chars={"binary": 700})
    payload = events_of(line_of(record)[:-1]).events[0].body["payload"]
    assert isinstance(payload, dict)
    assert payload["coverage"] == {
        "scanned_chars": 9, "total_chars": 9, "unread_chars": {"binary": 700}
    }  # fmt: skip


@pytest.mark.parametrize(("version", "since"), [(2, 3), (3, 1)])
def test_a_line_of_a_version_before_is_told(version: int, since: int) -> None:
    line = jsonbody.loads(line_of(a_record())[9:])
    assert isinstance(line, list)
    before = framed(jsonbody.dumps([version, *line[1:-since]]))[:-1]
    assert events_of(before).events == events_of(line_of(a_record())[:-1]).events


def test_at_most_fifty_results() -> None:
    results = [PolicyResult("p", "violation", f"r{n}", 1.0, "log") for n in range(60)]
    assert len(events_of(line_of(a_record(policy_results=results))[:-1]).events) == 51


@given(st.integers(0, 4_102_444_800_000))
def test_times_are_written_as_everywhere(at_ms: int) -> None:
    assert time_text(at_ms) == iso(at_ms)


# fmt: off
AT = "2024-03-15T14:30:00Z"
GOOD = jsonbody.loads(line_of(a_blocked_record())[9:])
assert isinstance(GOOD, list)
FIRST_TEXT, TIME, LATENCY, USAGE, ATTEMPTS = 1, 4, 7, 8, 17


def with_(at: int, value: Json) -> Json:
    changed = list(GOOD)
    changed[at] = value
    return changed


BAD: list[Json] = [
    None, 1, {}, [], [2], GOOD[:-1], [*GOOD, None], with_(0, 1), with_(0, None),
    *(with_(at, value) for at in (1, 2, 3, 5, 6) for value in (None, 7, ["x"])),
    *(with_(TIME, value) for value in (None, "yesterday", -1, 1.5, True, 253_402_300_800_000)),
    *(with_(LATENCY, value) for value in (None, "x", 1e308)),
    *(with_(USAGE, value) for value in (7, [1], "six chars", [1, 2, None, 4, 5, 6])),
    *(with_(ATTEMPTS, value) for value in (None, 7, [7], [["a"]], ["abcdefgh"])),
    *(with_(at, value) for at in (-3, -4, -5) for value in (7, "x", [1], [{}])),
    with_(-6, None), with_(-6, ["class"]), with_(-2, "many"), with_(-2, [1]), with_(-1, [1]),
]
# fmt: on


@pytest.mark.parametrize("doc", BAD)
def test_a_strange_line_is_bad_and_nothing_else(doc: Json) -> None:
    with pytest.raises(BadLine):
        events_of(framed(jsonbody.dumps(doc))[:-1])


@pytest.mark.thorough
@given(
    st.integers(0, len(GOOD) - 1),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats(),
        lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(), inner, max_size=3),
    ),
)
def test_a_member_of_another_kind_is_bad_or_told(at: int, value: Json) -> None:
    with contextlib.suppress(BadLine):
        for event in events_of(framed(jsonbody.dumps(with_(at, value)))[:-1]).events:
            jsonbody.dumps(event.body)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_bad_line(data: bytes) -> None:
    for line in (data, framed(data)[:-1]):
        with pytest.raises(BadLine):
            events_of(line)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_one_flipped_byte_is_seen(at: int, flip: int) -> None:
    line = bytearray(line_of(a_record())[:-1])
    line[at % len(line)] ^= flip
    with pytest.raises(BadLine):
        events_of(bytes(line))


def test_half_a_surrogate_pair_in_a_name_does_not_cost_the_line() -> None:
    record = a_record()
    record.model, record.finish_reason = "gpt\ud800", "\udfff"
    (event,) = events_of(line_of(record)[:-1]).events
    payload = event.body["payload"]
    assert isinstance(payload, dict)
    assert payload["model"] == "gpt?"
