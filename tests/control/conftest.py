"""Stores of both kinds under the same control API."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.storage.sqlite.engine import SqliteStore
from tests.control.world import World, running
from tests.kit.fakes import FakeClock
from tests.kit.store import MemoryStore


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as found:
        yield found


@pytest.fixture(params=["memory", "sqlite"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """The same, on each engine."""
    clock = FakeClock()
    if request.param == "memory":
        async with running(MemoryStore(clock), clock=clock) as found:
            yield found
        return
    store = SqliteStore(tmp_path / "parapet.db", clock)
    await asyncio.to_thread(store.open)
    try:
        async with running(store, clock=clock) as found:
            yield found
    finally:
        await store.close()
