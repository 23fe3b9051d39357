"""Streams that another answer goes on with: whether they can be, and where the texts meet."""

import pytest

from proxy.model.failover import FailoverPolicy, Outcome
from proxy.model.records import Attempt
from proxy.model.recovery import Asked, Released, Seam
from proxy.routing.failover import Now, Send
from proxy.routing.recovery import (
    PrefillSeam,
    RestartSeam,
    hindrance,
    manner_of,
    once_more,
)
from tests.kit.builders import policy


def joined(seam: Seam, *pieces: str, ends: bool = True) -> str:
    """What of these pieces is new; then the answer ends."""
    found = "".join(seam.take(piece) for piece in pieces)
    if ends:
        seam.ends()
    return found


# fmt: off
PREFILLED = [
    # R          discarded  continuation        new         fault
    ("One two",  "",        (" three",),        " three",   ""),
    ("One two ", "",        (" three",),        "three",    ""),
    ("One two ", "",        ("three",),         "three",    ""),
    ("One\n\n",  "",        ("\n", "\nTwo"),    "Two",      ""),
    ("One\n\n",  "",        ("\n", "  Two"),    "  Two",    ""),
    ("One ",     "",        ("  two",),         " two",     ""),
    ("One ",     "",        (" ", " two"),      " two",     ""),
    ("One two",  "",        ("three",),         "three",    ""),
    ("Hel",      "lo you",  ("lo you",),        "lo you",   ""),
    ("Hel",      "lo you",  (" lo you",),       "",         "misfit"),
    ("Hel",      "lo you",  ("\n",),            "",         "misfit"),
    ("Hel",      "lo you",  (),                 "",         "misfit"),
    ("Hel",      "",        (" lo you",),       " lo you",  ""),
    ("Hello",    " you",    (" you",),          " you",     ""),
    ("Hello ",   "you",     ("you",),           "you",      ""),
    ("Bücher ü", "ber",     ("ber",),           "ber",      ""),
    ("価格は",    "一千",     ("一千",),           "一千",      ""),
    ("価格は",    "一千",     ("。",),             "",         "misfit"),
    ("4",        "2",       ("2",),             "2",        ""),
    ("done.",    "",        (),                 "",         ""),
    ("😀",       "",        ("😀",),             "😀",       ""),
]
# fmt: on


@pytest.mark.parametrize(("text", "discarded", "pieces", "new", "fault"), PREFILLED)
def test_fo_50_53_a_continuation_meets_the_text(
    text: str, discarded: str, pieces: tuple[str, ...], new: str, fault: str
) -> None:
    seam = PrefillSeam(text, discarded)
    assert joined(seam, *pieces) == new
    assert seam.fault == fault
    assert seam.passed is not bool(fault)


TEXT = "One two three 😀 four"


@pytest.mark.parametrize("at", range(len(TEXT) + 1))
def test_fo_51_a_restart_is_silent_while_it_says_the_same(at: int) -> None:
    for size in (1, 2, 5, 100):
        seam = RestartSeam(TEXT[:at])
        pieces = [TEXT[i : i + size] for i in range(0, len(TEXT), size)]
        assert joined(seam, *pieces) == TEXT[at:]
        assert (seam.passed, seam.fault) == (True, "")


# fmt: off
DIVERGED = [
    ("the first character", "abc", ("xbc def",)),
    ("one in the middle",   "abc", ("a", "xc def")),
    ("the last character",  "abc", ("ab", "x def")),
    ("shorter",             "abc", ("ab",)),
    ("nothing",             "abc", ()),
]
# fmt: on


@pytest.mark.parametrize(("name", "text", "pieces"), DIVERGED)
def test_fo_52_any_difference_is_a_divergence(
    name: str, text: str, pieces: tuple[str, ...]
) -> None:
    seam = RestartSeam(text)
    assert joined(seam, *pieces) == ""
    assert seam.fault == "diverged"
    assert seam.take("more") == ""


# fmt: off
HINDERED = [
    (Released("text"),                        Asked(),              ""),
    (Released("text", beside="tool_call"),    Asked(),              "tool_call"),
    (Released("text", beside="reasoning"),    Asked(),              "reasoning"),
    (Released("text"),                        Asked(choices=2),     "several choices"),
    (Released("text"),                        Asked(logprobs=True), "logprobs"),
]
MANNERS = [
    (Asked(),                 True,  True,  "text", "prefill"),
    (Asked(),                 False, True,  "text", "restart"),
    (Asked(),                 True,  False, "text", "restart"),
    (Asked(thinks=True),      True,  True,  "text", "restart"),
    (Asked(tool_forced=True), True,  True,  "text", "restart"),
    (Asked(),                 True,  True,  " \n",  "restart"),
]
# fmt: on


@pytest.mark.parametrize(("released", "asked", "why"), HINDERED)
def test_fo_55_what_cannot_be_resumed(released: Released, asked: Asked, why: str) -> None:
    assert hindrance(released, asked) == why


@pytest.mark.parametrize(("asked", "prefill", "carries", "text", "manner"), MANNERS)
def test_manner(asked: Asked, prefill: bool, carries: bool, text: str, manner: str) -> None:
    assert manner == manner_of(Released(text), asked, supports_prefill=prefill, carries=carries)


ORDER = ["a", "b"]
SAID: FailoverPolicy = policy("a", "b")
# fmt: off
AGAIN = [
    # outcomes at a               refused          left_s  budget  once more
    ([Outcome.CUT],               {},              10.0,   True,   True),
    ([Outcome.STALL],             {},              10.0,   True,   False),
    ([Outcome.CUT],               {0: "open"},     10.0,   True,   False),
    ([Outcome.CUT],               {},               0.5,   True,   False),
    ([Outcome.CUT],               {},              10.0,   False,  False),
    ([Outcome.CUT, Outcome.CUT],  {},              10.0,   True,   False),
]
# fmt: on


@pytest.mark.parametrize(("outcomes", "refused", "left_s", "budget", "expected"), AGAIN)
def test_the_one_that_failed_only_where_nothing_else_admits(
    outcomes: list[Outcome], refused: dict[int, str], left_s: float, budget: bool, expected: bool
) -> None:
    tried = [Attempt("a", outcome) for outcome in outcomes]
    move = once_more(tried[-1], ORDER, tried, refused, SAID, Now(left_s, 1.0, has_budget=budget))
    assert move == (Send(0, 0.1, True) if expected else None)
