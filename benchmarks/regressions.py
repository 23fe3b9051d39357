"""Whether this run is dearer than the last one kept of the same class of machine.

Pure.  One figure that is worse proves nothing on a shared machine: a regression is a ratio to
nginx that is more than 5 % above the kept median in at least six of seven rounds.
"""

from collections.abc import Mapping, Sequence

from benchmarks.results import Cell

WORSE = 1.05
SHARE_OF_ROUNDS = 6 / 7


def regressions(found: Sequence[Cell], kept: Mapping[str, object]) -> list[str]:
    """One line for each cell of ours that got dearer than in the `kept` document."""
    before = medians(kept)
    said = []
    for cell in found:
        old = before.get((cell.workload, cell.subject))
        if old is None or not cell.ratios or not cell.subject.startswith("parapet"):
            continue
        worse = sum(ratio > old * WORSE for ratio in cell.ratios)
        if worse >= SHARE_OF_ROUNDS * len(cell.ratios):
            said.append(
                f"{cell.workload} {cell.subject}: above {old:.2f} N x {WORSE} in {worse} of "
                f"{len(cell.ratios)} rounds"
            )
    return said


def medians(kept: Mapping[str, object]) -> dict[tuple[str, str], float]:
    """The ratios to nginx of a kept document."""
    made: dict[tuple[str, str], float] = {}
    cells = kept.get("cells")
    for cell in cells if isinstance(cells, list) else []:
        ratio = cell.get("ratio_nginx")
        if cell.get("valid") and isinstance(ratio, dict):
            made[(cell["workload"], cell["subject"])] = float(ratio["median"])
    return made
