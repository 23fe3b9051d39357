"""The logs on disk: tables of at most 20,000 entries and one UTC day, and what is known of them.

A log is cut into segments; a segment holds all workspaces of one log, and of each workspace a
range of `seq` without gaps (a *span*).  So a reader walks segments by span, and retention drops
whole tables.

`Tails` is the writer's memory of the ends: last `seq` per log, the segment that grows, its spans.
Invariant: after `flush` and COMMIT it equals the tables; after a failed transaction it is thrown
away and loaded anew.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

from proxy.model.batch import Append

DAY_MS = 86_400_000
INDEX_BYTES = 500  # measured: what an entry takes beside its body

_TABLE = """
CREATE TABLE {t}(
    rid INTEGER PRIMARY KEY, ws TEXT NOT NULL, seq INTEGER NOT NULL, event_id TEXT,
    ts INTEGER NOT NULL, received INTEGER NOT NULL, type TEXT NOT NULL, route TEXT, provider TEXT,
    model TEXT, sev INTEGER, outcome TEXT, request_id TEXT, incident_id TEXT, body BLOB NOT NULL
)"""
_INDEXES = (
    "CREATE UNIQUE INDEX {t}_seq ON {t}(ws, seq)",
    "CREATE INDEX {t}_type ON {t}(ws, type, seq)",
    "CREATE INDEX {t}_route ON {t}(ws, route, seq) WHERE route IS NOT NULL",
    "CREATE INDEX {t}_model ON {t}(ws, model, seq) WHERE model IS NOT NULL",
    "CREATE INDEX {t}_event ON {t}(ws, event_id) WHERE event_id IS NOT NULL",
    "CREATE INDEX {t}_request ON {t}(ws, request_id, seq) WHERE request_id IS NOT NULL",
    "CREATE INDEX {t}_incident ON {t}(ws, incident_id, seq) WHERE incident_id IS NOT NULL",
)
_INSERT = (
    "INSERT INTO {t}(ws, seq, event_id, ts, received, type, route, provider, model, sev, outcome, "
    "request_id, incident_id, body) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


# one row of a segment, in the order of `_INSERT`; a plain tuple is what sqlite3 binds fastest
Text = str | None
Entry = tuple[
    str, int, Text, int, int, str, Text, Text, Text, int | None, Text, Text, Text, bytes
]  # fmt: skip
WS: Final = 0
SEQ: Final = 1
TS: Final = 3
BODY: Final = 13


def entry_of(ws: str, seq: int, op: Append, received: int) -> Entry:
    return (
        ws,
        seq,
        op.event_id or None,
        op.at_ms or received,
        received,
        op.type,
        op.route_id,
        op.provider,
        op.model,
        op.severity,
        op.outcome,
        op.request_id,
        op.incident_id,
        op.body,
    )


def table(number: int) -> str:
    return f"ev_{number:06d}"


@dataclass(slots=True)
class Segment:
    """The segment of a log that grows."""

    number: int
    day: int
    entries: int
    bytes: int
    last_received: int


@dataclass(slots=True)
class Span:
    """What one segment holds of one workspace."""

    first: int
    last: int
    min_ts: int
    max_ts: int


class Tails:
    """Where each log ends."""

    def __init__(self, connection: sqlite3.Connection, segment_entries: int) -> None:
        self._db = connection
        self._segment_entries = segment_entries
        self._heads: dict[tuple[str, str], int] = {}
        self._growing: dict[str, Segment] = {}
        self._spans: dict[tuple[str, str, int], Span] = {}
        self._moved: set[tuple[str, str]] = set()
        self._grown: set[str] = set()
        self._stretched: set[tuple[str, str, int]] = set()
        self._next = 1

    def load(self) -> None:
        """Take everything from the tables."""
        db = self._db
        self._moved.clear()
        self._grown.clear()
        self._stretched.clear()
        self._heads = {
            (ws, log): seq for ws, log, seq in db.execute("SELECT ws, log, seq FROM heads")
        }
        self._growing = {
            log: Segment(n, day, entries, size, received)
            for log, n, day, entries, size, received in db.execute(
                "SELECT log, max(n), day, entries, bytes, last_received FROM segments GROUP BY log"
            )
        }
        self._spans = {
            (ws, log, n): Span(first, last, low, high)
            for ws, log, n, first, last, low, high in db.execute(
                "SELECT ws, log, n, first, last, min_ts, max_ts FROM spans "
                "WHERE n IN (SELECT max(n) FROM segments GROUP BY log)"
            )
        }
        # numbers are not given twice, even when the newest segment was dropped
        (last,) = db.execute("SELECT max(v) FROM meta WHERE k = 'last_segment'").fetchone()
        self._next = (last or 0) + 1

    def head(self, ws: str, log: str) -> int:
        return self._heads.get((ws, log), 0)

    def advance(self, ws: str, log: str, seq: int) -> None:
        self._heads[ws, log] = seq
        self._moved.add((ws, log))

    def write(self, log: str, entries: Sequence[Entry], now_ms: int) -> None:
        """Put entries into the segments of a log, opening new ones as needed."""
        start = 0
        while start < len(entries):
            segment = self._room(log, now_ms // DAY_MS)
            part = entries[start : start + self._segment_entries - segment.entries]
            self._db.executemany(_INSERT.format(t=table(segment.number)), part)
            segment.entries += len(part)
            segment.bytes += sum([len(entry[BODY]) for entry in part]) + INDEX_BYTES * len(part)
            segment.last_received = max(segment.last_received, now_ms)
            for ws, run in groupby(part, itemgetter(WS)):
                self._stretch((ws, log, segment.number), list(run))
            self._grown.add(log)
            start += len(part)

    def flush(self) -> None:
        """Write what changed into the tables of the same transaction."""
        db = self._db
        db.executemany(
            "INSERT INTO heads VALUES(?,?,?) ON CONFLICT DO UPDATE SET seq = excluded.seq",
            [(*key, self._heads[key]) for key in self._moved],
        )
        db.executemany(
            "UPDATE segments SET entries=?, bytes=?, last_received=? WHERE n=?",
            [
                (segment.entries, segment.bytes, segment.last_received, segment.number)
                for segment in map(self._growing.__getitem__, self._grown)
            ],
        )
        spans = [(key, self._spans[key]) for key in self._stretched]
        db.executemany(
            "INSERT INTO spans VALUES(?,?,?,?,?,?,?) ON CONFLICT DO UPDATE "
            "SET last=excluded.last, min_ts=excluded.min_ts, max_ts=excluded.max_ts",
            [(*key, span.first, span.last, span.min_ts, span.max_ts) for key, span in spans],
        )
        self._moved.clear()
        self._grown.clear()
        self._stretched.clear()

    def _stretch(self, key: tuple[str, str, int], run: Sequence[Entry]) -> None:
        """Over entries of one workspace, in order."""
        times = [entry[TS] for entry in run]
        first, last, low, high = run[0][SEQ], run[-1][SEQ], min(times), max(times)
        span = self._spans.get(key)
        if span is None:
            self._spans[key] = Span(first, last, low, high)
        else:
            span.last = last
            span.min_ts = min(span.min_ts, low)
            span.max_ts = max(span.max_ts, high)
        self._stretched.add(key)

    def _room(self, log: str, day: int) -> Segment:
        segment = self._growing.get(log)
        if segment is not None:
            if segment.entries < self._segment_entries and segment.day == day:
                return segment
            self.flush()
            old = segment.number
            self._spans = {key: span for key, span in self._spans.items() if key[2] != old}
        number, self._next = self._next, self._next + 1
        name = table(number)
        self._db.execute(_TABLE.format(t=name))
        for statement in _INDEXES:
            self._db.execute(statement.format(t=name))
        self._db.execute("INSERT INTO segments VALUES(?,?,?,0,0,0)", (number, log, day))
        self._db.execute("INSERT OR REPLACE INTO meta VALUES('last_segment', ?)", (number,))
        segment = self._growing[log] = Segment(number, day, 0, 0, 0)
        return segment
