"""What the guard costs, beside what it may cost: µs per KB, µs per delta, how much text waits.

    python -m benchmarks.micro.guard [--gate] [--brief] [--json] [PACK.yaml ...]

Without packs: the shipped packs of shapes (secrets-core, pii-core, unicode-safety).  `first`: texts
that a warmed guard has not met yet; `again`: the same texts once more.  Means are of CPU time; p99
and standstills are of the clock on the wall, best of several, for others use the machine as well.
`re`: Python's own engine, one rule after the other.  `mails alone`: what a rule for addresses of
mail holds back: every word may become one, so no guard that finds them holds less.  Exit code 1
with --gate when a figure misses.
"""

import argparse
import asyncio
import random
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import yaml

import proxy
from benchmarks.micro import guard_texts
from benchmarks.stats import percentile
from proxy.app.data import Threads
from proxy.guardrails import matching
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings

SHAPES = ("secrets-core", "pii-core", "unicode-safety")
DELTA, KB = 5, 1024
MAILS = PolicyPack.model_validate(
    {
        "policy_pack_id": "mails",
        "default_action": "redact",
        "rules": [
            {
                "rule_id": "email",
                "pattern": r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z]{2,24}\b",
            }
        ],
    }
)


@dataclass(slots=True)
class Row:
    """One figure, and the most that it may be (None: only for comparison)."""

    name: str
    value: float
    unit: str
    most: float | None = None

    @property
    def missed(self) -> bool:
        return self.most is not None and self.value > self.most

    def __str__(self) -> str:
        bound = "" if self.most is None else f"≤ {self.most:g}"
        said = "" if self.most is None else "MISSED" if self.missed else "ok"
        return f"{self.name:44} {self.value:10.2f} {self.unit:9} {bound:>9}  {said}"


def guard_of(packs: Sequence[PolicyPack]) -> Guard:
    guard = compile_guard(packs, GuardSettings())
    guard.warm()
    return guard


def thousand_rules() -> list[PolicyPack]:
    """900 terms and 100 regexes, each a rule of its own, as an administrator writes them."""
    chance = random.Random(3)

    def word(size: int) -> str:
        return "".join(chance.choices("bcdfghjklmnpqrstvwxz", k=2)) + "".join(
            chance.choices("abcdefghijklmnopqrstuvwxyz", k=size)
        )

    rules: list[dict[str, object]] = []
    for at in range(900):
        term = f"{word(4)} {word(5)}" if chance.random() < 0.4 else word(6)
        rules.append({"rule_id": f"term{at}", "kind": "terms", "pattern": term})
    for at in range(100):
        shape = chance.choice((r"\b{}-\d{{4,8}}\b", r"\b{}_[A-Za-z0-9]{{16,}}", r"(?i)\b{}\s+\w+"))
        rules.append({"rule_id": f"regex{at}", "pattern": shape.format(word(3))})
    return [
        PolicyPack.model_validate(
            {"policy_pack_id": f"many-{at}", "default_action": "redact", "rules": rules[at::2]}
        )
        for at in range(2)
    ]


# ---- measuring


def judge_us(guard: Guard, text: str, chars: int, rounds: int = 5) -> float:
    """Microseconds per prompt of so many characters, none met before in the round; best round."""
    best = float("inf")
    for number in range(rounds):
        leaves = [
            [Leaf(f"{number}{text[at : at + chars - 1]}", "text", "user", ("messages",))]
            for at in range(0, len(text) - chars + 1, chars)
        ]
        begin = time.process_time()
        for leaf in leaves:
            guard.judge(leaf, "request")
        best = min(best, (time.process_time() - begin) / len(leaves) * 1e6)
    return best


def stream_us(guard: Guard, text: str, size: int = DELTA) -> float:
    """Microseconds of CPU per delta of one stream."""
    lane = guard.lane("text")
    assert lane is not None
    deltas = [text[at : at + size] for at in range(0, len(text), size)]
    begin = time.process_time()
    for delta in deltas:
        lane.feed(delta)
    return (time.process_time() - begin) / len(deltas) * 1e6


def deltas_us(guard: Guard, text: str, size: int = DELTA) -> list[float]:
    """Microseconds of every delta of one stream."""
    lane = guard.lane("text")
    assert lane is not None
    now, spent = time.perf_counter_ns, []
    for at in range(0, len(text), size):
        delta = text[at : at + size]
        begin = now()
        lane.feed(delta)
        spent.append((now() - begin) / 1000)
    return spent


def holds(guard: Guard, text: str) -> list[int]:
    """Characters that wait, after every delta."""
    lane = guard.lane("text")
    assert lane is not None
    found = []
    for at in range(0, len(text), DELTA):
        lane.feed(text[at : at + DELTA])
        found.append(lane.held)
    return found


def python_us(packs: Sequence[PolicyPack], text: str) -> float:
    """Microseconds per KB of Python's engine; rules that it cannot read are left out."""
    compiled = []
    for rule in (rule for pack in packs for rule in pack.rules):
        if isinstance(rule.pattern, str):
            try:
                compiled.append(re.compile(rule.pattern))
            except re.error:
                continue
    begin = time.perf_counter()
    for pattern in compiled:
        for _ in pattern.finditer(text):
            pass
    return (time.perf_counter() - begin) / len(text) * KB * 1e6


