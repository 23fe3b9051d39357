"""How fast lines become stored events, and how long a commit takes.

.venv/bin/python -m tests.storage.throughput [redis]
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from proxy.control.intake import EventIntake
from proxy.model.batch import Append, Batch, LogFilter, OutboxDone, OutboxPut, Put
from proxy.runtime.clock import SystemClock
from proxy.runtime.ids import UlidIds
from proxy.spool.reader import SpoolReader
from proxy.spool.record import line_of
from proxy.spool.writer import SpoolWriter
from proxy.storage.choose import DATABASE, Engine, store_of
from proxy.storage.redis.client import new_bulk_client
from proxy.telemetry.exposition import Registry
from proxy.workers.spooler import Spooler
from tests.kit.redis import RedisServer, silent
from tests.kit.spool import a_record

LINES = 20_000


def say(name: str, value: float, unit: str) -> None:
    sys.stdout.write(f"{name:44} {value:12.2f} {unit}\n")


def journal(home: Path) -> None:
    """The worker's side: a line built, a line written."""
    records = [a_record(n, request_id=f"req-{n:026}") for n in range(LINES)]
    started = time.perf_counter()
    lines = [line_of(record) for record in records]
    say("line_of", (time.perf_counter() - started) / LINES * 1e6, "us")
    writer = SpoolWriter(home, "0", lambda what: None)
    taken = []
    for line in lines:
        started = time.perf_counter()
        writer.append(line, critical=False)
        taken.append((time.perf_counter() - started) * 1e6)
    writer.close()
    say("append, mean", statistics.fmean(taken), "us")
    say("append, p99", statistics.quantiles(taken, n=100)[98], "us")
    say("a line", len(lines[0]), "bytes")


async def drain(home: Path, store: Engine) -> None:
    clock = SystemClock()
    intake = EventIntake(store, clock, UlidIds(), Registry("0"))
    spooler = Spooler(
        SpoolReader(home), store, intake.accept, clock, node="n", batch_lines=store.batch_lines
    )
    started, before = time.perf_counter(), time.process_time()
    await spooler.drain()
    took, cpu = time.perf_counter() - started, time.process_time() - before
    assert await store.head("default", "events") == LINES
    say("spool to store", LINES / took, "events/s")
    say("spool to store, CPU", cpu / LINES * 1e6, "us/event")


async def commits(store: Engine) -> None:
    taken = []
    for n in range(500):
        started = time.perf_counter()
        event = Append("events", bytes(800), f"evt-x-{n}", bytes(32), 3600, type="t")
        await store.commit("default", Batch(f"cm-{n}", (event,)))
        taken.append((time.perf_counter() - started) * 1e3)
    say("one commit of one event, p50", statistics.median(taken), "ms")
    say("one commit of one event, p99", statistics.quantiles(taken, n=100)[98], "ms")


async def outbox(store: Engine) -> None:
    """A change with what must be sent of it; then all of it claimed and settled, by 32."""
    taken = []
    for n in range(640):
        started = time.perf_counter()
        post = OutboxPut("ops", f"g{n}", "alert", bytes(800), 0)
        await store.commit("default", Batch(f"cm-o-{n}", (Put("doc", "a", bytes(800)), post)))
        taken.append((time.perf_counter() - started) * 1e3)
    say("a change and its outbox row, p50", statistics.median(taken), "ms")
    taken = []
    while True:
        started = time.perf_counter()
        rows = await store.claim("default", "node", lease_ms=60_000)
        if not rows:
            break
        done = tuple(OutboxDone(row.id, row.token) for row in rows)
        await store.commit("default", Batch(f"cm-d-{rows[0].id}", done))
        taken.append((time.perf_counter() - started) * 1e3)
    say("32 rows claimed and settled, p50", statistics.median(taken), "ms")


async def questions(store: Engine) -> None:
    for name, query in {
        "newest page": LogFilter(),
        "one route, newest page": LogFilter(route_ids=("prod-chat",)),
        "one request": LogFilter(request_ids=(f"req-{77:026}",)),
        "an outcome, no index": LogFilter(outcomes=("success",)),
    }.items():
        taken = []
        for _ in range(20):
            started = time.perf_counter()
            await store.range("default", "events", query)
            taken.append((time.perf_counter() - started) * 1e3)
        say(f"{name}, p95", statistics.quantiles(taken, n=20)[18], "ms")


async def main(home: Path, said: str) -> None:
    store = store_of(said, home, SystemClock(), silent)
    await store.start()
    await drain(home, store)
    if said != "sqlite":
        say("memory", used_bytes(said) / LINES, "bytes/event")
    await commits(store)
    await outbox(store)
    await questions(store)
    await store.close()
    if said == "sqlite":
        say("database", (home / DATABASE).stat().st_size / LINES, "bytes/event")


def used_bytes(url: str) -> int:
    client = new_bulk_client(url)
    lines = client.execute_command("INFO", "memory").decode().splitlines()
    (used,) = [line.partition(":")[2] for line in lines if line.startswith("used_memory:")]
    client.close()
    return int(used)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as found:
        journal(Path(found))
        if sys.argv[1:] == ["redis"]:
            with RedisServer(Path(found) / "redis") as server:
                asyncio.run(main(Path(found), server.url))
        else:
            asyncio.run(main(Path(found), "sqlite"))
