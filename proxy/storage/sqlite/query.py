"""Reading: documents by key, logs by `seq` with filters.

A page of a log walks the segments in the direction asked for.  In each, the filter with the best
index is asked first (how many entries fit it), then the rest.  What was read is bounded by 20,000
entries: beyond it the page is partial.  Without a filter nothing is counted: spans have no gaps.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxy.model.batch import FinishedIdem, LogFilter, LogPage, StoredEvent
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.segments import table

Value = str | int
Row = tuple[int, int, int, int, int]  # n, first, last, min_ts, max_ts


def document(db: sqlite3.Connection, ws: str, kind: str, doc_id: str) -> tuple[int, bytes] | None:
    row: tuple[int, bytes] | None = db.execute(
        "SELECT rev, body FROM docs WHERE ws=? AND kind=? AND id=? AND body IS NOT NULL",
        (ws, kind, doc_id),
    ).fetchone()
    return row


def revision(db: sqlite3.Connection, ws: str, kind: str, doc_id: str) -> int:
    row = db.execute(
        "SELECT rev FROM docs WHERE ws=? AND kind=? AND id=?", (ws, kind, doc_id)
    ).fetchone()
    return int(row[0]) if row is not None else 0


def documents(db: sqlite3.Connection, ws: str, kind: str) -> list[tuple[str, int, bytes]]:
    return db.execute(
        "SELECT id, rev, body FROM docs WHERE ws=? AND kind=? AND body IS NOT NULL ORDER BY id",
        (ws, kind),
    ).fetchall()


def head(db: sqlite3.Connection, ws: str, log: str) -> int:
    row = db.execute("SELECT seq FROM heads WHERE ws=? AND log=?", (ws, log)).fetchone()
    return int(row[0]) if row is not None else 0


def cursor(db: sqlite3.Connection, ws: str, name: str) -> int:
    row = db.execute("SELECT position FROM cursors WHERE ws=? AND name=?", (ws, name)).fetchone()
    return int(row[0]) if row is not None else 0


def idempotency(db: sqlite3.Connection, ws: str, key: bytes, now_ms: int) -> FinishedIdem | None:
    row = db.execute(
        "SELECT fp, status, headers, body FROM idem WHERE ws=? AND k=? AND expires>?",
        (ws, key, now_ms),
    ).fetchone()
    return FinishedIdem(*row) if row is not None else None


def rollup(
    db: sqlite3.Connection, ws: str, since_minute: int, until_minute: int
) -> list[tuple[int, str, int, int]]:
    return db.execute(
        "SELECT minute, series, counter, n FROM rollup WHERE ws=? AND minute>=? AND minute<? "
        "ORDER BY minute, series, counter LIMIT 200000",
        (ws, since_minute, until_minute),
    ).fetchall()


def event(db: sqlite3.Connection, ws: str, log: str, event_id: str) -> StoredEvent | None:
    """The newest one of that id."""
    for (number,) in db.execute(
        "SELECT n FROM spans WHERE ws=? AND log=? ORDER BY n DESC", (ws, log)
    ).fetchall():
        row = db.execute(
            f"SELECT seq, body FROM {table(number)} "  # noqa: S608
            "WHERE ws=? AND event_id=? ORDER BY seq DESC LIMIT 1",
            (ws, event_id),
        ).fetchone()
        if row is not None:
            return StoredEvent(*row)
    return None


@dataclass(slots=True)
class _Condition:
    """A piece of WHERE.  A column behind `+` is not looked up in an index."""

    sql: str
    values: list[Value]


def _any_of(column: str, values: Sequence[Value] | None, *, lookup: bool) -> Iterator[_Condition]:
    if values is None:
        return
    marks = ",".join("?" * len(values))
    yield _Condition(f"{'' if lookup else '+'}{column} IN ({marks})", list(values))


def _types(patterns: Sequence[str] | None, *, lookup: bool) -> Iterator[_Condition]:
    if patterns is None:
        return
    exact = [pattern for pattern in patterns if not pattern.endswith(".*")]
    opens = [pattern[:-1] for pattern in patterns if pattern.endswith(".*")]
    if not opens:
        yield from _any_of("type", exact, lookup=lookup)
        return
    pieces = ["(+type >= ? AND +type < ?)"] * len(opens)
    values: list[Value] = []
    for prefix in opens:
        values += [prefix, prefix[:-1] + "/"]  # "/" follows "."
    if exact:
        pieces.append(f"+type IN ({','.join('?' * len(exact))})")
        values += exact
    yield _Condition(f"({' OR '.join(pieces)})", values)


class _Search:
    """A filter, split into the condition that an index answers and the others."""

    def __init__(self, query: LogFilter) -> None:
        exact_types = query.types is not None and not any(t.endswith(".*") for t in query.types)
        ranking: list[tuple[str, Sequence[Value] | None]] = [
            ("request_id", query.request_ids),
            ("incident_id", query.incident_ids),
            ("model", query.models),
            ("type", query.types if exact_types else None),
            ("route", query.route_ids),
        ]
        leading = next((name for name, values in ranking if values is not None), "")
        self.leading: list[_Condition] = []
        self.others: list[_Condition] = []
        for name, values in ranking:
            if name != "type":
                kept = self.leading if name == leading else self.others
                kept.extend(_any_of(name, values, lookup=name == leading))
        kept = self.leading if leading == "type" else self.others
        kept.extend(_types(query.types, lookup=leading == "type"))
        self.others.extend(_any_of("provider", query.providers, lookup=False))
        self.others.extend(_any_of("sev", query.severities, lookup=False))
        self.others.extend(_any_of("outcome", query.outcomes, lookup=False))
        self._since, self._until = query.since_ms, query.until_ms

    def misses(self, min_ts: int, max_ts: int) -> bool:
        """No entry of these times fits."""
        before = self._until is not None and min_ts >= self._until
        return before or (self._since is not None and max_ts < self._since)

    def conditions(self, min_ts: int, max_ts: int) -> list[_Condition]:
        """All but the leading one; times only where the segment reaches over them."""
        found = list(self.others)
        if self._since is not None and min_ts < self._since:
            found.append(_Condition("+ts >= ?", [self._since]))
        if self._until is not None and max_ts >= self._until:
            found.append(_Condition("+ts < ?", [self._until]))
        return found


def _where(
    ws: str, low: int, high: int, conditions: Sequence[_Condition]
) -> tuple[str, list[Value]]:
    sql = "WHERE ws=? AND seq BETWEEN ? AND ?"
    values: list[Value] = [ws, low, high]
    for condition in conditions:
        sql += f" AND {condition.sql}"
        values += condition.values
    return sql, values


class _Walk:
    """One page in the making."""

    def __init__(self, db: sqlite3.Connection, ws: str, query: LogFilter, bounds: Bounds) -> None:
        self._db = db
        self._ws = ws
        self._read_entries = bounds.read_entries
        self._search = _Search(query)
        self._newest_first = query.newest_first
        self._low = (query.after_seq or 0) + 1
        self._high = query.before_seq - 1 if query.before_seq is not None else 1 << 62
        self._limit = max(0, min(query.limit, bounds.page_entries))
        self._skip = query.offset
        self._read = 0
        self._edge = 0
        self._total = 0
        self.entries: list[StoredEvent] = []

    def step(self, row: Row) -> bool:
        """Look into one segment.  False: the bound is met."""
        number, first, last, min_ts, max_ts = row
        low, high = max(first, self._low), min(last, self._high)
        if low > high:
            return True
        if not self._search.misses(min_ts, max_ts):
            others = self._search.conditions(min_ts, max_ts)
            reading = high - low + 1
            if self._search.leading:
                reading = self._count(number, low, high, self._search.leading)
            if self._read and self._read + reading > self._read_entries and self._counts(others):
                return False
            self._read += reading if self._counts(others) else 0
            everything = [*self._search.leading, *others]
            matches = reading
            if others and reading:
                matches = self._count(number, low, high, everything)
            self._fetch(number, low, high, everything, matches)
            self._total += matches
        self._edge = low if self._newest_first else high
        return True

    def page(self, *, whole: bool, offset: int) -> LogPage:
        full = bool(self.entries) and len(self.entries) == self._limit
        if not whole:
            onward = self.entries[-1].seq if full else self._edge
            return LogPage(self.entries, None, onward, partial=True)
        more = full and self._total > offset + len(self.entries)
        return LogPage(self.entries, self._total, self.entries[-1].seq if more else None)

    def _counts(self, others: Sequence[_Condition]) -> bool:
        """Something must be read to know how many fit."""
        return bool(self._search.leading or others)

    def _count(self, number: int, low: int, high: int, conditions: Sequence[_Condition]) -> int:
        sql, values = _where(self._ws, low, high, conditions)
        (found,) = self._db.execute(
            f"SELECT count(*) FROM {table(number)} {sql}",  # noqa: S608
            values,
        ).fetchone()
        return int(found)

    def _fetch(
        self, number: int, low: int, high: int, conditions: Sequence[_Condition], matches: int
    ) -> None:
        wanted = self._limit - len(self.entries)
        if wanted and matches > self._skip:
            sql, values = _where(self._ws, low, high, conditions)
            direction = "DESC" if self._newest_first else "ASC"
            rows = self._db.execute(
                f"SELECT seq, body FROM {table(number)} {sql} "  # noqa: S608
                f"ORDER BY seq {direction} LIMIT ? OFFSET ?",
                [*values, wanted, self._skip],
            ).fetchall()
            self.entries += [StoredEvent(seq, body) for seq, body in rows]
        self._skip = max(0, self._skip - matches)


def page(db: sqlite3.Connection, ws: str, log: str, query: LogFilter, bounds: Bounds) -> LogPage:
    """Entries that fit, in order of `seq`."""
    direction = "DESC" if query.newest_first else "ASC"
    rows: list[Row] = db.execute(
        "SELECT n, first, last, min_ts, max_ts FROM spans WHERE ws=? AND log=? "  # noqa: S608
        f"ORDER BY n {direction}",
        (ws, log),
    ).fetchall()
    walk = _Walk(db, ws, query, bounds)
    whole = all(walk.step(row) for row in rows)
    return walk.page(whole=whole, offset=query.offset)
