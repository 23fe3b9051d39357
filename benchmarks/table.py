"""One table: a row per subject, a group of columns per workload, ratios side by side.

Pure: findings in, text out.
"""

from collections.abc import Callable, Sequence

from benchmarks.load.workloads import Workload
from benchmarks.results import DIRECT, FLOOR, OURS, Cell, Findings, Gate

NOTHING = "-"
Figure = Callable[[Cell], str]


def render(found: Findings, workloads: Sequence[Workload]) -> str:
    """The table, what it leaves open, the gates."""
    shown = [workload for workload in workloads if not workload.of]
    lines = [*grid(found, shown), ""]
    lines += [f"{workload.id}: {workload.says}" for workload in shown]
    if any(not (cell.valid and cell.latency_valid) for cell in found.cells):
        lines.append("!: every round was discarded, see the notes; the figure is of all of them")
    if found.differences:
        lines += ["", "what parts of Parapet cost on N1:"]
        lines += [f"  {line}" for line in found.differences]
    remarks = [
        f"  {cell.workload} {cell.subject}: {'' if cell.valid else 'DOES NOT COUNT; '}{cell.note}"
        for cell in found.cells
        if cell.note
    ]
    if remarks:
        lines += ["", "notes:", *remarks]
    lines += [f"  {note}" for note in found.notes]
    if found.gates:
        lines += ["", "gates:", *(gate_line(gate) for gate in found.gates)]
    if found.regressions:
        lines += ["", "dearer than the last result kept:"]
        lines += [f"  {line}" for line in found.regressions]
    return "\n".join(lines)


def grid(found: Findings, workloads: Sequence[Workload]) -> list[str]:
    heads, figures = [""], []
    for workload in workloads:
        for head, figure in columns(workload):
            heads.append(head)
            figures.append((workload.id, figure))
    heads.append("guardrails")
    rows: list[list[str]] = []
    last: dict[int, str] = {}
    for subject in found.subjects:
        if subject.variant or subject.name == DIRECT:
            continue
        row = [f"{subject.name} {subject.version}".rstrip()]
        if subject.name in found.absent:
            last[len(rows)] = found.absent[subject.name]
            rows.append(row)
            continue
        for workload_id, figure in figures:
            cell = found.cell(workload_id, subject.name)
            row.append(figure(cell) if cell else NOTHING)
        row.append(subject.guards)
        rows.append(row)
    full = [row for index, row in enumerate(rows) if index not in last]
    widths = [max(len(row[at]) for row in [heads, *full]) for at in range(len(heads))]
    widths[0] = max(len(row[0]) for row in [heads, *rows])
    lines = [aligned(heads, widths)]
    for index, row in enumerate(rows):
        if index in last:
            lines.append(f"{row[0]:<{widths[0]}}  not here: {last[index]}")
        else:
            lines.append(aligned(row, widths))
    return lines


def aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, figures to the right, words at the end to the left."""
    cells = [f"{row[0]:<{widths[0]}}"]
    cells += [f"{text:>{width}}" for text, width in zip(row[1:-1], widths[1:-1], strict=True)]
    return "  ".join([*cells, row[-1]]).rstrip()


def columns(workload: Workload) -> list[tuple[str, Figure]]:
    if workload.kind == "hold":
        return [(f"{workload.id} KB/stream", memory)]
    group: list[tuple[str, Figure]] = [
        (f"{workload.id} µs/{workload.unit}", cost),
        ("xN", times_nginx),
    ]
    if workload.id == "N1":
        group += [("vs Parapet", times_ours), ("control µs", control), ("added p99", added)]
    if workload.kind == "streams":
        group += [("added TTFT p99", added), ("added gap p99", added_gap)]
    return group


def cost(cell: Cell) -> str:
    if cell.errors and not cell.valid:
        return "failed"
    if cell.cpu_us is None:
        return "n/a"
    mark = "" if cell.valid else "!"
    value = cell.cpu_us.median
    return f"{value:,.1f}{mark}" if value < 1000 else f"{value:,.0f}{mark}"


def times_nginx(cell: Cell) -> str:
    if cell.ratio_nginx is None or (cell.errors and not cell.valid):
        return NOTHING
    if cell.subject == FLOOR:
        return "1.0x"
    return f"{cell.ratio_nginx.median:.1f}x±{cell.ratio_nginx.iqr / 2:.1f}"


def times_ours(cell: Cell) -> str:
    if cell.vs_parapet is None:
        return NOTHING
    return "1" if cell.subject == OURS else f"{cell.vs_parapet.median:.2f}x"


def control(cell: Cell) -> str:
    return f"{cell.control_us:.1f}" if cell.control_us else NOTHING


def added(cell: Cell) -> str:
    return f"{cell.added_ms['p99']:.2f} ms{doubt(cell)}" if cell.added_ms else NOTHING


def added_gap(cell: Cell) -> str:
    return f"{cell.added_gap_ms['p99']:.2f} ms{doubt(cell)}" if cell.added_gap_ms else NOTHING


def doubt(cell: Cell) -> str:
    return "" if cell.latency_valid else "!"


def memory(cell: Cell) -> str:
    if cell.kb_per_stream is None:
        return "failed" if cell.errors else "n/a"
    return f"{cell.kb_per_stream.median:.1f}" + ("" if cell.valid else "!")


def gate_line(gate: Gate) -> str:
    value = "not measured" if gate.value is None else f"{gate.value:.2f} {gate.unit}"
    bar = "no bar yet" if gate.limit is None else f"bar {gate.limit:g}"
    verdict = "ok" if gate.passed else "MISSED"
    if gate.limit is None:
        verdict = "-"
    reached = gate.value is not None and gate.value <= gate.goal
    goal = f"goal {gate.goal:g} {'reached' if reached else 'not yet'}"
    return f"  {verdict:<6}  {gate.id:<8} {gate.what:<32} {value:>13}   {bar:<11} {goal}"