async def stall_ms(guard: Guard, text: str) -> float:
    """The longest that the loop stood still while a body was judged beside it."""
    threads, longest = Threads(), 0.0
    leaf = Leaf(text, "text", "user", ("messages",))
    work = asyncio.ensure_future(threads.run(lambda: guard.judge([leaf], "request")))
    last = time.perf_counter()
    while not work.done():
        await asyncio.sleep(0.001)
        here = time.perf_counter()
        longest, last = max(longest, here - last), here
    threads.close()
    return longest * 1e3


# ---- the rows


def ordinary(guard: Guard, packs: Sequence[PolicyPack]) -> list[Row]:
    rows = []
    for name, text in guard_texts.ordinary(120_000).items():
        aims = name != "code"
        for chars in (1_024, 4_096, 16_384):
            spent = judge_us(guard, text, chars) / chars * KB
            rows.append(
                Row(f"{name}: prompt of {chars} chars", spent, "µs/KB", 15 if aims else None)
            )
        rows.append(Row(f"{name}: re, rule by rule", python_us(packs, text[:8_192]), "µs/KB"))
        first, again = stream_us(guard, text), min(stream_us(guard, text) for _ in range(5))
        rows.append(Row(f"{name}: delta of {DELTA}, first", first, "µs", 4))
        rows.append(Row(f"{name}: delta of {DELTA}, again", again, "µs", 4))
        p99 = min(percentile(deltas_us(guard, text), 99) for _ in range(5))
        rows.append(Row(f"{name}: delta of {DELTA}, p99", p99, "µs", 50))
        held, least = holds(guard, text), statistics.mean(holds(guard_of([MAILS]), text))
        most = (3, 16) if aims else (None, None)
        rows.append(Row(f"{name}: held, mean", statistics.mean(held), "chars", most[0]))
        rows.append(Row(f"{name}: held, mean, mails alone", least, "chars"))
        rows.append(Row(f"{name}: held, p99", percentile(held, 99), "chars", most[1]))
    return rows


def many_rules(guard: Guard, packs: Sequence[PolicyPack]) -> list[Row]:
    """1,000 rules more, on a prompt of 16 KB of prose."""
    text = guard_texts.prose(8 * 16_384)
    alone = judge_us(guard, text, 16_384)
    with_them = judge_us(guard_of([*packs, *thousand_rules()]), text, 16_384)
    return [Row("1,000 rules more: 16 KB prompt", (with_them - alone) / 1000, "ms more", 0.5)]


def hostile(guard: Guard, packs: Sequence[PolicyPack], brief: bool) -> Iterator[Row]:
    size = 20_000 if brief else 200_000
    for name, text in guard_texts.hostile(size, packs).items():
        kb = len(text) / KB
        whole = judge_us(guard, text, len(text), 2) / kb
        yield Row(f"hostile {name}: whole", whole, "µs/KB", 300)
        part = text[:20_000]
        cold = stream_us(guard, part) / DELTA * KB / 1000
        warm = min(stream_us(guard, part) for _ in range(3)) / DELTA * KB / 1000
        yield Row(f"hostile {name}: stream, first", cold, "ms/KB", 25)
        yield Row(f"hostile {name}: stream, again", warm, "ms/KB", 10)
        stall = min(asyncio.run(stall_ms(guard, text)) for _ in range(3))
        yield Row(f"hostile {name}: loop stood still", stall, "ms", 20)


def one_character(guard: Guard) -> Iterator[Row]:
    """10 MB of nothing else, for characters that some rule looks for."""
    for sign in guard_texts.SIGNS:
        text = sign * ((10 << 20) // len(sign.encode()))
        begin = time.process_time()
        guard.judge([Leaf(text, "text", "user", ("messages",))], "request")
        spent = time.process_time() - begin
        yield Row(f"10 MB of U+{ord(sign):04X}: whole", spent, "s", 3)


def main() -> None:
    arguments = argparse.ArgumentParser(description="What the guard costs, and what it may cost.")
    arguments.add_argument("packs", nargs="*", type=Path, metavar="PACK.yaml")
    arguments.add_argument("--gate", action="store_true", help="exit 1 when a figure misses")
    arguments.add_argument("--brief", action="store_true", help="shorter hostile texts")
    arguments.add_argument("--json", action="store_true", help="rows as JSON lines")
    chosen = arguments.parse_args()
    where = Path(proxy.__file__).parent / "packs"
    files = chosen.packs or [where / f"{name}.yaml" for name in SHAPES]
    packs = [PolicyPack.model_validate(yaml.safe_load(file.read_text())) for file in files]
    guard = guard_of(packs)
    form = "interpreted" if matching.__file__.endswith(".py") else "compiled"
    print(f"{guard!r}, {form}, deltas of {DELTA} characters", file=sys.stderr)
    missed = False
    for make in (
        lambda: ordinary(guard, packs),
        lambda: many_rules(guard, packs),
        lambda: hostile(guard, packs, chosen.brief),
        lambda: one_character(guard),
    ):
        for row in make():
            print(orjson.dumps(asdict(row)).decode() if chosen.json else row, flush=True)
            missed = missed or row.missed
    sys.exit(1 if missed and chosen.gate else 0)


if __name__ == "__main__":
    main()
