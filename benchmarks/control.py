"""The control API under volume: how many events a second go in, and how long lists take.

One real control process (`serve --single`), real SQLite with FULL durability, a client beside it.

    python -m benchmarks.control                       all of it, with 100,000 events
    python -m benchmarks.control --events 1000000      as the promise is stated (some minutes)
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp

from tests.kit.processes import Parapet, endpoint, running, workspace

NOW = "2026-01-01T00:00:00Z"
BATCH = 100
CALLERS = 8
ASKED = 60
LIMITS = {"control_read": 10_000_000, "control_write": 10_000_000, "ingest": 10_000_000}


def say(name: str, value: float, unit: str, bar: str = "") -> None:
    sys.stdout.write(f"{name:52} {value:12.1f} {unit:10} {bar}\n")
    sys.stdout.flush()


def event(number: int) -> dict[str, object]:
    payload = {
        "latency_ms": 900 + number % 700,
        "tokens": {"input": 512, "output": 256},
        "cost": 0.0214,
        "model": f"model-{number % 7}",
        "provider": ("anthropic", "openai", "bedrock")[number % 3],
    }
    return {
        "event_id": f"evt-{number}",
        "route_id": f"route-{number % 20}",
        "type": "runtime.request.completed",
        "timestamp": NOW,
        "payload": payload,
    }


def rule(number: int) -> dict[str, object]:
    condition = {"metric": "latency", "threshold_ms": 1000 + number, "window_seconds": 300}
    severity = ("low", "medium", "high", "critical")[number % 4]
    return {"name": f"Rule {number}", "condition": condition, "severity": severity}


class Sender(asyncio.Protocol):
    """One kept connection that sends what waits, one request after the other.

    A client of few instructions: it shares the two cores with what it measures.
    """

    def __init__(self, waiting: Iterator[bytes], head: bytes) -> None:
        self._waiting = waiting
        self._head = head
        self._got = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "TCP"
        self._transport = transport
        self._next()

    def _next(self) -> None:
        body = next(self._waiting, None)
        if body is None:
            self._transport.close()
            self.done.set_result(None)
        else:
            self._transport.write(self._head + b"%d\r\n\r\n" % len(body) + body)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, blank, rest = self._got.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        self._got = b""
        if head.startswith(b"HTTP/1.1 202"):
            self._next()
        else:
            self.done.set_exception(RuntimeError(f"{head!r} {rest[:300]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError("the connection was closed"))


class Client:
    """Calls from several tasks over kept connections."""

    def __init__(self, parapet: Parapet, session: aiohttp.ClientSession) -> None:
        self._parapet = parapet
        self._base = parapet.control_url
        self._session = session
        self._headers = {
            "Authorization": f"Bearer {parapet.admin_key}",
            "Content-Type": "application/json",
            "X-Parapet-Workspace": "default",
        }

    async def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        async with self._session.request(
            method, self._base + path, data=body, headers=self._headers
        ) as answer:
            told = await answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {told[:300]!r}")
            return told

    async def send_all(self, path: str, bodies: list[bytes]) -> tuple[float, float]:
        """Events into the store: (seconds, seconds of CPU of the control process)."""
        waiting = iter(bodies)
        place = self._base.removeprefix("http://")
        fields = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        head = f"POST {path} HTTP/1.1\r\nHost: {place}\r\n{fields}Content-Length: ".encode()
        host, _, port = place.partition(":")
        loop = asyncio.get_running_loop()
        began, cpu = time.perf_counter(), cpu_s(self._parapet.pid)
        made = [
            await loop.create_connection(lambda: Sender(waiting, head), host, int(port))
            for _ in range(CALLERS)
        ]
        await asyncio.gather(*(sender.done for _, sender in made))
        return time.perf_counter() - began, cpu_s(self._parapet.pid) - cpu

    async def ask_all(self, method: str, path: str, bodies: list[bytes]) -> float:
        """Seconds until all were answered."""
        waiting = iter(bodies)

        async def one() -> None:
            for body in waiting:
                await self.ask(method, path, body)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(CALLERS)))
        return time.perf_counter() - began


async def ingest(client: Client, events: int) -> None:
    singles = [json.dumps(event(number)).encode() for number in range(5000)]
    took, cpu = await client.send_all("/v1/ingest/runtime", singles)
    say("ingest, one event a request", len(singles) / took, "events/s", "bar 1000")
    say("ingest, one event a request: CPU", cpu / len(singles) * 1e6, "us/event")
    first = len(singles)
    batches = [
        json.dumps({"events": [event(n) for n in range(start, start + BATCH)]}).encode()
        for start in range(first, first + 20_000, BATCH)
    ]
    took, cpu = await client.send_all("/v1/ingest/runtime", batches)
    sent = len(batches) * BATCH
    say(f"ingest, {BATCH} events a request", sent / took, "events/s", "bar 5000")
    say(f"ingest, {BATCH} events a request: CPU", cpu / sent * 1e6, "us/event")
    first += sent
    began = time.perf_counter()
    for start in range(first, events, 10_000):
        stop = min(start + 10_000, events)
        more = [
            json.dumps({"events": [event(n) for n in range(at, min(at + 500, stop))]}).encode()
            for at in range(start, stop, 500)
        ]
        await client.send_all("/v1/ingest/runtime", more)
        if start % 100_000 < 10_000:
            sys.stderr.write(f"  {stop:,} of {events:,} events\r")
    if events > first:
        say("ingest of the rest, 500 events a request",
            (events - first) / (time.perf_counter() - began), "events/s")  # fmt: skip


async def documents(client: Client, count: int) -> None:
    bodies = [json.dumps(rule(number)).encode() for number in range(count)]
    took = await client.ask_all("POST", "/v1/workspaces/default/alert-rules", bodies)
    say("documents made", count / took, "docs/s")


async def timed(call: Callable[[], Awaitable[object]]) -> list[float]:
    taken = []
    for _ in range(ASKED):
        began = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


async def lists(client: Client) -> None:
    w = "/v1/workspaces/default"
    for name, path in {
        "events, newest page": f"{w}/events",
        "events, one route": f"{w}/events?route_id=route-3&limit=100",
        "events, type and time": f"{w}/events?type=runtime.*&since={NOW}",
        "events, a model (no index)": f"{w}/events?model=model-2",
        "events, a filter that finds nothing": f"{w}/events?outcome=nothing",
        "events, page 100": f"{w}/events?page=100&limit=100",
        "rules, first page": f"{w}/alert-rules",
        "rules, filter and two orders": (
            f"{w}/alert-rules?severity=high&status=all&sort=severity:asc,name:desc"
        ),
        "rules, last page": f"{w}/alert-rules?page=100&limit=100",
    }.items():
        await client.ask("GET", path)
        taken = await timed(lambda path=path: client.ask("GET", path))  # type: ignore[misc]
        p95 = statistics.quantiles(taken, n=20)[18]
        say(f"{name}: p50", statistics.median(taken), "ms")
        say(f"{name}: p95", p95, "ms", "bar 50")


def cpu_s(pid: int) -> float:
    """What a process has used, its threads with it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--events", type=int, default=100_000, help="events in the store")
    parser.add_argument("--documents", type=int, default=10_000, help="alert rules in the store")
    options = parser.parse_args()
    only = endpoint("main", "openai", "http://127.0.0.1:9")
    config = workspace([only], [{"id": "chat", "endpoint": "main"}])
    config = {**config, "control": {"rate_limits": LIMITS}}
    with tempfile.TemporaryDirectory() as home:
        async with (
            running(config, Path(home) / "state") as parapet,
            aiohttp.ClientSession() as session,
        ):
            client = Client(parapet, session)
            before = resident_mib(parapet.pid)
            await ingest(client, options.events)
            await documents(client, options.documents)
            await lists(client)
            say("memory, at first", before, "MiB")
            say("memory, at the end", resident_mib(parapet.pid), "MiB")


if __name__ == "__main__":
    asyncio.run(main())
