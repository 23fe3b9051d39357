"""The breaker around Redis: what opens it, what closes it, how often it tells (storage.md §4)."""

import pytest

from proxy.storage.redis.breaker import Breaker

Step = tuple[str, float]

FAILED, SLOW, ANSWERED = ("failed", 0.0), ("failed", 0.4), ("succeeded", 0.0)

# fmt: off
STORIES: list[tuple[str, list[Step], bool, int]] = [
    # what happens                       the calls                                   open, told
    ("two failures are bad luck",        [FAILED] * 2,                               False, 0),
    ("three in a row are not",           [FAILED] * 3,                               True,  1),
    ("more of them say nothing new",     [FAILED] * 9,                               True,  1),
    ("an answer starts it anew",         [FAILED] * 2 + [ANSWERED] + [FAILED] * 2,   False, 0),
    ("a second of waiting is enough",    [("failed", 0.5)] * 2,                      True,  1),
    ("an answer closes it",              [SLOW] * 3 + [ANSWERED],                    False, 2),
    ("and it may open again",            [SLOW] * 3 + [ANSWERED] + [SLOW] * 3,       True,  3),
]
# fmt: on


@pytest.mark.parametrize(
    ("steps", "opened", "told"), [row[1:] for row in STORIES], ids=[row[0] for row in STORIES]
)
def test_the_breaker(steps: list[Step], opened: bool, told: int) -> None:
    breaker, changes = Breaker(), 0
    for number, (what, waited_s) in enumerate(steps):
        if what == "failed":
            changes += breaker.failed(float(number), waited_s)
        else:
            changes += breaker.succeeded()
    assert (breaker.open, changes) == (opened, told)
