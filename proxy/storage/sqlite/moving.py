"""Workspaces out of a database and into one, and a copy of the whole (`storage/moving.py`).

Reading goes over one connection that cannot write, at one moment, beside a process that serves.
Writing takes the database for itself and is one transaction: all of it, or nothing.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final

from proxy.model.batch import Append, OutboxPut
from proxy.model.ports import Clock
from proxy.storage.faults import CannotOpen
from proxy.storage.moving import (
    Deleted,
    Document,
    Entry,
    Head,
    MovingFault,
    Position,
    Recognition,
    Record,
    Row,
    Sum,
    Waiting,
)
from proxy.storage.sqlite import outbox
from proxy.storage.sqlite.bounds import DEFAULT
from proxy.storage.sqlite.files import connect_reader, open_database
from proxy.storage.sqlite.schema import MIGRATIONS
from proxy.storage.sqlite.segments import DAY_MS, Tails, entry_of, table

ENTRIES: Final = 1_000  # written at once
_TABLES: Final = (
    "docs", "uniq", "heads", "spans", "outbox", "dedupe", "idem", "cursors", "rollup",
)  # fmt: skip
_SIGNS_OF_LIFE: Final = ("docs", "heads", "cursors", "rollup")


class SqliteFile:
    """`Movable` over the database at `path`."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def dump(self, workspace_id: str, *, records: bool) -> Iterator[Row]:
        with self._reading() as db:
            db.execute("BEGIN")
            yield from _rows(db, workspace_id, self._clock.now_ms(), records=records)

    def load(self, workspace_id: str, rows: Iterable[Row], *, replace: bool) -> None:
        try:
            opened = open_database(self._path, self._clock.now_ms())
        except CannotOpen as why:
            raise MovingFault(f"{why}; stop parapet first") from why
        try:
            if opened.trouble is not None:
                raise MovingFault(opened.trouble)
            db = opened.connection
            db.execute("BEGIN IMMEDIATE")
            try:
                _make_room(db, workspace_id, replace=replace)
                _Loading(db, workspace_id, self._clock.now_ms()).write(rows)
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OverflowError) as why:
            raise MovingFault(f"{self._path}: {why}") from why
        finally:
            opened.close()

    def copy_to(self, target: Path) -> None:
        """The whole database, at one moment, beside a process that serves.  Raises MovingFault."""
        with self._reading() as db:
            db.execute("PRAGMA query_only=OFF")  # a copy is a write, elsewhere
            db.execute("VACUUM INTO ?", (str(target),))

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not self._path.exists():
            raise MovingFault(f"{self._path} is not there")
        try:
            db = connect_reader(self._path)
            try:
                (version,) = db.execute("PRAGMA user_version").fetchone()
                if version != len(MIGRATIONS):
                    known = len(MIGRATIONS)
                    raise MovingFault(f"{self._path} has schema {version}, this program {known}")
                yield db
            finally:
                db.close()
        except sqlite3.Error as why:
            raise MovingFault(f"{self._path}: {why}") from why


def _rows(db: sqlite3.Connection, ws: str, now_ms: int, *, records: bool) -> Iterator[Row]:
    held: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for kind, name, value, doc_id in db.execute(
        "SELECT kind, field, value, id FROM uniq WHERE ws=? ORDER BY kind, field, value", (ws,)
    ):
        held.setdefault((kind, doc_id), []).append((name, value))
    for kind, doc_id, revision, body in db.execute(
        "SELECT kind, id, rev, body FROM docs WHERE ws=? AND body IS NOT NULL ORDER BY kind, id",
        (ws,),
    ):
        yield Document(kind, doc_id, revision, body, tuple(held.get((kind, doc_id), ())))
    for row in db.execute(
        "SELECT kind, id, rev, updated FROM docs WHERE ws=? AND body IS NULL ORDER BY kind, id",
        (ws,),
    ):
        yield Deleted(*row)
    for log, seq in db.execute("SELECT log, seq FROM heads WHERE ws=? ORDER BY log", (ws,)):
        yield from _entries(db, ws, log)
        yield Head(log, seq)
    for row in db.execute(
        "SELECT id, target, grp, kind, payload, due, attempts, token FROM outbox WHERE ws=? "
        "ORDER BY id",
        (ws,),
    ):
        yield Waiting(*row)
    for row in db.execute("SELECT name, position FROM cursors WHERE ws=? ORDER BY name", (ws,)):
        yield Position(*row)
    for row in db.execute(
        "SELECT minute, series, counter, n FROM rollup WHERE ws=? ORDER BY 1, 2, 3", (ws,)
    ):
        yield Sum(*row)
    for row in db.execute(
        "SELECT h, seq, content, received, expires FROM dedupe WHERE ws=? AND expires>? ORDER BY h",
        (ws, now_ms),
    ):
        yield Recognition(*row)
    if records:
        for row in db.execute(
            "SELECT k, fp, status, headers, body, expires FROM idem WHERE ws=? AND expires>? "
            "ORDER BY k",
            (ws, now_ms),
        ):
            yield Record(*row)


