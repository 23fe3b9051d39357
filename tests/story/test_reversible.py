"""A user's data never reaches the provider, and his answer holds it all the same: the shipped
`pii-core`, the real server, the official SDKs (guardrails.md §6.1)."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest
import pytest_asyncio

from tests.kit.httpclient import get
from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import Rule, ok
from tests.kit.reply import Reply
from tests.kit.script import Request, ToolCall

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

JANE = "jane.doe@example.com"
CARD = "4111 1111 1111 1111"
PROMPT = [{"role": "user", "content": f"Charge card {CARD} and tell {JANE}, twice {JANE}."}]
TOKEN = re.compile(r"\[[A-Z]+_[0-9a-f]{6}\]")
SEND = {"type": "object", "properties": {"to": {"type": "string"}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parapet(
    upstream: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Parapet]:
    endpoints = [
        endpoint("openai", "openai", upstream.url + "/v1"),
        endpoint("anthropic", "anthropic", upstream.url),
        endpoint("bedrock", "bedrock", upstream.url, models={"claude": "anthropic.claude-3"}),
    ]
    routes = [
        {"id": each["id"], "endpoint": each["id"], "policy_packs": ["pii-core"]}
        for each in endpoints
    ]
    config = workspace(endpoints, routes)
    async with running(config, tmp_path_factory.mktemp("parapet")) as parapet:
        yield parapet


@pytest_asyncio.fixture(loop_scope="module")
async def gpt(parapet: Parapet) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{parapet.url}/r/openai/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-x", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module", params=["anthropic", "bedrock"])
async def claude(
    request: pytest.FixtureRequest, parapet: Parapet
) -> AsyncIterator[anthropic.AsyncAnthropic]:
    url = f"{parapet.url}/r/{request.param}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="sk-x", max_retries=0) as client:
        yield client


def text_in(request: Request) -> str:
    """What the provider was asked."""
    prompt = request.json.get("prompt") or request.messages[-1]["content"]
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


def quoting(size: int) -> Rule:
    """Says what it was asked, in pieces of that size, and makes up an address of its own."""

    def rule(request: Request) -> Reply:
        text = f"You said: {text_in(request)} Ask john@example.org."
        return ok(pieces=[text[at : at + size] for at in range(0, len(text), size)])

    return rule


def calling(request: Request) -> Reply:
    """Calls a tool with the first placeholder of the request."""
    found = TOKEN.findall(text_in(request))
    return ok(tools=[ToolCall("send", {"to": found[1], "text": f"Dear {found[1]} ..."})])


HEARD = f"You said: {PROMPT[0]['content']} Ask [EMAIL]."
CALLED = {"to": JANE, "text": f"Dear {JANE} ..."}
SIZES = pytest.mark.parametrize("size", [1, 5, 1000])


def nothing_left(upstream: FakeProvider) -> None:
    """What left for the provider held neither value, and one placeholder for each of them."""
    (entry,) = upstream.journal
    sent = entry.request.body.decode()
    assert JANE not in sent
    assert CARD not in sent
    assert len(TOKEN.findall(sent)) == 3
    assert len(set(TOKEN.findall(sent))) == 2


@SIZES
async def test_chat(upstream: FakeProvider, gpt: openai.AsyncOpenAI, size: int) -> None:
    upstream.play(quoting(size))
    stream = await gpt.chat.completions.create(model="m", messages=PROMPT, stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == HEARD
    nothing_left(upstream)


async def test_a_whole_chat_answer(upstream: FakeProvider, gpt: openai.AsyncOpenAI) -> None:
    upstream.play(quoting(9))
    answer = await gpt.chat.completions.create(model="m", messages=PROMPT)
    assert answer.choices[0].message.content == HEARD
    nothing_left(upstream)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_tool_call(upstream: FakeProvider, gpt: openai.AsyncOpenAI, streamed: bool) -> None:
    upstream.play(calling)
    tools = [{"type": "function", "function": {"name": "send", "parameters": SEND}}]
    if streamed:
        events = gpt.chat.completions.stream(model="m", messages=PROMPT, tools=tools)
        async with events as stream:
            message = (await stream.get_final_completion()).choices[0].message
    else:
        whole = await gpt.chat.completions.create(model="m", messages=PROMPT, tools=tools)
        message = whole.choices[0].message
    (call,) = message.tool_calls or []
    assert json.loads(call.function.arguments) == CALLED
    nothing_left(upstream)


@SIZES
async def test_legacy_completions(
    upstream: FakeProvider, gpt: openai.AsyncOpenAI, size: int
) -> None:
    upstream.play(quoting(size))
    prompt = str(PROMPT[0]["content"])
    stream = await gpt.completions.create(model="m", prompt=prompt, stream=True)
    assert "".join([c.choices[0].text async for c in stream]) == HEARD
    nothing_left(upstream)
    whole = await gpt.completions.create(model="m", prompt=prompt)
    assert whole.choices[0].text == HEARD


@SIZES
async def test_messages(
    upstream: FakeProvider, claude: anthropic.AsyncAnthropic, size: int
) -> None:
    upstream.play(quoting(size))
    events = claude.messages.stream(model="claude", max_tokens=99, messages=PROMPT)
    async with events as stream:
        assert (await stream.get_final_message()).content[0].text == HEARD
    nothing_left(upstream)


async def test_a_whole_message(upstream: FakeProvider, claude: anthropic.AsyncAnthropic) -> None:
    upstream.play(quoting(9))
    answer = await claude.messages.create(model="claude", max_tokens=99, messages=PROMPT)
    assert answer.content[0].text == HEARD
    nothing_left(upstream)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_tool_use(
    upstream: FakeProvider, claude: anthropic.AsyncAnthropic, streamed: bool
) -> None:
    upstream.play(calling)
    asked = {"model": "claude", "max_tokens": 99, "messages": PROMPT}
    asked["tools"] = [{"name": "send", "input_schema": SEND}]
    if streamed:
        async with claude.messages.stream(**asked) as stream:
            answer = await stream.get_final_message()
    else:
        answer = await claude.messages.create(**asked)
    assert answer.content[0].input == CALLED
    nothing_left(upstream)


async def test_the_next_turn_says_the_same_to_the_provider(
    upstream: FakeProvider, gpt: openai.AsyncOpenAI
) -> None:
    """So that its prompt cache goes on: a history with the values has the same placeholders."""
    upstream.play(quoting(1000))
    first = await gpt.chat.completions.create(model="m", messages=PROMPT)
    said = {"role": "assistant", "content": first.choices[0].message.content}
    again = {"role": "user", "content": f"Once more to {JANE}"}
    await gpt.chat.completions.create(model="m", messages=[*PROMPT, said, again])
    one, two = (entry.request.messages for entry in upstream.journal)
    assert two[: len(one)] == one
    assert TOKEN.findall(two[1]["content"]) == TOKEN.findall(one[0]["content"])
    assert TOKEN.findall(two[2]["content"]) == [TOKEN.findall(one[0]["content"])[1]]


async def test_an_upstream_that_dies_inside_a_placeholder(
    upstream: FakeProvider, gpt: openai.AsyncOpenAI
) -> None:
    upstream.play(lambda request: ok(pieces=list(text_in(request))).cut(after=20))
    stream = await gpt.chat.completions.create(model="m", messages=PROMPT, stream=True)
    said, broken = "", False
    try:
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
    except openai.APIError:
        broken = True
    assert (said, broken) == ("Charge card ", True)


async def test_what_the_model_spelled_in_another_way_stays_and_is_counted(
    upstream: FakeProvider, gpt: openai.AsyncOpenAI, parapet: Parapet
) -> None:
    upstream.play(lambda request: ok(text_in(request).lower()))
    raw = await gpt.chat.completions.with_raw_response.create(model="m", messages=PROMPT)
    heard = raw.parse().choices[0].message.content or ""
    assert len(re.findall(r"\[(?:card|email)_[0-9a-f]{6}\]", heard)) == 3
    request_id = raw.headers["x-parapet-request-id"]
    events = await parapet.events(3, request_id=request_id)
    (told,) = [event for event in events if event["type"] == "runtime.request.completed"]
    assert told["payload"]["placeholders_unrestored"] == 3
    assert JANE not in json.dumps(events) + parapet.log
    await counted(parapet, "parapet_guard_placeholders_unrestored_total 3")


async def counted(parapet: Parapet, line: str) -> None:
    for _ in range(50):
        if line in (await get(parapet.control_url + "/metrics")).text:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not counted: {line}")
