"""Every metric name, and the text of /metrics, on the control process's side.

Workers send their totals each second.  The newest of a running worker is kept per slot; when the
slot's worker is replaced, its last totals are added to those of ended workers, so that counters
never go back.  The text is written here and not by a library's label objects: 20,000 series have to
come out in under 50 ms on the loop that also serves the API.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from proxy.model.exchange import Json
from proxy.model.records import HELD_BOUNDS
from proxy.telemetry.metrics import (
    BUCKETS_GUARD_S,
    BUCKETS_S,
    Key,
    Table,
    Tables,
    merge,
    tables_of,
)

PREFIX: Final = "parapet_"
Type = Literal["counter", "gauge", "histogram"]
TOKEN_TYPES: Final = ("input", "output", "cache_read", "cache_write", "reasoning")
COMMIT_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
MAX_ROWS: Final = 20_000


@dataclass(slots=True, frozen=True)
class Metric:
    """One family.  `table`: the workers' table it is made of, empty: the control process's own."""

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str
    table: str = ""


_TRAFFIC = ("workspace", "route", "endpoint", "provider", "model", "outcome")
_PLACE = _TRAFFIC[:3]
# fmt: off
METRICS: Final[tuple[Metric, ...]] = (
    Metric("requests_total", "counter", _TRAFFIC, "Requests that ended.", "requests"),
    Metric("request_duration_seconds", "histogram", _PLACE,
           "From the request fully read to the last write of its answer.", "duration"),
    Metric("time_to_first_chunk_seconds", "histogram", _PLACE,
           "Streams: to the first chunk with content.", "ttft"),
    Metric("overhead_seconds", "histogram", _PLACE,
           "Duration without the upstream and without waiting for the client.", "overhead"),
    Metric("tokens_total", "counter", (*_TRAFFIC[:5], "type"), "Tokens, in disjoint types.",
           "spend"),
    Metric("cost_usd_total", "counter", _TRAFFIC[:5], "Cost of priced requests.", "spend"),
    Metric("unpriced_requests_total", "counter", _TRAFFIC[:5],
           "Requests with tokens and no known price.", "spend"),
    Metric("policy_results_total", "counter", ("workspace", "policy", "rule", "verdict", "action"),
           "Results of rules that are not pass, shadow included.", "policy_results"),
    Metric("guard_overflows_total", "counter", ("policy", "rule"),
           "Candidates that stayed undecided beyond guard.hold_max_chars.", "guard_overflows"),
    Metric("guard_placeholders_unrestored_total", "counter", (),
           "Placeholders that answers spelled in another way, so that they were not undone.",
           "placeholders_unrestored"),
    Metric("guard_bypassed_total", "counter", ("policy", "rule"),
           "Checks that broke or were left undecided, and let the text pass.", "guard_bypassed"),
    Metric("guard_external_total", "counter", ("policy", "rule", "result"),
           "Checks outside, by what they said or why they failed.", "guard_external"),
    Metric("guard_unscanned_chars_total", "counter", ("reason",),
           "Characters on guarded routes that no rule looked at.", "guard_unscanned_chars"),
    Metric("guard_unknown_events_total", "counter", (),
           "Events of guarded streams of a type that their dialect does not have.",
           "unknown_events"),
    Metric("guard_seconds", "histogram", ("phase",),
           "Judging a request or a unary answer; lane: a whole stream; external: an asking.",
           "guard_seconds"),
    Metric("guard_held_chars", "histogram", (),
           "Characters held back at the ends of a guarded stream's chunks.", "guard_held_chars"),
    Metric("guard_states", "gauge", ("slot",), "States of the automata of streams."),
    Metric("guard_flushes_total", "counter", (), "Automata emptied because they were full.",
           "guard_flushes"),
    Metric("guard_soft_syncs_total", "counter", (),
           "Texts let go by the oldest open match, without a sync point.", "guard_soft_syncs"),
    Metric("guard_commits_total", "counter", (),
           "Matches of streams that were settled before their end.", "guard_commits"),
    Metric("failover_decisions_total", "counter", ("workspace", "policy", "reason", "scope"),
           "Changes of endpoint.", "failover_decisions"),
    Metric("upstream_attempts_total", "counter", ("workspace", "endpoint", "class"),
           "Upstream attempts by how they ended.", "attempts"),
    Metric("upstream_stale_total", "counter", ("endpoint",),
           "Pooled connections found dead and replaced.", "stale"),
    Metric("retry_budget_exhausted_total", "counter", ("policy",),
           "Retries that were not made because too many were under way.", "retry_budget"),
    Metric("stream_events_dropped_total", "counter", ("endpoint",),
           "Stream events that did not parse.", "stream_events_dropped"),
    Metric("limited_total", "counter", ("workspace", "scope", "limit"),
           "Requests refused by a limit of their key or route.", "limited"),
    Metric("stream_recoveries_total", "counter", ("mode", "result"),
           "Streams that died after content, and what came of going on.", "stream_recoveries"),
    Metric("spool_lost_total", "counter", ("reason",),
           "Records that could not be written to a spool.", "spool_lost"),
    Metric("config_rejected_total", "counter", (), "Snapshots that a worker refused.",
           "config_rejected"),
    Metric("series_overflow_total", "counter", (), "Requests counted as other for lack of series.",
           "series_overflow"),

    Metric("requests_in_flight", "gauge", ("slot",), "Requests under way."),
    Metric("event_loop_lag_seconds", "gauge", ("slot",), "How late the event loop ran last."),
    Metric("config_version", "gauge", ("slot",), "Version of the snapshot in force."),
    Metric("worker_restarts_total", "counter", ("slot",), "Restarts of a data worker."),
    Metric("config_file_valid", "gauge", (), "1: the configuration file on disk is valid."),
    Metric("control_requests_total", "counter", ("operation", "status"), "Control API requests."),
    Metric("events_ingested_total", "counter", ("source", "result"), "Events that came in."),
    Metric("idempotent_replays_total", "counter", (), "Requests answered from their record."),
    Metric("store_commit_seconds", "histogram", ("engine",), "Time of a commit."),
    Metric("store_queue_depth", "gauge", (), "Commits that wait for the writer."),
    Metric("outbox_pending", "gauge", (), "What waits to be sent or is being sent."),
    Metric("store_writable", "gauge", (), "1: the store takes writes."),
    Metric("redis_up", "gauge", (), "1: the Redis of the store answers; absent with SQLite."),
    Metric("redis_rollbacks_total", "counter", (), "How often Redis had forgotten commits."),
    Metric("spool_bytes", "gauge", (), "Bytes in the spools of this node."),
    Metric("spool_lag_seconds", "gauge", (), "Age of the oldest line not yet in the store."),
    Metric("spool_dropped_total", "counter", ("class",), "Spool lines dropped at the cap.",
           "spool_dropped"),
    Metric("spool_corrupt_total", "counter", (), "Spool lines with a bad checksum."),
    Metric("endpoint_state", "gauge", ("workspace", "policy", "endpoint", "state"),
           "1: the state that the endpoint is in under the policy."),
    Metric("rate_limit_hold_seconds", "gauge", ("workspace", "endpoint"),
           "For how long the endpoint's own key is held, the longest of its models."),
    Metric("build_info", "gauge", ("version",), "Always 1."),
)
# fmt: on
_BY_NAME: Final = {metric.name: metric for metric in METRICS}
_BOUNDS: Final[dict[str, tuple[tuple[float, ...], float]]] = {  # and what makes a sum of the unit
    "store_commit_seconds": (COMMIT_BUCKETS_S, 1e-3),
    "guard_seconds": (BUCKETS_GUARD_S, 1),
    "guard_held_chars": (HELD_BOUNDS, 1),
}
_PARTS_OF_SPEND: Final = {"cost_usd_total": (5, 1e-9), "unpriced_requests_total": (6, 1)}


class Registry:
    """Holds what was counted and writes it out."""

    def __init__(self, version: str) -> None:
        self._ended: Tables = {}
        self._running: dict[int, tuple[str, Tables]] = {}
        self._own: dict[str, dict[Key, float]] = {
            metric.name: {} for metric in METRICS if not metric.table and metric.type != "histogram"
        }
        self._commits: dict[Key, list[float]] = {}
        self._labels: dict[tuple[str, Key], str] = {}
        self.set("build_info", (version,), 1)

    def add(self, name: str, labels: Key = (), amount: float = 1) -> None:
        """Count something that happens in this process."""
        rows = self._own[name]
        assert len(labels) == len(_BY_NAME[name].labels), f"labels of {name}"
        if labels in rows or len(rows) < MAX_ROWS:
            rows[labels] = rows.get(labels, 0) + amount

    def set(self, name: str, labels: Key, value: float) -> None:
        """Say what is so now, or a count that another part keeps."""
        assert len(labels) == len(_BY_NAME[name].labels), f"labels of {name}"
        self._own[name][labels] = value

    def show(self, name: str, rows: Iterable[tuple[Key, float]]) -> None:
        """Say all that is so now: what is left out is not there any more."""
        self._own[name] = dict(islice(rows, MAX_ROWS))

    def count(self, table: str, key: Key) -> None:
        """Count in a table of the workers something that this process has done."""
        merge(self._ended, {table: {key: [1]}})

    def committed(self, engine: str, seconds: float) -> None:
        row = self._commits.setdefault((engine,), [0] * (len(COMMIT_BUCKETS_S) + 2))
        row[bisect_left(COMMIT_BUCKETS_S, seconds)] += 1
        row[-1] += seconds * 1000

    def worker_totals(self, slot: int, doc: Json) -> None:
        """Take the newest message of the worker in `slot`.  Raises ValueError when it is malformed,
        and keeps the one before."""
        tables = tables_of(doc)
        assert isinstance(doc, dict), "tables_of has checked it"
        worker = str(doc.get("worker", ""))
        before = self._running.get(slot)
        if before is not None and before[0] != worker:
            self.worker_ended(slot)
        self._running[slot] = (worker, tables)
        label = (str(slot),)
        self.set("requests_in_flight", label, _number(doc.get("in_flight")))
        self.set("event_loop_lag_seconds", label, _number(doc.get("loop_lag_s")))
        self.set("config_version", label, _number(doc.get("config_version")))
        self.set("guard_states", label, _number(doc.get("guard_states")))

    def worker_ended(self, slot: int) -> None:
        """Keep the last totals of the worker that had this slot."""
        before = self._running.pop(slot, None)
        if before is not None:
            merge(self._ended, before[1])
            self.set("requests_in_flight", (str(slot),), 0)
            self.set("guard_states", (str(slot),), 0)

    def totals(self) -> Tables:
        """All workers, ended and running, added up."""
        whole: Tables = {}
        merge(whole, self._ended)
        for _, tables in self._running.values():
            merge(whole, tables)
        return whole

    def render(self) -> bytes:
        """The text format of Prometheus, version 0.0.4."""
        totals = self.totals()
        lines: list[str] = []
        for metric in METRICS:
            lines.append(f"# HELP {PREFIX}{metric.name} {metric.help}")
            lines.append(f"# TYPE {PREFIX}{metric.name} {metric.type}")
            lines.extend(self._lines(metric, totals.get(metric.table, {})))
        lines.append("")
        return "\n".join(lines).encode()

    def _lines(self, metric: Metric, table: Table) -> Iterator[str]:
        name = PREFIX + metric.name
        if metric.type == "histogram":
            if metric.name == "store_commit_seconds":
                table = self._commits
            bounds, scale = _BOUNDS.get(metric.name, (BUCKETS_S, 1e-3))
            return self._histogram(metric, table, bounds, scale)
        if not metric.table:
            rows: Iterable[tuple[Key, float]] = self._own[metric.name].items()
        elif metric.name == "tokens_total":
            rows = (
                ((*key, kind), row[place])
                for key, row in table.items()
                for place, kind in enumerate(TOKEN_TYPES)
                if row[place]
            )
        elif metric.name in _PARTS_OF_SPEND:
            place, scale = _PARTS_OF_SPEND[metric.name]
            rows = ((key, row[place] * scale) for key, row in table.items() if row[place])
        else:
            rows = ((key, row[0]) for key, row in table.items())
        return (f"{name}{self._written(metric, key)} {_text(value)}" for key, value in rows)

    def _histogram(
        self, metric: Metric, table: Table, bounds: tuple[float, ...], scale: float
    ) -> Iterator[str]:
        name = PREFIX + metric.name
        ends = [f'le="{bound}"' for bound in bounds] + ['le="+Inf"']
        for key, row in table.items():
            written = self._written(metric, key)
            start = f"{name}_bucket{written[:-1]}," if written else f"{name}_bucket{{"
            running = 0.0
            for end, count in zip(ends, row, strict=False):
                running += count
                yield f"{start}{end}}} {_text(running)}"
            yield f"{name}_sum{written} {_text(row[-1] * scale)}"
            yield f"{name}_count{written} {_text(running)}"

    def _written(self, metric: Metric, key: Key) -> str:
        """`{a="1",b="2"}`, kept: the same series come out at every scrape."""
        known = self._labels.get((metric.name, key))
        if known is not None:
            return known
        pairs = ",".join(
            f'{label}="{_escaped(value)}"' for label, value in zip(metric.labels, key, strict=False)
        )
        written = f"{{{pairs}}}" if pairs else ""
        if len(self._labels) < 10 * MAX_ROWS:
            self._labels[metric.name, key] = written
        return written

    def __repr__(self) -> str:
        return f"<Registry {len(self._running)} workers>"


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 9))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: Json) -> float:
    return value if isinstance(value, (int, float)) else 0
