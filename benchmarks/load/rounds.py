"""What one subject did in one round of one workload, and when that round does not count."""

from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_STEAL = 0.01
MAX_SLIP_MS = 1.0
CROWDED = 0.15  # share of the core used by strangers, above which the cell says so

Percentiles = dict[str, float]


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of held streams."""

    points: tuple[tuple[int, int], ...]  # (streams open, bytes resident)
    after_bytes: int  # once all are closed
    descriptors: int


@dataclass(slots=True)
class Round:
    """One or two passes, added up."""

    units: int = 0
    seconds: float = 0
    cpu_ns: int = 0
    side_ns: int = 0
    agree: bool = True
    errors: int = 0
    faults: list[str] = field(default_factory=list)
    slip_ms: float = 0
    steal: float = 0
    strangers: float = 0
    rss_bytes: int = 0
    connections: int = 0
    latency: Percentiles | None = None
    first: Percentiles | None = None
    gap: Percentiles | None = None
    stalls: int = 0
    at_40_ms: int = 0
    memory: Memory | None = None

    @property
    def discarded(self) -> str:
        """Why this round does not count; empty: it does."""
        if self.errors:
            return f"{self.errors} errors ({self.faults[0] if self.faults else '?'})"
        if not self.units:
            return "nothing done"
        if self.steal > MAX_STEAL:
            return f"steal {self.steal:.1%}"
        if self.slip_ms > MAX_SLIP_MS:
            return f"slip {self.slip_ms:.1f} ms"
        return ""

    @property
    def cpu_us(self) -> float:
        return self.cpu_ns / 1e3 / self.units if self.units else 0.0

    @property
    def side_us(self) -> float:
        return self.side_ns / 1e3 / self.units if self.units else 0.0


def together(passes: Iterable[Round]) -> Round:
    """All passes of one round as one: sums, and the worst of what went wrong."""
    whole = Round()
    for one in passes:
        whole.units += one.units
        whole.seconds += one.seconds
        whole.cpu_ns += one.cpu_ns
        whole.side_ns += one.side_ns
        whole.errors += one.errors
        whole.faults += one.faults
        whole.stalls += one.stalls
        whole.at_40_ms += one.at_40_ms
        whole.agree = whole.agree and one.agree
        whole.slip_ms = max(whole.slip_ms, one.slip_ms)
        whole.steal = max(whole.steal, one.steal)
        whole.strangers = max(whole.strangers, one.strangers)
        whole.rss_bytes = max(whole.rss_bytes, one.rss_bytes)
        whole.connections = one.connections
        whole.latency = one.latency or whole.latency
        whole.first = one.first or whole.first
        whole.gap = one.gap or whole.gap
        whole.memory = one.memory or whole.memory
    return whole


def order(names: list[str], number: int, passes: int) -> list[str]:
    """ABBA: out and back within a round, or one way now and the other way in the next."""
    way = names if number % 2 == 0 else names[::-1]
    return way + way[::-1] if passes == 2 else way
