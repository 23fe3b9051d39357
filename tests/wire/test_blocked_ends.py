"""The ends of blocked answers in Responses, Gemini and Converse, by the forms of guardrails.md §9.9
and §10."""

import pytest

from proxy.model.exchange import Json, Usage
from proxy.wire.blocked_ends import (
    ANSWERS,
    Item,
    Part,
    converse_end,
    gemini_end,
    gemini_refusal,
    responses_end,
)
from proxy.wire.usage import write_usage

USAGE = Usage(input=5, output=2)
SAID = "Ask the harbour master."
FIRST = {"type": "message", "id": "msg_1", "role": "assistant"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "search"}
REASON = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}


def text_part(text: str) -> dict[str, Json]:
    return {"type": "output_text", "text": text, "annotations": []}


def test_responses_end_every_open_item_and_number_on() -> None:
    items = [
        Item(FIRST, [Part("output_text", "done before", open=False)], open=False),
        Item(FIRST | {"id": "msg_2"}, [Part("output_text", "what has left")]),
        Item(CALL, argument="arguments", text='{"a"'),
    ]
    response: dict[str, Json] = {"id": "resp_1", "object": "response", "status": "in_progress"}
    events = responses_end(response, items, 7, USAGE, None, "msg_9")
    done = {**FIRST, "status": "completed", "content": [text_part("done before")]}
    cut = {
        **FIRST, "id": "msg_2", "status": "incomplete", "content": [text_part("what has left")]
    }  # fmt: skip
    call = {**CALL, "status": "incomplete", "arguments": '{"a"'}
    here = {"item_id": "msg_2", "output_index": 1, "content_index": 0}
    bodies: list[tuple[str, dict[str, object]]] = [
        ("response.output_text.done", {**here, "text": "what has left"}),
        ("response.content_part.done", {**here, "part": text_part("what has left")}),
        ("response.output_item.done", {"output_index": 1, "item": cut}),
        ("response.function_call_arguments.done",
         {"item_id": "fc_1", "output_index": 2, "arguments": '{"a"'}),
        ("response.output_item.done", {"output_index": 2, "item": call}),
        ("response.incomplete",
         {"response": {**response, **REASON, "output": [done, cut, call],
                       "usage": write_usage("openai_responses", USAGE)}}),
    ]  # fmt: skip
    assert events == [
        (name, {"type": name, **body, "sequence_number": 7 + at})
        for at, (name, body) in enumerate(bodies)
    ]


def test_the_message_goes_once_on_the_open_text_and_is_in_the_whole() -> None:
    items = [Item(FIRST, [Part("output_text", "so far ")]), Item(FIRST, [Part("output_text", "")])]
    events = responses_end({}, items, 0, USAGE, SAID, "msg_9")
    assert [doc["delta"] for name, doc in events if name.endswith(".delta")] == [SAID]
    texts = [doc["text"] for name, doc in events if name == "response.output_text.done"]
    assert texts == [f"so far {SAID}", ""]
    assert f"so far {SAID}" in str(events[-1][1]["response"])


def test_a_refusal_ends_as_one() -> None:
    events = responses_end({}, [Item(FIRST, [Part("refusal", "I can")])], 0, USAGE, None, "msg_9")
    assert [name for name, _ in events] == [
        "response.refusal.done", "response.content_part.done", "response.output_item.done",
        "response.incomplete",
    ]  # fmt: skip


@pytest.mark.parametrize("items", [[], [Item(FIRST, [Part("refusal", "I can")])]])
def test_the_message_gets_an_item_of_its_own_where_no_text_is_open(items: list[Item]) -> None:
    events = responses_end({"id": "r"}, items, 3, USAGE, SAID, "msg_9")
    at = len(items)
    new = events[-7:]
    assert [name for name, _ in new] == [
        "response.output_item.added", "response.content_part.added", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.incomplete",
    ]  # fmt: skip
    assert [doc.get("output_index") for _, doc in new[:-1]] == [at] * 6
    assert new[0][1]["item"] == {
        "type": "message", "id": "msg_9", "role": "assistant", "status": "in_progress",
        "content": [],
    }  # fmt: skip
    assert (new[1][1]["part"], new[2][1]["delta"]) == (text_part(""), SAID)
    item = {
        "type": "message", "id": "msg_9", "role": "assistant", "status": "incomplete",
        "content": [text_part(SAID)],
    }  # fmt: skip
    assert new[5][1]["item"] == item
    assert [doc["sequence_number"] for _, doc in events] == [*range(3, 3 + len(events))]


