"""A worker's share in what the node knows of endpoints (failover.md §11).

While the control process is heard, it says what time does, and gives permits to probe; what this
worker sees itself (a trip, a hold) is in force here at once and told at once.  When nothing was
heard for a second the worker acts alone, and what it did is told when somebody listens again.
Nothing here is waited for by a request.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from proxy.app.messages import (
    held_key,
    hold_message,
    named,
    no_prefill_message,
    no_prefill_of,
    objects,
    seconds,
)
from proxy.gateway.flights import Flight, Flights
from proxy.link.frames import Message
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.routing.effects import Effect, StateChanged, is_derived, is_limit
from proxy.routing.holds import LATER_S, Key
from proxy.routing.merging import (
    counts_doc,
    later,
    take_counts,
    told_doc,
    told_from,
    told_of,
    whole,
)
from proxy.routing.recovery import PREFILL_OFF_S
from proxy.routing.standing import Standing
from proxy.routing.states import Claim, Grant, State, Told

REPORT_S: Final = 0.25
ALONE_S: Final = 1.0
FAILED_S: Final = 0.05  # between two times that failures are told at once
GRANT_S: Final = 2.5  # a permit that is not used, nor told again, is gone
FIRST_WORD_S: Final = 0.5
UNTOLD: Final = 256  # changes that are kept for later
TOGETHER: Final = 100  # policies in one message

ClaimOf = Callable[[Standing, str], Claim | None]  # of an endpoint; None: there are no claims here


class _Limit(NamedTuple):
    """An endpoint is limited under a policy, or (`over`) is so no more.  `known`: the control
    process has told it before."""

    endpoint_id: str
    until: float
    quota: bool = False
    over: bool = False
    known: bool = False


class WorkerShare:
    """`gateway.flights.Share` and `link.peers.Talk`; `tell` is what `Flights` says has changed."""

    def __init__(self, clock: Clock, claim_of: ClaimOf) -> None:
        self._clock = clock
        self._claim_of = claim_of
        self._flights: Flights | None = None
        self._send: Callable[[Message], None] = _nowhere
        self._heard_at = 0.0
        self._report_at = self._failed_at = 0.0
        self._failed: dict[int, Standing] = {}  # by identity: to be told with the next look
        self._untold: deque[tuple[float, Standing, Told | _Limit]] = deque(maxlen=UNTOLD)
        self.linked = False
        self._has_rules = False
        self._knows = asyncio.Event()

    def __repr__(self) -> str:
        return f"<WorkerShare {'linked' if self.linked else 'alone'}>"

    def of(self, flights: Flights) -> None:
        """Share what these know."""
        self._flights = flights
        flights.share = self

    def to(self, send: Callable[[Message], None]) -> None:
        """Send there."""
        self._send = send

    @property
    def flights(self) -> Flights:
        assert self._flights is not None, "`of` was not called"
        return self._flights

    # --- what happens here

    def tell(self, standing: Standing, effect: Effect) -> None:
        """The control process makes events of it.  Of a limit it hears with the hold, unless it is
        away; what another policy has found it finds by itself."""
        if not isinstance(effect, StateChanged) or (self.linked and is_derived(effect)):
            return
        now, name, change = self._clock.monotonic(), effect.endpoint_id, effect.change
        if not is_limit(effect):
            self._untold.append((now, standing, told_of(name, standing.breakers[name], now)))
            self._flush(now)
        elif not self.linked:
            quota = change.reason is not None and change.reason.code == "quota"
            until = standing.limited.get(name, now)
            limit = _Limit(name, until, quota, over=change.before is State.LIMITED)
            self._untold.append((now, standing, limit))

    def held(self, key: Key, standing: Standing | None = None) -> None:
        if not key.credential and self.linked:
            now, policy_id = self._clock.monotonic(), ""
            if standing is not None:
                policy_id = standing.policy.effective_id
            self._send(hold_message(key, self.flights.holds.of(key), now, policy_id))

    def prefill_refused(self, workspace_id: str, endpoint_id: str) -> None:
        if self.linked:
            self._send(no_prefill_message(workspace_id, endpoint_id, PREFILL_OFF_S))

    def failed(self, standing: Standing, endpoint_id: str) -> None:
        """A run that grows is told at once, so that it ends on all workers together: `FAILED_S`
        apart, what comes between with the next look.  Not under load: what was good elsewhere
        meanwhile, and ended the run, is told with the exchange."""
        now = self._clock.monotonic()
        if not standing.breakers[endpoint_id].only_fails(now):
            return
        if now < self._failed_at:
            self._failed[id(standing)] = standing
            return
        self._failed_at = now + FAILED_S
        self._send_counts([standing])

    def probing(self, flight: Flight) -> None:
        permit = flight.permit
        if permit is not None and permit.number:
            limit_ms = round(permit.limit_s * 1000)
            self._send(_of_probe("probing", flight, permit.number) | {"limit_ms": limit_ms})

    def probed(self, flight: Flight) -> None:
        permit = flight.permit
        if permit is not None and permit.claim is not None:
            permit.claim.free()
        if permit is not None and permit.number:
            self._send_counts([flight.standing])
            self._send(_of_probe("probed", flight, permit.number) | {"verdict": permit.verdict})

    async def first_word(self) -> None:
        """Wait until it is known what is open, but not for long: before the first request."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WORD_S):
                await self._knows.wait()

    def kept(self) -> None:
        """Other policies are in force."""
        self._has_rules = True
        for standing in self.flights.all():
            self._follow(standing)

    # --- time

    def look(self) -> None:
        """Every 100 ms."""
        now = self._clock.monotonic()
        if self.linked and now - self._heard_at > ALONE_S:
            self.lost()
        if now >= self._report_at:
            self._report_at = now + REPORT_S
            self.report()
        elif self._failed:
            self._send_counts(self._failed.values())
        self._failed.clear()

    def report(self) -> None:
        """Tell what was counted since the last time."""
        self._send_counts(list(self.flights.awake))

    # --- the control process

    def lost(self) -> None:
        """It is away: act alone."""
        if self.linked:
            self.linked = False
            for standing in self.flights.all():
                self._follow(standing)
                self.flights.wake(standing)

    def heard(self, message: Message) -> None:
        self._heard_at = now = self._clock.monotonic()
        if not self.linked:
            self._found(now)
        match message.get("t"):
            case "standings":
                for each in objects(message, "of"):
                    self._adopt(each, now)
                if self._has_rules and message.get("more") is not True:
                    self._knows.set()
            case "grant":
                self._granted(message, now)
            case "taken":
                self._taken(message)
            case "hold":
                self._hold(message, now)
            case "no_prefill":
                self.flights.no_prefill(*no_prefill_of(message))
            case _:
                pass  # it is there

    def _found(self, now: float) -> None:
        """Tell what was done alone, in order, and what is known now; old counts are of no use."""
        self.linked = True
        alone = set(self._limits())
        for standing in self.flights.all():
            self._follow(standing)
            standing.fresh = [0, 0]
            for name, breaker in standing.breakers.items():
                take_counts(name, breaker)
        self._flush(now)  # there is no room for more, perhaps
        for standing in self.flights.all():
            for name, until in standing.limited.items():
                if (id(standing), name) not in alone:
                    self._untold.append((now, standing, _Limit(name, until, known=True)))
            for name, breaker in standing.breakers.items():
                if breaker.version:
                    self._untold.append((now, standing, told_of(name, breaker, now)))
            if len(self._untold) >= TOGETHER:
                self._flush(now)
        self._flush(now)
        for key in self.flights.holds.own():
            self.held(key)
        self._send({"t": "back"})

    def _follow(self, standing: Standing) -> None:
        standing.follows = self.linked
        for breaker in standing.breakers.values():
            if not self.linked:
                breaker.grants = None
            elif breaker.grants is None:
                breaker.grants = []

    def _adopt(self, doc: Message, now: float) -> None:
        standing = self._standing(doc)
        if standing is not None:
            standing.adopt([told_from(each) for each in objects(doc, "states")], now)
            standing.flap_until = max(standing.flap_until, now + seconds(doc, "flap_ms"))
            for each in objects(doc, "limits"):
                self._limit(standing, str(each.get("endpoint_id")), now, seconds(each, "left_ms"))

    def _granted(self, message: Message, now: float) -> None:
        """A permit, or that one is still good."""
        self._taken(message)
        standing, name = self._standing(message), str(message.get("endpoint_id"))
        breaker = standing.breakers.get(name) if standing is not None else None
        if standing is not None and breaker is not None and breaker.grants is not None:
            claim = self._claim_of(standing, name)
            breaker.grants.append(Grant(whole(message, "number"), now + GRANT_S, claim))

    def _taken(self, message: Message) -> None:
        """A permit is used."""
        standing, number = self._standing(message), whole(message, "number")
        breaker = standing.breakers.get(str(message.get("endpoint_id"))) if standing else None
        if breaker is not None and breaker.grants is not None:
            breaker.grants = [each for each in breaker.grants if each.number != number]

    def _hold(self, message: Message, now: float) -> None:
        key, left_s = held_key(message), seconds(message, "left_ms")
        standing = self._standing(message)
        quota = message.get("quota") is True
        if left_s > 0:
            in_a_row = whole(message, "in_a_row")
            self.flights.holds.learn(key, now, left_s, in_a_row=in_a_row, quota=quota)
        elif self.flights.holds.left_s(key, now) <= LATER_S:  # else it was told no since
            self.flights.holds.ended(key, well=True)
        if standing is not None:
            self._limit(standing, key.endpoint_id, now, left_s)

    def _limit(self, standing: Standing, name: str, now: float, left_s: float) -> None:
        if left_s > 0:
            standing.limit(name, now, now + left_s, quota=False)
        elif standing.limited.get(name, 0.0) <= now + LATER_S:
            standing.unlimit(name, now)

    def _standing(self, doc: Message) -> Standing | None:
        return self.flights.of(str(doc.get("workspace_id")), str(doc.get("policy_id")))

    # --- sending

    def _flush(self, now: float) -> None:
        if not self.linked or not self._untold:
            return
        untold, newest = list(self._untold), self._limits()
        self._untold.clear()
        self._send_counts({id(each): each for _, each, _ in untold}.values())
        told: list[Json] = []
        for at, standing, what in untold:
            if isinstance(what, _Limit):
                if newest[id(standing), what.endpoint_id] is what:  # it may be longer by now
                    until = standing.limited.get(what.endpoint_id, what.until)
                    what = what._replace(until=until)
                told.append({**named(standing), "limit": _limit_doc(what, now, now - at)})
            else:
                told.append({**named(standing), "state": told_doc(later(what, now - at))})
        self._send({"t": "changes", "of": told})

    def _limits(self) -> dict[tuple[int, str], _Limit]:
        """The newest of each that is not told yet, by the identity of a standing."""
        return {
            (id(standing), what.endpoint_id): what
            for _, standing, what in self._untold
            if isinstance(what, _Limit)
        }

    def _send_counts(self, standings: Iterable[Standing]) -> None:
        found: list[Json] = []
        for standing in standings if self.linked else ():
            taken = (take_counts(name, each) for name, each in standing.breakers.items())
            counts: list[Json] = [counts_doc(each) for each in taken if each is not None]
            if counts or standing.fresh[0]:
                requests, on_fallback = standing.fresh
                standing.fresh = [0, 0]
                found.append(
                    {**named(standing), "requests": requests, "on_fallback": on_fallback,
                     "counts": counts}
                )  # fmt: skip
        for at in range(0, len(found), TOGETHER):
            self._send({"t": "counts", "of": found[at : at + TOGETHER]})


def _nowhere(message: Message) -> None:
    """Nobody is there yet."""


def _limit_doc(limit: _Limit, now: float, ago_s: float) -> Message:
    return {
        "endpoint_id": limit.endpoint_id,
        "ago_ms": round(ago_s * 1000),
        "left_ms": round((limit.until - now) * 1000),
        "quota": limit.quota,
        "over": limit.over,
        "known": limit.known,
    }


def _of_probe(what: str, flight: Flight, number: int) -> Message:
    return {
        "t": what, **named(flight.standing), "endpoint_id": flight.endpoint_id, "number": number,
    }  # fmt: skip
