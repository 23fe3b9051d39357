"""The shipped pack for data about people: what it finds, what it leaves alone, and in streams."""

from pathlib import Path

import pytest
import yaml

import proxy
from proxy.guardrails.checks.validators import card
from proxy.guardrails.compile import check_pack, compile_guard
from proxy.guardrails.context import ContextWords
from proxy.guardrails.samples import WARM
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import Maker, pack

FILE = Path(proxy.__file__).parent / "packs" / "pii-core.yaml"
PACK = PolicyPack.model_validate(yaml.safe_load(FILE.read_text()))
GUARD = compile_guard([PACK], GuardSettings())


def redacted(text: str, part: str = "text", inner: tuple[str, ...] | None = None) -> str:
    leaf = Leaf(text, part, "user", (), inner)  # type: ignore[arg-type]
    judged = GUARD.judge([leaf], "request")
    return judged.rewrites[0][1] if judged.rewrites else text


def watched(text: str) -> set[str]:
    """National numbers that were seen, in shadow."""
    judged = GUARD.judge([Leaf(text, "text", "user", ())], "request")
    assert all(not result.enforced for result in judged.results), text
    return {result.rule_matched for result in judged.results}


def streamed(text: str, size: int) -> str:
    lane = GUARD.lane("text")
    assert lane is not None
    pieces = [lane.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return "".join([*pieces, lane.finish()])


def test_it_compiles_without_a_word() -> None:
    assert check_pack(PACK) == ([], [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Write to jane.doe@example.com.", "Write to [EMAIL]."),
        ("a@b.co, c@d.org", "[EMAIL], [EMAIL]"),
        ("Card 4111 1111 1111 1111, thanks", "Card [CARD], thanks"),
        ("1 4111 1111 1111 1111", "1 [CARD]"),
        ("pay 4111111111111111 12 times", "pay [CARD] 12 times"),
        ("IBAN GB82 WEST 1234 5698 7654 32 and so on", "IBAN [IBAN] and so on"),
        ("gb82west12345698765432", "[IBAN]"),
        ("SSN 123-45-6789!", "SSN [SSN]!"),
        ("ring +44 20 7946 0958 at 9", "ring [PHONE] at 9"),
        ("(+1 (415) 555-2671)", "([PHONE])"),
    ],
)
def test_what_is_redacted_whole_and_in_pieces(text: str, told: str) -> None:
    assert redacted(text) == told
    for size in (1, 2, 5, 7, 64):
        assert streamed(text, size) == told, size


@pytest.mark.parametrize(
    "text",
    [
        "It was 11:34:35 on 2024-03-15, build 1.2.3, std::vector<int>.",
        "Order 20240315143000123, invoice 4111111111111112, 555-123-4567.",
        "DE89370400440532013001 is not an account, as everyone @ work knows.",
        "1 + 2 = 3, C++11, x+1 2 3, room 12-34-5678",
        *(text for text in WARM if "+49" not in text),
    ],
)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    assert redacted(text) == text
    assert streamed(text, 5) == text


@pytest.mark.parametrize("rule", [rule for rule in PACK.rules if rule.mode == "shadow"])
def test_a_national_number_counts_behind_a_word_that_says_so(rule) -> None:  # type: ignore[no-untyped-def]
    (match,) = rule.tests.match
    _, bare = rule.tests.no_match
    assert rule.rule_id in watched(match)
    assert rule.rule_id not in watched(bare)
    far = match.removesuffix(bare) + "x " * 40 + bare
    assert rule.rule_id not in watched(far), "the word is too far away"


def test_the_member_of_an_argument_says_what_it_is() -> None:
    number = "44051401359"
    leaf = Leaf(number, "tool_args", "assistant", (), ("person", "PESEL"))
    judged = GUARD.judge([leaf], "response")
    assert [result.rule_matched for result in judged.results] == ["pl_pesel"]
    other = Leaf(number, "tool_args", "assistant", (), ("person", "order"))
    assert GUARD.judge([other], "response").results == []


@pytest.mark.parametrize(
    ("before", "seen"),
    [
        ("card ", True),
        ("CARD: ", True),
        ("card_no=", True),
        ("discard ", False),
        ("cards ", False),
        ("card" + " " * 60, True),
        ("card" + " " * 61, False),  # 65 characters before the span
        ("the card" + " " * 60, True),
        ("discard" + " " * 60, False),  # what stands before the 64 characters is looked at
        ("", False),
        ("4 ", False),
    ],
)
def test_where_a_context_word_counts(before: str, seen: bool) -> None:
    words = ContextWords(("card",), 0.3, required=False)
    assert words.present(before + "4111", len(before)) is seen


def test_confidence_is_lifted_by_context() -> None:
    def confidence(text: str) -> float:
        judged = GUARD.judge([Leaf(text, "text", "user", ())], "request")
        return judged.results[0].confidence

    assert confidence("4111111111111111") == 0.6
    assert confidence("visa 4111111111111111") == pytest.approx(0.9)


def test_context_may_be_required_or_only_lift() -> None:
    def hits(text: str, **context: object) -> bool:
        rule = {"pattern": r"\d{4}", "confidence": 0.4, "context": {"words": ["pin"], **context}}
        guard = compile_guard([pack(rule)], GuardSettings())
        return bool(guard.judge([Leaf(text, "text", "user", ())], "request").results)

    assert hits("pin 1234")
    assert not hits("1234")
    assert not hits("pin 1234", boost=0.05)
    required = {"pattern": r"\d{4}", "context": {"words": ["pin"], "boost": 0, "required": True}}
    guard = compile_guard([pack(required)], GuardSettings())
    assert guard.judge([Leaf("1234", "text", "user", ())], "request").results == []
    assert guard.judge([Leaf("pin 1234", "text", "user", ())], "request").results


def test_recall_and_precision_on_generated_sentences() -> None:
    make = Maker(7)
    entities = {
        "EMAIL": lambda: (
            f"{make.run('abcdefg.', 3, 9).strip('.') or 'a'}x@{make.run('abcd', 2, 8)}.org"
        ),
        "CARD": lambda: with_luhn(make, "4" + make.run("0123456789", 14, 14)),
        "IBAN": lambda: german_iban(make),
        "SSN": lambda: (
            f"{make.r.randint(100, 599)}-{make.r.randint(10, 99)}-{make.r.randint(1000, 9999)}"
        ),
        "PHONE": lambda: "+49" + make.run("123456789", 9, 11),
    }
    for label, one in entities.items():
        found = false = 0
        for _ in range(200):
            value = one()
            before, after = make.prose(2, 8), make.prose(2, 8)
            told = redacted(f"{before} {value} {after}")
            found += told == f"{before} [{label}] {after}"
            false += told.count("[") > 1
        assert found >= 0.95 * 200, label
        assert false <= 0.1 * found, label


def with_luhn(make: Maker, head: str) -> str:
    return next(head + str(last) for last in range(10) if card(head + str(last)))


def german_iban(make: Maker) -> str:
    body = make.run("0123456789", 18, 18)
    check = 98 - int(body + "131400") % 97  # DE00
    return f"DE{check:02d}{body}"
