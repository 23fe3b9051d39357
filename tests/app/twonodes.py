"""Two nodes over one Redis, with their workers (failover.md §11)."""

import asyncio
from collections.abc import AsyncIterator, Callable

from proxy.app.nodes import Nodes
from proxy.model.failover import Outcome
from proxy.routing.effects import Effect, StateChanged
from proxy.routing.holds import Key
from proxy.runtime.clock import SystemClock
from proxy.storage.redis.client import new_client
from proxy.storage.redis.server import Server
from proxy.storage.redis.standings import RedisStandings
from tests.kit.fakes import FakeClock
from tests.kit.net import OK, Net
from tests.kit.redis import silent

NO = Outcome.RATE_LIMITED


class RunningClock(FakeClock):
    """Goes on with the machine's."""

    def __init__(self) -> None:
        super().__init__()
        self._began = SystemClock.monotonic()

    def monotonic(self) -> float:
        return super().monotonic() + SystemClock.monotonic() - self._began


class Node(Net):
    """A control process and two workers, each with a clock of its own."""

    def __init__(
        self, name: str, server: Server, ahead_s: float, clock: Callable[[], FakeClock] = FakeClock
    ) -> None:
        super().__init__(clock=clock)
        self.clock.advance(ahead_s)
        standings = RedisStandings(server, name)
        self.nodes = self.node.nodes = Nodes(standings, self.clock, self.node.holding)

    def left_s(self, model: str = "m") -> list[float]:
        """How long each worker leaves the endpoint alone."""
        key = Key("openai", "", model)
        return [
            round(each.flights.holds.left_s(key, each.clock.monotonic()), 1)
            for each in self.workers.values()
        ]

    def active(self) -> set[str | None]:
        known = [each.standing() for each in self.workers.values()]
        return {each.active for each in [*known, self.standing]}

    def no(self, hint_s: float, worker: int = 0) -> None:
        self.workers[worker].ask(NO, hint_s=hint_s)
        self.settle()

    def answers(self, worker: int = 0) -> None:
        self.workers[worker].ask(OK)
        self.settle()


class Two:
    def __init__(self, server: Server, clock: Callable[[], FakeClock]) -> None:
        self.server = server
        self.one = Node("one", server, 0.0, clock)
        self.other = Node("other", server, 300.0, clock)

    async def exchange(self, times: int = 1) -> None:
        for _ in range(times):
            for each in (self.one, self.other):
                await each.nodes.exchange(each.node)
                each.settle()

    async def wait(self, seconds: float) -> None:
        """For everybody, the server too."""
        await asyncio.sleep(seconds)
        for each in (self.one, self.other):
            each.wait(seconds)
        await self.exchange(2)

    def told(self) -> list[str]:
        """The changes of both, in the order of their times."""
        told = sorted(self.one.told + self.other.told, key=lambda each: each[1])
        return [str(e.change.after) for e, _ in told if isinstance(e, StateChanged)]

    def count(self, kind: type[Effect]) -> int:
        return len(self.one.told_of(kind)) + len(self.other.told_of(kind))


async def two_at(url: str, clock: Callable[[], FakeClock] = FakeClock) -> AsyncIterator[Two]:
    server = Server(new_client(url), SystemClock(), silent)
    await asyncio.to_thread(server.load_scripts)
    try:
        yield Two(server, clock)
    finally:
        await server.close()