def test_gemini() -> None:
    counted = write_usage("gemini", USAGE)
    ended: list[Json] = [
        {"index": 0, "content": {"role": "model", "parts": []}, "finishReason": "SAFETY"}
    ]
    last = ("", {"candidates": ended, "usageMetadata": counted})
    assert gemini_end([0], USAGE, None) == [last]
    spoken: list[Json] = [{"index": 0, "content": {"role": "model", "parts": [{"text": SAID}]}}]
    assert gemini_end([0], USAGE, SAID) == [("", {"candidates": spoken}), last]
    two = gemini_end([0, 2], USAGE, None)[0][1]["candidates"]
    assert isinstance(two, list)
    assert [each["index"] for each in two if isinstance(each, dict)] == [0, 2]


STOP = ("messageStop", {"stopReason": "guardrail_intervened"})
METADATA = (
    "metadata",
    {"usage": write_usage("bedrock_converse", USAGE), "metrics": {"latencyMs": 12}},
)


def spoken(at: int) -> tuple[str, dict[str, Json]]:
    return "contentBlockDelta", {"contentBlockIndex": at, "delta": {"text": SAID}}


def stopped(at: int) -> tuple[str, dict[str, Json]]:
    return "contentBlockStop", {"contentBlockIndex": at}


@pytest.mark.parametrize(
    ("started", "open_at", "is_text", "message", "before"),
    [
        (True, 1, True, None, [stopped(1)]),
        (True, 1, True, SAID, [spoken(1), stopped(1)]),
        (True, 1, False, SAID, [stopped(1), spoken(2), stopped(2)]),
        (True, None, False, SAID, [spoken(2), stopped(2)]),
        (True, None, False, None, []),
        (False, None, False, None, [("messageStart", {"role": "assistant"})]),
    ],
)
def test_converse(
    started: bool, open_at: int | None, is_text: bool, message: str | None, before: list[object]
) -> None:
    events = converse_end(
        started=started, open_at=open_at, is_text=is_text, next_at=2, usage=USAGE, latency_ms=12,
        message=message,
    )  # fmt: skip
    assert events == [*before, STOP, METADATA]


WHOLE: list[tuple[str, str | None, dict[str, object]]] = [
    ("gemini", None, {"candidates": [
        {"index": 0, "content": {"role": "model", "parts": []}, "finishReason": "SAFETY"}]}),
    ("gemini", SAID, {"candidates": [
        {"index": 0, "content": {"role": "model", "parts": [{"text": SAID}]},
         "finishReason": "SAFETY"}]}),
    ("openai_responses", None, {**REASON, "object": "response", "output": []}),
    ("openai_responses", SAID, {**REASON, "object": "response", "output": [
        {"type": "message", "role": "assistant", "status": "incomplete",
         "content": [text_part(SAID)]}]}),
    ("bedrock_converse", None, {"output": {"message": {"role": "assistant", "content": []}},
                                "stopReason": "guardrail_intervened",
                                "metrics": {"latencyMs": 12}}),
    ("bedrock_converse", SAID, {
        "output": {"message": {"role": "assistant", "content": [{"text": SAID}]}},
        "stopReason": "guardrail_intervened", "metrics": {"latencyMs": 12}}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "message", "doc"), WHOLE)
def test_an_answer_that_says_no_more_than_its_end(
    dialect: str, message: str | None, doc: dict[str, object]
) -> None:
    answer = {name: made for name, made in ANSWERS.items() if name == dialect}
    (made,) = answer.values()
    told = made(USAGE, message, 12)
    member = "usageMetadata" if dialect == "gemini" else "usage"
    assert told.pop(member)
    assert told == doc


def test_a_blocked_request_of_gemini() -> None:
    assert gemini_refusal() == {"promptFeedback": {"blockReason": "SAFETY"}}
