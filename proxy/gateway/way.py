"""The way of one request through its endpoints: what was tried, who does not take it, and what an
attempt does to what is known of its endpoint.

`next_move` decides; this gathers what it decides on.
"""

from typing import Final
from zlib import crc32

from proxy.gateway.flights import Flight
from proxy.gateway.snapshot import EndpointView
from proxy.gateway.turn import Gateway, Turn
from proxy.model.failover import Attempt, Outcome
from proxy.routing.breaker import Permit, State
from proxy.routing.failover import Move, Now, next_move
from proxy.routing.holds import Key

APART_LEAST_S, APART_MOST_S = 0.05, 0.15
EXTRA_MOST_S: Final = 0.25
_OVER: Final = (Outcome.SUCCESS, Outcome.BLOCKED)


class Way:
    """Of one request.  `once`: it is tried once, whatever the policy says, and gives no samples."""

    __slots__ = ("_gateway", "_skipped", "_turn", "charged", "names", "once", "share", "standing")

    def __init__(self, turn: Turn, gateway: Gateway, once: bool) -> None:
        self._turn = turn
        self._gateway = gateway
        self.once = once
        self.names = [view.doc.id for view in turn.order]
        self._skipped: dict[int, str] = {}
        self.charged = False
        self.standing = None if once else turn.standing
        self.share = 0
        if self.standing is not None:
            self.share = crc32(turn.record.request_id.encode()) % 100
            gateway.flights.asked(self.standing, gateway.clock.monotonic())
            self.standing.budget.in_flight += 1
            turn.entered = self.standing

    def __repr__(self) -> str:
        return f"<Way over {self.names}>"

    def next_move(self) -> Move:
        """What to do next."""
        turn, gateway, standing = self._turn, self._gateway, self.standing
        left_s = turn.total_due - gateway.clock.monotonic()
        each = turn.rerouted is not None and not self.once
        policy = None if self.once else turn.policy
        if standing is None:
            return next_move(
                self.names, turn.record.attempts, self._skipped, policy, Now(left_s), each=each
            )
        refused = self._skipped
        if not standing.quiet or standing.holds:
            refused = self.refused()
        tried = turn.record.attempts
        now = _FIRST if not tried else self._now(left_s, tried)
        return next_move(self.names, tried, refused, policy, now, each=each)

    def _now(self, left_s: float, tried: list[Attempt]) -> Now:
        standing, route = self.standing, self._turn.route
        assert standing is not None
        breaker = standing.breakers.get(tried[-1].endpoint_id)
        chance = self._gateway.flights.chance()
        return Now(
            left_s,
            min(route.connect_s + 1, route.total_s / 4),
            steady=breaker is not None and breaker.is_steady(self._gateway.clock.monotonic()),
            has_budget=standing.budget.has_room,
            apart_s=APART_LEAST_S + chance * (APART_MOST_S - APART_LEAST_S),
            extra_s=chance * EXTRA_MOST_S,
            fragile=[
                place
                for place, name in enumerate(self.names)
                if standing.breakers[name].state in (State.PROBING, State.RAMP)
            ],
        )

    def skip(self, place: int, reason: str) -> None:
        """It cannot take this request."""
        self._skipped[place] = reason
        self._turn.skipped.append((self.names[place], reason))

    def refused(self) -> dict[int, str]:
        """The places that do not take the request now, with the reason."""
        standing = self.standing
        if standing is None:
            return self._skipped
        found = dict(self._skipped)
        now = self._gateway.clock.monotonic()
        for place, name in enumerate(self.names):
            if place in found or name not in standing.breakers:
                continue
            why = standing.refusal(name, self.share)
            if why == "probing" and standing.breakers[name].may_probe(now):
                why = ""
            if why:
                found[place] = why
        return found

    def start(
        self, candidate: EndpointView, model: str | None, limit_s: float, *, charged: bool
    ) -> Flight | str | None:
        """Take off to that endpoint; a text: why not; None: nobody keeps count."""
        standing, gateway, turn = self.standing, self._gateway, self._turn
        if standing is None:
            return None
        now = gateway.clock.monotonic()
        key = Key(candidate.doc.id, self._credential(candidate), model or "")
        holds = standing.holds
        waited = bool(turn.record.attempts) and turn.record.attempts[-1].endpoint_id == key[0]
        if holds and not waited and not holds.admits(key, now):
            return "rate_limited"
        permit: Permit | None = None
        if standing.breakers[key.endpoint_id].state is State.PROBING:
            permit = standing.permit(key.endpoint_id, now, standing.probe_limit_s(limit_s))
            if permit is None:
                return "probing"
        if charged and not standing.budget.charge():
            return "budget"
        self.charged = charged
        if holds:
            holds.try_now(key, now, limit_s)
        turn.flight = gateway.flights.start(
            standing, key, stream=turn.exchange.stream, permit=permit
        )
        return turn.flight

    def _credential(self, candidate: EndpointView) -> str:
        return "" if candidate.own_credential else str(hash(self._turn.visit.credential))

    def came(self, attempt: Attempt, *, stream: bool) -> None:
        """The answer has begun, or the attempt is over."""
        flight, standing = self._turn.flight, self.standing
        if flight is None or standing is None:
            return
        now = self._gateway.clock.monotonic()
        if attempt.outcome not in _OVER:
            flight.ended(now, attempt.outcome, hint_s=attempt.retry_after_s)
            self._turn.flight = None
        elif stream:
            flight.answered(now)
        if self.charged:
            standing.budget.charged -= 1
            self.charged = False

    def admits_in_s(self) -> float:
        """How long until an endpoint may admit: to the next probe, or the end of a hold."""
        standing = self.standing
        if standing is None:
            return 1.0
        now = self._gateway.clock.monotonic()
        waits = [
            each.until - now for each in standing.breakers.values() if each.state is State.OPEN
        ]
        return max(1.0, min(waits, default=1.0))


_FIRST: Final = Now(0.0)
