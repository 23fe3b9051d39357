"""Which endpoint of a policy is active, and what is told when that changes."""

from typing import Any

import pytest

from proxy.model.failover import Conditions, FailoverPolicy, Outcome
from proxy.routing.budget import Budget
from proxy.routing.effects import Effect, Flapping, Recovered, Switched
from proxy.routing.holds import Key
from proxy.routing.merging import told_of
from proxy.routing.standing import Standing
from proxy.routing.states import State

DEAD, BAD, OK = Outcome.CONNECT, Outcome.UPSTREAM_5XX, Outcome.SUCCESS


def policy(*fallbacks: str, **said: Any) -> FailoverPolicy:
    return FailoverPolicy(
        route_id="chat",
        primary_endpoint="a",
        fallback_endpoints=list(fallbacks or ("b",)),
        conditions=Conditions(latency_threshold_ms=2000, error_rate_threshold=0.1),
        **said,
    )


class Story:
    """Requests one after the other; `told` holds what is not just a state."""

    def __init__(self, *fallbacks: str, **said: Any) -> None:
        self.standing = Standing(policy(*fallbacks, **said), lambda: 0.5)
        self.now = 1000.0
        self.told: list[Effect] = []
        self.sent: list[str] = []

    def tell(self, effects: list[Effect]) -> None:
        self.told += [e for e in effects if isinstance(e, Switched | Recovered | Flapping)]

    def fail(self, name: str, times: int, outcome: Outcome = BAD) -> None:
        for _ in range(times):
            self.tell(self.standing.observe(name, self.now, outcome, began=self.now))

    def request(self, down: tuple[str, ...] = (), share: int = 99) -> str:
        """As the gateway does it: the first that admits, then the next."""
        self.standing.asked(self.now)
        for name in self.standing.order:
            permit = None
            if self.standing.refusal(name, share):
                permit = self.standing.permit(name, self.now, 4)
                if permit is None:
                    continue
            self.sent.append(name)
            ok = name not in down
            self.tell(
                self.standing.observe(
                    name, self.now, OK if ok else DEAD, began=self.now, quick=ok, permit=permit
                )
            )
            if ok:
                return name
        return ""

    def wait(self, seconds: float, *, rps: float = 0.0, down: tuple[str, ...] = ()) -> list[str]:
        """Time goes by, with requests; who answered them."""
        answered = []
        for step in range(round(seconds * 10)):
            self.now += 0.1
            self.tell(self.standing.tick(self.now))
            if rps and step % round(10 / rps) == 0:
                answered.append(self.request(down, share=step * 37 % 100))
        return answered


def test_a_trip_moves_all_traffic_and_is_told_once() -> None:
    story = Story("b", "c")
    story.fail("a", 5)
    (told,) = story.told
    assert isinstance(told, Switched)
    assert (told.before, told.after, told.reason.code) == ("a", "b", "consecutive_failures")
    assert story.standing.state == "failed_over"
    assert [story.standing.refusal(name, 0) for name in "abc"] == ["open", "", ""]
    story.fail("a", 20)
    story.fail("b", 3, DEAD)
    assert [(t.before, t.after) for t in story.told if isinstance(t, Switched)] == [
        ("a", "b"), ("b", "c"),
    ]  # fmt: skip


def test_nobody_left_is_told_once_and_ends_by_itself() -> None:
    story = Story()
    story.fail("a", 5)
    story.fail("b", 5)
    assert story.standing.state == "exhausted"
    assert story.told[-1].after is None  # type: ignore[union-attr]
    story.fail("b", 5)
    assert len(story.told) == 2
    story.wait(60, rps=2)
    assert story.standing.state == "normal"


def test_r21_the_healed_primary_is_back_in_time() -> None:
    story = Story()
    story.wait(30, rps=2)
    assert set(story.wait(60, rps=2, down=("a",))) == {"b"}, "no caller has lost anything"
    healed, first = story.now, 0.0
    while story.standing.state != "normal":
        if "a" in story.wait(1, rps=2) and not first:
            first = story.now
        assert story.now - healed < 60
    assert first - healed <= 24
    assert story.now - healed <= 50
    back = story.told[-1]
    assert isinstance(back, Recovered)
    assert (back.before, back.after) == ("b", "a")
    assert 60 <= back.outage_s <= 110
    assert back.requests > 100


