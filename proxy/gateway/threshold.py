"""The gate of checks outside, as the backlog before it sees it."""

from collections.abc import Callable

from proxy.gateway.backlog import Then
from proxy.gateway.gate import Gate
from proxy.gateway.heard import Mark
from proxy.guardrails.engine import Judgement
from proxy.model.ports import TransportFault

Kept = tuple[bytes, list[Mark], int]


class Threshold:
    """A `Station`.  `alive` is told when texts have come, `failed` when the body was cut.

    A piece is let in when all of it was heard, never before."""

    __slots__ = ("_alive", "_failed", "_gate", "_kept")

    def __init__(
        self, gate: Gate, alive: Callable[[], None], failed: Callable[[TransportFault], None]
    ) -> None:
        self._gate = gate
        self._alive = alive
        self._failed = failed
        self._kept: Kept | None = None  # a piece of which only the beginning was heard
        gate.ear.defers = True

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
        return self._kept is not None

    @property
    def ends_long(self) -> bool:
        return False

    def look(self, piece: bytes | None) -> Then:
        if piece is None:
            return self._gate.end
        if self._kept is None:
            self._hear(piece)
        else:
            kept, marks, before = self._kept
            self._kept = kept, marks + self._gate.ear.go_on(), before
        return self._let_in

    def feed(self, piece: bytes) -> bool:
        """Let a piece in at once.  False: it must be gone on with."""
        self._hear(piece)
        self._let_in()
        return self._kept is None

    def _hear(self, piece: bytes) -> None:
        before = self._gate.ear.chars
        self._kept = piece, self._gate.hear(piece), before

    def _let_in(self) -> None:
        if self._kept is None or self._gate.ear.waits:
            return
        (piece, marks, before), self._kept = self._kept, None
        self._heard(piece, marks, before)

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
