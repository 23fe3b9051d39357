"""How many instructions a request costs inside the pipeline, by which functions of ours.

    .venv/bin/python -m benchmarks.micro.instructions [--pack] [--policy] [--top 30]

Unlike a time it is the same on a busy machine: two runs differ by less than 1 %, so what one change
costs or saves can be seen.  It needs valgrind, and means something in the compiled build.  Each
function is told with all that it calls; an `await` counts for who waits.
"""

import argparse
import asyncio
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.micro.pipeline import POLICY, STAGES, TEXT, gateway_with, one
from proxy.model.tenancy import Limits

WARM_UP, REQUESTS = 100, 300
_OURS = re.compile(r"\s*([\d,]+) \([^)]*\)\s+\S*?:CPyDef_(\S+)")
_TOTAL = re.compile(r"Collected : (\d+)")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    made.add_argument("--pack", action="store_true", help="with secrets-core on the route")
    made.add_argument("--policy", action="store_true", help="under a failover policy")
    made.add_argument("--top", type=int, default=0, metavar="N", help="functions that are told")
    made.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return made


async def inside(*, pack: bool, policy: bool) -> None:
    """Run under valgrind, which counts only between the two calls of `count`."""
    packs, policies = ["secrets-core"] if pack else [], [POLICY] if policy else []
    gateway = gateway_with(packs, Limits(), policies)
    message = {"role": "user", "content": TEXT.format(n=7) * 16}
    body = json.dumps({"model": "gpt-4o-mini", "messages": [message]}).encode()
    spent = [0] * len(STAGES)
    for _ in range(WARM_UP):
        await one(body, gateway, spent)
    gc.collect()
    gc.freeze()
    count("on")
    for _ in range(REQUESTS):
        await one(body, gateway, spent)
    count("off")


def count(how: str) -> None:
    control = shutil.which("callgrind_control") or "callgrind_control"
    command = [control, "-i", how, str(os.getpid())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def by_function(told: str) -> list[tuple[int, str]]:
    """What `callgrind_annotate` says of our own functions, per request, the dearest first."""
    found: dict[str, int] = {}
    for cost, name in _OURS.findall(told):
        plain = name.partition("'")[0].removesuffix("_____mypyc_generator_helper__")
        found[plain] = max(found.get(plain, 0), int(cost.replace(",", "")) // REQUESTS)
    return sorted(((cost, name) for name, cost in found.items()), reverse=True)


def main(arguments: Sequence[str] | None = None) -> int:
    said = parser().parse_args(arguments)
    if said.inside:
        asyncio.run(inside(pack=said.pack, policy=said.policy))
        return 0
    valgrind, annotate = shutil.which("valgrind"), shutil.which("callgrind_annotate")
    if valgrind is None or annotate is None:
        print("valgrind is missing (Debian: apt-get install valgrind)", file=sys.stderr)
        return 1
    flags = [flag for flag in ("--pack", "--policy") if getattr(said, flag[2:])]
    with tempfile.TemporaryDirectory() as home:
        out = Path(home) / "callgrind.out"
        ran = subprocess.run(
            [valgrind, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}",
             sys.executable, "-m", "benchmarks.micro.instructions", "--inside", *flags],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        total = _TOTAL.search(ran.stderr)
        if ran.returncode or total is None:
            print(ran.stderr[-2000:], file=sys.stderr)
            return 1
        print(f"{int(total[1]) // REQUESTS:,} instructions per request")
        if said.top:
            asked = [annotate, "--inclusive=yes", "--threshold=100", str(out)]
            told = subprocess.run(asked, capture_output=True, text=True, check=True)
            for cost, name in by_function(told.stdout)[: said.top]:
                print(f"{cost:12,}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
