"""The tables, the pragmas, and the way from one version of the schema to the next.

`MIGRATIONS[i]` leads from version i to i + 1 (`PRAGMA user_version`); what was released is never
edited.  Tables of events are not here: `segments.py` makes them as they are needed.

A document that was deleted stays as a row without a body until `retention.py` takes it away, so
that its revision is not given twice.
"""

WRITER_PRAGMAS = """
PRAGMA auto_vacuum=INCREMENTAL;
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
PRAGMA busy_timeout=5000;
PRAGMA foreign_keys=ON;
PRAGMA temp_store=MEMORY;
PRAGMA cache_size=-16384;
PRAGMA journal_size_limit=67108864;
PRAGMA wal_autocheckpoint=0;
PRAGMA mmap_size=0;
"""

READER_PRAGMAS = """
PRAGMA query_only=ON;
PRAGMA busy_timeout=5000;
PRAGMA temp_store=MEMORY;
PRAGMA cache_size=-4096;
PRAGMA mmap_size=0;
"""

_V1 = """
CREATE TABLE meta(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE docs(
    ws TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, rev INTEGER NOT NULL, body BLOB,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, PRIMARY KEY(ws, kind, id)
) WITHOUT ROWID;
CREATE INDEX docs_gone ON docs(updated) WHERE body IS NULL;
CREATE TABLE uniq(
    ws TEXT NOT NULL, kind TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL,
    id TEXT NOT NULL, PRIMARY KEY(ws, kind, field, value)
) WITHOUT ROWID;
CREATE INDEX uniq_id ON uniq(ws, kind, id);
CREATE TABLE heads(
    ws TEXT NOT NULL, log TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(ws, log)
) WITHOUT ROWID;
CREATE TABLE segments(
    n INTEGER PRIMARY KEY, log TEXT NOT NULL, day INTEGER NOT NULL, entries INTEGER NOT NULL,
    bytes INTEGER NOT NULL, last_received INTEGER NOT NULL
);
CREATE TABLE spans(
    ws TEXT NOT NULL, log TEXT NOT NULL, n INTEGER NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, min_ts INTEGER NOT NULL, max_ts INTEGER NOT NULL,
    PRIMARY KEY(ws, log, n)
) WITHOUT ROWID;
CREATE TABLE dedupe(
    ws TEXT NOT NULL, h BLOB NOT NULL, seq INTEGER NOT NULL, content BLOB NOT NULL,
    received INTEGER NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY(ws, h)
) WITHOUT ROWID;
CREATE INDEX dedupe_expires ON dedupe(expires);
CREATE TABLE idem(
    ws TEXT NOT NULL, k BLOB NOT NULL, fp BLOB NOT NULL, status INTEGER NOT NULL,
    headers BLOB NOT NULL, body BLOB NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY(ws, k)
) WITHOUT ROWID;
CREATE INDEX idem_expires ON idem(expires);
CREATE TABLE cursors(
    ws TEXT NOT NULL, name TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY(ws, name)
) WITHOUT ROWID;
CREATE TABLE rollup(
    ws TEXT NOT NULL, minute INTEGER NOT NULL, series TEXT NOT NULL, counter INTEGER NOT NULL,
    n INTEGER NOT NULL, PRIMARY KEY(ws, minute, series, counter)
) WITHOUT ROWID;
CREATE INDEX rollup_minute ON rollup(minute);
"""

# state: 0 waits, 1 claimed until `lease_until`, 2 waits for another row of its (target, grp)
_V2 = """
CREATE TABLE outbox(
    ws TEXT NOT NULL, id INTEGER NOT NULL, target TEXT NOT NULL, grp TEXT NOT NULL,
    kind TEXT NOT NULL, payload BLOB NOT NULL, state INTEGER NOT NULL, due INTEGER NOT NULL,
    attempts INTEGER NOT NULL, lease_owner TEXT NOT NULL, lease_until INTEGER NOT NULL,
    token INTEGER NOT NULL, PRIMARY KEY(ws, id)
) WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox(ws, state, due);
CREATE INDEX outbox_claimed ON outbox(ws, lease_until) WHERE state = 1;
CREATE INDEX outbox_group ON outbox(ws, target, grp);
"""

MIGRATIONS: tuple[str, ...] = (_V1, _V2)
