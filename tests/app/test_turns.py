"""Work that is done a little at a time."""

import asyncio
from collections.abc import Iterator

import pytest

from proxy.app.turns import PAUSE_S, TURN_S, TURN_STEPS, Turns
from proxy.runtime.tasks import on_crash, spawn
from tests.kit.fakes import FakeClock


class Done:
    """Jobs that write down their steps; `.` is the end of a turn."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.text = ""
        self.turns = Turns(self.clock, self._after)

    def _after(self) -> None:
        self.text += "."

    def job(self, name: str, steps: int, takes_s: float = 0.0) -> Iterator[None]:
        for _ in range(steps):
            self.text += name
            self.clock.advance(takes_s)
            yield


def test_what_is_soon_done_is_done_at_once() -> None:
    done = Done()
    done.turns.do(done.job("a", 3))
    assert done.text == "aaa."


def test_jobs_are_done_in_order_and_no_turn_is_long() -> None:
    done = Done()
    done.turns.do(done.job("a", 4, TURN_S * 0.6))
    done.turns.do(done.job("b", 2))
    assert done.text == "aa."
    assert done.turns.turn()
    assert not done.turns.turn()
    assert done.text == "aa.aa.bb."


def test_where_no_time_goes_by_steps_are_counted() -> None:
    done = Done()
    done.turns.do(done.job("a", TURN_STEPS + 1))
    assert done.text == "a" * TURN_STEPS + "."
    done.turns.finish()
    assert done.text == "a" * TURN_STEPS + ".a."


def test_what_happens_together_is_followed_by_one_end() -> None:
    done = Done()
    with done.turns.together():
        done.text += "x"
        with done.turns.together():
            done.text += "y"
        done.turns.do(done.job("a", 2))
    assert done.text == "xy.aa."


def test_a_job_may_begin_another_one() -> None:
    done = Done()

    def outer() -> Iterator[None]:
        done.turns.do(done.job("b", 1))
        done.text += "a"
        yield

    done.turns.do(outer())
    assert done.text == "ab."


def test_a_job_that_fails_holds_up_no_other() -> None:
    done = Done()

    def bad() -> Iterator[None]:
        yield
        raise ValueError("oh")

    with pytest.raises(ValueError, match="oh"):
        done.turns.do(bad())
    done.turns.do(done.job("a", 1))
    done.turns.finish()
    assert done.text.replace(".", "") == "a"


async def test_what_is_left_is_done_between_others() -> None:
    done = Done()
    running = spawn(done.turns.run(), name="turns")
    done.turns.do(done.job("a", 3, TURN_S))
    seen = []
    for _ in range(6):
        await asyncio.sleep(0)
        seen.append(done.text.count("a"))
        done.clock.advance(PAUSE_S)
    assert seen[0] < 3
    assert done.text.count("a") == 3
    running.cancel()


async def test_a_job_that_fails_later_is_told_and_the_others_go_on() -> None:
    done = Done()
    crashes: list[str] = []
    on_crash(lambda name, fault: crashes.append(str(fault)))

    def bad() -> Iterator[None]:
        done.clock.advance(TURN_S)
        yield
        raise ValueError("oh")

    running = spawn(done.turns.run(), name="turns")
    done.turns.do(bad())
    done.turns.do(done.job("a", 2))
    for _ in range(6):
        await asyncio.sleep(0)
        done.clock.advance(PAUSE_S)
    assert done.text.count("a") == 2
    assert crashes == ["oh"]
    running.cancel()
    on_crash(lambda name, fault: None)
