"""The outbox in its table: rows written with a commit, claimed one at a time of each group.

Invariant: of the rows of one (target, grp) the one with the smallest number waits or is claimed,
all others are behind it.  So what can be claimed is found by an index alone, however much waits.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from proxy.model.batch import (
    ANY,
    CLAIMED_ROWS,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    OutboxRow,
    StoreConflict,
)

CLAIMED: Final = 1
# what may be claimed: ways that an index of its own answers
WAITS: Final = "state=0 AND due<=? ORDER BY due, id LIMIT ?"
RAN_OUT: Final = "state=1 AND lease_until<=? ORDER BY lease_until, id LIMIT ?"
COLUMNS: Final = "id, target, grp, kind, payload, due, attempts, lease_owner, token"


def write(db: sqlite3.Connection, ws: str, number: int, op: OutboxPut, token: int = 0) -> None:
    """`number`: greater than that of every row before it."""
    row = (ws, number, op.target, op.group, op.kind, op.payload, op.due_ms, op.attempts, token)
    db.execute(
        "INSERT INTO outbox(ws, id, target, grp, kind, payload, due, attempts, token, state, "
        "lease_owner, lease_until) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9, iif(?4 <> '' AND EXISTS("
        "SELECT 1 FROM outbox WHERE ws=?1 AND target=?3 AND grp=?4), 2, 0), '', 0)",
        row,
    )


def finish(db: sqlite3.Connection, ws: str, op: OutboxDone, index: int) -> None:
    """The row goes, and the next of its group may be claimed."""
    row = _claimed(db, ws, op, index)
    if row is None:
        return
    target, group = row
    db.execute("DELETE FROM outbox WHERE ws=? AND id=?", (ws, op.id))
    if group:
        db.execute(
            "UPDATE outbox SET state=0 WHERE ws=?1 AND state=2 AND id=(SELECT min(id) FROM outbox "
            "WHERE ws=?1 AND target=?2 AND grp=?3)",
            (ws, target, group),
        )


def give_back(db: sqlite3.Connection, ws: str, op: OutboxRetry, index: int) -> None:
    """The row waits again."""
    if _claimed(db, ws, op, index) is not None:
        db.execute(
            "UPDATE outbox SET state=0, due=?, attempts=?, lease_owner='' WHERE ws=? AND id=?",
            (op.due_ms, op.attempts, ws, op.id),
        )


def claim(
    db: sqlite3.Connection, ws: str, owner: str, *, lease_ms: int, limit: int, now_ms: int
) -> list[OutboxRow]:
    """Those whose claim ran out first, then those that are due.  In a transaction of its own."""
    limit = max(0, min(limit, CLAIMED_ROWS))
    db.execute("BEGIN IMMEDIATE")
    try:
        found = _due(db, ws, RAN_OUT, now_ms, limit)
        found += _due(db, ws, WAITS, now_ms, limit - len(found))
        db.executemany(
            "UPDATE outbox SET state=1, lease_owner=?, lease_until=?, token=token+1 "
            "WHERE ws=? AND id=?",
            [(owner, now_ms + lease_ms, ws, number) for _, number in found],
        )
        rows = [_row(db, ws, number) for _, number in sorted(found)]
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return rows


def is_due(db: sqlite3.Connection, ws: str, now_ms: int) -> bool:
    """Is there anything to claim?"""
    return bool(_due(db, ws, WAITS, now_ms, 1) or _due(db, ws, RAN_OUT, now_ms, 1))


def listed(db: sqlite3.Connection, ws: str, after_id: int, limit: int) -> Sequence[OutboxRow]:
    """By number."""
    found = db.execute(
        f"SELECT {COLUMNS} FROM outbox WHERE ws=? AND id>? ORDER BY id LIMIT ?",  # noqa: S608
        (ws, after_id, limit),
    )
    return [OutboxRow(*row) for row in found]


def pending(db: sqlite3.Connection) -> int:
    """In all workspaces."""
    (count,) = db.execute("SELECT count(*) FROM outbox").fetchone()
    return int(count)


def _due(
    db: sqlite3.Connection, ws: str, way: str, now_ms: int, limit: int
) -> list[tuple[int, int]]:
    """(due, number)"""
    return db.execute(
        f"SELECT due, id FROM outbox WHERE ws=? AND {way}",  # noqa: S608
        (ws, now_ms, limit),
    ).fetchall()


def _row(db: sqlite3.Connection, ws: str, number: int) -> OutboxRow:
    row = db.execute(
        f"SELECT {COLUMNS} FROM outbox WHERE ws=? AND id=?",  # noqa: S608
        (ws, number),
    ).fetchone()
    return OutboxRow(*row)


def _claimed(
    db: sqlite3.Connection, ws: str, op: OutboxDone | OutboxRetry, index: int
) -> tuple[str, str] | None:
    """(target, group) of a row that this token may settle."""
    row = db.execute(
        "SELECT target, grp, state, token FROM outbox WHERE ws=? AND id=?", (ws, op.id)
    ).fetchone()
    if op.token == ANY and isinstance(op, OutboxDone):
        return None if row is None else (row[0], row[1])
    if row is None:
        raise StoreConflict(index, "missing")
    if row[2:] != (CLAIMED, op.token):
        raise StoreConflict(index, "fence")
    return row[0], row[1]
