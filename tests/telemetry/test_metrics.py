"""Counting on the worker's side, adding up and writing out on the control process's."""

import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.model.exchange import Usage
from proxy.model.failover import FailoverDecision, Outcome
from proxy.model.observations import (
    GuardAskingEnded,
    GuardOverflowed,
    Observation,
    RequestFinished,
    RetryBudgetSpent,
    SnapshotApplied,
    SnapshotRejected,
    SpoolDropped,
    SpoolLost,
    StreamEventDropped,
    StreamRecovery,
    UpstreamStale,
)
from proxy.model.policy import PolicyResult
from proxy.model.records import Attempt, RequestRecord
from proxy.telemetry.exposition import METRICS, PREFIX, Registry
from proxy.telemetry.metrics import BUCKETS_MS, MAX_SERIES, Totals, merge, tables_of
from proxy.wire import jsonbody


def record(**more: object) -> RequestRecord:
    found = RequestRecord("req-1", "evt-1", 0)
    found.route_id = "prod-chat"
    found.endpoint_id, found.provider, found.model = "anthropic-claude", "anthropic", "claude-3"
    found.outcome, found.latency_ms, found.overhead_ms = "success", 15.0, 2.0
    found.usage, found.cost_nano = Usage(input=10, output=5, cache_read=2), 21_400_000
    found.attempts = [Attempt("anthropic-claude", Outcome.SUCCESS)]
    for name, value in more.items():
        setattr(found, name, value)
    return found


