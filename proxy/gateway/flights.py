"""What this worker knows of endpoints, policy by policy, and the attempts under way.

`routing` decides; here it gets its clock, and what it says is told.  The request path reads what
stands here and waits for nobody.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Protocol

from proxy.gateway.snapshot import RouteView, Rules
from proxy.model.failover import Outcome
from proxy.model.ports import Clock
from proxy.routing.balance import Balance, Load, tiers_of
from proxy.routing.breaker import Breaker
from proxy.routing.effects import Effect, finds_down
from proxy.routing.holds import Holds, Key
from proxy.routing.outcomes import CONSEQUENCES
from proxy.routing.recovery import PREFILL_OFF_S
from proxy.routing.standing import NEVER, Standing, down_elsewhere
from proxy.routing.states import Permit

TICK_S: Final = 1.0
SWEEPS_A_TICK: Final = 9  # within a second, with one to spare
LEAST_TICKS: Final = 100  # that a sweep does at once
AGAINST: Final = frozenset(each for each, told in CONSEQUENCES.items() if told.error)
CLOSED_AT_ONCE: Final = 200
FIRST, WHOLE = "first", "whole"  # to the first content, to the end: what is measured
# A member of an enum is dear to look up in its class: 0.2 µs, as much as a sample of a window.
_SUCCESS: Final = Outcome.SUCCESS
_BLOCKED: Final = Outcome.BLOCKED
_NO_ANSWER: Final = Outcome.NO_ANSWER

Tell = Callable[[Standing, Effect], None]


class Share(Protocol):
    """Other workers, as far as an attempt is of interest to them.  Nothing here waits."""

    def held(self, key: Key, standing: Standing) -> None:
        """An endpoint said no to a request under that policy, or its hold is over."""
        ...

    def prefill_refused(self, workspace_id: str, endpoint_id: str) -> None:
        """An endpoint does not go on with answers, whatever it says of itself."""
        ...

    def failed(self, standing: Standing, endpoint_id: str) -> None:
        """An attempt speaks against its endpoint, and nothing has changed yet."""
        ...

    def probing(self, flight: "Flight") -> None:
        """A probe begins."""
        ...

    def probed(self, flight: "Flight") -> None:
        """A probe is over: `Permit.verdict` says what came of it."""
        ...


class Alone:
    """There are no others."""

    def held(self, key: Key, standing: Standing) -> None: ...
    def prefill_refused(self, workspace_id: str, endpoint_id: str) -> None: ...
    def failed(self, standing: Standing, endpoint_id: str) -> None: ...
    def probing(self, flight: "Flight") -> None: ...
    def probed(self, flight: "Flight") -> None: ...


class Flight:
    """One attempt under a policy, from its start to what became of it.

    Slow is told when it becomes older than the threshold, not when it ends: what hangs ends never
    (failover.md §4.2)."""

    __slots__ = ("_answered", "_heard", "_judged", "_load", "_on", "began", "credential",
                 "endpoint_id", "measured", "model", "permit", "slow_at", "standing")  # fmt: skip

    def __init__(
        self,
        on: "Flights",
        standing: Standing,
        endpoint_id: str,
        credential: str,
        model: str,
        permit: Permit | None,
        slow_at: float,
        began: float,
        measured: str,
    ) -> None:
        self._on = on
        self.standing = standing
        self.endpoint_id = endpoint_id
        self.credential = credential
        self.model = model
        self.permit = permit
        self.slow_at = slow_at
        self.began = began
        self.measured = measured
        self._judged = slow_at == NEVER
        self._heard = self._answered = False
        self._load: Load | None = None
        if standing.balance is not None:
            self._load = standing.balance.loads.get(endpoint_id)
            if self._load is not None:
                self._load.began(began)

    def __repr__(self) -> str:
        return f"<Flight to {self.endpoint_id}>"

    @property
    def key(self) -> Key:
        """What a 429 holds."""
        return Key(self.endpoint_id, self.credential, self.model, self.standing.workspace_id)

    def look(self, now: float) -> None:
        """Time has gone by."""
        if not self._judged and now >= self.slow_at:
            self._slow(now)

    def answered(self, now: float) -> None:
        """Its first content is there, which is what its latency is by unless the whole counts."""
        self._answered = True
        if self._load is not None and not self._heard:
            self._heard = True
            self._load.answered(now, now - self.began)
        self.look(now)
        if self.measured == FIRST:
            self._took(now)
        if not self._judged and self.standing.basis != "total":
            self._judged = True
            self.slow_at = NEVER
            if self._breaker is not None:
                self._breaker.mark_quick(now, self.permit)

    def goes_on(self, now: float) -> bool:
        """A probe whose content came within its limit, and which goes on beyond that, has shown
        what it can: its end may be minutes away.  Whether that is so."""
        permit, breaker = self.permit, self._breaker
        if permit is None or not self._answered or now < self.began + permit.limit_s:
            return False
        effects = self.standing.observe(
            self.endpoint_id, now, _SUCCESS, began=self.began, permit=permit
        )
        if effects:
            self._on.told(self.standing, effects)
        if breaker is not None:
            breaker.give_back(permit)
        self._on.share.probed(self)
        self.permit = None  # from here on it is like any other
        return True

    @property
    def _breaker(self) -> Breaker | None:
        """None: an edit has taken the endpoint out of the policy meanwhile."""
        return self.standing.breakers.get(self.endpoint_id)

    def _took(self, now: float) -> None:
        if self._breaker is not None:
            self._breaker.latencies.add(now, now - self.began)

    def _slow(self, now: float) -> None:
        self._judged, self.slow_at = True, NEVER
        effects = self.standing.mark_slow(self.endpoint_id, now, self.permit)
        if effects:
            self._on.told(self.standing, effects)

    def ended(self, now: float, outcome: Outcome, *, hint_s: float | None = None) -> None:
        """What became of it; the first time counts."""
        under_way = self._on.under_way
        if self not in under_way:
            return
        under_way.discard(self)
        well = outcome is _SUCCESS or outcome is _BLOCKED  # the endpoint did its part
        if well:
            outcome = _SUCCESS
        if self._load is not None:
            self._landed(now, well)
        if not self._judged and (now >= self.slow_at or outcome is _NO_ANSWER):
            self._slow(now)
        if well and self.measured == WHOLE:
            self._took(now)
            if self._breaker is not None:
                self._breaker.latencies.wholes += 1
        effects = self.standing.observe(
            self.endpoint_id, now, outcome, began=self.began, quick=well and not self._judged,
            hinted=hint_s is not None, permit=self.permit,
        )  # fmt: skip
        if not well and (outcome is Outcome.RATE_LIMITED or outcome is Outcome.QUOTA):
            quota = outcome is Outcome.QUOTA
            effects += self.standing.hit(self.key, now, hint_s, quota=quota)
            self._on.share.held(self.key, self.standing)
        elif self.standing.holds and self.standing.holds.of(self.key) is not None:
            effects += self.standing.answered(self.key, now, well=well)
            self._on.share.held(self.key, self.standing)
        if effects:
            self._on.told(self.standing, effects)
        elif outcome is not _SUCCESS and outcome in AGAINST and self._breaker is not None:
            self._on.share.failed(self.standing, self.endpoint_id)
        if self.permit is not None:
            if self._breaker is not None:
                self._breaker.give_back(self.permit)
            self._on.share.probed(self)

    def _landed(self, now: float, well: bool) -> None:
        assert self._load is not None
        if not self._heard:
            if well:
                self._load.answered(now, now - self.began)
            else:
                self._load.failed(now, now - self.began)
        self._load.over()


class Flights:
    """Of one worker."""

    def __init__(self, clock: Clock, chance: Callable[[], float], tell: Tell) -> None:
        self._clock = clock
        self.chance = chance
        self._tell = tell
        self._standings: dict[tuple[str, str], Standing] = {}
        self._awake: dict[int, Standing] = {}
        self._due: deque[Standing] = deque()  # for a tick, a part of them at a time
        self._part = 0
        self._tick_at = 0.0
        self.holds = Holds()
        self.share: Share = Alone()
        self.prefill_off_until: dict[tuple[str, str], float] = {}  # by workspace and endpoint
        self.under_way: set[Flight] = set()
        self._probes: list[Flight] = []
        self._down: dict[tuple[str, str], Iterator[tuple[Standing, list[Effect]]]] = {}

    def __repr__(self) -> str:
        return f"<Flights {len(self.under_way)} under way, {len(self._standings)} policies>"

    def keep(self, rules: Rules) -> None:
        """The policies of these rules, each with what was known of it (failover.md §3)."""
        before, now = self._standings, self._clock.monotonic()
        self._standings = {}
        for space in rules.workspaces.values():
            for view in space.routes.values():
                if view.policy is None:
                    continue
                name = (space.id, view.policy.effective_id)
                standing = before.get(name)
                if standing is None:
                    standing = Standing(view.policy, self.chance, space.id, self.holds)
                elif standing.policy != view.policy:
                    self.told(standing, standing.edit(view.policy, now))
                self._standings[name] = standing
                view.standing = standing
                standing.balance = self._balance(view, standing.balance)
        alive = {id(each) for each in self._standings.values()}
        self._due = deque(each for each in self._due if id(each) in alive)
        self._awake = {key: each for key, each in self._awake.items() if key in alive}

    def _balance(self, view: RouteView, before: Balance | None) -> Balance | None:
        """None: nobody shares a tier, and they are asked in the policy's order."""
        policy = view.policy
        if policy is None or policy.tiers is None:
            return None
        balance = before or Balance(self.chance)
        weights = {each.doc.id: each.doc.weight for each in view.order}
        tiers = [[name for name in tier if name in weights] for tier in tiers_of(policy)]
        balance.edit([tier for tier in tiers if tier], weights)
        return balance

    def of(self, workspace_id: str, policy_id: str) -> Standing | None:
        return self._standings.get((workspace_id, policy_id))

    def all(self) -> Iterable[Standing]:
        return self._standings.values()

    @property
    def awake(self) -> Collection[Standing]:
        """Those that were asked, or that time moves."""
        return self._awake.values()

    def asked(self, standing: Standing, now: float) -> None:
        """A request has come for that policy."""
        standing.asked(now)
        self._awake[id(standing)] = standing

    def wake(self, standing: Standing) -> None:
        """Time moves it from now on."""
        self._awake[id(standing)] = standing

    def start(
        self,
        standing: Standing,
        endpoint_id: str,
        credential: str,
        model: str,
        now: float,
        *,
        stream: bool,
        permit: Permit | None,
    ) -> Flight:
        """An attempt begins.  `credential`: see `Key`."""
        slow_at, basis = standing.slow_at(now, stream=stream), standing.basis
        measured = WHOLE
        if basis != "total":
            measured = FIRST if stream else "" if basis == "ttft" else WHOLE
        flight = Flight(
            self, standing, endpoint_id, credential, model, permit, slow_at, now, measured
        )
        self.under_way.add(flight)
        if permit is not None:
            self._probes.append(flight)
            self.share.probing(flight)
        return flight

    def limited(self, flight: Flight, now: float, hint_s: float | None) -> None:
        """The provider said in its stream, after content, that it is asked too much."""
        effects = flight.standing.hit(flight.key, now, hint_s, quota=False)
        self.share.held(flight.key, flight.standing)
        self.told(flight.standing, effects)

    def takes_prefill(self, workspace_id: str, endpoint_id: str) -> bool:
        """It has not refused to go on with an answer, of late."""
        until = self.prefill_off_until.get((workspace_id, endpoint_id), 0.0)
        return until <= self._clock.monotonic()

    def prefill_refused(self, workspace_id: str, endpoint_id: str) -> None:
        """An endpoint that says that it supports prefills has refused one (failover.md §10.2)."""
        self.no_prefill(workspace_id, endpoint_id, PREFILL_OFF_S)
        self.share.prefill_refused(workspace_id, endpoint_id)

    def no_prefill(self, workspace_id: str, endpoint_id: str, seconds: float) -> None:
        """It is not asked to go on with an answer for so long."""
        until = self._clock.monotonic() + seconds
        self.prefill_off_until[workspace_id, endpoint_id] = until

    def sweep(self) -> None:
        """Every 100 ms: which attempts have become slow, and what time has done to policies: each
        of those to which something happens once a second, a part of them at a time."""
        now = self._clock.monotonic()
        for flight in [each for each in self.under_way if each.slow_at <= now]:
            flight.look(now)
        if self._probes:
            left = [each for each in self._probes if each in self.under_way]
            self._probes = [each for each in left if not each.goes_on(now)]
        self._close_some()
        if now >= self._tick_at:
            self._tick_at = now + TICK_S
            self._due += self._awake.values()
            self._part = max(LEAST_TICKS, -(-len(self._due) // SWEEPS_A_TICK))
        for _ in range(min(self._part, len(self._due))):
            self._tick(self._due.popleft(), now)

    def _tick(self, standing: Standing, now: float) -> None:
        effects = standing.tick(now)
        if effects:
            self.told(standing, effects)
        elif standing.is_idle:  # until somebody asks
            self._awake.pop(id(standing), None)

    def told(self, standing: Standing, effects: Sequence[Effect]) -> None:
        """What has changed here; who is not there at all is there for no policy."""
        self._awake[id(standing)] = standing
        for effect in effects:
            self._tell(standing, effect)
        for effect in effects:
            if finds_down(effect):
                place = (standing.workspace_id, effect.endpoint_id)
                if place not in self._down:  # else the others are about to know
                    now, others = self._clock.monotonic(), self._standings.values()
                    self._down[place] = down_elsewhere(standing, effect, others, now)
                    self._close_some()

    def _close_some(self) -> None:
        """Of those that are closed because nobody is there: no more at once than requests can wait
        for.  The control process closes the others, too."""
        left = CLOSED_AT_ONCE
        while self._down and left:
            place, others = next(iter(self._down.items()))
            for other, more in islice(others, left):
                left -= 1
                if more and self.of(other.workspace_id, other.policy.effective_id) is other:
                    self.told(other, more)
            if left:
                del self._down[place]
