"""The gate of checks outside, as the backlog before it sees it."""

from collections.abc import Callable
from functools import partial

from proxy.gateway.backlog import Then
from proxy.gateway.gate import Gate
from proxy.gateway.heard import Mark
from proxy.guardrails.engine import Judgement
from proxy.model.ports import TransportFault


class Threshold:
    """A `Station`.  `alive` is told when texts have come, `failed` when the body was cut."""

    __slots__ = ("_alive", "_failed", "_gate")

    def __init__(
        self, gate: Gate, alive: Callable[[], None], failed: Callable[[TransportFault], None]
    ) -> None:
        self._gate = gate
        self._alive = alive
        self._failed = failed

    def __repr__(self) -> str:
        return f"<Threshold {self._gate!r}>"

    @property
    def over(self) -> bool:
        return self._gate.over

    @property
    def holds(self) -> bool:
        return False  # what has passed the gate waits before the pump

    @property
    def pending(self) -> int:
        return self._gate.ear.pending

    @property
    def is_long(self) -> bool:
        return False

    @property
    def ends_long(self) -> bool:
        return False

    def look(self, piece: bytes | None) -> Then:
        if piece is None:
            return self._gate.end
        before = self._gate.ear.chars
        return partial(self._heard, piece, self._gate.hear(piece), before)

    def _heard(self, piece: bytes, marks: list[Mark], before: int) -> None:
        gate = self._gate
        gate.take(piece, marks)
        if gate.ear.chars != before:
            self._alive()

    def settle(self, step: TransportFault | Judgement) -> None:
        if isinstance(step, TransportFault):
            self._failed(step)

    def give_up(self) -> None:
        """What is heard ends soon by itself."""