def samples(registry: Registry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read back by prometheus-client's own parser."""
    text = registry.render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(registry: Registry, name: str, **labels: str) -> float | None:
    wanted = set(labels.items())
    found = [
        n for (one, have), n in samples(registry).items() if one == name and wanted <= set(have)
    ]
    return sum(found) if found else None


def sent(totals: Totals) -> object:
    """As it comes over the socket."""
    return jsonbody.loads(jsonbody.dumps(totals.to_doc()))


def shown(*seen: Observation, models: tuple[str, ...] = ("claude-3",)) -> Registry:
    totals = Totals("w1", models)
    for what in seen:
        totals.count(what)
    registry = Registry("0.1.0")
    registry.worker_totals(0, sent(totals))  # type: ignore[arg-type]
    return registry


def test_a_request_is_counted_in_every_group() -> None:
    registry = shown(
        RequestFinished(record(ttft_ms=300.0)),
        RequestFinished(record(model="unheard-of", cost_nano=None)),
        RequestFinished(record(outcome="blocked", usage=None, attempts=[])),
    )
    # fmt: off
    assert value(registry, "parapet_requests_total") == 3
    assert value(registry, "parapet_requests_total", model="claude-3", outcome="success") == 1
    assert value(registry, "parapet_requests_total", model="other") == 1
    assert value(registry, "parapet_requests_total", outcome="blocked", workspace="default") == 1
    assert value(registry, "parapet_tokens_total", type="input") == 20
    assert value(registry, "parapet_tokens_total", type="cache_read", model="claude-3") == 2
    assert value(registry, "parapet_cost_usd_total") == pytest.approx(0.0214)
    assert value(registry, "parapet_unpriced_requests_total", model="other") == 1
    assert value(registry, "parapet_upstream_attempts_total", **{"class": "success"}) == 2
    assert value(registry, "parapet_request_duration_seconds_count") == 3
    assert value(registry, "parapet_request_duration_seconds_sum") == pytest.approx(0.045)
    assert value(registry, "parapet_request_duration_seconds_bucket", le="0.01") == 0
    assert value(registry, "parapet_request_duration_seconds_bucket", le="0.02") == 3
    assert value(registry, "parapet_request_duration_seconds_bucket", le="+Inf") == 3
    assert value(registry, "parapet_time_to_first_chunk_seconds_count") == 1
    assert value(registry, "parapet_overhead_seconds_count") == 3
    # fmt: on


@pytest.mark.parametrize("bound", BUCKETS_MS)
def test_a_bound_belongs_to_its_bucket(bound: float) -> None:
    registry = shown(RequestFinished(record(latency_ms=bound)))
    assert value(registry, "parapet_request_duration_seconds_bucket", le=str(bound / 1000)) == 1
    registry = shown(RequestFinished(record(latency_ms=bound + 0.001)))
    assert value(registry, "parapet_request_duration_seconds_bucket", le=str(bound / 1000)) == 0


def test_policy_failover_and_the_small_ones() -> None:
    result = PolicyResult("safety-v2", "violation", "hate_speech", 1.0, "block")
    decision = FailoverDecision("fo-1", "status 503", "a", "b", 0, "upstream_error")
    registry = shown(
        RequestFinished(record(policy_results=[result, result], decisions=[decision])),
        UpstreamStale("a"), UpstreamStale("a"), StreamEventDropped("a"), GuardAskingEnded(0.3),
        RetryBudgetSpent("fo-1"), StreamRecovery("prefill", "recovered"),
        RequestFinished(record(placeholders_unrestored=3)), RequestFinished(record()),
        RequestFinished(record(unknown_events=2)), RequestFinished(record(unknown_events=1)),
        GuardOverflowed("safety-v2", "r"), SpoolLost("disk full"), SnapshotApplied(7),
        SpoolDropped("plain", 7), SpoolDropped("plain", 2),
        SnapshotRejected(8, "why"),
    )  # fmt: skip
    # fmt: off
    assert value(registry, "parapet_policy_results_total", policy="safety-v2", rule="hate_speech",
                 verdict="violation", action="block") == 2
    assert value(registry, "parapet_failover_decisions_total", policy="fo-1",
                 reason="upstream_error", scope="request") == 1
    assert value(registry, "parapet_upstream_stale_total", endpoint="a") == 2
    assert value(registry, "parapet_retry_budget_exhausted_total", policy="fo-1") == 1
    assert value(registry, "parapet_stream_events_dropped_total", endpoint="a") == 1
    assert value(registry, "parapet_guard_overflows_total", rule="r") == 1
    assert value(registry, "parapet_guard_placeholders_unrestored_total") == 3
    assert value(registry, "parapet_guard_unknown_events_total") == 3
    assert value(registry, "parapet_guard_seconds_sum", phase="external") == pytest.approx(0.3)
    assert value(registry, "parapet_spool_lost_total", reason="disk full") == 1
    assert value(registry, "parapet_spool_dropped_total", **{"class": "plain"}) == 9
    assert value(registry, "parapet_config_version", slot="0") == 7
    assert value(registry, "parapet_config_rejected_total") == 1
    # fmt: on


def test_what_the_guard_did() -> None:
    passed = PolicyResult("safety-v2", "bypassed", "slow", 1.0, "none", count=3)
    held = [2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 603]  # 0 twice, 3, and 600
    guarded = {
        "total_chars": 100,
        "scanned_chars": 90,
        "guard_request_s": 0.0004,
        "unread_chars": {"binary": 7, "signed_reasoning": 2},
    }
    registry = shown(
        RequestFinished(record(**guarded, guard_unary_s=0.002, policy_results=[passed])),
        RequestFinished(record(**guarded, guard_lane_s=0.03, held_counts=held)),
        RequestFinished(
            record(total_chars=100, scanned_chars=70, unread_chars={"reasoning_off": 25})
        ),
        RequestFinished(record()),
    )
    # fmt: off
    assert value(registry, "parapet_guard_bypassed_total", policy="safety-v2", rule="slow") == 3
    assert value(registry, "parapet_guard_unscanned_chars_total", reason="no_rule") == 25
    assert value(registry, "parapet_guard_unscanned_chars_total", reason="reasoning_off") == 25
    assert value(registry, "parapet_guard_unscanned_chars_total", reason="binary") == 14
    assert value(registry, "parapet_guard_unscanned_chars_total", reason="signed_reasoning") == 4
    assert value(registry, "parapet_guard_seconds_count", phase="request") == 2
    assert value(registry, "parapet_guard_seconds_sum", phase="request") == pytest.approx(0.0008)
    assert value(registry, "parapet_guard_seconds_bucket", phase="request", le="0.00025") == 0
    assert value(registry, "parapet_guard_seconds_bucket", phase="request", le="0.0005") == 2
    assert value(registry, "parapet_guard_seconds_count", phase="unary") == 1
    assert value(registry, "parapet_guard_seconds_bucket", phase="lane", le="0.05") == 1
    assert value(registry, "parapet_guard_held_chars_count") == 4
    assert value(registry, "parapet_guard_held_chars_sum") == 603
    assert value(registry, "parapet_guard_held_chars_bucket", le="0") == 2
    assert value(registry, "parapet_guard_held_chars_bucket", le="4") == 3
    assert value(registry, "parapet_guard_held_chars_bucket", le="512") == 3
    assert value(registry, "parapet_guard_held_chars_bucket", le="+Inf") == 4
    # fmt: on


def test_how_the_automata_are() -> None:
    totals, registry = Totals("w"), Registry("1")
    for states, *done in ((40, 0, 0, 0), (70, 1, 5, 2), (10, 1, 0, 1)):
        totals.automata(states, *done)
    registry.worker_totals(0, sent(totals))  # type: ignore[arg-type]
    assert value(registry, "parapet_guard_states", slot="0") == 10
    assert value(registry, "parapet_guard_flushes_total") == 2
    assert value(registry, "parapet_guard_soft_syncs_total") == 5
    assert value(registry, "parapet_guard_commits_total") == 3
    registry.worker_ended(0)
    assert value(registry, "parapet_guard_states", slot="0") == 0
    assert value(registry, "parapet_guard_commits_total") == 3


@pytest.mark.thorough
def test_t_st_12_counters_never_go_back_over_fifty_restarts() -> None:
    registry, before = Registry("1"), 0.0
    for life in range(50):
        totals = Totals(f"w{life}", ("claude-3",))
        for n in range(1, 4):
            totals.count(RequestFinished(record()))
            registry.worker_totals(0, sent(totals))  # type: ignore[arg-type]
            now = value(registry, "parapet_requests_total") or 0
            assert now == before + n
        if life % 2:
            registry.worker_ended(0)  # told of the end, or finding another worker in its place
        before = now
    assert before == 150
    assert value(registry, "parapet_tokens_total", type="input") == 1500


def test_workers_are_added_and_gauges_stand_apart() -> None:
    registry = Registry("1")
    for slot in (0, 1):
        totals = Totals(f"w{slot}", ("claude-3",))
        totals.in_flight = slot + 1
        totals.count(RequestFinished(record()))
        registry.worker_totals(slot, sent(totals))  # type: ignore[arg-type]
    assert value(registry, "parapet_requests_total") == 2
    assert value(registry, "parapet_requests_in_flight", slot="1") == 2
    registry.worker_ended(1)
    assert value(registry, "parapet_requests_in_flight", slot="1") == 0
    assert value(registry, "parapet_requests_total") == 2
    assert repr(registry) == "<Registry 1 workers>"


def test_what_the_control_process_counts_itself() -> None:
    registry = Registry("0.1.0")
    registry.add("control_requests_total", ("listEvents", "200"))
    registry.add("control_requests_total", ("listEvents", "200"), 2)
    registry.set("spool_bytes", (), 17)
    registry.set("spool_lag_seconds", (), 0.25)
    registry.committed("sqlite", 0.0004)
    registry.committed("sqlite", 9)
    assert value(registry, "parapet_control_requests_total", status="200") == 3
    assert value(registry, "parapet_spool_lag_seconds") == 0.25
    assert value(registry, "parapet_store_commit_seconds_bucket", le="0.0005") == 1
    assert value(registry, "parapet_store_commit_seconds_count", engine="sqlite") == 2
    with pytest.raises(KeyError):
        registry.add("no_such_metric")
    with pytest.raises(AssertionError):
        registry.set("spool_bytes", ("x",), 1)


def test_labels_are_escaped() -> None:
    ugly = 'a"b\\c\nd'
    registry = shown(SpoolLost(ugly))
    assert value(registry, "parapet_spool_lost_total", reason=ugly) == 1


# fmt: off
MALFORMED = [None, [], {}, {"format": 2}, {"format": 1}, {"format": 1, "tables": {"requests": [3]}},
             {"format": 1, "tables": {"requests": [["a", [1]]]}}]
# fmt: on


@pytest.mark.parametrize("doc", MALFORMED)
def test_a_malformed_message_is_refused_and_changes_nothing(doc: object) -> None:
    registry = shown(RequestFinished(record()))
    with pytest.raises(ValueError, match=r"totals|malformed"):
        registry.worker_totals(0, doc)  # type: ignore[arg-type]
    assert value(registry, "parapet_requests_total") == 1


def test_tables_add_up_place_by_place() -> None:
    into = {"t": {("a",): [1.0, 2.0]}}
    merge(into, {"t": {("a",): [1, 1], ("b",): [5]}, "u": {(): [1]}})
    assert into == {"t": {("a",): [2.0, 3.0], ("b",): [5]}, "u": {(): [1]}}
    assert tables_of({"format": 1, "tables": {"t": [[["a"], [1]]]}}) == {"t": {("a",): [1]}}


def test_series_are_bounded() -> None:
    totals = Totals("w")
    for number in range(MAX_SERIES + 100):
        totals.count(RequestFinished(record(route_id=f"r{number}")))
    assert repr(totals) == f"<Totals w {MAX_SERIES + 1} series>"
    tables = tables_of(totals.to_doc())
    assert sum(row[0] for row in tables["requests"].values()) == MAX_SERIES + 100
    assert sum(row[0] for key, row in tables["requests"].items() if key[1] == "other") == 100
    assert tables["series_overflow"] == {(): [100]}


def test_every_family_is_announced_once() -> None:
    text = Registry("1").render().decode()
    for metric in METRICS:
        assert text.count(f"# TYPE {PREFIX}{metric.name} {metric.type}\n") == 1
    assert text.endswith("\n")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_a_scrape_of_20000_series_stays_under_50_ms() -> None:
    totals = Totals("w", [f"m{n}" for n in range(10)])
    for route in range(340):
        for model in range(3):
            for outcome in ("success", "timeout"):
                totals.count(
                    RequestFinished(
                        record(route_id=f"r{route}", model=f"m{model}", outcome=outcome)
                    )
                )
    registry = Registry("1")
    registry.worker_totals(0, totals.to_doc())
    assert registry.render().count(b"\n") >= 20_000
    best = min(_cpu_s(registry.render) for _ in range(5))
    assert best < (0.050 if sys.gettrace() is None else 0.250)  # a tracer sees every line


def _cpu_s(work: object) -> float:
    started = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - started


@pytest.mark.parametrize("count", [1, 31, 32, 33, 100])
def test_requests_that_wait_to_be_counted_are_in_every_message(count: int) -> None:
    totals, registry = Totals("w"), Registry("1.0")
    for _ in range(count):
        totals.count(RequestFinished(record()))
    for _ in range(2):
        registry.worker_totals(0, sent(totals))
        assert value(registry, "parapet_requests_total") == count
