"""A text that goes on in another answer: a lane that was rewound says of the rest what it would
have said of the whole (T-FO-54), and nothing of a secret leaves in two halves."""

import random

import pytest

from tests.fuzz.test_stream_pump import guard, pieces, text

CASES = 400
SIZES = (1, 2, 3, 5, 9, 30)


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(n, marks=pytest.mark.thorough) for n in range(2, 20))]
)
def test_what_has_left_and_the_rest_are_the_whole(seed: int) -> None:
    r = random.Random(seed)
    rewound = 0
    for _ in range(CASES):
        whole = text(r) + text(r)
        wanted, block = guard().whole(whole, "text")
        lane = guard().lane("text")
        assert lane is not None
        cut = r.randint(1, len(whole))
        left = "".join(lane.feed(piece) for piece in pieces(r, whole[:cut], SIZES))
        if lane.blocked is not None:
            continue
        half_taken = lane._committed is not None or lane._mode != "hold"
        held = lane.held_text
        lane.rewind()
        assert (lane.held, lane.held_text) == (0, "")
        if half_taken:
            continue  # what it stands for has left: the rest is another text
        assert whole[:cut].endswith(held)
        rest = whole[cut - len(held) :]
        said = left + "".join(lane.feed(piece) for piece in pieces(r, rest, SIZES)) + lane.finish()
        assert said == wanted
        assert (lane.blocked is None) is (block is None)
        rewound += bool(held)
    assert rewound
