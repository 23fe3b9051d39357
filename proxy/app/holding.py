"""Which endpoints have said no to their own key, on one node: what a worker was told all workers
know, and all nodes (failover.md §2, §7.2, §11)."""

from collections.abc import Callable, Sequence
from typing import Final

from proxy.app.between import HELD, Held, HoldsBetween, Mark, held_mark, limited_mark
from proxy.app.messages import held_key, hold_message, seconds
from proxy.link.frames import Message
from proxy.link.peers import Workers
from proxy.model.ports import Clock
from proxy.routing.effects import Effect, StateChanged, is_limit
from proxy.routing.holds import LATER_S, Holds, Key
from proxy.routing.merging import whole
from proxy.routing.standing import Standing

NEVER: Final = float("-inf")

Of = Callable[[str, str], Standing | None]  # by workspace and policy
Changed = Callable[[Standing, Sequence[Effect], int], None]  # and how many ms ago
Push = Callable[[Standing, Sequence[str]], None]  # and the endpoints that are limited no more


class Holding:
    """`changed` is given every change once; `push` tells all workers how a policy stands."""

    def __init__(
        self, clock: Clock, workers: Callable[[], Workers], of: Of, changed: Changed, push: Push
    ) -> None:
        self._clock = clock
        self._workers = workers
        self._of = of
        self._changed = changed
        self._push = push
        self._changed_at: dict[tuple[int, str], float] = {}  # by the identity of a standing
        self.holds = Holds()
        self.between: HoldsBetween | None = None  # None: there are no other nodes
        self.ring: Callable[[], None] = _nobody

    def __repr__(self) -> str:
        return f"<Holding {self.holds!r}>"

    def forget(self, standings: set[int]) -> None:
        """Other policies are there now: those of these identities."""
        kept = self._changed_at.items()
        self._changed_at = {key: at for key, at in kept if key[0] in standings}

    def noted(self, standing: Standing, effects: Sequence[Effect], at: float) -> None:
        """That is told."""
        for each in limits_of(effects):
            self._changed_at[id(standing), each.endpoint_id] = at

    # --- workers

    def joined(self, slot: int, now: float) -> None:
        """A worker is there, or has new rules."""
        for key in self.holds.own():
            self._workers().send(slot, hold_message(key, self.holds.of(key), now))

    def held(self, slot: int, message: Message, now: float) -> None:
        """A worker was told no, or was answered again.  Raises ValueError."""
        key, left_s = held_key(message), seconds(message, "left_ms")
        standing = self._of(key.workspace_id, str(message.get("policy_id")))
        quota = message.get("quota") is True
        policy_id = "" if standing is None else standing.policy.effective_id
        effects: list[Effect] = []
        if left_s <= 0:
            if self.holds.left_s(key, now) > LATER_S:  # the later end wins: it is to try again then
                known = hold_message(key, self.holds.of(key), now, policy_id)
                self._workers().send(slot, known)
                return
            if self.holds.of(key) is not None:
                self.holds.ended(key, well=True)
                self._over(key)
            if standing is not None:
                effects = standing.unlimit(key.endpoint_id, now)
        else:
            in_a_row = whole(message, "in_a_row")
            learned = self.holds.learn(key, now, left_s, in_a_row=in_a_row, quota=quota)
            if learned:
                self._met(held_mark(key), now + left_s, in_a_row=in_a_row, quota=quota)
            if standing is not None:
                effects = self._limit(standing, key.endpoint_id, now, now + left_s, quota=quota)
            if not learned and not effects:
                return
        if standing is not None and effects:
            self._changed(standing, effects, 0)
        self._tell(key, now, policy_id, but=slot if left_s > 0 else None)  # it may have heard less

    def told(self, standing: Standing, limit: Message, now: float) -> None:
        """A worker was alone when an endpoint was limited, or was so no more.  What several workers
        met each by itself is one change: what began before the last one that was told, and is over,
        is part of that.  Raises ValueError."""
        name, ago_ms = str(limit.get("endpoint_id")), whole(limit, "ago_ms")
        left_s, over = seconds(limit, "left_ms"), limit.get("over") is True
        known, quota = limit.get("known") is True, limit.get("quota") is True
        last = self._changed_at.get((id(standing), name), NEVER)
        at = now - ago_ms / 1000
        if left_s <= 0 and (known or at <= last):
            return
        at = max(at, last)
        if not over:
            effects = self._limit(standing, name, at, now + left_s, quota=quota)
        elif standing.limited.get(name, at) <= at + LATER_S:
            effects = standing.unlimit(name, at)
        else:
            return  # another worker was told no for longer
        if not effects:
            return
        if not known:
            self._changed(standing, effects, round((now - at) * 1000))
        self._push(standing, [name] if over else [])

    def _limit(
        self, standing: Standing, name: str, at: float, until: float, *, quota: bool
    ) -> list[Effect]:
        effects = standing.limit(name, at, until, quota=quota)
        if name in standing.limited:
            self._met(limited_mark(standing, name), standing.limited[name], quota=quota)
        return effects

    def _tell(self, key: Key, now: float, policy_id: str = "", but: int | None = None) -> None:
        """How it stands, to the workers."""
        told = hold_message(key, self.holds.of(key), now, policy_id)
        for slot in self._workers().slots():
            if slot != but:
                self._workers().send(slot, told)

    # --- nodes

    def _met(self, mark: Mark, until: float, *, in_a_row: int = 0, quota: bool) -> None:
        if self.between is None or until <= self._clock.monotonic() + LATER_S:
            return
        if self.between.met(mark, until, in_a_row=in_a_row, quota=quota):
            self.ring()

    def _over(self, key: Key) -> None:
        if self.between is not None:
            self.between.over(held_mark(key))
            self.ring()

    def hears(self, mark: Mark, held: Held) -> None:
        """See `app.between.Hears`."""
        now = self._clock.monotonic()
        if mark.kind == HELD:
            if self._hears_of_key(mark.key, held, now):
                self._tell(mark.key, now)
            return
        standing = self._of(mark.workspace_id, mark.of)
        if standing is not None and _hears_of_limit(standing, mark.at, held, now):
            self._push(standing, [mark.at] if held.over else [])

    def _hears_of_key(self, key: Key, held: Held, now: float) -> bool:
        left_s = self.holds.left_s(key, now)
        if held.over:
            if self.holds.of(key) is None or left_s > LATER_S:
                return False
            self.holds.ended(key, well=True)
            return True
        return held.left_s > left_s + LATER_S and self.holds.learn(
            key, now, held.left_s, in_a_row=held.in_a_row, quota=held.quota
        )

    def limited_again(self, mark: Mark, *, quota: bool) -> tuple[Standing, list[Effect]] | None:
        """See `app.between.Hears`."""
        standing, now = self._of(mark.workspace_id, mark.of), self._clock.monotonic()
        until = None if standing is None else standing.limited.get(mark.at)
        if standing is None or until is None:
            return None
        standing.unlimit(mark.at, now)  # that is told by others
        return standing, standing.limit(mark.at, now, until, quota=quota)


def limits_of(effects: Sequence[Effect]) -> list[StateChanged]:
    """Those by which an endpoint was limited, or was so no more."""
    return [each for each in effects if isinstance(each, StateChanged) and is_limit(each)]


def _hears_of_limit(standing: Standing, name: str, held: Held, now: float) -> bool:
    """Whether that is news."""
    until = standing.limited.get(name)
    if held.over:
        return until is not None and until <= now + LATER_S and bool(standing.unlimit(name, now))
    if held.left_s <= LATER_S or (until is not None and now + held.left_s <= until + LATER_S):
        return False
    standing.limit(name, now, now + held.left_s, quota=held.quota)
    return standing.limited.get(name) != until  # its breaker may say more


def _nobody() -> None:
    """Nobody is there to hear it."""
