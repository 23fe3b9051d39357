"""What services are asked and how their answers are read: tables of vectors per adapter."""

from typing import Any

import pytest

from proxy.guardrails.checks.external.table import ADAPTERS
from proxy.guardrails.checks.external.words import (
    AdapterName,
    Asker,
    Category,
    Opinion,
    Question,
    Spec,
    Unreadable,
)

TEXT = "Ana é Bob"  # 9 characters, 10 bytes
MANY = [{"start": 0, "end": 1}] * 10_001


def asked(*texts: str, direction: Any = "request") -> list[Question]:
    role: Any = "user" if direction == "request" else "assistant"
    return [Question(text, direction, "text", role, "before") for text in texts]


def spots(opinion: Opinion) -> list[tuple[int, int, str]]:
    return [(spot.start, spot.end, spot.category) for spot in opinion.spots]


# --- requests

REQUESTS: list[tuple[AdapterName, Spec, list[Question], object]] = [
    (
        "http",
        Spec(),
        asked("hi"),
        {"text": "hi", "direction": "request", "part": "text", "role": "user",
         "route_id": "chat", "request_id": "req-1"},
    ),
    (
        "openai_moderation",
        Spec(),
        asked("a", "b"),
        {"model": "omni-moderation-latest", "input": ["a", "b"]},
    ),
    (
        "bedrock_guardrail",
        Spec(),
        asked("a"),
        {"source": "INPUT", "content": [{"text": {"text": "a"}}], "outputScope": "FULL"},
    ),
    (
        "bedrock_guardrail",
        Spec(),
        asked("a", direction="response"),
        {"source": "OUTPUT", "content": [{"text": {"text": "a"}}], "outputScope": "FULL"},
    ),
    ("presidio", Spec(), asked("a"), {"text": "a", "language": "en"}),
    (
        "presidio",
        Spec(threshold=0.7, language="de", entities=("PERSON",), allow_list=("Ana",)),
        asked("a", "b"),
        {"text": ["a", "b"], "language": "de", "entities": ["PERSON"], "score_threshold": 0.7,
         "allow_list": ["Ana"]},
    ),
    (
        "llama_guard",
        Spec(model="lg"),
        asked("a"),
        {"model": "lg", "messages": [{"role": "user", "content": "a"}], "temperature": 0,
         "max_tokens": 20},
    ),
    (
        "llama_guard",
        Spec(model="lg"),
        asked("a", direction="response"),
        {"model": "lg", "temperature": 0, "max_tokens": 20,
         "messages": [{"role": "user", "content": "before"},
                      {"role": "assistant", "content": "a"}]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "questions", "body"), REQUESTS)
def test_what_a_service_is_asked(
    name: AdapterName, spec: Spec, questions: list[Question], body: object
) -> None:
    assert ADAPTERS[name].ask(spec, questions, Asker("chat", "req-1")) == body


# --- answers


def moderated(flagged: bool = False, **categories: tuple[bool, float]) -> dict[str, Any]:
    return {
        "flagged": flagged,
        "categories": {name: says for name, (says, _) in categories.items()},
        "category_scores": {name: score for name, (_, score) in categories.items()},
    }


def entity(start: int = 0, end: int = 3, score: Any = 0.85, name: Any = "PERSON") -> dict[str, Any]:
    return {"start": start, "end": end, "score": score, "entity_type": name}


def intervened(*outputs: str, **policies: Any) -> dict[str, Any]:
    return {
        "action": "GUARDRAIL_INTERVENED",
        "outputs": [{"text": text} for text in outputs],
        "assessments": [policies],
    }


def pii(*actions: str) -> dict[str, Any]:
    return {"piiEntities": [{"match": "Ana", "type": "NAME", "action": each} for each in actions]}


def completion(content: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}}]}


