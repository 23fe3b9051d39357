"""Stores of both kinds under the same control API."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.storage.choose import store_of
from tests.control.world import World, running
from tests.kit.fakes import FakeClock
from tests.kit.redis import silent
from tests.kit.store import MemoryStore


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as found:
        yield found


@pytest.fixture(
    params=[
        "memory",
        pytest.param("sqlite", marks=pytest.mark.thorough),
        pytest.param("redis", marks=pytest.mark.redis),
    ]
)
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """The same, on each engine."""
    clock = FakeClock()
    if request.param == "memory":
        async with running(MemoryStore(clock), clock=clock) as found:
            yield found
        return
    said = request.getfixturevalue("redis").url if request.param == "redis" else "sqlite"
    store = store_of(said, tmp_path, clock, silent)
    await store.start()
    try:
        async with running(store, clock=clock) as found:
            yield found
    finally:
        await store.close()
