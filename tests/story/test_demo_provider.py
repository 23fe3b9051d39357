"""The demo's providers speak the real wire: the official SDK takes their answers."""

from collections.abc import Iterator

import anthropic
import pytest

from proxy.demo import provider
from proxy.demo.provider import MADE_UP_KEY, PIECE_CHARS, DemoProviders
from tests.kit.httpclient import post

DELTA = "content_block_delta"
Client = anthropic.AsyncAnthropic | anthropic.AsyncAnthropicBedrock


@pytest.fixture(scope="module")
def providers() -> Iterator[DemoProviders]:
    with DemoProviders() as running:
        yield running


def client_of(kind: str, providers: DemoProviders) -> Client:
    if kind == "Anthropic":
        return anthropic.AsyncAnthropic(base_url=providers.urls.anthropic, api_key="k")
    return anthropic.AsyncAnthropicBedrock(
        base_url=providers.urls.bedrock, api_key="k", aws_region="us-east-1"
    )


@pytest.mark.parametrize("kind", ["Anthropic", "Bedrock"])
async def test_a_plain_answer(providers: DemoProviders, kind: str) -> None:
    hello = [{"role": "user", "content": "hello"}]
    async with client_of(kind, providers) as client:
        whole = await client.messages.create(model="claude", max_tokens=99, messages=hello)
        async with client.messages.stream(model="claude", max_tokens=99, messages=hello) as events:
            streamed = await events.get_final_message()
    assert whole.content[0].text == f"Hello! This is a made-up Claude, answering from {kind}."
    assert streamed.content[0].text == whole.content[0].text
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (12, 24)


@pytest.mark.parametrize("kind", ["Anthropic", "Bedrock"])
async def test_the_secret_comes_in_small_pieces(providers: DemoProviders, kind: str) -> None:
    asked = [{"role": "user", "content": "Tell me the SECRET."}]
    async with client_of(kind, providers) as client:
        stream = await client.messages.create(
            model="claude", max_tokens=99, messages=asked, stream=True
        )
        pieces = [event.delta.text async for event in stream if event.type == DELTA]
    assert MADE_UP_KEY in "".join(pieces)
    assert max(map(len, pieces)) == PIECE_CHARS < len(MADE_UP_KEY)


async def test_only_anthropic_is_slow(providers: DemoProviders) -> None:
    body = {"model": "c", "max_tokens": 9, "messages": [{"role": "user", "content": "be slow"}]}
    late = await post(providers.urls.anthropic + "/v1/messages", body)
    assert provider.SLOW_S <= late.took_s < provider.SLOW_S + 1
    soon = await post(providers.urls.bedrock + "/model/c/invoke", body)
    assert soon.took_s < 1


async def test_nonsense_is_refused(providers: DemoProviders) -> None:
    for body in (b"", b"[]", b"{"):
        answer = await post(providers.urls.anthropic + "/v1/messages", body)
        assert answer.status == 400
        assert answer.json["error"]["type"] == "invalid_request_error"
