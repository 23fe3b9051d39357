"""The official OpenAI SDK through Parapet: only its base URL changes (wire.md §13)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessage

from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import PIECES, TEXT, Rule, html, ok, status
from tests.kit.reply import Reply
from tests.kit.script import Request, ToolCall

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

Stream = openai.AsyncStream[ChatCompletionChunk]
HELLO = [{"role": "user", "content": "hello"}]
CALLERS_KEY = "sk-the-callers-own"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ONE = [ToolCall("weather", {"city": "Oslo"})]
TWO = [*ONE, ToolCall("weather", {"city": "Rome"}, "call_1abcdefg")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parapet(
    upstream: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Parapet]:
    base_url = upstream.url + "/v1"
    config = workspace(
        [
            endpoint("ours", "openai", base_url, models={"smart": "gpt-real"}),
            endpoint("callers", "openai", base_url, api_key=None),
        ],
        [{"id": "prod-chat", "endpoint": "ours"}, {"id": "through", "endpoint": "callers"}],
        default_route="prod-chat",
    )
    async with running(config, tmp_path_factory.mktemp("parapet")) as parapet:
        yield parapet


@pytest_asyncio.fixture(loop_scope="module")
async def client(upstream: FakeProvider, parapet: Parapet) -> AsyncIterator[openai.AsyncOpenAI]:
    upstream.play(ok())
    async with client_of(parapet.url + "/v1") as client:
        yield client


def client_of(base_url: str, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=base_url, api_key=CALLERS_KEY, max_retries=retries)


async def said(client: openai.AsyncOpenAI) -> str:
    """The text of a streamed answer."""
    stream = await client.chat.completions.create(model="smart", messages=HELLO, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_chat(upstream: FakeProvider, client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="smart", messages=HELLO)
    assert answer.choices[0].message.content == TEXT
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 7)
    (entry,) = upstream.journal
    assert entry.model == "gpt-real"
    assert entry.headers["authorization"] == "Bearer upstream-key"
    assert CALLERS_KEY not in str(entry.request)
    assert answer._request_id == "req_1"


@pytest.mark.parametrize("prefix", ["/v1", "/r/prod-chat/v1"])
async def test_the_route_may_stand_in_the_base_url(
    client: openai.AsyncOpenAI, parapet: Parapet, prefix: str
) -> None:
    async with client_of(parapet.url + prefix) as named:
        assert await said(named) == TEXT


async def test_a_stream_comes_as_it_is_written(
    upstream: FakeProvider, client: openai.AsyncOpenAI
) -> None:
    upstream.play(ok().paced(0.05))
    stream = await client.chat.completions.create(model="smart", messages=HELLO, stream=True)
    seen = [
        (time.monotonic(), chunk.choices[0].delta.content)
        async for chunk in stream
        if chunk.choices[0].delta.content
    ]
    (entry,) = await upstream.settled()
    assert [piece for _, piece in seen] == list(PIECES)
    assert entry.end_at is not None
    assert seen[0][0] < entry.end_at - 0.1


async def test_usage_of_a_stream_only_when_asked_for(client: openai.AsyncOpenAI) -> None:
    asked = await client.chat.completions.create(
        model="smart", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in asked]
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (11, 7)
    assert {chunk.usage for chunk in chunks} == {None}
    plain = await client.chat.completions.create(model="smart", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in plain]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def answers_with_the_weather(calls: list[ToolCall]) -> Rule:
    """Calls the tools; once their results are there, a text that quotes them."""

    def rule(request: Request) -> Reply:
        results = request.tool_results
        return ok("The tools said: " + "; ".join(results)) if results else ok(tools=calls)

    return rule


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("calls", [ONE, TWO], ids=["one", "parallel"])
async def test_tools(
    upstream: FakeProvider, client: openai.AsyncOpenAI, calls: list[ToolCall], streamed: bool
) -> None:
    upstream.play(answers_with_the_weather(calls))
    history: list[dict[str, object]] = [*HELLO]
    message = await ask_with_tools(client, history, streamed=streamed)
    made = message.tool_calls or []
    assert [(c.id, c.function.name, json.loads(c.function.arguments)) for c in made] == [
        (call.id, "weather", call.arguments) for call in calls
    ]
    history.append(message.model_dump(include={"role", "content", "tool_calls"}))
    for call in made:
        city = json.loads(call.function.arguments)["city"]
        told = {"role": "tool", "tool_call_id": call.id, "content": f"sunny in {city}"}
        history.append(told)
    answer = await ask_with_tools(client, history, streamed=streamed)
    for call in calls:
        assert f"sunny in {call.arguments['city']}" in (answer.content or "")


async def ask_with_tools(
    client: openai.AsyncOpenAI, history: list[dict[str, object]], *, streamed: bool
) -> ChatCompletionMessage:
    if not streamed:
        whole = await client.chat.completions.create(
            model="smart", messages=history, tools=[WEATHER]
        )
        return whole.choices[0].message
    stream = client.chat.completions.stream(model="smart", messages=history, tools=[WEATHER])
    async with stream as events:
        return (await events.get_final_completion()).choices[0].message


# fmt: off
ERRORS = [
    # the provider says                                  the SDK raises                 status
    (status(400, error_code="context_length_exceeded"),  openai.BadRequestError,        400),
    (status(401),                                        openai.InternalServerError,    502),
    (status(403),                                        openai.InternalServerError,    502),
    (status(404, error_code="model_not_found"),          openai.NotFoundError,          404),
    (status(413),                                        openai.APIStatusError,         413),
    (status(422),                                        openai.UnprocessableEntityError, 422),
    (status(429),                                        openai.RateLimitError,         429),
    (status(500),                                        openai.InternalServerError,    500),
    (status(503),                                        openai.InternalServerError,    503),
    (status(529),                                        openai.InternalServerError,    529),
]
# fmt: on


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("reply", "kind", "code"), ERRORS, ids=[str(row[2]) for row in ERRORS])
async def test_typed_errors(
    upstream: FakeProvider,
    client: openai.AsyncOpenAI,
    reply: Reply,
    kind: type[openai.APIStatusError],
    code: int,
    streamed: bool,
) -> None:
    """Without a failover policy the provider's own answer comes through, but for 401 and 403 on
    Parapet's key: an SDK would throw away a good key of its own."""
    upstream.play(reply)
    with pytest.raises(kind) as raised:
        await client.chat.completions.create(model="smart", messages=HELLO, stream=streamed)
    assert raised.value.status_code == code
    assert raised.value.request_id
    if code != 502:
        assert raised.value.body["message"] == "scripted"
        assert raised.value.code == reply.content.code
    assert len(upstream.journal) == 1


