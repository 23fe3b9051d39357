"""What the control process does by the clock, whoever asks for something or not."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from proxy.control.key_uses import KeyUses
from proxy.model.batch import Retention, StoreUnavailable
from proxy.model.ports import Clock, Ids, Store
from proxy.runtime.tasks import background
from proxy.settings.schema import Ingest
from proxy.settings.schema import Retention as Settings
from proxy.storage.aging import forget
from proxy.telemetry.exposition import Registry

DAY_MS: Final = 86_400_000
TRIM_S: Final = 1.0
FORGET_S: Final = 3600.0
REDIS_DEDUPE_DAYS: Final = 2


class Kept(Store, Protocol):
    """A store that forgets by itself, one bounded step at a time."""

    async def trim(self, retention: Retention) -> bool: ...
    async def outbox_pending(self) -> int: ...


def begin(
    store: Kept,
    clock: Clock,
    ids: Ids,
    metrics: Registry,
    key_uses: KeyUses,
    settings: Callable[[], Settings],
    workspaces: Callable[[], Iterable[str]],
) -> None:
    """Begin all of it, for as long as the process lives."""
    forgetting = forget_documents(store, clock, ids, settings, workspaces)
    background(trim(store, clock, metrics, settings), name="retention")
    background(forgetting, name="retention of documents")
    background(key_uses.run(store, clock, ids), name="key uses")


async def trim(
    store: Kept, clock: Clock, metrics: Registry, settings: Callable[[], Settings]
) -> None:
    """Forget of logs and rollups what retention allows, one bounded step per second, for ever; and
    count what waits to be sent."""
    while True:
        await clock.sleep(TRIM_S)
        if store.writable():
            with contextlib.suppress(StoreUnavailable):  # it is told of where it happens
                await store.trim(retention_of(settings()))
                metrics.set("outbox_pending", (), await store.outbox_pending())


async def forget_documents(
    store: Store,
    clock: Clock,
    ids: Ids,
    settings: Callable[[], Settings],
    workspaces: Callable[[], Iterable[str]],
) -> None:
    """Forget the documents that retention does not keep, once an hour, for ever.

    At most `aging.STEP` in a commit, and one commit a second."""

    async def pause() -> None:
        await clock.sleep(TRIM_S)

    while True:
        await clock.sleep(FORGET_S)
        for workspace_id in list(workspaces()):
            with contextlib.suppress(StoreUnavailable):  # it is told of where it happens
                kept, now_ms = retention_of(settings()), clock.now_ms()
                await forget(store, workspace_id, kept, now_ms, ids, pause)


def retention_of(said: Settings) -> Retention:
    """The settings of the file as the engines take them."""
    return Retention(
        events_ms=said.events_days * DAY_MS,
        events_bytes=said.events_bytes,
        redis_max_events=said.redis_max_events,
        rollups_ms=said.rollups_days * DAY_MS,
        audit_ms=said.audit_days * DAY_MS,
        attempts_ms=said.attempts_days * DAY_MS,
        dead_ms=said.dead_days * DAY_MS,
        incidents_ms=said.incidents_days * DAY_MS,
    )


def ingest_of(engine: str, said: Ingest) -> Ingest:
    """In Redis what is remembered is held in memory: for fewer days, unless the file says."""
    if engine != "redis" or said.dedupe_days is not None:
        return said
    return said.model_copy(update={"dedupe_days": REDIS_DEDUPE_DAYS})
