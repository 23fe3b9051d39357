"""Streams that die on the way, through a real Parapet, as the official SDKs read them: S08 and S09
with the seed's pair and with Chat Completions (failover.md §12)."""

import time
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest
import pytest_asyncio

from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok
from tests.kit.reply import Prefill, Reply

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

HELLO = [{"role": "user", "content": "hello"}]
TEXT = " ".join(f"word{number}" for number in range(60))
WHOLE = ok(TEXT)
DEATHS = [
    ("cut", WHOLE.cut(after=40)),
    ("reset", WHOLE.cut(after=40, how="rst")),
    ("stall", WHOLE.stall(after=20, seconds=4)),
    ("error", WHOLE.error_after(30)),
]
EVERY_DEATH = pytest.mark.parametrize(("name", "dies"), DEATHS, ids=[row[0] for row in DEATHS])
EVERY_MANNER = pytest.mark.parametrize("manner", ["exact", "spaced", "refused"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parapet(
    upstream: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Parapet]:
    endpoints = [
        endpoint("claude", "anthropic", upstream.url, models={"m": "one"}),
        endpoint("bedrock", "bedrock", upstream.url, models={"m": "anthropic.two"},
                 supports_prefill=True),
        endpoint("openai", "openai", upstream.url + "/v1", models={"m": "one"}),
        endpoint("spare", "openai", upstream.url + "/v1", models={"m": "two"},
                 supports_prefill=True),
    ]  # fmt: skip
    limits = {"first_content_ms": 1500, "idle_ms": 1000}
    pairs = {"claude": "bedrock", "openai": "spare"}
    routes = [{"id": first, "endpoint": first, "timeouts": limits} for first in pairs]
    policies = [
        {
            "route_id": first, "primary_endpoint": first, "fallback_endpoints": [second],
            "conditions": {"error_rate_threshold": 1, "consecutive_failures": 0},
        }
        for first, second in pairs.items()
    ]  # fmt: skip
    config = workspace(endpoints, routes, *policies)
    async with running(config, tmp_path_factory.mktemp("parapet")) as parapet:
        yield parapet


def play(upstream: FakeProvider, dies: Reply, manner: Prefill) -> None:
    upstream.play({"one": dies, "*": WHOLE.continuing(manner)})


@EVERY_MANNER
@EVERY_DEATH
async def test_messages(
    upstream: FakeProvider, parapet: Parapet, name: str, dies: Reply, manner: Prefill
) -> None:
    play(upstream, dies, manner)
    client = anthropic.AsyncAnthropic(
        base_url=f"{parapet.url}/r/claude", api_key="k", max_retries=0
    )
    began = time.monotonic()
    async with client, client.messages.stream(model="m", max_tokens=99, messages=HELLO) as stream:
        assert await stream.get_final_text() == TEXT
    assert time.monotonic() - began < 10
    assert len(upstream.of("one")) == 1


@EVERY_MANNER
@EVERY_DEATH
async def test_chat(
    upstream: FakeProvider, parapet: Parapet, name: str, dies: Reply, manner: Prefill
) -> None:
    play(upstream, dies, manner)
    client = openai.AsyncOpenAI(base_url=f"{parapet.url}/r/openai/v1", api_key="k", max_retries=0)
    async with client:
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        said = [c.choices[0].delta.content or "" async for c in stream if c.choices]
    assert "".join(said) == TEXT
    assert len(upstream.of("one")) == 1
