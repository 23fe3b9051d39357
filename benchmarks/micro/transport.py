"""CPU of the upstream transport alone, per request and per streamed event.

    python -m benchmarks.micro.transport [--loop uvloop|asyncio] [--requests N] [--rounds N]

The endpoint is a bare `asyncio.Protocol` in a process of its own; what is counted is the CPU time
of this process, kernel included, from `Pool.start` to the sink's `end`.  A sink that only counts
stands for the gateway.
"""

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import uvloop

from benchmarks.stats import spread
from proxy.model.exchange import Outgoing, RawHeaders
from proxy.model.ports import TransportFault
from proxy.model.tenancy import Endpoint
from proxy.runtime.clock import SystemClock
from proxy.upstream.pool import Pool
from proxy.upstream.transports import Transports

BODY = b'{"model":"gpt-x","messages":[{"role":"user","content":"' + b"word " * 190 + b'"}]}'
HEAD = b"\r\n".join(
    [
        b"POST /v1/chat/completions HTTP/1.1",
        b"host: 127.0.0.1",
        b"authorization: Bearer sk-0123456789abcdef",
        b"content-type: application/json",
        b"accept: application/json",
        b"accept-encoding: identity",
        b"user-agent: OpenAI/Python 3.54",
        b"content-length: %d" % len(BODY),
        b"",
        b"",
    ]
)
UNARY = Outgoing(HEAD, BODY)
STREAM = Outgoing(HEAD.replace(b"accept: application/json", b"accept: text/event-stream"), BODY)
ANSWER_FIELDS = [b"x-field-%d: some value of usual length" % n for n in range(8)]
ANSWER = b"\r\n".join(
    [
        b"HTTP/1.1 200 OK",
        b"content-type: application/json",
        b"content-length: %d" % len(BODY),
        *ANSWER_FIELDS,
        b"",
        BODY,
    ]
)
STREAM_HEAD = b"\r\n".join(
    [
        b"HTTP/1.1 200 OK",
        b"content-type: text/event-stream",
        b"transfer-encoding: chunked",
        *ANSWER_FIELDS,
        b"",
        b"",
    ]
)
EVENT = b"data: " + b"e" * 192 + b"\n\n"
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
EVENTS = 100
GAP_S = 0.01


class Mock(asyncio.Protocol):
    """Answers each request that comes in one piece, as a stream when it is asked for one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._got = b""
        self._left = 0

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._got.endswith(BODY):
            return
        streamed = b"text/event-stream" in self._got
        self._got = b""
        if streamed:
            self._left = EVENTS
            self._transport.write(STREAM_HEAD)  # type: ignore[attr-defined]
            self._next_event()
        else:
            self._transport.write(ANSWER)  # type: ignore[attr-defined]

    def _next_event(self) -> None:
        if self._left == 0:
            self._transport.write(b"0\r\n\r\n")  # type: ignore[attr-defined]
            return
        self._left -= 1
        self._transport.write(CHUNK)  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(GAP_S, self._next_event)


def serve(told: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", 0, backlog=1000)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


class Lane:
    """Sends one request after the other; counts what comes."""

    def __init__(self, pool: Pool, outgoing: Outgoing, requests: int) -> None:
        self._pool = pool
        self._outgoing = outgoing
        self._left = requests
        self.chunks = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self._left -= 1
        self._pool.start(self._outgoing, self, connect_s=3.0, due=float("inf"), phase="total")

    def head(self, status: int, headers: RawHeaders) -> None:
        assert status == 200

    def data(self, chunk: bytes) -> None:
        self.chunks += 1

    def end(self) -> None:
        if self._left:
            self.start()
        else:
            self.over.set_result(None)

    def failed(self, fault: TransportFault) -> None:
        self.over.set_exception(fault)


async def cpu_us(pool: Pool, outgoing: Outgoing, lanes: int, requests: int) -> tuple[float, int]:
    """CPU of this process, in all, and the pieces of body that came."""
    running = [Lane(pool, outgoing, requests // lanes) for _ in range(lanes)]
    began = time.process_time()
    for lane in running:
        lane.start()
    await asyncio.gather(*(lane.over for lane in running))
    return (time.process_time() - began) * 1e6, sum(lane.chunks for lane in running)


async def measure(port: int, requests: int, rounds: int) -> None:
    transports = Transports(SystemClock(), lambda _: None)
    url = f"http://127.0.0.1:{port}"
    endpoint = Endpoint(id="mock", provider="openai", base_url=url, allow_private=True)
    pool = transports.of("default", endpoint)
    await cpu_us(pool, UNARY, 64, 640)  # connections and caches are warm
    for lanes in (1, 64):
        figures = []
        for _ in range(rounds):
            cpu, _ = await cpu_us(pool, UNARY, lanes, requests)
            figures.append(cpu / (requests // lanes * lanes))
        tell(f"1 KB request, {lanes} at once", figures)
    figures = []
    for _ in range(rounds):
        cpu, events = await cpu_us(pool, STREAM, 100, 100)
        assert events == 100 * EVENTS
        figures.append(cpu / events)
    tell("200 B event of a stream, 100 at once", figures)
    await transports.close()


def tell(what: str, figures: list[float]) -> None:
    found = spread(figures)
    print(f"{what:40} {found.median:6.1f} us  ({found.low:.1f} to {found.high:.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    said = parser.parse_args()
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "uvloop": uvloop.new_event_loop,
        "asyncio": asyncio.SelectorEventLoop,
    }
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        with asyncio.Runner(loop_factory=loops[said.loop]) as runner:
            runner.run(measure(here.recv(), said.requests, said.rounds))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
