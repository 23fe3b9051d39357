"""What a caller made of an answer, whatever the dialect; and the raw readers that look at the form
of it: one start, one end, usage, nothing doubled.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.kit.httpclient import Answer

Judge = Literal["sdk", "raw"]


@dataclass
class Said:
    """`error` is the class that the SDK raised, or the type that was told; `proper`: one that a
    program can tell from a broken connection.  `flaws`: what is wrong with the form."""

    judge: Judge
    text: str = ""
    error: str = ""
    proper: bool = True
    message: str = ""
    status: int = 0
    model: str = ""
    stop: str = ""
    usage: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0
    hung: bool = False
    flaws: list[str] = field(default_factory=list)

    @property
    def took_s(self) -> float:
        return self.ended - self.began


def told(answer: Answer) -> Said:
    """The frame of an answer that a raw client read."""
    said = Said("raw", status=answer.status, headers=answer.headers)
    said.began, said.ended = answer.asked_at, answer.end_at
    said.hung = answer.ended == "late"
    return said


def read_chat(answer: Answer, *, stream: bool) -> Said:
    """An answer of OpenAI's chat completions."""
    said = told(answer)
    if answer.status != 200 or not stream:
        return _whole_chat(answer, said)
    events = [event.data for event in answer.events]
    chunks = list(_parsed([data for data in events if data != "[DONE]"], said))
    errors = [chunk["error"] for chunk in chunks if chunk.get("error")]
    chunks = [chunk for chunk in chunks if not chunk.get("error")]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    deltas = [choice["delta"] for choice in choices]
    said.text = "".join(delta.get("content") or "" for delta in deltas)
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    said.usage = bool(usages)
    said.model = chunks[-1]["model"] if chunks else ""
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    said.stop = finishes[-1] if finishes else ""
    done = events.count("[DONE]")
    _one(said, "role", sum("role" in delta for delta in deltas), most_only=bool(errors))
    _one(said, "id", len({chunk["id"] for chunk in chunks}), most_only=bool(errors))
    _one(said, "created", len({chunk["created"] for chunk in chunks}), most_only=bool(errors))
    if errors:
        _failed_in_band(said, answer, errors, bool(done))
        return said
    _one(said, "finish_reason", len(finishes))
    _one(said, "usage", len(usages))
    _one(said, "[DONE]", done)
    if events and events[-1] != "[DONE]":
        said.flaws.append("something follows [DONE]")
    _whole(said, answer)
    return said


def _whole_chat(answer: Answer, said: Said) -> Said:
    body = _object(answer, said)
    if answer.status != 200:
        return _refused(said, body)
    choice = (body.get("choices") or [{}])[0]
    said.text = choice.get("message", {}).get("content") or ""
    said.stop, said.model = choice.get("finish_reason") or "", body.get("model", "")
    said.usage = bool(body.get("usage"))
    _whole(said, answer)
    return said


def read_messages(answer: Answer, *, stream: bool) -> Said:
    """An answer of Anthropic's Messages."""
    said = told(answer)
    if answer.status != 200 or not stream:
        return _whole_message(answer, said)
    events = list(_parsed([event.data for event in answer.events], said))
    by_type: dict[str, list[Any]] = {}
    for event in events:
        by_type.setdefault(event["type"], []).append(event)
    deltas = [event["delta"] for event in by_type.get("content_block_delta", [])]
    said.text = "".join(delta.get("text", "") for delta in deltas)
    starts, ends = by_type.get("message_start", []), by_type.get("message_delta", [])
    said.model = starts[0]["message"]["model"] if starts else ""
    said.stop = ends[-1]["delta"].get("stop_reason") or "" if ends else ""
    said.usage = bool(ends and ends[-1].get("usage", {}).get("output_tokens"))
    errors = [event["error"] for event in by_type.get("error", [])]
    _one(said, "message_start", len(starts), most_only=bool(errors))
    opened = [event["index"] for event in by_type.get("content_block_start", [])]
    closed = [event["index"] for event in by_type.get("content_block_stop", [])]
    if opened != list(range(len(opened))):
        said.flaws.append(f"blocks begin as {opened}")
    if errors:
        _failed_in_band(said, answer, errors, "message_stop" in by_type)
        return said
    if closed != opened:
        said.flaws.append(f"blocks begin as {opened} and end as {closed}")
    _one(said, "message_delta", len(ends))
    _one(said, "message_stop", len(by_type.get("message_stop", [])))
    if events and events[-1]["type"] != "message_stop":
        said.flaws.append("something follows message_stop")
    _whole(said, answer)
    return said


def _whole_message(answer: Answer, said: Said) -> Said:
    body = _object(answer, said)
    if answer.status != 200:
        return _refused(said, body)
    said.text = "".join(part.get("text", "") for part in body.get("content", []))
    said.stop, said.model = body.get("stop_reason") or "", body.get("model", "")
    said.usage = bool(body.get("usage", {}).get("output_tokens"))
    _whole(said, answer)
    return said


def _one(said: Said, what: str, count: int, *, most_only: bool = False) -> None:
    if count > 1 or (count == 0 and not most_only):
        said.flaws.append(f"{count} × {what}")


def _whole(said: Said, answer: Answer) -> None:
    if not answer.whole:
        said.flaws.append(f"the body was {answer.ended}")


def _failed_in_band(said: Said, answer: Answer, errors: Sequence[Any], ended: bool) -> None:
    """After an error in the stream nothing may look like an end (wire.md §7.6)."""
    said.error, said.message = errors[0].get("type") or "error", errors[0].get("message", "")
    if ended:
        said.flaws.append("an error and an end")
    if answer.whole:
        said.flaws.append("the last chunk came after an error")


def _refused(said: Said, body: Any) -> Said:
    error = body.get("error") if isinstance(body, dict) else None
    error = error if isinstance(error, dict) else {}
    said.error = error.get("code") or error.get("type") or f"status {said.status}"
    said.message, said.proper = error.get("message", ""), bool(error)
    return said


def _object(answer: Answer, said: Said) -> dict[str, Any]:
    try:
        found = answer.json
    except ValueError:
        found = None
    if not isinstance(found, dict):
        said.flaws.append("no JSON object")
        return {}
    return found


def _parsed(lines: Sequence[str], said: Said) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            said.flaws.append("an event that does not parse")
