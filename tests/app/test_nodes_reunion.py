"""Two nodes that were each alone for a while: one state, and nothing is told again (§11)."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from proxy.routing.effects import Flapping, Switched
from proxy.routing.holds import Key
from proxy.routing.states import State
from tests.app.twonodes import Node, RunningClock, Two, two_at
from tests.kit.net import BAD, DEAD, OK
from tests.kit.redis import Cutter, RedisServer

pytestmark = pytest.mark.redis

STATES = "parapet:{default}:fo:chat-fo:st"
OPEN, PROBING, CLOSED, FORCED = State.OPEN, State.PROBING, State.CLOSED, State.FORCED_OPEN


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("nodes") / "redis") as running:
        yield running


@pytest.fixture
async def two(redis: RedisServer) -> AsyncIterator[Two]:
    redis.command("FLUSHALL")
    async for found in two_at(redis.url):
        yield found


def lives(node: Node, said: str) -> None:
    """What happens to a node, word by word."""
    for word in said.split():
        match word:
            case "trips":
                node.workers[0].ask(BAD, 5)
            case "cools":
                node.wait(5.3)
            case "fails":
                assert node.workers[0].ask(DEAD) == 1
            case "recovers":
                for _ in range(3):
                    node.wait(0.1)
                    assert node.workers[0].ask(OK) == 1
                node.wait(6)
            case "forced":
                node.node.force("default", "chat-fo", "spare", 60, "")
            case "-":
                pass
            case _:
                raise AssertionError(word)
        node.settle()


async def alone(two: Two, redis: RedisServer, one: str, other: str) -> None:
    redis.freeze()
    try:
        for node, said in ((two.one, one), (two.other, other)):
            await node.nodes.exchange(node.node)  # and finds that nobody answers
            assert node.nodes.away
            lives(node, said)
        await two.exchange()
    finally:
        redis.signal(signal.SIGCONT)
    await two.server.probe()


# fmt: off
REUNIONS = [
    # one node, alone        the other              what each tells alone                  then both
    ("trips",                "-",                   ["open"],                              OPEN),
    ("trips",                "trips",               ["open", "open"],                      OPEN),
    ("trips cools",          "-",                   ["open", "probing"],                   PROBING),
    ("trips cools",          "trips",               ["open", "probing", "open"],           PROBING),
    ("trips cools fails",    "trips",               ["open", "probing", "open", "open"],   OPEN),
    ("trips cools recovers", "trips",               ["open", "probing", "closed", "open"], CLOSED),
    ("trips cools recovers", "trips cools fails",
     ["open", "probing", "closed", "open", "probing", "open"],                             OPEN),
    ("trips",                "forced",              ["open", "forced_open"],               FORCED),
]
# fmt: on


@pytest.mark.parametrize(("one", "other", "told", "state"), REUNIONS)
async def test_two_that_were_alone_are_one_and_nothing_is_told_again(
    two: Two, redis: RedisServer, one: str, other: str, told: list[str], state: State
) -> None:
    await two.exchange()
    await alone(two, redis, one, other)
    assert two.one.changes() + two.other.changes() == told
    switches = two.count(Switched)
    await two.exchange(4)
    assert two.one.states() | two.other.states() == {state}
    assert two.one.changes() + two.other.changes() == told
    assert two.count(Switched) == switches
    assert two.count(Flapping) == 0
    for at in ("version", "level"):
        assert len({getattr(n.standing.breakers["openai"], at) for n in (two.one, two.other)}) == 1
    left_s = [
        worker.standing().breakers["openai"].until - worker.clock.monotonic()
        for node in (two.one, two.other)
        for worker in node.workers.values()
    ]
    if state in (OPEN, FORCED):
        assert max(left_s) - min(left_s) < 0.3


async def test_both_trip_within_an_exchange_and_one_tells(two: Two) -> None:
    lives(two.one, "trips")
    await two.one.nodes.exchange(two.one.node)
    two.one.settle()
    await asyncio.sleep(0.2)
    two.one.clock.advance(0.2)
    lives(two.other, "trips")  # it has not heard of it; its cool-down ends later
    await two.exchange(2)
    assert two.told() == ["open"]
    assert two.count(Switched) == 1
    left = [n.standing.breakers["openai"].until - n.clock.monotonic() for n in (two.one, two.other)]
    assert left == pytest.approx([5, 5], abs=0.15)  # the later end is that of both


async def test_a_slow_server_makes_no_cool_down_and_no_hold_longer(redis: RedisServer) -> None:
    redis.command("FLUSHALL")
    key = Key("openai", "", "m")
    async with Cutter(redis.port) as cutter:
        async for two in two_at(cutter.url, clock=RunningClock):
            await two.exchange()
            two.one.no(5.0)
            lives(two.one, "trips")
            began = [node.clock.monotonic() for node in (two.one, two.other)]
            cutter.delay_s = 0.08
            await two.exchange(8)
            for node, at in zip((two.one, two.other), began, strict=True):
                assert node.standing.breakers["openai"].until - at == pytest.approx(5, abs=0.2)
                assert node.node.holding.holds.left_s(key, at) == pytest.approx(5, abs=0.2)


async def test_steps_of_a_ramp_reach_the_workers_of_all_nodes(two: Two) -> None:
    for node in (two.one, two.other):
        breaker = node.standing.breakers["openai"]
        breaker.recovery = breaker.recovery.model_copy(update={"ramp_step_seconds": 600})
    now = two.one.clock.monotonic()
    two.one.node.changed(two.one.standing, [])
    breaker = two.one.standing.breakers["openai"]
    breaker._become(now, State.RAMP)
    await two.exchange(2)
    breaker.step = 1
    await two.exchange(2)
    steps = {w.standing().breakers["openai"].step for w in two.other.workers.values()}
    assert steps == {1}


async def test_an_end_that_nobody_can_have_said_is_not_believed(
    two: Two, redis: RedisServer
) -> None:
    lives(two.one, "trips")
    await two.one.nodes.exchange(two.one.node)
    said = redis.command("HGET", STATES, "openai").split(b"\r\n")[1].decode()
    version, care, step, _, rest = said.split("|", 4)
    garbled = "|".join((version, care, step, "9" * 15, rest))
    redis.command("HSET", STATES, "openai", garbled)
    await two.exchange(2)
    breaker = two.other.standing.breakers["openai"]
    assert breaker.until - two.other.clock.monotonic() == pytest.approx(5, abs=0.2)
    assert two.told() == ["open"]


async def test_what_is_told_although_nobody_understands_what_redis_has(
    two: Two, redis: RedisServer
) -> None:
    redis.command("HSET", STATES, "openai", "9|3|0|0|0|0|{}")
    lives(two.one, "trips")
    await two.exchange(2)
    assert two.told() == ["open"]
