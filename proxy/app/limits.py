"""Limits over all data workers of a node, and a day's cost over restarts (see `metering`)."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

from proxy.model.batch import Count, StoreUnavailable
from proxy.model.coord import NS
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.model.tenancy import SnapshotDoc
from proxy.routing.abroad import Abroad, Field, Sums
from proxy.routing.limits import DAY_MS, Limiter, Moment, Name
from proxy.routing.metering import EXCHANGE_S, NodeMeters, WorkerMeters, name_of

LOOK_S: Final = 1.0
DAY_MINUTES: Final = 1440
COST: Final = 0  # the counter of a row of the store
_PREFIX: Final = "spent/"

Doc = dict[str, Json]
Say = Callable[[Doc], None]


class Rollups(Protocol):
    """Of a store, what is counted by the minute."""

    async def rollup(
        self, workspace_id: str, since_minute: int, until_minute: int
    ) -> Sequence[tuple[int, str, int, int]]: ...


class Shared(Protocol):
    """Where nodes tell each other what they took."""

    async def exchange(
        self,
        process: str,
        minute: int,
        mine: Iterable[tuple[tuple[str, str, str], Sums]],
        minutes: Sequence[int],
    ) -> dict[int, list[tuple[tuple[str, tuple[str, str, str]], Sums]]]:
        """Raises StoreUnavailable."""
        ...


def moment_of(clock: Clock) -> Moment:
    return Moment(int(clock.monotonic() * NS), clock.now_ms())


class LimitsOfWorker:
    """A data worker's end."""

    def __init__(self, limiter: Limiter, run: str, clock: Clock) -> None:
        self._meters = WorkerMeters(limiter, run)
        self._clock = clock

    def __repr__(self) -> str:
        return f"<LimitsOfWorker {self._meters!r}>"

    async def report(self, say: Say) -> None:
        """Say four times a second what was taken, for ever."""
        while True:
            await self._clock.sleep(EXCHANGE_S)
            said = self._meters.report(moment_of(self._clock))
            if said is not None:
                say(said)

    def take(self, answer: Doc) -> None:
        """Raises ValueError."""
        self._meters.hear(answer, moment_of(self._clock))


class LimitsOfNode:
    """The control process's end.  `workers`: how many serve now.  `shared`: None where no other
    node is; `nodes`: how many there are; `process` names this one."""

    def __init__(
        self,
        store: Rollups,
        clock: Clock,
        workers: Callable[[], int],
        shared: Shared | None = None,
        nodes: Callable[[], int] = lambda: 1,
        process: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._workers = workers
        self._shared = shared
        self._nodes = nodes
        self._budgets: dict[Name, tuple[str, ...]] = {}
        self.meters = NodeMeters()
        self._abroad = Abroad(self.meters, process, str(clock.now_ms()))

    def __repr__(self) -> str:
        return f"<LimitsOfNode {self.meters!r}, {len(self._budgets)} budgets>"

    def keep(self, snapshot: SnapshotDoc) -> None:
        """Who has a budget by these rules, and in which workspaces it is spent."""
        every = tuple(rules.id for rules in snapshot.workspaces)
        found: dict[Name, tuple[str, ...]] = {}
        for rules in snapshot.workspaces:
            for route in rules.routes:
                if route.limits.daily_cost_usd is not None:
                    found["route", rules.id, route.id] = (rules.id,)
            for key in rules.keys:
                if key.limits.daily_cost_usd is not None:
                    named = tuple(key.workspaces) or (rules.id,)
                    found["key", "", key.id] = every if "*" in named else named
        self._budgets = found

    def take(self, slot: int, said: Doc) -> Doc:
        """What a worker says, and the answer.  Raises ValueError."""
        return self.meters.take(slot, said, self._workers(), moment_of(self._clock).now_ns)

    # --- a day's cost

    def counts(
        self, workspace_id: str, spent: Collection[tuple[str, str | None, int, int]]
    ) -> Iterator[Count]:
        """What the store is to count of ended requests of a workspace: (route, key, milliseconds
        since 1970, cost), in the commit of their events: so it is counted once."""
        sums: dict[tuple[int, str], int] = {}
        for route_id, key_id, at_ms, nano in spent:
            day = at_ms // DAY_MS
            names: list[Name] = [("route", workspace_id, route_id), ("key", "", key_id or "")]
            for name in names:
                if nano and name in self._budgets:
                    at = day * DAY_MINUTES, _series(name)
                    sums[at] = sums.get(at, 0) + nano
        for (minute, series), nano in sums.items():
            yield Count(minute, series, {COST: nano})

    async def run(self) -> None:
        """Look once a second at what the store has of today, for ever."""
        while True:
            await self.look()
            if self._shared is not None:
                await self.share(self._shared)
            await self._clock.sleep(LOOK_S)

    async def share(self, shared: Shared) -> None:
        """Tell the other nodes what was taken here, and hear the same from them.  While they
        cannot be heard each node has its part of every limit (control-api.md §7)."""
        abroad, now_ms = self._abroad, self._clock.now_ms()
        minute, mine = abroad.mine(now_ms, moment_of(self._clock).now_ns)
        minutes = abroad.minutes(now_ms)
        try:
            told = await shared.exchange(abroad.process, minute, mine.items(), minutes)
        except StoreUnavailable:
            self.meters.divisor = max(1, self._nodes())
            return
        self.meters.divisor = 1
        abroad.settled(mine)
        found: dict[int, list[tuple[Field, Sums]]] = {}
        for each, rows in told.items():
            found[each] = [
                ((process, name), sums)
                for (process, said), sums in rows
                if (name := name_of(*said)) is not None
            ]
        abroad.hear(found, now_ms, moment_of(self._clock).now_ns)

    async def look(self) -> None:
        """What the store has of today.  While it is away what it had last holds."""
        day = self._clock.now_ms() // DAY_MS
        wanted = [name for name in self._budgets if name in self.meters.meters]
        sums: dict[tuple[str, str], int] = {}
        with contextlib.suppress(StoreUnavailable):
            for workspace_id in {each for name in wanted for each in self._budgets[name]}:
                minute = day * DAY_MINUTES
                for _, series, counter, n in await self._store.rollup(
                    workspace_id, minute, minute + 1
                ):
                    if counter == COST and series.startswith(_PREFIX):
                        sums[workspace_id, series] = n
            for name in wanted:
                spaces, series = self._budgets[name], _series(name)
                nano = sum(sums.get((workspace_id, series), 0) for workspace_id in spaces)
                self.meters.meter(name).stored(day, nano)


def _series(name: Name) -> str:
    return f"{_PREFIX}{name[0]}/{name[2]}"
