"""What a guarded route sends up: nothing unread, nothing of ours, and the model that was routed."""

import base64
import json

import pytest

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

Doc = dict[str, object]
KEY = "KEY12345"  # what `SECRET_RULE` redacts
OK: list[Step] = [(200, JSON), b'{"choices":[]}', None]
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
GUARD = pack(SECRET_RULE, BLOCK_RULE)


def sent_up(w: World, endpoint: str = "openai") -> list[bytes]:
    return [sent.body for sent in w.upstreams[endpoint].sent]


async def asked(doc: Doc, **unscannable: str) -> tuple[int | None, list[bytes]]:
    guard = pack(SECRET_RULE, unscannable=unscannable) if unscannable else GUARD
    w = world((OPENAI,), scripts={"openai": [OK]}, packs=[guard])
    caller = await w.ask(json.dumps(doc).encode())
    return caller.status, sent_up(w)


def of_part(part: Doc) -> Doc:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}]}


# --- guardrails.md §7.4: settings that promise to block


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("binary", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        ("binary", {"type": "image_url", "image_url": {"url": "DATA:image/png;base64,AAAA"}}),
        ("binary", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        ("remote", {"type": "file", "file": {"file_id": "file-1"}}),
    ],
)
async def test_what_a_pack_forbids_because_it_cannot_be_scanned_is_refused(
    kind: str, part: Doc
) -> None:
    assert await asked(of_part(part), **{kind: "block"}) == (403, [])


# --- law 2: every string is text unless a map calls it structural


PARTS: dict[str, Doc] = {
    "image_url": {"type": "image_url", "image_url": {"url": "https://x.test/", "note": KEY}},
    "input_audio": {"type": "input_audio", "input_audio": {"data": "AA", "note": KEY}},
    "file": {"type": "file", "file": {"file_id": "f", "note": KEY}},
    "plain file_data": {"type": "file", "file": {"file_data": KEY}},
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
async def test_an_unknown_member_of_a_part_is_scanned(part: Doc) -> None:
    _, bodies = await asked(of_part(part))
    assert all(KEY.encode() not in body for body in bodies)


@pytest.mark.parametrize(
    "members",
    [{"prediction": {"type": "content", "content": "x", "note": KEY}},
     {"stream_options": {"note": KEY}},
     {"messages": [{"role": "assistant", "audio": {"id": "a", "note": KEY}}]}],
    ids=["prediction", "stream_options", "audio"],
)  # fmt: skip
async def test_an_unknown_member_of_a_chat_request_is_redacted(members: Doc) -> None:
    _, (body,) = await asked(CHAT | members)
    assert KEY.encode() not in body


@pytest.mark.parametrize(
    "block",
    [{"type": "image", "source": {"type": "url", "url": "https://x.test/", "note": KEY}},
     {"type": "document", "source": {"type": "content", "content": [], "note": KEY}},
     {"type": "document", "source": {"type": "file", "file_id": "f", "note": KEY}},
     {"type": "container_upload", "file_id": "f", "note": KEY},
     {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "note": KEY}},
     {"type": {"note": KEY}}],
    ids=["image url", "document content", "document file", "container_upload", "cache", "type"],
)  # fmt: skip
async def test_an_unknown_member_of_a_block_is_redacted(block: Doc) -> None:
    w = world((ANTHROPIC,), scripts={"anthropic-claude": [[(200, JSON), b"{}", None]]},
              packs=[GUARD])  # fmt: skip
    body = {"model": "c", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}
    await w.ask(json.dumps(body).encode(), "/v1/messages")
    (sent,) = sent_up(w, "anthropic-claude")
    assert KEY.encode() not in sent


async def test_a_text_in_a_data_url_is_read_whatever_the_case_of_its_scheme() -> None:
    url = "DATA:text/plain;base64," + base64.b64encode(KEY.encode()).decode()
    part: Doc = {"type": "image_url", "image_url": {"url": url}}
    assert await asked(of_part(part)) == (400, [])  # it cannot be rewritten in place


# --- what is ours stays here, and one model is meant by all


@pytest.mark.parametrize(
    ("query", "upstream"),
    [
        ("key=ppt_ab12_secret", ""),
        ("a=1&key=ppt_ab12_secret&b=2", "?a=1&b=2"),
        ("key=%70%70t_ab12%5fsecret", ""),
        ("token=Bearer%20ppt_ab12_secret", ""),
        ("ppt_ab12_secret", ""),
        ("key=AIza", "?key=AIza"),
        ("filter=my_ppt_files%20now", "?filter=my_ppt_files%20now"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
async def test_a_parapet_key_in_the_query_stays_here(path: str, query: str, upstream: str) -> None:
    w = world(scripts={"openai": [OK]})
    await w.ask(json.dumps(CHAT).encode(), f"{path}?{query}")
    (sent,) = w.upstreams["openai"].sent
    assert sent.head.startswith(f"POST {path}{upstream} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    "body", [b'{"model":"dear","messages":[]}', b'{"model":null,"messages":[]}', b'{"messages":[]}']
)
async def test_the_model_of_the_path_is_routed_and_asked(body: bytes) -> None:
    w = world(scripts={"openai": [OK]})
    path = "/openai/deployments/cheap/chat/completions?api-version=2024-10-21"
    await w.ask(body, path)
    (sent,) = sent_up(w)
    assert (w.record.model, json.loads(sent)) == ("cheap", {"model": "cheap", "messages": []})


# --- what the provider was sent does not come back


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
async def test_an_error_that_quotes_our_credentials_is_masked(status: int) -> None:
    told = b'{"error":{"message":"got %b and %b"}}'
    quoted = told % (b"own-key-of-the-endpoint", b"token-in-a-header")
    headers = [*JSON, (b"x-seen", b"Bearer own-key-of-the-endpoint")]
    own = OPENAI.model_copy(
        update={"api_key": "own-key-of-the-endpoint",
                "extra_headers": {"x-token": "token-in-a-header", "x-short": "got"}}
    )  # fmt: skip
    w = world((own,), scripts={"openai": [[(status, headers), quoted, None]]})
    caller = await w.ask(json.dumps(CHAT).encode())
    assert (caller.status, caller.received) == (status, told % (b"***", b"***"))
    assert b"own-key" not in caller.head
    assert b"x-seen: Bearer ***\r\n" in caller.head


TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
QUOTING = [
    {"message": "got own-key-of-the-endpoint", "type": "server_error"},
    {"message": "no", "type": "not own-key-of-the-endpoint"},
    {"message": "no", "code": "not_own-key-of-the-endpoint"},
]


@pytest.mark.parametrize("before", [b"", TEXT], ids=["before its content", "after content"])
@pytest.mark.parametrize("error", QUOTING)
async def test_an_error_in_a_stream_that_quotes_our_credentials_is_masked(
    error: Doc, before: bytes
) -> None:
    own = OPENAI.model_copy(update={"api_key": "own-key-of-the-endpoint"})
    quoted = before + b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    w = world((own,), scripts={"openai": [[(200, SSE), quoted, None]]})
    caller = await w.ask(json.dumps({**CHAT, "stream": True}).encode())
    assert caller.received
    assert caller.received.startswith(before)
    record = w.record
    told = [*(each.why for each in record.attempts), record.error_message or ""]
    assert b"own-key" not in caller.received
    assert "own-key" not in " ".join(told)
    assert "server_error" in told[0] or "***" in told[0]
