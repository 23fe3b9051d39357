"""The way of one request through its endpoints: what was tried, who does not take it, and what an
attempt does to what is known of its endpoint.

`next_move` decides; this gathers what it decides on.  Why an endpoint is skipped is failover.md §6.
"""

from collections.abc import Sequence
from typing import Final

from proxy.gateway.flights import Flight
from proxy.gateway.snapshot import EndpointView
from proxy.gateway.turn import Gateway, Turn
from proxy.model.failover import Outcome
from proxy.model.records import Attempt
from proxy.routing.balance import digest_of, share_of
from proxy.routing.choosing import let_in
from proxy.routing.failover import BUDGET, Move, Now, Send, next_move
from proxy.routing.holds import Key
from proxy.routing.standing import Standing
from proxy.routing.states import Permit, State
from proxy.wire.bound import bound_by, conversation_of
from proxy.wire.providers.models import model_for

APART_LEAST_S, APART_MOST_S = 0.05, 0.15
EXTRA_MOST_S: Final = 0.25
PINNED: Final = "pinned_state"
OTHER_VECTORS: Final = "different_embedding_model"
RATE_LIMITED: Final = "rate_limited"
_SUCCESS: Final = Outcome.SUCCESS
_BLOCKED: Final = Outcome.BLOCKED
_CLOSED: Final = State.CLOSED
_FORCED_CLOSED: Final = State.FORCED_CLOSED
_PROBING: Final = State.PROBING
_FIRST: Final = Now(0.0)
_PRIMARY: Final = Send(0)


