"""The verdicts of a run: as a table for people, as a document for programs."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.chaos.rows import LEVELS, Result

_SHORT_CHARS = 110
WAITS = {
    "P10": "no request is translated from one dialect to another in this version",
    "P10-cut": "no request is translated from one dialect to another in this version",
}
"""Rows that cannot be met yet, and why: until then the caller must have a clean error."""


def line(result: Result) -> str:
    """One row of the table; everything that fell short beneath it."""
    level = result.level + "*" * (result.tries - 1)
    head = f"{result.row:<17}{result.dialect:<10}{level:<9}{result.attempts:>11}"
    first, *more = result.short or ("",)
    lines = [f"{head}{result.took_s:>8.1f} s  {first[:_SHORT_CHARS]}".rstrip()]
    return "\n".join([*lines, *(" " * 58 + each[:_SHORT_CHARS] for each in more)])


def summary(results: Sequence[Result]) -> str:
    counts = Counter(result.level for result in results)
    told = ", ".join(f"{counts[level]} {level}" for level in LEVELS if counts[level])
    again = sum(result.tries > 1 for result in results)
    text = f"{len(results)} rows: {told}" + (f"; {again} of them played again (*)" if again else "")
    waiting = sorted({each.row for each in results if each.row in WAITS})
    return "\n".join([text, *(f"{row} waits: {WAITS[row]}" for row in waiting)])


def table(results: Sequence[Result]) -> str:
    head = f"{'id':<17}{'dialect':<10}{'verdict':<9}{'attempts':>11}{'time':>10}  what fell short"
    return "\n".join([head, "-" * len(head), *map(line, results), "", summary(results)])


def document(results: Sequence[Result], profile: str) -> dict[str, object]:
    """The run for programs."""
    rows = [{"id": each.id, **asdict(each)} for each in results]
    return {"profile": profile, "summary": dict(Counter(r.level for r in results)), "rows": rows}


def write(results: Sequence[Result], profile: str, file: Path) -> None:
    file.write_text(json.dumps(document(results, profile), indent=2) + "\n")


def passed(results: Sequence[Result]) -> bool:
    return all(result.level == due(result) for result in results)


def due(result: Result) -> str:
    """The verdict that a row must have today."""
    return "safe" if result.row in WAITS else "pass"
