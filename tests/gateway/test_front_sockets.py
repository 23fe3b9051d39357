"""The front over real sockets, on the standard loop and on uvloop: closing differs between them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import uvloop

from proxy.gateway.listener import FrontServer
from tests.gateway.fakes import Kitchen
from tests.gateway.test_front import REFUSED, answers
from tests.kit.httpclient import Wire, opened

GET = b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
on_both_loops = pytest.mark.parametrize("loop", LOOPS)


@dataclass
class Running:
    kitchen: Kitchen
    server: FrontServer
    url: str


def played(loop: str, script: Callable[[Running], Awaitable[None]]) -> None:
    """Runs the script against a front of its own."""

    async def play() -> None:
        running = asyncio.get_running_loop()
        kitchen = Kitchen()
        server = FrontServer(kitchen.handle, running)
        listener = await running.create_server(server, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        try:
            async with asyncio.timeout(10):
                await script(Running(kitchen, server, f"http://127.0.0.1:{port}"))
        finally:
            listener.close()
            await server.shutdown(0.1)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(play())


async def told(wire: Wire) -> tuple[int, bytes]:
    answer = await wire.answer()
    return answer.status, answer.body


@pytest.mark.parametrize("how", ["leave", "reset"])
@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/wait", b"content-length: 2\r\n\r\nab"),  # awaiting the upstream
        ("/stream", b"content-length: 2\r\n\r\nab"),  # in the middle of an answer
        ("/echo", b"content-length: 2\r\n\r\na"),  # in the middle of the body
        ("/echo", b"transfer-encoding: chunked\r\n\r\n5\r\na"),
    ],
    ids=["awaiting", "streaming", "body", "chunks"],
)
@on_both_loops
def test_r26_who_leaves_cancels_his_request(loop: str, how: str, path: str, sent: bytes) -> None:
    async def script(front: Running) -> None:
        async with opened(front.url) as wire:
            await wire.send(f"POST {path} HTTP/1.1\r\nhost: x\r\n".encode() + sent)
            await front.kitchen.called.wait()
            if path == "/stream":
                await wire.reader.readuntil(b"first")
            getattr(wire, how)()
            await front.kitchen.over.wait()
        assert front.kitchen.cancelled == [path]
        assert front.kitchen.left == [True]

    played(loop, script)


@on_both_loops
def test_a_half_close_is_a_goodbye(loop: str) -> None:
    async def script(front: Running) -> None:
        async with opened(front.url) as wire:
            await wire.send(GET.replace(b"/echo", b"/wait"))
            await front.kitchen.called.wait()
            wire.writer.write_eof()
            assert await wire.closed()
            await front.kitchen.over.wait()
        assert front.kitchen.cancelled == ["/wait"]

    played(loop, script)


@on_both_loops
def test_t_http_01_04_refusals_are_read_by_who_sent_them(loop: str) -> None:
    async def script(front: Running) -> None:
        for name, (status, data) in REFUSED.items():
            async with opened(front.url) as wire:
                await wire.send(data)
                said = await wire.reader.read()  # to the end: it closes
                assert [told for told, _ in answers(said)] == [status], name
        assert front.kitchen.seen == []

    played(loop, script)


@on_both_loops
def test_a_connection_serves_many(loop: str) -> None:
    async def script(front: Running) -> None:
        async with opened(front.url) as wire:
            for number in range(50):
                body = b"%d" % number * 1000
                await wire.ask("POST", "/echo", body)
                assert await told(wire) == (200, body)
        assert len(front.kitchen.seen) == 50

    played(loop, script)


@on_both_loops
def test_pipelined_requests_are_answered_in_order(loop: str) -> None:
    async def script(front: Running) -> None:
        async with opened(front.url) as wire:
            await wire.send(b"".join(GET.replace(b"/echo", b"/echo?%d" % n) for n in range(10)))
            for n in range(10):
                assert await told(wire) == (200, b"/echo?%d" % n)

    played(loop, script)


@on_both_loops
def test_last_words_reach_who_is_still_sending(loop: str) -> None:
    """A refusal in the middle of a big body is read, not lost to a reset."""

    async def script(front: Running) -> None:
        async with opened(front.url) as wire:
            await wire.send(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n")
            for _ in range(20):
                await wire.send(b"x" * 100_000)
            assert (await told(wire))[0] == 413
            assert await wire.closed()

    played(loop, script)


@on_both_loops
def test_a_big_body_comes_and_goes(loop: str) -> None:
    async def script(front: Running) -> None:
        front.kitchen.limit_bytes = 1 << 25
        body = b"0123456789abcdef" * 1_000_000
        async with opened(front.url) as wire:
            await wire.ask("POST", "/echo", body)
            assert await told(wire) == (200, body)

    played(loop, script)


@on_both_loops
def test_tiny_chunks_are_put_together(loop: str) -> None:
    async def script(front: Running) -> None:
        async with opened(front.url) as wire:
            await wire.send(
                b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
                + b"1\r\na\r\n" * 100_000
                + b"0\r\n\r\n"
            )
            assert await told(wire) == (200, b"a" * 100_000)

    played(loop, script)
