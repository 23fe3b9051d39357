"""What no rule can look at, on a route with packs: refused, or let through as a setting says
(guardrails.md §7.4, T-GR-21).  It never passes in silence.
"""

import gzip
import json

import pytest

from proxy.model.exchange import RawHeaders
from proxy.model.policy import PolicyPack, Unscannable
from tests.kit.builders import ANTHROPIC, BLOCK_RULE, JSON, OPENAI, SECRET_RULE, pack, world
from tests.kit.fakes import Step

KEY = "KEY12345"
CHAT_ANSWER = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"},
                 "finish_reason": "stop"}],
}  # fmt: skip
MESSAGE = {
    "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip


def whole(doc: object, headers: RawHeaders | None = None) -> list[Step]:
    return [(200, headers or JSON), json.dumps(doc).encode(), None]


def chat(*parts: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode()


def messages(*blocks: object, role: str = "user") -> bytes:
    said = [{"role": role, "content": blocks}, {"role": "user", "content": "and now?"}]
    return json.dumps({"model": "m", "max_tokens": 9, "messages": said}).encode()


def forbidding(**unscannable: str) -> PolicyPack:
    settings = Unscannable.model_validate(unscannable)
    return pack(SECRET_RULE).model_copy(update={"unscannable": settings})


# --- paths


@pytest.mark.parametrize(
    "path",
    ["audio/speech", "audio/transcriptions", "images/generations", "files", "batches", "threads",
     "realtime", "uploads", "vector_stores", "fine_tuning/jobs"],
)  # fmt: skip
async def test_a_path_that_nobody_has_a_map_of(path: str) -> None:
    w = world(packs=[pack(SECRET_RULE)])
    caller = await w.ask(b"{}", f"/r/chat/v1/{path}")
    assert caller.status == 403
    assert json.loads(caller.received)["error"]["code"] == "unscannable_endpoint"
    assert w.upstreams["openai"].sent == []


async def test_a_body_in_parts() -> None:
    w = world(packs=[pack(SECRET_RULE)])
    form: RawHeaders = [(b"content-type", b"multipart/form-data; boundary=x")]
    caller = await w.ask(b'--x\r\n\r\n{"model":"m"}\r\n--x--', headers=form)
    assert caller.status in (400, 415)
    assert w.upstreams["openai"].sent == []


# --- contents

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
FILE = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}
FILE_ID = {"type": "file", "file": {"file_id": "file-1"}}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
PDF = {"type": "document",
       "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}}  # fmt: skip
KEPT_FILE = {"type": "document", "source": {"type": "file", "file_id": "file-1"}}

CONTENTS = [
    ("binary", "openai", chat(IMAGE)),
    ("binary", "openai", chat(AUDIO)),
    ("binary", "openai", chat(FILE)),
    ("remote", "openai", chat(FILE_ID)),
    ("binary", "anthropic", messages(PICTURE)),
    ("binary", "anthropic", messages(PDF)),
    ("remote", "anthropic", messages(KEPT_FILE)),
]


@pytest.mark.parametrize(("what", "provider", "body"), CONTENTS)
@pytest.mark.parametrize("setting", ["allow", "block"])
async def test_binary_and_remote_content(
    what: str, provider: str, body: bytes, setting: str
) -> None:
    """Allowed, and not counted as scanned; or blocked, and nothing of it leaves."""
    endpoint, path, answer = (
        (OPENAI, "/v1/chat/completions", CHAT_ANSWER)
        if provider == "openai"
        else (ANTHROPIC, "/v1/messages", MESSAGE)
    )
    other = "remote" if what == "binary" else "binary"
    packs = [forbidding(**{what: setting, other: "allow"})]
    w = world([endpoint], packs=packs, scripts={endpoint.id: [whole(answer)]})
    caller = await w.ask(body, path)
    if setting == "allow":
        assert caller.status == 200
        assert w.upstreams[endpoint.id].sent[0].body == body
    else:
        assert caller.status == 403
        assert b"unscannable_content" in caller.received or b"permission_error" in caller.received
        assert w.upstreams[endpoint.id].sent == []


async def test_the_strictest_pack_decides() -> None:
    w = world(packs=[forbidding(binary="allow"), forbidding(binary="block")])
    assert (await w.ask(chat(IMAGE))).status == 403


async def test_a_text_in_a_data_url_is_a_text() -> None:
    url = f"data:text/plain,{KEY}"
    w = world(packs=[pack(SECRET_RULE)], scripts={"openai": [whole(CHAT_ANSWER)]})
    caller = await w.ask(chat({"type": "image_url", "image_url": {"url": url}}))
    assert caller.status == 400  # it cannot be rewritten where it stands
    assert w.upstreams["openai"].sent == []


async def test_signed_reasoning_goes_back_as_it_came() -> None:
    """The provider wrote it and checks its signature; what it holds comes from the same place."""
    thought = {"type": "thinking", "thinking": f"the key is {KEY}", "signature": "c2ln"}
    hidden = {"type": "redacted_thinking", "data": "b3BhcXVl"}
    body = messages(thought, hidden, {"type": "text", "text": "well"}, role="assistant")
    w = world([ANTHROPIC], packs=[pack(SECRET_RULE)], scripts={ANTHROPIC.id: [whole(MESSAGE)]})
    assert (await w.ask(body, "/v1/messages")).status == 200
    assert w.upstreams[ANTHROPIC.id].sent[0].body == body


async def test_counting_tokens_sends_the_whole_prompt_too() -> None:
    w = world([ANTHROPIC], packs=[pack(BLOCK_RULE)])
    body = messages({"type": "text", "text": "the launch code"})
    caller = await w.ask(body, "/v1/messages/count_tokens")
    assert caller.status == 400
    assert w.upstreams[ANTHROPIC.id].sent == []


# --- bodies that two readers could read differently

NESTED = '{"model":"m","messages":[{"role":"user","content":[%s]}]}'


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"m","messages":[],"messages":[]}',
        '{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}',
        NESTED % '{"type":"text","text":"a","text":"b"}',
        NESTED % '{"type":"text","text":"a","x":{"y":{"z":1,"z":2}}}',
        NESTED % '{"type":"text","text":"\\ud83d"}',
        NESTED % '{"type":"text","text":"\\ud83d\\ud83d"}',
        NESTED % ("[" * 70 + "]" * 70),
    ],
)
async def test_a_member_twice_half_a_pair_or_absurd_depth(body: str) -> None:
    w = world(packs=[pack(SECRET_RULE)])
    caller = await w.ask(body.encode())
    assert caller.status == 400
    assert w.upstreams["openai"].sent == []


