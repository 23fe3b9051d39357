"""One store per engine: every test that asks for `store` runs on each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.storage.sqlite.engine import SqliteStore, open_store
from tests.kit.store import HandClock, MemoryStore

ENGINES = ["sqlite", "memory"]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=ENGINES)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock
) -> AsyncIterator[SqliteStore | MemoryStore]:
    if request.param == "memory":
        yield MemoryStore(clock)
        return
    async with open_store(tmp_path / "parapet.db", clock) as opened:
        yield opened
