"""Stores for tests: the model that every engine must agree with, and one that fails on purpose."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from proxy.model.batch import (
    ABSENT,
    ANY,
    CLAIMED_ROWS,
    WHOLE_BATCH,
    Append,
    Appended,
    Batch,
    CommitResult,
    Count,
    Cursor,
    Delete,
    Fence,
    FinishedIdem,
    Idem,
    LogFilter,
    LogPage,
    Op,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    OutboxRow,
    Put,
    Setback,
    StoreConflict,
    StoredEvent,
    StoreUnavailable,
)
from proxy.model.events import NewEvent
from proxy.model.ports import Clock, Store
from proxy.storage.leases import LeaseTable, LocalLeases
from proxy.wire import jsonbody


class HandClock:
    """`Clock` that stands still; `sleep` moves it.  The time is 2024-03-15T14:30:00Z at first."""

    def __init__(self, at_ms: int = 1_710_513_000_000) -> None:
        self.at_ms = at_ms
        self.slept_s = 0.0

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        self.at_ms += int(seconds * 1000)


class HandNow(HandClock):
    """Its time of day is in the hands of the test; it waits as long as the machine does."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class _Doc:
    revision: int
    body: bytes | None
    unique: tuple[tuple[str, str], ...] = ()


@dataclass
class _Room:
    """All that one workspace has."""

    docs: dict[tuple[str, str], _Doc] = field(default_factory=dict)
    logs: dict[str, list[Append]] = field(default_factory=dict)
    known: dict[tuple[str, str], tuple[int, bytes, int, int]] = field(default_factory=dict)
    idem: dict[bytes, tuple[FinishedIdem, int]] = field(default_factory=dict)
    cursors: dict[str, int] = field(default_factory=dict)
    rollup: dict[tuple[int, str, int], int] = field(default_factory=dict)
    outbox: dict[int, tuple[OutboxRow, int]] = field(default_factory=dict)  # row, end of its claim
    posted: int = 0

    def copy(self) -> "_Room":
        return _Room(
            {key: _Doc(doc.revision, doc.body, doc.unique) for key, doc in self.docs.items()},
            {log: list(entries) for log, entries in self.logs.items()},
            dict(self.known),
            dict(self.idem),
            dict(self.cursors),
            dict(self.rollup),
            dict(self.outbox),
            self.posted,
        )


