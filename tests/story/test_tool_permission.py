"""T-GR-25 with the official SDKs over real sockets: tools that a role may not use are not offered,
not called and not told; each denial is an event with the seed's members."""

import asyncio
import json
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest
import pytest_asyncio

from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok
from tests.kit.script import ToolCall

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

HELLO = [{"role": "user", "content": "hello"}]
ARGUMENTS = "to-the-competitor"
CALLS = [
    ToolCall("export-tool", {"to": ARGUMENTS}, "call_0"),
    ToolCall("search", {"q": "a"}, "call_1"),
]
NOTICE = "[tool call export-tool denied]"
CONFIG = {"tools": [{"resource": "export-*", "roles_any": ["admin"]}]}


def pack(name: str, action: str) -> dict[str, object]:
    rule = {"rule_id": "tools", "action": action, "config": CONFIG}
    return {"policy_pack_id": name, "extends": "tool-permission", "rules": [rule]}


def chat_tool(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parapet(
    upstream: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Parapet]:
    routes = [
        {"id": f"{provider}-{action}", "endpoint": provider, "policy_packs": [f"tools-{action}"]}
        for provider in ("openai", "anthropic")
        for action in ("block", "redact")
    ]
    config = workspace(
        [
            endpoint("openai", "openai", upstream.url + "/v1"),
            endpoint("anthropic", "anthropic", upstream.url),
        ],
        routes,
        policies=[pack("tools-block", "block"), pack("tools-redact", "redact")],
    )
    async with running(config, tmp_path_factory.mktemp("parapet")) as parapet:
        yield parapet


def chat_client(parapet: Parapet, action: str) -> openai.AsyncOpenAI:
    url = f"{parapet.url}/r/openai-{action}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key="sk-caller", max_retries=2)


def claude_client(parapet: Parapet, action: str) -> anthropic.AsyncAnthropic:
    url = f"{parapet.url}/r/anthropic-{action}"
    return anthropic.AsyncAnthropic(base_url=url, api_key="sk-caller", max_retries=2)


async def decision_of(parapet: Parapet, request_id: str) -> dict[str, object]:
    """The permission decision of a request, once it is in the log."""
    path = "/v1/workspaces/default/events?type=runtime.permission.decision&limit=100"
    for _ in range(100):
        page = (await parapet.control("GET", path)).json
        found = [e["payload"] for e in page["data"] if e["request_id"] == request_id]
        if found:
            payload: dict[str, object] = found[0]
            return payload
        await asyncio.sleep(0.05)
    raise AssertionError("no permission decision was told")


async def test_a_declared_tool_is_stripped(upstream: FakeProvider, parapet: Parapet) -> None:
    upstream.play(ok())
    async with chat_client(parapet, "block") as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=HELLO, tools=[chat_tool("export-tool"), chat_tool("search")]
        )
    (entry,) = upstream.journal
    assert entry.request.json["tools"] == [chat_tool("search")]
    request_id = raw.headers["x-parapet-request-id"]
    seed = {
        "request_id": request_id, "resource": "export-tool", "action": "declare",
        "decision": "denied", "reason": "role_restriction", "role_required": "admin",
    }  # fmt: skip
    told = await decision_of(parapet, request_id)
    assert {name: told[name] for name in seed} == seed


async def test_a_forced_choice_is_a_403(upstream: FakeProvider, parapet: Parapet) -> None:
    upstream.play(ok())
    async with chat_client(parapet, "redact") as client:
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await client.chat.completions.create(
                model="gpt-4o", messages=HELLO, tools=[chat_tool("export-tool")],
                tool_choice={"type": "function", "function": {"name": "export-tool"}},
            )  # fmt: skip
    assert "needs the role admin" in raised.value.message
    async with claude_client(parapet, "redact") as claude:
        with pytest.raises(anthropic.PermissionDeniedError):
            await claude.messages.create(
                model="claude", max_tokens=9, messages=HELLO,
                tools=[{"name": "export-tool", "input_schema": {"type": "object"}}],
                tool_choice={"type": "tool", "name": "export-tool"},
            )  # fmt: skip
    assert upstream.journal == []


@pytest.mark.parametrize("streamed", [False, True])
async def test_chat_a_denied_call_is_removed(
    upstream: FakeProvider, parapet: Parapet, streamed: bool
) -> None:
    upstream.play(ok(tools=CALLS))
    async with chat_client(parapet, "redact") as client:
        if streamed:
            async with client.chat.completions.stream(model="gpt-4o", messages=HELLO) as events:
                whole = await events.get_final_completion()
        else:
            whole = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    (choice,) = whole.choices
    (call,) = choice.message.tool_calls or []
    assert (call.id, call.function.name) == ("call_1", "search")
    assert json.loads(call.function.arguments) == {"q": "a"}
    assert choice.message.content == NOTICE
    assert choice.finish_reason == "tool_calls"
    assert ARGUMENTS not in whole.model_dump_json()


@pytest.mark.parametrize("streamed", [False, True])
async def test_claude_a_denied_call_is_removed(
    upstream: FakeProvider, parapet: Parapet, streamed: bool
) -> None:
    upstream.play(ok(tools=CALLS[:1]))
    async with claude_client(parapet, "redact") as client:
        if streamed:
            asked = client.messages.stream(model="claude", max_tokens=9, messages=HELLO)
            async with asked as events:
                whole = await events.get_final_message()
        else:
            whole = await client.messages.create(model="claude", max_tokens=9, messages=HELLO)
    assert [block.text for block in whole.content if block.type == "text"] == [NOTICE]
    assert [block.type for block in whole.content] == ["text"]
    assert whole.stop_reason == "end_turn"
    assert ARGUMENTS not in whole.model_dump_json()


async def test_a_blocked_call_is_one_request_and_an_error(
    upstream: FakeProvider, parapet: Parapet
) -> None:
    upstream.play(ok(tools=CALLS))
    async with chat_client(parapet, "block") as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert raised.value.code == "content_filter"
    assert ARGUMENTS not in raised.value.response.text
    assert len(upstream.journal) == 1
    upstream.play(ok(tools=CALLS))
    async with claude_client(parapet, "block") as claude:
        with pytest.raises(anthropic.BadRequestError):
            await claude.messages.create(model="claude", max_tokens=9, messages=HELLO)
    assert len(upstream.journal) == 1


async def test_a_blocked_call_ends_a_stream_in_order(
    upstream: FakeProvider, parapet: Parapet
) -> None:
    upstream.play(ok("Let me see.", tools=CALLS))
    async with chat_client(parapet, "block") as client:
        stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "content_filter"
    assert not any(c.choices[0].delta.tool_calls for c in chunks if c.choices)
