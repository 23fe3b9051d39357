"""What nodes tell each other of endpoints, over Redis (failover.md §11).

Every half second, and at once when something changes here, each policy is said and heard in one
round trip.  The node that the server believes tells a change, the others follow.  Without an answer
a node goes by what it knows, tells what it does itself, and gives its own permits.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from proxy.app.between import HoldsBetween, limited_mark
from proxy.app.holding import Holding
from proxy.model.batch import StoreUnavailable
from proxy.model.ports import Clock
from proxy.routing.effects import Effect, StateChanged, is_limit
from proxy.routing.merging import care_of, later, told_doc, told_from, told_of
from proxy.routing.standing import Standing
from proxy.routing.states import State, Told
from proxy.routing.window import FIELDS
from proxy.storage.redis.standings import Heard, Policy, Probe, RedisStandings, Said
from proxy.wire.jsonbody import JsonError, dumps, loads

EXCHANGE_S: Final = 0.5
PAUSE_S: Final = 0.05  # between two exchanges, however much there is to tell
LEASE_MS: Final = 5000  # of a permit of the cluster, renewed with every exchange
TURN_S: Final = 3.0  # without a probe; then it is another node's
REST_S: Final = 0.6  # longer than others take to ask for it
_ANEW: Final = (State.RAMP, State.CLOSED)


class Node(Protocol):
    """What the nodes need of this one."""

    def all(self) -> Iterable[Standing]: ...
    def tell(self, standing: Standing, effects: Sequence[Effect], at_ms: int) -> None: ...
    def follow(self, standing: Standing, told: Sequence[Told]) -> None:
        """Other nodes know better: silently."""
        ...

    def judge(self, standing: Standing, endpoint_id: str, sums: list[int]) -> None:
        """What all nodes have counted together."""
        ...

    def lends(self, standing: Standing, endpoint_id: str) -> bool:
        """A worker of this node has a permit."""
        ...

    def lend(self, standing: Standing) -> None:
        """Perhaps it may be probed now."""
        ...


@dataclass(slots=True)
class _Change:
    """Something that happened here and is not told yet."""

    standing: Standing
    effects: Sequence[Effect]
    at_ms: int
    endpoints: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Turn:
    """This node may probe an endpoint; at `until` another one may, unless there was a probe."""

    standing: Standing
    probe: Probe
    until: float


class Nodes:
    """The other nodes, as this one knows them."""

    def __init__(self, redis: RedisStandings, clock: Clock, holding: Holding) -> None:
        self._redis = redis
        self._clock = clock
        self._bell = asyncio.Event()
        self._exchanging = asyncio.Lock()
        redis.heard = holding.ring = self._bell.set
        self._holding = holding
        self._holds = holding.between = HoldsBetween(redis.holds, clock)
        self._untold: list[_Change] = []
        self._wanted: dict[tuple[int, str], Standing] = {}
        self._turns: dict[tuple[int, str], _Turn] = {}
        self._rests: dict[tuple[int, str], float] = {}
        self.away = False

    def __repr__(self) -> str:
        return f"<Nodes {'away' if self.away else 'there'}, {len(self._turns)} turns>"

    def changed(self, standing: Standing, effects: Sequence[Effect], at_ms: int) -> None:
        """To be told when the server believes it."""
        for some in _parted(effects):
            first = some[0]
            if isinstance(first, StateChanged) and is_limit(first):
                mark = limited_mark(standing, first.endpoint_id)
                if first.change.before is State.LIMITED:
                    self._holds.over(mark)
                self._holds.changed(mark, standing, some, at_ms)
                continue
            endpoints = {each.endpoint_id for each in some if isinstance(each, StateChanged)}
            for name in endpoints:
                self._holds.forget(limited_mark(standing, name))  # its breaker says more
            self._untold.append(_Change(standing, some, at_ms, endpoints))
        self._bell.set()

    def may_probe(self, standing: Standing, endpoint_id: str) -> bool:
        """Whether this node has the leave; if not, it is asked for."""
        key, now = (id(standing), endpoint_id), self._clock.monotonic()
        turn = self._turns.get(key)
        if self.away or (turn is not None and now < turn.until):
            return True
        if turn is None and now >= self._rests.get(key, 0.0):
            self._wanted[key] = standing
            self._bell.set()
        return False

    def probed(self, standing: Standing, endpoint_id: str) -> None:
        """A probe is over: requests come here, so the next one may be here, too."""
        turn = self._turns.get((id(standing), endpoint_id))
        if turn is not None:
            turn.until = self._clock.monotonic() + TURN_S

    async def run(self, node: Node) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXCHANGE_S):
                    await self._bell.wait()
            self._bell.clear()
            await self.exchange(node)
            await asyncio.sleep(PAUSE_S)

    async def exchange(self, node: Node) -> None:
        """Say and hear once: when it returns, all that had happened before is told."""
        async with self._exchanging:
            await self._exchange(node)

    async def _exchange(self, node: Node) -> None:
        untold, self._untold = self._untold, []
        standings = list(node.all())
        workspaces = dict.fromkeys(each.workspace_id for each in standings)
        try:
            await self._holds.exchange(workspaces, node, self._holding)
            asked = self._clock.monotonic()
            heard = await self._redis.exchange([self._said(each) for each in standings])
            took_s = self._clock.monotonic() - asked
            self.away = False
        except StoreUnavailable:
            self.away = True
            self._turns.clear()
            for change in untold:
                node.tell(change.standing, change.effects, change.at_ms)
            for standing in self._wanted.values():
                node.lend(standing)
            self._wanted.clear()
            return
        asked_of = {
            (id(standing), each.endpoint_id): each.believed or not _is_understood(each)
            for standing, told in zip(standings, heard, strict=True)
            for each in (told if untold else ())
        }
        for change in untold:
            mine = {(id(change.standing), name) for name in change.endpoints} & asked_of.keys()
            if not mine or any(asked_of[each] for each in mine):  # or taken away meanwhile
                node.tell(change.standing, change.effects, change.at_ms)
        for standing, told in zip(standings, heard, strict=True):
            self._hear(node, standing, told, took_s)
        with contextlib.suppress(StoreUnavailable):
            await self._permits(node)

    def _said(self, standing: Standing) -> Policy:
        now = self._clock.monotonic()
        said = []
        for name, breaker in standing.breakers.items():
            told = told_of(name, breaker, now)
            taken = breaker.window.take()
            said.append(
                Said(
                    name,
                    told.version,
                    care_of(told.state),
                    told.step,
                    told.left_ms,
                    told.ago_ms,
                    told.opened_ago_ms,
                    told.state in _ANEW,
                    dumps(told_doc(told)),
                    [0] * FIELDS if taken is None else taken[0],
                )
            )
        policy = standing.policy
        return Policy(
            standing.workspace_id, policy.effective_id, policy.conditions.window_seconds, said
        )

    def _hear(self, node: Node, standing: Standing, heard: Sequence[Heard], took_s: float) -> None:
        """What was said may be as old as its way was long: no cool-down grows on it."""
        told = [later(each, took_s) for each in map(_told, heard) if each is not None]
        node.follow(standing, told)
        for each in heard:
            if each.endpoint_id in standing.breakers:
                node.judge(standing, each.endpoint_id, each.sums)

    async def _permits(self, node: Node) -> None:
        """Renew what is in use, give back what is not, take what is wanted."""
        now = self._clock.monotonic()
        self._rests = {key: until for key, until in self._rests.items() if until > now}
        for key, turn in list(self._turns.items()):
            if _is_probed(turn.standing, key[1]) and (
                now < turn.until or node.lends(turn.standing, key[1])
            ):
                if not await self._redis.keep_probe(turn.probe, LEASE_MS):
                    del self._turns[key]
                continue
            del self._turns[key]
            self._rests[key] = now + REST_S
            await self._redis.free_probe(turn.probe)
        wanted, self._wanted = self._wanted, {}
        for key, standing in wanted.items():
            if not _is_probed(standing, key[1]):
                continue
            policy_id = standing.policy.effective_id
            probe = Probe(standing.workspace_id, policy_id, key[1], self._redis.name)
            if await self._redis.take_probe(probe, LEASE_MS):
                self._turns[key] = _Turn(standing, probe, now + TURN_S)
                node.lend(standing)


def _parted(effects: Sequence[Effect]) -> Iterator[Sequence[Effect]]:
    """Of each endpoint that is limited, or is so no more, apart: nodes agree on that apart."""
    some: list[Effect] = []
    limit = False
    for effect in effects:
        if isinstance(effect, StateChanged):
            if some and (limit or is_limit(effect)):
                yield some
                some = []
            limit = is_limit(effect)
        some.append(effect)
    if some:
        yield some


def _is_probed(standing: Standing, endpoint_id: str) -> bool:
    breaker = standing.breakers.get(endpoint_id)
    return breaker is not None and breaker.state is State.PROBING


def _is_understood(heard: Heard) -> bool:
    """No: others say something else, of which nobody here can tell."""
    return not heard.state or _told(heard) is not None


def _told(heard: Heard) -> Told | None:
    try:
        doc = loads(heard.state) if heard.state else None
        told = told_from(doc) if isinstance(doc, dict) else None
    except (JsonError, ValueError):
        return None  # another version of Parapet
    if told is None:
        return None
    return replace(
        told,
        version=heard.version,
        left_ms=heard.left_ms,
        ago_ms=heard.ago_ms,
        opened_ago_ms=heard.opened_ago_ms,
    )