class MemoryStore:
    """The `Store` port in dictionaries: slow, small, obviously right."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rooms: dict[str, _Room] = {}
        self._editions: Counter[tuple[str, str]] = Counter()
        self.can_write = True
        self.lost: dict[tuple[str, str], Setback] = {}
        self.forget_leases()

    def forget_leases(self) -> None:
        """As a process does that ends."""
        self._table = LeaseTable(self._clock)
        self.leases = LocalLeases(self._table, self._at_once)

    def writable(self) -> bool:
        return self.can_write

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        if not self.can_write:
            raise StoreUnavailable("storage-unavailable", "read-only")
        self._check(batch.fence)
        room = self._rooms.get(workspace_id, _Room()).copy()
        result = CommitResult()
        for index, op in enumerate(batch.ops):
            match op:
                case Put() | Delete():
                    self._document(room, op, index, result)
                case Append():
                    result.appended.append(self._append(room, op))
                case Idem():
                    self._idem(room, op, index)
                case Cursor():
                    if room.cursors.get(op.name, 0) != op.old:
                        raise StoreConflict(index, "cursor")
                    room.cursors[op.name] = op.new
                case Count():
                    for counter, n in op.counters.items():
                        key = (op.minute, op.series, counter)
                        room.rollup[key] = room.rollup.get(key, 0) + n
                case OutboxPut() | OutboxDone() | OutboxRetry():
                    self._outbox(room, op, index, result)
        self._rooms[workspace_id] = room
        changed = {(workspace_id, op.kind) for op in batch.ops if isinstance(op, (Put, Delete))}
        self._editions.update(changed)
        return result

    def edition(self, workspace_id: str, kind: str) -> int:
        return self._editions[workspace_id, kind]

    async def get(self, workspace_id: str, kind: str, doc_id: str) -> tuple[int, bytes] | None:
        doc = self._room(workspace_id).docs.get((kind, doc_id))
        return (doc.revision, doc.body) if doc is not None and doc.body is not None else None

    async def revision(self, workspace_id: str, kind: str, doc_id: str) -> int:
        doc = self._room(workspace_id).docs.get((kind, doc_id))
        return doc.revision if doc is not None else 0

    async def scan(self, workspace_id: str, kind: str) -> Sequence[tuple[str, int, bytes]]:
        docs = self._room(workspace_id).docs
        return [
            (key[1], doc.revision, doc.body)
            for key, doc in sorted(docs.items())
            if key[0] == kind and doc.body is not None
        ]

    async def range(self, workspace_id: str, log: str, query: LogFilter) -> LogPage:
        entries = list(enumerate(self._room(workspace_id).logs.get(log, []), start=1))
        if query.newest_first:
            entries.reverse()
        found = [
            StoredEvent(seq, entry.body)
            for seq, entry in entries
            if (query.after_seq is None or seq > query.after_seq)
            and (query.before_seq is None or seq < query.before_seq)
            and _fits(entry, query)
        ]
        page = found[query.offset : query.offset + query.limit]
        more = bool(page) and len(found) > query.offset + len(page)
        return LogPage(page, len(found), page[-1].seq if more else None)

    async def event(self, workspace_id: str, event_id: str) -> StoredEvent | None:
        entries = self._room(workspace_id).logs.get("events", [])
        for seq in range(len(entries), 0, -1):
            if entries[seq - 1].event_id == event_id:
                return StoredEvent(seq, entries[seq - 1].body)
        return None

    async def head(self, workspace_id: str, log: str) -> int:
        return len(self._room(workspace_id).logs.get(log, []))

    def setback(self, workspace_id: str, log: str) -> Setback:
        return self.lost.get((workspace_id, log), Setback())

    async def cursor(self, workspace_id: str, name: str) -> int:
        return self._room(workspace_id).cursors.get(name, 0)

    async def idempotency(self, workspace_id: str, key: bytes) -> FinishedIdem | None:
        found, expires = self._room(workspace_id).idem.get(key, (None, 0))
        return found if expires > self._clock.now_ms() else None

    async def rollup(
        self, workspace_id: str, since_minute: int, until_minute: int
    ) -> Sequence[tuple[int, str, int, int]]:
        return [
            (*key, n)
            for key, n in sorted(self._room(workspace_id).rollup.items())
            if since_minute <= key[0] < until_minute
        ]

    async def claim(
        self,
        workspace_id: str,
        owner: str,
        *,
        lease_ms: int,
        limit: int = 32,
        fence: Fence | None = None,
    ) -> Sequence[OutboxRow]:
        self._check(fence)
        room, now_ms = self._room(workspace_id), self._clock.now_ms()
        ran_out, waiting, groups = [], [], set()
        for number, (row, until_ms) in sorted(room.outbox.items()):
            behind = (row.target, row.group) in groups
            groups |= {(row.target, row.group)} if row.group else set()
            if row.owner and until_ms <= now_ms:
                ran_out.append((until_ms, number))
            elif not row.owner and not behind and row.due_ms <= now_ms:
                waiting.append((row.due_ms, number))
        taken = [number for _, number in (sorted(ran_out) + sorted(waiting))]
        rows = []
        for number in taken[: max(0, min(limit, CLAIMED_ROWS))]:
            row = room.outbox[number][0]
            row = replace(row, owner=owner, token=row.token + 1)
            room.outbox[number] = row, now_ms + lease_ms
            rows.append(row)
        return sorted(rows, key=lambda row: (row.due_ms, row.id))

    async def outbox(
        self, workspace_id: str, *, after_id: int = 0, limit: int = 100
    ) -> Sequence[OutboxRow]:
        rows = sorted(self._room(workspace_id).outbox.items())
        return [row for number, (row, _) in rows if number > after_id][:limit]

    async def outbox_pending(self) -> int:
        return sum(len(room.outbox) for room in self._rooms.values())

    async def _at_once(self, work: Callable[[], object]) -> object:
        return work()

    def _check(self, fence: Fence | None) -> None:
        if not self._table.holds(fence):
            raise StoreConflict(WHOLE_BATCH, "fence")

    def _outbox(
        self,
        room: _Room,
        op: OutboxPut | OutboxDone | OutboxRetry,
        index: int,
        result: CommitResult,
    ) -> None:
        if isinstance(op, OutboxPut):
            room.posted += 1
            row = OutboxRow(
                room.posted, op.target, op.group, op.kind, op.payload, op.due_ms, op.attempts
            )
            room.outbox[row.id] = row, 0
            result.outbox.append(row.id)
            return
        if isinstance(op, OutboxDone) and op.token == ANY:
            room.outbox.pop(op.id, None)
            return
        if op.id not in room.outbox:
            raise StoreConflict(index, "missing")
        row = room.outbox.pop(op.id)[0]
        if not row.owner or row.token != op.token:
            raise StoreConflict(index, "fence")
        if isinstance(op, OutboxRetry):
            row = replace(row, due_ms=op.due_ms, attempts=op.attempts, owner="")
            room.outbox[op.id] = row, 0

    def _room(self, workspace_id: str) -> _Room:
        return self._rooms.get(workspace_id, _Room())

    def _document(self, room: _Room, op: Put | Delete, index: int, result: CommitResult) -> None:
        doc = room.docs.get((op.kind, op.id), _Doc(0, None))
        there = doc.body is not None
        if op.expect == ABSENT and there:
            raise StoreConflict(index, "exists")
        if op.expect >= 0 and not there:
            raise StoreConflict(index, "missing")
        if op.expect >= 0 and doc.revision != op.expect:
            raise StoreConflict(index, "revision")
        if isinstance(op, Delete):
            if not there and op.expect == ANY:
                return
            if not there:
                raise StoreConflict(index, "missing")
            room.docs[op.kind, op.id] = _Doc(doc.revision + 1, None)
            return
        others = (d for key, d in room.docs.items() if key[0] == op.kind and key[1] != op.id)
        held = {pair for other in others for pair in other.unique}
        if held & set(op.unique) or len(set(op.unique)) != len(op.unique):
            raise StoreConflict(index, "unique")
        room.docs[op.kind, op.id] = _Doc(doc.revision + 1, op.body, op.unique)
        result.revisions[op.kind, op.id] = doc.revision + 1

    def _append(self, room: _Room, op: Append) -> Appended:
        now_ms = self._clock.now_ms()
        entries = room.logs.setdefault(op.log, [])
        received_ms = op.received_ms or now_ms
        if op.event_id and op.dedupe_ttl_s > 0:
            known = room.known.get((op.log, op.event_id))
            if known is not None and known[3] > now_ms:
                same = known[1] == op.content_hash
                return Appended(known[0], "duplicate" if same else "conflict", known[2])
            expires = now_ms + op.dedupe_ttl_s * 1000
            seen = (len(entries) + 1, op.content_hash, received_ms, expires)
            room.known[op.log, op.event_id] = seen
        entries.append(op)
        return Appended(len(entries), "accepted", received_ms)

    def _idem(self, room: _Room, op: Idem, index: int) -> None:
        now_ms = self._clock.now_ms()
        _, expires = room.idem.get(op.key, (None, 0))
        if expires > now_ms:
            raise StoreConflict(index, "idem")
        finished = FinishedIdem(op.fingerprint, op.status, op.headers, op.body)
        room.idem[op.key] = (finished, now_ms + op.ttl_s * 1000)


def _fits(entry: Append, query: LogFilter) -> bool:
    at_ms = entry.at_ms or entry.received_ms
    wanted: list[tuple[object, Sequence[object] | None]] = [
        (entry.route_id, query.route_ids),
        (entry.provider, query.providers),
        (entry.model, query.models),
        (entry.severity, query.severities),
        (entry.outcome, query.outcomes),
        (entry.request_id, query.request_ids),
        (entry.incident_id, query.incident_ids),
    ]
    return (
        all(values is None or value in values for value, values in wanted)
        and (query.types is None or any(_is_of(entry.type, one) for one in query.types))
        and (query.since_ms is None or at_ms >= query.since_ms)
        and (query.until_ms is None or at_ms < query.until_ms)
    )


def _is_of(kind: str, pattern: str) -> bool:
    return kind.startswith(pattern[:-1]) if pattern.endswith(".*") else kind == pattern


class PlainIntake:
    """`workers.spooler.Accept` with nothing but the commit.  No event is recognised again, so what
    is stored once is so because of the cursor alone."""

    def __init__(self, store: Store, *, before: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._before = before
        self._commits = 0

    async def __call__(
        self, workspace_id: str, events: Sequence[NewEvent], *, source: str, also: Sequence[Op] = ()
    ) -> Sequence[Appended]:
        self._before()
        ops: list[Op] = [
            Append(
                "events",
                jsonbody.dumps({**event.body, "source": source}),
                event_id=str(event.body["event_id"]),
                content_hash=event.content_hash or hashlib.sha256(b"").digest(),
                at_ms=event.at_ms,
                type=str(event.body["type"]),
            )
            for event in events
        ]
        self._commits += 1
        batch = Batch(f"cm-test-{self._commits}", (*ops, *also))
        result = await self._store.commit(workspace_id, batch)
        return result.appended
