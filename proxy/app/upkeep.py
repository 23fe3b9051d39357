"""What the control process does by the clock, whoever asks for something or not."""

import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from proxy.model.batch import Retention, StoreUnavailable
from proxy.model.ports import Clock
from proxy.settings.schema import Retention as Settings

DAY_MS: Final = 86_400_000
TRIM_S: Final = 1.0


class Trimmed(Protocol):
    """A store that forgets, one bounded step at a time."""

    def writable(self) -> bool: ...
    async def trim(self, retention: Retention) -> bool: ...


async def trim(store: Trimmed, clock: Clock, settings: Callable[[], Settings]) -> None:
    """Forget what retention allows, one bounded step per second, for ever."""
    while True:
        await clock.sleep(TRIM_S)
        if store.writable():
            with contextlib.suppress(StoreUnavailable):  # it is told of where it happens
                await store.trim(retention_of(settings()))


def retention_of(said: Settings) -> Retention:
    """The settings of the file as the engines take them."""
    return Retention(
        events_ms=said.events_days * DAY_MS,
        events_bytes=said.events_bytes,
        redis_max_events=said.redis_max_events,
        rollups_ms=said.rollups_days * DAY_MS,
    )
