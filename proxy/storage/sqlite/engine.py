"""The store on SQLite: `model.ports.Store` over one writer and four readers (storage.md §3).

Nothing here touches the database on the event loop: a call is a message to a thread and a future.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from proxy.model.batch import (
    WHOLE_BATCH,
    Batch,
    CommitResult,
    Delete,
    Fence,
    FinishedIdem,
    LogFilter,
    LogPage,
    OutboxRow,
    Put,
    Retention,
    Setback,
    StoreConflict,
    StoredEvent,
)
from proxy.model.events import EVENTS_LOG
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.storage.leases import LeaseTable, LocalLeases
from proxy.storage.sqlite import outbox
from proxy.storage.sqlite import query as ask
from proxy.storage.sqlite.bounds import DEFAULT, Bounds
from proxy.storage.sqlite.files import library_note
from proxy.storage.sqlite.reader import Readers
from proxy.storage.sqlite.retention import trim
from proxy.storage.sqlite.writer import Writer


class SqliteStore:
    """`trouble`: what the operator must know of the database, None when all is well."""

    engine: Final = "sqlite"
    shared: Final = False
    batch_lines: Final = 1000
    restarts: Final = 0
    rollbacks: Final = 0

    def __init__(self, path: Path, clock: Clock, bounds: Bounds = DEFAULT) -> None:
        self._clock = clock
        self._bounds = bounds
        self._readers = Readers(path, clock, bounds)
        self._table = LeaseTable(clock)
        self._writer = Writer(path, clock, self._table, self._readers.oldest_s, bounds)
        self.leases = LocalLeases(self._table, lambda work: self._ask(lambda _: work()))
        self._editions: Counter[tuple[str, str]] = Counter()

    def open(self) -> None:
        """Blocks.  Raises files.CannotOpen."""
        self._writer.start()
        self._readers.start()

    async def start(self) -> None:
        """Raises CannotOpen."""
        await asyncio.to_thread(self.open)

    async def close(self) -> None:
        """Write what was taken, then close cleanly."""
        await asyncio.to_thread(self._readers.stop)
        await asyncio.to_thread(self._writer.stop)

    @property
    def library(self) -> str:
        """For the log at start."""
        return library_note()

    @property
    def trouble(self) -> str | None:
        return self._writer.failure

    def queue_depth(self) -> int:
        """Batches that wait."""
        return self._writer.depth()

    def writable(self) -> bool:
        return self._writer.writable()

    def link(self) -> dict[str, Json] | None:
        """There is no server."""
        return None

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        """Raises StoreConflict, StoreUnavailable; ValueError for what no store could hold.

        A caller that is cancelled does not cancel the batch.
        """
        written = self._writer.submit(workspace_id, batch)
        changed = {(workspace_id, op.kind) for op in batch.ops if isinstance(op, (Put, Delete))}
        if changed:
            written.add_done_callback(lambda _: self._editions.update(changed))
        answer = await asyncio.shield(written)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, CommitResult)
        return answer

    def edition(self, workspace_id: str, kind: str) -> int:
        """Nobody else writes: what was changed here is all that was changed."""
        return self._editions[workspace_id, kind]

    async def get(self, workspace_id: str, kind: str, doc_id: str) -> tuple[int, bytes] | None:
        return await self._readers.ask(
            partial(ask.document, ws=workspace_id, kind=kind, doc_id=doc_id)
        )

    async def revision(self, workspace_id: str, kind: str, doc_id: str) -> int:
        return await self._readers.ask(
            partial(ask.revision, ws=workspace_id, kind=kind, doc_id=doc_id)
        )

    async def scan(self, workspace_id: str, kind: str) -> Sequence[tuple[str, int, bytes]]:
        return await self._readers.ask(partial(ask.documents, ws=workspace_id, kind=kind))

    async def range(self, workspace_id: str, log: str, query: LogFilter) -> LogPage:
        return await self._readers.ask(
            partial(ask.page, ws=workspace_id, log=log, query=query, bounds=self._bounds)
        )

    async def event(self, workspace_id: str, event_id: str) -> StoredEvent | None:
        return await self._readers.ask(
            partial(ask.event, ws=workspace_id, log=EVENTS_LOG, event_id=event_id)
        )

    async def head(self, workspace_id: str, log: str) -> int:
        return await self._readers.ask(partial(ask.head, ws=workspace_id, log=log))

    def setback(self, workspace_id: str, log: str) -> Setback:
        """What was acknowledged is on disk."""
        return Setback()

    def forgot(self) -> None:
        """It does not."""

    async def cursor(self, workspace_id: str, name: str) -> int:
        return await self._readers.ask(partial(ask.cursor, ws=workspace_id, name=name))

    async def idempotency(self, workspace_id: str, key: bytes) -> FinishedIdem | None:
        now_ms = self._clock.now_ms()
        return await self._readers.ask(
            partial(ask.idempotency, ws=workspace_id, key=key, now_ms=now_ms)
        )

    async def rollup(
        self, workspace_id: str, since_minute: int, until_minute: int
    ) -> Sequence[tuple[int, str, int, int]]:
        """(minute, series, counter, n), half-open, by minute."""
        return await self._readers.ask(
            partial(
                ask.rollup,
                ws=workspace_id,
                since_minute=since_minute,
                until_minute=until_minute,
            )
        )

    async def trim(self, retention: Retention) -> bool:
        """One bounded step of forgetting; True when there is more.  Ask once a second."""
        return bool(
            await self._ask(partial(trim, retention=retention, now_ms=self._clock.now_ms()))
        )

    # --- the outbox

    async def claim(
        self,
        workspace_id: str,
        owner: str,
        *,
        lease_ms: int,
        limit: int = 32,
        fence: Fence | None = None,
    ) -> Sequence[OutboxRow]:
        """As `Store.claim`.  The writer is asked only when a reader has seen something."""

        def take(db: sqlite3.Connection) -> list[OutboxRow]:
            if not self._table.holds(fence):
                raise StoreConflict(WHOLE_BATCH, "fence")
            now_ms = self._clock.now_ms()
            return outbox.claim(
                db, workspace_id, owner, lease_ms=lease_ms, limit=limit, now_ms=now_ms
            )

        look = partial(outbox.is_due, ws=workspace_id, now_ms=self._clock.now_ms())
        if self._table.holds(fence) and not await self._readers.ask(look):
            return []
        found = await self._ask(take)
        assert isinstance(found, list)
        return found

    async def outbox(
        self, workspace_id: str, *, after_id: int = 0, limit: int = 100
    ) -> Sequence[OutboxRow]:
        return await self._readers.ask(
            partial(outbox.listed, ws=workspace_id, after_id=after_id, limit=limit)
        )

    async def outbox_pending(self) -> int:
        """Rows of all workspaces."""
        return await self._readers.ask(outbox.pending)

    async def _ask(self, work: Callable[[sqlite3.Connection], object]) -> object:
        """Do it in the writer's thread, between two groups.  Raises what it raises."""
        answer = await asyncio.shield(self._writer.ask(work))
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def open_store(
    path: Path, clock: Clock, bounds: Bounds = DEFAULT
) -> AsyncIterator[SqliteStore]:
    """Raises files.CannotOpen (in use, newer schema, unreadable)."""
    store = SqliteStore(path, clock, bounds)
    await store.start()
    try:
        yield store
    finally:
        await store.close()
