"""The official Anthropic SDK through Parapet, at Anthropic (L0) and at Bedrock InvokeModel (L1).

Only its base URL changes; which of the two answers, the SDK cannot tell (wire.md §13).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anthropic
import pytest
import pytest_asyncio
from anthropic.types import Message

from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import PIECES, TEXT, Rule, html, ok, status
from tests.kit.reply import Reply
from tests.kit.script import Request, ToolCall

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

HELLO = [{"role": "user", "content": "hello"}]
CALLERS_KEY = "sk-ant-the-callers-own"
MODELS = {
    "anthropic": "claude-3-opus-20240229",
    "bedrock": "anthropic.claude-3-opus-20240229-v1:0",
}
WEATHER = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ONE = [ToolCall("weather", {"city": "Oslo"}, "toolu_0")]
TWO = [*ONE, ToolCall("weather", {"city": "Rome"}, "toolu_1")]


@dataclass
class Call:
    """The SDK at one route, and what its provider saw."""

    route: str
    client: anthropic.AsyncAnthropic
    upstream: FakeProvider
    parapet: Parapet

    async def ask(self, messages: list[dict[str, object]] = HELLO, **more: object) -> Message:
        return await self.client.messages.create(
            model="claude", max_tokens=99, messages=messages, **more
        )

    async def stream(self, messages: list[dict[str, object]] = HELLO, **more: object) -> Message:
        events = self.client.messages.stream(
            model="claude", max_tokens=99, messages=messages, **more
        )
        async with events as stream:
            return await stream.get_final_message()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parapet(
    upstream: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Parapet]:
    endpoints = [
        endpoint(kind, kind, upstream.url, models={"claude": model})
        for kind, model in MODELS.items()
    ]
    endpoints.append(endpoint("callers", "anthropic", upstream.url, api_key=None))
    routes = [{"id": each["id"], "endpoint": each["id"]} for each in endpoints]
    config = workspace(endpoints, routes)
    async with running(config, tmp_path_factory.mktemp("parapet")) as parapet:
        yield parapet


@pytest_asyncio.fixture(loop_scope="module", params=["anthropic", "bedrock"])
async def call(
    request: pytest.FixtureRequest, upstream: FakeProvider, parapet: Parapet
) -> AsyncIterator[Call]:
    upstream.play(ok())
    async with client_of(parapet, request.param) as client:
        yield Call(request.param, client, upstream, parapet)


def client_of(parapet: Parapet, route: str, retries: int = 0) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=f"{parapet.url}/r/{route}", api_key=CALLERS_KEY, max_retries=retries
    )


async def test_chat(call: Call) -> None:
    answer = await call.ask()
    assert answer.content[0].text == TEXT
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (11, 7)
    (entry,) = call.upstream.journal
    assert entry.model == MODELS[call.route]
    assert CALLERS_KEY not in str(entry.request)
    if call.route == "anthropic":
        assert entry.request.target == "/v1/messages"
        assert entry.headers["x-api-key"] == "upstream-key"
        assert answer._request_id == "req_1"
    else:
        path = "/model/anthropic.claude-3-opus-20240229-v1%3A0/invoke"
        assert entry.request.target == path
        assert entry.headers["authorization"] == "Bearer upstream-key"
        assert "model" not in entry.json
        assert "stream" not in entry.json


async def test_a_stream_comes_as_it_is_written(call: Call) -> None:
    call.upstream.play(ok().paced(0.05))
    seen = []
    events = call.client.messages.stream(model="claude", max_tokens=99, messages=HELLO)
    async with events as stream:
        async for text in stream.text_stream:
            seen.append((time.monotonic(), text))  # noqa: PERF401 - the time is the point
        final = await stream.get_final_message()
    (entry,) = await call.upstream.settled()
    assert [text for _, text in seen] == list(PIECES)
    assert (final.usage.input_tokens, final.usage.output_tokens) == (11, 7)
    assert entry.end_at is not None
    assert seen[0][0] < entry.end_at - 0.1


async def test_thinking_comes_through(call: Call) -> None:
    call.upstream.play(ok("Deep.", thinking=["Hm", "m."]))
    thought = await call.stream()
    assert [block.type for block in thought.content] == ["thinking", "text"]
    assert thought.content[0].thinking == "Hmm."
    assert thought.content[0].signature == "c2ln"


def answers_with_the_weather(calls: list[ToolCall]) -> Rule:
    """Calls the tools; once their results are there, a text that quotes them."""

    def rule(request: Request) -> Reply:
        results = request.tool_results
        said = "The tools said: " + "; ".join(results)
        return ok(said) if results else ok("Let me see.", tools=calls)

    return rule


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("calls", [ONE, TWO], ids=["one", "parallel"])
async def test_tools(call: Call, calls: list[ToolCall], streamed: bool) -> None:
    call.upstream.play(answers_with_the_weather(calls))
    ask = call.stream if streamed else call.ask
    message = await ask(tools=[WEATHER])
    assert message.stop_reason == "tool_use"
    made = [block for block in message.content if block.type == "tool_use"]
    assert [(b.id, b.name, b.input) for b in made] == [
        (c.id, "weather", c.arguments) for c in calls
    ]
    results = [
        {"type": "tool_result", "tool_use_id": b.id, "content": f"sunny in {b.input['city']}"}
        for b in made
    ]
    kept = [{"type": "tool_use", "id": b.id, "name": b.name, "input": b.input} for b in made]
    turns = [{"role": "assistant", "content": kept}, {"role": "user", "content": results}]
    answer = await ask([*HELLO, *turns], tools=[WEATHER])
    for each in calls:
        assert f"sunny in {each.arguments['city']}" in answer.content[0].text


# fmt: off
ERRORS = [
    # the provider says    the SDK raises                  status  type
    (400,                  anthropic.BadRequestError,      400,    "invalid_request_error"),
    (401,                  anthropic.InternalServerError,  500,    "api_error"),
    (403,                  anthropic.InternalServerError,  500,    "api_error"),
    (404,                  anthropic.NotFoundError,        404,    "not_found_error"),
    (413,                  anthropic.RequestTooLargeError, 413,    "request_too_large"),
    (429,                  anthropic.RateLimitError,       429,    "rate_limit_error"),
    (500,                  anthropic.InternalServerError,  500,    "api_error"),
]
# fmt: on


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("said", "error", "code", "name"), ERRORS)
async def test_typed_errors(
    call: Call,
    said: int,
    error: type[anthropic.APIStatusError],
    code: int,
    name: str,
    streamed: bool,
) -> None:
    """Anthropic's own words come through; Bedrock's where the caller can do something about it."""
    call.upstream.play(status(said))
    with pytest.raises(error) as raised:
        await call.ask(stream=streamed)
    assert raised.value.status_code == code
    assert raised.value.request_id
    body = raised.value.body
    assert (body["type"], body["error"]["type"]) == ("error", name)
    message = body["error"]["message"]
    if said not in (401, 403):
        assert message == "scripted" or call.route == "bedrock"
        assert "scripted" in message or said != 400
    assert len(call.upstream.journal) == 1


async def test_a_401_on_the_callers_own_key_is_the_callers(call: Call) -> None:
    call.upstream.play([status(401), ok()])
    async with client_of(call.parapet, "callers") as through:
        asked = {"model": "claude", "max_tokens": 99, "messages": HELLO}
        with pytest.raises(anthropic.AuthenticationError):
            await through.messages.create(**asked)
        assert (await through.messages.create(**asked)).content[0].text == TEXT
    assert CALLERS_KEY in str(call.upstream.journal[0].headers)


async def test_html_is_never_an_error_body(call: Call) -> None:
    call.upstream.play(html(502))
    with pytest.raises(anthropic.InternalServerError) as raised:
        await call.ask()
    assert "<html" not in raised.value.response.text
    assert raised.value.body["type"] == "error"


# fmt: off
RETRIES = [
    # the provider says                                      requests
    (status(429, retry_after_ms="10"),                       3),
    (status(503, retry_after_ms="10"),                       3),
]
# fmt: on


@pytest.mark.parametrize(("reply", "requests"), RETRIES)
async def test_retry_headers_of_the_provider_pass(call: Call, reply: Reply, requests: int) -> None:
    call.upstream.play(reply)
    async with client_of(call.parapet, call.route, retries=2) as patient:
        with pytest.raises(anthropic.APIStatusError):
            await patient.messages.create(model="claude", max_tokens=99, messages=HELLO)
    assert len(call.upstream.journal) == requests


@pytest.mark.parametrize(("hint", "requests"), [({}, 3), ({"x_should_retry": "false"}, 1)])
async def test_529_is_overloaded_and_its_hints_pass(
    parapet: Parapet, upstream: FakeProvider, hint: dict[str, str], requests: int
) -> None:
    upstream.play(status(529, retry_after_ms="10", **hint))
    async with client_of(parapet, "anthropic", retries=2) as patient:
        with pytest.raises(anthropic.OverloadedError) as raised:
            await patient.messages.create(model="claude", max_tokens=99, messages=HELLO)
    assert raised.value.status_code == 529
    assert len(upstream.journal) == requests


# fmt: off
BROKEN_STREAMS = [
    ok().error_after(3),
    ok().cut(after=3),
    ok().cut(after=3, how="rst"),
    ok().truncated(after=3),
    ok().cut_inside(after=3),
]
# fmt: on


async def heard(call: Call) -> tuple[str, anthropic.APIError | None]:
    """The text of a stream as far as it came, and the error that ended it."""
    text = ""
    events = call.client.messages.stream(model="claude", max_tokens=99, messages=HELLO)
    try:
        async with events as stream:
            async for piece in stream.text_stream:
                text += piece
    except anthropic.APIError as fault:
        return text, fault
    return text, None


@pytest.mark.parametrize("reply", BROKEN_STREAMS, ids=["in-band", "fin", "rst", "clean", "inside"])
async def test_a_broken_stream_raises_after_the_text_so_far(call: Call, reply: Reply) -> None:
    """The cleanly truncated one too: direct it is a silent success for every SDK."""
    call.upstream.play(reply)
    text, fault = await heard(call)
    assert fault is not None
    assert text
    assert TEXT.startswith(text)
    assert text != TEXT


async def test_a_trailer_left_out_is_written_by_parapet(call: Call) -> None:
    call.upstream.play(ok().without_trailer())
    stream = await call.ask(stream=True)
    kinds = [event.type async for event in stream]
    assert kinds[-2:] == ["message_delta", "message_stop"]


async def test_an_error_before_content_raises(call: Call) -> None:
    call.upstream.play(ok().error_after(0))
    with pytest.raises(anthropic.APIError):
        await call.stream()


async def test_cancel_reaches_the_provider_at_once(call: Call) -> None:
    """R26: upstream closed within 100 ms; one event, outcome `client_cancelled`."""
    call.upstream.play(ok(pieces=[f" word{n}" for n in range(500)]).paced(0.02))
    stream = await call.ask(stream=True)
    deltas = 0
    async for event in stream:
        deltas += event.type == "content_block_delta"
        if deltas == 3:
            break
    left_at = time.monotonic()
    await stream.close()
    (entry,) = await call.upstream.settled()
    assert entry.end == "client gone"
    assert entry.end_at is not None
    assert entry.end_at - left_at <= 0.1
    request_id = stream.response.headers["x-parapet-request-id"]
    (event,) = await call.parapet.events(request_id=request_id)
    assert event["type"] == "runtime.request.cancelled"
    assert event["payload"]["outcome"] == "client_cancelled"


async def test_many_streams_at_once(call: Call) -> None:
    call.upstream.play(ok().paced(0.01))
    answers = await asyncio.gather(*(call.stream() for _ in range(20)))
    assert {answer.content[0].text for answer in answers} == {TEXT}
    assert len(call.upstream.journal) == 20


async def test_count_tokens_and_models(parapet: Parapet, upstream: FakeProvider) -> None:
    async with client_of(parapet, "anthropic") as client:
        counted = await client.messages.count_tokens(model="claude", messages=HELLO)
        assert counted.input_tokens == 11
        assert [model.id async for model in client.models.list()] == ["fake"]
        assert (await client.models.retrieve("claude-3")).type == "model"
