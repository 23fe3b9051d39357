"""The store on Redis: `model.ports.Store` for several machines (storage.md §4).

What several machines write is decided inside the server by one script.  A commit whose answer was
lost is asked again with the same id and told what became of it.  Expiry goes by the clock of the
machine that asks.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, Literal

from proxy.model.batch import (
    Append,
    Batch,
    CommitResult,
    Fence,
    FinishedIdem,
    LogFilter,
    LogPage,
    Op,
    OutboxRow,
    Retention,
    Setback,
    StoreConflict,
    StoredEvent,
    StoreUnavailable,
)
from proxy.model.events import EVENTS_LOG, iso
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.runtime.ids import UlidIds
from proxy.runtime.tasks import spawn
from proxy.storage.chain import GENESIS, follow, links
from proxy.storage.faults import CannotOpen
from proxy.storage.recognition import event_key
from proxy.storage.redis import fitness, outbox
from proxy.storage.redis import query as ask
from proxy.storage.redis.client import SOCKET_S, new_client
from proxy.storage.redis.encode import Call, call_of, member_of, pieces_of, result_of
from proxy.storage.redis.keys import WORKSPACES, Keys
from proxy.storage.redis.leases import RedisLeases
from proxy.storage.redis.marks import Marks
from proxy.storage.redis.remembered import Remembered
from proxy.storage.redis.retention import Trimmer
from proxy.storage.redis.server import ANSWER_S, Server, Tell

TRIES: Final = 16  # of a commit to a chain that others lengthen as well
_REASONS: Final[
    dict[str, Literal["revision", "exists", "missing", "unique", "fence", "idem", "cursor"]]
] = {
    "revision": "revision",
    "exists": "exists",
    "missing": "missing",
    "unique": "unique",
    "fence": "fence",
    "idem": "idem",
    "cursor": "cursor",
}


class _HeadMoved(Exception):
    """A chain is longer than its writer knew; nothing was applied."""


class RedisStore:
    """`trouble`: what the operator must know of the server, None when all is well.  `restarts`:
    how often another server, or the same one anew, may have forgotten its last commits;
    `rollbacks`: how often it had."""

    engine: Final = "redis"
    shared: Final = True
    batch_lines: Final = 100  # a script of a thousand would hold the server for too long

    def __init__(
        self,
        url: str,
        clock: Clock,
        tell: Tell,
        bounds: ask.Bounds = ask.Bounds(),  # noqa: B008
        patience: float = 1.0,
    ) -> None:
        self._clock = clock
        self._tell = tell
        self._bounds = bounds
        socket_s = SOCKET_S * patience
        client = new_client(url, socket_s=socket_s, connect_s=socket_s)
        self._server = Server(client, clock, tell, ANSWER_S * patience)
        self._trimmer = Trimmer(self._server)
        self._ids = UlidIds()
        self.leases = RedisLeases(self._server)
        self._remembered = Remembered(clock)
        self._known: set[str] = set()  # workspaces that retention was told of
        self._run_id = ""
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None
        self.trouble: str | None = None
        self.restarts = 0
        self.rollbacks = 0
        self._marks = Marks()
        self._forgot = False
        self._rolled_back_ms: int | None = None
        self._rolled_back_run = ""

    def __repr__(self) -> str:
        return f"<RedisStore {self._server!r}>"

    @property
    def server(self) -> Server:
        """For what machines agree on beside the store (`coord.py`)."""
        return self._server

    async def start(self) -> None:
        """Raises CannotOpen for a server that would forget.  One that is away is waited for."""
        await asyncio.to_thread(self._server.load_scripts)
        if await self._server.probe():
            await self._look()
            if self.trouble is not None:
                await self._server.close()
                raise CannotOpen(self.trouble)
        self._keeper = spawn(self._server.keep_probing(self._look), name="redis")

    async def close(self) -> None:
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._server.close()

    def writable(self) -> bool:
        """Also false while the server is away."""
        server = self._server
        answers = not server.breaker.open and server.write_trouble is None
        return answers and self.trouble is None and not self._closed

    def queue_depth(self) -> int:
        """Questions under way."""
        return self._server.under_way

    def link(self) -> dict[str, Json]:
        """For /v1/status."""
        since = self._server.breaker.open_since_s
        away_s = None if since is None else round(self._clock.monotonic() - since, 1)
        trouble = self.trouble or self._server.write_trouble
        at_ms = self._rolled_back_ms
        return {
            "up": since is None,
            "away_seconds": away_s,
            "trouble": trouble,
            "rollbacks": self.rollbacks,
            "last_rollback_at": None if at_ms is None else iso(at_ms),
        }

    def forgot(self) -> None:
        """Somebody found out that a commit is gone: looked into within a second."""
        self._forgot = True

    def setback(self, workspace_id: str, log: str) -> Setback:
        return self._marks.setback(workspace_id, log)

    # --- writing

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        """Raises StoreConflict, StoreUnavailable; ValueError for what no store could hold.

        A caller that is cancelled does not cancel the batch.
        """
        if not batch.ops and batch.fence is None:
            return CommitResult()
        answer: asyncio.Future[CommitResult | Exception] = asyncio.Future()

        async def settle() -> None:
            try:
                told: CommitResult | Exception = await self._commit(workspace_id, batch)
            except (StoreConflict, StoreUnavailable, ValueError) as refused:
                told = refused
            if not answer.done():
                answer.set_result(told)

        working = spawn(settle(), name="commit")
        await asyncio.shield(working)
        told = answer.result()
        if isinstance(told, Exception):
            raise told
        return told

    async def claim(
        self,
        workspace_id: str,
        owner: str,
        *,
        lease_ms: int,
        limit: int = 32,
        fence: Fence | None = None,
    ) -> Sequence[OutboxRow]:
        """As `Store.claim`."""
        self._refuse_if_unfit()
        return await outbox.claim(
            self._server,
            Keys(workspace_id),
            self._ids.new("claim-"),
            owner,
            lease_ms=lease_ms,
            limit=limit,
            fence=fence,
            now_ms=self._clock.now_ms(),
        )

    def _refuse_if_unfit(self) -> None:
        if self._closed:
            raise StoreUnavailable("storage-unavailable", "the store is closed")
        if self.trouble is not None:
            raise StoreUnavailable("storage-unavailable", self.trouble)

    async def _commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        self._refuse_if_unfit()
        if workspace_id not in self._known:
            await self._server.call("SADD", WORKSPACES, workspace_id)
            self._known.add(workspace_id)
        keys = Keys(workspace_id)
        before = self._marks.known(workspace_id, batch)
        for _ in range(TRIES):
            try:
                result = await self._run(keys, batch)
            except _HeadMoved:
                batch = replace(batch, ops=await self._chained(keys, batch.ops))
            else:
                self._remembered.committed(workspace_id, batch, result)
                self._marks.committed(workspace_id, batch, result.appended, before)
                return result
        raise StoreUnavailable("storage-unavailable", "others write the same log without a pause")

    async def _run(self, keys: Keys, batch: Batch) -> CommitResult:
        now_ms = self._clock.now_ms()
        pieces = pieces_of(batch)
        told: list[tuple[Call, bytes]] = []
        for number, piece in enumerate(pieces, start=1):
            whole = number == len(pieces)
            commit_id = batch.commit_id if whole else f"{batch.commit_id}/{number}"
            call = call_of(keys, commit_id, piece, now_ms, whole=whole, fence=batch.fence)
            answer = await self._server.run("commit", call.keys, call.arguments)
            if answer[0] == b"+":
                told.append((call, answer[1]))
                continue
            index, reason = int(answer[1]), answer[2].decode()
            if reason == "head":
                raise _HeadMoved
            if reason == "count":
                raise ValueError("this batch cannot be stored: a sum beyond 62 bits")
            raise StoreConflict(index, _REASONS[reason])
        return result_of(batch, told)

    async def _chained(self, keys: Keys, ops: Sequence[Op]) -> tuple[Op, ...]:
        """The same operations, rows of chains after the rows that are there now."""
        ends: dict[str, tuple[int, str]] = {}
        made: list[Op] = []
        for op in ops:
            if isinstance(op, Append) and op.chained:
                if op.log not in ends:
                    ends[op.log] = await self._end(keys, op.log)
                seq, head = ends[op.log]
                op = replace(op, body=follow(op.body, seq, head))
                ends[op.log] = seq + 1, links(op.body)[2]
            made.append(op)
        return tuple(made)

    async def _end(self, keys: Keys, log: str) -> tuple[int, str]:
        seq, tip = await self._server.call("MGET", keys.seq(log), keys.tip(log))
        return int(seq or 0), tip.decode() if tip else GENESIS

    # --- reading

    async def get(self, workspace_id: str, kind: str, doc_id: str) -> tuple[int, bytes] | None:
        async def there() -> tuple[int, bytes] | None:
            value = await self._hget(Keys(workspace_id).documents(kind), doc_id.encode())
            return None if value is None else ask.document_of(value)

        return await self._remembered.get(workspace_id, kind, doc_id, there)

    async def revision(self, workspace_id: str, kind: str, doc_id: str) -> int:
        keys = Keys(workspace_id)
        value, gone = await self._server.together(
            ("HGET", keys.documents(kind), doc_id), ("HGET", keys.gone(), member_of(kind, doc_id))
        )
        return ask.document_of(value)[0] if value is not None else int(gone or 0)

    async def scan(self, workspace_id: str, kind: str) -> Sequence[tuple[str, int, bytes]]:
        keys = Keys(workspace_id)
        return await self._remembered.scan(
            workspace_id, kind, lambda: ask.documents(self._server, keys, kind)
        )

    def edition(self, workspace_id: str, kind: str) -> None:
        """Other machines write, too."""

    async def range(self, workspace_id: str, log: str, query: LogFilter) -> LogPage:
        return await ask.page(self._server, Keys(workspace_id), log, query, self._bounds)

    async def event(self, workspace_id: str, event_id: str) -> StoredEvent | None:
        keys = Keys(workspace_id)
        seq = await self._hget(keys.by_id(EVENTS_LOG), event_key(EVENTS_LOG, event_id))
        if seq is None:
            return None
        at = f"{seq.decode()}-0"
        found = await self._server.call("XRANGE", keys.log(EVENTS_LOG), at, at)
        return StoredEvent(int(seq), found[0][1][ask.BODY]) if found else None

    async def head(self, workspace_id: str, log: str) -> int:
        name = Keys(workspace_id).seq(log)
        head = int(await self._server.call("GET", name) or 0)
        self._marks.saw(workspace_id, log, head)
        return head

    async def cursor(self, workspace_id: str, name: str) -> int:
        return int(await self._hget(Keys(workspace_id).cursors(), name.encode()) or 0)

    async def idempotency(self, workspace_id: str, key: bytes) -> FinishedIdem | None:
        name = Keys(workspace_id).idempotency(key)
        found = await self._server.call("HMGET", name, "x", "f", "s", "h", "b")
        expires, fingerprint, status, headers, body = found
        if expires is None or int(expires) <= self._clock.now_ms():
            return None
        return FinishedIdem(fingerprint, int(status), headers, body)

    async def rollup(
        self, workspace_id: str, since_minute: int, until_minute: int
    ) -> Sequence[tuple[int, str, int, int]]:
        """(minute, series, counter, n), half-open, by minute."""
        return await ask.rollup(self._server, Keys(workspace_id), since_minute, until_minute)

    async def outbox(
        self, workspace_id: str, *, after_id: int = 0, limit: int = 100
    ) -> Sequence[OutboxRow]:
        return await outbox.listed(self._server, Keys(workspace_id), after_id, limit)

    async def outbox_pending(self) -> int:
        """Rows of all workspaces."""
        return await outbox.pending(self._server)

    async def trim(self, retention: Retention) -> bool:
        """One bounded step of forgetting; True when there is more.  Ask once a second."""
        return await self._trimmer.step(retention, self._clock.now_ms(), self._known)

    # --- inside

    async def _hget(self, name: bytes, field: bytes) -> bytes | None:
        found: bytes | None = await self._server.call("HGET", name, field)
        return found

    async def _look(self) -> None:
        """Is it the server that we know, and would it keep what it acknowledges?"""
        try:
            run_id = await fitness.run_id_of(self._server)
            if run_id != self._run_id:
                self.trouble = await fitness.trouble_of(self._server, self._tell)
            if run_id != self._run_id and self._run_id:
                await self._compare()
            self._marks.suspects.clear()
        except StoreUnavailable:
            return
        if run_id != self._run_id and self._run_id:
            self.restarts += 1
            self._tell("redis.restarted", {"detail": "another server, or the same one anew"})
        self._run_id = run_id
        if self._forgot and run_id != self._rolled_back_run:
            self.rollbacks += 1
            self._rolled_back_ms, self._rolled_back_run = self._clock.now_ms(), run_id
            detail = "Redis has forgotten its last commits: kept spools are read again"
            self._tell("store.rolled_back", {"detail": detail})
        self._forgot = False

    async def _compare(self) -> None:
        """Do the logs still end where they did?  Raises StoreUnavailable."""
        for (workspace_id, log), known in self._marks.ends().items():
            end = int(await self._server.call("GET", Keys(workspace_id).seq(log)) or 0)
            whole_to = min(end, self._marks.suspects.get((workspace_id, log), end))
            if whole_to < known:
                self._marks.lost((workspace_id, log), whole_to, end)
                self._forgot = True


@asynccontextmanager
async def open_store(
    url: str, clock: Clock, tell: Tell, patience: float = 1.0
) -> AsyncIterator[RedisStore]:
    """`patience` times the usual time for answers.  Raises CannotOpen, ValueError (a bad URL)."""
    store = RedisStore(url, clock, tell, patience=patience)
    await store.start()
    try:
        yield store
    finally:
        await store.close()
