"""What a caller is told of a block: an error, or an answer that ends with the dialect's word."""

import json

import pytest

from proxy.model.policy import PolicyPack
from tests.kit.builders import ANTHROPIC, BLOCK_RULE, JSON, OPENAI, SECRET_RULE, World, pack, world
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.shapes import MESSAGES, Doc, begun, chat, chunk, docs_of, ended, event, piece, told

SECRET = "launch code"
COMPLETIONS = "/v1/completions"
FINISH = pack(BLOCK_RULE, SECRET_RULE, block_style="finish")
SPEAKING = pack(BLOCK_RULE, block_style="finish", message="Ask the harbour master.")


def asked(path: str, text: str, **more: object) -> bytes:
    prompt: Doc = {"messages": [{"role": "user", "content": text}]}
    if path == COMPLETIONS:
        prompt = {"prompt": text}
    return json.dumps({"model": "m", "max_tokens": 9, **prompt, **more}).encode()


def over(path: str, guard: PolicyPack, *scripts: list[Step]) -> World:
    endpoint = ANTHROPIC if path == MESSAGES else OPENAI
    return world((endpoint,), scripts={endpoint.id: scripts}, packs=[guard])


def answered(doc: Doc) -> list[Step]:
    return [(200, JSON), json.dumps(doc).encode(), None]


def said(path: str, doc: Doc) -> list[tuple[object, object]]:
    """The text and the reason of each choice."""
    found = json.loads(json.dumps(doc))
    if path == MESSAGES:
        assert (found["type"], found["role"]) == ("message", "assistant")
        return [("".join(block["text"] for block in found["content"]), found["stop_reason"])]
    if path == COMPLETIONS:
        return [(choice["text"], choice["finish_reason"]) for choice in found["choices"]]
    return [(choice["message"]["content"], choice["finish_reason"]) for choice in found["choices"]]


def streamed(path: str, caller: RecordingDownstream) -> dict[int, tuple[str, list[object]]]:
    """The text and the reasons of each choice of a stream."""
    seen: dict[int, tuple[str, list[object]]] = {}
    for doc in json.loads(json.dumps(docs_of(caller))):
        pieces: list[tuple[int, str, object]] = []
        if path == MESSAGES:
            delta = doc.get("delta", {})
            pieces = [(0, delta.get("text", ""), delta.get("stop_reason"))]
        for choice in doc.get("choices", ()):
            text = choice.get("text") or choice.get("delta", {}).get("content") or ""
            pieces.append((choice["index"], text, choice["finish_reason"]))
        for at, text, reason in pieces:
            before, reasons = seen.get(at, ("", []))
            seen[at] = (before + text, reasons + ([reason] if reason else []))
    return seen


REASONS = {
    "/v1/chat/completions": "content_filter",
    COMPLETIONS: "content_filter",
    MESSAGES: "refusal",
}
ANSWERS: dict[str, Doc] = {
    "/v1/chat/completions": {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": f"the {SECRET}"},
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    },
    COMPLETIONS: {
        "id": "c", "object": "text_completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "text": f"the {SECRET}", "finish_reason": "stop",
                     "logprobs": None}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    },
    MESSAGES: {
        "id": "m", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": f"the {SECRET}"}], "stop_reason": "end_turn",
        "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 2},
    },
}  # fmt: skip


@pytest.mark.parametrize(("guard", "text"), [(FINISH, ""), (SPEAKING, "Ask the harbour master.")])
@pytest.mark.parametrize("path", REASONS)
async def test_a_blocked_request_gets_an_answer_that_ends_at_once(
    path: str, guard: PolicyPack, text: str
) -> None:
    w = over(path, guard)
    caller = await w.ask(asked(path, SECRET), path)
    assert (caller.status, caller.length) == (200, len(caller.received))
    assert said(path, json.loads(caller.received)) == [(text, REASONS[path])]
    assert caller.header("content-type") == "application/json"
    record = w.record
    assert (record.outcome, record.status_code, record.attempts) == ("blocked", 200, [])
    assert record.policy_results[0].action_taken == "block"


