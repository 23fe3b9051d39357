"""Who may probe: permits are pushed to workers, never asked for, so that no request waits for one
(failover.md §11).

The worker that served the policy last gets it; what is not used for two seconds goes to the next
one, and what a dead worker held comes back at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

from proxy.app.messages import named
from proxy.link.peers import Workers
from proxy.model.ports import Clock
from proxy.routing.breaker import LEASE_GRACE_S, Breaker
from proxy.routing.standing import Standing
from proxy.routing.states import Permit, State

UNUSED_S: Final = 2.25  # the worker's own two seconds, and the way
Leave = Callable[[Standing, str], bool]  # of the other nodes


@dataclass(slots=True)
class Lent:
    """A permit that a worker has."""

    standing: Standing
    endpoint_id: str
    slot: int
    permit: Permit
    used: bool = False

    @property
    def breaker(self) -> Breaker | None:
        return self.standing.breakers.get(self.endpoint_id)


class Probing:
    """The permits of one node.  `leave`: whether this node may probe that endpoint now."""

    def __init__(self, clock: Clock, workers: Callable[[], Workers], leave: Leave) -> None:
        self._clock = clock
        self._workers = workers
        self._leave = leave
        self._numbers = count(1)
        self._lent: dict[int, Lent] = {}
        self._numbers_of: dict[int, set[int]] = {}  # by the identity of a standing
        self._served: dict[int, int] = {}  # by the identity of a standing: the slot
        self._passed: dict[int, int] = {}  # the slot that did not use it

    def __repr__(self) -> str:
        return f"<Probing {len(self._lent)} permits lent>"

    def lends(self, standing: Standing, endpoint_id: str) -> bool:
        """Somebody may probe it just now."""
        numbers = self._numbers_of.get(id(standing), ())
        return any(self._lent[each].endpoint_id == endpoint_id for each in numbers)

    def served(self, standing: Standing, slot: int) -> None:
        """That worker had requests of the policy."""
        self._served[id(standing)] = slot

    def forget(self, standings: set[int]) -> None:
        """Other policies are there now: those of these identities."""
        for number, lent in list(self._lent.items()):
            if id(lent.standing) not in standings:
                self._drop(number)
        self._served = {key: slot for key, slot in self._served.items() if key in standings}
        self._passed = {key: slot for key, slot in self._passed.items() if key in standings}

    def look(self, standing: Standing) -> None:
        """Lend what can be lent."""
        now = self._clock.monotonic()
        self._drop_old(standing, now)
        for name, breaker in standing.breakers.items():
            while breaker.state is State.PROBING and breaker.may_probe(now):
                slot = self._next(standing)
                if slot is None or not self._leave(standing, name):
                    break
                permit = breaker.permit(now, 0.0)
                assert permit is not None, "it may be probed"
                permit.deadline = now + UNUSED_S
                number = next(self._numbers)
                self._lent[number] = Lent(standing, name, slot, permit)
                self._numbers_of.setdefault(id(standing), set()).add(number)
                self._workers().send(
                    slot,
                    {"t": "grant", **named(standing), "endpoint_id": name, "number": number},
                )

    def _next(self, standing: Standing) -> int | None:
        slots = sorted(self._workers().slots())
        if not slots:
            return None
        served, passed = self._served.get(id(standing)), self._passed.get(id(standing))
        if served in slots and served != passed:
            return served
        return next((slot for slot in slots if passed is None or slot > passed), slots[0])

    def used(self, slot: int, number: int, limit_s: float) -> None:
        """A probe has begun."""
        lent = self._of(slot, number)
        if lent is not None:
            lent.used = True
            lent.permit.deadline = self._clock.monotonic() + limit_s + LEASE_GRACE_S
            self._passed.pop(id(lent.standing), None)

    def over(self, slot: int, number: int) -> Lent | None:
        """A probe is over; None: nobody waits for it any more."""
        lent = self._of(slot, number)
        if lent is None:
            return None
        self._drop(number)
        breaker = lent.breaker
        if breaker is None or not any(each is lent.permit for each in breaker.permits):
            return None
        self._give_back(lent)
        return lent

    def left(self, slot: int) -> list[Standing]:
        """A worker is gone: what it held comes back."""
        gone = [number for number, each in self._lent.items() if each.slot == slot]
        lent = [self._drop(number) for number in gone]
        for each in lent:
            self._give_back(each)
        return [each.standing for each in lent]

    def _of(self, slot: int, number: int) -> Lent | None:
        lent = self._lent.get(number)
        return lent if lent is not None and lent.slot == slot else None

    def _give_back(self, lent: Lent) -> None:
        breaker = lent.breaker
        if breaker is not None:
            breaker.permits = [each for each in breaker.permits if each is not lent.permit]

    def _drop(self, number: int) -> Lent:
        lent = self._lent.pop(number)
        numbers = self._numbers_of[id(lent.standing)]
        numbers.discard(number)
        if not numbers:
            del self._numbers_of[id(lent.standing)]
        return lent

    def _drop_old(self, standing: Standing, now: float) -> None:
        for number in sorted(self._numbers_of.get(id(standing), ())):
            lent = self._lent[number]
            breaker = lent.breaker
            if lent.permit.deadline <= now:
                if not lent.used:
                    self._passed[id(lent.standing)] = lent.slot
                self._give_back(lent)
            elif breaker is not None and any(each is lent.permit for each in breaker.permits):
                continue
            self._drop(number)
