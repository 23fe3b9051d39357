"""Redis as people run it: behind a password with few rights, behind sentinels (docs/stores.md)."""

import asyncio
import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.model.batch import (
    Append,
    Batch,
    Cursor,
    Delete,
    Fence,
    LogFilter,
    OutboxDone,
    OutboxPut,
    Put,
    Retention,
    StoreUnavailable,
)
from proxy.storage.moving import MovingFault
from proxy.storage.redis.engine import open_store
from proxy.storage.redis.keys import Keys
from proxy.storage.redis.moving import RedisServerAt
from tests.kit.processes import free_ports
from tests.kit.redis import RedisServer, silent
from tests.kit.store import HandClock

pytestmark = pytest.mark.redis
WS = "workspace-123"
DOCUMENTED = Path(__file__).parents[2] / "docs" / "stores.md"


def documented_rights() -> list[str]:
    found = re.search(r"^~parapet:\*.*$", DOCUMENTED.read_text(), re.MULTILINE)
    assert found is not None
    return found[0].split()


async def test_the_documented_rights_are_enough(tmp_path: Path, clock: HandClock) -> None:
    with RedisServer(tmp_path / "own") as own:
        own.command("ACL", "SETUSER", "parapet", "on", ">p/w", *documented_rights())
        own.command("CONFIG", "SET", "requirepass", "other")
        url = f"redis://parapet:p%2Fw@127.0.0.1:{own.port}/0"
        async with open_store(url, clock, silent) as store:
            ops = (
                Put("doc", "a", b"1"),
                Append("events", b"{}", "e", bytes(32), 60),
                Cursor("c", 0, 1),
            )
            await store.commit(WS, Batch("cm-1", ops))
            await store.commit(WS, Batch("cm-2", (Delete("doc", "a"),)))
            assert await store.revision(WS, "doc", "a") == 2
            assert (await store.range(WS, "events", LogFilter(types=()))).total == 0
            assert await store.scan(WS, "doc") == []
            await store.trim(Retention())
            token = await store.leases.take(WS, "n", 60)
            assert token is not None
            assert await store.leases.renew(WS, "n", token, 60)
            posts = tuple(OutboxPut("ops", "g", "alert", b"{}", 0) for _ in range(3))
            await store.commit(WS, Batch("cm-3", posts, Fence(WS, token)))
            (row,) = await store.claim(WS, "n", lease_ms=60_000)
            await store.commit(WS, Batch("cm-4", (OutboxDone(row.id, row.token),)))
            assert (len(await store.outbox(WS)), await store.outbox_pending()) == (2, 2)
            await store.leases.free(WS, "n", token)
            assert store.writable()
        rows = await asyncio.to_thread(
            lambda: list(RedisServerAt(url, clock).dump(WS, records=True))
        )
        await asyncio.to_thread(lambda: RedisServerAt(url, clock).load(WS, rows, replace=True))


async def test_a_wrong_password_is_a_server_that_is_away(tmp_path: Path, clock: HandClock) -> None:
    with RedisServer(tmp_path / "own", options=("--requirepass", "right")) as own:
        url = f"redis://:wrong@127.0.0.1:{own.port}/0"
        lines: list[str] = []
        async with open_store(
            url, clock, lambda event, fields: lines.append(f"{event} {fields}")
        ) as store:
            while store.writable():
                with contextlib.suppress(Exception):
                    await store.head(WS, "events")
        (line,) = lines
        assert line.startswith("redis.away ")
        assert "wrong" not in line.replace("WRONGPASS", "")
        with pytest.raises(MovingFault):
            await asyncio.to_thread(lambda: list(RedisServerAt(url, clock).dump(WS, records=True)))


@dataclass
class Watched:
    """A primary with a replica, and the port of a sentinel that takes half a second to act."""

    primary: RedisServer
    replica: RedisServer
    port: int


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    (port,) = free_ports(1)
    primary = RedisServer(tmp_path / "primary", options=("--repl-diskless-sync-delay", "0"))
    follows = ("--replicaof", f"127.0.0.1 {primary.port}")
    with primary, RedisServer(tmp_path / "replica", options=follows) as replica:
        home = tmp_path / "sentinel"
        home.mkdir()
        (home / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {home}\n"
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        watching = subprocess.Popen(
            ["redis-server", str(home / "sentinel.conf"), "--sentinel"], stdout=subprocess.DEVNULL
        )
        try:
            until = time.monotonic() + 15
            while b"state=online" not in primary.command("INFO", "replication") or not _knows(port):
                assert time.monotonic() < until
                time.sleep(0.1)
            yield Watched(primary, replica, port)
        finally:
            watching.kill()
            watching.wait()


def copied(replica: RedisServer) -> None:
    """Waits until the replica has the one event."""
    seq = Keys(WS).seq("events").decode()
    until = time.monotonic() + 10
    while replica.command("GET", seq) != b"$1\r\n1\r\n":
        assert time.monotonic() < until
        time.sleep(0.05)


def _knows(port: int) -> bool:
    """The sentinel has seen the replica."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as wire:
        wire.sendall(b"SENTINEL REPLICAS main\r\n")
        return b"flags" in wire.recv(65_536)
    return False


async def test_a_fail_over_is_followed(watched: Watched, clock: HandClock) -> None:
    url = f"redis+sentinel://127.0.0.1:{watched.port}/main/0"
    lines: list[str] = []
    async with open_store(url, clock, lambda event, fields: lines.append(event)) as store:
        await store.commit(WS, Batch("cm-1", (Append("events", b"{}", "e-1", bytes(32), 60),)))
        await asyncio.to_thread(copied, watched.replica)
        await asyncio.to_thread(watched.primary.kill)
        until, again = time.monotonic() + 20, Append("events", b"{}", "e-1", bytes(32), 60)
        while True:
            try:
                done = await store.commit(WS, Batch("cm-2", (again,)))
            except StoreUnavailable:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
            else:
                break
        assert done.appended[0].status == "duplicate"
        while not store.writable():
            assert time.monotonic() < until
            await asyncio.sleep(0.05)
    changes = [line for line in lines if line != "redis.restarted"]
    assert changes in ([], ["redis.away", "redis.back"])
