"""The workloads: what is asked, what is answered, how much of it makes one measurement."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.load.texts import Dialect

Kind = Literal["closed", "open", "streams", "hold"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One group of columns.  A pass is one measurement of one subject."""

    id: str
    kind: Kind
    says: str
    unit: str = "req"
    dialect: Dialect = "openai-chat"
    body_bytes: int = 1024
    answer_bytes: int = 1024
    connections: int = 32
    requests: int = 10_000  # per pass; two passes a round, out and back
    rate: float = 1000
    streams: int = 100
    events: int = 200
    event_bytes: int = 200
    gap_ms: float = 0
    steps: tuple[int, ...] = ()
    max_rounds: int = 99
    max_seconds: float = 2  # after which a pass of a closed loop asks no more
    of: str = ""  # the workload whose cell takes the latency of this one
    variants: bool = False  # the subjects that only serve to tell a difference run here too
    against_direct: bool = False

    @property
    def plan(self) -> dict[str, object]:
        """How the mock must answer."""
        if self.kind in ("closed", "open"):
            return {"kind": "unary", "answer_bytes": self.answer_bytes}
        return {
            "kind": "stream",
            "events": self.events,
            "event_bytes": self.event_bytes,
            "gap_ms": self.gap_ms,
        }

    @property
    def passes(self) -> int:
        """Passes per subject and round: closed loops go out and back, the others alternate."""
        return 2 if self.kind == "closed" else 1


def paced(streams: int, per_second: int = 50) -> Workload:
    name = "S-paced" if (streams, per_second) == (100, 50) else f"S-paced-{streams}"
    return Workload(
        name,
        "streams",
        f"{streams} streams, 200 events of 200 B at {per_second}/s",
        unit="ev",
        streams=streams,
        gap_ms=1000 / per_second,
        against_direct=True,
    )


def held(streams: int) -> Workload:
    name = "S-open" if streams == 1000 else f"S-open-{streams}"
    return Workload(
        name,
        "hold",
        f"{streams} streams held, an event every 2 s",
        unit="stream",
        gap_ms=2000,
        steps=(streams // 4, streams // 2, streams),
        max_rounds=1,
    )


QUICK = (
    Workload("N1", "closed", "1 KB request, 1 KB answer, 32 connections", variants=True),
    Workload(
        "N1-open",
        "open",
        "N1 at 1,000/s, open loop",
        requests=1_500,
        connections=64,
        of="N1",
        against_direct=True,
    ),
    Workload("N16", "closed", "16 KB request, 1 KB answer", body_bytes=16_384, requests=5_000),
    paced(100),
    held(1000),
)
FULL = (
    *QUICK,
    Workload("N200", "closed", "200 KB request", body_bytes=204_800, requests=2_000),
    Workload("N1a", "closed", "N1 over Anthropic Messages", dialect="anthropic-messages"),
    Workload("R16", "closed", "16 KB answer", answer_bytes=16_384),
    Workload("R200", "closed", "200 KB answer", answer_bytes=204_800, requests=2_000),
    Workload(
        "S-full-100",
        "streams",
        "200 streams of 100 events, unpaced, one write each",
        unit="ev",
        streams=200,
        events=100,
    ),
    Workload(
        "S-full-500",
        "streams",
        "40 streams of 500 events, unpaced, one write each",
        unit="ev",
        streams=40,
        events=500,
    ),
    paced(10),
    paced(500),
    paced(1000),
    held(10_000),
)
SETS = {"quick": QUICK, "full": FULL}
BY_ID = {workload.id: workload for workload in FULL}
