"""T-FO-27: whatever happens, in whatever order, traffic comes back once endpoints are well."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.model.failover import Outcome
from proxy.routing.breaker import LEASE_GRACE_S
from proxy.routing.effects import Effect, Switched
from proxy.routing.standing import Standing
from proxy.routing.states import Permit, State
from tests.routing.test_standing import policy

LIMIT_S = 4.0
names = st.sampled_from("abc")
outcomes = st.sampled_from(list(Outcome))


class Anything(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.standing = Standing(policy("b", "c"), lambda: 0.5)
        self.now = 1000.0
        self.held: list[tuple[str, Permit]] = []  # by somebody who was never heard of again
        self.before = self.standing.active

    def seen(self, effects: list[Effect]) -> None:
        for each in effects:
            if isinstance(each, Switched):
                assert each.before == self.before
                self.before = each.after
        self.before = self.standing.active

    def asked(self, name: str) -> tuple[bool, Permit | None]:
        if not self.standing.refusal(name, 0):
            return True, None
        permit = self.standing.permit(name, self.now, LIMIT_S)
        return permit is not None, permit

    @rule(name=names, outcome=outcomes, late_s=st.floats(0, 30), quick=st.booleans())
    def a_request(self, name: str, outcome: Outcome, late_s: float, quick: bool) -> None:
        may, permit = self.asked(name)
        if not may:
            return
        began = self.now
        self.pass_time(late_s)
        self.seen(
            self.standing.observe(name, self.now, outcome, began=began, quick=quick, permit=permit)
        )

    @rule(name=names, times=st.integers(1, 12))
    def many_fail(self, name: str, times: int) -> None:
        for _ in range(times):
            self.a_request(name, Outcome.UPSTREAM_5XX, 0, False)

    @rule(name=names)
    def a_slow_one(self, name: str) -> None:
        may, permit = self.asked(name)
        if may:
            self.seen(self.standing.mark_slow(name, self.now, permit))
            if permit is not None:
                self.held.append((name, permit))

    @rule(name=names)
    def a_permit_is_lost(self, name: str) -> None:
        permit = self.standing.permit(name, self.now, LIMIT_S)
        if permit is not None:
            self.held.append((name, permit))

    @rule(outcome=outcomes)
    def a_lost_one_turns_up(self, outcome: Outcome) -> None:
        if self.held:
            name, permit = self.held.pop()
            self.seen(self.standing.observe(name, self.now, outcome, began=self.now, permit=permit))

    @rule(seconds=st.floats(0, 90))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.seen(self.standing.tick(self.now))

    @rule(name=names, ttl_s=st.floats(1, 100))
    def an_operator_forces(self, name: str, ttl_s: float) -> None:
        self.seen(self.standing.force(name, self.now, ttl_s=ttl_s))

    @rule()
    def an_operator_releases(self) -> None:
        self.seen(self.standing.release(self.now))

    @rule(fallbacks=st.permutations(["b", "c"]))
    def an_edit(self, fallbacks: list[str]) -> None:
        self.seen(self.standing.edit(policy(*fallbacks), self.now))

    @invariant()
    def at_most_one_probe_is_under_way(self) -> None:
        for breaker in self.standing.breakers.values():
            assert len(breaker.permits) <= 1
            assert all(
                each.deadline <= self.now + LIMIT_S + LEASE_GRACE_S for each in breaker.permits
            )

    @invariant()
    def who_is_active_admits(self) -> None:
        if self.standing.active is not None:
            assert self.standing.refusal(self.standing.active, 99) == ""

    def teardown(self) -> None:
        """All endpoints are well: the primary is back, at the latest when a flapper may return."""
        until = self.now + 1000
        while self.standing.state != "normal":
            self.now += 0.5
            assert self.now < until, self.standing.breakers
            self.standing.asked(self.now)
            self.standing.tick(self.now)
            for name in self.standing.order:
                may, permit = self.asked(name)
                if may:
                    self.standing.observe(
                        name, self.now, Outcome.SUCCESS, began=self.now, quick=True, permit=permit
                    )
                    if self.standing.breakers[name].state is not State.PROBING:
                        break


class TestAnything(Anything.TestCase):
    settings = settings(
        max_examples=100, stateful_step_count=30, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.mark.exhaustive
class TestManyThings(Anything.TestCase):
    settings = settings(
        max_examples=1000, stateful_step_count=40, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