async def test_a_401_on_the_callers_own_key_is_the_callers(
    upstream: FakeProvider, client: openai.AsyncOpenAI, parapet: Parapet
) -> None:
    upstream.play([status(401), ok()])
    async with client_of(parapet.url + "/r/through/v1") as through:
        with pytest.raises(openai.AuthenticationError):
            await said(through)
        assert await said(through) == TEXT
    assert upstream.journal[0].headers["authorization"] == f"Bearer {CALLERS_KEY}"


async def test_html_is_never_an_error_body(
    upstream: FakeProvider, client: openai.AsyncOpenAI
) -> None:
    upstream.play(html(502))
    with pytest.raises(openai.InternalServerError) as raised:
        await said(client)
    assert raised.value.status_code == 502
    assert "<html" not in raised.value.response.text


# fmt: off
RETRIES = [
    # the provider says                                      requests
    (status(429, retry_after_ms="10"),                       3),
    (status(503, retry_after_ms="10"),                       3),
    (status(529, retry_after_ms="10"),                       3),
    (status(529, x_should_retry="false"),                    1),
    (status(503, x_should_retry="false"),                    1),
    (status(400, x_should_retry="true", retry_after_ms="10"), 3),
]
# fmt: on


@pytest.mark.parametrize(("reply", "requests"), RETRIES)
async def test_retry_headers_of_the_provider_pass(
    upstream: FakeProvider,
    client: openai.AsyncOpenAI,
    parapet: Parapet,
    reply: Reply,
    requests: int,
) -> None:
    upstream.play(reply)
    async with client_of(parapet.url + "/v1", retries=2) as patient:
        with pytest.raises(openai.APIStatusError):
            await said(patient)
    assert len(upstream.journal) == requests


