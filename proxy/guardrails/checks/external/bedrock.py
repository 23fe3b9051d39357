"""Adapter `bedrock_guardrail`: ApplyGuardrail, which blocks or anonymises.

INTERVENED means either.  It is a redaction when every finding has the action ANONYMIZED, and a
block otherwise, also where it names no finding at all.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from proxy.guardrails.checks.external.words import (
    FINE,
    Adapter,
    Asker,
    Object,
    Opinion,
    Question,
    Spec,
    Unreadable,
    a_list,
    a_name,
    all_of,
    an_object,
)
from proxy.model.exchange import Json

INTERVENED: Final = "GUARDRAIL_INTERVENED"
_UNNAMED: Final = "guardrail"
# policy -> its lists, each with the member that names a finding without quoting the text
_POLICIES: Final = {
    "topicPolicy": {"topics": "name"},
    "contentPolicy": {"filters": "type"},
    "wordPolicy": {"customWords": "", "managedWordLists": "type"},
    "sensitiveInformationPolicy": {"piiEntities": "type", "regexes": "name"},
    "contextualGroundingPolicy": {"filters": "type"},
}


def _ask(_: Spec, questions: Sequence[Question], __: Asker) -> Object:
    (question,) = questions
    return {
        "source": "INPUT" if question.direction == "request" else "OUTPUT",
        "content": [{"text": {"text": question.text}}],
        "outputScope": "FULL",
    }


def _read(spec: Spec, questions: Sequence[Question], answer: Json) -> list[Opinion]:
    """Raises Unreadable."""
    (question,) = questions
    said = an_object(answer, "the answer")
    looked_at = _looked_at(said, question)
    action = said.get("action")
    if action == "NONE":
        return [Opinion(looked_at=looked_at)]
    if action != INTERVENED:
        raise Unreadable("action is neither NONE nor GUARDRAIL_INTERVENED")
    found = list(dict.fromkeys(_findings(said)))
    counted = [each for each in found if spec.counts(each[0], 1.0)]
    if found and not counted:
        return [FINE]  # of what it found the rule lets everything pass
    stops = not found or any(taken != "ANONYMIZED" for _, taken in counted)
    names = dict.fromkeys(name for name, _ in counted) or {_UNNAMED: None}
    rewritten = None if stops else _rewritten(said)
    return [Opinion(tuple(all_of(question, name) for name in names), rewritten, stops, looked_at)]


def _findings(said: Object) -> Iterator[tuple[str, str]]:
    """(name, action) of each finding on which something was done."""
    for each in a_list(said.get("assessments"), "assessments", 100):
        assessment = an_object(each, "an assessment")
        for key, value in assessment.items():
            if not key.endswith("Policy") or value is None:
                continue
            yield from _of_policy(an_object(value, "a policy"), _POLICIES.get(key, {}))


def _of_policy(policy: Object, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    for member, found in policy.items():
        if found is None:
            continue
        for each in a_list(found, "the findings of a policy"):
            finding = an_object(each, "a finding")
            taken = finding.get("action")
            if taken == "NONE" or finding.get("detected") is False:
                continue
            if taken is not None and type(taken) is not str:
                raise Unreadable("the action of a finding is no text")
            name = finding.get(names.get(member, ""))
            yield (
                member if name is None else a_name(name, "the name of a finding"),
                "ANONYMIZED" if taken == "ANONYMIZED" else "BLOCKED",  # whatever else it may be
            )


def _rewritten(said: Object) -> str:
    outputs = a_list(said.get("outputs"), "outputs", 100)
    if len(outputs) != 1:
        raise Unreadable("there is not one output")
    text = an_object(outputs[0], "the output").get("text")
    if type(text) is not str:
        raise Unreadable("the output has no text")
    return text


def _looked_at(said: Object, question: Question) -> int | None:
    coverage = said.get("guardrailCoverage")
    if coverage is None:
        return None
    counted = an_object(coverage, "guardrailCoverage").get("textCharacters")
    if counted is None:
        return None
    guarded = an_object(counted, "textCharacters").get("guarded")
    if type(guarded) is not int or guarded < 0:
        raise Unreadable("guarded is no count")
    return min(guarded, len(question.text))


BEDROCK: Final = Adapter(
    "bedrock_guardrail", "/guardrail/{id}/version/{version}/apply", 1, 2000, False, _ask, _read
)
