"""Whether an endpoint may be asked under one policy: the state machine of failover.md §3, §5, §7.

    CLOSED -trip-> OPEN -cool-down-> PROBING -3 good-> RAMP 25, 50 % -> CLOSED
                     ^------ one bad ---'  ^----- trip ----'

No clock, no chance and no I/O of its own: `now` is handed in (seconds, never going back), so is
`chance`, which spreads cool-downs.  Every change is returned; who keeps the breaker tells it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.model.failover import Conditions, Outcome, Recovery
from proxy.routing import window as fields
from proxy.routing.latencies import Latencies
from proxy.routing.outcomes import CONSEQUENCES
from proxy.routing.rules import by_errors, by_kind, by_latency, by_limits
from proxy.routing.states import Change, Grant, Permit, Reason, State, Told
from proxy.routing.window import Window

DECAY_S: Final = 60.0
STEADY_S: Final = 10
LATELY_S: Final = 2
STEADY_SAMPLES: Final = 5
JITTER: Final = 0.1
QUIET_RPS: Final = 1.0
LEASE_GRACE_S: Final = 5.0


_CLOSED: Final = State.CLOSED
_SUCCESS: Final = Outcome.SUCCESS


class Breaker:
    """Of one policy and one endpoint."""

    def __init__(
        self, conditions: Conditions, recovery: Recovery, chance: Callable[[], float]
    ) -> None:
        self._chance = chance
        self.conditions = conditions
        self.recovery = recovery
        self.state = State.CLOSED
        self.version = 0
        self.level = 0
        self.since = 0.0  # of the state
        self.until = 0.0  # of OPEN and of what an operator forced
        self.opened_at = 0.0  # when it was last seen healthy
        self.reason: Reason | None = None
        self.window = Window(conditions.window_seconds)
        self.latencies = Latencies(conditions.window_seconds)
        self.step = 0
        self._decayed_at = 0.0
        self.errors_in_a_row = self.slow_in_a_row = 0
        self.hard_in_a_row = self.config_in_a_row = 0
        self.config_code = ""
        self.permits: list[Permit] = []
        self.grants: list[Grant] | None = None  # None: it gives permits by itself
        self.runs_told = [0, 0, 0, 0]  # how long the runs were when they were last told
        self.good_probes = self.bad_probes = self.slow_probes = 0

    def __repr__(self) -> str:
        return f"<Breaker {self.state} level {self.level} {self.window!r}>"

    def edit(self, conditions: Conditions, recovery: Recovery) -> None:
        """Take the members of an edited policy; state and samples stay (failover.md §3)."""
        if conditions.window_seconds != self.conditions.window_seconds:
            self.window = Window(conditions.window_seconds)
            self.latencies = Latencies(conditions.window_seconds)
        self.conditions, self.recovery = conditions, recovery

    # ---- what happened

    def mark_slow(self, now: float, permit: Permit | None = None) -> Change | None:
        """An attempt has just become older than the threshold.  Once for each attempt: its end
        counts no second verdict."""
        if permit is not None:
            permit.slow, permit.verdict = True, "slow"
            return self._probe_slow(now)
        if not self._counts:
            return None
        self.slow_in_a_row += 1
        self.window.add(now, fields.VERDICTS, fields.SLOW)
        return self._judge(now)

    def mark_quick(self, now: float, permit: Permit | None = None) -> None:
        """An attempt has answered below the threshold, and goes on.  Once for each attempt."""
        if permit is None and self._counts:
            self.slow_in_a_row = 0
            self.window.add(now, fields.VERDICTS)

    def observe(
        self,
        now: float,
        outcome: Outcome,
        *,
        began: float,
        quick: bool = False,
        hinted: bool = False,
        permit: Permit | None = None,
    ) -> Change | None:
        """An attempt that `began` then has ended.  `quick`: a success below the latency threshold;
        `hinted`: a 429 that says until when; `permit`: it was this probe."""
        if outcome is _SUCCESS and permit is None and self.state is _CLOSED:
            self.good(now, quick)
            return None
        if permit is not None:
            return self._probed(now, outcome, permit)
        if not self._counts or (self.state is State.RAMP and began < self.since):
            return None
        told = CONSEQUENCES[outcome]
        if not told.sample:
            self.window.leave_out(now, outcome)
            return None
        if outcome is _SUCCESS:
            self.good(now, quick)
            return None
        if told.error:
            self.errors_in_a_row += 1
            self.window.add(now, fields.ATTEMPTS, fields.OUTCOMES, fields.ERRORS)
        elif outcome is Outcome.RATE_LIMITED:
            limited = fields.HINTED if hinted else fields.LIMITED
            self.window.add(now, fields.ATTEMPTS, fields.OUTCOMES, limited)
        else:
            self.window.add(now, fields.ATTEMPTS, fields.OUTCOMES)
        self.hard_in_a_row = self.hard_in_a_row + 1 if told.hard else 0
        if told.config:
            self.config_in_a_row += 1
            self.config_code = told.config
        else:
            self.config_in_a_row = 0
        return self._judge(now)

    def good(self, now: float, quick: bool) -> None:
        """A success of an endpoint that is closed or ramps: the commonest end by far."""
        if self.errors_in_a_row or self.hard_in_a_row or self.config_in_a_row:
            self.errors_in_a_row = self.hard_in_a_row = self.config_in_a_row = 0
        if quick:
            self.slow_in_a_row = 0
        self.window.add_good(now, quick)

    @property
    def _counts(self) -> bool:
        return self.state in (State.CLOSED, State.RAMP)

    # ---- trip

    def trips(self, now: float, sums: list[int] | None = None) -> Reason | None:
        """The first rule of failover.md §5 that holds; `sums`: of more than its own window."""
        self.window.advance(now)
        said, n = self.conditions, self.window.totals if sums is None else sums
        return (
            by_kind(self.hard_in_a_row, self.config_in_a_row, self.config_code)
            or by_errors(said, n, self.errors_in_a_row)
            or by_latency(said, n, self.slow_in_a_row)
            or by_limits(said, n)
        )

    def _judge(self, now: float) -> Change | None:
        reason = self.trips(now)
        return None if reason is None else self.open(now, reason)

    def open(self, now: float, reason: Reason) -> Change:
        """Close the endpoint to traffic for the next step of the ladder of cool-downs."""
        said = self.recovery
        cooldown_s = min(
            said.cooldown_seconds * said.backoff_multiplier**self.level, said.max_cooldown_seconds
        )
        if self.state in (State.CLOSED, State.FORCED_CLOSED):
            self.opened_at = now
        cooldown_s *= 1 + JITTER * (2 * self._chance() - 1)
        if reason.code == "rate_limited":
            reason = replace(reason, left_s=cooldown_s)
        change = self._become(now, State.OPEN, reason)
        self.until = now + cooldown_s
        self.level = min(self.level + 1, 64)
        self.reason = reason
        return change

    # ---- recovery

    def tick(self, now: float, *, rps: float = QUIET_RPS, may_return: bool = True) -> Change | None:
        """Time has gone by.  `rps`: requests a second of the policy over the last 10 s;
        `may_return` False: too many switches of late (failover.md §3)."""
        match self.state:
            case State.OPEN:
                if now >= self.until:
                    return self._become(now, State.PROBING)
            case State.PROBING:
                self.expire(now)
                if may_return and self.would_return(now):
                    return self._start_ramp(now, rps)
            case State.RAMP:
                return self._ramp_on(now, rps)
            case State.CLOSED:
                self.decay(now)
                self.window.advance(now)
                return None if self.is_well else self._judge(now)
            case State.FORCED_OPEN | State.FORCED_CLOSED:
                if now >= self.until:
                    return self.release(now)
            case State.LIMITED:  # of no breaker: see `Standing.limited`
                pass
        return None

    def decay(self, now: float) -> None:
        """A minute of health forgives one step of the ladder."""
        if self.state is State.CLOSED and now - self._decayed_at >= DECAY_S:
            self._decayed_at = now
            self.level = max(0, self.level - 1)

    @property
    def is_well(self) -> bool:
        """Nothing of late speaks against it."""
        runs = self.errors_in_a_row or self.hard_in_a_row or self.config_in_a_row
        return self.window.is_clean and not (runs or self.slow_in_a_row)

    def would_return(self, now: float) -> bool:
        """Its probes were good, and it was away long enough: traffic may come back."""
        away_s = now - self.opened_at
        probed = self.state is State.PROBING and self._probes_are_good
        return probed and away_s >= self.recovery.min_fallback_seconds

    def _start_ramp(self, now: float, rps: float) -> Change:
        self.step = 0
        if rps < QUIET_RPS or self.recovery.ramp_percent[0] >= 100:
            return self._become(now, State.CLOSED)
        return self._become(now, State.RAMP)

    def _ramp_on(self, now: float, rps: float) -> Change | None:
        change = self._judge(now)
        if change is not None or now - self.since < self.recovery.ramp_step_seconds * (
            self.step + 1
        ):
            return change
        limit, n = self.conditions.error_rate_threshold, self.window.totals
        if limit is not None and n[fields.ERRORS] > limit / 2 * n[fields.OUTCOMES]:
            return None  # this step again
        self.step += 1
        if rps < QUIET_RPS or self.percent >= 100:
            return self._become(now, State.CLOSED)
        return None

    @property
    def percent(self) -> int:
        """The share of traffic that RAMP lets in."""
        steps = self.recovery.ramp_percent
        return steps[min(self.step, len(steps) - 1)]

    # ---- probes

    def permit(self, now: float, limit_s: float) -> Permit | None:
        """The leave to send one probe, which takes `limit_s` at most; None: not now."""
        if not self.may_probe(now):
            return None
        permit = Permit(now + limit_s + LEASE_GRACE_S, limit_s)
        if self.grants is not None:
            grant = self.grants.pop(0)
            if grant.claim is not None and not grant.claim.take():
                return None
            permit.number, permit.claim = grant.number, grant.claim
        self.permits.append(permit)
        return permit

    def may_probe(self, now: float) -> bool:
        """Whether a permit is to be had."""
        if self.state is not State.PROBING:
            return False
        self.expire(now)
        if self.grants is not None:
            self.grants = [each for each in self.grants if each.until > now]
            return bool(self.grants)
        return len(self.permits) < self.recovery.probe_max_concurrent

    def is_steady(self, now: float) -> bool:
        """Closed, and of the last ten seconds' samples (five at least) not half have failed."""
        outcomes = self.window.recent(now, STEADY_S, fields.OUTCOMES)
        errors = self.window.recent(now, STEADY_S, fields.ERRORS)
        return self.state is State.CLOSED and (outcomes < STEADY_SAMPLES or 2 * errors < outcomes)

    def only_fails(self, now: float) -> bool:
        """All samples of the last second or two were errors."""
        outcomes = self.window.recent(now, LATELY_S, fields.OUTCOMES)
        return outcomes == self.window.recent(now, LATELY_S, fields.ERRORS)

    def give_back(self, permit: Permit) -> None:
        """It was not used, or nobody knows what became of it."""
        if permit in self.permits:
            self.permits.remove(permit)
        if permit.claim is not None:
            permit.claim.free()

    def _probed(self, now: float, outcome: Outcome, permit: Permit) -> Change | None:
        if permit not in self.permits:
            return None  # its lease is over, or the state has changed
        self.permits.remove(permit)
        told = CONSEQUENCES[outcome]
        if not told.sample or outcome is Outcome.RATE_LIMITED or permit.slow:
            return None  # no verdict, or told when it became slow
        permit.verdict = "hard" if told.hard else "bad"
        if outcome is Outcome.SUCCESS:
            permit.verdict = "good"
        return self.probe_came(now, permit.verdict)

    def probe_came(self, now: float, verdict: str) -> Change | None:
        """What came of a probe, here or in another process: see `Permit.verdict`."""
        if verdict == "slow":
            return self._probe_slow(now)
        if verdict == "good":
            self.good_probes += 1
        if verdict not in ("bad", "hard"):
            return None
        self.bad_probes += 1
        most = self.recovery.probe_requests - self.bad_probes
        hopeless = most < self.recovery.probe_success_ratio * self.recovery.probe_requests
        return self._reopen(now) if verdict == "hard" or hopeless else None

    def _probe_slow(self, now: float) -> Change | None:
        self.slow_probes += 1
        limit = self.conditions.slow_ratio_threshold / 2 * self.recovery.probe_requests
        return self._reopen(now) if self.slow_probes >= limit else None

    def _reopen(self, now: float) -> Change | None:
        if self.state is not State.PROBING:
            return None
        told = self.good_probes + self.bad_probes + self.slow_probes
        return self.open(now, Reason("probe_failed", self.bad_probes + self.slow_probes, 0, told))

    @property
    def _probes_are_good(self) -> bool:
        return self.good_probes + self.bad_probes + self.slow_probes >= self.recovery.probe_requests

    def expire(self, now: float) -> None:
        """A lease that is over is nobody's any more, whatever its holder does."""
        for each in [each for each in self.permits if each.deadline <= now]:
            self.give_back(each)

    # ---- an operator

    def force(self, now: float, *, closed: bool, ttl_s: float, said: str = "") -> Change:
        """Open or closed for so long, whatever happens.  `said`: why, by the operator."""
        if not closed and self.state in (State.CLOSED, State.FORCED_CLOSED):
            self.opened_at = now
        change = self._become(
            now,
            State.FORCED_CLOSED if closed else State.FORCED_OPEN,
            Reason("manual", said=said),
        )
        self.until = now + ttl_s
        self.reason = change.reason
        return change

    def release(self, now: float) -> Change | None:
        """What was forced is over: traffic as if nothing had been known."""
        if self.state not in (State.FORCED_OPEN, State.FORCED_CLOSED):
            return None
        return self._become(now, State.CLOSED)

    # ---- other processes

    def adopt(self, now: float, told: Told) -> Change | None:
        """Stand as another process says, which knows better: `merging.wins`."""
        before = self.state
        if told.version != self.version or told.state is not before:
            self._become(now, told.state, told.reason)
            self.version, self.reason = told.version, told.reason
            self.since = now - told.ago_ms / 1000
            self.opened_at = now - told.opened_ago_ms / 1000
            self.level = told.level
        self.until = now + told.left_ms / 1000
        self.step = told.step
        return None if self.state is before else Change(before, self.state, told.reason)

    # ----

    def _become(self, now: float, state: State, reason: Reason | None = None) -> Change:
        before, self.state = self.state, state
        self.since, self.version = now, self.version + 1
        self._forget_runs()
        self._forget_probes()
        if state is State.RAMP or (state is State.CLOSED and before is not State.RAMP):
            self.window.clear()
        if state is State.CLOSED:
            self._decayed_at = now
        return Change(before, state, reason)

    def _forget_runs(self) -> None:
        self.errors_in_a_row = self.slow_in_a_row = 0
        self.hard_in_a_row = self.config_in_a_row = 0
        self.config_code = ""
        self.runs_told = [0, 0, 0, 0]

    def _forget_probes(self) -> None:
        while self.permits:
            self.give_back(self.permits[0])
        if self.grants is not None:
            self.grants = []
        self.good_probes = self.bad_probes = self.slow_probes = 0
