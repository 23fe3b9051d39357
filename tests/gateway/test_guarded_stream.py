"""What leaves of a guarded stream.  The rule redacts `KEY` and four or more digits."""

import json

import pytest

from proxy.model.policy import PolicyPack
from tests.kit.builders import (
    ANTHROPIC,
    BLOCK_RULE,
    JSON,
    OPENAI,
    SECRET_RULE,
    SSE,
    World,
    pack,
    world,
)
from tests.kit.fakes import Step
from tests.kit.shapes import (
    CHAT,
    KEY,
    MESSAGE_STREAM,
    MESSAGES,
    STOP,
    STREAM,
    TEXT,
    Doc,
    begun,
    call,
    chat,
    chunk,
    docs_of,
    ended,
    piece,
    told,
)

PACK = pack(SECRET_RULE, BLOCK_RULE)
LIVE = pack(SECRET_RULE, tool_args="live")
STREAMED = b'data: {"choices":[{"index":0,"delta":{"content":"%b","content":"x"}}]}\n\n'


def openai(script: list[Step], guard: PolicyPack = PACK) -> World:
    return world((OPENAI,), scripts={"openai": [script]}, packs=[guard])


def anthropic(script: list[Step], guard: PolicyPack = PACK) -> World:
    return world((ANTHROPIC,), scripts={"anthropic-claude": [script]}, packs=[guard])


