"""Adapter `llama_guard`: a chat completion whose answer is `safe`, or `unsafe` and categories."""

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
    Unreadable,
    a_list,
    all_of,
    an_object,
)
from proxy.model.exchange import Json

MODEL: Final = "meta-llama/Llama-Guard-3-8B"
MAX_TOKENS: Final = 20
CATEGORIES: Final = {
    "S1": "violent crimes", "S2": "non-violent crimes", "S3": "sex-related crimes",
    "S4": "child exploitation", "S5": "defamation", "S6": "specialised advice", "S7": "privacy",
    "S8": "intellectual property", "S9": "weapons", "S10": "hate", "S11": "self-harm",
    "S12": "sexual content", "S13": "elections", "S14": "code interpreter abuse",
}  # fmt: skip


def _ask(spec: Spec, questions: Sequence[Question], _: Asker) -> Object:
    (question,) = questions
    turns: list[Json] = []
    if question.direction == "response":
        turns.append({"role": "user", "content": question.before})
        turns.append({"role": "assistant", "content": question.text})
    else:
        turns.append({"role": "user", "content": question.text})
    return {
        "model": spec.model or MODEL,
        "messages": turns,
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    }


def _read(spec: Spec, questions: Sequence[Question], answer: Json) -> list[Opinion]:
    """Raises Unreadable."""
    (question,) = questions
    choices = a_list(an_object(answer, "the answer").get("choices"), "choices")
    if len(choices) != 1:
        raise Unreadable("there is not one choice")
    message = an_object(an_object(choices[0], "the choice").get("message"), "the message")
    content = message.get("content")
    if type(content) is not str:
        raise Unreadable("content is no text")
    lines = content.strip().split("\n")
    if lines == ["safe"]:
        return [FINE]
    if len(lines) != 2 or lines[0].strip() != "unsafe":
        raise Unreadable("content is neither safe nor unsafe with its categories")
    names = [name.strip() for name in lines[1].split(",")]
    if not all(name in CATEGORIES for name in names):
        raise Unreadable("a category is unknown")
    counted = [name for name in dict.fromkeys(names) if spec.counts(name, 1.0)]
    return [Opinion(tuple(all_of(question, name) for name in counted)) if counted else FINE]


LLAMA_GUARD: Final = Adapter(
    "llama_guard", "/v1/chat/completions", 1, 5000, False, _ask, _read
)  # fmt: skip
