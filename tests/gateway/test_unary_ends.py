"""How whole answers end: the idle limit of a body, one too long to be checked, half an emoji."""

import asyncio

import pytest

from proxy.gateway.pipeline import serve
from proxy.model.ports import TransportFault
from tests.kit.builders import JSON, OPENAI, SECRET_RULE, SPARE, pack, policy, world
from tests.kit.fakes import RecordingDownstream
from tests.kit.shapes import CHAT

RESET = TransportFault("reset", "by peer", response_bytes=100)


async def test_a_body_that_flows_is_given_up_one_idle_limit_after_its_first_byte() -> None:
    """failover.md §11: `idle_ms` is the time between two body bytes."""
    w = world(scripts={"openai": [[(200, JSON), b'{"choices":']]})
    caller = RecordingDownstream(request_body=CHAT)
    asked = asyncio.get_running_loop().create_task(
        serve(w.inbound("/v1/chat/completions"), caller, w.gateway)
    )
    for _ in range(9):
        await asyncio.sleep(0)
    w.clock.advance(10)
    upstream = w.upstreams["openai"]
    upstream.sinks[-1].data(b" ")
    due = upstream.calls[-1].due
    upstream.sinks[-1].data(b"[]}")
    upstream.sinks[-1].end()
    await asked
    assert due == w.clock.monotonic() + 15


async def test_p07_headers_and_then_silence_are_given_up_after_one_idle_limit() -> None:
    """failover.md §13: the fallback answers within `idle_ms`, not within `unary_ms`."""
    w = world(scripts={"openai": [[(200, JSON)]]})
    caller = RecordingDownstream(request_body=CHAT)
    asked = asyncio.get_running_loop().create_task(
        serve(w.inbound("/v1/chat/completions"), caller, w.gateway)
    )
    for _ in range(9):
        await asyncio.sleep(0)
    upstream = w.upstreams["openai"]
    assert upstream.calls[-1].due == w.clock.monotonic() + 15
    upstream.sinks[-1].data(b"{}")
    upstream.sinks[-1].end()
    await asked


async def test_a_guarded_answer_over_the_limit_is_blocked_with_the_verdict_error() -> None:
    """guardrails.md §7.4: verdict `error`, `on_error`: a block, which is never retried elsewhere"""
    long = b'{"choices":[{"message":{"content":"' + b"a" * 17_000_000
    ok = [(200, JSON), b'{"choices":[]}', None]
    w = world(
        (OPENAI, SPARE), packs=[pack(SECRET_RULE)], failover=policy("openai", "spare"),
        scripts={"openai": [[(200, JSON), long, b'"}}]}', None]], "spare": [ok]},
    )  # fmt: skip
    caller = await w.ask(CHAT)
    assert not w.upstreams["spare"].sent
    assert caller.status == 400
    assert [result.verdict for result in w.record.policy_results] == ["error"]


@pytest.mark.parametrize("rule", [{"mode": "shadow"}, {"action": "log"}, {"action": "flag"}])
async def test_where_rules_only_watch_an_answer_over_the_limit_passes_and_is_counted(
    rule: dict[str, str],
) -> None:
    head, rest = b'{"choices":[{"message":{"content":"' + b"a" * 17_000_000, b'KEY12345"}}]}'
    w = world(
        (OPENAI,), packs=[pack(SECRET_RULE.model_copy(update=rule))],
        scripts={"openai": [[(200, JSON), head, rest, None]]},
    )  # fmt: skip
    caller = await w.ask(CHAT)
    assert (caller.status, caller.received) == (200, head + rest)
    record = w.record
    assert record.outcome == "success"
    assert record.unread_chars == {"too_large": len(head + rest)}
    assert record.policy_results == []


async def test_an_unguarded_answer_with_half_of_an_emoji_is_passed_on() -> None:
    """wire.md §2.5: at L0 the provider judges its own grammar; its bytes go on."""
    body = b'{"choices":[{"index":0,"message":{"content":"cut short \\ud83d"}}]}'
    w = world(scripts={"openai": [[(200, JSON), body, None]]})
    caller = await w.ask(CHAT)
    assert (caller.status, caller.received) == (200, body)