async def test_a_compressed_request() -> None:
    w = world(packs=[pack(SECRET_RULE)])
    headers: RawHeaders = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    caller = await w.ask(gzip.compress(chat({"type": "text", "text": "hello"})), headers=headers)
    assert caller.status in (400, 415)
    assert w.upstreams["openai"].sent == []


# --- answers


async def test_a_compressed_answer_is_read_first() -> None:
    answer = json.loads(json.dumps(CHAT_ANSWER).replace("hi", f"use {KEY}"))
    packed = gzip.compress(json.dumps(answer).encode())
    script: list[Step] = [(200, [*JSON, (b"content-encoding", b"gzip")]), packed, None]
    w = world(packs=[pack(SECRET_RULE)], scripts={"openai": [script]})
    caller = await w.ask(chat({"type": "text", "text": "hello"}))
    assert caller.status == 200
    assert KEY.encode() not in caller.received
    assert b"use [KEY]" in caller.received


@pytest.mark.parametrize("body", [b"<html>", b'"text"', b"", b'{"choices":[],"choices":[]}'])
async def test_an_answer_that_is_not_the_dialect_never_leaves(body: bytes) -> None:
    script: list[Step] = [(200, JSON), body, None]
    w = world(packs=[pack(SECRET_RULE)], scripts={"openai": [script]})
    caller = await w.ask(chat({"type": "text", "text": "hello"}))
    assert caller.status == 502
    assert body not in caller.received or not body
