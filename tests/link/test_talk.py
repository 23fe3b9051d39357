"""The socket between the control process and its workers, as those who talk over it see it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.link.client import LinkClient
from proxy.link.frames import UNREAD_BYTES, Message, pack, receive
from proxy.link.server import LinkServer
from proxy.model.exchange import Json
from proxy.runtime.clock import SystemClock
from proxy.runtime.tasks import spawn


class Host:
    def __init__(self) -> None:
        self.seen: list[object] = []

    def joined(self, slot: int) -> None:
        self.seen.append(("joined", slot))

    def left(self, slot: int) -> None:
        self.seen.append(("left", slot))

    def heard(self, slot: int, message: Message) -> None:
        if message["t"] == "nonsense":
            raise ValueError("nonsense")
        self.seen.append(message)


class Talk:
    def __init__(self) -> None:
        self.seen: list[object] = []

    def heard(self, message: Message) -> None:
        self.seen.append(message["t"])

    def lost(self) -> None:
        self.seen.append("lost")


async def applied(document: dict[str, Json]) -> tuple[int, str]:
    return 7, ""


async def until(seen: list[object], wanted: object) -> None:
    for _ in range(500):
        if wanted in seen:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{wanted} is not in {seen}")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LinkServer]:
    running = LinkServer(lambda slot, totals: None)
    running.host = Host()
    await running.start(tmp_path / "link")
    try:
        yield running
    finally:
        await running.close()


def host_of(server: LinkServer) -> Host:
    assert isinstance(server.host, Host)
    return server.host


@asynccontextmanager
async def worker(path: Path, talk: Talk, slot: int = 0) -> AsyncIterator[LinkClient]:
    client = LinkClient(path, slot, applied, dict, SystemClock(), talk)
    task = spawn(client.run(), name="link")
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_both_sides_hear_each_other(server: LinkServer, tmp_path: Path) -> None:
    talk, host = Talk(), host_of(server)
    async with worker(tmp_path / "link", talk) as client:
        await until(host.seen, ("joined", 0))
        assert list(server.slots()) == [0]
        server.send(0, {"t": "here"})
        await until(talk.seen, "here")
        client.send({"t": "counts", "of": [1]})
        await until(host.seen, {"t": "counts", "of": [1]})
    await until(host.seen, ("left", 0))
    await until(talk.seen, "lost")
    assert list(server.slots()) == []
    server.send(0, {"t": "here"})  # nobody is there: nothing happens


async def test_a_worker_that_is_there_twice_has_left_once(
    server: LinkServer, tmp_path: Path
) -> None:
    host = host_of(server)
    async with worker(tmp_path / "link", Talk()):
        await until(host.seen, ("joined", 0))
        async with worker(tmp_path / "link", Talk()):
            await until(host.seen, ("left", 0))
            await asyncio.sleep(0.1)
            assert host.seen == [("joined", 0), ("left", 0), ("joined", 0)]


async def test_who_has_new_rules_joins_again(server: LinkServer, tmp_path: Path) -> None:
    host = host_of(server)
    async with worker(tmp_path / "link", Talk()):
        await until(host.seen, ("joined", 0))
        host.seen.clear()
        server.push({})
        await until(host.seen, ("joined", 0))
        assert server.workers[0].version == 7


async def test_nonsense_ends_the_connection_and_it_is_made_anew(
    server: LinkServer, tmp_path: Path
) -> None:
    talk, host = Talk(), host_of(server)
    async with worker(tmp_path / "link", talk) as client:
        await until(host.seen, ("joined", 0))
        host.seen.clear()
        client.send({"t": "nonsense"})
        await until(host.seen, ("left", 0))
        await until(host.seen, ("joined", 0))
        assert "lost" in talk.seen


async def test_a_worker_that_does_not_read_is_cut_off(server: LinkServer, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "link"))
    writer.write(pack({"t": "hello", "slot": 3, "pid": 1}))
    host = host_of(server)
    await until(host.seen, ("joined", 3))
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # a frozen process
    big: Message = {"t": "standings", "of": ["x" * 100_000]}
    async with asyncio.timeout(5):
        for _ in range(2 * UNREAD_BYTES // 100_000):
            server.send(3, big)
            await asyncio.sleep(0)
    await until(host.seen, ("left", 3))
    writer.close()


async def test_a_worker_drops_what_control_does_not_read(tmp_path: Path) -> None:
    heard, over = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receive(reader)
        heard.set()
        await over.wait()
        writer.transport.abort()

    frozen = await asyncio.start_unix_server(serve, str(tmp_path / "link"), limit=1024)
    async with worker(tmp_path / "link", Talk()) as client:
        await heard.wait()
        for _ in range(3 * UNREAD_BYTES // 100_000):
            client.send({"t": "counts", "of": ["x" * 100_000]})
        writer = client._writer
        assert writer is not None
        assert writer.transport.get_write_buffer_size() < UNREAD_BYTES + 200_000
        over.set()
        await asyncio.sleep(0.1)
    frozen.close()


async def test_rules_larger_than_a_reader_may_be_behind_do_not_cut_it_off(
    server: LinkServer, tmp_path: Path
) -> None:
    class Talkative(Host):
        def joined(self, slot: int) -> None:
            super().joined(slot)
            server.send(slot, {"t": "standings"})

    host = server.host = Talkative()
    server.push({"rules": "x" * (UNREAD_BYTES + 1_000_000)})
    talk = Talk()
    async with worker(tmp_path / "link", talk):
        await until(talk.seen, "standings")
        server.push({"rules": "y" * (UNREAD_BYTES + 1_000_000)})
        server.send(0, {"t": "here"})
        await until(talk.seen, "here")
        assert ("left", 0) not in host.seen
