"""`python -m tests.chaos`: plays the failures of failover.md §12, §13; prints the scorecard."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.chaos.profile import FAST, FULL
from tests.chaos.rows import Result
from tests.chaos.run import pairs, run
from tests.chaos.scorecard import line, passed, table, write


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="The scorecard of failover."
    )
    parser.add_argument("--full", action="store_true", help="faults as long as in the field")
    parser.add_argument("--only", default="", help="S08,S09-messages,P04: these rows alone")
    parser.add_argument("--workers", type=int, default=2, help="of the Parapet that is tried")
    parser.add_argument("--tries", type=int, default=2, help="of a row that falls short")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the scorecard for programs")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leaves state and log there")
    parser.add_argument("--list", action="store_true", help="names the rows")
    return parser.parse_args()


def main() -> int:
    said = options()
    profile = FULL if said.full else FAST
    chosen = pairs([each for each in said.only.split(",") if each])
    if said.list or not chosen:
        for row, dialect in chosen:
            say(f"{row.id:<16}{dialect.name:<10}{row.fault}")
        return 0 if chosen else 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the Parapet ends with its parent
    say(f"{len(chosen)} rows, {profile.name} profile, {said.workers} worker(s)")
    done = 0

    def tell(result: Result) -> None:
        nonlocal done
        done += 1
        say(f"[{done}] {line(result)}")

    results = asyncio.run(
        run(chosen, profile, tell=tell, workers=said.workers, tries=said.tries, keep=said.keep)
    )
    say("\n" + table(results))
    if said.json:
        write(results, profile.name, said.json)
    return 0 if passed(results) else 1


if __name__ == "__main__":
    sys.exit(main())
