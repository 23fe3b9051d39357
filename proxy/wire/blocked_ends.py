"""How a block ends an answer of Responses, Gemini and Converse (guardrails.md §9.9).

Pure: what has left of a stream goes in, the events that end it come out, in order, by name; whoever
speaks the grammar frames them.  `block_style: finish` is the same for an answer that never began
(§10).  The text that is told again in a last event is what has left, never what was held.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.model.exchange import Dialect, Json, Usage
from proxy.wire.jsonbody import Object
from proxy.wire.usage import write_usage

Event = tuple[str, Object]

RESPONSES_REASON: Final = "content_filter"
GEMINI_REASON: Final = "SAFETY"
CONVERSE_REASON: Final = "guardrail_intervened"


# --- Responses


@dataclass(slots=True)
class Part:
    """One part of an item: a text (`output_text`) or a refusal, and what has left of it."""

    kind: str
    text: str
    open: bool = True


@dataclass(slots=True)
class Item:
    """One item of the output.  `members`: those that no part and no status is, such as its id and
    type; `argument`: where a call keeps its text (`arguments`, `input`), else empty."""

    members: Object
    parts: list[Part] = field(default_factory=list)
    open: bool = True
    argument: str = ""
    text: str = ""

    def doc(self, status: str) -> Object:
        """The item with what has left of it."""
        told: Object = {**self.members, "status": status}
        if self.argument:
            return told | {self.argument: self.text}
        content: list[Json] = [_part_doc(part) for part in self.parts]
        return told | {"content": content}


def _part_doc(part: Part) -> Object:
    if part.kind == "refusal":
        return {"type": "refusal", "refusal": part.text}
    return {"type": part.kind, "text": part.text, "annotations": []}


_ARGUMENTS: Final = {
    "arguments": "response.function_call_arguments.done",
    "input": "response.custom_tool_call_input.done",
}


def responses_end(
    response: Object,
    items: Sequence[Item],
    sequence: int,
    usage: Usage,
    message: str | None,
    new_id: str,
) -> list[Event]:
    """`response`: as its last event told it; `sequence`: the number of the next event; `new_id`: of
    the item that the message gets where no text is open."""
    events: list[Event] = []
    output: list[Json] = []
    for at, item in enumerate(items):
        if not item.open:
            output.append(item.doc("completed"))
            continue
        for number, part in enumerate(item.parts):
            if part.open:
                said = message if part.kind == "output_text" else None
                events += _part_ended(item, at, number, said)
                message = None if said else message
        events += _item_ended(item, at)
        output.append(item.doc("incomplete"))
    if message:
        item = Item({"type": "message", "id": new_id, "role": "assistant"})
        at = len(items)
        begun = {**item.members, "status": "in_progress", "content": []}
        item.parts.append(Part("output_text", ""))
        place: Object = {"item_id": new_id, "output_index": at, "content_index": 0}
        events.append(("response.output_item.added", {"output_index": at, "item": begun}))
        part_doc = _part_doc(item.parts[0])
        events.append(("response.content_part.added", {**place, "part": part_doc}))
        events += [*_part_ended(item, at, 0, message), *_item_ended(item, at)]
        output.append(item.doc("incomplete"))
    counted = write_usage("openai_responses", usage)
    whole: Object = {**response, "output": output, "usage": counted, **_INCOMPLETE}
    events.append(("response.incomplete", {"response": whole}))
    return [
        (name, {"type": name, **doc, "sequence_number": sequence + number})
        for number, (name, doc) in enumerate(events)
    ]


def _part_ended(item: Item, at: int, number: int, message: str | None) -> list[Event]:
    part = item.parts[number]
    here: Object = {
        "item_id": item.members.get("id"), "output_index": at, "content_index": number
    }  # fmt: skip
    events: list[Event] = []
    if message:
        events.append(("response.output_text.delta", {**here, "delta": message}))
        part.text += message
    if part.kind == "refusal":
        events.append(("response.refusal.done", {**here, "refusal": part.text}))
    else:
        events.append(("response.output_text.done", {**here, "text": part.text}))
    events.append(("response.content_part.done", {**here, "part": _part_doc(part)}))
    return events


def _item_ended(item: Item, at: int) -> list[Event]:
    done: Event = (
        "response.output_item.done",
        {"output_index": at, "item": item.doc("incomplete")},
    )
    if not item.argument:
        return [done]
    place: Object = {"item_id": item.members.get("id"), "output_index": at}
    return [(_ARGUMENTS[item.argument], {**place, item.argument: item.text}), done]


_INCOMPLETE: Final[Object] = {
    "status": "incomplete",
    "incomplete_details": {"reason": RESPONSES_REASON},
}


# --- Gemini


def gemini_end(candidates: Sequence[int], usage: Usage, message: str | None) -> list[Event]:
    """`candidates`: those that have not ended."""
    events: list[Event] = []
    if message:
        spoken = [_candidate(at, [{"text": message}]) for at in candidates]
        events.append(("", {"candidates": [*spoken]}))
    ended = [_candidate(at, []) | {"finishReason": GEMINI_REASON} for at in candidates]
    counted = write_usage("gemini", usage)
    return [*events, ("", {"candidates": [*ended], "usageMetadata": counted})]


def _candidate(at: int, parts: list[Json]) -> Object:
    return {"index": at, "content": {"role": "model", "parts": parts}}


# --- Converse


def converse_end(
    *,
    started: bool,
    open_at: int | None,
    is_text: bool,
    next_at: int,
    usage: Usage,
    latency_ms: int,
    message: str | None,
) -> list[Event]:
    """`open_at`: the block that is open, `is_text` if it is one of text; `next_at`: the place of a
    new one.  The message goes on an open text, else into a block of its own."""
    events: list[Event] = []
    if not started:
        events.append(("messageStart", {"role": "assistant"}))
    if open_at is not None:
        if message and is_text:
            events.append(_spoken(open_at, message))
            message = None
        events.append(("contentBlockStop", {"contentBlockIndex": open_at}))
    if message:
        events.append(_spoken(next_at, message))
        events.append(("contentBlockStop", {"contentBlockIndex": next_at}))
    return [
        *events,
        ("messageStop", {"stopReason": CONVERSE_REASON}),
        ("metadata", _measured(usage, latency_ms)),
    ]


def _spoken(at: int, text: str) -> Event:
    return "contentBlockDelta", {"contentBlockIndex": at, "delta": {"text": text}}


def _measured(usage: Usage, latency_ms: int) -> Object:
    counted = write_usage("bedrock_converse", usage)
    return {"usage": counted, "metrics": {"latencyMs": latency_ms}}


# --- whole answers


def gemini_refusal() -> Object:
    """Of a request that was blocked."""
    return {"promptFeedback": {"blockReason": GEMINI_REASON}}


def _gemini_answer(usage: Usage, message: str | None, _: int) -> Object:
    parts: list[Json] = [{"text": message}] if message else []
    ended = _candidate(0, parts) | {"finishReason": GEMINI_REASON}
    return {"candidates": [ended], "usageMetadata": write_usage("gemini", usage)}


def _responses_answer(usage: Usage, message: str | None, _: int) -> Object:
    output: list[Json] = []
    if message:
        said: Object = {"type": "message", "role": "assistant"}
        output.append(Item(said, [Part("output_text", message)]).doc("incomplete"))
    counted = write_usage("openai_responses", usage)
    return {"object": "response", "output": output, "usage": counted, **_INCOMPLETE}


def _converse_answer(usage: Usage, message: str | None, latency_ms: int) -> Object:
    content: list[Json] = [{"text": message}] if message else []
    said: Object = {"message": {"role": "assistant", "content": content}}
    return {"output": said, "stopReason": CONVERSE_REASON, **_measured(usage, latency_ms)}


# of an answer: (usage, message, latency in milliseconds)
ANSWERS: Final[Mapping[Dialect, Callable[[Usage, str | None, int], Object]]] = {
    "openai_responses": _responses_answer,
    "gemini": _gemini_answer,
    "bedrock_converse": _converse_answer,
}