def _entries(db: sqlite3.Connection, ws: str, log: str) -> Iterator[Row]:
    numbers = db.execute("SELECT n FROM spans WHERE ws=? AND log=? ORDER BY n", (ws, log))
    for (number,) in numbers.fetchall():
        for row in db.execute(
            "SELECT seq, received, ts, type, event_id, route, provider, model, sev, outcome, "  # noqa: S608
            f"request_id, incident_id, body FROM {table(number)} WHERE ws=? ORDER BY seq",
            (ws,),
        ):
            yield Entry(log, *row)


def _make_room(db: sqlite3.Connection, ws: str, *, replace: bool) -> None:
    there = [
        name
        for name in _SIGNS_OF_LIFE
        if db.execute(f"SELECT 1 FROM {name} WHERE ws=? LIMIT 1", (ws,)).fetchone()  # noqa: S608
    ]
    if there and not replace:
        raise MovingFault(f"workspace {ws} is not empty; --replace puts the file in its place")
    for (number,) in db.execute("SELECT n FROM spans WHERE ws=?", (ws,)).fetchall():
        db.execute(f"DELETE FROM {table(number)} WHERE ws=?", (ws,))  # noqa: S608
    for name in _TABLES:
        db.execute(f"DELETE FROM {name} WHERE ws=?", (ws,))  # noqa: S608


class _Loading:
    """Rows into tables; entries of logs in runs, as old as they are."""

    def __init__(self, db: sqlite3.Connection, ws: str, now_ms: int) -> None:
        self._db = db
        self._ws = ws
        self._now_ms = now_ms
        self._tails = Tails(db, DEFAULT.segment_entries)
        self._tails.load()
        self._run: list[Entry] = []

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if isinstance(row, Entry):
                self._run.append(row)
                if len(self._run) >= ENTRIES:
                    self._write_run()
            else:
                self._write_row(row)
        self._write_run()
        self._tails.flush()

    def _write_run(self) -> None:
        for log, of_log in groupby(self._run, lambda entry: entry.log):
            for _, run in groupby(of_log, lambda entry: entry.received_ms // DAY_MS):
                self._put(log, list(run))
        self._run.clear()

    def _put(self, log: str, run: Sequence[Entry]) -> None:
        entries = [entry_of(self._ws, each.seq, _append(each), each.received_ms) for each in run]
        self._tails.write(log, entries, max(each.received_ms for each in run))

    def _write_row(self, row: Row) -> None:
        db, ws, now_ms = self._db, self._ws, self._now_ms
        match row:
            case Document(kind, doc_id, revision, body, unique):
                document = (ws, kind, doc_id, revision, body, now_ms, now_ms)
                db.execute("INSERT INTO docs VALUES(?,?,?,?,?,?,?)", document)
                db.executemany(
                    "INSERT INTO uniq VALUES(?,?,?,?,?)",
                    [(ws, kind, name, value, doc_id) for name, value in unique],
                )
            case Deleted(kind, doc_id, revision, at_ms):
                gone = (ws, kind, doc_id, revision, None, at_ms, at_ms)
                db.execute("INSERT INTO docs VALUES(?,?,?,?,?,?,?)", gone)
            case Head(log, seq):
                self._write_run()
                self._tails.advance(ws, log, seq)
            case Waiting(number, target, group, kind, payload, due_ms, attempts, token):
                op = OutboxPut(target, group, kind, payload, due_ms, attempts)
                outbox.write(db, ws, number, op, token)
            case Position(name, value):
                db.execute("INSERT INTO cursors VALUES(?,?,?)", (ws, name, value))
            case Sum(minute, series, counter, n):
                db.execute("INSERT INTO rollup VALUES(?,?,?,?,?)", (ws, minute, series, counter, n))
            case Recognition(key, seq, content, received, expires):
                known = (ws, key, seq, content, received, expires)
                db.execute("INSERT INTO dedupe VALUES(?,?,?,?,?,?)", known)
            case Record(key, fingerprint, status, headers, body, expires):
                record = (ws, key, fingerprint, status, headers, body, expires)
                db.execute("INSERT INTO idem VALUES(?,?,?,?,?,?,?)", record)
            case Entry():
                raise AssertionError("entries go in runs")


def _append(entry: Entry) -> Append:
    return Append(
        entry.log,
        entry.body,
        entry.event_id or "",
        at_ms=entry.at_ms,
        type=entry.type,
        route_id=entry.route_id,
        provider=entry.provider,
        model=entry.model,
        severity=entry.severity,
        outcome=entry.outcome,
        request_id=entry.request_id,
        incident_id=entry.incident_id,
    )