@pytest.mark.parametrize(("guard", "text"), [(FINISH, ""), (SPEAKING, "Ask the harbour master.")])
@pytest.mark.parametrize("path", REASONS)
async def test_a_blocked_request_for_a_stream_gets_a_stream_that_ends_at_once(
    path: str, guard: PolicyPack, text: str
) -> None:
    w = over(path, guard)
    caller = await w.ask(asked(path, SECRET, stream=True), path)
    assert (caller.status, caller.length) == (200, None)
    assert caller.header("content-type") == "text/event-stream"
    assert streamed(path, caller) == {0: (text, [REASONS[path]])}
    last = b"data: [DONE]\n\n" if path != MESSAGES else event({"type": "message_stop"})
    assert caller.received.replace(b" ", b"").endswith(last.replace(b" ", b""))
    assert not caller.cut
    assert w.record.outcome == "blocked"


@pytest.mark.parametrize("path", REASONS)
async def test_a_blocked_answer_keeps_what_it_cost(path: str) -> None:
    w = over(path, FINISH, answered(ANSWERS[path]))
    caller = await w.ask(asked(path, "hello"), path)
    assert caller.status == 200
    doc = json.loads(caller.received)
    assert said(path, doc) == [("", REASONS[path])]
    usage = doc["usage"]
    assert usage.get("prompt_tokens", usage.get("input_tokens")) == 5
    assert SECRET.encode() not in caller.received
    record = w.record
    assert (record.outcome, record.truncated_by_policy) == ("blocked", True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", COMPLETIONS])
async def test_every_choice_that_was_asked_for_ends(path: str) -> None:
    w = over(path, FINISH)
    whole = await w.ask(asked(path, SECRET, n=3), path)
    assert said(path, json.loads(whole.received)) == [("", "content_filter")] * 3
    stream = await w.ask(asked(path, SECRET, n=3, stream=True), path)
    assert streamed(path, stream) == {at: ("", ["content_filter"]) for at in range(3)}


async def test_the_first_chunk_says_who_speaks() -> None:
    caller = await over("", SPEAKING).ask(asked("", SECRET, stream=True))
    first = json.loads(json.dumps(docs_of(caller)[0]))["choices"][0]
    assert first["delta"] == {"role": "assistant", "content": "Ask the harbour master."}


async def test_usage_that_was_asked_for_comes_last() -> None:
    body = asked("", SECRET, stream=True, stream_options={"include_usage": True})
    caller = await over("", FINISH).ask(body)
    last = docs_of(caller)[-1]
    assert last["choices"] == []
    assert last["usage"]


async def test_a_stream_blocked_before_its_content_goes_on_to_its_end() -> None:
    script = chat(chunk({"content": SECRET}), chunk({}, "stop"))
    w = over("", SPEAKING, script)
    caller = await w.ask(asked("", "hello", stream=True))
    assert caller.status == 200
    assert streamed("", caller) == {0: ("Ask the harbour master.", ["content_filter"])}
    roles = [d["choices"][0]["delta"].get("role") for d in json.loads(json.dumps(docs_of(caller)))]
    assert roles.count("assistant") == 1
    assert w.upstreams["openai"].calls[0].cancelled
    assert w.record.outcome == "blocked"


async def test_a_message_blocked_before_its_content_starts_once() -> None:
    block = begun(0, {"type": "text", "text": ""})
    script = told(block, piece(0, {"type": "text_delta", "text": SECRET}), ended(0))
    caller = await over(MESSAGES, SPEAKING, script).ask(
        asked(MESSAGES, "hello", stream=True), MESSAGES
    )
    assert caller.status == 200
    assert caller.received.count(b"event: message_start") == 1
    assert streamed(MESSAGES, caller) == {0: ("Ask the harbour master.", ["refusal"])}


async def test_what_says_no_reason_stays_an_error() -> None:
    """SECURITY: an empty list of vectors, or a count, would pass for an answer."""
    w = over("", FINISH)
    caller = await w.ask(b'{"model":"m","input":"launch code"}', "/v1/embeddings")
    assert caller.status == 400
    assert json.loads(caller.received)["error"]["code"] == "content_filter"
    w = over(MESSAGES, FINISH)
    caller = await w.ask(asked(MESSAGES, SECRET), "/v1/messages/count_tokens")
    assert caller.status == 400


async def test_the_style_is_that_of_the_pack_that_blocked() -> None:
    strict = pack(BLOCK_RULE, message="No.")
    soft = pack(
        BLOCK_RULE.model_copy(update={"pattern": ["tide table"]}),
        policy_pack_id="soft",
        block_style="finish",
    )
    w = world((OPENAI,), packs=[strict, soft])
    assert (await w.ask(asked("", SECRET))).status == 400
    assert (await w.ask(asked("", "tide table"))).status == 200
    assert (await w.ask(asked("", f"tide table {SECRET}"))).status == 400


# --- the header


def header_of(caller: RecordingDownstream) -> str | None:
    return caller.header("x-parapet-policy")


HEADERS = [
    # mode, prompt, answer, header
    ("off", "KEY1234", "hi", None),
    ("verdict", "hello", "hi", "verdict=pass;action=none"),
    ("verdict", "KEY1234", "hi", "verdict=violation;action=redact"),
    ("rules", "KEY1234", "hi", "verdict=violation;action=redact;rules=test-pack/test.key"),
    ("rules", "hello", "KEY1234", "verdict=violation;action=redact;rules=test-pack/test.key"),
    ("rules", SECRET, "", "verdict=violation;action=block;rules=test-pack/launch"),
    (
        "rules",
        "hello",
        f"KEY1234 {SECRET}",
        "verdict=violation;action=block;rules=test-pack/launch,test-pack/test.key",
    ),
    ("rules", "beacon", "hi", "verdict=pass;action=none"),  # in shadow
]
WATCHED = SECRET_RULE.model_copy(update={"rule_id": "w", "pattern": "beacon", "mode": "shadow"})


@pytest.mark.parametrize("style", ["error", "finish"])
@pytest.mark.parametrize(("mode", "prompt", "answer", "header"), HEADERS)
async def test_the_policy_header(
    style: str, mode: str, prompt: str, answer: str, header: str | None
) -> None:
    doc = json.loads(json.dumps(ANSWERS["/v1/chat/completions"]))
    doc["choices"][0]["message"]["content"] = answer
    guard = pack(SECRET_RULE, BLOCK_RULE, WATCHED, block_style=style)
    w = world((OPENAI,), scripts={"openai": [answered(doc)]}, packs=[guard], policy_header=mode)
    assert header_of(await w.ask(asked("", prompt))) == header


async def test_on_a_stream_the_header_tells_of_the_request() -> None:
    script = chat(chunk({"content": "ok KEY1234 "}), chunk({"content": "end"}), chunk({}, "stop"))
    w = world((OPENAI,), scripts={"openai": [script] * 2}, packs=[FINISH], policy_header="rules")
    caller = await w.ask(asked("", "hello", stream=True))
    assert header_of(caller) == "verdict=pass;action=none"
    assert b"[KEY]" in caller.received
    caller = await w.ask(asked("", "KEY1234", stream=True))
    assert header_of(caller) == "verdict=violation;action=redact;rules=test-pack/test.key"


async def test_a_route_without_packs_has_no_policy_header() -> None:
    w = world((OPENAI,), scripts={"openai": [answered({"choices": []})]}, policy_header="rules")
    assert header_of(await w.ask(asked("", "hello"))) is None
