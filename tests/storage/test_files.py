"""Opening the database: T-ST-06, T-ST-07, T-ST-10, R12, R13."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from proxy.model.batch import Batch, OutboxPut, Put, StoreUnavailable
from proxy.storage.sqlite.engine import open_store
from proxy.storage.sqlite.files import (
    CannotOpen,
    DatabaseInUse,
    SchemaTooNew,
    library_note,
    open_database,
)
from proxy.storage.sqlite.schema import MIGRATIONS
from tests.kit.store import HandClock

WS = "workspace-123"
CLOCK = HandClock()


async def filled(path: Path, documents: int = 1) -> None:
    async with open_store(path, CLOCK) as store:
        for n in range(documents):
            await store.commit(WS, Batch("cm", (Put("doc", f"d{n}", os.urandom(2000)),)))


async def test_t_st_07_a_second_opener_is_told_who_has_it(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", CLOCK) as first:
        with pytest.raises(DatabaseInUse, match=f"database in use by pid {os.getpid()}"):
            async with open_store(tmp_path / "p.db", CLOCK):
                raise AssertionError("opened twice")
        await first.commit(WS, Batch("cm", (Put("doc", "a", b"1"),)))
    await filled(tmp_path / "p.db")


async def test_t_st_10_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    await filled(tmp_path / "p.db")
    db = sqlite3.connect(tmp_path / "p.db")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(SchemaTooNew, match="schema 99"):
        async with open_store(tmp_path / "p.db", CLOCK):
            raise AssertionError("opened")
    db = sqlite3.connect(tmp_path / "p.db")
    db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
    db.close()
    async with open_store(tmp_path / "p.db", CLOCK) as store:
        assert await store.get(WS, "doc", "d0") is not None


def test_t_st_10_a_migration_keeps_a_backup_and_the_data(tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path / "p.db"))
    more = (*MIGRATIONS, "CREATE TABLE extra(a); INSERT INTO meta VALUES('seen', 1)")
    opened = open_database(tmp_path / "p.db", 0, more)
    assert opened.connection.execute("SELECT count(*) FROM docs").fetchone() == (1,)
    assert opened.connection.execute("PRAGMA user_version").fetchone() == (len(more),)
    opened.close()
    backup = sqlite3.connect(tmp_path / f"p.db.schema-{len(MIGRATIONS)}")
    assert backup.execute("SELECT count(*) FROM docs").fetchone() == (1,)
    backup.close()


def of_the_first_schema(path: Path) -> None:
    opened = open_database(path, 0, MIGRATIONS[:1])
    opened.connection.execute("INSERT INTO docs VALUES(?,'doc','a',7,X'6B',0,0)", (WS,))
    opened.close()


async def test_t_st_10_a_database_without_an_outbox_gets_one(tmp_path: Path) -> None:
    await asyncio.to_thread(of_the_first_schema, tmp_path / "p.db")
    async with open_store(tmp_path / "p.db", CLOCK) as store:
        assert await store.get(WS, "doc", "a") == (7, b"k")
        post = OutboxPut("ops", "g", "alert", b"{}", 0)
        done = await store.commit(WS, Batch("cm", (post, Put("doc", "a", b"", expect=7))))
        assert (done.outbox, done.revisions) == ([1], {("doc", "a"): 8})
        assert len(await store.claim(WS, "n", lease_ms=1000)) == 1
    assert (tmp_path / "p.db.schema-1").exists()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    asyncio.run(filled(tmp_path / "p.db"))
    with pytest.raises(CannotOpen):
        open_database(tmp_path / "p.db", 0, (*MIGRATIONS, "CREATE TABLE extra(a); NONSENSE"))
    db = sqlite3.connect(tmp_path / "p.db")
    assert db.execute("SELECT count(*) FROM docs").fetchone() == (1,)
    assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    db.close()


def flip(path: Path) -> None:
    """Damage every page but the first."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for offset in range(4096, size, 4096):
            file.seek(offset)
            file.write(os.urandom(64))


DAMAGES = {
    "flipped bytes": flip,
    "not a database": lambda path: path.write_bytes(b"hello, this is not a database" * 500),
    "cut short": lambda path: os.truncate(path, 5000),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_r12_a_damaged_database_is_moved_aside_and_the_store_is_read_only(
    tmp_path: Path, damage: object
) -> None:
    path = tmp_path / "p.db"
    await filled(path, 30)
    assert callable(damage)
    damage(path)
    for _ in range(2):  # and it stays so after a restart
        async with open_store(path, CLOCK) as store:
            assert not store.writable()
            assert store.trouble is not None
            assert "restore a backup" in store.trouble
            assert await store.get(WS, "doc", "d0") is None
            with pytest.raises(StoreUnavailable) as caught:
                await store.commit(WS, Batch("cm", (Put("doc", "x", b""),)))
            assert caught.value.code == "storage-unavailable"
    (tmp_path / "p.db.damaged").unlink()
    async with open_store(path, CLOCK) as store:
        assert store.writable()
        await store.commit(WS, Batch("cm", (Put("doc", "x", b""),)))


async def test_a_restored_backup_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    await filled(path, 30)
    backup = path.read_bytes()
    flip(path)
    async with open_store(path, CLOCK):
        pass
    path.write_bytes(backup)
    (tmp_path / "p.db.damaged").unlink()
    async with open_store(path, CLOCK) as store:
        assert len(await store.scan(WS, "doc")) == 30


async def test_a_first_start_that_was_killed_is_a_first_start_again(tmp_path: Path) -> None:
    (tmp_path / "p.db.lock").write_text("new 12345\n")
    await filled(tmp_path / "p.db")


async def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.db").mkdir()
    with pytest.raises((CannotOpen, OSError)):
        async with open_store(tmp_path / "p.db", CLOCK):
            raise AssertionError("opened")


async def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    async with open_store(tmp_path / "p.db", CLOCK) as store:
        await store.commit(WS, Batch("cm", (Put("doc", "x", b""),)))
        modes = {name: os.stat(tmp_path / name).st_mode & 0o077 for name in os.listdir(tmp_path)}
    assert set(modes.values()) == {0}, modes


def test_the_library_is_named() -> None:
    assert library_note().startswith(f"SQLite {sqlite3.sqlite_version}")
