"""`python -m benchmarks`: measure Parapet beside nginx and whoever else is there."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from benchmarks import machine
from benchmarks.load import peers
from benchmarks.load.children import CannotStart
from benchmarks.load.peers import Peer, PeerError
from benchmarks.load.runner import Bench, Tally
from benchmarks.load.subjects import Subject, everything
from benchmarks.load.workloads import BY_ID, SETS, Workload
from benchmarks.regressions import regressions
from benchmarks.results import (
    FLOOR,
    OURS,
    Described,
    Findings,
    cells,
    differences,
    document,
    gates,
)
from benchmarks.table import render

RESULTS = Path(__file__).parent / "results"
EXAMPLES = """\
examples:
  python -m benchmarks                              the quick set, within 10 minutes
  python -m benchmarks --only N1,S-paced --rounds 3
  python -m benchmarks --gate                       exit 1 when a bar is missed
  python -m benchmarks --peers haproxy,litellm      start these too (see benchmarks/peers/)
  python -m benchmarks --peer name=bifrost,url=http://127.0.0.1:8090/v1,pid=4242,\\
model=openai/gpt-4o-mini

Every figure stands beside nginx's of the same round on the same core; trust ratios more than
microseconds.  A peer that is not there is a row that says why.

--peer takes: name, url, pid (without it the CPU cells are n/a), model, header=K:V (repeatable),
speaks=openai-chat+anthropic-messages, guards.  Exit codes: 0, 1 a gate was missed or nothing
could be measured, 2 usage.
"""


class UsageError(Exception):
    """What was asked for does not exist."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="CPU per request and per event, latency added, memory per stream.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--set", choices=sorted(SETS), default="quick", help="which workloads")
    made.add_argument("--only", default="", metavar="N1,S-paced", help="only these workloads")
    made.add_argument("--rounds", type=int, default=7, help="rounds that must count (default 7)")
    made.add_argument("--peers", default="", metavar="a,b|all", help="files in benchmarks/peers/")
    made.add_argument("--peer", action="append", default=[], help="a gateway that runs already")
    made.add_argument(
        "--subjects", default="", metavar="a,b", help="only these of ours, nginx always"
    )
    made.add_argument("--budget", type=float, help="seconds (default 570 quick, 7200 full)")
    made.add_argument("--gate", action="store_true", help="exit 1 when a bar is missed")
    made.add_argument("--no-save", action="store_true", help="write no result file")
    return made


def chosen_workloads(which: str, only: str) -> list[Workload]:
    """The set, or the named ones; a closed loop brings the latency run that belongs to it."""
    if not only:
        return list(SETS[which])
    names = [name.strip() for name in only.split(",") if name.strip()]
    strange = [name for name in names if name not in BY_ID]
    if strange:
        raise UsageError(f"no workload {', '.join(strange)} (there are: {', '.join(BY_ID)})")
    return [one for one in BY_ID.values() if one.id in names or (one.of and one.of in names)]


def chosen_subjects(only: str, files: str, arguments: Sequence[str]) -> list[Subject]:
    ours = everything()
    if only:
        wanted = {name.strip() for name in only.split(",")} | {FLOOR, "direct"}
        strange = wanted - {subject.name for subject in ours}
        if strange:
            raise UsageError(f"no subject {', '.join(sorted(strange))}")
        ours = [subject for subject in ours if subject.name in wanted]
    names = peers.known() if files == "all" else [name for name in files.split(",") if name]
    described = [peers.from_file(name) for name in names]
    described += [peers.from_argument(argument) for argument in arguments]
    taken = [subject.name for subject in ours] + [one.name for one in described]
    if len(set(taken)) != len(taken):
        raise UsageError("two subjects of one name")
    return ours + [Peer(one) for one in described]


def findings(tally: Tally, subjects: Sequence[Subject], workloads: Sequence[Workload]) -> Findings:
    described = [
        Described(
            one.name, one.version, one.config_sha256(), one.guards, one.on, variant=one.variant
        )
        for one in subjects
    ]
    made = cells(workloads, described, tally.rounds)
    return Findings(
        described,
        made,
        gates(made, workloads),
        differences(tally.rounds, workloads),
        tally.absent,
        tally.notes,
    )


def last_kept() -> dict[str, object]:
    kept = machine.kept_results(RESULTS)
    document: dict[str, object] = orjson.loads(kept[-1].read_bytes()) if kept else {}
    return document


def keep(found: Findings, tally: Tally) -> Path:
    """Write the result where the next run can be compared with it."""
    head = {
        "commit": machine.commit(),
        "date": machine.now(),
        "machine": machine.facts() | {"mock_ceiling_rps": round(tally.ceiling_rps)},
        "seconds": round(tally.seconds, 1),
    }
    RESULTS.mkdir(exist_ok=True)
    name = f"{machine.today()}-{head['commit']}-{machine.slug()}.json"
    path = RESULTS / name
    path.write_bytes(
        orjson.dumps(document(found, head), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
    return path


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> int:
    workloads = chosen_workloads(arguments.set, arguments.only)
    subjects = chosen_subjects(arguments.subjects, arguments.peers, arguments.peer)
    if arguments.rounds < 1:
        raise UsageError("--rounds must be at least 1")
    budget_s = arguments.budget or (570 if arguments.set == "quick" else 7200)
    began = time.monotonic()
    tally = Tally()
    try:
        with Bench(subjects, say) as bench:
            tally = bench.tally
            if FLOOR in tally.absent:
                say(f"nothing to compare with: nginx is {tally.absent[FLOOR]}")
                return 1
            bench.run(workloads, arguments.rounds, budget_s - (time.monotonic() - began))
    except KeyboardInterrupt:
        tally.notes.append("interrupted")
    found = findings(tally, subjects, workloads)
    found.regressions = regressions(found.cells, last_kept())
    print(f"\n{render(found, workloads)}\n")
    if not arguments.no_save and found.cells:
        say(f"written: {keep(found, tally)}")
    if not found.cells or "interrupted" in tally.notes:
        return 1
    if arguments.gate and (found.missed or found.regressions):
        missed = [gate.id for gate in found.missed] + found.regressions
        say(f"missed: {', '.join(missed)}")
        return 1
    if OURS in tally.absent:
        say(f"{OURS} itself did not start: {tally.absent[OURS]}")
        return 1
    return 0


def main() -> None:
    made = parser()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after ^C
    try:
        sys.exit(run(made.parse_args()))
    except (UsageError, PeerError) as error:
        made.error(str(error))
    except CannotStart as error:
        say(f"benchmarks: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
