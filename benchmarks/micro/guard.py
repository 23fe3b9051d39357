"""What the guard costs: µs per delta, µs per KB, and how much text it holds back.

    python benchmarks/micro/guard.py [PACK.yaml ...]

`first` is a stream of deltas that the automaton has never met (states built, nothing remembered),
`warm` the same stream again, as a worker sees it after its first answers.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

import proxy
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.guardrails.samples import SENTENCES, WARM
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings

WORDS = " ".join(SENTENCES[:20]).split()
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def texts(chance: random.Random) -> dict[str, str]:
    def run(alphabet: str, size: int = 20_000) -> str:
        return "".join(chance.choices(alphabet, k=size))

    return {
        "prose": " ".join(chance.choices(WORDS, k=4_000)),
        "code": WARM[1] * 25,
        "base64": run(LETTERS),
        "digits": run("0123456789 "),
        "printable": run("".join(map(chr, range(32, 127)))),
        "hex, colons": run("0123456789abcdef:"),
    }


def stream(guard: Guard, deltas: list[str], holds: list[int] | None = None) -> float:
    """Microseconds per delta."""
    lane = guard.lane("text")
    if lane is None:
        return 0.0
    begin = time.perf_counter()
    if holds is None:
        for delta in deltas:
            lane.feed(delta)
    else:
        for delta in deltas:
            lane.feed(delta)
            holds.append(lane.held)
    return (time.perf_counter() - begin) / len(deltas) * 1e6


def best(measure: Callable[[], float], rounds: int = 7) -> float:
    return min(measure() for _ in range(rounds))


def judge_us(guard: Guard, text: str) -> float:
    """Microseconds per KB of one whole text of 1 KB after the other."""
    leaves = [
        [Leaf(text[at : at + 1024], "text", "user", ("messages", 0, "content"))]
        for at in range(0, len(text) - 1024, 1024)
    ]
    begin = time.perf_counter()
    for leaf in leaves:
        guard.judge(leaf, "request")
    return (time.perf_counter() - begin) / len(leaves) * 1e6


def main(paths: list[str]) -> None:
    where = Path(proxy.__file__).parent / "packs" / "secrets-core.yaml"
    files = [Path(path) for path in paths] or [where]
    packs = [PolicyPack.model_validate(yaml.safe_load(file.read_text())) for file in files]
    guard = compile_guard(packs, GuardSettings())
    guard.warm()
    print(f"{guard!r}, deltas of 5 characters")
    row = "{:12} {:>14} {:>14} {:>12} {:>12} {:>20}"
    print(
        row.format(
            "text",
            "first µs/delta",
            "warm µs/delta",
            "stream µs/KB",
            "judge µs/KB",
            "held mean p99 max",
        )
    )
    for name, text in texts(random.Random(7)).items():
        deltas = [text[at : at + 5] for at in range(0, len(text), 5)]
        first = stream(guard, deltas)
        holds: list[int] = []
        stream(guard, deltas, holds)
        warm = best(lambda deltas=deltas: stream(guard, deltas))
        chunks = [text[at : at + 1024] for at in range(0, len(text), 1024)]
        bulk = best(lambda chunks=chunks: stream(guard, chunks))
        judged = best(lambda text=text: judge_us(guard, text))
        holds.sort()
        held = f"{statistics.mean(holds):.1f} {holds[len(holds) * 99 // 100]} {holds[-1]}"
        print(row.format(name, f"{first:.2f}", f"{warm:.2f}", f"{bulk:.0f}", f"{judged:.1f}", held))


if __name__ == "__main__":
    main(sys.argv[1:])
