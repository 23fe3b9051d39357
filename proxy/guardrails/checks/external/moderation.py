"""Adapter `openai_moderation`: `POST /v1/moderations`, one result per input, in order."""

from collections.abc import Sequence
from typing import Final

from proxy.guardrails.checks.external.words import (
    FINE,
    Adapter,
    Asker,
    Object,
    Opinion,
    Question,
    Spec,
    Spot,
    Unreadable,
    a_list,
    a_name,
    a_score,
    all_of,
    an_object,
)
from proxy.model.exchange import Json

MODEL: Final = "omni-moderation-latest"
CATEGORIES: Final = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit",
    "illicit/violent", "self-harm", "self-harm/intent", "self-harm/instructions", "sexual",
    "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
FLAGGED: Final = "flagged"  # the service says so and names no category


def _ask(spec: Spec, questions: Sequence[Question], _: Asker) -> Object:
    return {"model": spec.model or MODEL, "input": [question.text for question in questions]}


def _read(spec: Spec, questions: Sequence[Question], answer: Json) -> list[Opinion]:
    """Raises Unreadable."""
    results = a_list(an_object(answer, "the answer").get("results"), "results")
    if len(results) != len(questions):
        raise Unreadable("there is not one result per input")
    return [
        _opinion(spec, question, an_object(result, "a result"))
        for question, result in zip(questions, results, strict=True)
    ]


def _opinion(spec: Spec, question: Question, result: Object) -> Opinion:
    flagged = result.get("flagged")
    if type(flagged) is not bool:
        raise Unreadable("flagged is neither true nor false")
    categories = an_object(result.get("categories"), "categories")
    scores = an_object(result.get("category_scores"), "category_scores")
    spots: list[Spot] = []
    named = False
    for key in categories.keys() | scores.keys():
        name = a_name(key, "a category")
        says = categories.get(name)
        if says is None:  # new categories may come without a verdict
            says = False
        if type(says) is not bool:
            raise Unreadable("a category is neither true nor false")
        named = named or says
        known = scores.get(name)
        score = float(says) if known is None else a_score(known, "a score")
        if spec.counts(name, score, says):
            spots.append(all_of(question, name, score))
    if flagged and not named and spec.counts(FLAGGED, 1.0, says=True):
        spots.append(all_of(question, FLAGGED))
    return Opinion(tuple(sorted(spots, key=lambda spot: -spot.score))) if spots else FINE


MODERATION: Final = Adapter(
    "openai_moderation", "/v1/moderations", 32, 2000, False, _ask, _read
)  # fmt: skip
