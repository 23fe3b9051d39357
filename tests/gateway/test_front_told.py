"""What the front refuses by itself, and what the pipeline crashes on: answered, and told."""

import asyncio
import json

import pytest

from proxy.gateway.handlers import Front
from proxy.gateway.listener import FrontServer
from tests.kit.builders import SECRET_RULE, pack, world
from tests.kit.httpclient import opened

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'


class Broken:
    """`OffLoop` with a bug."""

    async def run(self, work: object) -> object:
        raise RuntimeError("a bug")


async def test_a_bug_before_the_first_byte_is_answered_and_noted() -> None:
    w = world(packs=[pack(SECRET_RULE)])
    w.gateway.off_loop = Broken()  # type: ignore[assignment]
    bugs: list[BaseException] = []
    loop = asyncio.get_running_loop()
    front = FrontServer(Front(w.gateway, bugs.append).handle, loop)
    server = await loop.create_server(front, "127.0.0.1", 0)
    long = {"model": "gpt-4o", "messages": [{"role": "user", "content": "h" * 70_000}]}
    port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(3), opened(f"http://127.0.0.1:{port}") as wire:
            await wire.ask("POST", "/v1/chat/completions", json.dumps(long).encode())
            answer = await wire.answer()
            assert answer.status == 500
            assert answer.json["error"]["message"] == "Internal error."
    finally:
        server.close()
        await front.shutdown(0.1)
    assert len(bugs) == 1


@pytest.mark.parametrize("why", ["coding", "overload"])
async def test_a_request_refused_at_the_door_leaves_one_event(why: str) -> None:
    """architecture.md: exactly one record per request."""
    w = world()
    w.gateway.in_flight = 10_000 if why == "overload" else 0
    loop = asyncio.get_running_loop()
    front = FrontServer(Front(w.gateway, lambda bug: None).handle, loop)
    server = await loop.create_server(front, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    coding = "br" if why == "coding" else "identity"
    try:
        async with asyncio.timeout(3), opened(f"http://127.0.0.1:{port}") as wire:
            await wire.ask("POST", "/v1/chat/completions", CHAT, {"content-encoding": coding})
            answer = await wire.answer()
            assert answer.status == (503 if why == "overload" else 400)
    finally:
        server.close()
        await front.shutdown(0.1)
    assert len(w.notes.lines) == 1
