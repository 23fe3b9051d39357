"""A service outside is asked about the texts of a running proxy, and outlives a change of rules."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.kit.httpclient import Answer, post
from tests.kit.outside import external
from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.rawserver import Peer
from tests.kit.services import HttpService, said

pytestmark = pytest.mark.process

POLICIES = "/v1/workspaces/default/policies"
ENV = {"PARAPET_SECRET_CHECKS": "hush-hush-hush"}


async def asked(parapet: Parapet, text: str) -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return await post(f"{parapet.url}/v1/chat/completions", body, {"x-parapet-route": "chat"})


def rule_of(service: HttpService, **config: Any) -> dict[str, Any]:
    headers = {"authorization": {"$env": "PARAPET_SECRET_CHECKS"}}
    config = {"headers": headers, "timeout_ms": 5000, **config}
    return external("http", service.url, scope={"direction": "request"}, config=config)


async def until_asked(service: HttpService, count: int) -> None:
    async with asyncio.timeout(10):
        while len(service.asked) < count:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.01)


async def until_answered(parapet: Parapet, status: int) -> None:
    async with asyncio.timeout(10):
        while (await asked(parapet, "a bomb")).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_counted(parapet: Parapet, metric: bytes) -> None:
    """Workers tell their counts once a second."""
    async with asyncio.timeout(10):
        while metric not in (await parapet.control("GET", "/metrics")).body:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_check_of_a_running_proxy(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def later(peer: Peer) -> None:
        await go.wait()
        await peer.send(said({"verdict": "violation", "label": "LATE"}))

    async with FakeProvider() as provider, HttpService({"bomb": "WEAPON"}) as service:
        only = endpoint("main", "openai", provider.url + "/v1")
        config = workspace([only], [{"id": "chat", "endpoint": "main"}])
        async with running(config, tmp_path / "state", env=ENV) as parapet:
            pack = {"id": "outside", "rules": [rule_of(service)], "route_ids": ["chat"]}
            made = await parapet.control("POST", POLICIES, pack)
            assert made.status == 201, made.body
            await until_answered(parapet, 400)
            assert (await asked(parapet, "hello")).status == 200
            assert service.asked[-1].headers["authorization"] == "hush-hush-hush"

            # a change while a check is under way: the request keeps its rules
            service.play(later)
            count = len(service.asked)
            waiting = asyncio.get_running_loop().create_task(asked(parapet, "slow"))
            await until_asked(service, count + 1)
            off = {"status": "paused"}
            changed = await parapet.control("PATCH", f"{POLICIES}/outside", off)
            assert changed.status == 200, changed.body
            await until_answered(parapet, 200)
            assert not waiting.done()
            go.set()
            assert (await waiting).status == 400

            await until_counted(parapet, b"parapet_guard_external_total{")
            assert "hush-hush-hush" not in parapet.log
            told = await parapet.control("GET", f"{POLICIES}/outside")
            assert b"hush-hush-hush" not in told.body


async def test_a_stop_waits_for_a_check_under_way(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def later(peer: Peer) -> None:
        await go.wait()
        await peer.send(said({"verdict": "pass"}))

    async with FakeProvider() as provider, HttpService() as service:
        service.play(later)
        only = endpoint("main", "openai", provider.url + "/v1")
        pack = {"policy_pack_id": "outside", "rules": [rule_of(service)]}
        route = {"id": "chat", "endpoint": "main", "policy_packs": ["outside"]}
        config = workspace([only], [route], policies=[pack])
        config["drain"] = {"lb_delay_seconds": 0, "timeout_seconds": 10, "stream_seconds": 20}
        async with running(config, tmp_path / "state", env=ENV) as parapet:
            waiting = asyncio.get_running_loop().create_task(asked(parapet, "hello"))
            await until_asked(service, 1)
            stopping = asyncio.get_running_loop().create_task(parapet.stop())
            await asyncio.sleep(0.5)
            go.set()
            assert (await waiting).status == 200
            assert await stopping == 0