def strings(value: object) -> str:
    """All strings below a value, joined in order: what a reader of a growing text sees."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(strings(v) for n, v in value.items() if n != "type")
    return "".join(map(strings, value)) if isinstance(value, list) else ""


async def test_live_tool_arguments_are_judged_as_what_their_escapes_say() -> None:
    w = openai(chat(chunk(call(r'{"a":"\u004bEY12345"}')), chunk({}, "tool_calls")), LIVE)
    caller = await w.ask(STREAM)
    said = "".join(_arguments(caller_doc) for caller_doc in docs_of(caller))
    assert KEY not in strings(json.loads(said or "{}"))


async def test_live_tool_input_is_judged_as_what_its_escapes_say() -> None:
    block = begun(0, {"type": "tool_use", "id": "t", "name": "look", "input": {}})
    delta = piece(0, {"type": "input_json_delta", "partial_json": r'{"a":"\u004bEY12345"}'})
    w = anthropic(told(block, delta, ended(0)), LIVE)
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    deltas = [doc["delta"] for doc in docs_of(caller) if doc["type"] == "content_block_delta"]
    said = "".join(str(d.get("partial_json", "")) for d in deltas if isinstance(d, dict))
    assert KEY not in strings(json.loads(said or "{}"))


def _arguments(doc: Doc) -> str:
    found = json.loads(json.dumps(doc))["choices"][0]["delta"].get("tool_calls", [])
    return "".join(entry["function"].get("arguments", "") for entry in found)


SPLIT = ("it is KE", "Y12345 ok")


@pytest.mark.parametrize(
    "deltas",
    [
        [{"reasoning_details": [{"type": "reasoning.text", "text": t}]} for t in SPLIT],
        [{"content": [{"type": "text", "text": t}]} for t in SPLIT],
    ],
    ids=["reasoning_details", "content as parts"],
)
async def test_a_secret_split_over_events_is_found_under_any_name(
    deltas: list[Doc],
) -> None:
    w = openai(chat(*map(chunk, deltas), chunk({"content": "x"}), STOP))
    caller = await w.ask(STREAM)
    got = [json.loads(json.dumps(doc))["choices"][0]["delta"] for doc in docs_of(caller)]
    assert KEY not in "".join(strings(d) for d in got if d.keys() == deltas[0].keys())


async def test_a_secret_split_over_deltas_of_an_unknown_kind_is_found() -> None:
    deltas = [piece(0, {"type": "compaction_delta", "content": text}) for text in SPLIT]
    w = anthropic(told(begun(0, {"type": "compaction", "content": None}), *deltas, ended(0)))
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    got = [doc["delta"] for doc in docs_of(caller) if doc["type"] == "content_block_delta"]
    assert KEY not in strings(got)


async def test_what_comes_after_the_finish_reason_is_dropped() -> None:
    w = openai(chat(chunk({"content": "it is KE"}), STOP, chunk({"content": "Y12345 ok"})))
    caller = await w.ask(STREAM)
    got = [json.loads(json.dumps(doc))["choices"][0]["delta"] for doc in docs_of(caller)]
    assert KEY not in "".join(d.get("content", "") for d in got)


STRANGE: dict[str, tuple[Doc, ...]] = {
    "in the start of a text": (
        begun(0, {"type": "text", "text": "", "note": KEY}), *TEXT[1:],
    ),
    "in the start of a tool call": (
        begun(0, {"type": "tool_use", "id": "t", "name": "f", "input": {}, "note": KEY}),
        piece(0, {"type": "input_json_delta", "partial_json": "{}"}), ended(0),
    ),
    "in the start of a thinking block": (
        begun(0, {"type": "thinking", "thinking": "", "note": KEY}), ended(0),
    ),
    "in a thinking delta": (
        begun(0, {"type": "thinking", "thinking": ""}),
        piece(0, {"type": "thinking_delta", "thinking": "x", "note": KEY}), ended(0),
    ),
    "beside a block": (begun(0, {"type": "text", "text": ""}, note=KEY), *TEXT[1:]),
    "in the end of a block": (*TEXT[:2], ended(0, note=KEY)),
    "in a ping": (*TEXT, {"type": "ping", "note": KEY}),
}  # fmt: skip


@pytest.mark.parametrize("docs", STRANGE.values(), ids=STRANGE)
async def test_an_unknown_member_of_a_stream_event_is_a_text(docs: tuple[Doc, ...]) -> None:
    caller = await anthropic(told(*docs)).ask(MESSAGE_STREAM, MESSAGES)
    assert KEY.encode() not in caller.received


@pytest.mark.parametrize("data", [b": %b\n\n", b"id: %b\ndata: {}\n\n"], ids=["comment", "id"])
async def test_lines_of_an_event_that_hold_no_data_do_not_leave(data: bytes) -> None:
    caller = await openai(chat(data % KEY.encode(), chunk({"content": "x"}), STOP)).ask(STREAM)
    assert KEY.encode() not in caller.received


async def test_an_unknown_member_of_the_last_event_is_a_text() -> None:
    script = told(*TEXT)
    stop = b'event: message_stop\ndata: {"type":"message_stop","note":"%b"}\n\n' % KEY.encode()
    caller = await anthropic([*script[:-2], stop, None]).ask(MESSAGE_STREAM, MESSAGES)
    assert caller.received.rstrip().endswith(b"}")
    assert KEY.encode() not in caller.received


async def test_the_token_ids_of_a_redacted_text_go_with_it() -> None:
    choice = {"index": 0, "message": {"content": KEY}, "token_ids": [1, 2, 3]}
    w = openai([(200, JSON), json.dumps({"choices": [choice]}).encode(), None])
    caller = await w.ask(CHAT)
    (answered,) = json.loads(caller.received)["choices"]
    assert answered["message"]["content"] != KEY
    assert not answered["token_ids"]


async def test_an_emoji_split_over_two_fragments_of_a_tool_call_is_put_together() -> None:
    first, rest = call('{"a":"\ud83d'), call("\ude00 " + KEY + '"}')
    caller = await openai(chat(chunk(first), chunk(rest), chunk({}, "tool_calls"))).ask(STREAM)
    assert caller.status == 200
    assert json.loads("".join(map(_arguments, docs_of(caller)))) == {"a": "\U0001f600 [KEY]"}


async def test_members_of_a_held_tool_call_that_nobody_knows_stay_with_it() -> None:
    signed = {"google": {"thought_signature": "sig"}}
    script = chat(chunk(call("{}", extra_content=signed)), chunk({}, "tool_calls"))
    caller = await openai(script).ask(STREAM)
    assert b"thought_signature" in caller.received


async def test_after_a_block_in_the_last_piece_the_only_finish_reason_is_ours() -> None:
    script = chat(chunk({"content": "hello "}), chunk({"content": "the launch code"}, "stop"))
    caller = await openai(script).ask(STREAM)
    docs = [json.loads(json.dumps(doc))["choices"][0] for doc in docs_of(caller)]
    reasons = [choice["finish_reason"] for choice in docs if choice["finish_reason"]]
    assert reasons == ["content_filter"]


BLOCKED: dict[str, Doc] = {
    "server tool result": {
        "type": "web_search_tool_result", "tool_use_id": "t",
        "content": [{"type": "web_search_result", "title": "the launch code"}],
    },
    "name of a live tool call": {"type": "tool_use", "id": "t", "name": "launch code", "input": {}},
    "citations": {"type": "text", "text": "", "citations": [{"cited_text": "the launch code"}]},
}  # fmt: skip


@pytest.mark.parametrize("block", BLOCKED.values(), ids=BLOCKED)
@pytest.mark.parametrize("message", [None, "No."])
async def test_a_block_in_the_start_of_a_block_leaves_nothing_open(
    message: str | None, block: Doc
) -> None:
    guard = pack(BLOCK_RULE, message=message, tool_args="live")
    caller = await anthropic(told(*TEXT, begun(1, block), ended(1)), guard).ask(
        MESSAGE_STREAM, MESSAGES
    )
    opened: list[object] = []
    for doc in docs_of(caller):
        if doc["type"] == "content_block_start":
            assert not opened, "a block begins inside another"
            opened.append(doc["index"])
        elif doc["type"] == "content_block_stop":
            opened.remove(doc["index"])
    assert not opened


# --- texts of unknown kind


def details(text: str) -> bytes:
    return chunk({"reasoning_details": [{"type": "reasoning.text", "text": text}]})


async def heard(*events: bytes) -> tuple[str, str]:
    """What a caller reads of the details, and of the content."""
    caller = await openai(chat(*events, STOP)).ask(STREAM)
    assert caller.received.endswith(b"[DONE]\n\n")
    found = [json.loads(json.dumps(doc))["choices"][0]["delta"] for doc in docs_of(caller)]
    said = "".join(str(delta.get("content") or "") for delta in found)
    return strings([delta.get("reasoning_details") for delta in found]), said


async def test_a_text_of_unknown_kind_leaves_as_it_came() -> None:
    events = [details("it is K"), details("EY or"), details(" not")]
    caller = await openai(chat(*events, STOP)).ask(STREAM)
    assert all(event in caller.received for event in events)


async def test_what_comes_behind_a_text_that_is_held_comes_after_it() -> None:
    assert await heard(details("a KE"), chunk({"content": "one"})) == ("a KE", "one")


async def test_a_text_that_paused_is_remembered() -> None:
    told_details, said = await heard(
        details("a KE"), chunk({"content": "one"}), details("Y12"), details("345 b")
    )
    assert said == "one"
    assert KEY not in told_details
    assert "345" not in told_details


async def test_a_value_is_judged_by_itself_too() -> None:
    told_details, _ = await heard(details("1"), details(KEY))
    assert KEY not in told_details


async def test_more_texts_of_unknown_kind_than_can_be_told_apart_break_the_stream() -> None:
    events = [chunk({f"new{number}": "x"}) for number in range(300)]
    caller = await openai(chat(chunk({"content": "hi"}), *events, STOP)).ask(STREAM)
    assert caller.cut


async def test_a_block_in_a_text_of_unknown_kind_ends_the_stream_in_order() -> None:
    script = chat(chunk({"content": "hello "}), details("the launch"), details(" code"), STOP)
    caller = await openai(script).ask(STREAM)
    docs = [json.loads(json.dumps(doc))["choices"][0] for doc in docs_of(caller)]
    assert [d["finish_reason"] for d in docs if d["finish_reason"]] == ["content_filter"]
    assert b"launch" not in caller.received
    assert caller.received.endswith(b"[DONE]\n\n")


@pytest.mark.thorough
async def test_lanes_that_have_ended_are_forgotten_and_their_account_is_kept() -> None:
    blocks: list[Doc] = []
    for number in range(1000):
        blocks += [begun(number, {"type": "text", "text": "", "note": "n"})]
        blocks += [piece(number, {"type": "text_delta", "text": KEY}), ended(number)]
    w = anthropic(told(*blocks))
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    assert KEY.encode() not in caller.received
    record = w.record
    assert record.scanned_chars >= 1000 * len(KEY)
    assert record.outcome == "success"


async def test_an_answer_with_a_member_twice_is_not_passed_on() -> None:
    body = b'{"choices":[{"index":0,"message":{"content":"%b","content":"fine"}}]}' % KEY.encode()
    caller = await openai([(200, JSON), body, None]).ask(CHAT)
    assert KEY.encode() not in caller.received


async def test_an_event_with_a_member_twice_is_not_passed_on() -> None:
    """What one parser reads last, another keeps first."""
    twice = STREAMED % KEY.encode()
    caller = await openai(chat(chunk({"content": "x"}), twice, STOP)).ask(STREAM)
    assert KEY.encode() not in caller.received


async def test_sse_is_known_whatever_the_case_of_its_content_type() -> None:
    named = [(b"content-type", SSE[0][1].title())]
    caller = await openai([(200, named), *chat(chunk({"content": "x"}), STOP)[1:]]).ask(STREAM)
    assert caller.status == 200
