"""A request through the whole pipeline over fakes: what goes up, what comes down, what is told."""

import asyncio
import json

import pytest

from proxy.gateway.pipeline import serve
from proxy.model.exchange import RawHeaders
from proxy.model.failover import Outcome
from proxy.model.ports import TransportFault
from proxy.model.tenancy import ApiKey, Match, Route
from tests.kit.builders import (
    ANTHROPIC,
    BLOCK_RULE,
    JSON,
    OPENAI,
    SECRET_RULE,
    SPARE,
    SSE,
    World,
    pack,
    policy,
    world,
)
from tests.kit.fakes import RecordingDownstream, Step

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}).encode()
STREAM = CHAT[:-1] + b',"stream":true}'
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi there"},
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
).encode()  # fmt: skip
OK: list[Step] = [(200, JSON), ANSWER, None]


def error(status: int, code: str = "", headers: RawHeaders | None = None) -> list[Step]:
    body = json.dumps({"error": {"message": "scripted", "type": code, "code": code}}).encode()
    return [(status, headers or JSON), body, None]


def chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    doc = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
           "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}  # fmt: skip
    return b"data: " + json.dumps(doc).encode() + b"\n\n"


def pieces(*texts: str) -> list[bytes]:
    return [
        chunk({"role": "assistant", "content": ""}),
        *[chunk({"content": text}) for text in texts],
        chunk({}, "stop"),
        b"data: [DONE]\n\n",
    ]


def streamed(*texts: str) -> list[Step]:
    return [(200, SSE), *pieces(*texts), None]


def text_of(body: bytes) -> str:
    """The text that an SDK would put together."""
    out = []
    for line in body.split(b"\n"):
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            doc = json.loads(line[6:])
            out += [choice["delta"].get("content") or "" for choice in doc.get("choices", [])]
    return "".join(out)


# --- an answer


async def test_a_whole_answer_passes_byte_for_byte() -> None:
    w = world(scripts={"openai": [OK]})
    caller = await w.ask(CHAT)
    assert (caller.status, caller.received) == (200, ANSWER)
    assert caller.header("x-parapet-endpoint") == "openai"
    assert caller.header("x-parapet-attempts") == "1"
    record = w.record
    assert (record.outcome, record.status_code, record.model) == ("success", 200, "gpt-4o")
    assert record.usage is not None
    assert (record.usage.all_input, record.usage.output) == (5, 2)


async def test_what_goes_up_is_the_callers_body_with_the_endpoints_credential() -> None:
    w = world(scripts={"openai": [OK]})
    await w.ask(CHAT, headers=[(b"authorization", b"Bearer ppt_id_secret"), (b"x-mine", b"1")])
    (sent,) = w.upstreams["openai"].sent
    assert sent.body == CHAT
    head = sent.head.lower()
    assert head.startswith(b"post /v1/chat/completions http/1.1\r\n")
    assert b"authorization: bearer k3\r\n" in head
    assert b"ppt_" not in head
    assert b"accept-encoding: identity\r\n" in head


async def test_a_stream_passes_byte_for_byte_and_is_told_before_its_last_write() -> None:
    w = world(scripts={"openai": [streamed("hel", "lo")]})
    caller = await w.ask(STREAM)
    assert caller.received == b"".join(pieces("hel", "lo"))
    assert caller.received.endswith(b"data: [DONE]\n\n")
    assert caller.ended
    assert not caller.cut
    assert len(w.notes.lines) == 1
    record = w.record
    assert (record.outcome, record.finish_reason, record.stream) == ("success", "stop", True)
    assert record.ttft_ms is not None


# --- who may call, and where


