"""What the process tells of itself: the port behind /healthz, /readyz and /v1/status."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proxy.model.coord import NodeBeat
from proxy.model.exchange import Json


@dataclass(slots=True)
class ConfigState:
    """The configuration file: what is in force (`sha256`), and what is wrong with the newest."""

    sha256: str
    valid: bool = True
    error: str | None = None
    loaded_at_ms: int = 0
    warnings: list[str] = field(default_factory=list)
    restart_required: list[str] = field(default_factory=list)


@dataclass(slots=True)
class SpoolState:
    bytes: int = 0
    lag_seconds: float = 0.0


@dataclass(slots=True)
class WorkerState:
    """One data worker: `config_version` 0 until it has acknowledged a snapshot."""

    slot: int
    config_version: int = 0
    connected: bool = True
    restarts: int = 0
    rejected: str | None = None


@dataclass(slots=True, frozen=True)
class ProcessState:
    """One process of this node: `role` is `control` or `worker`."""

    role: str
    slot: int
    pid: int


@dataclass(slots=True)
class NodeStatus:
    """Everything of /v1/status.  `redis` is None when the store is not Redis.  `shadowed` are
    documents that the file hides, `refused` those that are left out, with the reason.  `nodes` are
    those that are alive, this one included; `warnings`: what is wrong between them."""

    node_id: str
    version: str
    uptime_seconds: float
    config: ConfigState
    config_version: int = 0
    workers: list[WorkerState] = field(default_factory=list)
    leader: bool = True
    redis: dict[str, Json] | None = None
    spool: SpoolState = field(default_factory=SpoolState)
    shadowed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    store: str = "sqlite"
    processes: list[ProcessState] = field(default_factory=list)
    nodes: list[NodeBeat] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Readiness:
    """Every part must be well for 200, except that `degraded` is said and still 200."""

    config: bool
    storage: bool
    workers: bool
    draining: bool = False
    degraded: list[Literal["redis"]] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        return self.config and self.storage and self.workers and not self.draining


class WorkersView(Protocol):
    """What the control half knows of the data workers, whichever way they are attached."""

    def states(self) -> Sequence[WorkerState]: ...
    def processes(self) -> Sequence[ProcessState]: ...


class StatusSource(Protocol):
    """Filled by `app.py` from what it owns; every call is cheap and never waits."""

    def status(self) -> NodeStatus: ...
    def readiness(self) -> Readiness: ...
    def draining(self) -> bool: ...
    def loop_lag_s(self) -> float:
        """How late the event loop ran last."""
        ...
