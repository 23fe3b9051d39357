"""Folding: context free, exact in streams, and what it does not see through."""

import pytest

from proxy.guardrails.fold import folding
from proxy.guardrails.view import View

# fmt: off
SEEN_THROUGH = [
    ("h\u200ba\u200dt\u00ade", "hate"),       # format characters
    ("ｈａｔｅ",                 "hate"),       # full width
    ("һаtе",                   "hate"),       # Cyrillic
    ("HΑΤΕ",                   "hate"),       # Greek capitals
    ("ha\u0301te\u0308",       "hate"),       # combining marks
    ("𝐡𝒂𝓽𝔢",                   "hate"),       # mathematical letters
    ("hàtë",                   "hate"),       # precomposed
    ("h\U000e0041ate",         "hate"),       # tags
    ("ﬁ",                      "ﬁ"),          # a ligature is two letters: stays
    ("kate",                   "kate"),
]
# fmt: on


@pytest.mark.parametrize(("text", "folded"), SEEN_THROUGH)
def test_the_fold(text: str, folded: str) -> None:
    fold = folding("fold")
    assert fold.text(text) == folded
    assert "".join(map(fold.text, text)) == folded  # no neighbour is looked at


def test_leet_adds_digits_and_signs() -> None:
    assert folding("leet").text("H4t3 5p33ch!") == "hate speechi"
    assert folding("fold").text("H4t3") == "h4t3"


def test_folded_offsets_lead_back_to_the_original() -> None:
    text = "\u200bh\u0301aТ\u200be"
    face = View(text).face(folding("fold"))
    assert face.text == "hate"
    assert [face.source(at) for at in range(5)] == [1, 3, 4, 6, 7]
    assert face.begin(0) == 0
    assert face.begin(3) == 1


def test_everything_that_folds_into_a_set_is_in_its_preimage() -> None:
    fold = folding("leet")
    ranges = fold.unfold(((97, 97),))
    for c in "aAàａа@4𝒂":
        assert any(low <= ord(c) <= high for low, high in ranges), c
