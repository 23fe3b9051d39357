"""The scripted provider: operations, connections, who gets which reply."""

import asyncio
import gzip
import json
import time

import pytest

from tests.kit.httpclient import get, opened, post
from tests.kit.provider import FakeProvider
from tests.kit.replies import (
    TEXT,
    endless_headers,
    for_seconds,
    gzip_bomb,
    huge,
    ok,
    silence,
    status,
)
from tests.kit.reply import Reply
from tests.kit.script import ToolCall
from tests.kit_tests.asking import CHAT, CLAUDE, HELLO, INVOKE, VERSION, ask


async def test_the_other_operations() -> None:
    async with FakeProvider() as provider:
        base = provider.url + "/v1"
        listed = await get(base + "/models")
        assert listed.json["data"][0]["object"] == "model"
        one = await get(base + "/models/a%2Fb", VERSION)
        assert one.json["id"] == "a/b"
        assert one.json["type"] == "model"
        vectors = await post(base + "/embeddings", {"model": "e", "input": ["a", "b"]})
        assert [row["index"] for row in vectors.json["data"]] == [0, 1]
        counted = await post(
            base + "/messages/count_tokens", {"model": "c", "messages": HELLO}, VERSION
        )
        assert counted.json == {"input_tokens": 11}
        legacy = await post(base + "/completions", {"model": "l", "prompt": "p"})
        assert legacy.json["choices"][0]["text"] == TEXT
        assert (await post(base + "/nowhere", CHAT)).status == 404


@pytest.mark.parametrize("reply", [silence(), ok().silent(), ok().stall(after=1), ok().after(60)])
async def test_the_client_leaves_a_silent_provider(reply: Reply) -> None:
    async with FakeProvider(reply) as provider, opened(provider.url) as wire:
        await wire.ask("POST", "/v1/chat/completions", json.dumps(CHAT | {"stream": True}).encode())
        await provider.arrived()
        left_at = wire.reset()
        (entry,) = await provider.settled()
        assert (entry.end, (entry.end_at or 0) - left_at < 0.05) == ("client gone", True)


@pytest.mark.thorough
async def test_a_huge_answer_is_not_held() -> None:
    async with FakeProvider(huge(3_000_000)) as provider:
        unary = await ask(provider)
        assert len(unary.json["choices"][0]["message"]["content"]) >= 3_000_000
        streamed = await ask(provider, "messages", stream=True)
        assert len(streamed.body) >= 3_000_000
        assert streamed.events[-1].name == "message_stop"


async def test_a_client_that_does_not_read_holds_the_provider() -> None:
    async with (
        FakeProvider(huge(50_000_000)) as provider,
        opened(provider.url, receive_buffer=65_536) as wire,
    ):
        wire.stop_reading()
        await wire.ask("POST", "/v1/chat/completions", json.dumps(CHAT).encode())
        entry = await provider.arrived()
        seen = -1
        while seen != entry.sent_bytes:
            seen = entry.sent_bytes
            await asyncio.sleep(0.05)
        assert 0 < seen < 20_000_000


async def test_endless_headers_and_a_bomb() -> None:
    async with FakeProvider([endless_headers(), gzip_bomb(1_000_000)]) as provider:
        async with opened(provider.url) as wire:
            await wire.ask("POST", "/v1/chat/completions", json.dumps(CHAT).encode())
            assert len(await wire.reader.readexactly(200_000)) == 200_000
        bomb = await ask(provider)
        assert len(bomb.body) < 10_000
        assert len(gzip.decompress(bomb.body)) == 1_000_000


async def test_connections_are_kept_and_closed_when_idle() -> None:
    body = json.dumps(CHAT).encode()
    async with FakeProvider(ok(), idle_close_s=0.05) as provider, opened(provider.url) as wire:
        for _ in range(3):
            await wire.ask("POST", "/v1/chat/completions", body)
            assert (await wire.answer()).whole
        assert [entry.request.connection for entry in provider.journal] == [1, 1, 1]
        assert await wire.closed()
    async with FakeProvider(ok()) as provider, opened(provider.url) as wire:
        await wire.ask("POST", "/v1/chat/completions", body)
        await wire.answer()
        assert provider.close_idle() == 1
        assert await wire.closed()


async def test_down_refuses_and_up_serves_again() -> None:
    async with FakeProvider() as provider:
        await provider.down()
        with pytest.raises(ConnectionRefusedError):
            await ask(provider)
        await provider.up()
        assert (await ask(provider)).whole


