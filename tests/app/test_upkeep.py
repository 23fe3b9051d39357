"""What is forgotten by the clock (storage.md §6, §11)."""

import asyncio
from pathlib import Path

import pytest

from proxy.app.upkeep import DAY_MS, FORGET_S, TRIM_S, forget_documents, retention_of, trim
from proxy.model.batch import Append, Batch, LogFilter, OutboxPut, Retention
from proxy.runtime.tasks import spawn
from proxy.settings.schema import Retention as Settings
from proxy.storage.documents import document
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.engine import open_store
from proxy.telemetry.exposition import Registry
from tests.kit.fakes import CountingIds, FakeClock
from tests.kit.store import HandClock, MemoryStore


def test_the_settings_of_the_file_are_what_the_engines_keep() -> None:
    assert retention_of(Settings()) == Retention()
    said = Settings(
        events_days=1, rollups_days=2, incidents_days=3, audit_days=4, attempts_days=5, dead_days=6
    )
    kept = retention_of(said)
    assert [
        each // DAY_MS
        for each in (
            kept.events_ms, kept.rollups_ms, kept.incidents_ms, kept.audit_ms, kept.attempts_ms,
            kept.dead_ms,
        )
    ] == [1, 2, 3, 4, 5, 6]  # fmt: skip


async def test_each_workspace_forgets_once_an_hour_by_the_settings_in_force() -> None:
    clock, settings = FakeClock(), [Settings()]
    store, at_ms = MemoryStore(clock), clock.now_ms() - 10 * DAY_MS
    for workspace_id in ("default", "other"):
        put = document("dead_letter", "dl-1", {}, at_ms)
        await store.commit(workspace_id, Batch(f"made-{workspace_id}", (put,)))
    forgetting = forget_documents(
        store, clock, CountingIds(), lambda: settings[0], lambda: ("default", "other")
    )
    task = spawn(forgetting, name="forgetting")
    await asyncio.sleep(0)

    async def hour() -> list[int]:
        clock.advance(FORGET_S)
        for _ in range(10):
            await asyncio.sleep(0)
            clock.advance(TRIM_S)
        return [len(await store.scan(each, "dead_letter")) for each in ("default", "other")]

    assert await hour() == [1, 1]
    settings[0] = Settings(dead_days=9)
    assert await hour() == [0, 0]
    store.can_write = False
    assert await hour() == [0, 0]
    assert not task.done()
    task.cancel()


class Limited(HandClock):
    """Sleeps twice."""

    async def sleep(self, seconds: float) -> None:
        if self.slept_s == 2:
            raise asyncio.CancelledError
        await super().sleep(seconds)


async def test_old_entries_go_and_what_waits_is_counted(tmp_path: Path) -> None:
    clock, metrics = Limited(), Registry("1")
    async with open_store(tmp_path / "p.db", clock, Bounds(segment_entries=1)) as store:
        post = OutboxPut("ops", "", "alert", b"{}", 0)
        for ws in ("a", "b"):
            old = Append("events", b"{}", at_ms=1)
            await store.commit(ws, Batch("cm-1", (old, post)))
        clock.at_ms += 30 * DAY_MS
        await store.commit("a", Batch("cm-2", (Append("events", b"{}", at_ms=1),)))
        with pytest.raises(asyncio.CancelledError):
            await trim(store, clock, metrics, Settings)
        assert (await store.range("b", "events", LogFilter())).total == 0
        assert b"parapet_outbox_pending 2" in metrics.render()