APP = ApiKey(
    id="ab12",
    secret_sha256="2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",  # "secret"
)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([(b"authorization", b"Bearer ppt_ab12_wrong")], 401),
        ([(b"authorization", b"Bearer ppt_zz99_secret")], 401),
        ([(b"authorization", b"Bearer sk-other")], 401),
        ([(b"x-parapet-key", b"ppt_ab12_secret"), (b"x-api-key", b"ppt_ab12_x")], 401),
        ([(b"authorization", b"Bearer ppt_ab12_secret")], 200),
        ([(b"x-api-key", b"ppt_ab12_secret")], 200),
        ([(b"x-parapet-key", b"ppt_ab12_secret")], 200),
    ],
)
async def test_t_sec_01_keys(headers: RawHeaders, status: int) -> None:
    w = world(scripts={"openai": [OK]}, keys=[APP])
    caller = await w.ask(CHAT, headers=headers)
    assert caller.status == status
    assert len(w.upstreams["openai"].sent) == (status == 200)
    assert w.record.outcome == ("success" if status == 200 else "invalid_request")


@pytest.mark.parametrize(
    ("path", "headers", "model", "status"),
    [
        ("/r/chat/v1/chat/completions", [], "gpt-4o", 200),
        ("/r/other/v1/chat/completions", [], "gpt-4o", 200),
        ("/r/none/v1/chat/completions", [], "gpt-4o", 404),
        ("/v1/chat/completions", [(b"x-parapet-route", b"other")], "gpt-4o", 200),
        ("/v1/chat/completions", [], "claude-x", 200),
        ("/v1/chat/completions", [], "other", 200),
        ("/v1/chat/completions", [], "unknown", 404),
        ("/v1/v1/chat/completions", [], "claude-x", 404),
        ("/r/chat/v1/../v1/chat/completions", [], "gpt-4o", 404),
        ("/r/chat//v1/chat/completions", [], "gpt-4o", 404),
    ],
)
async def test_which_route(path: str, headers: RawHeaders, model: str, status: int) -> None:
    routes = [
        Route(id="chat", endpoint="openai"),
        Route(id="other", endpoint="openai", match=Match(models=["claude*"])),
    ]
    w = world(routes=routes, scripts={"openai": [OK]})
    body = CHAT.replace(b"gpt-4o", model.encode())
    caller = await w.ask(body, path, headers)
    assert caller.status == status, caller.received
    if status == 404:
        assert json.loads(caller.received)["error"]["message"]


# --- bad input: always a clear error in the caller's dialect, and nothing sent


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"x"', 400),
        (b"\xff\xfe", 400),
        (b'{"model":"gpt-4o","messages":[' + b"[" * 100_000, 400),
    ],
)
@pytest.mark.parametrize("guarded", [False, True])
async def test_bad_bodies(body: bytes, status: int, guarded: bool) -> None:
    w = world(packs=[pack(SECRET_RULE)] if guarded else [])
    caller = await w.ask(body)
    assert caller.status == status
    assert json.loads(caller.received)["error"]["message"]
    assert w.upstreams["openai"].sent == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[],"messages":[{"role":"user","content":"KEY12345"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud83d"}]}',
        b'{"model":"m","messages":' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}",
        b'{"model":"m","max_tokens":99999999999999999999999,"messages":[]}',
    ],
)
async def test_t_http_08_what_two_parsers_could_read_differently_is_refused(body: bytes) -> None:
    w = world(packs=[pack(SECRET_RULE)])
    caller = await w.ask(body)
    assert caller.status == 400
    assert w.upstreams["openai"].sent == []


async def test_errors_are_in_the_callers_dialect() -> None:
    w = world([ANTHROPIC])
    caller = await w.ask(b"{", "/v1/messages")
    doc = json.loads(caller.received)
    assert (caller.status, doc["type"]) == (400, "error")
    assert doc["error"]["type"] == "invalid_request_error"
    assert doc["request_id"]


BAD_ANSWERS: list[tuple[str, list[Step]]] = [
    ("html", [(200, [(b"content-type", b"text/html")]), b"<html>", None]),
    ("half", [(200, JSON), ANSWER[:40], None]),
    ("empty", [(200, JSON), None]),
    ("not utf-8", [(200, JSON), b'{"a":"\xff\xfe"}', None]),
    ("an error", [(200, JSON), b'{"error":{"message":"x"}}', None]),
    ("strange coding", [(200, [*JSON, (b"content-encoding", b"br")]), b"zz", None]),
]


