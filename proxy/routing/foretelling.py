"""Who would be asked first, and how sure that is: the choice of failover.md §6 without a request.

What only a request has (where it falls in a ramp, what it sticks to, what its body is bound to) and
what only a worker has (loads, pins, permits to probe) is not made up: it is told as open, with the
part of the requests that each endpoint would get.  Pure: `now` is handed in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from proxy.routing.balance import Balance, digest_of, share_of, tiers_of
from proxy.routing.choosing import let_in, shows_well
from proxy.routing.standing import Standing
from proxy.routing.states import State

_ALL: Final = 100  # places in a ramp
Order = Literal["alone", "by_load", "by_key"]


@dataclass(frozen=True, slots=True)
class Tier:
    """Endpoints that are asked before those of the next tier.  `order`: how one of them is chosen.
    `members` are in the order in which they are asked only where that is known: alone, or by a key
    whose value is known."""

    members: tuple[str, ...]
    order: Order


@dataclass(frozen=True, slots=True)
class Place:
    """One endpoint.  `admits` None: some requests and not others.  `reason`: what speaks against
    it, "" where nothing does.  `share`: the part (0 to 1) of such requests that ask it first, by
    weight and ramp, single probes left out; None: not known.  `let_in`: it is asked all the same,
    because nobody admits."""

    name: str
    tier: int  # from 1
    admits: bool | None
    reason: str
    share: float | None
    ramp_percent: int | None = None
    let_in: bool = False


@dataclass(frozen=True, slots=True)
class Foretold:
    """`first`: who may be asked first, in the policy's order, probes included."""

    tiers: tuple[Tier, ...]
    places: tuple[Place, ...]
    first: tuple[str, ...]
    ramp_position: int | None  # 0 to 99: where the key of a sticky request falls


def foretell(
    standing: Standing,
    weights: Mapping[str, int],
    unfit: Mapping[str, str],
    now: float,
    key: str = "",
) -> Foretold:
    """`weights`: of the policy's endpoints that there are.  `unfit`: those that cannot take such a
    request whatever their breaker says, with the reason.  `key`: what the request sticks to, where
    that is known."""
    names = [name for name in standing.order if name in weights]
    tiers = tuple(_tiers(standing, weights, names, now, key))
    position = share_of(key) if key else None
    worlds = [
        (part, _World(standing, tiers, weights, unfit, now, side, key))
        for part, side in _sides(standing, names, position)
    ]
    places = tuple(
        _place(standing, name, number, worlds)
        for number, tier in enumerate(tiers, start=1)
        for name in tier.members
    )
    asked = {name for _, world in worlds for name in (*world.first, *world.probed)}
    first = tuple(each.name for each in places if each.name in asked)
    return Foretold(tiers, places, first, position)


NOWHERE: Final = Foretold((), (), (), None)  # there is no such endpoint


def alone(name: str, reason: str) -> Foretold:
    """Of a route without a policy: one endpoint, which is asked unless it is unfit (`reason`)."""
    place = Place(name, 1, not reason, reason, 0.0 if reason else 1.0)
    return Foretold((Tier((name,), "alone"),), (place,), () if reason else (name,), None)


def _place(
    standing: Standing, name: str, tier: int, worlds: Sequence[tuple[float, "_World"]]
) -> Place:
    breaker = standing.breakers[name]
    admits = {world.admits(name) for _, world in worlds}
    parts = [(part, world.first.get(name, 0.0)) for part, world in worlds]
    known = [part * share for part, share in parts if share is not None]
    return Place(
        name,
        tier,
        admits.pop() if len(admits) == 1 else None,
        next((why for _, world in worlds if (why := world.reason(name))), ""),
        round(sum(known), 4) if len(known) == len(parts) else None,
        breaker.percent if breaker.state is State.RAMP else None,
        any(name in world.last for _, world in worlds),
    )


