"""The longest turn of the loop while long answers of a guarded route come, without sockets.

    .venv/bin/python -m benchmarks.micro.turns

Each answer comes in reads of 64 KB, and the next is not read while the gateway is against it.  Law
(guardrails.md §15): no piece of work keeps the loop longer than 20 ms.
"""

import asyncio
import gc
import json
from collections.abc import Callable
from time import perf_counter

from proxy.app.data import Threads
from proxy.gateway.pipeline import serve
from proxy.model.exchange import RawHeaders
from proxy.runtime.clock import SystemClock
from proxy.runtime.tasks import spawn
from proxy.settings.packs import builtin_packs
from tests.kit.builders import JSON, SSE, world
from tests.kit.fakes import RecordingDownstream
from tests.kit.shapes import CHAT, DONE, ROLE, STOP, STREAM, call, chunk

PACKS = ["secrets-core", "pii-core", "unicode-safety"]
READ_BYTES, ROUNDS = 64 * 1024, 5
PROSE = "The harbour was quiet that morning, and 12 boats lay at the long pier. "
HEXES = "3f:a1:09:bc:7e:4d " * 6_000
KEYS = [f"word {number} AKIA{number:016d}" for number in range(20_000)]


def stream(*deltas: str) -> bytes:
    return b"".join([ROLE, *(chunk({"content": delta}) for delta in deltas), STOP, DONE])


def called(arguments: str) -> bytes:
    parts = [arguments[at : at + 30] for at in range(0, len(arguments), 30)]
    more = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts]
    return b"".join([ROLE, chunk(call("")), *map(chunk, more), STOP, DONE])


def whole(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode()


CASES: dict[str, Callable[[], bytes]] = {
    "a delta of 100 KB": lambda: stream(PROSE * 1_400),
    "a delta of 1 MB": lambda: stream(PROSE * 14_000),
    "a hostile delta of 100 KB": lambda: stream(HEXES),
    "10,000 tiny deltas": lambda: stream(*["x", "1", "-"] * 3_333),
    "deltas of 2 KB": lambda: stream(*[PROSE * 28] * 200),
    "arguments of 900 KB": lambda: called(json.dumps({"q": PROSE * 12_500})),
    "arguments of 20,000 texts": lambda: called(json.dumps(KEYS)),
    "an end without its blank line": lambda: stream("") + chunk({"content": HEXES})[:-2],
    "whole, 1 MB": lambda: whole(PROSE * 14_000),
    "whole, 100 KB of hex": lambda: whole(HEXES),
}


async def longest_ms(body: bytes) -> tuple[float, float]:
    """(the longest turn, all of it)"""
    is_stream = body.startswith(b"data")
    head: RawHeaders = SSE if is_stream else JSON
    packs = [builtin_packs()[name].effective for name in PACKS]
    w = world(scripts={"openai": [[(200, head)]]}, packs=packs)
    w.gateway.clock = SystemClock()
    w.gateway.off_loop = threads = Threads()
    caller = RecordingDownstream(request_body=STREAM if is_stream else CHAT)
    request = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="request")
    for _ in range(20):
        await asyncio.sleep(0)
    sink, attempt = w.upstreams["openai"].sinks[-1], w.upstreams["openai"].calls[-1]
    gaps = Gaps(asyncio.get_running_loop())
    began = perf_counter()
    for at in range(0, len(body), READ_BYTES):
        for _ in iter(lambda: attempt.paused, False):
            await asyncio.sleep(0)
        sink.data(body[at : at + READ_BYTES])
        await asyncio.sleep(0)
    sink.end()
    await request
    took = perf_counter() - began
    gaps.over = True
    threads.close()
    assert caller.status == 200, caller.received[-200:]
    return 1000 * gaps.longest, 1000 * took


class Gaps:
    """How long each turn of the loop takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.over = False
        self.longest = 0.0
        self._loop = loop
        self._last = perf_counter()
        loop.call_soon(self._look)

    def _look(self) -> None:
        now = perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        if not self.over:
            self._loop.call_soon(self._look)


def main() -> None:
    gc.freeze()
    print(f"{'longest turn of the loop':32}{f'best of {ROUNDS}':>14}{'worst':>12}{'in all':>11}")
    for name, write in CASES.items():
        body = write()
        found = [asyncio.run(longest_ms(body)) for _ in range(ROUNDS)]
        turns = [turn for turn, _ in found]
        in_all = min(took for _, took in found)
        print(f"{name:32}{min(turns):11.1f} ms{max(turns):9.1f} ms{in_all:8.0f} ms")


if __name__ == "__main__":
    main()
