"""A key that the configuration no longer holds is nobody's any more (T-SEC-01)."""

import asyncio
import hashlib
import signal
from pathlib import Path

import pytest

from tests.kit.httpclient import get, opened, post
from tests.kit.processes import endpoint, running, workspace
from tests.kit.provider import FakeProvider

pytestmark = pytest.mark.process

SECRET = "s" * 40
KEY = {
    "id": "ab12cd34ef56",
    "secret_sha256": hashlib.sha256(SECRET.encode()).hexdigest(),
    "role": "viewer",
}


async def test_an_event_stream_ends_when_its_key_is_revoked(tmp_path: Path) -> None:
    async with FakeProvider() as provider:
        only = endpoint("main", "openai", provider.url + "/v1")
        route = {"id": "chat", "endpoint": "main"}
        config = workspace([only], [route], keys=[KEY])
        named = {"authorization": f"Bearer ppt_{KEY['id']}_{SECRET}"}
        async with (
            running(config, tmp_path / "state") as parapet,
            opened(parapet.control_url) as wire,
        ):
            await wire.ask("GET", "/v1/workspaces/default/events/stream", headers=named)
            assert (await wire.head()).status == 200
            parapet.write_config(workspace([only], [route]))
            parapet.signal(signal.SIGHUP)
            until = asyncio.get_running_loop().time() + 3
            while (await get(parapet.control_url + "/v1/status", named)).status != 401:
                assert asyncio.get_running_loop().time() < until
                await asyncio.sleep(0.02)
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            assert (await post(parapet.url + "/v1/chat/completions", body)).status == 200
            await parapet.events(1)
            async with asyncio.timeout(3):
                seen = await wire.reader.readuntil(b"0\r\n\r\n")  # the body's end
            assert b"runtime.request" not in seen
