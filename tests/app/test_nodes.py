"""Nodes that share a Redis: what each knows of endpoints (failover.md §11, R28, R29)."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.app.nodes import Nodes
from proxy.app.standings import NodeStandings
from proxy.link.frames import Message
from proxy.model.failover import Conditions, Outcome
from proxy.model.tenancy import Route, SnapshotDoc, WorkspaceRules
from proxy.routing import window as fields
from proxy.routing.effects import Effect, StateChanged, Switched
from proxy.routing.standing import Standing
from proxy.routing.states import State
from proxy.runtime.clock import SystemClock
from proxy.storage.redis.client import new_client, new_listening_client
from proxy.storage.redis.coord import RedisCoord
from proxy.storage.redis.keys import STANDINGS
from proxy.storage.redis.server import Server
from proxy.storage.redis.standings import RedisStandings
from tests.kit.builders import OPENAI, SPARE, policy
from tests.kit.fakes import FakeClock
from tests.kit.redis import RedisServer, silent

pytestmark = pytest.mark.redis

BAD = Outcome.UPSTREAM_5XX
SAID = {"id": "fo", "conditions": Conditions(error_rate_threshold=0.1)}
RULES = WorkspaceRules(
    id="default",
    endpoints=[OPENAI, SPARE],
    routes=[Route(id="chat", endpoint="openai")],
    failover_policies=[policy("openai", "spare").model_copy(update=SAID)],
)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


class Machine:
    """One node with one worker, which takes what it is sent."""

    def __init__(self, name: str, server: Server, ahead_s: float) -> None:
        self.clock = FakeClock()
        self.clock.advance(ahead_s)
        self.told: list[Effect] = []
        self.granted = 0
        self.node = NodeStandings(self.clock, self._tell, lambda: 0.5)
        self.node.workers = self
        self.node.keep(SnapshotDoc(version=1, sha256="", workspaces=[RULES]))
        self.nodes = self.node.nodes = Nodes(
            RedisStandings(server, name), self.clock, self.node.holding
        )

    def slots(self) -> list[int]:
        return [0]

    def send(self, slot: int, message: Message) -> None:
        self.granted += message["t"] == "grant"

    def _tell(self, standing: Standing, effect: Effect, at_ms: int) -> None:
        self.told.append(effect)

    async def exchange(self) -> None:
        await self.nodes.exchange(self.node)

    def fail(self, times: int) -> None:
        now = self.clock.monotonic()
        for _ in range(times):
            effects = self.standing.observe("openai", now, BAD, began=now)
            if effects:
                self.node.changed(self.standing, effects)

    @property
    def standing(self) -> Standing:
        standing = self.node.of("default", "fo")
        assert standing is not None
        return standing

    @property
    def state(self) -> State:
        return self.standing.breakers["openai"].state

    @property
    def left_s(self) -> float:
        return self.standing.breakers["openai"].until - self.clock.monotonic()

    def changes(self) -> list[str]:
        return [str(e.change.after) for e in self.told if isinstance(e, StateChanged)]


class Two:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.one, self.other = Machine("one", server, 0.0), Machine("other", server, 300.0)

    async def exchange(self, times: int = 1) -> None:
        for _ in range(times):
            await self.one.exchange()
            await self.other.exchange()

    async def wait(self, seconds: float) -> None:
        """For the nodes; the server's clock goes on by itself."""
        for _ in range(round(seconds / 0.25)):
            for each in (self.one, self.other):
                each.clock.advance(0.25)
                each.node.tick()
        await self.exchange(2)

    def states(self) -> set[State]:
        return {self.one.state, self.other.state}

    def changes(self) -> list[str]:
        return sorted(self.one.changes() + self.other.changes())


@pytest.fixture
async def two(redis: RedisServer) -> AsyncIterator[Two]:
    server = Server(new_client(redis.url), SystemClock(), silent)
    await asyncio.to_thread(server.load_scripts)
    try:
        yield Two(server)
    finally:
        await server.close()


async def test_a_trip_of_one_node_is_known_to_the_other_and_told_once(two: Two) -> None:
    two.one.fail(5)
    await two.exchange()
    assert two.states() == {State.OPEN}
    assert two.other.left_s == pytest.approx(5, abs=0.2)  # its clock is five minutes ahead
    assert two.changes() == ["open"]
    assert len([each for each in two.one.told if isinstance(each, Switched)]) == 1
    assert two.other.told == []
    await two.exchange(3)
    assert two.changes() == ["open"]


