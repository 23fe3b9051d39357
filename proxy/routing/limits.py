"""Limits of routes and keys: who may go on, what is left, what the end of a request settles.

Requests and tokens a minute are buckets by GCRA (`model.coord`, control-api.md §7).  A request
takes one of the first, and of the second what it is likely to use; when it has ended, what it did
use is settled: the rest is given back, or the bucket owes more.  Requests under way are counted
until their end.  A day's cost counts from midnight UTC, by requests that have ended.

A bucket is kept as time, not as units, so it stays the same part of the quota when the limit is
edited.  Every process of a node has its own; `routing/metering.py` brings them together.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from proxy.model.coord import NS, WINDOW_S, Quota, quota_of, step_of
from proxy.model.tenancy import Limits

WINDOW_NS: Final = WINDOW_S * NS
DEBT_NS: Final = 10 * WINDOW_NS  # what one bucket may owe at most
DAY_MS: Final = 86_400_000
NANO: Final = 1_000_000_000  # parts of a USD
MOST_METERS: Final = 20_000
SHARE_WAIT_NS: Final = NS // 4  # until the others are heard of again
CONCURRENCY_WAIT_NS: Final = NS
NO_BOUND: Final = 1 << 62

Scope = Literal["route", "key"]
Name = tuple[Scope, str, str]  # the workspace of a route, empty for a key; and the id
LimitName = Literal["rpm", "tpm", "concurrency", "daily_cost_usd"]


@dataclass(slots=True, frozen=True)
class Moment:
    """`now_ns` of the monotonic clock, `at_ms` since 1970."""

    now_ns: int
    at_ms: int

    @property
    def day(self) -> int:
        """Days since 1970, UTC."""
        return self.at_ms // DAY_MS

    @property
    def midnight_ns(self) -> int:
        """Until the day is over."""
        return (DAY_MS - self.at_ms % DAY_MS) * 1_000_000


@dataclass(slots=True, frozen=True)
class Refusal:
    """A limit that is used up: whose, how much it is, and when to come again."""

    name: Name
    limit: LimitName
    most: float
    wait_ns: int
    used: float


def has_any(limits: Limits) -> bool:
    return (
        limits.rpm is not None
        or limits.tpm is not None
        or limits.concurrency is not None
        or limits.daily_cost_usd is not None
    )


class Bucket:
    """Time taken of one minute.

    `taken_ns`: all that was ever taken here.  `heard_ns`: how much of that there was when others
    were last heard of; `share_ns`: what may be taken from then until they are heard of again.
    """

    __slots__ = ("heard_ns", "share_ns", "taken_ns", "tat_ns")

    def __init__(self) -> None:
        self.tat_ns = self.taken_ns = self.heard_ns = 0
        self.share_ns = NO_BOUND

    def __repr__(self) -> str:
        return f"<Bucket {self.taken_ns / NS:.3f} s taken>"

    def used_ns(self, now_ns: int) -> int:
        return max(0, self.tat_ns - now_ns)

    def wait_ns(self, now_ns: int, cost_ns: int) -> int:
        """Until so much can be taken; 0: now."""
        wait_ns = self.used_ns(now_ns) + cost_ns - WINDOW_NS
        if wait_ns > 0:
            return wait_ns
        since_ns = self.taken_ns - self.heard_ns
        if since_ns > 0 and since_ns + cost_ns > self.share_ns:
            return SHARE_WAIT_NS
        return 0

    def take(self, now_ns: int, cost_ns: int) -> None:
        self.tat_ns = max(now_ns, self.tat_ns) + cost_ns
        self.taken_ns += cost_ns

    def settle(self, now_ns: int, more_ns: int, until_ns: int) -> None:
        """It was more, or less, than was taken.  `until_ns`: the time of arrival after the taking:
        what time has paid for is not given back once more."""
        if more_ns > 0:
            self.take(now_ns, min(more_ns, max(0, DEBT_NS - self.used_ns(now_ns))))
            return
        back_ns = max(0, min(-more_ns, until_ns - now_ns))
        self.tat_ns -= back_ns
        self.taken_ns -= back_ns

    def agree(self, now_ns: int, used_ns: int, counted_ns: int, sharers: int) -> None:
        """The whole node's bucket is that far used, with `counted_ns` of what was taken here."""
        self.tat_ns = now_ns + used_ns + self.taken_ns - counted_ns
        self.heard_ns = self.taken_ns
        free_ns = max(0, WINDOW_NS - self.used_ns(now_ns))
        self.share_ns = free_ns // sharers if sharers > 1 else NO_BOUND