def test_while_open_at_most_one_probe_is_sent_to_it() -> None:
    story = Story()
    story.wait(5, rps=5, down=("a",))
    story.sent.clear()
    story.wait(60, rps=5, down=("a",))
    assert story.sent.count("a") <= 6
    assert story.sent.count("b") == 300


def test_t_fo_25_and_r22_what_flaps_is_held_on_its_fallback() -> None:
    """Ten seconds up, ten down, ten minutes: six switches at most, one notice, then quiet."""
    story = Story(recovery={"cooldown_seconds": 1, "max_cooldown_seconds": 2,
                            "min_fallback_seconds": 0, "ramp_percent": [100]})  # fmt: skip
    for _ in range(30):
        story.wait(10, rps=5)
        story.wait(10, rps=5, down=("a",))
    switches = [each for each in story.told if isinstance(each, Switched | Recovered)]
    assert len(switches) <= 6
    assert sum(isinstance(each, Flapping) for each in story.told) == 1
    assert story.standing.active == "b"
    story.fail("b", 3, DEAD)
    assert story.standing.active is None, "what is broken is left even so"


def test_an_operator_forces_and_releases() -> None:
    story = Story("b", "c")
    story.standing.force("c", story.now, ttl_s=60)
    assert (story.standing.state, story.standing.active) == ("forced", "c")
    assert [story.standing.refusal(name, 0) for name in "abc"] == ["forced", "forced", ""]
    story.standing.release(story.now)
    assert (story.standing.state, story.standing.active) == ("normal", "a")


def test_an_edit_keeps_what_is_known() -> None:
    story = Story()
    story.fail("a", 5)
    story.standing.edit(policy("c", "b"), story.now)
    assert story.standing.breakers["a"].state is State.OPEN
    assert story.standing.active == "c"


@pytest.mark.parametrize(
    ("in_flight", "percent", "least", "granted"),
    [(1, 20, 3, 3), (100, 20, 3, 20), (1, 20, 0, 0), (100, 0, 0, 0), (4, 50, 0, 2)],
)
def test_t_fo_30_a_budget(in_flight: int, percent: int, least: int, granted: int) -> None:
    budget = Budget(percent, least)
    budget.in_flight = in_flight
    assert sum(budget.charge() for _ in range(200)) == granted
    budget.charged -= 1
    assert granted == 0 or budget.charge()


def test_one_on_its_way_back_may_take_what_nobody_else_takes() -> None:
    story = Story("b")
    story.fail("a", 5)
    assert not story.standing.may_be_last("a", story.now)
    story.wait(6)
    breaker = story.standing.breakers["a"]
    assert breaker.state is State.PROBING
    assert not story.standing.may_be_last("a", story.now)  # nothing is known yet
    for _ in range(3):
        permit = story.standing.permit("a", story.now, 4)
        story.standing.observe("a", story.now, OK, began=story.now, quick=True, permit=permit)
        assert story.standing.may_be_last("a", story.now)
    story.wait(10, rps=5)
    assert breaker.state is State.RAMP
    assert story.standing.may_be_last("a", story.now)


def test_what_was_known_of_one_that_nobody_probes_grows_old() -> None:
    story = Story("b")
    story.fail("a", 5)
    story.wait(6)
    assert not story.standing.may_be_last("a", story.now + 10)
    assert story.standing.may_be_last("a", story.now + 21)


# --- holds of an endpoint's own key

OWN, CALLERS, OTHER_MODEL = Key("a", "", "m"), Key("a", "digest", "m"), Key("a", "", "n")


def test_a_hold_of_the_endpoints_own_key_moves_what_is_active_and_is_told_once() -> None:
    story = Story()
    standing = story.standing
    story.tell(standing.hit(OWN, story.now, 30, quota=False))
    story.tell(standing.hit(OWN, story.now, None, quota=False))
    story.tell(standing.hit(OTHER_MODEL, story.now, 60, quota=False))
    (told,) = story.told
    assert isinstance(told, Switched)
    assert (told.before, told.after) == ("a", "b")
    assert (told.reason.code, told.reason.left_s) == ("rate_limited", 30)
    assert standing.refusal("a", 0) == ""  # another key or model may be asked there
    story.now += 61
    story.tell(standing.answered(OTHER_MODEL, story.now, well=True))
    assert isinstance(story.told[-1], Recovered)
    assert standing.active == "a"


