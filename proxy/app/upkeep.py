"""What the store needs once a second: to forget what retention allows, and to be counted."""

import contextlib
from collections.abc import Callable
from typing import Final

from proxy.model.batch import Retention, StoreUnavailable
from proxy.model.ports import Clock
from proxy.settings.load import Loaded
from proxy.storage.choose import Engine
from proxy.telemetry.exposition import Registry

DAY_MS: Final = 86_400_000
STEP_S: Final = 1.0


async def keep_up(
    store: Engine, clock: Clock, metrics: Registry, loaded: Callable[[], Loaded]
) -> None:
    """For ever, one bounded step per second."""
    while True:
        await clock.sleep(STEP_S)
        if not store.writable():
            continue
        said = loaded().config.retention
        retention = Retention(
            events_ms=said.events_days * DAY_MS,
            events_bytes=said.events_bytes,
            redis_max_events=said.redis_max_events,
            rollups_ms=said.rollups_days * DAY_MS,
        )
        with contextlib.suppress(StoreUnavailable):  # it is told of where it happens
            await store.trim(retention)
            metrics.set("outbox_pending", (), await store.outbox_pending())
