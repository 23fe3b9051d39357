"""The shipped pack: every rule finds generated keys in every surrounding, leaves texts alone."""

from pathlib import Path

import pytest
import yaml

import proxy
from benchmarks.quality.keys import KEYS, SHAPES, key_of
from proxy.guardrails.checks.secrets import entropy, is_placeholder
from proxy.guardrails.compile import check_pack, compile_guard
from proxy.guardrails.samples import WARM
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import Maker

FILE = Path(proxy.__file__).parent / "packs" / "secrets-core.yaml"
PACK = PolicyPack.model_validate(yaml.safe_load(FILE.read_text()))
GUARD = compile_guard([PACK], GuardSettings())


def test_the_pack_is_sound() -> None:
    faults, warnings = check_pack(PACK)
    assert (faults, warnings) == ([], [])
    assert GUARD.profile == "secrets-core@1.0.0"
    assert {rule.rule_id for rule in PACK.rules} == {*KEYS, "generic.assignment"}
    assert all(rule.severity == "critical" and rule.tests.no_match for rule in PACK.rules)


@pytest.mark.parametrize("rule_id", KEYS)
def test_a_key_is_found_in_every_surrounding_whole_and_streamed(rule_id: str) -> None:
    make = Maker(sum(map(ord, rule_id)))
    for shape in SHAPES.values():
        key = key_of(rule_id, make.r)
        text = shape.format(key)
        judged = GUARD.judge([Leaf(text, "text", "user", ())], "request")
        assert rule_id in {r.rule_matched for r in judged.results if r.enforced}, shape
        (_, rewritten), *_ = judged.rewrites
        assert key not in rewritten
        assert key[-12:] not in rewritten or rule_id == "url.credentials"
        lane = GUARD.lane("text")
        assert lane is not None
        emitted = "".join(map(lane.feed, make.cuts(text))) + lane.finish()
        assert emitted == rewritten or lane.overflows
        assert key[-12:] not in emitted or rule_id == "url.credentials"


def test_ordinary_texts_are_left_alone() -> None:
    for text in WARM:
        judged = GUARD.judge([Leaf(text, "text", "user", ())], "request")
        assert [r for r in judged.results if r.enforced] == []


def test_placeholders_are_no_secrets() -> None:
    for text in ("AKIAIOSFODNN7EXAMPLE", "gh" + "p_" + "x" * 36, "sk-ant-api03-" + "your_" * 20):
        assert GUARD.judge([Leaf(text, "text", "user", ())], "request").rewrites == []


# fmt: off
ENTROPIES = [
    ("aaaa", 0), ("abcd", 2), ("0123456789abcdef", 4), ("AKIAIOSFODNN7EXAMPLE", 3.684),
    ("AKIA" + "A" * 16, 0.569),
]
# fmt: on


@pytest.mark.parametrize(("text", "bits"), ENTROPIES)
def test_entropy(text: str, bits: float) -> None:
    assert entropy(text) == pytest.approx(bits, abs=0.001)


def test_a_giveaway_deep_inside_a_long_key_does_not_save_it() -> None:
    assert is_placeholder("key-xxxx", ())
    assert not is_placeholder("key-" + "a1B2" * 20 + "xxxx", ())
    assert is_placeholder("key-aaaaabbbb", ("key-",))
    assert not is_placeholder("key-aaaaabbbc", ("key-",))
