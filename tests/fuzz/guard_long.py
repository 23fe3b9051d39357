"""T-GR-01 for as long as one likes: `python -m tests.fuzz.guard_long --minutes 60 [--seed 1]`.

Says once in a while how far it is.  A difference ends it with exit code 1 and the seed that shows
it again; each batch has a seed of its own, counted up from the first.
"""

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

from tests.fuzz.guard_cases import random_rules, shapes_of_secrets, shipped_packs
from tests.guardrails.texts import Maker

BATCHES: tuple[tuple[str, Callable[[Maker, int], Counter[str]], int], ...] = (
    ("random rules", random_rules, 1_000),
    ("shapes of secrets", shapes_of_secrets, 200),
    ("shipped packs", shipped_packs, 200),
)
SAY_EVERY_S = 10.0


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> int:
    arguments = argparse.ArgumentParser(description="Streams against whole texts, at random.")
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    chosen = arguments.parse_args()
    begun = said = time.monotonic()
    seen: Counter[str] = Counter()
    seed = chosen.seed
    while (spent := time.monotonic() - begun) < chosen.minutes * 60:
        name, batch, cases = BATCHES[seed % len(BATCHES)]
        try:
            seen += batch(Maker(seed), cases)
        except AssertionError:
            traceback.print_exc()
            say(f"seed {seed} ({name}): a difference; --seed {seed} shows it")
            return 1
        seed += 1
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            left = max(chosen.minutes * 60 - spent, 0)
            say(f"{seen.total():,} cases {dict(seen)}, {left:.0f} s to go")
    say(f"{seen.total():,} cases, no difference: {dict(seen)}, last seed {seed - 1}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
