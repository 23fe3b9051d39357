"""Machines that agree over one Redis, in one process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.model.ports import Clock
from proxy.storage.redis.client import new_listening_client
from proxy.storage.redis.coord import RedisCoord
from proxy.storage.redis.engine import RedisStore, open_store
from proxy.storage.redis.server import Tell
from tests.kit.redis import silent

PATIENT_S = 2.0  # a test that is about what is agreed on allows a busy machine its time


@asynccontextmanager
async def machine(
    url: str,
    clock: Clock,
    *,
    hint_s: float = PATIENT_S,
    lease_s: float = 60.0,
    process: str = "",
    tell: Tell = silent,
) -> AsyncIterator[tuple[RedisStore, RedisCoord]]:
    """The store of one machine and what goes with it."""
    async with open_store(url, clock, tell) as store:
        ears = new_listening_client(url)
        coord = RedisCoord(
            store.server, ears, clock, tell, process=process, hint_s=hint_s, lease_s=lease_s
        )
        await coord.start()
        try:
            yield store, coord
        finally:
            await coord.close()