async def test_who_gets_which_reply() -> None:
    script = {
        "m": [status(500), ok("second")],
        "claude": lambda request: ok(request.json["messages"][0]["content"]),
    }
    async with FakeProvider(script) as provider:
        assert [(await ask(provider)).status for _ in range(3)] == [500, 200, 200]
        assert b"hello" in (await ask(provider, "messages")).body
        assert (await ask(provider, "invoke")).status == 404
        assert [len(provider.of(name)) for name in ("m", "claude")] == [3, 1]


async def test_an_outage_that_heals() -> None:
    async with FakeProvider(for_seconds(0.1, status(503), ok())) as provider:
        until = time.monotonic() + 0.15
        seen = []
        while time.monotonic() < until:
            seen.append((await ask(provider)).status)
        assert sorted(set(seen)) == [200, 503]
        assert seen == sorted(seen, reverse=True)


# fmt: off
PREFILLS = [
    # manner     continuation             status
    ("exact",    " fake provider.",       200),
    ("spaced",   " fake provider.",       200),
    ("ignored",  TEXT,                    200),
    ("refused",  None,                    400),
]
# fmt: on


@pytest.mark.parametrize(("manner", "said", "code"), PREFILLS)
async def test_prefill(manner: str, said: str | None, code: int) -> None:
    prefilled = [*HELLO, {"role": "assistant", "content": "Hello from the"}]
    async with FakeProvider(ok().continuing(manner)) as provider:  # type: ignore[arg-type]
        answer = await post(provider.url + "/v1/chat/completions", CHAT | {"messages": prefilled})
        assert answer.status == code
        if said is not None:
            assert answer.json["choices"][0]["message"]["content"] == said


# fmt: off
REFUSED = [
    # path                     body                                 says
    ("/v1/messages",           CLAUDE,                              "anthropic-version"),
    ("/model/m/invoke",        INVOKE | {"stream": True},           "extraneous key [stream]"),
    ("/model/m/invoke",        {"messages": HELLO, "max_tokens": 1}, "anthropic_version"),
    ("/v1/chat/completions",   b"{",                                "JSON body"),
]
# fmt: on


@pytest.mark.parametrize(("path", "body", "says"), REFUSED)
async def test_a_strict_provider_refuses(path: str, body: dict | bytes, says: str) -> None:
    async with FakeProvider() as provider:
        answer = await post(provider.url + path, body)
        assert answer.status == 400
        assert says in answer.text
    async with FakeProvider(strict=False) as provider:
        assert (await post(provider.url + path, body)).status == 200


async def test_requests_in_chunks_and_with_expectations() -> None:
    body = json.dumps(CHAT).encode()
    async with FakeProvider() as provider, opened(provider.url) as wire:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\n"
        await wire.send(head + b"transfer-encoding: chunked\r\n\r\n")
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert (await wire.answer()).whole
        assert provider.journal[0].request.body == body


async def test_tools_are_streamed_in_fragments() -> None:
    calls = [ToolCall("weather", {"city": "Oslo"}), ToolCall("weather", {"city": "Rome"}, "b")]
    async with FakeProvider(ok(tools=calls)) as provider:
        claude = await ask(provider, "messages", stream=True)
        parts = [json.loads(event.data) for event in claude.events]
        assert [p["index"] for p in parts if p["type"] == "content_block_start"] == [0, 1]
        assert parts[-2]["delta"]["stop_reason"] == "tool_use"
        chat = await ask(provider)
        assert [
            json.loads(call["function"]["arguments"])["city"]
            for call in chat.json["choices"][0]["message"]["tool_calls"]
        ] == ["Oslo", "Rome"]


async def test_a_fault_in_a_script_is_told() -> None:
    def rule(request: object) -> Reply:
        raise LookupError("the script is wrong")

    with pytest.raises(LookupError):  # noqa: PT012
        async with FakeProvider(rule) as provider:
            with pytest.raises(asyncio.IncompleteReadError):
                await ask(provider)


async def test_its_panel() -> None:
    async with FakeProvider() as provider, opened(provider.url) as wire:
        await wire.ask("POST", "/v1/chat/completions", json.dumps(CHAT).encode())
        await wire.answer()
        assert repr(provider) == f"<FakeProvider :{provider.port} 1 asked, 1 open>"


async def test_a_body_that_is_shorter_than_its_cut_stays_whole() -> None:
    async with FakeProvider(ok().cut_bytes(1_000_000)) as provider:
        answer = await ask(provider, stream=True)
        (entry,) = await provider.settled()
        assert (answer.ended, entry.end) == ("whole", "served")


async def test_who_comes_on_a_used_connection_is_told() -> None:
    async with FakeProvider() as provider, opened(provider.url) as wire:
        for _ in range(2):
            await wire.ask("POST", "/v1/chat/completions", json.dumps(CHAT).encode())
            await wire.answer()
        assert [entry.request.reused for entry in provider.journal] == [False, True]
