"""CPU time and memory of a process tree, as the kernel counts them.

CPU of record is field 1 of `/proc/<pid>/task/*/schedstat`: nanoseconds on a core, time in the
kernel included.  It forgets threads that ended, so it is held against utime + stime of
`/proc/<pid>/stat`, which counts in ticks; the larger one stands where they disagree.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MAY_DIFFER = 0.03


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks of a tree at one moment."""

    sched_ns: int
    ticks_ns: int
    processes: int

    def since(self, before: "Reading") -> tuple[int, bool]:
        """Nanoseconds used, and whether the clocks agree as far as ticks can tell."""
        sched = self.sched_ns - before.sched_ns
        ticks = self.ticks_ns - before.ticks_ns
        slack = 2 * TICK_NS * max(self.processes, 1)
        apart = abs(sched - ticks) > max(MAY_DIFFER * max(sched, ticks), slack)
        return (max(sched, ticks), False) if apart else (sched, True)


def parse_stat(line: str) -> tuple[int, int]:
    """Parent and ticks of one line of `/proc/<pid>/stat`; its second field may hold anything."""
    fields = line.rpartition(")")[2].split()
    return int(fields[1]), int(fields[11]) + int(fields[12])


def tree(root: int, proc: Path = PROC) -> list[int]:
    """`root` and everything it started, directly or not."""
    children: dict[int, list[int]] = {}
    for path in proc.iterdir():
        if path.name.isdigit():
            try:
                parent, _ = parse_stat((path / "stat").read_text())
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(path.name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def read(pids: Iterable[int], proc: Path = PROC) -> Reading:
    sched = ticks = count = 0
    for pid in pids:
        home = proc / str(pid)
        try:
            ticks += parse_stat((home / "stat").read_text())[1]
            for task in (home / "task").iterdir():
                sched += int((task / "schedstat").read_text().split()[0])
            count += 1
        except OSError:
            continue
    return Reading(sched, ticks * TICK_NS, count)


def rss_bytes(pids: Sequence[int], proc: Path = PROC) -> int:
    """Resident memory of all of them."""
    total = 0
    for pid in pids:
        try:
            rollup = (proc / str(pid) / "smaps_rollup").read_text()
            total += int(rollup.split("\nRss:")[1].split()[0]) * 1024
        except (OSError, IndexError):
            try:
                total += int((proc / str(pid) / "statm").read_text().split()[1]) * PAGE_BYTES
            except OSError:
                continue
    return total


def descriptors(pids: Sequence[int], proc: Path = PROC) -> int:
    count = 0
    for pid in pids:
        try:
            count += len(list((proc / str(pid) / "fd").iterdir()))
        except OSError:
            continue
    return count


@dataclass(frozen=True, slots=True)
class Core:
    """Ticks of one core: all, idle, and stolen by the machine underneath."""

    total: int
    idle: int
    steal: int

    def since(self, before: "Core") -> tuple[float, float]:
        """Share stolen and share busy, since `before`."""
        total = max(self.total - before.total, 1)
        return (self.steal - before.steal) / total, 1 - (self.idle - before.idle) / total


def core(number: int, proc: Path = PROC) -> Core:
    for line in (proc / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{number}":
            values = [int(tick) for tick in ticks[:8]]
            return Core(sum(values), values[3] + values[4], values[7])
    return Core(0, 0, 0)