class Way:
    """Of one request.  `once`: it is tried once, whatever the policy says, and gives no samples."""

    __slots__ = (
        "_bound", "_gateway", "_held_until", "_let_in", "_names", "_refused", "_skipped",
        "_sticks_to", "_turn", "broke", "once", "places", "standing",
    )  # fmt: skip

    def __init__(self, turn: Turn, gateway: Gateway, once: bool) -> None:
        self._turn = turn
        self._gateway = gateway
        self.once = once
        self._names: list[str] | None = None
        self.places: list[int] | None = None  # the order of this request, where it is its own
        self._skipped: dict[int, str] = {}  # for good
        self._refused = self._skipped  # at the last move
        self._let_in: tuple[str, ...] = ()  # whatever their breakers say
        self._bound: bool | None = None
        self._sticks_to: str | None = None
        self._held_until: list[float] | None = None
        self.broke = False  # the budget has kept it from a retry
        self.standing = standing = None if once else turn.standing
        if standing is not None:
            gateway.flights.asked(standing, gateway.clock.monotonic())
            standing.budget.in_flight += 1
            turn.entered = standing
        elif turn.exchange.surface.operation == "pass" and turn.rerouted is None:
            for place in range(1, len(self.names)):  # what it makes or names is at the primary
                self._skipped[place] = PINNED

    def __repr__(self) -> str:
        return f"<Way over {self.names}>"

    @property
    def names(self) -> list[str]:
        """Its endpoints, in the order of their places."""
        if self._names is None:
            self._names = [view.id for view in self._turn.order]
        return self._names

    def next_move(self) -> Move:
        """What to do next."""
        standing, turn = self.standing, self._turn
        tried = turn.record.attempts
        if not tried and not self._skipped and self._is_plain(standing):
            return _PRIMARY
        if standing is None:
            each = turn.rerouted is not None and not self.once
            policy = None if self.once else turn.policy
            left = Now(turn.total_due - self._gateway.clock.monotonic())
            return next_move(self.names, tried, self._skipped, policy, left, each=each)
        refused = self.refused()
        now = _FIRST if not tried else self._now(tried)
        return next_move(self.names, tried, refused, turn.policy, now, places=self.places)

    def _is_plain(self, standing: Standing | None) -> bool:
        """The first endpoint takes it, whatever else is known: the way of nearly every request."""
        if standing is None:
            return True
        name = self._turn.order[0].id
        first = standing.breakers.get(name)
        if first is None or standing.balance is not None or name != standing.order[0]:
            return False  # what is bound to a primary that is not there goes to nobody
        return first.state is _CLOSED or first.state is _FORCED_CLOSED

    def now(self) -> Now:
        """What is known at this moment, once something has been tried."""
        return self._now(self._turn.record.attempts)

    def _now(self, tried: list[Attempt]) -> Now:
        standing, turn, route = self.standing, self._turn, self._turn.route
        assert standing is not None
        now = self._gateway.clock.monotonic()
        breaker = standing.breakers.get(tried[-1].endpoint_id)
        chance = self._gateway.flights.chance()
        fragile = []
        for place, name in enumerate(self.names):
            each = standing.breakers.get(name)
            if each is not None and each.state in (State.PROBING, State.RAMP):
                fragile.append(place)
        return Now(
            turn.total_due - now,
            min(route.connect_s + 1, route.total_s / 4),
            steady=breaker is not None and breaker.is_steady(now),
            has_budget=standing.budget.has_room,
            apart_s=APART_LEAST_S + chance * (APART_MOST_S - APART_LEAST_S),
            extra_s=chance * EXTRA_MOST_S,
            fragile=fragile,
        )

    def no_longer_takes(self, place: int) -> bool:
        """While the request waited to ask it once more others have found that it is broken, and it
        is not one that is asked even so."""
        breaker = None if self.standing is None else self.standing.breakers.get(self.names[place])
        if breaker is None or breaker.state is not State.OPEN:
            return False
        return place in self.refused()

    # ---- who does not take it

    def skip(self, place: int, reason: str) -> None:
        """It cannot take this request."""
        self._skipped[place] = reason
        self._turn.skipped.append((self.names[place], reason))
        if reason == BUDGET:
            self.broke = True

    def refused(self) -> dict[int, str]:
        """The places that do not take the request now, with the reason."""
        if self.standing is None:
            return self._skipped
        now = self._gateway.clock.monotonic()
        found = dict(self._skipped)
        share = share_of(self._sticky_key() or self._turn.record.request_id)
        for place in range(len(self.names)):
            if place not in found:
                why = self._refusal(place, now, share)
                if why:
                    found[place] = why
        if self.standing.balance is not None and self.places is None:
            self._order(now, found)
        self._let_last(found, now)
        self._refused = found
        return found

    def _sticky_key(self) -> str:
        """What keeps its endpoint while that admits: empty where nothing does."""
        turn = self._turn
        policy, found = turn.policy, self._sticks_to
        if policy is None or not policy.sticky.enabled:
            return ""
        if found is None:
            exchange, visit = turn.exchange, turn.visit
            match policy.sticky.key:
                case "user":
                    found = exchange.user
                case "api_key":
                    own = visit.key.doc.id if visit.key is not None else None
                    found = own or visit.credential.provider_key
                case "conversation":
                    found = conversation_of(exchange.doc) if exchange.doc is not None else None
            self._sticks_to = found = found or ""
        return found

    def _order(self, now: float, refused: dict[int, str]) -> None:
        """The order of this request: its own, where endpoints share a tier."""
        standing, policy, names = self.standing, self._turn.policy, self.names
        assert standing is not None
        assert standing.balance is not None
        assert policy is not None
        sticky = self._sticky_key()
        order = standing.balance.order(
            now,
            {names[place] for place in refused},
            digest_of(sticky) if sticky else None,
            policy.sticky.ttl_seconds,
        )
        self.places = [names.index(name) for name in order if name in names]
        self.places += [place for place in range(len(names)) if place not in self.places]
        self._turn.record.original_endpoint = names[self.places[0]]

    def has_moved(self, place: int) -> bool:
        """Whether an answer from there is one of failover: not from the first tier, or not from
        the first that was asked."""
        balance = self.standing.balance if self.standing is not None else None
        if balance is None:
            return place > 0
        name = self.names[place]
        return not balance.is_first(name) or any(
            attempt.endpoint_id != name for attempt in self._turn.record.attempts
        )

    def _refusal(self, place: int, now: float, share: int) -> str:
        standing, name = self.standing, self.names[place]
        assert standing is not None
        if self.is_bound:
            if name != standing.policy.primary_endpoint:
                return PINNED
            self._let_in = (name,)  # failover.md §6: whatever its breaker says
            return ""
        if name in standing.breakers:
            why = standing.refusal(name, share)
            if why and (why != "probing" or not standing.breakers[name].may_probe(now)):
                return why
        return "context_not_larger" if self._is_too_small(place) else ""

    @property
    def is_bound(self) -> bool:
        """Its body names what is kept at one provider account."""
        if self._bound is None:
            doc = self._turn.exchange.doc
            self._bound = doc is not None and bool(bound_by(doc))
        return self._bound

    def _is_too_small(self, place: int) -> bool:
        """A prompt was too long for somebody: only one who says that he takes more may be next."""
        order, most, found = self._turn.order, 0, False
        for attempt in self._turn.record.attempts:
            if attempt.outcome is Outcome.CONTEXT_WINDOW and attempt.endpoint_id in self.names:
                found = True
                failed = order[self.names.index(attempt.endpoint_id)].doc.max_context
                most = max(most, failed or 0)
        own = order[place].doc.max_context
        return found and (own is None or own <= most)

    def _let_last(self, found: dict[int, str], now: float) -> None:
        """Where nobody admits: one who is on his way back and shows that he is well; then the
        primary as if nothing were known, if the policy wants that."""
        standing, names = self.standing, self.names
        assert standing is not None
        asked = {attempt.endpoint_id for attempt in self._turn.record.attempts}
        places = [place for place in self._in_order() if names[place] not in asked]
        if any(place not in found for place in places):
            return
        refused = {names[place]: why for place, why in found.items()}
        order = [names[place] for place in places]
        name = let_in(standing, order, refused, now, "" if asked else names[0])
        if name:
            self._let_in = (name,)
            del found[names.index(name)]

    def _in_order(self) -> Sequence[int]:
        return range(len(self.names)) if self.places is None else self.places

    def skipped_before(self, place: int) -> list[tuple[str, str]]:
        """Those that would have come before that one, and why each was skipped (failover.md §6)."""
        asked = {attempt.endpoint_id for attempt in self._turn.record.attempts}
        told = []
        for each in self._in_order():
            if each == place:
                break
            name = self.names[each]
            why = "tried" if name in asked else self._refused.get(each, "")
            if why:
                told.append((name, why))
        return told

    def other_vectors(self, place: int, model: str | None) -> bool:
        """Of embeddings: it would answer by another model than the primary, and vectors of two
        models cannot be compared."""
        turn = self._turn
        exchange, first = turn.exchange, turn.order[0].doc
        if not place or exchange.surface.operation != "embeddings" or exchange.model is None:
            return False
        return _plain(model or "") != _plain(model_for(first, exchange.model, turn.route.aliases))

    # ---- an attempt

    def start(
        self, candidate: EndpointView, model: str | None, limit_s: float, *, charged: bool
    ) -> Flight | str | None:
        """Take off to that endpoint; a text: why not; None: nobody keeps count."""
        standing, gateway, turn = self.standing, self._gateway, self._turn
        if standing is None:
            return None
        now = gateway.clock.monotonic()
        name = candidate.id
        credential = "" if candidate.own_credential else str(hash(turn.visit.credential))
        holds = standing.holds
        if holds and self._is_held(Key(name, credential, model or "", standing.workspace_id), now):
            return RATE_LIMITED
        breaker = standing.breakers.get(name)
        if breaker is None:
            return "disabled"  # the policy was edited meanwhile
        permit: Permit | None = None
        if breaker.state is _PROBING:
            permit = standing.permit(name, now, standing.probe_limit_s(limit_s))
            if permit is None and name not in self._let_in:
                return "probing"
        if charged and not standing.budget.charge():
            if permit is not None:
                breaker.give_back(permit)
            return BUDGET
        if charged:
            turn.charged = standing
        if holds:
            holds.try_now(Key(name, credential, model or "", standing.workspace_id), now, limit_s)
        turn.flight = gateway.flights.start(
            standing, name, credential, model or "", now, stream=turn.exchange.stream, permit=permit
        )
        return turn.flight

    def _is_held(self, key: Key, now: float) -> bool:
        assert self.standing is not None
        holds, tried = self.standing.holds, self._turn.record.attempts
        if holds.admits(key, now) or (tried and tried[-1].endpoint_id == key.endpoint_id):
            return False  # or it has waited
        self._hold(now + holds.left_s(key, now))
        return True

    def _hold(self, until: float) -> None:
        if self._held_until is None:
            self._held_until = []
        self._held_until.append(until)

    def came(self, attempt: Attempt, *, stream: bool) -> None:
        """The answer has begun, or the attempt is over."""
        self.left()
        flight, standing = self._turn.flight, self.standing
        if flight is None or standing is None:
            return
        outcome = attempt.outcome
        over = outcome is _SUCCESS or outcome is _BLOCKED
        if over and not stream:
            return  # a whole answer is judged when it has been handed on
        now = self._gateway.clock.monotonic()
        if not over:
            flight.ended(now, attempt.outcome, hint_s=attempt.retry_after_s)
            self._turn.flight = None
            if attempt.outcome is Outcome.RATE_LIMITED:
                self._hold(now + standing.holds.left_s(flight.key, now))
        else:
            flight.answered(now)

    def left(self) -> None:
        """Nothing is waited for any more: what was charged is free for others."""
        charged = self._turn.charged
        if charged is not None:
            charged.budget.charged -= 1
            self._turn.charged = None

    # ---- the end

    def hold_left_s(self) -> float | None:
        """How long until the first of the endpoints that are limiting may be asked again."""
        if not self._held_until:
            return None
        return max(1.0, min(self._held_until) - self._gateway.clock.monotonic())

    def admits_in_s(self) -> float:
        """How long until an endpoint may admit: to the next probe, or the end of a hold."""
        standing = self.standing
        if standing is None:
            return 1.0
        now = self._gateway.clock.monotonic()
        waits = [until - now for until in self._held_until or ()]
        for name in self.names:
            breaker = standing.breakers.get(name)
            if breaker is not None and breaker.state in (State.OPEN, State.FORCED_OPEN):
                waits.append(breaker.until - now)
        return max(1.0, min(waits, default=1.0))


def _plain(model: str) -> str:
    """A model's name without the provider that some put before it."""
    return model.rpartition("/")[2].lower()