WHOLE = (0, 9)
# adapter, spec, answer, spots, text as the service has it, block (True) or redaction (False)
ANSWERS: list[tuple[AdapterName, Spec, Any, list[Any], str | None, bool | None]] = [
    ("http", Spec(), {"verdict": "pass"}, [], None, None),
    ("http", Spec(), {"verdict": "pass", "score": 0, "spans": []}, [], None, None),
    ("http", Spec(), {"verdict": "violation"}, [(*WHOLE, "")], None, None),
    ("http", Spec(), {"verdict": "violation", "label": "L", "score": 0.4}, [], None, None),
    ("http", Spec(threshold=0.3), {"verdict": "violation", "label": "L", "score": 0.4},
     [(*WHOLE, "L")], None, None),
    ("http", Spec(), {"verdict": "violation", "label": "L",
                      "spans": [{"start": 0, "end": 3}, {"start": 6, "end": 9, "label": "M"}]},
     [(0, 3, "L"), (6, 9, "M")], None, None),
    ("http", Spec(), {"verdict": "violation",
                      "spans": [{"start": 0, "end": 5}, {"start": 3, "end": 9}]},
     [(0, 5, ""), (3, 9, "")], None, None),  # overlapping: the union is taken out
    ("http", Spec(), {"verdict": "violation", "replacement": "gone"}, [(*WHOLE, "")], "gone", None),
    ("http", Spec(categories={"L": Category(action="allow")}),
     {"verdict": "violation", "label": "L"}, [], None, None),

    ("openai_moderation", Spec(), {"results": [moderated(hate=(False, 0.2))]}, [], None, None),
    ("openai_moderation", Spec(), {"results": [moderated(True, hate=(True, 0.3))]},
     [(*WHOLE, "hate")], None, None),
    ("openai_moderation", Spec(), {"results": [moderated(True)]}, [(*WHOLE, "flagged")],
     None, None),
    ("openai_moderation", Spec(threshold=0.5), {"results": [moderated(hate=(False, 0.6))]},
     [(*WHOLE, "hate")], None, None),
    ("openai_moderation", Spec(threshold=0.9), {"results": [moderated(True, hate=(True, 0.6))]},
     [], None, None),
    ("openai_moderation", Spec(categories={"hate": Category(threshold=0.2)}),
     {"results": [moderated(hate=(False, 0.3), violence=(False, 0.3))]},
     [(*WHOLE, "hate")], None, None),

    ("bedrock_guardrail", Spec(), {"action": "NONE", "outputs": [], "assessments": []},
     [], None, None),
    ("bedrock_guardrail", Spec(), intervened("sorry", topicPolicy={"topics": [
        {"name": "arms", "type": "DENY", "action": "BLOCKED"}]}), [(*WHOLE, "arms")], None, True),
    ("bedrock_guardrail", Spec(), intervened("{NAME} é Bob", sensitiveInformationPolicy=pii(
        "ANONYMIZED")), [(*WHOLE, "NAME")], "{NAME} é Bob", False),
    ("bedrock_guardrail", Spec(), intervened("{NAME} é Bob", sensitiveInformationPolicy=pii(
        "ANONYMIZED", "NONE")), [(*WHOLE, "NAME")], "{NAME} é Bob", False),
    ("bedrock_guardrail", Spec(), intervened("sorry", sensitiveInformationPolicy=pii(
        "ANONYMIZED", "BLOCKED")), [(*WHOLE, "NAME")], None, True),
    ("bedrock_guardrail", Spec(), intervened("x", sensitiveInformationPolicy=pii("ANONYMIZED"),
        wordPolicy={"customWords": [{"match": "Ana", "action": "BLOCKED"}]}),
     [(*WHOLE, "NAME"), (*WHOLE, "customWords")], None, True),
    ("bedrock_guardrail", Spec(), intervened("x", newPolicy={"things": [{"action": "MAYBE"}]}),
     [(*WHOLE, "things")], None, True),
    ("bedrock_guardrail", Spec(), intervened("sorry"), [(*WHOLE, "guardrail")], None, True),
    ("bedrock_guardrail", Spec(), {"action": "GUARDRAIL_INTERVENED", "assessments": []},
     [(*WHOLE, "guardrail")], None, True),

    ("presidio", Spec(), [], [], None, None),
    ("presidio", Spec(), [entity()], [(0, 3, "PERSON")], None, None),
    ("presidio", Spec(), [[entity()]], [(0, 3, "PERSON")], None, None),
    ("presidio", Spec(), [entity(score=0.3)], [], None, None),
    ("presidio", Spec(categories={"PERSON": Category(threshold=0.9)}), [entity()], [], None, None),
    ("presidio", Spec(), [entity(), entity(0, 9, name="NRP")],
     [(0, 3, "PERSON"), (0, 9, "NRP")], None, None),

    ("llama_guard", Spec(), completion("safe"), [], None, None),
    ("llama_guard", Spec(), completion("\n\nsafe\n"), [], None, None),
    ("llama_guard", Spec(), completion("unsafe\nS1,S10"), [(*WHOLE, "S1"), (*WHOLE, "S10")],
     None, None),
    ("llama_guard", Spec(categories={"S13": Category(action="allow")}), completion("unsafe\nS13"),
     [], None, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "answer", "found", "rewritten", "stops"), ANSWERS)
def test_what_a_service_said(
    name: AdapterName,
    spec: Spec,
    answer: Any,
    found: list[Any],
    rewritten: str | None,
    stops: bool | None,
) -> None:
    (opinion,) = ADAPTERS[name].read(spec, asked(TEXT), answer)
    assert sorted(spots(opinion)) == sorted(found)
    assert (opinion.rewritten, opinion.stops) == (rewritten, stops)


def test_several_texts_have_several_opinions_in_their_order() -> None:
    texts = asked("aaa", "bbb")
    told = {"results": [moderated(), moderated(True, hate=(True, 1))]}
    assert [bool(o.spots) for o in ADAPTERS["openai_moderation"].read(Spec(), texts, told)] == [
        False,
        True,
    ]
    listed = [[], [entity()]]
    assert [bool(o.spots) for o in ADAPTERS["presidio"].read(Spec(), texts, listed)] == [
        False,
        True,
    ]


