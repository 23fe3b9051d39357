"""The outbox and the fence of every engine: rows written with a commit, claimed and settled under a
token, and batches of workers that are not the leader any more (storage.md §2, §9)."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from proxy.model.batch import (
    ABSENT,
    ANY,
    WHOLE_BATCH,
    Append,
    Batch,
    Count,
    Cursor,
    Fence,
    Idem,
    LogFilter,
    Op,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    OutboxRow,
    Put,
    StoreConflict,
)
from tests.kit.store import HandClock, MemoryStore

Store = MemoryStore  # and whatever else has its methods
WS = "workspace-123"
NOW_MS = 1_710_513_000_000  # where the clock of the tests begins
LONG_MS = 3_600_000
NUMBERS = itertools.count()


def batch(*ops: Op, fence: Fence | None = None) -> Batch:
    return Batch(f"cm-outbox-{next(NUMBERS)}", ops, fence)


def post(name: str, group: str = "", due_ms: int = 0) -> OutboxPut:
    """`due_ms`: from now."""
    return OutboxPut("ops", group, "alert", name.encode(), NOW_MS + due_ms)


async def write(store: Store, *ops: Op, fence: Fence | None = None, ws: str = WS) -> list[int]:
    return (await store.commit(ws, batch(*ops, fence=fence))).outbox


async def claim(store: Store, limit: int = 32, lease_ms: int = LONG_MS) -> Sequence[OutboxRow]:
    return await store.claim(WS, "node-a", lease_ms=lease_ms, limit=limit)


def names(rows: Sequence[OutboxRow]) -> list[str]:
    return [row.payload.decode() for row in rows]


async def refused(store: Store, *ops: Op, fence: Fence | None = None) -> tuple[int, str]:
    with pytest.raises(StoreConflict) as caught:
        await write(store, *ops, fence=fence)
    return caught.value.op, caught.value.reason


async def test_a_row_is_numbered_claimed_and_done(store: Store) -> None:
    told = OutboxPut("ops", "inc-1", "alert", bytes(range(256)), NOW_MS - 5, attempts=2)
    assert await write(store, post("first"), Put("doc", "a", b""), told) == [1, 2]
    assert await write(store, post("third")) == [3]
    assert await write(store, post("elsewhere"), ws="other") == [1]
    assert await store.outbox_pending() == 4
    row = OutboxRow(2, "ops", "inc-1", "alert", bytes(range(256)), NOW_MS - 5, 2)
    assert list(await store.outbox(WS, after_id=1, limit=1)) == [row]
    claimed = await claim(store)
    assert claimed[0] == replace(row, owner="node-a", token=1)  # the oldest due
    assert [each.id for each in claimed] == [2, 1, 3]
    assert list(await claim(store)) == []
    done = [OutboxDone(each.id, each.token) for each in claimed]
    await write(store, *done, Put("doc", "a", b"sent"))
    assert list(await store.outbox(WS)) == []
    assert await write(store, post("never the number of another")) == [4]
    assert names(await store.outbox("other")) == ["elsewhere"]


async def test_what_is_not_due_yet_waits(store: Store, clock: HandClock) -> None:
    await write(store, post("later", due_ms=1000), post("now"), post("sooner", due_ms=500))
    assert names(await claim(store)) == ["now"]
    clock.at_ms += 999
    assert names(await claim(store)) == ["sooner"]
    clock.at_ms += 1
    assert names(await claim(store)) == ["later"]


async def test_the_oldest_due_come_first_and_no_more_than_asked_for(store: Store) -> None:
    await write(store, *(post(f"{n}", due_ms=-n) for n in range(12)))
    assert names(await claim(store, limit=3)) == ["11", "10", "9"]
    assert names(await claim(store, limit=0)) == []
    assert len(await claim(store, limit=1000)) == 9


async def test_rows_of_one_due_come_in_order_of_their_numbers(store: Store) -> None:
    await write(store, *(post(f"{n}") for n in range(1, 13)))
    assert names(await claim(store, limit=11)) == [f"{n}" for n in range(1, 12)]


async def test_a_hundred_rows_at_most_are_claimed_at_once(store: Store) -> None:
    await write(store, *(post(f"{n}") for n in range(120)))
    assert len(await claim(store, limit=1000)) == 100
    assert len(await claim(store, limit=1000)) == 20


async def test_a_row_that_is_given_back_is_claimed_again_when_it_is_due(
    store: Store, clock: HandClock
) -> None:
    await write(store, post("a"))
    (row,) = await claim(store)
    await write(store, OutboxRetry(row.id, row.token, NOW_MS + 5000, attempts=1))
    assert list(await store.outbox(WS)) == [
        replace(row, due_ms=NOW_MS + 5000, attempts=1, owner="")
    ]
    assert names(await claim(store)) == []
    clock.at_ms += 5000
    (again,) = await claim(store)
    assert again == replace(row, due_ms=NOW_MS + 5000, attempts=1, token=2)


@pytest.mark.thorough
async def test_a_claim_that_ran_out_is_taken_by_another(store: Store, clock: HandClock) -> None:
    await write(store, post("a", group="g"), post("b", group="g"))
    (first,) = await claim(store, lease_ms=400)
    assert names(await claim(store)) == []
    clock.at_ms += 450
    await asyncio.sleep(0.45)  # and so does a server
    (second,) = await store.claim(WS, "node-b", lease_ms=LONG_MS)
    assert (second.owner, second.token) == ("node-b", 2)
    stale = OutboxDone(first.id, first.token)
    assert await refused(store, stale, Put("doc", "a", b"sent")) == (0, "fence")
    await write(store, OutboxDone(second.id, second.token))
    assert await refused(store, stale) == (0, "missing")
    assert names(await claim(store)) == ["b"]


async def test_whose_time_is_over_may_still_settle_while_nobody_else_has_it(store: Store) -> None:
    await write(store, post("a"))
    (row,) = await claim(store, lease_ms=0)
    await write(store, OutboxDone(row.id, row.token))
    assert list(await store.outbox(WS)) == []


async def test_a_group_goes_in_order_one_at_a_time(store: Store, clock: HandClock) -> None:
    await write(
        store, post("a1", "a", due_ms=-1), post("b1", "b"), post("a2", "a", due_ms=-9),
        post("free"), post("a3", "a", due_ms=2000),
    )  # fmt: skip
    first, *_ = rows = await claim(store)
    assert names(rows) == ["a1", "b1", "free"]
    await write(store, OutboxRetry(first.id, first.token, NOW_MS + 1000, 1))
    assert names(await claim(store)) == []  # what is behind waits for what is in front
    clock.at_ms += 1000
    (first,) = await claim(store)
    await write(store, OutboxDone(first.id, first.token), post("a4", "a"))
    (second,) = await claim(store)
    assert names([second]) == ["a2"]
    await write(store, OutboxDone(second.id, second.token))
    assert names(await claim(store)) == []
    clock.at_ms += 1000
    assert names(await claim(store)) == ["a3"]


async def test_groups_of_two_targets_are_two(store: Store) -> None:
    await write(store, post("a", "g"), replace(post("b", "g"), target="mail"))
    assert names(await claim(store)) == ["a", "b"]


async def test_rows_go_without_a_claim_when_what_they_tell_is_void(store: Store) -> None:
    """A resolve that overtakes its firing; a target or a workspace that is removed."""
    await write(store, post("fired", "g"), post("resolved", "g"), post("next", "g"))
    (fired,) = await claim(store)
    await write(store, OutboxDone(fired.id, fired.token), OutboxDone(2, ANY), OutboxDone(77, ANY))
    (row,) = await claim(store)
    assert names([row]) == ["next"]
    await write(store, OutboxDone(3, ANY))
    assert await refused(store, OutboxDone(3, row.token)) == (0, "missing")
    assert await refused(store, OutboxRetry(3, ANY, 0, 0)) == (0, "missing")
    await write(store, post("new", "g"))
    assert names(await claim(store)) == ["new"]


async def test_a_group_begins_and_ends_within_one_commit(store: Store) -> None:
    await write(store, post("a", "g"))
    (row,) = await claim(store)
    await write(store, post("b", "g"), OutboxDone(row.id, row.token), post("c", "g"),
                OutboxDone(3, ANY), post("d", "g"))  # fmt: skip
    assert names(await store.outbox(WS)) == ["b", "d"]
    assert names(await claim(store)) == ["b"]


# fmt: off
STALE: list[tuple[str, Op, str]] = [
    ("done, never claimed",           OutboxDone(2, 0),           "fence"),
    ("done, another's token",         OutboxDone(1, 7),           "fence"),
    ("done, a token before",          OutboxDone(1, 1),           "fence"),
    ("done, not there",               OutboxDone(9, 1),           "missing"),
    ("given back, never claimed",     OutboxRetry(2, 0, 5, 1),    "fence"),
    ("given back, another's token",   OutboxRetry(1, 7, 5, 1),    "fence"),
    ("given back, not there",         OutboxRetry(9, 1, 5, 1),    "missing"),
    ("given back twice",              OutboxRetry(3, 1, 5, 1),    "fence"),
    ("done after it was given back",  OutboxDone(3, 1),           "fence"),
    ("given back by whoever has it",  OutboxRetry(1, ANY, 5, 1),  "fence"),
    ("a document that is there",      Put("doc", "a", b"", ABSENT), "exists"),
    ("a cursor from elsewhere",       Cursor("c", 4, 5),          "cursor"),
]
# fmt: on


async def everything(store: Store) -> list[object]:
    log = LogFilter(newest_first=False, limit=100)
    return [
        list(await store.outbox(WS)),
        list(await store.scan(WS, "doc")),
        [await store.range(WS, name, log) for name in ("events", "audit")],
        [await store.head(WS, name) for name in ("events", "audit")],
        list(await store.rollup(WS, 0, 9)),
        await store.cursor(WS, "c"),
        await store.idempotency(WS, b"k"),
        await store.outbox_pending(),
    ]


def others() -> list[Op]:
    """One of each that would be applied."""
    return [
        post("new", "g"), post("free"), Put("doc", "new", b"", unique=(("name", "N"),)),
        Append("events", b"{}", "evt-9", bytes(32), 3600, at_ms=1), Append("audit", b"{}", at_ms=1),
        Idem(b"k", b"f", 200, b"", b"", 3600), Cursor("c", 0, 1), Count(1, "s", {1: 1}),
        OutboxDone(1, 2), OutboxDone(2, ANY),
    ]  # fmt: skip


@pytest.fixture
async def lived(store: Store) -> Store:
    """Row 1 was claimed twice, 2 is behind it, 3 was given back."""
    await write(store, post("one", "g"), post("two", "g"), post("three"), Put("doc", "a", b"a"),
                Append("audit", b"{}", at_ms=1))  # fmt: skip
    one, three = await claim(store, lease_ms=0)
    await write(store, OutboxRetry(three.id, three.token, NOW_MS + 9_000, 1))
    (one,) = await claim(store)
    assert (one.id, one.token) == (1, 2)
    return store


@pytest.mark.parametrize(
    ("op", "reason"), [row[1:] for row in STALE], ids=[row[0] for row in STALE]
)
async def test_a_conflict_leaves_no_trace(lived: Store, op: Op, reason: str) -> None:
    before = await everything(lived)
    for position in (0, 4, 8):
        ops = others()
        ops.insert(position, op)
        assert await refused(lived, *ops) == (position, reason)
        assert await everything(lived) == before
        assert names(await claim(lived)) == []
    assert await write(lived, *others()) == [4, 5]  # nothing that was taken back is remembered
    assert names(await claim(lived)) == ["new", "free"]


# --- leases and fences


async def take(store: Store, node: str, ttl_s: float = 60) -> int:
    token = await store.leases.take(WS, node, ttl_s)
    assert token is not None
    return token


async def test_a_lease_is_held_by_one_node_and_its_token_only_grows(store: Store) -> None:
    first = await take(store, "a")
    assert await store.leases.take(WS, "b", 60) is None
    assert await store.leases.take("other", "b", 60) is not None
    again = await take(store, "a")  # the node was started anew
    assert again > first
    assert not await store.leases.renew(WS, "a", first, 60)
    assert not await store.leases.renew(WS, "b", again, 60)
    await store.leases.free(WS, "a", first)  # not its own any more
    await store.leases.free(WS, "b", again)
    assert await store.leases.take(WS, "b", 60) is None
    await store.leases.free(WS, "a", again)
    assert not await store.leases.renew(WS, "a", again, 60)
    assert await take(store, "b") > again


@pytest.mark.thorough
async def test_a_lease_ends_with_its_time_unless_it_is_renewed(store: Store) -> None:
    token = await take(store, "a", ttl_s=0.5)
    for _ in range(3):
        await asyncio.sleep(0.2)
        assert await store.leases.renew(WS, "a", token, 0.5)
    assert await store.leases.take(WS, "b", 60) is None
    await asyncio.sleep(0.55)
    assert not await store.leases.renew(WS, "a", token, 60)
    assert await take(store, "b") > token


async def test_the_holder_of_the_lease_writes_and_nobody_else(lived: Store) -> None:
    """Also a name with a colon in it, and a lease that nobody ever held."""
    token = await take(lived, "10.0.0.1:8080")
    assert await write(lived, post("a"), fence=Fence(WS, token)) == [4]
    before = await everything(lived)
    stale = [Fence(WS, token - 1), Fence(WS, token + 1), Fence(WS, 0), Fence("never", token)]
    for fence in stale:
        assert await refused(lived, *others(), fence=fence) == (WHOLE_BATCH, "fence")
        assert await refused(lived, fence=fence) == (WHOLE_BATCH, "fence")
        with pytest.raises(StoreConflict):
            await lived.claim(WS, "b", lease_ms=LONG_MS, fence=fence)
        assert await everything(lived) == before
    rows = await lived.claim(WS, "b", lease_ms=LONG_MS, fence=Fence(WS, token))
    assert names(rows) == ["a"]
    assert await write(lived, *others(), fence=Fence(WS, token)) == [5, 6]


async def test_a_fence_is_stale_when_another_has_the_lease_or_nobody(store: Store) -> None:
    late = Fence(WS, await take(store, "a", ttl_s=0.5))
    await write(store, post("1"), fence=late)
    await asyncio.sleep(0.55)
    assert await refused(store, post("2"), fence=late) == (WHOLE_BATCH, "fence")
    new = Fence(WS, await take(store, "b"))
    assert await refused(store, post("3"), fence=late) == (WHOLE_BATCH, "fence")
    await write(store, post("4"), fence=new)
    await store.leases.free(WS, "b", new.token)
    assert await refused(store, post("5"), fence=new) == (WHOLE_BATCH, "fence")
    assert names(await store.outbox(WS)) == ["1", "4"]


async def test_a_batch_in_pieces_is_fenced_as_a_whole(store: Store) -> None:
    events = [Append("events", b"{}", f"evt-{n}", bytes(32), 3600, at_ms=1) for n in range(250)]
    token = await take(store, "a")
    assert await refused(store, *events, post("x"), fence=Fence(WS, 1)) == (WHOLE_BATCH, "fence")
    assert await refused(store, *events, OutboxDone(1, 1)) == (250, "missing")
    assert await store.head(WS, "events") == 0
    assert await write(store, post("x"), *events, post("y"), fence=Fence(WS, token)) == [1, 2]
    assert await store.head(WS, "events") == 250


async def test_eight_claim_and_each_row_is_had_once(store: Store) -> None:
    await write(store, *(post(f"{n}") for n in range(90)))
    claims = [store.claim(WS, f"n{n}", lease_ms=LONG_MS, limit=15) for n in range(8)]
    rows = [row for found in await asyncio.gather(*claims) for row in found]
    assert sorted(row.id for row in rows) == list(range(1, 91))