class Meter:
    """What one route or key has used, as this process knows it.

    `elsewhere`: requests under way in other processes.  `spent_nano`: of requests that ended here
    on `day`; `others_nano`: everything else of that day.  `agreed`: the control process knows it.
    """

    __slots__ = (
        "agreed",
        "day",
        "elsewhere",
        "name",
        "others_nano",
        "requests",
        "spent_nano",
        "tokens",
        "told_at_ns",
        "under_way",
        "used_at_ns",
    )

    def __init__(self, name: Name) -> None:
        self.name = name
        self.requests, self.tokens = Bucket(), Bucket()
        self.under_way = self.elsewhere = 0
        self.day = self.spent_nano = self.others_nano = 0
        self.used_at_ns = 0
        self.agreed = False
        self.told_at_ns: dict[LimitName, int] = {}

    def __repr__(self) -> str:
        return f"<Meter of {self.name[0]} {self.name[2]}>"

    def on(self, day: int) -> None:
        """It is that day; another one begins with nothing spent."""
        if day != self.day:
            self.day = day
            self.spent_nano = self.others_nano = 0

    def refusal(self, limits: Limits, moment: Moment, tokens: int) -> Refusal | None:
        """The limit that is used up; the one with the longest wait if there are several."""
        found: Refusal | None = None
        if limits.daily_cost_usd is not None:
            self.on(moment.day)
            spent = (self.spent_nano + self.others_nano) / NANO
            if spent >= limits.daily_cost_usd:
                return Refusal(
                    self.name, "daily_cost_usd", limits.daily_cost_usd, moment.midnight_ns, spent
                )
        now_ns = moment.now_ns
        for limit, most, bucket, units in (
            ("rpm", limits.rpm, self.requests, 1),
            ("tpm", limits.tpm, self.tokens, tokens),
        ):
            if most is None:
                continue
            wait_ns = bucket.wait_ns(now_ns, cost_ns(most, units))
            if wait_ns and (found is None or wait_ns > found.wait_ns):
                kind: LimitName = "rpm" if limit == "rpm" else "tpm"
                used = bucket.used_ns(now_ns) // step_of(most, WINDOW_NS)
                found = Refusal(self.name, kind, most, wait_ns, used)
        most = limits.concurrency
        if found is None and most is not None and self.under_way + self.elsewhere >= most:
            running = self.under_way + self.elsewhere
            return Refusal(self.name, "concurrency", most, CONCURRENCY_WAIT_NS, running)
        return found


def cost_ns(limit: int, units: int) -> int:
    """What so many units cost; more than a whole minute holds goes as a whole minute: such a
    request is let in when nothing else has used the minute, and owes the rest."""
    return min(units * step_of(limit, WINDOW_NS), WINDOW_NS)


@dataclass(slots=True)
class _Taken:
    meter: Meter
    limits: Limits
    tokens_ns: int
    until_ns: int


class Hold:
    """What one request holds of its limits, until its end."""

    __slots__ = ("_released", "_settled", "_taken", "asked_tokens")

    def __init__(self, taken: Sequence[_Taken], asked_tokens: int) -> None:
        self._taken = taken
        self._released = self._settled = False
        self.asked_tokens = asked_tokens  # of its input, by estimate

    def __repr__(self) -> str:
        return f"<Hold of {[each.meter for each in self._taken]}>"

    def release(self) -> None:
        """It is under way no more; once."""
        if self._released:
            return
        self._released = True
        for each in self._taken:
            each.meter.under_way -= 1

    def settle(self, moment: Moment, tokens: int, cost_nano: int) -> None:
        """What it did use; once."""
        if self._settled:
            return
        self._settled = True
        for each in self._taken:
            if each.limits.tpm is not None:
                real_ns = min(tokens * step_of(each.limits.tpm, WINDOW_NS), DEBT_NS)
                bucket = each.meter.tokens
                bucket.settle(moment.now_ns, real_ns - each.tokens_ns, each.until_ns)
            each.meter.on(moment.day)
            each.meter.spent_nano += cost_nano


Wanted = Sequence[tuple[Name, Limits]]


