"""Adapter `presidio`: the analyzer's `POST /analyze`; several texts go as a list."""

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
    a_place,
    a_score,
    an_object,
)
from proxy.model.exchange import Json


def _ask(spec: Spec, questions: Sequence[Question], _: Asker) -> Object:
    texts: list[Json] = [question.text for question in questions]
    asked: Object = {"text": texts[0] if len(texts) == 1 else texts, "language": spec.language}
    if spec.entities:
        asked["entities"] = [*spec.entities]
    if spec.threshold is not None and not spec.categories:
        asked["score_threshold"] = spec.threshold
    if spec.allow_list:
        asked["allow_list"] = [*spec.allow_list]
    return asked


def _read(spec: Spec, questions: Sequence[Question], answer: Json) -> list[Opinion]:
    """Raises Unreadable."""
    found = a_list(answer, "the answer")
    if len(questions) == 1 and not (found and type(found[0]) is list):
        found = [found]
    if len(found) != len(questions):
        raise Unreadable("there is not one list per text")
    return [
        _opinion(spec, question, a_list(each, "a list of entities"))
        for question, each in zip(questions, found, strict=True)
    ]


def _opinion(spec: Spec, question: Question, found: list[Json]) -> Opinion:
    spots = []
    for each in found:
        entity = an_object(each, "an entity")
        start, end = a_place(entity, question.text, "an entity")
        name = a_name(entity.get("entity_type"), "entity_type")
        score = a_score(entity.get("score"), "score")
        if spec.counts(name, score):
            spots.append(Spot(start, end, name, score))
    return Opinion(tuple(spots)) if spots else FINE


PRESIDIO: Final = Adapter("presidio", "/analyze", 32, 1000, True, _ask, _read)
