"""From rounds to cells: medians of paired figures, gates, and the document that is kept.

Pure: what was measured comes in, values go out.  A cell whose rounds were all discarded keeps its
figures, since CPU per unit bears more noise than latency does, and says that it does not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.load.rounds import CROWDED, Percentiles, Round
from benchmarks.load.workloads import Workload
from benchmarks.stats import Spread, deltas, paired, percentile, slope, spread

SCHEMA = 1
KB = 1024
FLOOR, OURS, BARE, DIRECT, NO_POLICY = (
    "nginx",
    "parapet",
    "parapet bare",
    "direct",
    "parapet no policy",
)
NO_SPOOL_SWITCH = "not measured: no setting switches the spool off"
Rounds = Mapping[tuple[str, str], Mapping[int, Round]]


@dataclass(frozen=True, slots=True)
class Described:
    """A subject as the result names it."""

    name: str
    version: str
    config_sha256: str
    guards: str
    on: tuple[str, ...]
    variant: bool = False


@dataclass(slots=True)
class Cell:
    """One subject under one workload."""

    workload: str
    subject: str
    version: str
    config_sha256: str
    on: tuple[str, ...]
    concurrency: int = 0
    rounds: int = 0
    cpu_us: Spread | None = None
    ratio_nginx: Spread | None = None
    ratios: list[float] = field(default_factory=list)  # to nginx, one per round
    vs_parapet: Spread | None = None
    control_us: float | None = None
    added_ms: Percentiles | None = None
    added_gap_ms: Percentiles | None = None
    kb_per_stream: Spread | None = None
    back_percent: float | None = None  # resident memory once the streams are gone, over before
    rss_mb: float = 0
    errors: int = 0
    valid: bool = True
    latency_valid: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """One bar.  `limit` is what fails a run today; `goal` is where it is going."""

    id: str
    what: str
    limit: float | None
    goal: float
    value: float | None
    unit: str

    @property
    def passed(self) -> bool:
        if self.limit is None:
            return True
        return self.value is not None and self.value <= self.limit


@dataclass(slots=True)
class Findings:
    """All that a table shows and a file keeps."""

    subjects: list[Described]
    cells: list[Cell]
    gates: list[Gate]
    differences: list[str]
    absent: dict[str, str]
    notes: list[str] = field(default_factory=list)
    regressions: list[str] = field(default_factory=list)

    def cell(self, workload: str, subject: str) -> Cell | None:
        for cell in self.cells:
            if (cell.workload, cell.subject) == (workload, subject):
                return cell
        return None

    @property
    def missed(self) -> list[Gate]:
        return [gate for gate in self.gates if not gate.passed]


def counted(rounds: Mapping[int, Round]) -> dict[int, Round]:
    """The rounds that count; all that did something when none does."""
    good = {number: one for number, one in rounds.items() if not one.discarded}
    return good or {number: one for number, one in rounds.items() if one.units}


def cells(
    workloads: Sequence[Workload], subjects: Sequence[Described], rounds: Rounds
) -> list[Cell]:
    made = []
    for workload in workloads:
        for subject in subjects:
            ran = rounds.get((workload.id, subject.name))
            if ran:
                made.append(cell_of(workload, subject, ran, rounds))
    for workload in workloads:  # open-loop runs lend their latencies to the cell they belong to
        for subject in subjects:
            lender, taker = (
                next((c for c in made if (c.workload, c.subject) == (name, subject.name)), None)
                for name in (workload.id, workload.of)
            )
            if workload.of and lender and taker:
                taker.added_ms = lender.added_ms
                taker.latency_valid = lender.latency_valid
    return made


def cell_of(
    workload: Workload, subject: Described, ran: Mapping[int, Round], rounds: Rounds
) -> Cell:
    used = counted(ran)
    cell = Cell(workload.id, subject.name, subject.version, subject.config_sha256, subject.on)
    cell.errors = sum(one.errors for one in ran.values())
    cell.valid = any(not one.discarded for one in ran.values())
    cell.rounds = len(used)
    cell.note = remarks(ran, used)
    if not used:
        return cell
    cell.concurrency = concurrency(workload, next(iter(used.values())))
    cell.rss_mb = max(one.rss_bytes for one in used.values()) / KB / KB
    if workload.kind == "hold":
        per_stream(cell, used)
        return cell
    costs = {number: one.cpu_us for number, one in used.items() if one.cpu_ns}
    if costs:
        cell.cpu_us = spread(list(costs.values()))
        cell.control_us = percentile([one.side_us for one in used.values()], 50)
        cell.ratios = ratios(costs, workload.id, FLOOR, rounds)
        cell.ratio_nginx = spread(cell.ratios) if cell.ratios else None
        ours = ratios(costs, workload.id, OURS, rounds)
        cell.vs_parapet = spread(ours) if ours else None
    base = counted(rounds.get((workload.id, DIRECT), {}))
    if workload.against_direct and subject.name != DIRECT and base:
        cell.latency_valid = cell.valid and not all(one.discarded for one in base.values())
        cell.added_ms = added([(used[n], base[n]) for n in used if n in base])
        cell.added_gap_ms = added([(used[n], base[n]) for n in used if n in base], gaps=True)
    return cell


def remarks(ran: Mapping[int, Round], used: Mapping[int, Round]) -> str:
    """What a reader must know about this cell."""
    said = []
    thrown = [one.discarded for one in ran.values() if one.discarded]
    if thrown:
        said.append(f"{len(thrown)} of {len(ran)} rounds discarded: {thrown[0]}")
    if not all(one.agree for one in used.values()):
        said.append("schedstat and stat more than 3 % apart, the larger taken")
    crowd = max((one.strangers for one in used.values()), default=0)
    if crowd > CROWDED:
        said.append(f"others had up to {crowd:.0%} of the core")
    stalls = sum(one.stalls for one in used.values())
    if stalls:
        said.append(f"{stalls} stalls of more than 5 gaps")
    late = sum(one.at_40_ms for one in used.values())
    if late:
        said.append(f"{late} first tokens at 38-45 ms")
    return "; ".join(said)


def concurrency(workload: Workload, one: Round) -> int:
    if workload.kind == "hold":
        return workload.steps[-1]
    return workload.streams if workload.kind == "streams" else one.connections


def ratios(costs: Mapping[int, float], workload: str, other: str, rounds: Rounds) -> list[float]:
    theirs = {n: one.cpu_us for n, one in counted(rounds.get((workload, other), {})).items()}
    return paired(dict(costs), theirs)


def added(pairs: Sequence[tuple[Round, Round]], *, gaps: bool = False) -> Percentiles | None:
    """Ours less direct, in the same round; the median over the rounds."""
    found: dict[str, list[float]] = {}
    for ours, direct in pairs:
        mine, base = ((one.gap if gaps else one.first or one.latency) for one in (ours, direct))
        if mine and base:
            for name in mine:
                found.setdefault(name, []).append(mine[name] - base[name])
    return {name: percentile(values, 50) for name, values in found.items()} or None


def per_stream(cell: Cell, used: Mapping[int, Round]) -> None:
    memories = [one.memory for one in used.values() if one.memory and one.memory.points[0][1]]
    if not memories:
        return
    cell.kb_per_stream = spread(
        [slope([(x, y / KB) for x, y in memory.points]) for memory in memories]
    )
    back = [100 * (memory.after_bytes / memory.points[0][1] - 1) for memory in memories]
    cell.back_percent = percentile(back, 50)
    cell.rss_mb = max(memory.points[-1][1] for memory in memories) / KB / KB


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a gate finds its value in the cells."""

    id: str
    what: str
    workload: str
    subject: str
    figure: str  # ratio | memory | first | gap
    limit: float | None
    goal: float


