"""What machines agree on: one table of the port over both engines, and Redis that goes away
(storage.md §1, §4; control-api.md §6, §7)."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.model.batch import StoreUnavailable
from proxy.model.coord import NS, WINDOW_S, NodeBeat, Quota, gcra, step_of
from proxy.model.exchange import Json
from proxy.model.ports import Coord
from proxy.storage.coord import LocalCoord
from proxy.storage.redis.client import new_listening_client
from proxy.storage.redis.coord import ALONE_S, LIVE_S, RedisCoord
from proxy.storage.redis.engine import open_store
from proxy.storage.redis.server import HINT_S
from tests.kit.coord import machine
from tests.kit.redis import RedisServer, silent
from tests.kit.store import HandClock, HandNow

WS, KEY, OTHER_KEY = "workspace-123", b"k" * 32, b"o" * 32
PRINT, OTHER_PRINT = b"\x00:fingerprint-1\xff", b"another"
LEASE_S = 0.4
WINDOW_NS = WINDOW_S * NS
Pair = tuple[Coord, Coord]


@pytest.fixture(params=["in process", pytest.param("redis", marks=pytest.mark.redis)])
async def pair(request: pytest.FixtureRequest, clock: HandClock) -> AsyncIterator[Pair]:
    """Two that agree: in one process it is the same one."""
    if request.param == "in process":
        one = LocalCoord(clock, LEASE_S)
        yield one, one
        return
    url = request.getfixturevalue("redis").url
    async with (
        machine(url, clock, lease_s=LEASE_S) as (_, first),
        machine(url, clock, lease_s=LEASE_S) as (_, second),
    ):
        yield first, second


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may freeze and kill."""
    with RedisServer(tmp_path / "own") as server:
        yield server


async def take(coord: Coord, limit: int, owner: str = "key-1", kind: str = "control-read") -> Quota:
    return await coord.take(WS, kind, owner, limit)


# --- rate limits


