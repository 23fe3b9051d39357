"""The health of automata: counted once each, and never back when guards change."""

import random

from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.guardrails.health import Health
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import LETTERS, pack

KEY = {"kind": "secret", "pattern": "key_[A-Za-z0-9]{20,}", "action": "redact"}
LONG = {"pattern": "[a-z0-9]{2}[0-9]{2}[a-z0-9]{3,30}", "action": "redact"}


def guard() -> Guard:
    return compile_guard([pack(KEY, LONG)], GuardSettings())


def feed(one: Guard, text: str) -> None:
    lane = one.lane("text")
    assert lane is not None
    for at in range(0, len(text), 7):
        lane.feed(text[at : at + 7])
    lane.finish()


def test_a_guard_without_streams_has_none() -> None:
    assert compile_guard([pack({**KEY, "action": "log"})], GuardSettings()).automata() == []
    assert Health().look([]) == (0, 0, 0, 0)


def test_parts_that_share_rules_share_an_automaton() -> None:
    assert len(guard().automata()) == 1


def test_what_was_done_since_the_last_look() -> None:
    health, one = Health(), guard()
    states, *done = health.look([one])
    assert (states, done) == (1, [0, 0, 0])
    r = random.Random(5)
    feed(one, "key_" + "".join(r.choices(LETTERS, k=300)) + " and then")
    states, _, _, commits = health.look([one, one])
    assert states > 1
    assert commits > 0
    assert health.look([one]) == (states, 0, 0, 0)


def test_soft_syncs_are_counted() -> None:
    health, one = Health(), guard()
    feed(one, "".join(random.Random(5).choices("abcdefgh0123", k=4000)))
    assert health.look([one])[2] > 0


def test_nothing_goes_back_when_guards_change() -> None:
    health, one, two = Health(), guard(), guard()
    for each in (one, two):
        feed(each, "key_" + "a1" * 300)
    first = health.look([one])
    assert health.look([two])[1:] == first[1:]
    assert min(health.look([one, two])[1:]) >= 0
