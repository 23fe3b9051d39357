"""The control API over a store in memory, and over the real one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.storage.sqlite.engine import SqliteStore
from tests.control.world import World, running
from tests.kit.fakes import FakeClock


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as found:
        yield found


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[World]:
    """The control API over the real store."""
    clock = FakeClock()
    store = SqliteStore(tmp_path / "parapet.db", clock)
    await asyncio.to_thread(store.open)
    try:
        async with running(store, clock=clock) as world:
            yield world
    finally:
        await store.close()
