"""One store per engine: every test that asks for `store` runs on each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.storage.redis.engine import RedisStore
from proxy.storage.redis.engine import open_store as open_redis
from proxy.storage.sqlite.engine import SqliteStore, open_store
from tests.kit.redis import PATIENT, RedisServer, silent
from tests.kit.store import HandClock, HandNow, MemoryStore

ENGINES = ["sqlite", "memory", pytest.param("redis", marks=pytest.mark.redis)]


@pytest.fixture
def clock() -> HandClock:
    return HandNow()


@pytest.fixture(params=ENGINES)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock
) -> AsyncIterator[SqliteStore | MemoryStore | RedisStore]:
    if request.param == "memory":
        yield MemoryStore(clock)
    elif request.param == "sqlite":
        async with open_store(tmp_path / "parapet.db", clock) as opened:
            yield opened
    else:
        server: RedisServer = request.getfixturevalue("redis")
        async with open_redis(server.url, clock, silent, PATIENT) as there:
            yield there
