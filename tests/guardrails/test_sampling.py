"""`sample_pct`: shadow rules that look at a part of the requests, and always at the same part."""

import pytest

from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.guardrails.sampling import ALL, draw_of
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import pack


def sampled(percent: float) -> PolicyPack:
    return pack(
        {"pattern": "apple", "action": "redact"},
        {"pattern": "berry", "action": "block", "mode": "shadow", "sample_pct": percent},
    )


def guard_of(percent: float) -> Guard:
    return compile_guard([sampled(percent)], GuardSettings())


def found(guard: Guard, draw: float) -> list[str | None]:
    leaf = Leaf("apple and berry", "text", "user", ("prompt",))
    return [result.rule_matched for result in guard.judge([leaf], "request", draw).results]


def found_in_stream(guard: Guard, draw: float) -> list[str | None]:
    lane = guard.lane("text", draw)
    assert lane is not None
    assert "".join([lane.feed("app"), lane.feed("le and berry"), lane.finish()]) == "[R0] and berry"
    return [result.rule_matched for result in lane.results()]


LOOKS = [
    # percent, draw, the sampled rule looks
    (0, 0.0, False),
    (25, 24.999, True),
    (25, 25.0, False),
    (100, 99.999, True),
    (0, ALL, True),  # one who tries a pack sees all of it
]


@pytest.mark.parametrize(("percent", "draw", "looks"), LOOKS)
@pytest.mark.parametrize("look", [found, found_in_stream])
def test_the_number_of_the_request_decides(
    look: object, percent: float, draw: float, looks: bool
) -> None:
    assert callable(look)
    assert look(guard_of(percent), draw) == (["r0", "r1"] if looks else ["r0"])


def test_a_request_has_one_number_and_many_have_all_of_them() -> None:
    ids = [f"req-{number}" for number in range(4000)]
    draws = [draw_of(each) for each in ids]
    assert draws == [draw_of(each) for each in ids]
    assert all(0 <= draw < 100 for draw in draws)
    for percent in (5, 50, 95):
        assert sum(draw < percent for draw in draws) == pytest.approx(40 * percent, abs=120)


def test_without_sampling_no_number_is_drawn() -> None:
    assert guard_of(100).draw("req-1") == ALL
    assert guard_of(10).draw("req-1") == draw_of("req-1")