@pytest.mark.parametrize(("name", "script"), BAD_ANSWERS)
async def test_an_answer_that_cannot_be_used_is_a_clear_502(name: str, script: list[Step]) -> None:
    w = world(scripts={"openai": [script]})
    caller = await w.ask(CHAT)
    assert caller.status == 502, name
    assert json.loads(caller.received)["error"]["code"] == "upstream_error"
    assert w.record.attempts[0].outcome is Outcome.BAD_ANSWER


async def test_an_answer_that_is_cut_is_a_clear_502() -> None:
    cut: list[Step] = [
        (200, JSON), ANSWER[:40], TransportFault("eof", response_bytes=90)
    ]  # fmt: skip
    w = world(scripts={"openai": [cut]})
    caller = await w.ask(CHAT)
    record = w.record
    assert (caller.status, record.outcome) == (502, "upstream_error")
    assert record.attempts[0].outcome is Outcome.CUT


@pytest.mark.parametrize(("name", "script"), BAD_ANSWERS)
async def test_p07_or_goes_to_the_fallback(name: str, script: list[Step]) -> None:
    w = world(
        [OPENAI, SPARE], scripts={"openai": [script], "spare": [OK]},
        failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(CHAT)
    assert (caller.status, caller.received) == (200, ANSWER)


# --- failover

FAILURES: list[tuple[list[Step], str, str]] = [
    ([TransportFault("refused")], "upstream_error", "connection refused"),
    ([TransportFault("reset")], "upstream_error", "connection reset"),
    ([TransportFault("connect_timeout")], "timeout", "connect > 3000ms"),
    ([TransportFault("first_content")], "timeout", "first_content > 10000ms"),
    (error(500), "upstream_error", "status 500"),
    (error(503), "upstream_error", "status 503"),
    (error(529), "upstream_error", "status 529"),
    (error(429), "rate_limited", "status 429"),
    (error(401), "auth", "status 401"),
]


@pytest.mark.parametrize(("script", "code", "trigger"), FAILURES)
async def test_a_failure_goes_to_the_fallback(script: list[Step], code: str, trigger: str) -> None:
    w = world(
        [OPENAI, SPARE], scripts={"openai": [script], "spare": [streamed("ok")]},
        failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(STREAM)
    assert text_of(caller.received) == "ok"
    assert caller.header("x-parapet-endpoint") == "spare"
    assert caller.header("x-parapet-attempts") == "2"
    assert caller.header("x-parapet-failover") == code
    record = w.record
    (decision,) = record.decisions
    assert (decision.trigger_condition, decision.reason_code) == (trigger, code)
    assert (decision.original_endpoint, decision.selected_fallback) == ("openai", "spare")
    assert record.failover
    assert [a.endpoint_id for a in record.attempts] == ["openai", "spare"]


IN_BAND = b'data: {"error":{"message":"overloaded","type":"server_error","code":null}}\n\n'


async def test_p01_an_error_after_a_harmless_first_event_is_still_failed_over() -> None:
    first = chunk({"role": "assistant", "content": ""})
    w = world(
        [OPENAI, SPARE],
        scripts={"openai": [[(200, SSE), first, IN_BAND, None]], "spare": [streamed("ok")]},
        failover=policy("openai", "spare"),
    )
    caller = await w.ask(STREAM)
    assert caller.received == b"".join(pieces("ok"))


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_callers_error_is_his_and_passes_unchanged(status: int) -> None:
    w = world(
        [OPENAI, SPARE], scripts={"openai": [error(status, "bad")]},
        failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(CHAT)
    assert caller.status == status
    assert json.loads(caller.received)["error"]["message"] == "scripted"
    assert caller.header("x-should-retry") == "false"
    assert w.upstreams["spare"].sent == []


async def test_a_spent_chain_says_so() -> None:
    w = world(
        [OPENAI, SPARE], scripts={"openai": [error(500)], "spare": [error(503)]},
        failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(CHAT)
    assert caller.status == 503
    assert caller.header("x-should-retry") == "false"
    record = w.record
    assert record.outcome == "upstream_error"
    assert len(record.attempts) == 2


async def test_without_a_policy_the_providers_error_passes_with_its_hints() -> None:
    hint = [*JSON, (b"retry-after", b"7")]
    w = world(scripts={"openai": [error(429, "rate_limit_exceeded", hint)]})
    caller = await w.ask(CHAT)
    assert caller.status == 429
    assert caller.header("retry-after") == "7"
    assert caller.header("x-should-retry") is None
    assert w.record.outcome == "rate_limited"


async def test_a_401_on_our_own_key_is_never_the_callers() -> None:
    w = world(scripts={"openai": [error(401, "invalid_api_key")]})
    caller = await w.ask(CHAT)
    assert caller.status == 502


# --- streams that break


@pytest.mark.parametrize(
    "end",
    [[None], [TransportFault("reset", response_bytes=9)],
     [TransportFault("idle", response_bytes=9)],
     [IN_BAND, None]],
)  # fmt: skip
async def test_t5_a_stream_that_dies_is_told_and_cut(end: list[Step]) -> None:
    w = world(scripts={"openai": [[(200, SSE), *pieces("hel", "lo")[:3], *end]]})
    caller = await w.ask(STREAM)
    assert caller.cut
    assert text_of(caller.received.split(b'data: {"error"')[0]) == "hello"
    assert b'data: {"error":' in caller.received
    assert b"[DONE]" not in caller.received
    record = w.record
    assert (record.outcome, record.interrupted) == ("interrupted", True)
    assert record.attempts[0].outcome in (Outcome.CUT, Outcome.STALL)


async def test_s11_a_missing_trailer_is_written() -> None:
    w = world(scripts={"openai": [[(200, SSE), *pieces("hello")[:-1], None]]})
    caller = await w.ask(STREAM)
    assert caller.received == b"".join(pieces("hello"))
    assert not caller.cut


async def test_s10_an_event_that_does_not_parse_is_dropped_and_counted() -> None:
    script = [(200, SSE), pieces("a")[0], b"data: {broken\n\n", *pieces("a")[1:], None]
    w = world(scripts={"openai": [script]})
    caller = await w.ask(STREAM)
    assert caller.received == b"".join(pieces("a"))
    assert w.record.events_dropped == 1


# --- guardrails


async def test_a_request_is_redacted_in_the_bytes_that_go_up() -> None:
    w = world(packs=[pack(SECRET_RULE)], scripts={"openai": [OK]})
    body = CHAT.replace(b"hello", b"my KEY12345 please")
    await w.ask(body)
    (sent,) = w.upstreams["openai"].sent
    assert sent.body == CHAT.replace(b"hello", b"my [KEY] please")
    (result,) = w.record.policy_results
    assert (result.rule_matched, result.action_taken, result.direction) == (
        "test.key", "redact", "request",
    )  # fmt: skip


async def test_t6_a_block_is_final() -> None:
    w = world(
        [OPENAI, SPARE], packs=[pack(BLOCK_RULE)], failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(CHAT.replace(b"hello", b"the Launch Code is"))
    doc = json.loads(caller.received)
    assert (caller.status, doc["error"]["code"]) == (400, "content_filter")
    assert caller.header("x-should-retry") == "false"
    assert b"aunch" not in caller.received
    assert w.upstreams["openai"].sent == w.upstreams["spare"].sent == []
    record = w.record
    assert (record.outcome, record.policy_results[0].action_taken) == ("blocked", "block")


async def test_a_whole_answer_is_redacted() -> None:
    script = [(200, JSON), ANSWER.replace(b"hi there", b"it is KEY12345"), None]
    w = world(packs=[pack(SECRET_RULE)], scripts={"openai": [script]})
    caller = await w.ask(CHAT)
    assert caller.received == ANSWER.replace(b"hi there", b"it is [KEY]")
    assert caller.length == len(caller.received)


async def test_a_whole_answer_is_blocked_and_the_endpoint_not_blamed() -> None:
    script = [(200, JSON), ANSWER.replace(b"hi there", b"the launch code"), None]
    w = world(packs=[pack(BLOCK_RULE)], scripts={"openai": [script]})
    caller = await w.ask(CHAT)
    assert caller.status == 400
    assert w.record.attempts[0].outcome is Outcome.BLOCKED


async def test_t4_a_secret_split_over_events_never_leaves() -> None:
    w = world(packs=[pack(SECRET_RULE)], scripts={"openai": [streamed("a K", "EY1", "2345", " b")]})
    caller = await w.ask(STREAM)
    assert text_of(caller.received) == "a [KEY] b"
    assert b"EY1" not in caller.received
    assert caller.received.endswith(b"data: [DONE]\n\n")


async def test_a_stream_blocked_after_content_ends_in_order() -> None:
    script = streamed("fine so far. ", "the launch", " code", " is 1234")
    w = world(packs=[pack(BLOCK_RULE)], scripts={"openai": [script]})
    caller = await w.ask(STREAM)
    assert text_of(caller.received) == "fine so far. the "
    assert b'"finish_reason":"content_filter"' in caller.received
    assert caller.received.endswith(b"data: [DONE]\n\n")
    assert not caller.cut
    assert w.upstreams["openai"].calls[0].cancelled
    record = w.record
    assert (record.outcome, record.truncated_by_policy) == ("blocked", True)


async def test_a_stream_blocked_before_content_is_a_plain_400() -> None:
    w = world(packs=[pack(BLOCK_RULE)], scripts={"openai": [streamed("launch", " code", " 1")]})
    caller = await w.ask(STREAM)
    assert caller.status == 400
    assert json.loads(caller.received)["error"]["code"] == "content_filter"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/r/chat/v1/audio/speech", b"{}", 403, "unscannable_endpoint"),
        ("/r/chat/v1/files", b"", 403, "unscannable_endpoint"),
        ("/r/chat/v1/embeddings", b'{"model":"e","input":[1,2]}', 403, "unscannable_content"),
        ("/r/chat/v1/completions", b'{"model":"e","prompt":[[1]]}', 403, "unscannable_content"),
    ],
)
async def test_t2_no_silent_hole(path: str, body: bytes, status: int, code: str) -> None:
    w = world(packs=[pack(SECRET_RULE)])
    caller = await w.ask(body, path)
    assert caller.status == status
    assert json.loads(caller.received)["error"]["code"] == code
    assert w.upstreams["openai"].sent == []


async def test_an_unguarded_route_passes_unknown_paths() -> None:
    audio: RawHeaders = [(b"content-type", b"audio/mpeg"), (b"content-length", b"3")]
    w = world(scripts={"openai": [[(200, audio), b"mp3", None]]})
    caller = await w.ask(b'{"input":"x"}', "/r/chat/v1/audio/speech")
    assert (caller.status, caller.received, caller.length) == (200, b"mp3", 3)
    (sent,) = w.upstreams["openai"].sent
    assert sent.head.startswith(b"POST /v1/audio/speech HTTP/1.1\r\n")


# --- the caller leaves


async def leave(w: World, body: bytes, turns: int) -> RecordingDownstream:
    """Disconnect after so many turns of the loop."""
    caller = RecordingDownstream(request_body=body)
    inbound = w.inbound("/v1/chat/completions")
    task = asyncio.ensure_future(serve(inbound, caller, w.gateway))  # noqa: TID251 - test's own
    for _ in range(turns):
        await asyncio.sleep(0)
    caller.gone = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return caller


@pytest.mark.parametrize("turns", [2, 3, 4, 6, 8])
async def test_t8_a_caller_who_leaves_closes_the_upstream_and_blames_nobody(turns: int) -> None:
    script = [(200, SSE), *pieces("a", "b", "c")[:4]]  # then silence
    w = world(scripts={"openai": [script]})
    await leave(w, STREAM, turns)
    assert w.upstreams["openai"].calls[0].cancelled
    record = w.record
    assert record.outcome == "client_cancelled"
    assert record.attempts[0].outcome is Outcome.CANCELLED