@pytest.mark.parametrize("key", [CALLERS])
def test_a_hold_of_a_callers_key_moves_nobody_else(key: Key) -> None:
    story = Story()
    story.tell(story.standing.hit(key, story.now, 30, quota=False))
    assert story.told == []
    assert story.standing.holds.left_s(key, story.now) == 30


def test_a_hold_that_nobody_asks_about_any_more_is_forgotten() -> None:
    story = Story()
    story.tell(story.standing.hit(OWN, story.now, 2, quota=False))
    story.wait(31)
    assert story.standing.active == "b"
    story.wait(2)
    assert (story.standing.active, len(story.told)) == ("a", 2)


def test_holds_are_no_switches_too_many() -> None:
    story = Story()
    for _ in range(20):
        story.tell(story.standing.hit(OWN, story.now, 2, quota=False))
        story.wait(2.1)
        story.tell(story.standing.answered(OWN, story.now, well=True))
    assert len(story.told) == 40
    assert not any(isinstance(each, Flapping) for each in story.told)


def test_an_endpoint_that_trips_while_it_is_held_is_told_as_what_it_is() -> None:
    story = Story()
    story.tell(story.standing.hit(OWN, story.now, 2, quota=False))
    story.fail("a", 5)
    assert (story.standing.limited, story.standing.breakers["a"].state) == ({}, State.OPEN)
    assert len(story.told) == 1  # nobody is moved twice


def test_back_from_nothing_at_all_is_a_recovery() -> None:
    story = Story()
    story.fail("a", 5)
    story.fail("b", 5)
    story.wait(40, rps=2)
    before = [each for each in story.told if isinstance(each, Recovered)]
    assert before[0].before is None
    assert story.standing.active == "a"


OWN = Key("a", "", "m")


def limited() -> Story:
    """The primary's own key is held for a minute."""
    story = Story()
    story.tell(story.standing.hit(OWN, story.now, 60.0, quota=False))
    assert story.standing.active == "b"
    return story


def test_what_was_under_way_when_others_were_refused_ends_no_hold() -> None:
    story = limited()
    story.now += 1
    story.tell(story.standing.answered(OWN, story.now, well=True))
    assert story.standing.holds.left_s(OWN, story.now) == 59
    assert story.standing.active == "b"
    story.now += 60
    story.tell(story.standing.answered(OWN, story.now, well=True))
    assert story.standing.active == "a"


def test_an_outage_by_a_hold_lasts_as_long_as_the_hold() -> None:
    story = limited()
    story.now += 61
    story.tell(story.standing.answered(OWN, story.now, well=True))
    assert story.told[-1] == Recovered("b", "a", 61.0, 0)


def test_an_operator_may_send_all_traffic_to_who_is_limited() -> None:
    story = limited()
    story.tell(story.standing.force("a", story.now, ttl_s=60, said="now"))
    assert story.standing.active == "a"
    assert story.standing.state == "forced"


def test_a_hold_is_forgotten_when_another_process_says_more() -> None:
    story, other = limited(), Story()
    other.fail("a", 3, DEAD)
    opened = told_of("a", other.standing.breakers["a"], other.now)
    story.tell(story.standing.adopt([opened], story.now))
    assert story.standing.unlimit("a", story.now) == []


def test_an_edit_that_makes_another_the_primary_ends_no_outage() -> None:
    story = Story("b")
    edited = story.standing.policy.model_copy(
        update={"primary_endpoint": "b", "fallback_endpoints": ["a"]}
    )
    story.tell(story.standing.edit(edited, story.now))
    assert story.told[-1] == Recovered("a", "b", 0.0, 0)


def test_no_return_is_refused_before_there_is_one() -> None:
    """Many switches, and then an endpoint that stays broken: nothing flaps."""
    story = Story(recovery={"cooldown_seconds": 1, "min_fallback_seconds": 0})
    story.standing.switches.extend([story.now] * 5)
    story.fail("a", 5)
    story.wait(60, rps=5, down=("a",))
    assert not [each for each in story.told if isinstance(each, Flapping)]
    story.wait(60, rps=5)
    assert [each for each in story.told if isinstance(each, Flapping)]
    assert story.standing.active == "b"
