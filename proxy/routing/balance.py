"""Which member of a tier takes a request: by load, by weight, or by whom the request is of.

**By load.**  Two members are drawn by weight (M. Mitzenmacher, *The Power of Two Choices in
Randomized Load Balancing*, 2001); the second is taken when it is clearly cheaper (by `CLEARLY`),
else the first, so that members who do equally well share by weight.  Here

    cost = peak latency · (in flight + 1) / (fair + 1)

where *fair* is the member's part, by weight, of all that is in flight in the tier; with equal
weights that is Finagle's latency · (in flight + 1) but for a factor that all have in common.

*Peak latency* is the moving average of Finagle's `P2CPeakEwma` load metric: what is above it
replaces it at once, what is below pulls it down by 1 - exp(-age / `DECAY_S`).  While nothing is
heard it sinks by the same law, here to that of the quickest, so that one that was slow is asked
again and one that is asked rarely gains nothing.  While attempts are in flight silence counts as
latency: who has said nothing for two seconds costs two seconds.  Latency is that of the first
content of a stream or of a whole answer.  A failed attempt may raise the peak and never lowers it;
who fails is the breaker's business.

**By key.**  Weighted rendezvous hashing (D. Thaler, C. Ravishankar, 1998; with weights:
C. Schindelhauer, G. Schomaker, 2005): one key always has the same order of members, on every worker
and node, and when a member goes only its own keys move.  Where a key was sent is kept for a while,
so that it does not move back in the middle of a conversation.

Pure: `now` (seconds, never going back) and `chance` are handed in.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from math import exp, log
from typing import Final
from zlib import crc32

from proxy.model.failover import FailoverPolicy

DECAY_S: Final = 10.0
UNKNOWN_S: Final = 1.0  # the peak while nobody has answered
CLEARLY: Final = 2.5  # times cheaper
MOST_PINS: Final = 10_000
_MASK: Final = 0xFFFFFFFFFFFFFFFF


def share_of(key: str) -> int:
    """0 to 99: where a key falls in a ramp, the same one on every worker and node."""
    return crc32(key.encode("utf-8", "replace")) % 100


def digest_of(key: str) -> int:
    """64 bits that stand for a key, the same ones everywhere."""
    digest = blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def tiers_of(policy: FailoverPolicy) -> list[list[str]]:
    """The tiers of a policy: by default the primary alone, then each fallback alone."""
    if policy.tiers is not None:
        return [list(tier) for tier in policy.tiers if tier]
    return [[name] for name in (policy.primary_endpoint, *policy.fallback_endpoints)]


class Load:
    """What one member has to do, and how long it took of late."""

    __slots__ = ("_at", "_heard_at", "_peak_s", "in_flight", "known", "weight")

    def __init__(self) -> None:
        self._peak_s = 0.0
        self._at = 0.0
        self._heard_at = 0.0
        self.known = False
        self.in_flight = 0
        self.weight = 1.0

    def __repr__(self) -> str:
        return f"<Load {self.in_flight} in flight, peak {self._peak_s:.3f} s>"

    def began(self, now: float) -> None:
        """An attempt was sent to it."""
        if not self.in_flight:
            self._heard_at = now
        self.in_flight += 1

    def answered(self, now: float, latency_s: float) -> None:
        """Its answer has begun, or is whole."""
        self._heard_at = now
        peak_s = self.peak_s(now)
        if latency_s < peak_s:
            kept = exp((self._at - now) / DECAY_S)
            latency_s = peak_s + latency_s * (1 - kept)
        self._peak_s, self._at, self.known = latency_s, now, True

    def failed(self, now: float, latency_s: float) -> None:
        """An attempt came to nothing."""
        self._heard_at = now
        if self.known and latency_s > self.peak_s(now):
            self._peak_s, self._at = latency_s, now

    def over(self) -> None:
        """An attempt is over."""
        self.in_flight -= 1

    @property
    def last_peak_s(self) -> float:
        """As it was when an answer was last heard."""
        return self._peak_s

    def peak_s(self, now: float) -> float:
        return self._peak_s * exp((self._at - now) / DECAY_S)

    def cost(self, now: float, least_s: float, fair: float) -> float:
        """`least_s`: the peak of one who has not answered yet, and below which none sinks.
        `fair`: how many attempts it would have if all had theirs by weight."""
        peak_s = max(self.peak_s(now), least_s)
        if self.in_flight:
            peak_s = max(peak_s, now - self._heard_at)
        return peak_s * (self.in_flight + 1) / (fair + 1)


class Balance:
    """Of one policy in one worker."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self.tiers: list[list[str]] = []
        self.loads: dict[str, Load] = {}
        self._seeds: dict[str, int] = {}
        self._pins: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Balance over {self.tiers}>"

    def edit(self, tiers: Sequence[Sequence[str]], weights: Mapping[str, int]) -> None:
        """Take the tiers of an edited policy; what is known of members that stay is kept."""
        kept = self.loads
        self.tiers = [list(tier) for tier in tiers]
        self.loads, self._seeds = {}, {}
        for tier in self.tiers:
            for name in tier:
                load = self.loads[name] = kept.get(name) or Load()
                load.weight = float(weights.get(name, 1))
                self._seeds[name] = digest_of(name)

    def order(
        self, now: float, closed: Collection[str], key: int | None = None, ttl_s: float = 0.0
    ) -> list[str]:
        """All members in the order in which a request asks them: tier by tier, in each the one
        that it takes first.  `closed`: who does not admit it now.  `key`: that of a sticky request,
        which stays for `ttl_s` where it was sent last."""
        found: list[str] = []
        settled = False
        for tier in self.tiers:
            if len(tier) == 1:
                found += tier
            elif key is None:
                found += self._by_load(now, [name for name in tier if name not in closed] or tier)
                found += [name for name in tier if name not in found]
            else:
                found += self._by_key(now, tier, key)
            first = next((name for name in found if name not in closed), None)
            if first is not None and not settled and key is not None:
                settled = True
                self._pin(key, first, now + ttl_s)
        return found

    def is_first(self, name: str) -> bool:
        """It stands in the first tier."""
        return bool(self.tiers) and name in self.tiers[0]

    # ---- by load

    def _by_load(self, now: float, members: Sequence[str]) -> list[str]:
        loads = self.loads
        under_way = weights = 0.0
        for name in members:
            under_way += loads[name].in_flight
            weights += loads[name].weight
        known = [loads[name].last_peak_s for name in members if loads[name].known]
        least_s = min(known, default=UNKNOWN_S)
        one = self._drawn(members)
        rest = [name for name in members if name != one]
        if not rest:
            return [one]
        costs = {
            name: loads[name].cost(now, least_s, under_way * loads[name].weight / weights)
            for name in members
        }
        other = self._drawn(rest)
        if costs[other] * CLEARLY < costs[one]:
            rest.remove(other)
            rest.append(one)
            one = other
        if len(rest) > 1:
            rest.sort(key=costs.__getitem__)
        return [one, *rest]

    def _drawn(self, members: Sequence[str]) -> str:
        """One of them, by weight."""
        left = self._chance() * sum(self.loads[name].weight for name in members)
        for name in members:
            left -= self.loads[name].weight
            if left < 0:
                return name
        return members[-1]

    # ---- by key

    def _by_key(self, now: float, tier: Sequence[str], key: int) -> list[str]:
        scored = sorted(tier, key=lambda name: self._score(name, key), reverse=True)
        pinned = self._pins.get(key)
        if pinned is not None and pinned[1] > now and pinned[0] in scored:
            scored.remove(pinned[0])
            scored.insert(0, pinned[0])
        return scored

    def _score(self, name: str, key: int) -> float:
        even = (_mixed(key ^ self._seeds[name]) + 0.5) / 2.0**64
        return -self.loads[name].weight / log(even)

    def _pin(self, key: int, name: str, until: float) -> None:
        pins = self._pins
        pins[key] = name, until
        pins.move_to_end(key)
        while len(pins) > MOST_PINS:
            pins.popitem(last=False)


def _mixed(bits: int) -> int:
    """Every bit of the result depends on every bit given: the finaliser of splitmix64."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)
