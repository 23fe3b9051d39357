"""Who may probe: permits are pushed to workers, never asked for, so that no request waits for one
(failover.md §11).

The worker that served the policy last gets it; what is not used for two seconds is everybody's, and
then whoever is asked first uses it: the workers have a claim for that (`app.claiming`), which one
holds at a time.  What a dead worker held comes back at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

from proxy.app.messages import named
from proxy.app.sharing import GRANT_S
from proxy.link.frames import Message
from proxy.link.peers import Workers
from proxy.model.ports import Clock
from proxy.routing.breaker import LEASE_GRACE_S, Breaker
from proxy.routing.standing import Standing
from proxy.routing.states import Permit, State

FIRST_S: Final = 2.0  # for who served last; what is not used meanwhile moves on
RENEW_S: Final = 1.0  # what is everybody's is told again, so that there is always one
UNUSED_S: Final = GRANT_S + 0.25  # the worker's own time, and the way
Leave = Callable[[Standing, str], bool]  # of the other nodes


@dataclass(slots=True)
class Lent:
    """A permit that a worker has.  `slot` None: all have it, and nobody has used it yet.
    `moves_at`: when it is everybody's, or told to them again."""

    standing: Standing
    endpoint_id: str
    slot: int | None
    permit: Permit
    moves_at: float
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
        self._numbers = count(clock.now_ms())  # none of a control process before this one
        self._lent: dict[int, Lent] = {}
        self._numbers_of: dict[int, set[int]] = {}  # by the identity of a standing
        self._served: dict[int, int] = {}  # by the identity of a standing: the slot
        self._passed: set[int] = set()  # where who served last did not use it

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
        self._passed &= standings

    def look(self, standing: Standing) -> None:
        """Lend what can be lent."""
        now = self._clock.monotonic()
        self._drop_old(standing, now)
        self._move_on(standing, now)
        for name, breaker in standing.breakers.items():
            while breaker.state is State.PROBING and breaker.may_probe(now):
                if not self._workers().slots() or not self._leave(standing, name):
                    break
                permit = breaker.permit(now, 0.0)
                assert permit is not None, "it may be probed"
                permit.deadline = now + UNUSED_S
                number = next(self._numbers)
                lent = Lent(standing, name, self._first(standing), permit, now + FIRST_S)
                self._lent[number] = lent
                self._numbers_of.setdefault(id(standing), set()).add(number)
                self._say("grant", number, lent)

    def _first(self, standing: Standing) -> int | None:
        """Who served last; None: all."""
        served = self._served.get(id(standing))
        alone = id(standing) not in self._passed and served in self._workers().slots()
        return served if alone else None

    def _move_on(self, standing: Standing, now: float) -> None:
        """What nobody used is everybody's, as long as this node may probe."""
        for number in sorted(self._numbers_of.get(id(standing), ())):
            lent = self._lent[number]
            if lent.used or now < lent.moves_at or not self._leave(standing, lent.endpoint_id):
                continue
            self._passed.add(id(standing))
            lent.slot, lent.moves_at = None, now + RENEW_S
            lent.permit.deadline = now + UNUSED_S
            self._say("grant", number, lent)

    def _say(self, what: str, number: int, lent: Lent) -> None:
        message: Message = {
            "t": what, **named(lent.standing), "endpoint_id": lent.endpoint_id, "number": number
        }  # fmt: skip
        for slot in self._workers().slots() if lent.slot is None else (lent.slot,):
            self._workers().send(slot, message)

    def used(self, slot: int, number: int, limit_s: float) -> None:
        """A probe has begun."""
        lent = self._of(slot, number)
        if lent is not None and not lent.used:
            if lent.slot is None:
                self._say("taken", number, lent)
            lent.used, lent.slot = True, slot
            lent.permit.deadline = self._clock.monotonic() + limit_s + LEASE_GRACE_S
            self._passed.discard(id(lent.standing))

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
        return lent if lent is not None and lent.slot in (None, slot) else None

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
                    self._passed.add(id(lent.standing))
                self._give_back(lent)
            elif breaker is not None and any(each is lent.permit for each in breaker.permits):
                continue
            self._drop(number)
