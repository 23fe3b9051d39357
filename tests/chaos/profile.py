"""How long the faults last: as in the field (full), or shortened for the tests (fast)."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Profile:
    """Seconds of the faults, and the limits of the routes that bear them (failover.md §12)."""

    name: str
    crowded: bool = False  # so many rows at once that news among workers may be late
    start_every_s: float = 0.2
    silence_s: float = 120.0
    slow_start_s: float = 20.0
    stall_s: float = 30.0
    ping_every_s: float = 5.0
    outage_s: float = 60.0
    outage_requests: int = 20
    outage_every_s: float = 4.0
    first_content_s: float = 10.0
    idle_s: float = 15.0
    timeouts: dict[str, int] = field(default_factory=dict)
    kills_step: int = 1  # a stream is cut at every so manieth byte
    heal_s: float = 60.0
    load_s: float = 30.0
    load_rps: float = 150.0
    bursts: int = 20
    burst: int = 50
    burst_gap_s: float = 3.0
    idle_close_s: float = 2.0
    leavers: int = 200


FULL = Profile("full")
FAST = Profile(
    "fast",
    crowded=True,
    start_every_s=0.08,
    silence_s=15.0,
    slow_start_s=3.0,
    stall_s=4.0,
    ping_every_s=0.5,
    outage_s=6.0,
    outage_requests=10,
    outage_every_s=1.2,
    first_content_s=1.5,
    idle_s=2.0,
    timeouts={"first_content_ms": 1500, "idle_ms": 2000},
    kills_step=97,
    heal_s=6.0,
    load_s=6.0,
    load_rps=50.0,
    bursts=5,
    burst=20,
    burst_gap_s=1.0,
    idle_close_s=0.5,
    leavers=60,
)
