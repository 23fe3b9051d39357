"""Real processes: SIGKILL, a second process, a full disk (R05, R10, R13; T-ST-01, 06, 07).

What a child was told is stored must be there after it was killed at any moment, whole batches
only, and nothing else but the one batch whose answer it did not hear.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from proxy.model.batch import LogFilter
from proxy.runtime.clock import SystemClock
from proxy.storage.redis.engine import RedisStore
from proxy.storage.redis.engine import open_store as open_redis
from proxy.storage.sqlite.engine import SqliteStore, open_store
from tests.kit.redis import RedisServer, silent

pytestmark = pytest.mark.process
WS = "workspace-123"

CHILD = """
import asyncio, sys
from pathlib import Path
from proxy.model.batch import Append, Batch, Count, Cursor, Put
from proxy.runtime.clock import SystemClock
from proxy.storage.redis.engine import open_store as open_redis
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.engine import open_store as open_sqlite
from proxy.storage.faults import CannotOpen

async def client(store, name):
    position = await store.cursor("workspace-123", name)
    while True:
        ops = [Append("events", b"%d" % n, f"{name}-{position}-{n}", bytes(32), 3600, at_ms=1)
               for n in range(3)]
        ops += [Cursor(name, position, position + 1), Put("doc", name, b"%d" % (position + 1))]
        ops += [Count(position % 7, name, {0: 3, 1: position}), Count(0, "all", {0: 3})]
        batch = Batch(f"cm-{name}-{position}", tuple(ops))
        await store.commit("workspace-123", batch)
        position += 1
        print(name, position, flush=True)

def opened(place):
    if place.startswith("redis://"):
        return open_redis(place, SystemClock(), lambda event, fields: None)
    return open_sqlite(Path(place), SystemClock(), Bounds(segment_entries=50))

async def main():
    try:
        async with opened(sys.argv[1]) as store:
            print("ready", flush=True)
            await asyncio.gather(*(client(store, name) for name in "abcdefgh"))
    except CannotOpen as fault:
        sys.exit(str(fault))

asyncio.run(main())
"""

FULL = """
import asyncio, resource, sys
from pathlib import Path
from proxy.model.batch import Append, Batch, StoreUnavailable
from proxy.runtime.clock import SystemClock
from proxy.storage.sqlite.engine import open_store

class Ahead(SystemClock):
    ahead_s = 0.0
    def monotonic(self):
        return super().monotonic() + self.ahead_s

async def main():
    clock, acked = Ahead(), 0
    path = Path(sys.argv[1])
    async with open_store(path, clock) as store:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
        try:
            for n in range(10_000):
                batch = Batch("cm", (Append("events", bytes(1000), f"evt-{n}"),))
                await store.commit("workspace-123", batch)
                acked += 1
        except StoreUnavailable as fault:
            assert fault.code == "storage-unavailable", fault.code
        assert 10 < acked < 1000, acked
        assert not store.writable()
        assert await store.head("workspace-123", "events") == acked
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        clock.ahead_s += 5
        for _ in range(50):
            await asyncio.sleep(0.1)
            if store.writable():
                break
        await store.commit("workspace-123", Batch("cm", (Append("events", b"", "last"),)))
        assert await store.head("workspace-123", "events") == acked + 1
        print("resumed", acked, flush=True)

asyncio.run(main())
"""


Opened = AbstractAsyncContextManager[SqliteStore | RedisStore]


def opened(place: str) -> Opened:
    if place.startswith("redis://"):
        return open_redis(place, SystemClock(), silent)
    return open_store(Path(place), SystemClock())


async def start(script: str, path: Path | str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def killed_after(path: str, lines: int) -> dict[str, int]:
    """Run a child, kill it when it has said so many lines: the last position each client heard."""
    child = await start(CHILD, path)
    assert child.stdout is not None
    heard: dict[str, int] = {}
    assert await asyncio.wait_for(child.stdout.readline(), 20) == b"ready\n"
    for _ in range(lines):
        name, position = (await asyncio.wait_for(child.stdout.readline(), 20)).split()
        heard[name.decode()] = int(position)
    child.send_signal(signal.SIGKILL)
    for line in (await child.stdout.read()).splitlines():
        if len(line.split()) == 2:
            heard[line.split()[0].decode()] = int(line.split()[1])
    assert await child.wait() == -signal.SIGKILL
    return heard


async def compare(store: SqliteStore | RedisStore, heard: dict[str, int]) -> None:
    total = 0
    counted = Counter[tuple[int, str, int]]()
    for name in "abcdefgh":
        position = await store.cursor(WS, name)
        assert position - heard.get(name, 0) in (0, 1), name
        doc = await store.get(WS, "doc", name)
        assert (doc or (0, b"0"))[1] == b"%d" % position
        for n in range(3 if position else 0):
            assert await store.event(WS, f"{name}-{position - 1}-{n}") is not None
            assert await store.event(WS, f"{name}-{position}-{n}") is None
        total += 3 * position
        for before in range(position):
            counted[before % 7, name, 0] += 3
            counted[before % 7, name, 1] += before
    counted[0, "all", 0] = total
    rows = await store.rollup(WS, 0, 7)
    assert {row[:3]: row[3] for row in rows if row[3]} == {k: n for k, n in counted.items() if n}
    page = await store.range(WS, "events", LogFilter(limit=1))
    assert (page.total, await store.head(WS, "events")) == (total, total)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "p.db")
    server: RedisServer = request.getfixturevalue("redis")
    return server.url


async def test_r05_t_st_01_what_was_acknowledged_is_stored_after_sigkill(
    place: str, tmp_path: Path
) -> None:
    """Events, positions, documents, and the sums of the rollups."""
    heard: dict[str, int] = {}
    for lines in (1, 40, 173, 401):
        heard |= await killed_after(place, lines)
        async with opened(place) as store:
            assert store.writable()
            await compare(store, heard)
            heard = {name: await store.cursor(WS, name) for name in "abcdefgh"}
    assert not [name for name in os.listdir(tmp_path) if "damaged" in name]


async def test_r13_t_st_07_a_second_process_leaves_the_first_unharmed(tmp_path: Path) -> None:
    first = await start(CHILD, tmp_path / "p.db")
    assert first.stdout is not None
    assert await asyncio.wait_for(first.stdout.readline(), 20) == b"ready\n"
    second = await start(CHILD, tmp_path / "p.db")
    _, said = await asyncio.wait_for(second.communicate(), 20)
    assert second.returncode == 1
    assert said.decode().strip() == f"database in use by pid {first.pid}"
    for _ in range(2000):
        assert await asyncio.wait_for(first.stdout.readline(), 20)
    first.kill()
    await first.communicate()
    async with open_store(tmp_path / "p.db", SystemClock()) as store:
        assert store.writable()


async def test_r10_t_st_06_a_full_disk_is_read_only_until_there_is_room(tmp_path: Path) -> None:
    child = await start(FULL, tmp_path / "p.db")
    out, err = await asyncio.wait_for(child.communicate(), 30)
    assert out.startswith(b"resumed"), err.decode()
    async with open_store(tmp_path / "p.db", SystemClock()) as store:
        page = await store.range(WS, "events", LogFilter(limit=1))
        assert page.total == int(out.split()[1]) + 1