class Limiter:
    """The meters of one process, the least recently used first; at most `most` of them."""

    def __init__(self, most: int = MOST_METERS) -> None:
        self._most = most
        self._meters: OrderedDict[Name, Meter] = OrderedDict()
        self.divisor = 1  # by how many processes a limit is shared, of which nobody hears

    def __repr__(self) -> str:
        return f"<Limiter of {len(self._meters)} meters>"

    def claim(
        self, wanted: Wanted, moment: Moment, tokens: int, asked_tokens: int
    ) -> Hold | Refusal:
        """Take of all that is `wanted`, or of none.  `tokens`: what it will use, by estimate, with
        the `asked_tokens` of its input."""
        chosen = [(self.meter(name, moment), self._share(limits)) for name, limits in wanted]
        refused: Refusal | None = None
        for meter, limits in chosen:
            refusal = meter.refusal(limits, moment, tokens)
            if refusal is not None and (refused is None or refusal.wait_ns > refused.wait_ns):
                refused = refusal
        if refused is not None:
            return refused
        now_ns, taken = moment.now_ns, []
        for meter, limits in chosen:
            meter.under_way += 1
            tokens_ns = 0
            if limits.rpm is not None:
                meter.requests.take(now_ns, cost_ns(limits.rpm, 1))
            if limits.tpm is not None:
                tokens_ns = cost_ns(limits.tpm, tokens)
                meter.tokens.take(now_ns, tokens_ns)
            taken.append(_Taken(meter, limits, tokens_ns, meter.tokens.tat_ns))
        return Hold(taken, asked_tokens)

    def quotas(self, wanted: Wanted, moment: Moment) -> tuple[Quota | None, Quota | None]:
        """What is left of requests and of tokens, where it is the least; None: there is no such
        limit."""
        requests: Quota | None = None
        tokens: Quota | None = None
        for name, said in wanted:
            meter, limits = self.meter(name, moment), self._share(said)
            requests = _tighter(requests, limits.rpm, meter.requests, moment.now_ns)
            tokens = _tighter(tokens, limits.tpm, meter.tokens, moment.now_ns)
        return requests, tokens

    def meter(self, name: Name, moment: Moment) -> Meter:
        """The meter of that name, made when there is none."""
        meter = self._meters.get(name)
        if meter is None:
            meter = self._meters[name] = Meter(name)
            if len(self._meters) > self._most:
                self._forget_one(meter)
        meter.used_at_ns = moment.now_ns
        self._meters.move_to_end(name)
        return meter

    def lately(self, since_ns: int, most: int) -> list[Meter]:
        """Meters that were used since then or are in use, the last used first."""
        found = []
        for meter in reversed(self._meters.values()):
            if meter.used_at_ns < since_ns and not meter.under_way:
                continue
            found.append(meter)
            if len(found) == most:
                break
        return found

    def known(self, name: Name) -> Meter | None:
        return self._meters.get(name)

    def keep(self, names: Collection[Name]) -> None:
        """Forget what has no limit any more."""
        for name in [each for each in self._meters if each not in names]:
            del self._meters[name]

    def _forget_one(self, fresh: Meter) -> None:
        """The least recently used that nobody holds, if there is one near."""
        for name, meter in self._meters.items():
            if not meter.under_way and meter is not fresh:
                del self._meters[name]
                return

    def _share(self, limits: Limits) -> Limits:
        if self.divisor == 1:
            return limits
        return Limits(
            rpm=_part(limits.rpm, self.divisor),
            tpm=_part(limits.tpm, self.divisor),
            concurrency=_part(limits.concurrency, self.divisor),
            daily_cost_usd=limits.daily_cost_usd,
        )


def _part(limit: int | None, of: int) -> int | None:
    return None if limit is None else max(1, limit // of)


def _tighter(known: Quota | None, limit: int | None, bucket: Bucket, now_ns: int) -> Quota | None:
    if limit is None:
        return known
    used_ns = bucket.used_ns(now_ns)
    quota = quota_of(limit, WINDOW_NS, used_ns, allowed=used_ns < WINDOW_NS)
    if known is None or quota.remaining < known.remaining:
        return quota
    return known


# --- words


def duration(span_ns: int) -> str:
    """As in the headers of providers: `0s`, `12ms`, `1.5s`, `6m0s`, `1h0m0s`; rounded up."""
    span_ms = -(-span_ns // 1_000_000)
    if 0 < span_ms < 1000:
        return f"{span_ms}ms"
    minutes, rest_ms = divmod(span_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    said = f"{rest_ms / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{said}"
    return f"{minutes}m{said}" if minutes else said


_WORDS: Final[dict[LimitName, str]] = {
    "rpm": "{most:,} requests a minute",
    "tpm": "{most:,} tokens a minute",
    "concurrency": "{most:,} requests at a time",
    "daily_cost_usd": "{most:g} USD a day (UTC)",
}


def saying(refusal: Refusal) -> str:
    """`route chat: 60 requests a minute`"""
    scope, _, doc_id = refusal.name
    return f"{scope} {doc_id}: {_WORDS[refusal.limit].format(most=refusal.most)}"
