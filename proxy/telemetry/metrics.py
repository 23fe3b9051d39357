"""Counting, on the worker's side: plain integers, added to once per observation.

Everything here runs on the loop that serves the requests: one look-up per request, then additions;
no label objects, no locks, no clock.  Finished requests are counted a few at a time: the first pays
for fetching this code and its numbers, the others do not.  A table maps a tuple of label values to
a list of numbers, so that totals of several workers are added without knowing what they mean;
`exposition.py` knows, and has every name.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, assert_never

from proxy.model.exchange import Json
from proxy.model.observations import (
    GuardAsked,
    GuardAskingEnded,
    GuardOverflowed,
    LimitReached,
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
from proxy.model.records import REASONING_OFF, RequestRecord

# seconds; the buckets of OpenTelemetry for generative AI
BUCKETS_S: Final[tuple[float, ...]] = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
BUCKETS_MS: Final = tuple(bound * 1000 for bound in BUCKETS_S)
OTHER: Final = "other"
MAX_SERIES: Final = 5000
WAITING: Final = 32  # finished requests that wait to be counted
BUCKETS_GUARD_S: Final[tuple[float, ...]] = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
Key = tuple[str, ...]
Table = dict[Key, list[float]]
Tables = dict[str, Table]

# places in a row of `spend`
INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, REASONING, COST_NANO, UNPRICED = range(7)
_SPEND_PLACES: Final = 7
_TIMINGS: Final = ("duration", "ttft", "overhead")


class _Series:
    """Where the numbers of one kind of request are kept; found by one look-up.  The last three are
    histograms: counts per bucket, the last one open, then the sum in milliseconds."""

    __slots__ = ("duration", "overhead", "requests", "spend", "ttft")

    def __init__(
        self,
        requests: list[float],
        spend: list[float],
        duration: list[float],
        ttft: list[float],
        overhead: list[float],
    ) -> None:
        self.requests = requests
        self.spend = spend
        self.duration = duration
        self.ttft = ttft
        self.overhead = overhead


class Totals:
    """All that one worker has counted since it started.

    `worker` tells this process from the one that had the slot before.  `models` are the names that
    stand for themselves; any other model counts as `other`.
    """

    def __init__(self, worker: str, models: Iterable[str] = ()) -> None:
        self.worker = worker
        self.models = frozenset(models)
        self.in_flight = 0
        self.loop_lag_s = 0.0
        self.config_version = 0
        self.guard_states = 0
        self._series: dict[tuple[str, str, str, str, str, str], _Series] = {}
        self._timings: dict[tuple[str, str, str], tuple[list[float], ...]] = {}
        self._waiting: list[RequestRecord] = []
        self._tables: Tables = {}
        self._requests = self._table("requests")
        self._spend = self._table("spend")
        self._attempts = self._table("attempts")

    def count(self, what: Observation) -> None:
        """Add one observation."""
        match what:
            case RequestFinished():
                waiting = self._waiting
                waiting.append(what.record)
                if len(waiting) >= WAITING:
                    self._count_waiting()
            case UpstreamStale(endpoint_id):
                self._add("stale", (endpoint_id,))
            case RetryBudgetSpent(policy_id):
                self._add("retry_budget", (policy_id,))
            case StreamEventDropped(endpoint_id):
                self._add("stream_events_dropped", (endpoint_id,))
            case StreamRecovery(mode, result):
                self._add("stream_recoveries", (mode, result))
            case GuardOverflowed(policy_id, rule_id):
                self._add("guard_overflows", (policy_id, rule_id))
            case GuardAsked(policy_id, rule_id, result):
                self._add("guard_external", (policy_id, rule_id, result))
            case GuardAskingEnded(elapsed_s):
                self._guard_time("external", elapsed_s)
            case LimitReached(workspace_id, scope, limit):
                self._add("limited", (workspace_id, scope, limit))
            case SpoolLost(reason):
                self._add("spool_lost", (reason,))
            case SpoolDropped(line_class, lines):
                self._add("spool_dropped", (line_class,), lines)
            case SnapshotApplied(version):
                self.config_version = version
            case SnapshotRejected():
                self._add("config_rejected", ())
            case never:
                assert_never(never)

    def _count_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            self._request(record)

    def _request(self, record: RequestRecord) -> None:
        model = record.model
        if model not in self.models:
            model = OTHER if model else ""
        workspace_id, outcome = record.workspace_id, record.outcome
        key = (
            workspace_id,
            record.route_id,
            record.endpoint_id or "",
            record.provider or "",
            model or "",
            outcome,
        )
        series = self._series.get(key) or self._new_series(key)
        series.requests[0] += 1
        _observe(series.duration, record.latency_ms)
        if record.ttft_ms is not None:
            _observe(series.ttft, record.ttft_ms)
        if record.overhead_ms is not None:
            _observe(series.overhead, record.overhead_ms)
        usage = record.usage
        if usage is not None:
            spend = series.spend
            spend[INPUT] += usage.input
            spend[OUTPUT] += usage.output
            spend[CACHE_READ] += usage.cache_read
            spend[CACHE_WRITE] += usage.cache_write_5m + usage.cache_write_1h
            spend[REASONING] += usage.reasoning
            if record.cost_nano is None:
                spend[UNPRICED] += 1
            else:
                spend[COST_NANO] += record.cost_nano
        for attempt in record.attempts:
            place = (workspace_id, attempt.endpoint_id, attempt.outcome)
            row = self._attempts.get(place)
            if row is None:
                self._add("attempts", place)
            else:
                row[0] += 1
        if record.total_chars or record.unread_chars:
            self._guard(record)
        if record.policy_results:
            self._policy(record)
        if record.placeholders_unrestored:
            self._add("placeholders_unrestored", (), record.placeholders_unrestored)
        if record.unknown_events:
            self._add("unknown_events", (), record.unknown_events)
        for decision in record.decisions:
            self._add(
                "failover_decisions",
                (
                    workspace_id,
                    decision.failover_policy_id,
                    decision.reason_code,
                    decision.scope,
                ),
            )

    def _guard(self, record: RequestRecord) -> None:
        if record.guard_request_s:
            self._guard_time("request", record.guard_request_s)
        if record.guard_unary_s:
            self._guard_time("unary", record.guard_unary_s)
        if record.guard_lane_s:
            self._guard_time("lane", record.guard_lane_s)
        unread = record.unread_chars or {}
        unseen = record.total_chars - record.scanned_chars - unread.get(REASONING_OFF, 0)
        if unseen > 0:
            self._add("guard_unscanned_chars", ("no_rule",), unseen)
        for reason, chars in unread.items():
            self._add("guard_unscanned_chars", (reason,), chars)
        counts = record.held_counts
        if counts is not None:
            held = self._histogram("guard_held_chars", (), len(counts))
            for place, count in enumerate(counts):
                held[place] += count

    def _guard_time(self, phase: str, seconds: float) -> None:
        times = self._histogram("guard_seconds", (phase,), len(BUCKETS_GUARD_S) + 2)
        times[bisect_left(BUCKETS_GUARD_S, seconds)] += 1
        times[-1] += seconds

    def _histogram(self, name: str, key: Key, places: int) -> list[float]:
        table = self._table(name)
        row = table.get(key)
        if row is None:
            row = table[key] = [0] * places
        return row

    def automata(self, states: int, flushes: int, soft_syncs: int, commits: int) -> None:
        """How the automata of streams are now, and what they have done since the last time."""
        self.guard_states = states
        for table, count in (
            ("guard_flushes", flushes),
            ("guard_soft_syncs", soft_syncs),
            ("guard_commits", commits),
        ):
            self._add(table, (), count)

    def _policy(self, record: RequestRecord) -> None:
        for result in record.policy_results:
            if result.verdict == "bypassed":
                bypassed = (result.policy_id, result.rule_matched or "")
                self._add("guard_bypassed", bypassed, result.count)
            self._add(
                "policy_results",
                (
                    record.workspace_id,
                    result.policy_id,
                    result.rule_matched or "",
                    result.verdict,
                    result.action_taken,
                ),
            )

    def _new_series(self, key: tuple[str, str, str, str, str, str]) -> _Series:
        if len(self._series) >= MAX_SERIES:
            self._add("series_overflow", ())
            key = (key[0], OTHER, OTHER, OTHER, OTHER, key[5])
            found = self._series.get(key)
            if found is not None:
                return found
        place = key[:3]
        timing = self._timings.get(place)
        if timing is None:
            timing = self._timings[place] = tuple([0] * (len(BUCKETS_MS) + 2) for _ in _TIMINGS)
            for name, histogram in zip(_TIMINGS, timing, strict=True):
                self._table(name)[place] = histogram
        spend = self._spend.setdefault(key[:5], [0] * _SPEND_PLACES)
        requests = self._requests.setdefault(key, [0])
        series = self._series[key] = _Series(requests, spend, *timing)
        return series

    def _table(self, name: str) -> Table:
        return self._tables.setdefault(name, {})

    def _add(self, table: str, key: Key, count: int = 1) -> None:
        rows = self._tables.get(table)
        if rows is None:
            rows = self._table(table)
        row = rows.get(key)
        if row is None:
            if len(rows) >= MAX_SERIES:
                key = (OTHER,) * len(key)
            row = rows.setdefault(key, [0])
        row[0] += count

    def to_doc(self) -> dict[str, Json]:
        """Everything so far, as JSON: sent each second, so that a lost message costs nothing."""
        self._count_waiting()
        tables: dict[str, Json] = {
            name: [[[*key], [*row]] for key, row in table.items()]
            for name, table in self._tables.items()
        }
        return {
            "format": 1,
            "worker": self.worker,
            "in_flight": self.in_flight,
            "loop_lag_s": self.loop_lag_s,
            "config_version": self.config_version,
            "guard_states": self.guard_states,
            "tables": tables,
        }

    def __repr__(self) -> str:
        return f"<Totals {self.worker} {len(self._series)} series>"


def _observe(histogram: list[float], value_ms: float) -> None:
    histogram[bisect_left(BUCKETS_MS, value_ms)] += 1
    histogram[-1] += value_ms


def tables_of(doc: Json) -> Tables:
    """The tables of a worker's message.  Raises ValueError when it is not one."""
    if not isinstance(doc, dict) or doc.get("format") != 1:
        raise ValueError("not a message of totals")
    tables = doc.get("tables")
    if not isinstance(tables, dict):
        raise ValueError("totals without tables")
    found: Tables = {}
    for name, rows in tables.items():
        table = found[name] = {}
        for entry in rows if isinstance(rows, list) else ():
            match entry:
                case [list() as key, list() as row]:
                    table[tuple(str(part) for part in key)] = [
                        value if isinstance(value, (int, float)) else 0 for value in row
                    ]
                case _:
                    raise ValueError(f"a row of {name} is malformed")
    return found


def merge(into: Tables, other: Tables) -> None:
    """Add `other`, place by place."""
    for name, table in other.items():
        ours = into.setdefault(name, {})
        for key, row in table.items():
            present = ours.get(key)
            if present is None or len(present) != len(row):
                ours[key] = list(row)
            else:
                for place, value in enumerate(row):
                    present[place] += value