def test_bedrock_says_how_much_it_has_looked_at() -> None:
    counted = {"textCharacters": {"guarded": 4, "total": 9}}
    answer = {"action": "NONE", "guardrailCoverage": counted}
    (opinion,) = ADAPTERS["bedrock_guardrail"].read(Spec(), asked(TEXT), answer)
    assert opinion.looked_at == 4


NAN, INF = float("nan"), float("inf")


def span(**members: Any) -> dict[str, Any]:
    return {"verdict": "violation", "spans": [members]}


LIES: list[tuple[AdapterName, Any]] = [
    *[("http", said) for said in (
        None, True, 1, "pass", [], {}, {"verdict": "ok"}, {"verdict": ["pass"]}, {"verdict": None},
        {"verdict": "violation", "score": NAN}, {"verdict": "violation", "score": INF},
        {"verdict": "violation", "score": -0.1}, {"verdict": "violation", "score": 1.1},
        {"verdict": "violation", "score": True}, {"verdict": "violation", "score": "1"},
        {"verdict": "violation", "label": 5}, {"verdict": "violation", "label": "x" * 200},
        {"verdict": "violation", "label": "a\nb"}, {"verdict": "violation", "spans": {}},
        {"verdict": "violation", "spans": ["x"]}, {"verdict": "violation", "spans": MANY},
        {"verdict": "violation", "replacement": 1},
        {"verdict": "violation", "replacement": "x" * 100_001},
        {"verdict": "pass", "spans": [{"start": 0, "end": 1}]},
        span(), span(start=0), span(start=0, end=0), span(start=3, end=2), span(start=-1, end=3),
        span(start=0, end=10), span(start=9, end=10), span(start=0, end=2**80),
        span(start=0.0, end=1.0), span(start=True, end=True), span(start="0", end="1"),
        span(start=None, end=None), span(start=0, end=3, label=[]),
    )],
    *[("openai_moderation", said) for said in (
        None, [], {}, {"results": []}, {"results": None}, {"results": [None]},
        {"results": [moderated(), moderated()]}, {"results": [{}]},
        {"results": [{"flagged": False}]}, {"results": [{**moderated(), "flagged": "no"}]},
        {"results": [{**moderated(), "categories": []}]},
        {"results": [{**moderated(), "category_scores": None}]},
        {"results": [{**moderated(), "categories": {"hate": 1}}]},
        {"results": [moderated(hate=(True, NAN))]}, {"results": [moderated(hate=(True, 7.0))]},
    )],
    *[("bedrock_guardrail", said) for said in (
        None, [], {}, {"action": None}, {"action": "none"}, {"action": "GUARDRAIL_INTERVENED"},
        {"action": "GUARDRAIL_INTERVENED", "assessments": {}},
        {"action": "GUARDRAIL_INTERVENED", "assessments": ["x"]},
        intervened("x", topicPolicy=[]), intervened("x", topicPolicy={"topics": "arms"}),
        intervened("x", topicPolicy={"topics": [7]}),
        intervened("x", topicPolicy={"topics": [{"action": 7}]}),
        intervened("x", topicPolicy={"topics": [{"name": "a\0", "action": "BLOCKED"}]}),
        intervened(sensitiveInformationPolicy=pii("ANONYMIZED")),
        intervened("a", "b", sensitiveInformationPolicy=pii("ANONYMIZED")),
        {**intervened(sensitiveInformationPolicy=pii("ANONYMIZED")), "outputs": [{"text": 1}]},
        {"action": "NONE", "guardrailCoverage": {"textCharacters": {"guarded": -1}}},
        {"action": "NONE", "guardrailCoverage": []},
    )],
    *[("presidio", said) for said in (
        None, {}, "x", {"error": "no"}, ["x"], [None], [[], []], [{}], [entity(name=None)],
        [entity(name="")], [entity(score=None)], [entity(score=NAN)], [entity(score=2)],
        [entity(-1)], [entity(3, 3)], [entity(0, 10)], [entity(0, 2**70)], [entity()] * 10_001,
    )],
    *[("llama_guard", said) for said in (
        None, {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": "safe"}}] * 2}, completion(None), completion(""),
        completion("unsafe"), completion("unsafe\n"), completion("unsafe\nS15"),
        completion("unsafe\nS1\nbecause"), completion("unsafe S1"), completion("safe\nS1"),
        completion("SAFE"), completion("I cannot help with that"), completion(["safe"]),
    )],
]  # fmt: skip


@pytest.mark.parametrize(("name", "said"), LIES)
def test_a_lie_is_never_read_as_a_verdict(name: AdapterName, said: Any) -> None:
    with pytest.raises(Unreadable):
        ADAPTERS[name].read(Spec(), asked(TEXT), said)


@pytest.mark.parametrize(("name", "said"), LIES[:60])
def test_what_is_told_of_a_lie_holds_nothing_of_it(name: AdapterName, said: Any) -> None:
    with pytest.raises(Unreadable) as told:
        ADAPTERS[name].read(Spec(), asked(TEXT), said)
    assert "Ana" not in str(told.value)
