"""A change through the API is in force: the next request meets it (control-api.md §3, §12)."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kit.httpclient import Answer, post
from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider

pytestmark = pytest.mark.process

W = "/v1/workspaces/default"
LIVE_S = 1.0


async def asked(parapet: Parapet, route: str) -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    return await post(f"{parapet.url}/v1/chat/completions", body, {"x-parapet-route": route})


async def until(parapet: Parapet, route: str, status: int) -> float:
    """Seconds until the route answers so."""
    began = time.monotonic()
    while (found := await asked(parapet, route)).status != status:
        assert time.monotonic() < began + 5 * LIVE_S, (found.status, found.body)
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def said(parapet: Parapet, method: str, path: str, body: Any = None) -> Any:
    answer = await parapet.control(method, f"{W}/{path}", body)
    assert answer.status in (200, 201, 204), answer.body
    return answer


@pytest.mark.parametrize("single", [True, False])
async def test_routes_and_endpoints_come_and_go(tmp_path: Path, single: bool) -> None:
    async with FakeProvider() as provider:
        only = endpoint("main", "openai", provider.url + "/v1")
        config = workspace([only], [{"id": "chat", "endpoint": "main"}])
        async with running(config, tmp_path / "state", single=single) as parapet:
            assert (await asked(parapet, "new")).status == 404
            await said(parapet, "POST", "routes", {"id": "new", "endpoint": "other"})
            assert await until(parapet, "new", 503) <= LIVE_S
            refused = await asked(parapet, "new")
            assert b"endpoint other is not there" in refused.body
            await said(parapet, "POST", "endpoints", {**only, "id": "other"})
            assert await until(parapet, "new", 200) <= LIVE_S
            shadow = await parapet.control("POST", f"{W}/routes", {"id": "chat", "endpoint": "x"})
            assert shadow.status == 409
            await parapet.kill()
            await parapet.start()
            assert (await asked(parapet, "new")).status == 200  # it was kept
            await said(parapet, "DELETE", "routes/new")
            assert await until(parapet, "new", 404) <= LIVE_S


async def test_a_key_is_taken_and_refused_by_every_process(tmp_path: Path) -> None:
    async with FakeProvider() as provider:
        only = endpoint("main", "openai", provider.url + "/v1")
        config = workspace([only], [{"id": "chat", "endpoint": "main"}])
        config = {**config, "server": {"data_auth": "keys"}}
        async with running(config, tmp_path / "state", single=False) as parapet:
            body = {"name": "checkout", "role": "app", "workspaces": ["default"]}
            made = (await parapet.control("POST", "/v1/keys", body)).json
            named = {"x-parapet-key": made["key"], "x-parapet-route": "chat"}
            assert await until_named(parapet, named, 200) <= LIVE_S
            gone = await parapet.control("DELETE", f"/v1/keys/{made['key_id']}")
            assert gone.status == 204
            assert await until_named(parapet, named, 401) <= LIVE_S


async def until_named(parapet: Parapet, headers: dict[str, str], status: int) -> float:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    began = time.monotonic()
    while (await post(f"{parapet.url}/v1/chat/completions", body, headers)).status != status:
        assert time.monotonic() < began + 5 * LIVE_S
        await asyncio.sleep(0.01)
    return time.monotonic() - began
