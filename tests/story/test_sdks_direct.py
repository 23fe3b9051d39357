"""The official SDKs take the scripted provider for a real one: it is judged before it judges."""

import json
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest

from tests.kit.provider import FakeProvider
from tests.kit.replies import PIECES, TEXT, hang_up, html, ok, status
from tests.kit.reply import Reply
from tests.kit.script import ToolCall

HELLO = [{"role": "user", "content": "hello"}]
CALLS = [ToolCall("weather", {"city": "Oslo"}), ToolCall("weather", {"city": "Rome"}, "call_1b")]
Claude = anthropic.AsyncAnthropic | anthropic.AsyncAnthropicBedrock


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def chat(provider: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    base_url = provider.url + "/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(params=["messages", "invoke"])
async def claude(provider: FakeProvider, request: pytest.FixtureRequest) -> AsyncIterator[Claude]:
    client: Claude = (
        anthropic.AsyncAnthropic(base_url=provider.url, api_key="k", max_retries=0)
        if request.param == "messages"
        else anthropic.AsyncAnthropicBedrock(
            base_url=provider.url, api_key="k", aws_region="us-east-1", max_retries=0
        )
    )
    async with client:
        yield client


async def said(client: openai.AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def claude_said(client: Claude) -> anthropic.types.Message:
    async with client.messages.stream(model="claude", max_tokens=99, messages=HELLO) as stream:
        return await stream.get_final_message()


async def test_openai_answers(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    whole = await chat.chat.completions.create(model="m", messages=HELLO)
    assert whole.choices[0].message.content == TEXT
    assert whole._request_id == "req_1"
    assert await said(chat) == TEXT
    stream = chat.chat.completions.stream(
        model="m", messages=HELLO, stream_options={"include_usage": True}
    )
    async with stream as events:
        final = await events.get_final_completion()
    assert final.usage is not None
    assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (11, 7)
    assert [model.id async for model in chat.models.list()] == ["fake"]
    assert (await chat.models.retrieve("a")).id == "a"
    vectors = await chat.embeddings.create(model="e", input=["a", "b"], encoding_format="float")
    assert len(vectors.data) == 2
    legacy = await chat.completions.create(model="l", prompt="p", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in legacy]) == TEXT


@pytest.mark.parametrize("streamed", [False, True])
async def test_openai_tools(
    provider: FakeProvider, chat: openai.AsyncOpenAI, streamed: bool
) -> None:
    provider.play(ok(tools=CALLS))
    if streamed:
        async with chat.chat.completions.stream(model="m", messages=HELLO) as events:
            message = (await events.get_final_completion()).choices[0].message
    else:
        whole = await chat.chat.completions.create(model="m", messages=HELLO)
        message = whole.choices[0].message
    calls = message.tool_calls or []
    assert [json.loads(c.function.arguments)["city"] for c in calls] == ["Oslo", "Rome"]
    assert [c.id for c in calls] == [c.id for c in CALLS]


# fmt: off
OPENAI_FAULTS = [
    (status(400),                   openai.BadRequestError),
    (status(401),                   openai.AuthenticationError),
    (status(404),                   openai.NotFoundError),
    (status(429),                   openai.RateLimitError),
    (status(503),                   openai.InternalServerError),
    (html(),                        openai.InternalServerError),
    (hang_up(),                     openai.APIConnectionError),
    (ok().cut(after=2),             openai.APIConnectionError),
    (ok().cut(after=2, how="rst"),  openai.APIConnectionError),
    (ok().unterminated(),           None),
    (ok().error_after(2),           openai.APIError),
    (ok().truncated(after=2),       None),
]
CLAUDE_FAULTS = [
    (status(400),                   anthropic.BadRequestError),
    (status(404),                   anthropic.NotFoundError),
    (status(429),                   anthropic.RateLimitError),
    (status(503),                   anthropic.InternalServerError),
    (html(),                        anthropic.InternalServerError),
    (hang_up(),                     anthropic.APIConnectionError),
    (ok().error_after(2),           anthropic.APIStatusError),
    (ok().truncated(after=2),       None),
]
# fmt: on


@pytest.mark.parametrize(("reply", "kind"), OPENAI_FAULTS)
async def test_openai_faults(
    provider: FakeProvider,
    chat: openai.AsyncOpenAI,
    reply: Reply,
    kind: type[Exception] | None,
) -> None:
    """A stream that is cut short in good order is a silent success for every SDK."""
    provider.play(reply)
    if kind is None:
        assert TEXT.startswith(await said(chat))
        return
    with pytest.raises(kind):
        await said(chat)


async def test_claude_answers(provider: FakeProvider, claude: Claude) -> None:
    whole = await claude.messages.create(model="claude", max_tokens=99, messages=HELLO)
    assert whole.content[0].text == TEXT
    final = await claude_said(claude)
    assert final.content[0].text == TEXT
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (11, 7)
    provider.play(ok("Deep.", thinking=["Hm", "m"]))
    thought = await claude_said(claude)
    assert [block.type for block in thought.content] == ["thinking", "text"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_claude_tools(provider: FakeProvider, claude: Claude, streamed: bool) -> None:
    provider.play(ok("Let me see.", tools=CALLS))
    if streamed:
        message = await claude_said(claude)
    else:
        message = await claude.messages.create(model="claude", max_tokens=99, messages=HELLO)
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content[1:]] == [{"city": "Oslo"}, {"city": "Rome"}]


@pytest.mark.parametrize(("reply", "kind"), CLAUDE_FAULTS)
async def test_claude_faults(
    provider: FakeProvider, claude: Claude, reply: Reply, kind: type[Exception] | None
) -> None:
    provider.play(reply)
    if kind is None:
        message = await claude_said(claude)
        assert message.content[0].text == "".join(PIECES[:2])
        return
    with pytest.raises(kind):
        await claude_said(claude)


# fmt: off
RETRIES = [
    # reply                                                requests
    (status(529, retry_after_ms="1"),                      3),
    (status(429, retry_after_ms="1"),                      3),
    (status(503, x_should_retry="false"),                  1),
]
# fmt: on


@pytest.mark.parametrize(("reply", "requests"), RETRIES)
async def test_retries_of_the_sdks(provider: FakeProvider, reply: Reply, requests: int) -> None:
    provider.play(reply)
    async with openai.AsyncOpenAI(base_url=provider.url + "/v1", api_key="k") as client:
        with pytest.raises(openai.APIStatusError):
            await client.chat.completions.create(model="m", messages=HELLO)
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="k") as client:
        with pytest.raises(anthropic.APIStatusError):
            await client.messages.create(model="claude", max_tokens=99, messages=HELLO)
    assert (len(provider.of("m")), len(provider.of("claude"))) == (requests, requests)


async def test_other_operations_of_the_anthropic_sdk(provider: FakeProvider) -> None:
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="k") as client:
        counted = await client.messages.count_tokens(model="claude", messages=HELLO)
        assert counted.input_tokens == 11
        assert [model.id async for model in client.models.list()] == ["fake"]
        assert (await client.models.retrieve("claude")).display_name == "Fake"
