"""T-FO-70: every `why` has a story that makes it; how an endpoint stands, in the API's words."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.model.failover import Conditions, FailoverPolicy, Outcome, Recovery
from proxy.routing.explaining import WHYS, EndpointExplained, explain, status_of
from proxy.routing.holds import Key
from proxy.routing.standing import Standing
from proxy.routing.states import Reason, State

NOW = 1000.0
BAD, OK, LIMITED = Outcome.UPSTREAM_5XX, Outcome.SUCCESS, Outcome.RATE_LIMITED
BOTH = {"latency_threshold_ms": 2000, "error_rate_threshold": 0.1}


def standing(status: Any = "active", **conditions: Any) -> Standing:
    policy = FailoverPolicy(
        route_id="chat",
        primary_endpoint="a",
        fallback_endpoints=["b"],
        status=status,
        conditions=Conditions(**(conditions or BOTH)),
        recovery=Recovery(ramp_percent=[100]),
    )
    return Standing(policy, lambda: 0.5)


def saw(s: Standing, outcome: Outcome, times: int = 1, **said: Any) -> Standing:
    """What was seen of the primary."""
    for _ in range(times):
        s.observe("a", NOW, outcome, began=NOW, **said)
    return s


def errors(bad: int, good: int, **conditions: Any) -> Standing:
    """Errors that do not come in a row."""
    s = standing(**(conditions or {**BOTH, "consecutive_failures": 0}))
    return saw(saw(s, OK, good, quick=True), BAD, bad)


def slow(bad: int, good: int, **conditions: Any) -> Standing:
    s = saw(standing(**(conditions or {**BOTH, "consecutive_slow": 0})), OK, good, quick=True)
    for _ in range(bad):
        s.mark_slow("a", NOW)
        saw(s, OK)
    return s


def tripped(s: Standing | None = None, name: str = "a") -> Standing:
    s = s or standing()
    for _ in range(3):
        s.observe(name, NOW, Outcome.CONNECT, began=NOW)
    return s


def probed(flap_until: float = 0.0) -> Standing:
    """Three good probes, and a return that is not allowed."""
    s = tripped()
    s.flap_until = flap_until
    s.tick(NOW + 6)
    for _ in range(2):
        permit = s.permit("a", NOW + 6, 5.0)
        s.observe("a", NOW + 6, OK, began=NOW + 6, quick=True, permit=permit)
    return s


def probed_out() -> Standing:
    """All probes were good, and it is too early to come back."""
    s = probed()
    permit = s.permit("a", NOW + 6, 5.0)
    s.observe("a", NOW + 6, OK, began=NOW + 6, quick=True, permit=permit)
    return s


def forced(name: str) -> Standing:
    s = standing()
    s.force(name, NOW, ttl_s=60.0)
    return s


# fmt: off
STORIES: list[tuple[Callable[[], Standing], float, str, str | None, str]] = [
    # what happened                            at      rule  why
    (lambda: standing(latency_threshold_ms=2000), NOW, "a", "no_condition",
     "error_rate_threshold is not set: this rule never trips"),
    (lambda: standing(error_rate_threshold=0.1),  NOW, "b", "no_condition",
     "latency_threshold_ms is not set: this rule never trips"),
    (lambda: standing(**BOTH, consecutive_failures=0, consecutive_slow=0), NOW, "c", "no_condition",
     "consecutive_failures and consecutive_slow are off: this rule never trips"),
    (standing,                                    NOW, "a", "not_enough_samples",
     "0 samples in the last 60 s, 10 are needed to judge"),
    (lambda: errors(1, 0),                        NOW, "a", "not_enough_samples",
     "1 sample in the last 60 s, 10 are needed to judge"),
    (standing,                                    NOW, "b", "not_enough_samples",
     "0 timed answers in the last 60 s, 10 are needed to judge"),
    (lambda: errors(1, 19),                       NOW, "a", "below_threshold",
     "1 error in 20 samples (5 %) are not above 10 %; 5 would trip"),
    (lambda: errors(2, 8),                        NOW, "a", "lower_bound_below_threshold",
     "2 errors in 10 samples (20 %) could still be a 7 % error rate; 3 would trip"),
    (lambda: errors(4, 6, **BOTH, min_errors=5, consecutive_failures=0), NOW, "a",
     "not_enough_errors",
     "4 errors in 10 samples (40 %) are fewer than min_errors 5; 5 would trip"),
    (lambda: errors(9, 1, error_rate_threshold=1, consecutive_failures=0), NOW, "a",
     "below_threshold",
     "9 errors in 10 samples (90 %) are not above 100 %; no number would trip"),
    (lambda: slow(3, 17),                         NOW, "b", "below_threshold",
     "3 of 20 answers (15 %) over 2000 ms are below 50 %; 14 would trip"),
    (lambda: slow(7, 3),                          NOW, "b", "lower_bound_below_threshold",
     "7 of 10 answers (70 %) over 2000 ms could still be 44 %; 8 would trip"),
    (lambda: saw(standing(), Outcome.CALLER, 4),  NOW, "a", "only_excluded_outcomes",
     "only outcomes that say nothing of the endpoint: 4 caller"),
    (lambda: saw(standing(), Outcome.REFUSAL, 4), NOW, "b", "only_excluded_outcomes",
     "only outcomes that say nothing of the endpoint: 4 refusal"),
    (lambda: saw(standing(), LIMITED, 12, hinted=True), NOW, "a", "rate_limits_are_not_errors",
     "12 answers were 429: a rate limit is held, and is no error"),
    (lambda: saw(saw(standing(), OK, 9, quick=True), LIMITED), NOW, "a",
     "rate_limits_are_not_errors", "1 answer was 429: a rate limit is held, and is no error"),
    (lambda: saw(standing(**BOTH, latency_basis="ttft"), OK, 40), NOW, "b",
     "basis_excludes_traffic",
     "40 samples, none of them timed: latency_basis ttft leaves whole answers out"),
    (tripped,                                     NOW + 2, "a", "already_open",
     "out of use already (hard_failure); a probe in 3 s"),
    (probed,                                      NOW + 6, "a", "already_open",
     "out of use and being probed: 2 of 3 probes done"),
    (lambda: probed_out(),                        NOW + 6, "a", "already_open",
     ("out of use and being probed: 3 of 3 probes done; not back for 4 s more "
      "(min_fallback_seconds)")),
    (lambda: forced("b"),                         NOW + 9, "c", "already_open",
     "an operator holds this endpoint out of use for 51 s more"),
    (lambda: forced("a"),                         NOW, "c", "forced_closed",
     "an operator holds this endpoint in use for 60 s more"),
    (lambda: standing("paused"),                  NOW, "d", "paused",
     "the policy is paused: the primary gets everything"),
    (lambda: probed(NOW + 500),                   NOW + 6, "e", "flap_hold",
     "too many switches of late: no return for 494 s more"),
    (lambda: tripped(tripped(), "b"),             NOW, "a", "no_endpoint_admits",
     "no endpoint of the policy admits: there is nowhere to move to"),
    (lambda: saw(standing(), BAD, 4),             NOW, "c", "below_threshold",
     "4 errors in a row: 5 would trip"),
    (lambda: slow(9, 0, **BOTH),                  NOW, "c", "below_threshold",
     "9 slow answers in a row: 10 would trip"),
    (lambda: saw(standing(), Outcome.CONNECT, 2), NOW, "d", "below_threshold",
     "2 refused or failed connections in a row: 3 would trip"),
    (lambda: saw(standing(), Outcome.AUTH, 2),    NOW, "e", "below_threshold",
     "2 answers that our configuration is to blame for in a row: 3 would trip"),
]
# fmt: on


@pytest.mark.parametrize(("story", "now", "rule", "why", "sentence"), STORIES)
def test_t_fo_70_each_rule_says_why_it_does_not_trip(
    story: Callable[[], Standing], now: float, rule: str, why: str, sentence: str
) -> None:
    told = explain(story(), "a", now)
    assert [each.rule for each in told.rules] == ["a", "b", "c", "d", "e"]
    (said,) = [each for each in told.rules if each.rule == rule]
    assert (said.why, said.sentence, said.would_trip) == (why, sentence, False)


def test_t_fo_70_every_why_is_in_the_table() -> None:
    assert {why for _, _, _, why, _ in STORIES} == set(WHYS)


def test_figures_of_a_rule() -> None:
    a, b, c, *_ = explain(errors(2, 8), "a", NOW).rules
    assert (a.value, a.threshold, a.have, a.need) == (0.2, 0.1, 2, 3)
    assert a.lower_bound == pytest.approx(0.0686, abs=1e-4)
    assert (b.value, b.have, b.need) == (0.0, 8, 10), "too few: samples are counted"
    assert (c.reason, c.threshold, c.have, c.need) == ("latency", 10, 0, 10)


def test_without_samples_nothing_is_sure() -> None:
    a, b, *_ = explain(standing(), "a", NOW).rules
    assert (a.value, a.lower_bound, b.value, b.lower_bound) == (None, None, None, None)


def test_what_is_slow_is_told_with_what_was_timed() -> None:
    """An attempt under way may be slow before it is a sample."""
    s = saw(standing(), OK, 4, quick=True)
    for _ in range(3):
        s.mark_slow("a", NOW)
    told = explain(s, "a", NOW)
    assert (told.samples, told.slow, told.timed) == (4, 3, 7)
    assert told.rules[1].value == pytest.approx(3 / 7, abs=1e-6)


def test_why_it_was_left_is_told_until_its_traffic_is_back() -> None:
    s = standing()
    assert explain(s, "a", NOW).opened_by is None
    why = Reason("hard_failure", 3, 3, 3)
    assert explain(tripped(s), "a", NOW).opened_by == why
    s.tick(NOW + 6)
    assert explain(s, "a", NOW + 6).opened_by == why
    s.breakers["a"].state = State.RAMP
    told = explain(s, "a", NOW + 6)
    assert (told.opened_by, told.ramp_percent) == (why, 100)
    s.breakers["a"].state = State.CLOSED
    told = explain(s, "a", NOW + 6)
    assert (told.opened_by, told.ramp_percent) == (None, None)


def test_what_an_edit_makes_trip_is_told_before_it_does() -> None:
    s = errors(2, 8)
    edited = s.policy.model_copy(
        update={"conditions": Conditions(error_rate_threshold=0.05, min_errors=1)}
    )
    s.edit(edited, NOW)
    a = explain(s, "a", NOW).rules[0]
    assert (a.would_trip, a.why) == (True, None)
    assert a.sentence == "2 errors in 10 samples (20 %) are above 5 %: trips"


@pytest.mark.parametrize("total", [10, 20, 30, 50, 100, 200, 300, 600, 1000])
def test_what_would_trip_is_what_trips(total: int) -> None:
    """`need` is the figure of T-FO-14."""
    said = {"error_rate_threshold": 0.1, "consecutive_failures": 0}
    need = explain(errors(0, total, **said), "a", NOW).rules[0].need
    assert need is not None
    for bad, reason in ((need - 1, None), (need, "error_rate")):
        s = errors(bad, total - bad, **said)
        tripped_by = s.breakers["a"].reason
        assert (tripped_by.code if tripped_by else None) == reason


# fmt: off
STATUSES: list[tuple[Callable[[], Standing], str]] = [
    (standing,                       "healthy"),
    (lambda: errors(1, 9),           "degraded"),
    (lambda: errors(1, 29),          "healthy"),
    (lambda: slow(5, 10),            "degraded"),
    (lambda: slow(2, 10),            "healthy"),
    (tripped,                        "unhealthy"),
    (probed,                         "probing"),
    (lambda: forced("a"),            "healthy"),
    (lambda: forced("b"),            "disabled"),
    (lambda: standing("paused"),     "disabled"),
]
# fmt: on


@pytest.mark.parametrize(("story", "status"), STATUSES)
def test_the_status_of_an_endpoint(story: Callable[[], Standing], status: str) -> None:
    s = story()
    assert status_of(s, "a", NOW) == status == explain(s, "a", NOW).status


def test_a_ramp_recovers_and_a_hold_limits() -> None:
    s = standing()
    s.hit(Key("a", "", "m"), NOW, 3.0, quota=False)
    s.hit(Key("a", "of-a-caller", "m"), NOW, 9.0, quota=False)
    told = explain(s, "a", NOW + 1)
    assert (told.status, told.state, told.hold) == ("rate_limited", "limited", [("m", 2.0)])
    s.breakers["a"].state = State.RAMP
    assert status_of(s, "a", NOW) == "recovering"


def test_times_count_from_now() -> None:
    fresh = explain(standing(), "a", NOW)
    assert (fresh.since_s, fresh.next_probe_in_s) == (None, None)
    told: EndpointExplained = explain(tripped(), "a", NOW + 2)
    assert (told.state, told.since_s, told.next_probe_in_s) == ("open", 2.0, 3.0)
    assert explain(probed(), "a", NOW + 7).next_probe_in_s == 0.0


def test_what_is_excluded_is_counted_by_class() -> None:
    s = saw(saw(standing(), Outcome.CALLER, 3), Outcome.BLOCKED)
    told = explain(s, "a", NOW)
    assert (told.samples, told.excluded) == (0, {"caller": 3, "blocked": 1})
    assert explain(s, "a", NOW + 61).excluded == {}


def test_the_reason_of_a_trip_stays_in_sight() -> None:
    s = standing()
    s.breakers["a"].open(NOW, Reason("latency", 1.0, 0.5, 10))
    assert "(latency)" in explain(s, "a", NOW).rules[1].sentence
