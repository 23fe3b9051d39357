"""What changes about endpoints, as lines of the spool: written by the control process alone, so
that a node says each change once, whichever of its workers saw it first."""

from pathlib import Path
from typing import Final

from proxy.gateway.changes import change_of
from proxy.model.observations import Observation
from proxy.model.ports import Ids
from proxy.routing.effects import Effect, Switched
from proxy.routing.standing import Standing
from proxy.spool.record import change_line
from proxy.spool.writer import SpoolWriter
from proxy.telemetry.exposition import Registry

SLOT: Final = "control"


class Telling:
    """`tell` is given every change once, in order; decisions are counted."""

    def __init__(self, state_dir: Path, ids: Ids, metrics: Registry) -> None:
        self._metrics = metrics
        self._ids = ids
        self._spool = SpoolWriter(state_dir, SLOT, _unseen)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Telling {self._spool.lines} lines>"

    @property
    def lines(self) -> int:
        """How many were written."""
        return self._spool.lines

    def tell(self, standing: Standing, effect: Effect, at_ms: int) -> None:
        """`at_ms`: when it happened, since 1970."""
        if not self._closed:
            kind, payload = change_of(standing, effect, at_ms)
            line = change_line(
                standing.workspace_id, self._ids.new("evt-"), at_ms, kind,
                standing.policy.route_id, payload,
            )  # fmt: skip
            self._spool.append(line, critical=True)
        if isinstance(effect, Switched):
            code = effect.reason.code if effect.after is not None else "exhausted"
            key = (standing.workspace_id, standing.policy.effective_id, code, "endpoint")
            self._metrics.count("failover_decisions", key)

    def close(self) -> None:
        """Blocks for the time of a sync."""
        self._closed = True
        self._spool.close()


def _unseen(what: Observation) -> None:
    """Lost lines are counted by the writer."""
