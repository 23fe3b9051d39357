"""How the endpoints of one failover policy stand: which is active, and what a request may do.

Traffic goes to the first endpoint in the policy's order whose breaker is closed (failover.md §6);
where the policy has tiers, that one stands for the tier that is active.
Leaving an endpoint is always allowed; a return that would be the sixth switch within ten minutes
is not made (§3).  Pure: `now` is handed in, what is to be told is returned.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from proxy.model.failover import Conditions, FailoverPolicy, Outcome
from proxy.routing.balance import Balance
from proxy.routing.breaker import Breaker
from proxy.routing.budget import Budget, Rate
from proxy.routing.effects import Effect, Flapping, Recovered, StateChanged, Switched
from proxy.routing.holds import Holds, Key
from proxy.routing.merging import told_of, wins
from proxy.routing.rules import HARD_IN_A_ROW
from proxy.routing.states import Change, Permit, Reason, State, Told

NEVER: Final = float("inf")
FLAP_WINDOW_S: Final = 600.0
FLAP_SWITCHES: Final = 6
FORGOTTEN_S: Final = 30.0
_CLOSED: Final = State.CLOSED
_SUCCESS: Final = Outcome.SUCCESS
_ADMIT: Final = (State.CLOSED, State.FORCED_CLOSED)
_REFUSALS: Final = {
    State.OPEN: "open",
    State.PROBING: "probing",
    State.RAMP: "ramping",
    State.FORCED_OPEN: "forced",
}


def down_elsewhere(
    found_by: "Standing", effect: StateChanged, others: Iterable["Standing"], now: float
) -> Iterator[tuple["Standing", list[Effect]]]:
    """An endpoint where nobody is there is closed for every policy of the workspace, to the end of
    the same cool-down (failover.md §2, §5 d).  `effect`: one that `finds_down`.  When the others'
    turn comes, `found_by` may have been edited."""
    until = found_by.breakers[effect.endpoint_id].until
    return _closed(found_by, effect.endpoint_id, others, now, until)


def _closed(
    found_by: "Standing", name: str, others: Iterable["Standing"], now: float, until: float
) -> Iterator[tuple["Standing", list[Effect]]]:
    for other in others:
        if other is not found_by and other.workspace_id == found_by.workspace_id:
            yield other, other.is_down(name, now, until)


class Standing:
    """Of one policy in one process.  `holds` are those of its workspace.

    `limited`: endpoints whose own key has been refused with a 429, each with the time until when.
    Another key or model may still be asked there, so a hold only refuses by itself; here it moves
    what is called active (failover.md §6).  `prefill_off`: endpoints that have refused to go on
    with an answer, each with the time until when they are not asked to (§10.2)."""

    def __init__(
        self,
        policy: FailoverPolicy,
        chance: Callable[[], float],
        workspace_id: str = "default",
        holds: Holds | None = None,
    ) -> None:
        self.policy = policy
        self._slow_stream_s = self._slow_unary_s = NEVER
        self.basis: str = "auto"
        self._read(policy.conditions)
        self.workspace_id = workspace_id
        self.holds = Holds() if holds is None else holds
        self.limited: dict[str, float] = {}
        self.prefill_off: dict[str, float] = {}
        self._chance = chance
        self.order: tuple[str, ...] = (policy.primary_endpoint, *policy.fallback_endpoints)
        self.breakers = {name: self._breaker() for name in self.order}
        self.balance: Balance | None = None  # in a worker, where the policy has tiers
        self.active: str | None = self.order[0]
        self.since = 0.0
        self.switches: deque[float] = deque()
        self.flap_until = 0.0
        self.on_fallback = 0
        self.follows = False  # another process says what time does
        self.fresh = [0, 0]  # requests, and those on a fallback, since they were last told
        self.rate = Rate()
        said = policy.request_failover
        self.budget = Budget(said.budget_percent, said.min_concurrency)

    def __repr__(self) -> str:
        return f"<Standing of {self.policy.effective_id}: {self.active or 'nobody'} is active>"

    def _breaker(self) -> Breaker:
        return Breaker(self.policy.conditions, self.policy.recovery, self._chance)

    def edit(self, policy: FailoverPolicy, now: float) -> list[Effect]:
        """Take an edited policy: what is known of endpoints that stay is kept (§3)."""
        self.policy = policy
        self._read(policy.conditions)
        self.order = (policy.primary_endpoint, *policy.fallback_endpoints)
        kept = self.breakers
        self.breakers = {name: kept.get(name) or self._breaker() for name in self.order}
        self.limited = {name: at for name, at in self.limited.items() if name in self.breakers}
        for name, breaker in self.breakers.items():
            breaker.edit(policy.conditions, policy.recovery)
            if breaker.state is _CLOSED and name not in self.limited:
                breaker.opened_at = now  # it is well: who makes it active ends no outage of it
        said = policy.request_failover
        self.budget.percent, self.budget.least = said.budget_percent, said.min_concurrency
        return self._settled(now, Reason("manual", said="the policy was edited"))

    # ---- a request

    @property
    def is_idle(self) -> bool:
        """Nothing happens to it, and time alone changes nothing about it."""
        if self.rate.is_some or self.limited:
            return False
        for each in self.breakers.values():
            if each.state is not _CLOSED or each.level or not each.window.is_empty:
                return False
            if not each.is_well:
                return False
        return True

    def asked(self, now: float) -> None:
        """A request came."""
        self.rate.add(now)
        self.fresh[0] += 1
        if self.active != self.order[0]:
            self.on_fallback += 1
            self.fresh[1] += 1

    def refusal(self, name: str, share: int) -> str:
        """Why that endpoint is not to be asked; "" when it is.  `share`: 0 to 99, where this
        request falls in a ramp.  One that is probed needs a permit."""
        breaker = self.breakers[name]
        if breaker.state in _ADMIT:
            return ""
        if breaker.state is State.RAMP and share < breaker.percent:
            return ""
        return _REFUSALS[breaker.state]

    def permit(self, name: str, now: float, limit_s: float) -> Permit | None:
        """The leave to probe it."""
        return self.breakers[name].permit(now, limit_s)

    def may_be_last(self, name: str, now: float) -> bool:
        """Whether it may take what nobody else takes, though it is not back: it shows that it is
        well (it ramps; or a probe was good and none was bad), or what was known of it is older
        than any cool-down, because nobody has asked."""
        breaker = self.breakers[name]
        if breaker.state is not State.PROBING:
            return breaker.state is State.RAMP
        if breaker.bad_probes or breaker.slow_probes:
            return False
        idle_s = now - breaker.since
        return breaker.good_probes > 0 or idle_s >= breaker.recovery.max_cooldown_seconds

    def slow_at(self, now: float, *, stream: bool) -> float:
        """When an attempt that begins now is slow: never, where no latency is judged (§4.2)."""
        return now + (self._slow_stream_s if stream else self._slow_unary_s)

    def _read(self, conditions: Conditions) -> None:
        threshold_ms = conditions.latency_threshold_ms
        self._slow_stream_s = NEVER if threshold_ms is None else threshold_ms / 1000
        self.basis = conditions.latency_basis
        unary = self.basis != "ttft"
        self._slow_unary_s = self._slow_stream_s if unary else NEVER

    def probe_limit_s(self, first_content_s: float) -> float:
        """How long a probe may take: it costs its caller that much (§7.1)."""
        threshold_ms = self.policy.conditions.latency_threshold_ms
        return first_content_s if threshold_ms is None else min(
            first_content_s, 2 * threshold_ms / 1000
        )  # fmt: skip

    # ---- what happened

    def mark_slow(self, name: str, now: float, permit: Permit | None = None) -> list[Effect]:
        """See `Breaker.mark_slow`."""
        breaker = self.breakers.get(name)
        return [] if breaker is None else self._after(name, now, breaker.mark_slow(now, permit))

    def observe(
        self,
        name: str,
        now: float,
        outcome: Outcome,
        *,
        began: float,
        quick: bool = False,
        hinted: bool = False,
        permit: Permit | None = None,
    ) -> list[Effect]:
        """An attempt has ended: see `Breaker.observe`.  Nothing is kept of an endpoint that an edit
        has taken out of the policy meanwhile."""
        breaker = self.breakers.get(name)
        if breaker is None:
            return []
        if outcome is _SUCCESS and permit is None and breaker.state is _CLOSED:
            breaker.good(now, quick)
            return []
        change = breaker.observe(
            now, outcome, began=began, quick=quick, hinted=hinted, permit=permit
        )
        return [] if change is None else self._after(name, now, change)

    def hit(self, key: Key, now: float, hint_s: float | None, *, quota: bool) -> list[Effect]:
        """That key was refused with a 429, or because money has run out: it is held."""
        until = self.holds.hit(key, now, hint_s, quota=quota)
        return [] if key.credential else self.limit(key.endpoint_id, now, until, quota=quota)

    def answered(self, key: Key, now: float, *, well: bool) -> list[Effect]:
        """What came of an attempt with that key that was no 429.  One that was under way when the
        others were refused says nothing of when its provider wants to be asked again."""
        well = well and self.holds.left_s(key, now) <= 0
        self.holds.ended(key, well=well)
        return self.unlimit(key.endpoint_id, now) if well and not key.credential else []

    def limit(self, name: str, now: float, until: float, *, quota: bool) -> list[Effect]:
        """The endpoint's own key is held until then."""
        if name not in self.breakers or self.breakers[name].state is not State.CLOSED:
            return []
        fresh = name not in self.limited
        self.limited[name] = max(until, self.limited.get(name, 0.0))
        if not fresh:
            return []
        self.breakers[name].opened_at = now
        reason = Reason("quota" if quota else "rate_limited", left_s=until - now)
        return self._limits(name, now, Change(State.CLOSED, State.LIMITED, reason))

    def unlimit(self, name: str, now: float) -> list[Effect]:
        """It answers again."""
        if self.limited.pop(name, None) is None:
            return []
        return self._limits(name, now, Change(State.LIMITED, State.CLOSED))

    def _limits(self, name: str, now: float, change: Change) -> list[Effect]:
        told: list[Effect] = [StateChanged(name, change)]
        return told + self._settled(now, change.reason or Reason("recovered"), counts=False)

    def tick(self, now: float) -> list[Effect]:
        """Time has gone by: a second at most, for cool-downs and steps of a ramp."""
        effects: list[Effect] = []
        for name, until in list(self.limited.items()):
            if now >= until + FORGOTTEN_S:  # nobody asks with that key any more
                effects += self.unlimit(name, now)
        rps = self.rate.per_s(now)
        if self.follows:
            for each in self.breakers.values():
                each.decay(now)
                each.expire(now)
                each.window.advance(now)
            return effects
        for name in self.order:
            breaker = self.breakers[name]
            if breaker.state is State.CLOSED:
                change = breaker.tick(now, rps=rps)
                if change is not None:
                    effects += self._after(name, now, change)
                continue
            returns = breaker.would_return(now) and self._is_before_active(name)
            change = breaker.tick(
                now, rps=rps, may_return=not returns or self._may_return(name, now, effects)
            )
            effects += self._after(name, now, change)
        return effects

    def force(self, name: str, now: float, *, ttl_s: float, said: str = "") -> list[Effect]:
        """All traffic to that endpoint for so long, whatever happens: the others are held open.
        `said`: why, by the operator.  It is a decision, also where that endpoint was active."""
        effects: list[Effect] = []
        self.limited.clear()
        for each in self.order:
            change = self.breakers[each].force(now, closed=each == name, ttl_s=ttl_s, said=said)
            effects.append(StateChanged(each, change))
        reason = Reason("manual", said=said)
        return effects + (self._settled(now, reason) or [Switched(name, name, reason)])

    def release(self, now: float, *, said: str = "") -> list[Effect]:
        effects: list[Effect] = []
        for each in self.order:
            change = self.breakers[each].release(now)
            if change is not None:
                effects.append(StateChanged(each, change))
        return effects + self._settled(now, Reason("manual", said=said))

    # ---- other processes

    def asked_elsewhere(self, now: float, requests: int, on_fallback: int) -> None:
        """Requests have come to another process."""
        self.rate.add(now, requests)
        self.on_fallback += on_fallback

    def probed(self, name: str, now: float, verdict: str) -> list[Effect]:
        """A probe of another process is over: see `Permit.verdict`."""
        return self._after(name, now, self.breakers[name].probe_came(now, verdict))

    def judge(self, name: str, now: float, sums: list[int]) -> list[Effect]:
        """What is known of an endpoint in all processes together."""
        breaker = self.breakers[name]
        reason = breaker.trips(now, sums) if breaker.state in (State.CLOSED, State.RAMP) else None
        return [] if reason is None else self._after(name, now, breaker.open(now, reason))

    def adopt(self, told: Iterable[Told], now: float) -> list[Effect]:
        """Stand as another process says, where it knows better (`merging.wins`)."""
        effects: list[Effect] = []
        reason, at = Reason("recovered"), now
        for each in told:
            breaker = self.breakers.get(each.endpoint_id)
            if breaker is None or not wins(each, told_of(each.endpoint_id, breaker, now)):
                continue
            change = breaker.adopt(now, each)
            if change is not None:
                self.limited.pop(each.endpoint_id, None)  # its breaker says more
                effects.append(StateChanged(each.endpoint_id, change))
                reason, at = change.reason or reason, breaker.since
        return effects + self._settled(at, reason) if effects else effects

    def is_down(self, name: str, now: float, until: float) -> list[Effect]:
        """Another policy of the workspace has found that nobody is there (failover.md §2)."""
        breaker = self.breakers.get(name)
        if breaker is None or breaker.state not in (State.CLOSED, State.RAMP):
            return []
        change = breaker.open(now, Reason("hard_failure", HARD_IN_A_ROW, HARD_IN_A_ROW, 0))
        breaker.until = until
        return self._after(name, now, change)

    # ----

    def _is_before_active(self, name: str) -> bool:
        return self.active is None or self.order.index(name) < self._place(self.active)

    def _place(self, name: str | None) -> int:
        return self.order.index(name) if name in self.order else len(self.order)

    def _may_return(self, name: str, now: float, effects: list[Effect]) -> bool:
        if now < self.flap_until:
            return False
        while self.switches and self.switches[0] <= now - FLAP_WINDOW_S:
            self.switches.popleft()
        if self.active is None or len(self.switches) < FLAP_SWITCHES - 1:
            return True
        self.flap_until = now + FLAP_WINDOW_S
        effects.append(Flapping(name, self.flap_until))
        return False

    def _after(self, name: str, now: float, change: Change | None) -> list[Effect]:
        if change is None:
            return []
        effects: list[Effect] = [StateChanged(name, change)]
        self.limited.pop(name, None)  # its breaker says more
        return effects + self._settled(now, change.reason or Reason("recovered"))

    def _settled(self, now: float, reason: Reason, *, counts: bool = True) -> list[Effect]:
        """Which endpoint is active now, and what that means.  `counts`: as a switch that may be one
        too many; when to come back to a limited endpoint its provider says."""
        admits = (
            name
            for name in self.order
            if self.breakers[name].state in _ADMIT and name not in self.limited
        )
        before, after = self.active, next(admits, None)
        if before == after:
            return []
        self.active, self.since = after, now
        if after is None:
            return [Switched(before, None, reason)]
        if counts:
            self.switches.append(now)
        if before is not None and self._place(after) > self._place(before):
            return [Switched(before, after, reason)]
        came_back = self.breakers[after]
        outage = Recovered(before, after, now - came_back.opened_at, self.on_fallback)
        if after == self.order[0]:
            self.on_fallback = 0
        return [Switched(before, after, reason), outage] if reason.code == "manual" else [outage]

    @property
    def state(self) -> str:
        """In the API's words (failover.md §1)."""
        primary = self.breakers[self.order[0]].state
        if State.FORCED_CLOSED in {each.state for each in self.breakers.values()}:
            return "forced"
        if self.active is None:
            return "exhausted"
        if self.active == self.order[0]:
            return "normal"
        return "recovering" if primary in (State.PROBING, State.RAMP) else "failed_over"
