"""What this node says of itself, to probes and to operators."""

from collections.abc import Callable
from dataclasses import dataclass

from proxy.app.cluster import Cluster, warnings_of
from proxy.app.version import VERSION
from proxy.control.readiness import ConfigState, NodeStatus, Readiness, SpoolState, WorkersView
from proxy.model.ports import Clock
from proxy.settings.overlay import InForce
from proxy.storage.choose import Engine
from proxy.workers.spooler import Spooler


@dataclass(frozen=True, slots=True)
class RulesSeen:
    """The rules in force: what became of the file, their version (0: none yet), what they hide."""

    file: ConfigState
    version: int
    in_force: InForce


class NodeReport:
    """`readiness.StatusSource`.  `lag_s`: how late the loop runs; `is_draining`: it stops."""

    def __init__(
        self,
        node_id: str,
        clock: Clock,
        store: Engine,
        workers: WorkersView,
        spooler: Spooler,
        cluster: Cluster,
        rules: Callable[[], RulesSeen],
    ) -> None:
        self._node_id = node_id
        self._clock = clock
        self._store = store
        self._workers = workers
        self._spooler = spooler
        self._cluster = cluster
        self._rules = rules
        self._started_at = clock.monotonic()
        self.lag_s = 0.0
        self.is_draining = False

    def __repr__(self) -> str:
        return f"<NodeReport of {self._node_id}>"

    def status(self) -> NodeStatus:
        spool, seen = self._spooler.progress(), self._rules()
        nodes = self._cluster.nodes()
        return NodeStatus(
            node_id=self._node_id,
            version=VERSION,
            uptime_seconds=self._clock.monotonic() - self._started_at,
            config=seen.file,
            config_version=seen.version,
            workers=list(self._workers.states()),
            spool=SpoolState(spool.waiting_bytes, spool.lag_s),
            store=self._store.engine,
            redis=self._store.link(),
            processes=list(self._workers.processes()),
            shadowed=list(seen.in_force.shadowed),
            refused=list(seen.in_force.refused),
            nodes=nodes,
            warnings=warnings_of(nodes),
        )

    def readiness(self) -> Readiness:
        states = self._workers.states()
        writable, link = self._store.writable(), self._store.link()
        away = link is not None and not writable and self._store.trouble is None
        return Readiness(
            config=self._rules().version > 0,
            storage=writable or away,  # without Redis this node goes on serving callers
            workers=bool(states) and all(s.connected and s.config_version for s in states),
            draining=self.is_draining,
            degraded=["redis"] if away else [],
        )

    def draining(self) -> bool:
        return self.is_draining

    def loop_lag_s(self) -> float:
        return self.lag_s
