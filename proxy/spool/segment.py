"""Names and positions of the spool's files.

`state_dir/spool/<slot>/<class>-<n>.log` holds lines; a *lane* is (slot, class), written by one
process and read by one.  `state_dir/spool/<slot>/<class>.position` says up to where a lane is
committed.  `state_dir/spool/id` names this spool, so that cursors kept in a store that outlives it,
or that other machines share, are not taken for its own.

A position is one integer that only grows: `n * 2**40 + offset` of segment n.  Numbers of segments
are never given twice in a spool: a new one is above all files and above the position.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Lane = Literal["plain", "critical", "api"]
LANES: tuple[Lane, ...] = ("plain", "critical", "api")
SEGMENT_BYTES = 16 << 20
OFFSET_BITS = 40
_NAME = re.compile(r"(plain|critical|api)-([0-9]{8})\.log")
_SLOT = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(slots=True, frozen=True, order=True)
class Segment:
    """One file of lines."""

    number: int
    path: Path


def position_of(number: int, offset: int) -> int:
    return number << OFFSET_BITS | offset


def place_of(position: int) -> tuple[int, int]:
    """(segment number, offset)"""
    return position >> OFFSET_BITS, position & (1 << OFFSET_BITS) - 1


def spool_dir(state_dir: Path) -> Path:
    return state_dir / "spool"


def segment_path(slot_dir: Path, lane: Lane, number: int) -> Path:
    return slot_dir / f"{lane}-{number:08d}.log"


def slots(spool: Path) -> list[str]:
    """Every slot that has ever been written."""
    try:
        with os.scandir(spool) as found:
            return sorted(e.name for e in found if _SLOT.fullmatch(e.name) and e.is_dir())
    except FileNotFoundError:
        return []


def segments(slot_dir: Path) -> dict[Lane, list[Segment]]:
    """The files of a slot, oldest first."""
    lanes: dict[Lane, list[Segment]] = {lane: [] for lane in LANES}
    try:
        names = os.listdir(slot_dir)
    except FileNotFoundError:
        return lanes
    for name in names:
        match = _NAME.fullmatch(name)
        if match:
            lane: Lane = match[1]  # type: ignore[assignment]  # the pattern's alternatives
            lanes[lane].append(Segment(int(match[2]), slot_dir / name))
    for found in lanes.values():
        found.sort()
    return lanes


def position_path(slot_dir: Path, lane: Lane) -> Path:
    return slot_dir / f"{lane}.position"


def read_position(slot_dir: Path, lane: Lane) -> int:
    """0 when there is none, or when it cannot be read: the cursors in the store decide then."""
    try:
        text = position_path(slot_dir, lane).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def write_position(slot_dir: Path, lane: Lane, position: int) -> None:
    """Whole or not at all.  An old one does no harm, so nothing is synced."""
    path = position_path(slot_dir, lane)
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{position}\n", "ascii")
    fresh.replace(path)
