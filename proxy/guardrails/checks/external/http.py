"""Adapter `http`: our own contract for a service that anybody can write (guardrails.md §5.12)."""

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
    all_of,
    an_object,
)
from proxy.model.exchange import Json

_REPLACEMENT_CHARS: Final = 100_000


def _ask(_: Spec, questions: Sequence[Question], asker: Asker) -> Object:
    (question,) = questions
    return {
        "text": question.text,
        "direction": question.direction,
        "part": question.part,
        "role": question.role,
        "route_id": asker.route_id,
        "request_id": asker.request_id,
    }


def _read(spec: Spec, questions: Sequence[Question], answer: Json) -> list[Opinion]:
    """Raises Unreadable."""
    (question,) = questions
    said = an_object(answer, "the answer")
    verdict = said.get("verdict")
    if verdict not in ("pass", "violation"):
        raise Unreadable("verdict is neither pass nor violation")
    score = 1.0 if said.get("score") is None else a_score(said["score"], "score")
    label = "" if said.get("label") is None else a_name(said["label"], "label")
    spans = [] if said.get("spans") is None else a_list(said["spans"], "spans")
    replacement = _replacement(said.get("replacement"))
    if verdict == "pass":
        if spans:
            raise Unreadable("verdict is pass and there are spans")
        return [FINE]
    spots = [_spot(span, question.text, label, score, replacement) for span in spans]
    rewritten = None
    if not spots:
        spots, rewritten = [all_of(question, label, score)], replacement
    counted = tuple(spot for spot in spots if spec.counts(spot.category, spot.score))
    return [Opinion(counted, rewritten) if counted else FINE]


def _spot(value: Json, text: str, label: str, score: float, replacement: str | None) -> Spot:
    span = an_object(value, "a span")
    start, end = a_place(span, text, "a span")
    own = label if span.get("label") is None else a_name(span["label"], "the label of a span")
    return Spot(start, end, own, score, replacement)


def _replacement(value: Json) -> str | None:
    if value is None:
        return None
    if type(value) is not str or len(value) > _REPLACEMENT_CHARS:
        raise Unreadable("replacement is no text, or too long")
    return value


HTTP: Final = Adapter("http", "", 1, 200, True, _ask, _read)
