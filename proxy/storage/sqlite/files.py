"""Opening and closing the database file: one process, a known schema, a file that is whole.

The lock file `<db>.lock` is held by flock for as long as the database is open and says in one line
what became of it: `new <pid>` (first start under way), `open <pid>`, `clean <pid>`.  So a second
process can name the first, a start after a crash is known, and a database that is missing is not
taken for a first start.

A damaged or missing database is moved aside and told in `<db>.damaged`; as long as that file is
there the store is empty and read-only.  The operator restores a backup or accepts the loss, and
removes it.  Nothing here is retried, so there is no crash loop.
"""

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.storage.faults import CannotOpen
from proxy.storage.sqlite.schema import MIGRATIONS, READER_PRAGMAS, WRITER_PRAGMAS

ALWAYS_CHECKED_BYTES = 64 << 20  # a file this small is checked at every start
_WAL_RESET_FIXED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))


class DatabaseInUse(CannotOpen):
    """Another process holds it."""


class SchemaTooNew(CannotOpen):
    """A newer version of the program wrote it."""


@dataclass(slots=True)
class OpenDatabase:
    """The one read-write connection, its lock, and what the operator should know."""

    path: Path
    connection: sqlite3.Connection
    lock_fd: int
    trouble: str | None

    def close(self) -> None:
        """The end of a clean run: everything is in the file, and the lock says so."""
        try:
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self.connection.close()
            _write_lock(self.lock_fd, "clean")
            os.close(self.lock_fd)


def library_note() -> str:
    """The version of the library, and whether it has the bug that forbids a second writer."""
    version = sqlite3.sqlite_version_info
    fixed = any(version[:2] == at[:2] and version >= at for at in _WAL_RESET_FIXED)
    fixed = fixed or version >= _WAL_RESET_FIXED[-1]
    bug = "fixed" if fixed or version < (3, 7, 0) else "present, harmless with one writer"
    return f"SQLite {sqlite3.sqlite_version}, WAL-reset bug {bug}"


def open_database(path: Path, now_ms: int, migrations: Sequence[str] = MIGRATIONS) -> OpenDatabase:
    """Lock, check, migrate.  Raises CannotOpen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        before = _lock(lock_fd)
        trouble = _examine(path, before, now_ms)
        _write_lock(lock_fd, "open" if path.exists() else "new")
        connection = connect(path)
        try:
            migrate(connection, path, migrations)
        except BaseException:
            connection.close()
            raise
        _write_lock(lock_fd, "open")
    except sqlite3.Error as fault:
        os.close(lock_fd)
        raise CannotOpen(f"{path}: {fault}") from fault
    except BaseException:
        os.close(lock_fd)
        raise
    return OpenDatabase(path, connection, lock_fd, trouble)


def connect(path: Path) -> sqlite3.Connection:
    """A read-write connection in autocommit mode; for the writer's thread only."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.close(fd)
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    try:
        connection.executescript(WRITER_PRAGMAS)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for one reader's thread."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, cached_statements=256
    )
    connection.executescript(READER_PRAGMAS)
    return connection


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Bring the schema up to date, one transaction a step, after a backup."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise SchemaTooNew(
            f"{path} has schema {version}, this program knows {len(migrations)}: "
            "use the newer program, or restore the backup that it made"
        )
    if 0 < version < len(migrations):
        backup = path.with_name(f"{path.name}.schema-{version}")
        backup.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(backup),))
    for number in range(version, len(migrations)):
        step = f"BEGIN IMMEDIATE; {migrations[number]}; PRAGMA user_version={number + 1}; COMMIT;"
        try:
            connection.executescript(step)
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _lock(lock_fd: int) -> str:
    """Take the lock; give what the file said before.  Raises DatabaseInUse."""
    said = os.pread(lock_fd, 64, 0).decode("ascii", "replace").split()
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = said[1] if len(said) > 1 else "unknown"
        raise DatabaseInUse(f"database in use by pid {pid}") from None
    return said[0] if said else ""


def _write_lock(lock_fd: int, state: str) -> None:
    line = f"{state} {os.getpid()}\n".encode()
    os.pwrite(lock_fd, line.ljust(24), 0)


def _examine(path: Path, before: str, now_ms: int) -> str | None:
    """What is wrong with the database, in one line; a damaged one is moved aside."""
    note = path.with_name(f"{path.name}.damaged")
    if note.exists():
        return note.read_text("utf-8", "replace").strip() or "database damaged"
    if not path.exists():
        if before not in ("open", "clean"):
            return None
        trouble = f"database missing: {path} was there before"
    else:
        complaint = _complaint(path, before)
        if complaint is None:
            return None
        aside = _move_aside(path, now_ms)
        trouble = f"database damaged ({complaint}), moved to {aside}"
    trouble += f"; restore a backup or accept an empty store, then remove {note}"
    note.write_text(trouble + "\n", "utf-8")
    return trouble


def _complaint(path: Path, before: str) -> str | None:
    if before != "open" and path.stat().st_size > ALWAYS_CHECKED_BYTES:
        return None
    try:
        connection = connect(path)
        try:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError:
        raise  # locked, unreadable, no space: not damage
    except sqlite3.DatabaseError as fault:
        return str(fault)
    return None if said == "ok" else str(said)


def _move_aside(path: Path, now_ms: int) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{now_ms}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside
