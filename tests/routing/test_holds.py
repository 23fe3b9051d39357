"""How long a provider that said 429 is left alone (failover.md §7.2)."""

import pytest

from proxy.routing.holds import Holds, Key

A = Key("a", "", "m")


# fmt: off
WAITS = [
    # hints of one 429 after the other, at once    seconds from then
    ([5.0],                                        5),
    ([0.0],                                        1),
    ([0.2],                                        1),
    ([4000.0],                                     300),
    ([None],                                       2),
    ([None, None],                                 4),
    ([None] * 4,                                   16),
    ([None] * 30,                                  60),
    ([60.0, None],                                 60),
    ([60.0, 1.0],                                  60),
    ([1.0, 60.0],                                  60),
]
# fmt: on


@pytest.mark.parametrize(("hints", "wait_s"), WAITS)
def test_how_long(hints: list[float | None], wait_s: float) -> None:
    holds = Holds()
    for hint in hints:
        holds.hit(A, 100.0, hint)
    assert holds.left_s(A, 100.0) == wait_s


def test_t_fo_21_a_later_429_without_a_hint_does_not_shorten_it() -> None:
    holds = Holds()
    holds.hit(A, 100.0, 60.0)
    holds.hit(A, 100.5, None)
    assert holds.left_s(A, 101.0) == 59


def test_t_fo_23_another_model_and_another_key_are_not_held() -> None:
    holds = Holds()
    holds.hit(A, 100.0, 60.0)
    assert not holds.admits(A, 100.0)
    assert holds.admits(A._replace(model="n"), 100.0)
    assert holds.admits(A._replace(credential="k"), 100.0)
    assert holds.admits(A._replace(endpoint_id="b"), 100.0)


def test_t_fo_24_money_that_ran_out() -> None:
    holds, waits, now = Holds(), [], 0.0
    for _ in range(6):
        waits.append(holds.hit(A, now, 3.0, quota=True) - now)
        now += waits[-1]
    assert waits == [300, 600, 1200, 2400, 3600, 3600]


def test_after_the_hold_one_at_a_time_until_one_is_well() -> None:
    holds = Holds()
    holds.hit(A, 100.0, 5.0)
    assert not holds.admits(A, 104.9)
    assert holds.admits(A, 105.0)
    holds.try_now(A, 105.0, 10.0)
    assert not holds.admits(A, 106.0)
    holds.hit(A, 106.0, 5.0)
    assert holds.left_s(A, 106.0) == 5
    holds.try_now(A, 111.0, 10.0)
    holds.ended(A, well=False)
    assert holds.admits(A, 111.5)
    holds.try_now(A, 112.0, 10.0)
    assert holds.admits(A, 122.0), "who tried was never heard of again"
    holds.ended(A, well=True)
    assert not holds


def test_it_is_bounded() -> None:
    holds = Holds(most=100)
    for number in range(1000):
        holds.hit(Key("a", f"k{number}", "m"), 0.0, 60.0)
    assert len(holds.all("a", 0.0)) == 100
    assert holds.admits(Key("a", "k0", "m"), 0.0)
