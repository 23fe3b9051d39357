"""Kind topic and its pack: whole words of a list, watched and not judged."""

from pathlib import Path

import pytest
import yaml

import proxy
from proxy.guardrails.compile import check_pack, compile_guard
from proxy.guardrails.samples import WARM
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import pack

PACKS = Path(proxy.__file__).parent / "packs"
SHIPPED = PolicyPack.model_validate(yaml.safe_load((PACKS / "topics.yaml").read_text()))
GUARD = compile_guard([SHIPPED], GuardSettings())


def seen(text: str) -> set[str]:
    found = GUARD.judge([Leaf(text, "text", "user", ())], "request")
    assert found.block is None
    assert found.rewrites == []
    assert all(one.action_taken == "none" and not one.enforced for one in found.results)
    return {str(one.rule_matched) for one in found.results}


def test_it_compiles_without_a_word() -> None:
    assert check_pack(SHIPPED) == ([], [])


def test_every_list_has_its_rule_and_a_licence_beside_it() -> None:
    named = {rule.config["list"] for rule in SHIPPED.rules}
    assert named == set(SHIPPED.lists)
    licences = (PACKS / "topics.LICENSES.txt").read_text()
    assert all(name in licences for name in named)


@pytest.mark.parametrize("rule", SHIPPED.rules, ids=lambda rule: rule.rule_id)
def test_a_word_is_found_in_disguise_and_not_inside_others(rule) -> None:  # type: ignore[no-untyped-def]
    (match,) = rule.tests.match
    assert rule.rule_id in seen(match.upper())
    assert rule.rule_id in seen(match.replace("e", "\u0435").replace("i", "\u200bi"))
    assert rule.rule_id not in seen(f"xx{match.replace(' ', '')}yy".replace(" ", ""))


@pytest.mark.parametrize(
    "text",
    [
        *WARM,
        "an alternative to the class assignment",
        "Essex, Scunthorpe and Penistone",
        "She assessed the assets and passed the assistant her analysis.",
    ],
)
def test_ordinary_texts_do_not_hit(text: str) -> None:
    assert seen(text) == set()


def test_the_seeds_rule_is_of_this_kind_with_terms_of_the_operator() -> None:
    own = pack(
        {
            "rule_id": "hate_speech",
            "kind": "topic",
            "severity": "high",
            "action": "block",
            "config": {"category": "hate", "list": "regulated terms"},
        },
        lists={"regulated terms": ["forbidden thing", "other thing"]},
    )
    guard = compile_guard([own], GuardSettings())
    found = guard.judge([Leaf("A F\u043erbidden_Thing!", "text", "user", ())], "request")
    assert found.block is not None
    assert (found.block.rule_matched, found.block.detector) == ("hate_speech", "topic")
