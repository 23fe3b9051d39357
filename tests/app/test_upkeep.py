"""Once a second the store forgets what it may, and its outbox is counted."""

import asyncio
from pathlib import Path

import pytest

from proxy.app.upkeep import keep_up
from proxy.model.batch import Append, Batch, LogFilter, OutboxPut
from proxy.settings.load import Loaded
from proxy.settings.schema import Config
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.engine import open_store
from proxy.telemetry.exposition import Registry
from tests.kit.store import HandClock

DAY_MS = 86_400_000


class Limited(HandClock):
    """Sleeps twice."""

    async def sleep(self, seconds: float) -> None:
        if self.slept_s == 2:
            raise asyncio.CancelledError
        await super().sleep(seconds)


async def test_old_entries_go_and_what_waits_is_counted(tmp_path: Path) -> None:
    clock, metrics = Limited(), Registry("1")
    loaded = Loaded(Config.model_validate({}), Path("p.yaml"), (), "")
    async with open_store(tmp_path / "p.db", clock, Bounds(segment_entries=1)) as store:
        post = OutboxPut("ops", "", "alert", b"{}", 0)
        for ws in ("a", "b"):
            old = Append("events", b"{}", at_ms=1)
            await store.commit(ws, Batch("cm-1", (old, post)))
        clock.at_ms += 30 * DAY_MS
        await store.commit("a", Batch("cm-2", (Append("events", b"{}", at_ms=1),)))
        with pytest.raises(asyncio.CancelledError):
            await keep_up(store, clock, metrics, lambda: loaded)
        assert (await store.range("b", "events", LogFilter())).total == 0
        assert b"parapet_outbox_pending 2" in metrics.render()
