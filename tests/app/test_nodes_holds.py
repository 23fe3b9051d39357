"""Two nodes over one Redis, what providers have said no to (failover.md §2, §7.2, §11)."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from proxy.model.failover import Outcome
from proxy.routing.effects import Recovered, Switched
from proxy.routing.holds import Key
from proxy.routing.states import State
from tests.app.twonodes import NO, Node, Two, two_at
from tests.kit.net import BAD, DEAD
from tests.kit.redis import Cutter, RedisServer

pytestmark = pytest.mark.redis

QUOTA = Outcome.QUOTA
HOLDS = "parapet:{default}:fo:holds"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("nodes") / "redis") as running:
        yield running


@pytest.fixture
async def two(redis: RedisServer) -> AsyncIterator[Two]:
    redis.command("FLUSHALL")
    async for found in two_at(redis.url):
        yield found


async def test_a_hold_of_one_node_is_known_to_every_worker_of_the_other_and_told_once(
    two: Two,
) -> None:
    two.one.no(20.0)
    await two.exchange()
    assert two.other.left_s() == pytest.approx([20, 20], abs=0.2)
    assert two.other.active() == {"spare"}
    assert two.told() == ["limited"]
    assert two.count(Switched) == 1
    assert two.other.told == []
    assert two.other.left_s("another") == [0, 0]
    await two.exchange(3)
    assert two.told() == ["limited"]
    assert two.other.left_s() == pytest.approx([20, 20], abs=0.2)  # it does not grow on its way


# fmt: off
ENDS = [
    # seconds that one is told, and the other then     left everywhere
    ([20.0, 2.0],                                      20),
    ([2.0, 20.0],                                      20),
    ([2.0, 20.0, 3.0],                                 20),
    ([4000.0, 1.0],                                    300),
]
# fmt: on


@pytest.mark.parametrize(("hints_s", "left_s"), ENDS)
async def test_the_later_end_wins_whoever_was_told(
    two: Two, hints_s: list[float], left_s: float
) -> None:
    for at, hint_s in enumerate(hints_s):
        (two.one, two.other)[at % 2].no(hint_s)
        await two.exchange()
    await two.exchange(2)
    assert two.one.left_s() == pytest.approx([left_s] * 2, abs=0.3)
    assert two.other.left_s() == pytest.approx([left_s] * 2, abs=0.3)
    assert two.told() == ["limited"]


async def test_both_are_told_at_once_and_one_tells(two: Two) -> None:
    two.one.no(5.0)
    two.other.no(5.0)
    await two.exchange(2)
    assert two.told() == ["limited"]
    assert two.count(Switched) == 1


async def test_money_that_ran_out_is_short_on_all_nodes(two: Two) -> None:
    two.one.workers[1].ask(QUOTA)
    two.one.settle()
    await two.exchange()
    assert two.other.left_s() == pytest.approx([300, 300], abs=0.2)
    hold = two.other.node.holding.holds.of(Key("openai", "", "m"))
    assert hold is not None
    assert hold.quota
    assert two.one.told_of(Switched)[0].reason.code == "quota"  # type: ignore[union-attr]


async def test_a_callers_own_key_is_no_other_nodes_matter(two: Two, redis: RedisServer) -> None:
    worker = two.one.workers[0]
    now = worker.clock.monotonic()
    flight = worker.flights.start(
        worker.standing(), "openai", "x", "m", now, stream=True, permit=None
    )
    flight.ended(now, NO, hint_s=20.0)
    two.one.settle()
    await two.exchange(2)
    assert two.other.left_s() == [0, 0]
    assert redis.command("EXISTS", HOLDS) == b":0\r\n"


async def test_one_that_is_answered_ends_it_for_all_and_that_is_told_once(two: Two) -> None:
    two.one.no(1.0)
    await two.exchange()
    await two.wait(1.2)
    assert two.other.left_s() == [0, 0]
    assert two.other.active() == {"spare"}  # one at a time may try
    two.other.answers()
    await two.exchange(2)
    assert two.one.active() == two.other.active() == {"openai"}
    assert not any(each.flights.holds for each in two.one.workers.values())
    assert two.told() == ["limited", "closed"]
    assert two.count(Recovered) == 1
    two.one.answers()
    await two.exchange(2)
    assert two.told() == ["limited", "closed"]


async def test_both_are_answered_at_once_and_one_tells(two: Two) -> None:
    two.one.no(1.0)
    await two.exchange()
    await two.wait(1.2)
    two.one.answers()
    two.other.answers()
    await two.exchange(2)
    assert two.told() == ["limited", "closed"]


async def test_an_answer_before_the_end_says_nothing(two: Two) -> None:
    two.one.no(5.0)
    await two.exchange()
    two.other.answers()
    await two.exchange(2)
    assert two.other.left_s() == two.one.left_s() == pytest.approx([5, 5], abs=0.2)
    assert two.told() == ["limited"]


async def test_one_is_answered_while_the_other_is_refused_again(two: Two) -> None:
    two.one.no(1.0)
    await two.exchange()
    await two.wait(1.2)
    two.one.answers()
    two.other.no(5.0)
    await two.exchange(3)
    assert two.one.left_s() == two.other.left_s() == pytest.approx([5, 5], abs=0.2)
    assert two.one.active() == two.other.active() == {"spare"}
    assert two.told() == ["limited", "closed", "limited"]


async def test_nobody_asks_any_more(two: Two) -> None:
    two.one.no(1.0)
    await two.exchange()
    await two.wait(1.2)
    for each in (two.one, two.other):
        each.wait(31)
    await two.exchange(2)
    assert two.told() == ["limited", "closed"]
    assert two.one.active() == two.other.active() == {"openai"}


async def test_a_node_that_comes_later_knows_it(two: Two) -> None:
    two.one.no(20.0)
    await two.exchange()
    third = Node("third", two.server, 0.0)
    await third.nodes.exchange(third.node)
    third.settle()
    assert third.left_s() == pytest.approx([20, 20], abs=0.2)
    assert third.active() == {"spare"}
    assert third.told == []


async def test_an_endpoint_that_is_down_is_so_for_every_policy_of_every_node(two: Two) -> None:
    two.one.workers[0].ask(DEAD, 3)
    two.one.settle()
    await two.exchange(2)
    standing = two.other.node.of("default", "other-fo")
    assert standing is not None
    for each in (standing, two.other.standing):
        breaker = each.breakers["openai"]
        assert breaker.state is State.OPEN
        assert breaker.until - two.other.clock.monotonic() == pytest.approx(5, abs=0.2)
    assert two.told() == ["open", "open"]  # of two policies, once each


# --- the server is away, or has something else


async def test_without_redis_each_is_alone_and_then_they_agree_in_silence(
    two: Two, redis: RedisServer
) -> None:
    await two.exchange()
    redis.freeze()
    try:
        two.one.no(5.0)
        two.other.no(20.0)
        began = asyncio.get_running_loop().time()
        await two.exchange()
        assert asyncio.get_running_loop().time() - began < 1
        assert two.told() == ["limited", "limited"]  # each tells its own
        assert (two.one.left_s(), two.other.left_s()) == ([5, 5], [20, 20])
    finally:
        redis.signal(signal.SIGCONT)
    async with asyncio.timeout(2):
        while two.one.left_s() == [5, 5]:
            await two.server.probe()
            await two.exchange()
    assert two.one.left_s() == pytest.approx([20, 20], abs=1)
    await two.exchange(2)
    assert two.told() == ["limited", "limited"]
    assert two.count(Switched) == 2


async def test_an_answer_of_the_server_is_lost(redis: RedisServer) -> None:
    redis.command("FLUSHALL")
    async with Cutter(redis.port) as cutter:
        async for two in two_at(cutter.url):
            await two.exchange()
            two.one.no(20.0)
            cutter.cut_next()
            await two.exchange(3)
            assert cutter.cuts == 1
            assert two.other.left_s() == pytest.approx([20, 20], abs=0.3)
            assert two.told() == ["limited"]


async def test_a_server_that_forgot_everything_is_told_again(two: Two, redis: RedisServer) -> None:
    two.one.no(20.0)
    await two.exchange()
    redis.command("FLUSHALL")
    redis.command("SCRIPT", "FLUSH")
    await two.exchange(2)
    assert redis.command("HLEN", HOLDS) == b":2\r\n"  # the key, and the policy
    assert two.told() == ["limited"]


# fmt: off
STRANGE = [
    ("h|openai|m", "{}"), ("h|openai|m", "[1]"), ("h|openai|m", ""), ("h|openai", None),
    ("x|openai|m", None), ("h|nobody|m", None), ("l|nobody|openai", None), ("", None),
    ("l|chat-fo|nobody", None), ("h|openai|m", '{"in_a_row":"1","quota":false}'),
]
# fmt: on


@pytest.mark.parametrize(("name", "rest"), STRANGE)
async def test_what_is_not_understood_holds_nobody(
    two: Two, redis: RedisServer, name: str, rest: str | None
) -> None:
    until = int(redis.command("TIME").split(b"\r\n")[2]) * 1000 + 5000
    said = '{"in_a_row":1,"quota":false}' if rest is None else rest
    redis.command("HSET", HOLDS, name, f"{until}|0|{said}")
    await two.exchange(2)
    assert two.one.left_s() == [0, 0]
    assert two.one.active() == {"openai"}
    two.one.no(20.0)
    await two.exchange(2)
    assert two.other.left_s() == pytest.approx([20, 20], abs=0.2)


async def test_the_model_may_have_any_name(two: Two) -> None:
    for model in ("m|n", "m\n", "m" * 3000, "ü" * 100, ""):
        flight = two.one.workers[0].flights.start(
            two.one.workers[0].standing(), "openai", "", model,
            two.one.workers[0].clock.monotonic(), stream=True, permit=None,
        )  # fmt: skip
        flight.ended(two.one.workers[0].clock.monotonic(), NO, hint_s=20.0)
    two.one.settle()
    await two.exchange(2)
    left = [max(two.other.left_s(model)) for model in ("m|n", "m\n", "m" * 3000, "ü" * 100, "")]
    assert left == pytest.approx([20, 0, 0, 20, 20], abs=0.2)
    assert two.told() == ["limited"]


async def test_a_trip_while_it_is_held_is_told_by_one(two: Two) -> None:
    two.one.no(20.0)
    await two.exchange()
    two.one.workers[0].ask(BAD, 5)
    two.one.settle()
    await two.exchange(2)
    assert two.one.states() == two.other.states() == {State.OPEN}
    assert two.told() == ["limited", "open"]


@pytest.mark.parametrize("gap_s", [0.0, 0.3])
async def test_an_end_and_the_next_hold_within_an_exchange_are_told_both_or_neither(
    two: Two, gap_s: float
) -> None:
    two.one.no(1.0)
    await two.exchange()
    await two.wait(1.2)
    two.one.answers()
    two.one.wait(gap_s)
    two.one.no(5.0)
    await two.exchange(3)
    assert two.one.active() == two.other.active() == {"spare"}
    assert two.told() in (["limited"], ["limited", "closed", "limited"])
    assert two.count(Switched) == 1 + two.count(Recovered)
