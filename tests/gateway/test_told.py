"""What is told of a request: events and decisions, and the headers of its answer."""

import json

import pytest

from proxy.gateway.tell import time_results
from proxy.model.exchange import Direction, Json
from proxy.model.policy import PolicyResult
from proxy.model.records import RequestRecord
from proxy.spool.expand import events_of
from tests.kit.builders import (
    ANTHROPIC,
    BEDROCK,
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
from tests.kit.fakes import Step

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
MESSAGE = (
    b'{"model":"anthropic.claude-3","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
)
MESSAGES = "/v1/messages"
OK: list[Step] = [(200, JSON), b'{"choices":[]}', None]


def error(status: int, message: str = "scripted") -> list[Step]:
    return [(status, JSON), json.dumps({"error": {"message": message}}).encode(), None]


def payload_of(w: World) -> dict[str, Json]:
    """The payload of the request's own event, as the control process makes it."""
    ((line, _),) = w.notes.lines
    payload = events_of(line.rstrip(b"\n")).events[0].body["payload"]
    assert isinstance(payload, dict)
    return payload


# --- failover.md §14: one decision per switch


async def test_no_decision_is_told_for_a_fallback_that_was_never_asked() -> None:
    w = world(
        (OPENAI, ANTHROPIC), scripts={"openai": [error(500)]},
        failover=policy("openai", "anthropic-claude"),
    )  # fmt: skip
    await w.ask(CHAT)
    record = w.record
    assert [attempt.endpoint_id for attempt in record.attempts] == ["openai"]
    assert [decision.selected_fallback for decision in record.decisions] == []


async def test_one_decision_is_told_for_a_switch_past_a_fallback_that_cannot_serve() -> None:
    w = world(
        (OPENAI, ANTHROPIC, SPARE), scripts={"openai": [error(500)], "spare": [OK]},
        failover=policy("openai", "anthropic-claude", "spare"),
    )  # fmt: skip
    await w.ask(CHAT)
    assert [decision.selected_fallback for decision in w.record.decisions] == ["spare"]


@pytest.mark.parametrize(
    ("first", "second", "status", "outcome", "error_class"),
    [(500, 429, 429, "rate_limited", "rate_limited"),
     (429, 500, 502, "upstream_error", "upstream_5xx"),
     (500, 500, 502, "upstream_error", "upstream_5xx")],
)  # fmt: skip
async def test_the_caller_and_the_event_are_told_the_same_of_a_spent_chain(
    first: int, second: int, status: int, outcome: str, error_class: str
) -> None:
    w = world(
        (OPENAI, SPARE), scripts={"openai": [error(first)], "spare": [error(second)]},
        failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(CHAT)
    record = w.record
    told = (caller.status, record.status_code, record.outcome, record.error_class)
    assert told == (status, status, outcome, error_class)


# --- events.md §3.2


async def test_the_event_of_a_spent_chain_names_provider_and_upstream_status() -> None:
    """T-EVT-01: every event names route, model, provider, latency, tokens, policy profile."""
    w = world(
        (OPENAI, SPARE), scripts={"openai": [error(500)], "spare": [error(500)]},
        failover=policy("openai", "spare"),
    )  # fmt: skip
    await w.ask(CHAT)
    payload = payload_of(w)
    assert payload["provider"] == "openai"
    assert payload["upstream_status"] == 500


async def test_the_coverage_of_a_stream_counts_characters() -> None:
    choice = {"index": 0, "delta": {"content": "\u00e9" * 10}, "finish_reason": "stop"}
    event = b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"
    script: list[Step] = [(200, SSE), event, b"data: [DONE]\n\n", None]
    w = world(scripts={"openai": [script]}, packs=[pack(SECRET_RULE)])
    await w.ask(STREAM)
    coverage = payload_of(w)["coverage"]
    assert isinstance(coverage, dict)
    assert coverage["total_chars"] == coverage["scanned_chars"]


@pytest.mark.parametrize("size_bytes", [100, 5_000_000], ids=["short", "over 4 MiB"])
async def test_the_tokens_of_an_answer_whose_usage_was_not_seen_are_estimated(
    size_bytes: int,
) -> None:
    """wire.md §9.3: the estimate stands in for missing usage, as it does for streams."""
    usage = b'"usage":{"prompt_tokens":9,"completion_tokens":0},' if size_bytes > 100 else b""
    body = b'{%b"choices":[{"message":{"content":"%b"}}]}' % (usage, b"a" * size_bytes)
    w = world(scripts={"openai": [[(200, JSON), body, None]]})
    await w.ask(CHAT)
    tokens = payload_of(w)["tokens"]
    assert isinstance(tokens, dict)
    assert tokens["input"]


async def test_a_traceparent_that_is_none_gives_no_trace_id() -> None:
    w = world(scripts={"openai": [OK]})
    await w.ask(
        CHAT, headers=[(b"traceparent", b"my secret prompt, or anything with 55 characters in it.")]
    )
    body = events_of(w.notes.lines[0][0].rstrip(b"\n")).events[0].body
    assert "trace_id" not in body


async def test_what_the_provider_quotes_of_a_prompt_stands_in_no_event() -> None:
    told = b'{"message":"cannot read: my secret diary"}'
    w = world((BEDROCK,), scripts={"bedrock-claude": [[(400, JSON), told, None]]})
    await w.ask(MESSAGE, MESSAGES)
    assert b"diary" not in w.notes.lines[0][0]


async def test_a_model_name_as_long_as_a_prompt_is_cut() -> None:
    """Lines over 1 MiB are left out by the spool's reader; one event may have 64 KiB."""
    w = world(scripts={"openai": [OK]})
    await w.ask(json.dumps({"model": "m" * 2_000_000, "messages": []}).encode())
    assert len(w.notes.lines[0][0]) < 64 * 1024


async def test_member_names_of_a_body_make_neither_event_nor_head_long() -> None:
    w = world((BEDROCK,), scripts={"bedrock-claude": [error(400)]})
    body = json.dumps({"model": "anthropic.claude-3", "d" * 2_000_000: 1, "messages": []})
    await w.ask(body.encode(), MESSAGES)
    caller_line = w.notes.lines[0][0]
    ok = [(200, JSON), b'{"type":"message","content":[]}', None]
    w = world((BEDROCK,), scripts={"bedrock-claude": [ok]})
    caller = await w.ask(body.encode(), MESSAGES)
    assert len(caller_line) < 64 * 1024
    assert len(w.notes.lines[0][0]) < 64 * 1024
    assert len(caller.head) < 16 * 1024


# --- what goes where it must not


async def test_a_member_name_of_the_body_writes_no_header_of_the_answer() -> None:
    ok = [(200, JSON), b'{"type":"message","content":[]}', None]
    w = world((BEDROCK,), scripts={"bedrock-claude": [ok]})
    name = "x\r\nset-cookie: evil=1"
    body = {"model": "anthropic.claude-3", name: 1, "messages": []}
    caller = await w.ask(json.dumps(body).encode(), MESSAGES)
    assert caller.header("set-cookie") is None


async def test_our_wish_not_to_retry_stands_alone() -> None:
    """failover.md §8.6: `x-should-retry: false` always; a client reads the first, or both."""
    headers = [*JSON, (b"x-should-retry", b"true")]
    w = world(
        (OPENAI, SPARE), failover=policy("openai", "spare"),
        scripts={"openai": [[(409, headers), b'{"error":{"message":"busy"}}', None]]},
    )  # fmt: skip
    caller = await w.ask(CHAT)
    lines = [li for li in caller.head.split(b"\r\n") if li.startswith(b"x-should-retry")]
    assert lines == [b"x-should-retry: false"]


async def test_a_redirect_of_the_provider_leads_nobody_past_the_guard() -> None:
    """The official SDKs follow it: the next request, prompt and key, goes to that address."""
    moved = [*JSON, (b"location", b"https://elsewhere.test/v1/chat/completions")]
    w = world(scripts={"openai": [[(308, moved), b'{"a":1}', None]]}, packs=[pack(SECRET_RULE)])
    caller = await w.ask(CHAT)
    assert caller.header("location") is None
    assert caller.status == 502


async def test_the_coverage_counts_what_of_a_request_no_rule_could_read() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": [image]}]}
    w = world(scripts={"openai": [OK]}, packs=[pack(SECRET_RULE)])
    await w.ask(json.dumps(body).encode())
    coverage = payload_of(w)["coverage"]
    assert isinstance(coverage, dict)
    assert coverage["unread_chars"] == {"binary": 26}


def test_a_result_tells_how_long_judging_took() -> None:
    record = RequestRecord("req-1", "evt-1", 0)
    record.guard_request_s, record.guard_lane_s = 0.000084, 0.0021
    seen: list[tuple[Direction, int]] = [("request", 0), ("response", 0), ("response", 90_000)]
    record.policy_results = [
        PolicyResult("p", "violation", "r", 1.0, "redact", direction=direction, elapsed_us=own)
        for direction, own in seen
    ]
    time_results(record)
    assert [result.elapsed_us for result in record.policy_results] == [84, 2100, 90_000]
