"""Replay: where two versions of a pack differ, and whether a stream says what the whole says."""

import pytest

from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.guardrails.replay import (
    SLICE,
    ReplayTooLong,
    Sample,
    by_rule,
    pieces,
    replay,
    stream_equals_whole,
)
from proxy.model.exchange import Direction, Leaf
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import pack


def guard(*rules: dict[str, object], **settings: object) -> Guard:
    return compile_guard([pack(*rules)], GuardSettings.model_validate(settings))


def sample(text: str, *chunks: int, direction: Direction = "response") -> Sample:
    leaves = [Leaf(text, "text", "assistant", ())]
    return Sample(text[:20], text, direction, "text", leaves, chunks or None)


def never() -> bool:
    return False


WORD = {"rule_id": "word", "pattern": "secret", "action": "redact"}
OTHER = {"rule_id": "other", "pattern": "codes", "action": "block"}
SEEN = {"rule_id": "seen", "pattern": "seen", "action": "log"}
SHADOW = {"rule_id": "shade", "pattern": "shade", "action": "block", "mode": "shadow"}


@pytest.mark.parametrize(
    ("text", "verdict", "action"),
    [
        ("nothing", "pass", "none"),
        ("a secret", "violation", "redact"),
        ("the codes", "violation", "block"),
        ("a secret, the codes", "violation", "block"),
        ("seen", "violation", "log"),
        ("seen secret", "violation", "redact"),
        ("shade", "violation", "none"),
    ],
)
def test_what_is_said_of_a_text(text: str, verdict: str, action: str) -> None:
    one = guard(WORD, OTHER, SEEN, SHADOW)
    [compared] = replay(one, one, [sample(text)], never)
    assert (compared.candidate.verdict, compared.candidate.action_taken) == (verdict, action)
    assert compared.baseline == compared.candidate
    assert not compared.changed


@pytest.mark.parametrize(
    ("new", "changed", "counts"),
    [
        (WORD, False, ("word", 1, 1, 0, 0)),
        ({**WORD, "action": "block"}, True, ("word", 1, 1, 0, 0)),
        ({**WORD, "replacement": "[X]"}, True, ("word", 1, 1, 0, 0)),
        ({**WORD, "pattern": "secrets"}, True, ("word", 1, 0, 0, 1)),
        ({**WORD, "severity": "low"}, False, ("word", 1, 1, 0, 0)),
    ],
)
def test_what_counts_as_a_change(
    new: dict[str, object], changed: bool, counts: tuple[str, int, int, int, int]
) -> None:
    [compared] = replay(guard(new), guard(WORD), [sample("a secret word")], never)
    assert compared.changed is changed
    [count] = by_rule([compared])
    told = count.rule_id, count.baseline_hits, count.candidate_hits, count.new, count.gone
    assert told == counts


def test_rules_that_change_most_come_first() -> None:
    texts = [sample("secret"), sample("codes"), sample("codes 2"), sample("nothing")]
    compared = replay(guard(OTHER, WORD), guard(WORD), texts, never)
    assert [(c.rule_id, c.new, c.baseline_hits) for c in by_rule(compared)] == [
        ("other", 2, 0), ("word", 0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("chunks", [(1,), (5, 1, 7), (1,) * 60, (1000,)])
@pytest.mark.parametrize(
    "text",
    [
        "nothing at all",
        "a secret and another secret",
        "a secret, then the codes and a secret",
        "codes",
        "sec",
        "",
    ],
)
def test_a_stream_says_what_the_whole_says(text: str, chunks: tuple[int, ...]) -> None:
    one = guard(WORD, OTHER, SEEN)
    assert stream_equals_whole(one, sample(text, *chunks), never)


def test_a_candidate_that_overflows_is_told_apart() -> None:
    endless = {"rule_id": "run", "pattern": "a+b", "action": "redact", "confidence": 1.0}
    one = guard(endless, hold_max_chars=128)
    assert not stream_equals_whole(one, sample("a" * 1000 + "c", 7, 300), never)


def test_a_part_that_no_rule_looks_at_leaves_as_it_is() -> None:
    only = {**WORD, "scope": {"direction": "request"}}
    assert stream_equals_whole(guard(only), sample("a secret", 3), never)


@pytest.mark.parametrize(
    ("text", "sizes", "want"),
    [
        ("abcdef", (1, 2), ["a", "bc", "def"]),
        ("abc", (5, 1), ["abc"]),
        ("", (1,), []),
        ("abc", (), ["abc"]),
        ("x" * (SLICE + 1), (SLICE + 1,), ["x" * SLICE, "x"]),
    ],
)
def test_the_pieces_of_a_text(text: str, sizes: tuple[int, ...], want: list[str]) -> None:
    assert list(pieces(text, sizes)) == want


@pytest.mark.parametrize(("looks", "place"), [(0, 0), (1, 0), (7, 0), (8, 1), (9, 1), (12, 2)])
def test_a_replay_ends_when_its_time_is_over(looks: int, place: int) -> None:
    left = iter([False] * looks)
    samples = [sample("secret", *(1,) * 9), sample("secret", 1), sample("secret")]
    one = guard(WORD)
    with pytest.raises(ReplayTooLong) as stop:
        replay(one, one, samples, lambda: next(left, True))
    assert stop.value.place == place