# fmt: off
BROKEN_STREAMS = [
    ok().error_after(3, "overloaded_error"),
    ok().cut(after=3),
    ok().cut(after=3, how="rst"),
    ok().truncated(after=3),
    ok().cut_inside(after=3),
]
# fmt: on


async def heard(stream: Stream) -> tuple[str, openai.APIError | None]:
    """The text so far, and the error that ended it."""
    text = ""
    try:
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    except openai.APIError as fault:
        return text, fault
    return text, None


@pytest.mark.parametrize("reply", BROKEN_STREAMS, ids=["in-band", "fin", "rst", "clean", "inside"])
async def test_a_broken_stream_raises_after_the_text_so_far(
    upstream: FakeProvider, client: openai.AsyncOpenAI, reply: Reply
) -> None:
    """The cleanly truncated one too: direct it is a silent success for every SDK."""
    upstream.play(reply)
    stream = await client.chat.completions.create(model="smart", messages=HELLO, stream=True)
    text, fault = await heard(stream)
    assert fault is not None
    assert text
    assert TEXT.startswith(text)
    assert text != TEXT


async def test_a_trailer_left_out_is_written_by_parapet(
    upstream: FakeProvider, client: openai.AsyncOpenAI
) -> None:
    upstream.play(ok().without_trailer())
    raw = await client.chat.completions.with_raw_response.create(
        model="smart", messages=HELLO, stream=True
    )
    lines = [line async for line in raw.http_response.aiter_lines()]
    assert [line for line in lines if line][-1] == "data: [DONE]"


async def test_an_error_before_content_is_told_by_the_sdk(
    upstream: FakeProvider, client: openai.AsyncOpenAI
) -> None:
    upstream.play(ok().error_after(0, "server_error"))
    with pytest.raises(openai.APIError):
        await said(client)


async def test_cancel_reaches_the_provider_at_once(
    upstream: FakeProvider, client: openai.AsyncOpenAI, parapet: Parapet
) -> None:
    """R26: upstream closed within 100 ms; one event, outcome `client_cancelled`."""
    upstream.play(ok(pieces=[f" word{n}" for n in range(500)]).paced(0.02))
    stream = await client.chat.completions.create(model="smart", messages=HELLO, stream=True)
    pieces = 0
    async for _ in stream:
        pieces += 1
        if pieces == 3:
            break
    left_at = time.monotonic()
    await stream.close()
    (entry,) = await upstream.settled()
    assert entry.end == "client gone"
    assert entry.end_at is not None
    assert entry.end_at - left_at <= 0.1
    request_id = stream.response.headers["x-parapet-request-id"]
    (event,) = await parapet.events(request_id=request_id)
    assert event["type"] == "runtime.request.cancelled"
    assert event["payload"]["outcome"] == "client_cancelled"


async def test_many_streams_at_once(upstream: FakeProvider, client: openai.AsyncOpenAI) -> None:
    upstream.play(ok().paced(0.01))
    texts = await asyncio.gather(*(said(client) for _ in range(20)))
    assert set(texts) == {TEXT}
    assert len(upstream.journal) == 20


async def test_the_other_operations(client: openai.AsyncOpenAI) -> None:
    vectors = await client.embeddings.create(
        model="smart", input=["a", "b"], encoding_format="float"
    )
    assert len(vectors.data) == 2
    legacy = await client.completions.create(model="smart", prompt="p", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in legacy]) == TEXT
    assert [model.id async for model in client.models.list()]
    assert (await client.models.retrieve("smart")).object == "model"
