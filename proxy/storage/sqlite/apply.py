"""One transaction of the writer: batches that stand or fall alone, written together.

Each batch has its savepoint, so a conflict of one leaves no trace of it and the others go on.
Entries of logs are held back and written at the end of the group, one `executemany` a segment:
`seq` is given in memory and becomes true with the COMMIT.
"""

import sqlite3

from proxy.model.batch import (
    ABSENT,
    ANY,
    OUTBOX,
    WHOLE_BATCH,
    Append,
    Appended,
    Batch,
    CommitResult,
    Count,
    Cursor,
    Delete,
    Idem,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    Put,
    StoreConflict,
)
from proxy.storage.leases import LeaseTable
from proxy.storage.recognition import event_key
from proxy.storage.sqlite import outbox
from proxy.storage.sqlite.segments import Entry, Tails, entry_of


class _Pending:
    """What one batch has appended, until it is known that it stands."""

    __slots__ = ("entries", "heads")

    def __init__(self) -> None:
        self.entries: list[tuple[str, Entry]] = []
        self.heads: dict[str, int] = {}


class Group:
    """Batches of one transaction.  The caller opens it, calls `finish`, and commits."""

    def __init__(
        self, connection: sqlite3.Connection, tails: Tails, leases: LeaseTable, now_ms: int
    ) -> None:
        self._db = connection
        self._tails = tails
        self._leases = leases
        self._now_ms = now_ms
        self._entries: dict[str, list[Entry]] = {}

    def apply(self, ws: str, batch: Batch) -> CommitResult:
        """Raises StoreConflict; then nothing of the batch is left."""
        if batch.fence is not None and not self._leases.holds(batch.fence):
            raise StoreConflict(WHOLE_BATCH, "fence")
        pending, result = _Pending(), CommitResult()
        # a batch of events alone cannot conflict, so there is nothing to come back to
        revocable = any(type(op) is not Append for op in batch.ops)
        if revocable:
            self._db.execute("SAVEPOINT batch")
        try:
            for index, op in enumerate(batch.ops):
                match op:
                    case Append():
                        result.appended.append(self._append(ws, op, pending))
                    case Put():
                        result.revisions[op.kind, op.id] = self._put(ws, op, index)
                    case Delete():
                        self._delete(ws, op, index)
                    case Idem():
                        self._idem(ws, op, index)
                    case Cursor():
                        self._cursor(ws, op, index)
                    case Count():
                        self._count(ws, op)
                    case OutboxPut():
                        result.outbox.append(self._post(ws, op, pending))
                    case OutboxDone():
                        outbox.finish(self._db, ws, op, index)
                    case OutboxRetry():
                        outbox.give_back(self._db, ws, op, index)
        except StoreConflict:
            self._db.execute("ROLLBACK TO batch")
            self._db.execute("RELEASE batch")
            raise
        if revocable:
            self._db.execute("RELEASE batch")
        for log, entry in pending.entries:
            self._entries.setdefault(log, []).append(entry)
        for log, seq in pending.heads.items():
            self._tails.advance(ws, log, seq)
        return result

    def finish(self) -> int:
        """Write the held entries and the ends of the logs; how many entries there were."""
        for log, entries in self._entries.items():
            self._tails.write(log, entries, self._now_ms)
        self._tails.flush()
        return sum(map(len, self._entries.values()))

    def _next(self, ws: str, log: str, pending: _Pending) -> int:
        return (pending.heads.get(log) or self._tails.head(ws, log)) + 1

    def _post(self, ws: str, op: OutboxPut, pending: _Pending) -> int:
        number = pending.heads[OUTBOX] = self._next(ws, OUTBOX, pending)
        outbox.write(self._db, ws, number, op)
        return number

    def _append(self, ws: str, op: Append, pending: _Pending) -> Appended:
        log, received = op.log, op.received_ms or self._now_ms
        seq = self._next(ws, log, pending)
        if op.dedupe_ttl_s > 0 and op.event_id:
            known = self._known(ws, op, seq, received)
            if known is not None:
                return known
        pending.heads[log] = seq
        pending.entries.append((log, entry_of(ws, seq, op, received)))
        return Appended(seq, "accepted", received)

    def _known(self, ws: str, op: Append, seq: int, received: int) -> Appended | None:
        """Remember the event, or say what is remembered."""
        key, content = event_key(op.log, op.event_id), op.content_hash[:16]
        expires = self._now_ms + op.dedupe_ttl_s * 1000
        fresh = self._db.execute(
            "INSERT INTO dedupe VALUES(?,?,?,?,?,?) ON CONFLICT DO UPDATE SET seq=excluded.seq, "
            "content=excluded.content, received=excluded.received, expires=excluded.expires "
            "WHERE dedupe.expires <= ?",
            (ws, key, seq, content, received, expires, self._now_ms),
        )
        if fresh.rowcount:
            return None
        seq, stored, received = self._db.execute(
            "SELECT seq, content, received FROM dedupe WHERE ws=? AND h=?", (ws, key)
        ).fetchone()
        return Appended(seq, "duplicate" if stored == content else "conflict", received)

    def _revision(self, ws: str, op: Put | Delete, index: int) -> tuple[int, bool]:
        """(last revision, is it there); refuses what `expect` refuses."""
        row = self._db.execute(
            "SELECT rev, body IS NOT NULL FROM docs WHERE ws=? AND kind=? AND id=?",
            (ws, op.kind, op.id),
        ).fetchone()
        revision, there = (row[0], bool(row[1])) if row is not None else (0, False)
        if op.expect == ABSENT and there:
            raise StoreConflict(index, "exists")
        if op.expect >= 0 and not there:
            raise StoreConflict(index, "missing")
        if op.expect >= 0 and revision != op.expect:
            raise StoreConflict(index, "revision")
        return revision, there

    def _put(self, ws: str, op: Put, index: int) -> int:
        revision, there = self._revision(ws, op, index)
        revision += 1
        self._db.execute(
            "INSERT INTO docs VALUES(?,?,?,?,?,?,?) ON CONFLICT DO UPDATE "
            "SET rev=excluded.rev, body=excluded.body, updated=excluded.updated",
            (ws, op.kind, op.id, revision, op.body, self._now_ms, self._now_ms),
        )
        if there:
            self._release(ws, op)
        for name, value in op.unique:
            claimed = self._db.execute(
                "INSERT INTO uniq VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
                (ws, op.kind, name, value, op.id),
            )
            if not claimed.rowcount:
                raise StoreConflict(index, "unique")
        return revision

    def _delete(self, ws: str, op: Delete, index: int) -> None:
        """A document that is not there: `missing`, unless any state was welcome."""
        revision, there = self._revision(ws, op, index)
        if not there:
            if op.expect == ANY:
                return
            raise StoreConflict(index, "missing")
        self._db.execute(
            "UPDATE docs SET body=NULL, rev=?, updated=? WHERE ws=? AND kind=? AND id=?",
            (revision + 1, self._now_ms, ws, op.kind, op.id),
        )
        self._release(ws, op)

    def _release(self, ws: str, op: Put | Delete) -> None:
        self._db.execute("DELETE FROM uniq WHERE ws=? AND kind=? AND id=?", (ws, op.kind, op.id))

    def _idem(self, ws: str, op: Idem, index: int) -> None:
        expires = self._now_ms + op.ttl_s * 1000
        written = self._db.execute(
            "INSERT INTO idem VALUES(?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET fp=excluded.fp, "
            "status=excluded.status, headers=excluded.headers, body=excluded.body, "
            "expires=excluded.expires WHERE idem.expires <= ?",
            (ws, op.key, op.fingerprint, op.status, op.headers, op.body, expires, self._now_ms),
        )
        if not written.rowcount:
            raise StoreConflict(index, "idem")

    def _cursor(self, ws: str, op: Cursor, index: int) -> None:
        row = self._db.execute(
            "SELECT position FROM cursors WHERE ws=? AND name=?", (ws, op.name)
        ).fetchone()
        if (row[0] if row is not None else 0) != op.old:
            raise StoreConflict(index, "cursor")
        self._db.execute(
            "INSERT INTO cursors VALUES(?,?,?) "
            "ON CONFLICT DO UPDATE SET position=excluded.position",
            (ws, op.name, op.new),
        )

    def _count(self, ws: str, op: Count) -> None:
        self._db.executemany(
            "INSERT INTO rollup VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(ws, op.minute, op.series, counter, n) for counter, n in op.counters.items()],
        )
