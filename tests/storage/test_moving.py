"""Workspaces that move: SQLite to Redis and back, whole or not at all (`parapet store`)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.control.audit import AUDIT_LOG, Actor, Audit
from proxy.model.batch import (
    ABSENT,
    Append,
    Batch,
    Count,
    Cursor,
    Delete,
    Fence,
    Idem,
    LogFilter,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    Put,
    StoreConflict,
)
from proxy.storage.chain import GENESIS, links, row_hash
from proxy.storage.choose import DATABASE, Engine, store_of
from proxy.storage.moving import (
    Document,
    Entry,
    Head,
    Movable,
    MovingFault,
    Recognition,
    Record,
    Row,
    check_file,
    read_file,
    write_file,
)
from proxy.storage.redis.moving import RedisServerAt
from proxy.storage.sqlite.moving import SqliteFile
from proxy.wire import jsonbody
from tests.kit.redis import RedisServer, silent
from tests.kit.store import HandClock

WS = "workspace-123"
DAY_S = 86_400
ACTOR = Actor("key", "name", "admin", "127.0.0.1", "req")
ENGINES = ["sqlite", pytest.param("redis", marks=pytest.mark.redis)]


class Place:
    """One store: to write to through its port, to move from and into."""

    def __init__(self, said: str, home: Path, clock: HandClock) -> None:
        home.mkdir(exist_ok=True)
        self._said, self._home, self._clock = said, home, clock

    @property
    def movable(self) -> Movable:
        if self._said == "sqlite":
            return SqliteFile(self._home / DATABASE, self._clock)
        return RedisServerAt(self._said, self._clock)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Engine]:
        store = store_of(self._said, self._home, self._clock, silent)
        await store.start()
        try:
            yield store
        finally:
            await store.close()

    async def rows(self, workspace_id: str = WS, *, records: bool = True) -> list[Row]:
        return await asyncio.to_thread(
            lambda: list(self.movable.dump(workspace_id, records=records))
        )

    async def take(self, rows: Iterable[Row], *, replace: bool = False) -> None:
        await asyncio.to_thread(lambda: self.movable.load(WS, rows, replace=replace))


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> Place:
    said = request.getfixturevalue("redis").url if request.param == "redis" else "sqlite"
    return Place(said, tmp_path / "place", clock)


@pytest.fixture
def here(tmp_path: Path, clock: HandClock) -> Place:
    return Place("sqlite", tmp_path / "here", clock)


def event(number: int, ttl_s: int = DAY_S) -> Append:
    known = hashlib.sha256(b"%d" % number).digest()
    return Append(
        "events", b'{"n":%d}' % number, f"evt-{number}", known, ttl_s,
        at_ms=1_710_512_000_000 + number, type="runtime.request.completed", route_id="prod-chat",
        provider="anthropic", model="m", severity=2, outcome="success", request_id=f"req-{number}",
        incident_id=None if number % 2 else "inc-1",
    )  # fmt: skip


async def live(store: Engine, clock: HandClock) -> None:
    """A life: documents made, changed and removed, with audit rows; events; records; cursors."""
    audit, number = Audit(), iter(range(100))

    async def change(op: Put | Delete) -> None:
        async with audit.chain(store, WS, clock.now_ms()) as chain:
            row = chain.row(ACTOR, f"{op.kind}.change", (op.kind, op.id), [])
            await store.commit(WS, Batch(f"cm-{next(number)}", (op, row)))

    await change(Put("policy", "safety", b'{"v":1}', ABSENT, (("name", "Safety"), ("tag", "t"))))
    await change(Put("policy", "safety", b'{"v":2}', 1, (("name", "Safety"),)))
    await change(Put("target", "bytes", bytes(range(256))))
    await change(Put("policy", "gone", b"{}", ABSENT, (("name", "Gone"),)))
    await change(Delete("policy", "gone", 1))
    await store.commit(WS, Batch("cm-e", tuple(event(n) for n in range(60))))
    await store.commit(
        WS, Batch("cm-s", (event(60, ttl_s=0), Cursor("spool/a/0/plain", 0, 1 << 61)))
    )
    await store.commit(WS, Batch("cm-i", (Idem(b"k" * 32, b"f" * 32, 201, b"{}", b"\xff", DAY_S),)))
    counts = (Count(28_508_550, "route:a", {0: 2, 7: 1 << 40}), Count(28_508_700, "b", {1: 1}))
    await store.commit(WS, Batch("cm-c", counts))
    await store.commit("other", Batch("cm-o", (event(1), Put("policy", "safety", b"theirs"))))
    await posted(store, clock)


async def posted(store: Engine, clock: HandClock) -> None:
    """An outbox: a row that was claimed and not settled, one behind it, one that was given back,
    one that was sent."""
    now_ms = clock.now_ms()
    posts = [
        OutboxPut("ops", "g", "alert", bytes(range(256)), now_ms - 9),
        OutboxPut("ops", "g", "alert", b"behind", now_ms - 9),
        OutboxPut("mail", "", "digest", b"{}", now_ms - 8),
        OutboxPut("mail", "", "digest", b"sent", now_ms - 7),
    ]
    await store.commit(WS, Batch("cm-p", tuple(posts)))
    await store.commit("other", Batch("cm-p", tuple(posts)))
    _, back, sent = await store.claim(WS, "n", lease_ms=0)
    ops = (OutboxRetry(back.id, back.token, now_ms, 3), OutboxDone(sent.id, sent.token))
    await store.commit(WS, Batch("cm-q", ops))


async def check_outbox(store: Engine) -> None:
    """Who had claimed a row has it no more; groups keep their order, numbers are not given twice"""
    assert [(row.id, row.token) for row in await store.outbox(WS)] == [(1, 1), (2, 0), (3, 1)]
    first, back = await store.claim(WS, "m", lease_ms=1 << 40)
    assert (first.payload, first.token, back.kind, back.attempts) == (
        bytes(range(256)), 2, "digest", 3,
    )  # fmt: skip
    with pytest.raises(StoreConflict):
        await store.commit(WS, Batch("cm-late", (OutboxDone(1, 1),)))
    more = OutboxPut("ops", "g", "alert", b"more", 0)
    done = await store.commit(WS, Batch("cm-done", (OutboxDone(1, 2), more)))
    assert done.outbox == [5]
    (second,) = await store.claim(WS, "m", lease_ms=1 << 40)
    assert second.payload == b"behind"


async def check(store: Engine) -> None:
    """Everything is as it was, and life goes on."""
    await check_outbox(store)
    assert await store.get(WS, "policy", "safety") == (2, b'{"v":2}')
    assert await store.get(WS, "target", "bytes") == (1, bytes(range(256)))
    assert await store.revision(WS, "policy", "gone") == 2
    assert await store.cursor(WS, "spool/a/0/plain") == 1 << 61
    record = await store.idempotency(WS, b"k" * 32)
    assert record is not None
    assert (record.status, record.body) == (201, b"\xff")
    page = await store.range(WS, "events", LogFilter(incident_ids=("inc-1",), limit=100))
    assert page.total == 31
    found = await store.event(WS, "evt-60")
    assert found is not None
    assert (found.seq, found.body) == (61, b'{"n":60}')
    head = GENESIS
    rows = await store.range(WS, AUDIT_LOG, LogFilter(newest_first=False, limit=100))
    for entry in rows.entries:
        row = jsonbody.loads(entry.body)
        assert isinstance(row, dict)
        assert links(entry.body) == (entry.seq, head, row_hash(row))
        head = row_hash(row)
    assert len(rows.entries) == 5
    again = await store.commit(WS, Batch("cm-again", (event(7), event(61))))
    assert [(one.seq, one.status) for one in again.appended] == [
        (8, "duplicate"), (62, "accepted"),
    ]  # fmt: skip
    taken = Put("policy", "other", b"", unique=(("name", "Safety"),))
    with pytest.raises(StoreConflict):
        await store.commit(WS, Batch("cm-taken", (taken,)))
    back = await store.commit(WS, Batch("cm-back", (Put("policy", "gone", b"{}", ABSENT),)))
    assert back.revisions == {("policy", "gone"): 3}
    async with Audit().chain(store, WS, 1_710_513_000_000) as chain:
        last = chain.row(ACTOR, "policy.change", ("policy", "x"), [])
        await store.commit(WS, Batch("cm-last", (last,)))
    assert links(last.body)[1] == head


@pytest.mark.redis
async def test_from_sqlite_to_redis_and_back(
    here: Place, redis: RedisServer, tmp_path: Path, clock: HandClock
) -> None:
    there, again = Place(redis.url, tmp_path, clock), Place("sqlite", tmp_path / "again", clock)
    async with here.opened() as store:
        await live(store, clock)
    before = await here.rows()
    path = tmp_path / "workspace.jsonl"
    for source, target in ((here, there), (there, again)):
        rows = await source.rows()
        assert await asyncio.to_thread(written, path, rows) == (WS, len(rows))
        await target.take(read_file(path, lambda rows: None))
    assert await there.rows() == await again.rows() == before
    for one in (there, again):
        async with one.opened() as store:
            await check(store)
            assert await store.get("other", "policy", "safety") is None
    async with here.opened() as store:
        await check(store)


async def test_nothing_has_changed_when_it_ends_half_way(
    place: Place, here: Place, clock: HandClock
) -> None:
    async with here.opened() as store:
        await live(store, clock)
    rows = await here.rows()

    def broken() -> Iterator[Row]:
        yield from rows[:30]
        raise MovingFault("the disk is gone")

    with pytest.raises(MovingFault, match="the disk is gone"):
        await place.take(broken())
    async with place.opened():
        pass
    assert await place.rows() == []
    await place.take(rows)
    with pytest.raises(MovingFault, match="the disk is gone"):
        await place.take(broken(), replace=True)
    assert await place.rows() == rows


async def test_a_workspace_that_has_something_is_not_overwritten(
    place: Place, here: Place, clock: HandClock
) -> None:
    async with here.opened() as store:
        await live(store, clock)
    async with place.opened() as store:
        await store.commit(WS, Batch("cm-1", (Put("policy", "mine", b"1"), event(99))))
        await store.commit("third", Batch("cm-2", (Put("policy", "mine", b"1"), event(99))))
    rows = await here.rows()
    with pytest.raises(MovingFault, match=f"workspace {WS} is not empty; --replace"):
        await place.take(rows)
    async with place.opened() as store:
        assert await store.get(WS, "policy", "mine") == (1, b"1")
    await place.take(rows, replace=True)
    assert await place.rows() == rows
    async with place.opened() as store:
        assert await store.get(WS, "policy", "mine") is None
        await check(store)
        assert await store.get("third", "policy", "mine") == (1, b"1")
        assert await store.head("third", "events") == 1


@pytest.mark.redis
async def test_a_leader_stays_the_leader_of_what_is_replaced(
    redis: RedisServer, here: Place, tmp_path: Path, clock: HandClock
) -> None:
    place = Place(redis.url, tmp_path, clock)
    async with here.opened() as store:
        await live(store, clock)
    async with place.opened() as store:
        token = await store.leases.take(WS, "a", 60)
        assert token is not None
        await store.commit(WS, Batch("cm-1", (Put("policy", "mine", b"1"),), Fence(WS, token)))
        await place.take(await here.rows(), replace=True)
        await store.commit(WS, Batch("cm-2", (Put("policy", "mine", b"1"),), Fence(WS, token)))
        await check(store)


async def test_what_ran_out_stays_behind_and_records_on_demand(
    place: Place, clock: HandClock
) -> None:
    async with place.opened() as store:
        await live(store, clock)
    assert not any(isinstance(row, Record) for row in await place.rows(records=False))
    clock.at_ms += (DAY_S + 1) * 1000
    kept = await place.rows()
    assert not any(isinstance(row, Recognition | Record) for row in kept)


async def test_many_entries_over_days_and_a_log_without_its_beginning(
    place: Place, here: Place, clock: HandClock
) -> None:
    day_ms = DAY_S * 1000
    async with here.opened() as store:
        await store.commit(WS, Batch("cm-1", (event(1),)))
    (first,) = [row for row in await here.rows() if isinstance(row, Entry)]
    start = clock.now_ms() - 3 * day_ms
    rows: list[Row] = [
        replace(first, seq=n, event_id=f"evt-{n}", received_ms=start + n * day_ms // 1000)
        for n in range(501, 3001)
    ]
    await place.take([*rows, Head("events", 3000), Head("dead", 7)])
    assert await place.rows() == [Head("dead", 7), *rows, Head("events", 3000)]
    async with place.opened() as store:
        page = await store.range(WS, "events", LogFilter())
        assert (page.total, page.entries[0].seq) == (2500, 3000)
        assert await store.head(WS, "dead") == 7
        done = await store.commit(WS, Batch("cm-2", (event(5),)))
        assert done.appended[0].seq == 3001


def written(path: Path, rows: list[Row]) -> tuple[str, int]:
    with path.open("wb") as file:
        assert write_file(file, WS, rows, lambda rows: None) == len(rows)
    return check_file(path)


def changed(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


BROKEN: list[tuple[str, bytes, bytes, str]] = [
    ("another letter", b'"kind":"a"', b'"kind":"b"', "not whole"),
    ("no end", b'{"end"', b'{"enf"', "not whole"),
    ("another format", b'"parapet-workspace"', b'"something"', "not an export"),
    ("a later version", b'"version":1', b'"version":2', "has version 2, this program 1"),
    ("no JSON", b'{"format"', b"format", "not whole"),
]


@pytest.mark.parametrize(
    ("old", "new", "said"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_a_file_that_is_not_whole_is_refused(
    tmp_path: Path, old: bytes, new: bytes, said: str
) -> None:
    path = tmp_path / "x.jsonl"
    assert written(path, [Head("events", 3), *documents("a")]) == (WS, 2)
    changed(path, old, new)
    with pytest.raises(MovingFault, match=said):
        check_file(path)


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    written(path, documents(*"abcdefgh"))
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(MovingFault):
            check_file(path)


def documents(*kinds: str) -> list[Row]:
    return [Document(kind, "id", 1, b"{}", ()) for kind in kinds]