def _tiers(
    standing: Standing, weights: Mapping[str, int], names: Sequence[str], now: float, key: str
) -> Iterator[Tier]:
    policy = standing.policy
    if policy.tiers is None:
        for name in names:
            yield Tier((name,), "alone")
        return
    sticks = policy.sticky.enabled
    for tier in tiers_of(policy):
        members = [name for name in tier if name in weights]
        if len(members) > 1 and key:  # no worker's pins: where they are empty
            balance = Balance(lambda: 0.0)
            balance.edit([members], weights)
            members = balance.order(now, (), digest_of(key))
        if members:
            order: Order = "alone" if len(members) == 1 else "by_key" if sticks else "by_load"
            yield Tier(tuple(members), order)


def _sides(
    standing: Standing, names: Sequence[str], position: int | None
) -> Iterator[tuple[float, int]]:
    """The sides of all ramps: (the part of requests that falls there, one place of it)."""
    if position is not None:
        yield 1.0, position
        return
    ramps = {
        standing.breakers[name].percent
        for name in names
        if standing.breakers[name].state is State.RAMP
    }
    cuts = sorted({0, *ramps, _ALL})
    for low, high in pairwise(cuts):
        yield (high - low) / _ALL, low


class _World:
    """What becomes of the requests on one side of all ramps.

    `first`: who is asked first, and by which part of them (None: not known); `last`: of those, who
    is asked only because nobody admits; `probed`: who is asked first by one request at a time."""

    def __init__(
        self,
        standing: Standing,
        tiers: Sequence[Tier],
        weights: Mapping[str, int],
        unfit: Mapping[str, str],
        now: float,
        side: int,
        key: str,
    ) -> None:
        self._standing, self._weights, self._unfit, self._key = standing, weights, unfit, key
        names = [name for name in standing.order if name in weights]
        self.closed = {name: why for name in names if (why := standing.refusal(name, side))}
        self.last: tuple[str, ...] = ()
        self.first: dict[str, float | None] = {}
        self.probed: list[str] = []
        for tier in tiers:
            self.probed += [
                name for name in tier.members
                if self.closed.get(name) == "probing" and name not in unfit
            ]  # fmt: skip
            self.first = self._of(tier)
            if self.first:
                return
        self._let_in(tiers, names, now)

    def admits(self, name: str) -> bool | None:
        """None: one request at a time."""
        if name in self._unfit:
            return False
        if name in self.last or name not in self.closed:
            return True
        return None if self.closed[name] == "probing" else False

    def reason(self, name: str) -> str:
        return self.closed.get(name) or self._unfit.get(name, "")

    def _of(self, tier: Tier) -> dict[str, float | None]:
        """Who of the tier is asked first."""
        open_ = [name for name in tier.members if name not in self.closed]
        fit = [name for name in open_ if name not in self._unfit]
        if len(fit) < 2 or self._key:
            return dict.fromkeys(fit[:1], 1.0)
        if len(fit) < len(open_) and tier.order == "by_load":
            return dict.fromkeys(fit)  # who comes after the first that was drawn depends on loads
        weights = sum(self._weights[name] for name in fit)
        return {name: self._weights[name] / weights for name in fit}

    def _let_in(self, tiers: Sequence[Tier], names: Sequence[str], now: float) -> None:
        """Nobody admits: see `choosing.let_in`."""
        standing, order = self._standing, [name for tier in tiers for name in tier.members]
        refused = {**self._unfit, **self.closed}
        while (name := let_in(standing, order, refused, now, names[0])) in self._unfit:
            refused[name] = self._unfit[name]
        if not name:
            return
        (tier,) = (each for each in tiers if name in each.members)
        well = [
            each for each in tier.members
            if each not in self._unfit and shows_well(standing, each, refused[each], now)
        ]  # fmt: skip
        self.last = tuple(well[:1] if self._key else well) if name in well else (name,)
        self.first = {each: 1.0 if len(self.last) == 1 else None for each in self.last}