async def test_t_rl_04_the_vector(pair: Pair) -> None:
    """Twelve calls at t = 0, by turns on each machine."""
    seen = [await take(pair[n % 2], 10) for n in range(12)]
    assert [(q.allowed, q.remaining) for q in seen[:10]] == [(True, 9 - n) for n in range(10)]
    assert [-(-q.full_ns // NS) for q in seen[:10]] == [6 * (n + 1) for n in range(10)]
    assert [(q.allowed, q.remaining, q.wait_s) for q in seen[10:]] == [(False, 0, 6)] * 2


async def test_a_bucket_belongs_to_one_key_and_class(pair: Pair) -> None:
    one, other = pair
    assert (await take(one, 1)).allowed
    assert not (await take(other, 1)).allowed
    assert (await take(other, 1, owner="key-2")).allowed
    assert (await take(other, 1, kind="ingest")).allowed


async def test_what_was_taken_comes_back_and_a_refusal_costs_nothing(pair: Pair) -> None:
    one, other = pair
    limit = 300  # one more each 200 ms
    taken = [await take(one, limit) for _ in range(limit + 5)]
    assert not taken[-1].allowed
    await asyncio.sleep(taken[-1].next_ns / NS)
    assert (await take(other, limit)).allowed


@pytest.mark.parametrize("limit", [1, 7, 6000, 90_000, 10**12])
async def test_limits_of_any_size(pair: Pair, limit: int) -> None:
    quota = await take(pair[0], limit)
    assert quota.allowed
    assert quota.remaining == WINDOW_NS // step_of(limit, WINDOW_NS) - 1


@pytest.mark.redis
async def test_redis_computes_as_we_do(redis: RedisServer, clock: HandClock) -> None:
    """The same arrival time and the same quota, to the nanosecond, whatever the limit."""
    async with machine(redis.url, clock) as (store, coord):
        for limit in (1, 3, 7, 10, 59, 601, 7777):
            before = 0
            for n in range(15):
                quota = await take(coord, limit, owner=f"o{limit}")
                name = f"parapet:{{{WS}}}:rl:control-read:o{limit}"
                said = await store.server.call("GET", name)
                seconds, nanoseconds = said.split(b":")
                after = int(seconds) * NS + int(nanoseconds)
                now = after - quota.full_ns
                assert gcra(before, now, limit, WINDOW_NS) == (after, quota), (limit, n)
                before = after
                assert 0 < await store.server.call("PTTL", name) <= WINDOW_S * 1000


# --- requests under way


async def test_one_of_two_marks_a_request(pair: Pair) -> None:
    one, other = pair
    assert await one.begin(WS, KEY, PRINT) is None
    assert await other.begin(WS, KEY, OTHER_PRINT) == PRINT
    assert await one.begin(WS, KEY, PRINT) == PRINT
    assert await other.begin(WS, OTHER_KEY, PRINT) is None
    assert await other.begin("elsewhere", KEY, PRINT) is None
    await one.end(WS, KEY)
    assert await other.begin(WS, KEY, OTHER_PRINT) is None


async def test_who_waits_hears_of_the_end(pair: Pair) -> None:
    one, other = pair
    assert await other.ended(WS, KEY, 0.2)
    await one.begin(WS, KEY, PRINT)
    assert not await other.ended(WS, KEY, 0.1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(other.ended(WS, KEY, 2.0))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await one.end(WS, KEY)
        assert await waiting
    assert time.monotonic() - began < 0.5


async def test_the_mark_of_an_owner_that_died_expires(pair: Pair) -> None:
    one, other = pair
    await one.begin(WS, KEY, PRINT)
    assert await other.begin(WS, KEY, PRINT) == PRINT
    await asyncio.sleep(LEASE_S + 0.1)
    assert await other.begin(WS, KEY, PRINT) is None


async def test_many_at_once_and_one_acts(pair: Pair) -> None:
    told = await asyncio.gather(*(pair[n % 2].begin(WS, KEY, PRINT) for n in range(20)))
    assert sorted(told, key=lambda each: each is not None) == [None] + [PRINT] * 19


async def test_to_end_what_never_began(pair: Pair) -> None:
    await pair[0].end(WS, KEY)
    assert await pair[1].begin(WS, KEY, PRINT) is None


@pytest.mark.redis
async def test_whoever_takes_the_place_of_a_dead_process_has_its_marks(
    redis: RedisServer, clock: HandClock
) -> None:
    redis.command("FLUSHALL")
    async with machine(redis.url, clock, process="one") as (_, dead):
        assert await dead.begin(WS, KEY, PRINT) is None
        async with machine(redis.url, clock, process="two") as (_, other):
            assert await other.begin(WS, KEY, PRINT) == PRINT
        async with machine(redis.url, clock, process="one") as (_, heir):
            assert await heir.begin(WS, KEY, PRINT) is None
            await heir.end(WS, KEY)


@pytest.mark.redis
async def test_nobody_takes_back_the_mark_of_another(redis: RedisServer, clock: HandClock) -> None:
    async with machine(redis.url, clock) as (_, one), machine(redis.url, clock) as (_, other):
        await one.begin(WS, KEY, PRINT)
        await other.end(WS, KEY)
        assert await other.begin(WS, KEY, PRINT) == PRINT


# --- notices


async def test_a_notice_arrives_once(pair: Pair) -> None:
    one, other = pair
    await settled(other)
    await one.notify()
    async with asyncio.timeout(1):
        await other.noticed()
    await silent_for(other, 0.3)


async def settled(coord: Coord) -> None:
    """It listens, and what its start had to say is heard."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await coord.noticed()


async def silent_for(coord: Coord, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await coord.noticed()


@pytest.mark.redis
async def test_a_machine_does_not_notice_itself(redis: RedisServer, clock: HandClock) -> None:
    async with machine(redis.url, clock) as (_, coord):
        await settled(coord)
        await coord.notify()
        await silent_for(coord, 2.5)  # nor does it mean anything that nobody says anything


@pytest.mark.redis
async def test_who_did_not_listen_for_a_while_is_told_so(
    redis: RedisServer, clock: HandClock
) -> None:
    """A connection that ends is made anew, and what was said meanwhile is not missed."""
    async with machine(redis.url, clock) as (_, one), machine(redis.url, clock) as (_, other):
        await settled(other)
        redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await one.notify()
        async with asyncio.timeout(3):
            await other.noticed()
        await settled(other)
        await one.notify()
        async with asyncio.timeout(1):
            await other.noticed()


# --- nodes


async def test_nodes_that_are_alive(pair: Pair) -> None:
    one, other = pair
    await one.beat(NodeBeat("node-a", "f1", 5))
    assert [(n.node_id, n.file_sha256) for n in one.nodes()] == [("node-a", "f1")]
    if other is one:
        return
    await other.beat(NodeBeat("node-b", "f2", 5))
    await one.beat(NodeBeat("node-a", "f3", 5))
    for coord in (one, other):
        await coord.beat(NodeBeat("node-b" if coord is other else "node-a", "f3", 5))
    assert [(n.node_id, n.file_sha256) for n in other.nodes()] == [
        ("node-a", "f3"), ("node-b", "f3"),
    ]  # fmt: skip
    assert all(abs(n.at_ms / 1000 - time.time()) < 60 for n in other.nodes())


@pytest.mark.redis
async def test_a_node_that_left_or_died_is_no_more(redis: RedisServer, clock: HandClock) -> None:
    async with machine(redis.url, clock) as (store, one):
        async with machine(redis.url, clock) as (_, other):
            await other.beat(NodeBeat("node-b", "f"))
            await one.beat(NodeBeat("node-a", "f"))
            assert len(one.nodes()) == 2
        await one.beat(NodeBeat("node-a", "f"))
        assert [node.node_id for node in one.nodes()] == ["node-a"]
        long_ago, to_come = (time.time() + LIVE_S * 2 * way for way in (-1, 1))
        for name, at in (("dead", long_ago), ("clock", to_come)):
            await store.server.call("ZADD", "parapet:nodes", int(at * 1000), name)
            await store.server.call("HSET", "parapet:nodes:say", name, "not JSON")
        await store.server.call("ZADD", "parapet:nodes", int(time.time() * 1000), "odd")
        await one.beat(NodeBeat("node-a", "f"))
        assert [node.node_id for node in one.nodes()] == ["", "node-a"]
        assert await store.server.call("HLEN", "parapet:nodes:say") == 1


# --- Redis goes away


async def three_nodes(coord: RedisCoord, others: list[RedisCoord]) -> None:
    for number, each in enumerate([*others, coord]):
        await each.beat(NodeBeat(f"node-{number}", "f"))
    assert len(coord.nodes()) == 3


@pytest.mark.redis
@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_without_redis_a_node_has_its_share(
    own: RedisServer, clock: HandClock, how: str
) -> None:
    """`limit / live nodes`, never unlimited, never shut, and soon no waiting at all."""
    lines: list[str] = []

    def tell(event: str, _: dict[str, Json]) -> None:
        lines.append(event)

    async with contextlib.AsyncExitStack() as stack:
        others = [(await stack.enter_async_context(machine(own.url, clock)))[1] for _ in range(2)]
        store, coord = await stack.enter_async_context(
            machine(own.url, clock, hint_s=HINT_S, tell=tell)
        )
        await three_nodes(coord, others)
        if how == "frozen":
            own.freeze()
        else:
            own.kill()
        times, allowed = [], 0
        for _ in range(60):
            began = time.monotonic()
            quota = await take(coord, 30)
            times.append(time.monotonic() - began)
            allowed += quota.allowed
            assert quota.limit == 10
        assert allowed == 10
        assert max(times) < HINT_S * 4
        assert sorted(times)[30] < 0.002
        assert (await take(coord, 1, owner="small")).allowed  # a share is one at least
        assert await coord.begin(WS, KEY, PRINT) is None
        assert await coord.begin(WS, KEY, PRINT) == PRINT  # within this process it still counts
        await coord.end(WS, KEY)
        await coord.notify()

        began = time.monotonic()
        while not store.server.breaker.open:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.02)
        await asyncio.sleep(ALONE_S)
        for _ in range(50):
            began = time.monotonic()
            await take(coord, 30, owner="while open")
            assert time.monotonic() - began < 0.02
        await coord.beat(NodeBeat("node-2", "f"))
        assert len(coord.nodes()) == 3  # last known

        if how == "frozen":
            own.signal(signal.SIGCONT)
        else:
            own.start()
        began = time.monotonic()
        while (await take(coord, 30, owner="afterwards")).limit != 30:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.05)
        assert (lines.count("redis.away"), lines.count("redis.back")) == (1, 1)


@pytest.mark.redis
async def test_a_server_that_takes_no_writes_is_as_good_as_none(
    own: RedisServer, clock: HandClock
) -> None:
    async with machine(own.url, clock) as (store, coord):
        await coord.beat(NodeBeat("node-1", "f"))
        own.command("REPLICAOF", "127.0.0.1", "1")
        allowed = [(await take(coord, 3)).allowed for _ in range(5)]
        assert allowed == [True] * 3 + [False] * 2
        assert await coord.begin(WS, KEY, PRINT) is None
        assert await coord.begin(WS, KEY, PRINT) == PRINT
        await coord.end(WS, KEY)
        assert not store.server.breaker.open
        own.command("REPLICAOF", "NO", "ONE")
        await asyncio.sleep(ALONE_S)
        await take(coord, 3, owner="again")
        assert await store.server.call("EXISTS", f"parapet:{{{WS}}}:rl:control-read:again") == 1


@pytest.mark.redis
async def test_a_share_is_of_what_was_left(own: RedisServer, clock: HandClock) -> None:
    """A key that had used its quota up does not get another one when Redis goes away."""
    async with (
        machine(own.url, clock) as (_, other),
        machine(own.url, clock, hint_s=HINT_S) as (_, coord),
    ):
        for _ in range(2):
            await other.beat(NodeBeat("node-1", "f"))
            await coord.beat(NodeBeat("node-2", "f"))
        taken = ["used up"] * 20 + ["half"] * 9  # at once: one comes back in three seconds
        await asyncio.gather(*(take(other, 20, owner=owner) for owner in taken))
        assert not (await take(coord, 20, owner="used up")).allowed
        assert (await take(coord, 20, owner="half")).remaining == 10
        own.kill()
        assert not (await take(coord, 20, owner="used up")).allowed
        left = [(await take(coord, 20, owner="half")).allowed for _ in range(7)]
        assert left == [True] * 5 + [False] * 2
        assert (await take(coord, 20, owner="fresh")).remaining == 9


@pytest.mark.redis
async def test_our_impatience_says_nothing_about_the_server(
    own: RedisServer, clock: HandClock
) -> None:
    async with machine(own.url, clock) as (store, _):
        await store.server.call("PING")
        own.freeze()
        for _ in range(8):
            with pytest.raises(StoreUnavailable):
                await store.server.hint(lambda client: client.execute_command("PING"), HINT_S)
        assert not store.server.breaker.open
        own.signal(signal.SIGCONT)
        assert await store.server.call("PING") == b"PONG"


@pytest.mark.redis
async def test_a_mark_that_could_not_be_taken_back_is_when_redis_is_there_again(
    own: RedisServer, clock: HandClock
) -> None:
    async with (
        machine(own.url, clock, hint_s=HINT_S) as (_, one),
        machine(own.url, clock) as (_, other),
    ):
        await one.begin(WS, KEY, PRINT)
        own.freeze()
        await one.end(WS, KEY)
        own.signal(signal.SIGCONT)
        assert await other.begin(WS, KEY, PRINT) == PRINT
        began = time.monotonic()
        while await other.begin(WS, KEY, PRINT) is not None:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.1)
            await one.beat(NodeBeat("node-1", "f"))


@pytest.mark.redis
async def test_a_machine_may_mark_again_what_it_could_not_take_back(
    own: RedisServer, clock: HandClock
) -> None:
    async with machine(own.url, clock, hint_s=HINT_S) as (_, coord):
        await coord.begin(WS, KEY, PRINT)
        own.freeze()
        await coord.end(WS, KEY)
        own.signal(signal.SIGCONT)
        await asyncio.sleep(ALONE_S)
        assert own.command("KEYS", "*:run:*").startswith(b"*1")
        assert await coord.begin(WS, KEY, OTHER_PRINT) is None


@pytest.mark.redis
async def test_a_server_that_forgot_everything(redis: RedisServer, clock: HandClock) -> None:
    async with machine(redis.url, clock) as (_, one), machine(redis.url, clock) as (_, other):
        await one.begin(WS, KEY, PRINT)
        assert (await take(one, 1)).allowed
        redis.command("FLUSHALL")
        redis.command("SCRIPT", "FLUSH")
        assert (await take(other, 1)).allowed
        assert await other.begin(WS, KEY, PRINT) is None
        assert await one.begin(WS, KEY, PRINT) == PRINT


@pytest.mark.redis
async def test_a_user_who_may_not_listen_is_told_of_once(
    redis: RedisServer, clock: HandClock
) -> None:
    lines: list[str] = []
    redis.command("ACL", "SETUSER", "mute", "on", ">pass", "~*", "+@all", "-subscribe", "-publish")
    url = redis.url.replace("redis://", "redis://mute:pass@")
    async with machine(url, clock, tell=lambda event, _: lines.append(event)) as (_, coord):
        began = time.monotonic()
        while "redis.deaf" not in lines:
            assert time.monotonic() - began < 12
            await asyncio.sleep(0.05)
        await coord.notify()
        assert (await take(coord, 3)).remaining == 2
        assert (await take(coord, 3)).remaining == 1
        redis.command("ACL", "SETUSER", "mute", "+subscribe", "&*")
        while "redis.hears" not in lines:
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.05)
    redis.command("ACL", "DELUSER", "mute")
    assert [line for line in lines if line in ("redis.deaf", "redis.hears")] == [
        "redis.deaf", "redis.hears",
    ]  # fmt: skip


@pytest.mark.redis
async def test_panels(redis: RedisServer) -> None:
    clock = HandNow()
    async with open_store(redis.url, clock, silent) as store:
        coord = RedisCoord(store.server, new_listening_client(redis.url), clock, silent)
        await coord.begin(WS, KEY, PRINT)
        assert repr(coord) == "<RedisCoord 0 nodes, <LocalCoord <Buckets 0>, 1 running>>"
        await coord.close()