async def test_the_others_hear_of_a_change_before_they_ask(two: Two, redis: RedisServer) -> None:
    rung = {"one": asyncio.Event(), "other": asyncio.Event()}
    coords = []
    for name, bell in rung.items():
        ears = new_listening_client(redis.url)
        coord = RedisCoord(two.server, ears, SystemClock(), silent, process=name)
        coord.also(STANDINGS, bell.set)
        coords.append(coord)
        await coord.start()
        await coord.noticed()  # it listens
    two.one.fail(5)
    await two.one.exchange()
    async with asyncio.timeout(0.5):
        await rung["other"].wait()
    rung["other"].clear()
    await two.exchange(2)
    assert not rung["one"].is_set()  # it knows what it says, and nothing else is new
    assert not rung["other"].is_set()
    for coord in coords:
        await coord.close()


async def test_both_trip_at_once_and_one_tells(two: Two) -> None:
    two.one.fail(5)
    two.other.fail(5)
    await two.exchange(2)
    assert two.states() == {State.OPEN}
    assert two.changes() == ["open"]


async def test_counts_of_both_add_up(two: Two) -> None:
    for machine, errors, goods in ((two.other, 3, 3), (two.one, 3, 3)):
        window = machine.standing.breakers["openai"].window
        now = machine.clock.monotonic()
        for _ in range(errors):
            window.add(now, fields.ATTEMPTS, fields.OUTCOMES, fields.ERRORS)
        for _ in range(goods):
            window.add(now, fields.ATTEMPTS, fields.OUTCOMES)
    assert two.one.standing.tick(two.one.clock.monotonic()) == []
    await two.other.exchange()
    await two.one.exchange()
    await two.exchange()
    assert two.states() == {State.OPEN}
    assert two.changes() == ["open"]


async def test_one_node_probes_at_a_time(two: Two) -> None:
    two.one.fail(5)
    await two.exchange()
    await two.wait(5.5)
    assert two.states() == {State.PROBING}
    assert two.changes() == ["open", "probing"]
    await two.exchange(3)
    assert (two.one.granted > 0) + (two.other.granted > 0) == 1


async def test_a_node_that_does_not_probe_lets_the_other_one(two: Two) -> None:
    two.one.fail(5)
    await two.exchange()
    await two.wait(5.5)
    for _ in range(24):  # six seconds
        await two.wait(0.25)
    assert two.one.granted > 0
    assert two.other.granted > 0


async def test_an_operator_moves_all_nodes(two: Two) -> None:
    two.other.node.force("default", "fo", "spare", 60, "maintenance")
    await two.other.exchange()
    await two.one.exchange()
    assert two.one.standing.active == "spare"
    assert two.one.told == []
    two.one.node.release("default", "fo", "")
    await two.exchange(2)
    assert {two.one.standing.active, two.other.standing.active} == {"openai"}


async def test_without_redis_each_decides_alone_and_then_they_agree(
    two: Two, redis: RedisServer
) -> None:
    await two.exchange()
    redis.freeze()
    two.one.fail(5)
    for _ in range(2):
        began = asyncio.get_running_loop().time()
        await two.exchange()
        assert asyncio.get_running_loop().time() - began < 1
    assert (two.one.state, two.other.state) == (State.OPEN, State.CLOSED)
    assert two.changes() == ["open"]  # told without being asked
    two.one.clock.advance(6)
    two.one.node.tick()
    assert two.one.granted == 1  # permits are of the node
    redis.signal(signal.SIGCONT)
    async with asyncio.timeout(2):
        while two.other.state is State.CLOSED:
            await two.server.probe()
            await two.exchange()
    assert two.states() == {State.PROBING}


async def test_a_server_that_forgot_everything_is_told_again(two: Two, redis: RedisServer) -> None:
    two.one.fail(5)
    await two.exchange()
    redis.command("FLUSHALL")
    redis.command("SCRIPT", "FLUSH")
    await two.exchange()
    assert two.states() == {State.OPEN}
    assert redis.command("EXISTS", "parapet:{default}:fo:fo:st").startswith(b":1")
    assert two.changes() == ["open"]


async def test_what_another_version_says_is_not_understood(two: Two, redis: RedisServer) -> None:
    redis.command("HSET", "parapet:{default}:fo:fo:st", "openai", "9|3|0|0|0|0|{}")
    await two.exchange()
    assert two.states() == {State.CLOSED}


async def test_a_change_is_told_though_its_policy_is_gone_before_the_exchange(two: Two) -> None:
    two.one.fail(5)
    two.one.node.keep(SnapshotDoc(version=2, sha256="", workspaces=[]))
    await two.one.exchange()
    assert two.one.changes() == ["open"]


async def test_what_is_untold_at_the_end_is_told(two: Two) -> None:
    two.one.fail(5)
    await two.one.node.close()
    assert two.one.changes() == ["open"]
    await two.exchange(2)
    assert two.changes() == ["open"]
