"""What 1,000 guarded streams hold in memory while all of them are open.

    python -m benchmarks.micro.open_streams [--streams N] [--chars N] [--gate] [PACK.yaml ...]

Every stream is a pump as the gateway opens it: framing, reading, the lanes of all shipped packs of
shapes.  All get their deltas in turn, five characters each, and stay open in the middle of their
text; sockets and the request itself are not there.  `traced`: what Python allocated for a stream;
`resident`: what the process grew by.  `open`: a route without packs, to compare.  Exit code 1 with
--gate when a guarded stream takes more than 40 KB, or when memory does not come back.
"""

import argparse
import gc
import multiprocessing
import random
import resource
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson
import yaml

import proxy
from benchmarks.micro import guard_texts
from benchmarks.micro.guard import DELTA, SHAPES, guard_of
from proxy.gateway.stream import Pump
from proxy.guardrails.engine import Guard
from proxy.model.policy import PolicyPack
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.sse import SseFramer

KB = 1024
MOST_KB = 40.0  # of an open stream, all in all
LEFT = 0.15  # of what the streams took may stay behind
PAGE = resource.getpagesize()

Write = Callable[[random.Random, int], str]
T = TypeVar("T")


def words(r: random.Random, chars: int) -> str:
    return ("the harbour master counts boats and writes down their names, " * (chars // 60 + 2))[
        r.randrange(60) :
    ][:chars]


def unbroken(r: random.Random, chars: int) -> str:
    return "".join(r.choices(guard_texts.BASE64, k=chars))


def undecided(r: random.Random, chars: int) -> str:
    """A token has begun whose end does not come: nearly as much is held as may be."""
    begun = "eyJ" + "".join(r.choices(guard_texts.LETTERS, k=477))
    return words(r, max(0, chars - len(begun))) + begun


TEXTS: dict[str, Write] = {"prose": words, "base64": unbroken, "undecided": undecided}


@dataclass(slots=True)
class Taken:
    """Of one stream: KB; `held`: characters that wait, the mean.  `left`: the share of what all
    streams took that was still there when they had ended."""

    traced_kb: float
    resident_kb: float
    held: float
    left: float

    def __str__(self) -> str:
        return (
            f"{self.traced_kb:8.1f} KB traced {self.resident_kb:8.1f} KB resident "
            f"{self.held:8.1f} characters held {self.left:6.1%} left"
        )


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    doc = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + orjson.dumps({**doc, "choices": [choice]}) + b"\n\n"


def opened(guard: Guard | None) -> Pump:
    reader = ChatReader().stream(
        hold_tools=guard is not None, hold_reasoning=guard is not None, want_usage=True
    )
    return Pump(SseFramer(), reader, guard)


def advanced(pumps: Sequence[Pump], write: Write, chars: int) -> None:
    """Every stream one delta further, then every one the next."""
    r = random.Random(11)
    texts = [write(r, chars) for _ in pumps]
    for at in range(0, chars, DELTA):
        for pump, text in zip(pumps, texts, strict=True):
            pump.feed(event(text[at : at + DELTA]))


def all_open(guard: Guard | None, write: Write, streams: int, chars: int) -> list[Pump]:
    pumps = [opened(guard) for _ in range(streams)]
    advanced(pumps, write, chars)
    gc.collect()
    return pumps


def traced(guard: Guard | None, write: Write, streams: int, chars: int) -> Taken:
    all_open(guard, write, 20, chars)  # what is built once
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    pumps = all_open(guard, write, streams, chars)
    grown = tracemalloc.get_traced_memory()[0] - before
    held = sum(pump.texts.held for pump in pumps if pump.texts is not None) / streams
    pumps.clear()
    gc.collect()
    stays = tracemalloc.get_traced_memory()[0] - before
    return Taken(grown / streams / KB, 0, held, max(0.0, stays / max(1, grown)))


def grown_kb(guard: Guard | None, write: Write, streams: int, chars: int) -> float:
    all_open(guard, write, 20, chars)
    before = resident()
    pumps = all_open(guard, write, streams, chars)
    return (resident() - before) / len(pumps) / KB


def apart(work: Callable[[], T]) -> T:
    """In a process of its own, whose memory nobody has used before."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(work()))
    process.start()
    found: T = ours.recv()
    process.join()
    return found


def taken(guard: Guard | None, write: Write, streams: int, chars: int) -> Taken:
    found = apart(lambda: traced(guard, write, streams, chars))
    found.resident_kb = apart(lambda: grown_kb(guard, write, streams, chars))
    return found


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro.open_streams")
    parser.add_argument("packs", nargs="*", type=Path)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--chars", type=int, default=1000, help="of each stream's text so far")
    parser.add_argument("--gate", action="store_true")
    told = parser.parse_args(argv)
    where = Path(proxy.__file__).parent / "packs"
    files = told.packs or [where / f"{name}.yaml" for name in SHAPES]
    guard = guard_of([PolicyPack.model_validate(yaml.safe_load(f.read_bytes())) for f in files])
    print(f"{told.streams} streams, open after {told.chars} characters each; per stream:")
    missed = False
    for name, write in TEXTS.items():
        for kind, rules in (("guarded", guard), ("open", None)):
            found = taken(rules, write, told.streams, told.chars)
            over = rules is not None and (
                max(found.traced_kb, found.resident_kb) > MOST_KB or found.left > LEFT
            )
            missed = missed or over
            print(f"  {name:10} {kind:8} {found}{'   MISSED' if over else ''}", flush=True)
    return 1 if told.gate and missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