# fmt: off
BARS = (
    #   id         what                                  workload   subject  figure    bar   goal
    Bar("G1",      "N1, everything on",                  "N1",      OURS,    "ratio",  8.0,  6.0),
    Bar("N1-bare", "N1, bare",                           "N1",      BARE,    "ratio",  None, 5.0),
    Bar("G4",      "SSE event, everything on",           "S-paced", OURS,    "ratio",  3.0,  2.0),
    Bar("S-bare",  "SSE event, bare",                    "S-paced", BARE,    "ratio",  None, 2.0),
    Bar("G6",      "added time to first token, p99",     "S-paced", OURS,    "first",  None, 1.0),
    Bar("G7",      "added inter-event time, p99",        "S-paced", OURS,    "gap",    None, 1.0),
    Bar("G8",      "memory per open stream",             "S-open",  OURS,    "memory", 60.0, 40.0),
)
# fmt: on
UNITS = {"ratio": "N", "memory": "KB", "first": "ms", "gap": "ms"}


def gates(found: Sequence[Cell], workloads: Sequence[Workload]) -> list[Gate]:
    """The bars of the workloads that were asked for; one without a value is missed."""
    asked = {workload.id for workload in workloads}
    by_name = {(cell.workload, cell.subject): cell for cell in found}
    return [
        Gate(
            bar.id,
            bar.what,
            bar.limit,
            bar.goal,
            figure(by_name.get((bar.workload, bar.subject)), bar.figure),
            UNITS[bar.figure],
        )
        for bar in BARS
        if bar.workload in asked
    ]


