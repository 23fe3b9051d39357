"""Limits as callers meet them: two official SDKs, several workers, a restart."""

import asyncio
import time
from pathlib import Path

import anthropic
import openai
import pytest

from tests.kit.httpclient import Answer, post
from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider

pytestmark = pytest.mark.process

HELLO = [{"role": "user", "content": "hello"}]
W = "/v1/workspaces/default"


def limited(provider: FakeProvider, **limits: object) -> dict[str, object]:
    pricing = {"input_per_mtok": 1000, "output_per_mtok": 1000}
    return workspace(
        [
            endpoint("gpt", "openai", provider.url + "/v1", pricing=pricing),
            endpoint("claude", "anthropic", provider.url),
        ],
        [
            {"id": "chat", "endpoint": "gpt", "limits": limits},
            {"id": "claude", "endpoint": "claude", "limits": limits},
        ],
    )


async def asked(parapet: Parapet, *, stream: bool = False) -> Answer:
    body = {"model": "m", "messages": HELLO, "stream": stream}
    return await post(f"{parapet.url}/v1/chat/completions", body, {"x-parapet-route": "chat"})


async def test_two_sdks_read_a_refusal(tmp_path: Path) -> None:
    async with (
        FakeProvider() as provider,
        running(limited(provider, rpm=2), tmp_path / "state") as parapet,
    ):
        await refused_by_openai(f"{parapet.url}/r/chat/v1")
        await refused_by_anthropic(f"{parapet.url}/r/claude")
        events = await parapet.events(2, type="runtime.rate_limited")
        assert {event["payload"]["id"] for event in events} == {"chat", "claude"}
        line = b'parapet_limited_total{workspace="default",scope="route",limit="rpm"} 2'
        until = time.monotonic() + 5
        while line not in (await parapet.control("GET", "/metrics")).body:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)


async def refused_by_openai(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-x", max_retries=0) as client:

        async def ask() -> object:
            return await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hello"}]
            )

        for _ in range(2):
            await ask()
        with pytest.raises(openai.RateLimitError) as told:
            await ask()
    assert (told.value.status_code, told.value.code) == (429, "rate_limit_exceeded")
    assert told.value.type == "rate_limit_error"
    headers = told.value.response.headers
    assert 20 <= int(headers["retry-after"]) <= 30
    assert headers["x-parapet-ratelimit-remaining-requests"] == "0"


async def refused_by_anthropic(url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="sk-x", max_retries=0) as client:

        async def ask() -> anthropic.types.Message:
            return await client.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}]
            )

        for _ in range(2):
            assert (await ask()).type == "message"
        with pytest.raises(anthropic.RateLimitError) as told:
            await ask()
    assert told.value.status_code == 429
    assert "route claude: 2 requests a minute" in str(told.value)


async def test_a_limit_holds_over_workers_and_an_edit_holds_at_once(tmp_path: Path) -> None:
    async with FakeProvider() as provider:
        config = limited(provider)
        config["server"] = {"workers": 2}
        async with running(config, tmp_path / "state", single=False) as parapet:
            made = {"id": "tight", "endpoint": "gpt", "limits": {"rpm": 20}}
            answer = await parapet.control("POST", f"{W}/routes", made)
            assert answer.status == 201

            async def status() -> int:
                body = {"model": "m", "messages": HELLO}
                url = f"{parapet.url}/r/tight/v1/chat/completions"
                return (await post(url, body)).status

            until = time.monotonic() + 5
            while await status() == 404:
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
            got = 1
            for _ in range(60):
                got += await status() == 200
                await asyncio.sleep(0.05)
            # one burst, three seconds and a second worker's: both are told within 250 ms
            assert 18 <= got <= 30
            answer = await parapet.control("PUT", f"{W}/routes/tight", {**made, "limits": {}})
            assert answer.status == 200
            until = time.monotonic() + 2
            while await status() != 200:
                assert time.monotonic() < until
            assert [await status() for _ in range(10)] == [200] * 10


async def test_the_limit_of_a_key_is_its_own_on_every_route(tmp_path: Path) -> None:
    async with FakeProvider() as provider:
        config = {**limited(provider), "server": {"data_auth": "keys"}}
        async with running(config, tmp_path / "state") as parapet:
            body = {"name": "app", "role": "app", "workspaces": ["default"], "limits": {"rpm": 3}}
            made = [(await parapet.control("POST", "/v1/keys", body)).json for _ in range(2)]

            async def status(key: int) -> int:
                hello = {"model": "m", "messages": HELLO}
                headers = {"x-parapet-route": "chat", "x-parapet-key": made[key]["key"]}
                return (await post(f"{parapet.url}/v1/chat/completions", hello, headers)).status

            until = time.monotonic() + 5
            while await status(1) == 401:
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
            assert [await status(0) for _ in range(4)] == [200, 200, 200, 429]
            assert await status(1) == 200


@pytest.mark.parametrize("single", [True, False])
async def test_a_budget_outlives_a_restart(tmp_path: Path, single: bool) -> None:
    async with FakeProvider() as provider:
        config = limited(provider, daily_cost_usd=0.001)
        async with running(config, tmp_path / "state", single=single) as parapet:
            assert (await asked(parapet, stream=True)).status == 200
            await parapet.events(1, type="runtime.request.completed")
            await asyncio.sleep(0.5)
            refused = await asked(parapet)
            assert refused.status == 429
            assert b"daily_budget_exceeded" in refused.body
            await parapet.kill()
            await parapet.start()
            statuses = []
            for _ in range(20):
                statuses.append((await asked(parapet)).status)
                await asyncio.sleep(0.1)
            assert statuses[-1] == 429
            assert statuses.count(200) <= 15 if not single else 12
