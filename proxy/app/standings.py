"""How the endpoints of every policy stand on this node: kept by the control process, which adds up
what its workers count, says what time does, and tells every change once (failover.md §11)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from proxy.app.holding import Holding, limits_of
from proxy.app.messages import (
    no_prefill_message,
    no_prefill_of,
    objects,
    seconds,
    standing_doc,
)
from proxy.app.nodes import Nodes
from proxy.app.probing import Probing
from proxy.app.pushing import Pushing
from proxy.app.turns import Turns
from proxy.link.frames import Message
from proxy.link.peers import Workers
from proxy.model.ports import Clock
from proxy.model.tenancy import SnapshotDoc
from proxy.routing.breaker import Breaker
from proxy.routing.effects import Effect, StateChanged, finds_down
from proxy.routing.merging import counts_from, put_counts, told_from, told_of, whole, wins
from proxy.routing.standing import Standing, down_elsewhere
from proxy.routing.states import State, Told
from proxy.runtime.ids import fraction
from proxy.runtime.tasks import background
from proxy.storage.redis.standings import RedisStandings

TICK_S: Final = 0.25
QUIET_TICKS: Final = 4  # where nothing is wrong, time is looked at once a second
_FORCED: Final = (State.FORCED_OPEN, State.FORCED_CLOSED)
_WAIT: Final = (State.OPEN, *_FORCED)

Publish = Callable[[SnapshotDoc], None]
Tell = Callable[[Standing, Effect, int], None]  # the last one: when, in ms since 1970


class Nobody:
    """No worker is there yet."""

    def slots(self) -> Sequence[int]:
        return ()

    def send(self, slot: int, message: Message) -> None: ...


class NodeStandings:
    """`routing.standings.Standings` and `link.peers.Host` of one node.  `tell` is given every
    change once."""

    def __init__(self, clock: Clock, tell: Tell, chance: Callable[[], float] = fraction) -> None:
        self._clock = clock
        self._tell = tell
        self._chance = chance
        self._standings: dict[tuple[str, str], Standing] = {}
        self._ticks = 0
        self._forgotten = 0  # the highest version of what is not kept any more
        self.workers: Workers = Nobody()
        self.nodes: Nodes | None = None  # None: there are no others
        self.probing = Probing(clock, lambda: self.workers, self._may_probe)
        self.holding = Holding(clock, lambda: self.workers, self.of, self._note, self._push)
        self._pushing = Pushing(clock, lambda: self.workers)
        self._turns = Turns(clock, self._say)
        self._ticking = False
        self._spreading: set[tuple[str, str]] = set()  # by workspace and endpoint

    def __repr__(self) -> str:
        return f"<NodeStandings of {len(self._standings)} policies>"

    # --- routing.standings.Standings

    def of(self, workspace_id: str, policy_id: str) -> Standing | None:
        return self._standings.get((workspace_id, policy_id))

    def all(self) -> Iterable[Standing]:
        return list(self._standings.values())

    def force(
        self, workspace_id: str, policy_id: str, endpoint_id: str, ttl_s: float, reason: str
    ) -> bool:
        standing = self.of(workspace_id, policy_id)
        if standing is None or endpoint_id not in standing.breakers:
            return False
        now = self._clock.monotonic()
        self.changed(standing, standing.force(endpoint_id, now, ttl_s=ttl_s, said=reason))
        return True

    def release(self, workspace_id: str, policy_id: str, reason: str) -> bool:
        standing = self.of(workspace_id, policy_id)
        if standing is None or not any(b.state in _FORCED for b in standing.breakers.values()):
            return False
        self.changed(standing, standing.release(self._clock.monotonic(), said=reason))
        return True

    def between(self, redis: RedisStandings | None) -> None:
        """Share with other nodes over that."""
        self.nodes = None if redis is None else Nodes(redis, self._clock, self.holding)

    # --- policies

    def before(self, publish: Publish) -> Publish:
        """`publish`, before which the policies of the snapshot are known here."""

        def keep_and_publish(snapshot: SnapshotDoc) -> None:
            with self._turns.together():
                self.keep(snapshot)
            publish(snapshot)

        return keep_and_publish

    def keep(self, snapshot: SnapshotDoc) -> None:
        """The active policies of that snapshot, each with what was known of it.

        What comes back starts above all that was forgotten: a worker that has not seen it go still
        knows it, and would believe that."""
        before, self._standings = self._standings, {}
        known = {id(b): b for each in before.values() for b in each.breakers.values()}
        now = self._clock.monotonic()
        for rules in snapshot.workspaces:
            policies = {p.route_id: p for p in rules.failover_policies if p.status == "active"}
            for policy in policies.values():
                name = (rules.id, policy.effective_id)
                standing = before.get(name)
                if standing is None:
                    standing = Standing(policy, self._chance, rules.id, self.holding.holds)
                self._standings[name] = standing
                if standing.policy != policy:
                    self.changed(standing, standing.edit(policy, now))
                for breaker in standing.breakers.values():
                    if known.pop(id(breaker), None) is None and self._forgotten:
                        breaker.version = self._forgotten + 1
        gone = (breaker.version for breaker in known.values())
        self._forgotten = max(self._forgotten, max(gone, default=0))
        alive = {id(each) for each in self._standings.values()}
        self.probing.forget(alive)
        self.holding.forget(alive)

    # --- link.peers.Host

    def joined(self, slot: int) -> None:
        self._turns.do(self._introduce(slot))

    def _introduce(self, slot: int) -> Iterator[None]:
        yield from self._pushing.introduce(slot, self.all())
        now = self._clock.monotonic()
        self.holding.joined(slot, now)

    def left(self, slot: int) -> None:
        self._turns.do(self._lend_to(self.probing.left(slot)))

    def _lend_to(self, standings: Iterable[Standing]) -> Iterator[None]:
        for standing in standings:
            self.lend(standing)
            yield

    def heard(self, slot: int, message: Message) -> None:
        with self._turns.together():
            self._take(slot, message)

    def _take(self, slot: int, message: Message) -> None:
        now = self._clock.monotonic()
        match message.get("t"):
            case "counts":
                for each in objects(message, "of"):
                    self._counted(slot, each, now)
            case "changes":
                for each in objects(message, "of"):
                    self._told(slot, each, now)
            case "probing":
                limit_s = seconds(message, "limit_ms")
                self.probing.used(slot, whole(message, "number"), limit_s)
            case "probed":
                self._probed(slot, message, now)
            case "hold":
                self.holding.held(slot, message, now)
            case "no_prefill":
                self._no_prefill(slot, message, now)
            case "back":  # it was alone for a while, and may have missed something
                self.joined(slot)
            case _:
                raise ValueError("unknown message")

    def _counted(self, slot: int, doc: Message, now: float) -> None:
        standing = self._named(doc)
        if standing is None:
            return
        requests = whole(doc, "requests")
        standing.asked_elsewhere(now, requests, whole(doc, "on_fallback"))
        if requests:
            self.probing.served(standing, slot)
        for each in objects(doc, "counts"):
            counts = counts_from(each)
            breaker = standing.breakers.get(counts.endpoint_id)
            if breaker is not None:
                put_counts(breaker, counts, now)
        self.move(standing, now)

    def _told(self, slot: int, doc: Message, now: float) -> None:
        """A worker has seen a change, or tells what it knows."""
        standing, state, limit = self._named(doc), doc.get("state"), doc.get("limit")
        if isinstance(limit, dict):
            if standing is not None:
                self.holding.told(standing, limit, now)
            return
        if not isinstance(state, dict):
            raise ValueError("a change has a state")
        told = told_from(state)
        breaker = standing.breakers.get(told.endpoint_id) if standing is not None else None
        if standing is None or breaker is None:
            return
        mine = told_of(told.endpoint_id, breaker, now)
        if wins(told, mine):
            self.changed(standing, standing.adopt([told], now), told.ago_ms)
        elif wins(mine, told):
            self.workers.send(slot, {"t": "standings", "of": [standing_doc(standing, now)]})

    def _probed(self, slot: int, message: Message, now: float) -> None:
        lent = self.probing.over(slot, whole(message, "number"))
        if lent is None:
            return
        effects = lent.standing.probed(lent.endpoint_id, now, str(message.get("verdict")))
        if self.nodes is not None:
            self.nodes.probed(lent.standing, lent.endpoint_id)
        if effects:
            self.changed(lent.standing, effects)
        self.move(lent.standing, now)
        self.lend(lent.standing)

    def _no_prefill(self, slot: int, message: Message, now: float) -> None:
        workspace_id, endpoint_id, left_s = no_prefill_of(message)
        for standing in self.all():
            if standing.workspace_id == workspace_id and endpoint_id in standing.breakers:
                standing.prefill_off[endpoint_id] = now + left_s
        for other in self.workers.slots():
            if other != slot:
                told = no_prefill_message(workspace_id, endpoint_id, left_s)
                self.workers.send(other, told)

    # --- time

    async def run(self) -> None:
        """Look at time for ever."""
        if self.nodes is not None:
            background(self.nodes.run(self), name="standings of all nodes")
        background(self._turns.run(), name="turns of the standings")
        while True:
            await self._clock.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Every 250 ms."""
        self._ticks += 1
        for slot in self.workers.slots():
            self.workers.send(slot, {"t": "here"})
        if not self._ticking:
            self._ticking = True
            self._turns.do(self._look_at_time(everywhere=self._ticks % QUIET_TICKS == 0))

    def _look_at_time(self, *, everywhere: bool) -> Iterator[None]:
        try:
            for standing in self.all():
                now = self._clock.monotonic()
                if self._is_kept(standing) and (everywhere or is_due(standing, now)):
                    self.move(standing, now)
                    self.lend(standing)
                yield
        finally:
            self._ticking = False

    def finish(self) -> None:
        """Do all that was begun."""
        self._turns.finish()

    async def close(self) -> None:
        """Tell all that is still to be told: nothing follows."""
        self.finish()
        if self.nodes is not None:
            await self.nodes.exchange(self)

    def move(self, standing: Standing, now: float) -> None:
        """What time and counts have done to it."""
        steps = [breaker.step for breaker in standing.breakers.values()]
        effects = standing.tick(now)
        if effects:
            self.changed(standing, effects)
        elif steps != [breaker.step for breaker in standing.breakers.values()]:
            self._push(standing)

    # --- app.nodes.Node

    def tell(self, standing: Standing, effects: Sequence[Effect], at_ms: int) -> None:
        for effect in effects:
            self._tell(standing, effect, at_ms)

    def follow(self, standing: Standing, told: Sequence[Told]) -> None:
        if not self._is_kept(standing):
            return
        now = self._clock.monotonic()
        before = [_place(each) for each in standing.breakers.values()]
        standing.adopt(told, now)
        if before != [_place(each) for each in standing.breakers.values()]:
            self._push(standing)

    def judge(self, standing: Standing, endpoint_id: str, sums: list[int]) -> None:
        if not self._is_kept(standing):
            return
        effects = standing.judge(endpoint_id, self._clock.monotonic(), sums)
        if effects:
            self.changed(standing, effects)

    def lends(self, standing: Standing, endpoint_id: str) -> bool:
        return self.probing.lends(standing, endpoint_id)

    def lend(self, standing: Standing) -> None:
        if self._is_kept(standing) and standing not in self._pushing:
            self.probing.look(standing)  # else when workers know that it may be probed: `_say`

    # ----

    def changed(self, standing: Standing, effects: Sequence[Effect], ago_ms: int = 0) -> None:
        """Tell it, and every worker."""
        self._note(standing, effects, ago_ms)
        over = [e.endpoint_id for e in limits_of(effects) if e.change.before is State.LIMITED]
        self._push(standing, over)
        for effect in effects:
            if finds_down(effect):
                self._find_down(standing, effect)

    def _note(self, standing: Standing, effects: Sequence[Effect], ago_ms: int) -> None:
        self.holding.noted(standing, effects, self._clock.monotonic() - ago_ms / 1000)
        at_ms = self._clock.now_ms() - ago_ms
        if self.nodes is not None:
            self.nodes.changed(standing, effects, at_ms)
        else:
            self.tell(standing, effects, at_ms)

    def _find_down(self, standing: Standing, effect: StateChanged) -> None:
        """Who is not there at all is there for no policy: told to many, a few at a time."""
        place = (standing.workspace_id, effect.endpoint_id)
        if place not in self._spreading:  # else the others are about to know
            self._spreading.add(place)
            now = self._clock.monotonic()
            others = down_elsewhere(standing, effect, self.all(), now)
            self._turns.do(self._spread(place, others))

    def _spread(
        self, place: tuple[str, str], others: Iterator[tuple[Standing, list[Effect]]]
    ) -> Iterator[None]:
        try:
            for other, more in others:
                if more and self._is_kept(other):
                    self.changed(other, more)
                yield
        finally:
            self._spreading.discard(place)

    def _push(self, standing: Standing, over: Sequence[str] = ()) -> None:
        """How it stands, to every worker; `over`: what is limited no more."""
        with self._turns.together():
            self._pushing.add(standing, over)

    def _say(self) -> None:
        """What has changed, and then who may probe."""
        told = self._pushing.send()
        if told:
            self._turns.do(self._lend_to(told))

    def _may_probe(self, standing: Standing, endpoint_id: str) -> bool:
        return self.nodes is None or self.nodes.may_probe(standing, endpoint_id)

    def _is_kept(self, standing: Standing) -> bool:
        """No: its policy was taken away, while somebody went through all of them."""
        return self.of(standing.workspace_id, standing.policy.effective_id) is standing

    def _named(self, doc: Message) -> Standing | None:
        return self.of(str(doc.get("workspace_id")), str(doc.get("policy_id")))


def _place(breaker: Breaker) -> tuple[int, State, int, float]:
    """What workers have to know of it."""
    return breaker.version, breaker.state, breaker.step, breaker.until


def is_due(standing: Standing, now: float) -> bool:
    """Time may move it now: what is out of use for a while waits for the end of that."""
    return any(
        breaker.state is not State.CLOSED and (breaker.state not in _WAIT or breaker.until <= now)
        for breaker in standing.breakers.values()
    )
