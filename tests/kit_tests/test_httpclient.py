"""The raw client tells how an answer ended and when its pieces came."""

import asyncio

import pytest

from tests.kit.httpclient import get, opened, post
from tests.kit.provider import FakeProvider
from tests.kit.replies import huge, ok, silence, verbatim

BODY = {"model": "m", "messages": []}
PATH = "/v1/chat/completions"

# fmt: off
ENDS = [
    # bytes on the socket                                                     ended    body
    (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab",                       "whole", b"ab"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",                       "cut",   b"ab"),
    (b"HTTP/1.1 200 OK\r\n\r\nab",                                            "whole", b"ab"),
    (b"HTTP/1.1 204 No Content\r\n\r\n",                                      "whole", b""),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "whole", b"ab"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nab\r\n", "cut",   b"ab"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",         "cut",   b""),
    (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "whole", b""),
]
# fmt: on


@pytest.mark.parametrize(("data", "ended", "body"), ENDS)
async def test_ends(data: bytes, ended: str, body: bytes) -> None:
    async with FakeProvider(verbatim(data)) as provider:
        answer = await post(provider.url + PATH, BODY)
        assert (answer.ended, answer.body) == (ended, body)
        assert answer.whole is (ended == "whole")


async def test_late_bodies_and_late_heads() -> None:
    async with FakeProvider([ok().stall(after=1), silence()]) as provider:
        answer = await post(provider.url + PATH, BODY | {"stream": True}, within_s=0.1)
        assert (answer.ended, b"Hello" in answer.body) == ("late", True)
        with pytest.raises(TimeoutError):
            await post(provider.url + PATH, BODY, within_s=0.1)


async def test_leaving_in_the_middle() -> None:
    async with FakeProvider(ok().stall(after=1)) as provider, opened(provider.url) as wire:
        await wire.ask("POST", PATH, b'{"model": "m", "stream": true}')
        answer = await wire.body(await wire.head(), enough=10)
        assert answer.ended == "left"
        wire.reset()
        assert [entry.end for entry in await provider.settled()] == ["client gone"]


async def test_going_on_after_a_pause() -> None:
    async with (
        FakeProvider(huge(20_000_000)) as provider,
        opened(provider.url, receive_buffer=65_536) as wire,
    ):
        wire.stop_reading()
        await wire.ask("POST", PATH, b'{"model": "m"}')
        entry = await provider.arrived()
        await asyncio.sleep(0.05)
        assert entry.end == "open"
        wire.go_on_reading()
        answer = await wire.answer()
        assert (answer.whole, len(answer.body) > 20_000_000) == (True, True)


async def test_get_and_bytes_that_are_no_http() -> None:
    async with FakeProvider() as provider:
        assert (await get(provider.url + "/v1/models")).json["object"] == "list"
        await provider.down()
    with pytest.raises(ValueError, match="unpack"):  # noqa: PT012
        async with FakeProvider() as provider, opened(provider.url) as wire:
            await wire.send(b"nonsense\r\n\r\n")
            assert await wire.closed()
