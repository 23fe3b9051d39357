"""Several addresses: which are tried, in which order, and what is left behind."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from proxy.runtime import tasks
from proxy.upstream import connect
from tests.kit.rawserver import Peer, RawServer, answering, whole
from tests.upstream.fakes import Recorder, soon, way_to

HI = whole(b"hi")


class Says:
    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(self, host: str) -> tuple[str, ...]:
        return self.addresses


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """An address of loopback that neither accepts nor refuses: its queue is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.9", 0))
        listener.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener


async def test_the_next_address_is_tried_when_one_refuses() -> None:
    async with RawServer(answering(HI)) as server:
        url = f"http://provider.example:{server.port}"
        async with way_to(url, resolver=Says("127.0.0.3", "127.0.0.4", "127.0.0.1")) as way:
            assert (await way.ask()).body == b"hi"
            await soon(lambda: not tasks.alive())


async def test_all_refuse() -> None:
    async with RawServer(answering(HI)) as server:
        url = f"http://provider.example:{server.port}"
        async with way_to(url, resolver=Says("127.0.0.3", "127.0.0.4")) as way:
            sink = await way.ask()
            assert (sink.told, sink.phase) == (["failed"], "refused")


async def test_r47_the_next_address_is_tried_when_one_hesitates(deaf: socket.socket) -> None:
    port = deaf.getsockname()[1]
    server = await asyncio.start_server(_hello, "127.0.0.1", port)
    async with server:
        url, resolver = f"http://provider.example:{port}", Says("127.0.0.9", "127.0.0.1")
        async with way_to(url, resolver=resolver) as way:
            began = way.clock.monotonic()
            assert (await way.ask()).body == b"hi"
            assert way.clock.monotonic() - began < connect.STAGGER_S + 0.3
            await soon(lambda: not tasks.alive())


async def _hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HI)
    await reader.read()
    writer.close()


async def test_an_address_that_does_not_answer_costs_the_connect_limit(
    deaf: socket.socket,
) -> None:
    url = f"http://127.0.0.9:{deaf.getsockname()[1]}"
    async with way_to(url) as way:
        sink = await way.ask(connect_s=0.1)
        assert (sink.told, sink.phase) == (["failed"], "connect_timeout")


async def test_r53_cancel_ends_every_attempt(deaf: socket.socket) -> None:
    url = f"http://provider.example:{deaf.getsockname()[1]}"
    resolver = Says("127.0.0.9", "127.0.0.9", "127.0.0.9")
    async with way_to(url, resolver=resolver) as way:
        sink = Recorder()
        call = way.start(sink)
        await asyncio.sleep(connect.STAGGER_S * 1.2)
        assert len(tasks.alive()) == 3
        call.cancel()
        await soon(lambda: not tasks.alive(), within_s=0.1)
        assert sink.told == []


async def test_only_one_connection_is_kept_of_a_race() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.gone()

    async with RawServer(script) as server:
        url = f"http://provider.example:{server.port}"
        async with way_to(url, resolver=Says("127.0.0.1", "127.0.0.1")) as way:
            assert (await way.ask()).body == b"hi"
            assert server.peers == 1


@pytest.mark.parametrize("allow_private", [False, True])
async def test_t_ssrf_05_bad_addresses_among_good_ones_are_left_out(allow_private: bool) -> None:
    async with RawServer(answering(HI)) as server:
        url = f"http://provider.example:{server.port}"
        resolver = Says("169.254.169.254", "::ffff:169.254.169.254", "127.0.0.1")
        async with way_to(url, resolver=resolver, allow_private=allow_private) as way:
            sink = await way.ask()
            assert sink.phase == (None if allow_private else "blocked_address")
            assert server.peers == int(allow_private)


def test_families_take_turns() -> None:
    found = ["2606::1", "2606::2", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert connect.alternated(found) == [
        "2606::1",
        "192.0.2.1",
        "2606::2",
        "192.0.2.2",
        "192.0.2.3",
    ]