def figure(cell: Cell | None, which: str) -> float | None:
    """A gate's value.  A cell whose every round held errors has none."""
    if cell is None or (cell.errors and not cell.valid):
        return None
    match which:
        case "ratio":
            return cell.ratio_nginx.median if cell.ratio_nginx else None
        case "memory":
            return cell.kb_per_stream.median if cell.kb_per_stream else None
        case "first":
            return cell.added_ms["p99"] if cell.added_ms else None
        case _:
            return cell.added_gap_ms["p99"] if cell.added_gap_ms else None


def differences(rounds: Rounds, workloads: Sequence[Workload]) -> list[str]:
    """What single parts cost on N1: with the part less without it, round by round."""
    if "N1" not in {workload.id for workload in workloads}:
        return []
    costs = {
        name: {n: one.cpu_us for n, one in counted(rounds.get(("N1", name), {})).items()}
        for name in (FLOOR, OURS, BARE, NO_POLICY)
    }
    said = []
    for what, name in (("G50  pack, both ways", BARE), ("F-on failover policy", NO_POLICY)):
        found = deltas(costs[OURS], costs[name])
        if not found:
            said.append(f"{what}: not measured")
            continue
        in_n = [
            (costs[OURS][n] - costs[name][n]) / costs[FLOOR][n]
            for n in costs[OURS]
            if n in costs[name] and costs[FLOOR].get(n)
        ]
        part = spread(found)
        more = f" = {percentile(in_n, 50):+.2f} N" if in_n else ""
        said.append(
            f"{what}: {part.median:+.1f} µs{more} (IQR {part.low:+.1f} to {part.high:+.1f})"
        )
    said.append(f"E-on spool: {NO_SPOOL_SWITCH}")
    return said


def document(found: Findings, head: Mapping[str, object]) -> dict[str, object]:
    """The result as it is kept."""
    return {
        "schema": SCHEMA,
        **head,
        "cells": [cell_document(cell) for cell in found.cells],
        "gates": [
            {
                "id": gate.id,
                "limit": gate.limit,
                "goal": gate.goal,
                "value": rounded(gate.value),
                "pass": gate.passed,
            }
            for gate in found.gates
        ],
        "differences": found.differences,
        "regressions": found.regressions,
        "absent": found.absent,
        "notes": found.notes,
    }


def cell_document(cell: Cell) -> dict[str, object]:
    plain = asdict(cell)
    plain["ratios"] = [rounded(one) for one in cell.ratios]
    for name in ("cpu_us", "ratio_nginx", "vs_parapet", "kb_per_stream"):
        value: Spread | None = getattr(cell, name)
        plain[name] = value and {"median": rounded(value.median), "iqr": rounded(value.iqr)}
    for name in ("added_ms", "added_gap_ms"):
        times: Percentiles | None = getattr(cell, name)
        plain[name] = times and {key: rounded(one) for key, one in times.items()}
    for name in ("control_us", "back_percent", "rss_mb"):
        plain[name] = rounded(getattr(cell, name))
    return plain


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
