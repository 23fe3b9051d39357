"""The state of one lane of the stream guard; `stream.py` says what becomes of its text."""

from typing import Literal

from proxy.guardrails.automaton import Row
from proxy.guardrails.findings import Findings
from proxy.guardrails.program import Program
from proxy.guardrails.rules import LiveRule
from proxy.guardrails.scoring import Score
from proxy.model.exchange import Part
from proxy.model.policy import PolicyResult


class LaneState:
    """What has left of a text, what is held of it, and what was found."""

    __slots__ = (
        "_auto", "_carry", "_committed", "_done", "_findings", "_folds", "_grid", "_held",
        "_kept", "_limits", "_mode", "_open", "_out", "_part", "_pending", "_plain", "_pos", "_row",
        "_rules", "_score", "_sync", "_tail", "blocked", "message", "overflows",
    )  # fmt: skip

    def __init__(self, program: Program, part: Part) -> None:
        self._rules = program.rules
        self._auto, self._limits = program.automaton, program.limits
        self._grid = program.limits.grid
        self._folds = bool(program.rules.foldings)
        self._part: Part = part
        self._findings = Findings("response")
        self._score = Score(lane=True) if program.rules.counted else None
        self._row: Row = self._auto.empty
        self._plain = True  # nothing is open but the hold, and no rule has ended in it
        self._held = ""  # from the last sync point on
        self._tail = ""  # what was released last, as it came: left context
        self._kept = program.rules.left_chars
        self._pos = self._sync = self._pending = 0
        self._done = self._open = 0  # rules that may have ended before, after the sync point
        self._committed: LiveRule | None = None  # its replacement left for the match on hold
        self._mode: Literal["hold", "swallow", "pass"] = "hold"  # after an overflow: up to a sync
        self._carry = ""  # a high surrogate that waits for its other half
        self._out: list[str] = []
        self.blocked: PolicyResult | None = None
        self.message = ""
        self.overflows: list[tuple[str, str]] = []

    @property
    def held(self) -> int:
        return len(self._held) + len(self._carry)

    @property
    def scanned_chars(self) -> int:
        return self._pos

    def results(self) -> list[PolicyResult]:
        return self._findings.results()

    # --- a text that another answer goes on with

    @property
    def held_text(self) -> str:
        """What has not left, as it came."""
        return self._held + self._carry

    def rewind(self, back: int = 0) -> None:
        """Forget what is held: the text goes on from what has left, less `back` characters of it.
        Where the hold begins no match is open, so nothing else has to be known."""
        if back:
            self._tail = self._tail[:-back]
        self._pos = self._sync = self._pos - len(self._held) - back
        self._held = self._carry = ""
        self._row, self._plain = self._auto.empty, self.blocked is None
        self._done = self._open = self._pending = 0
        self._committed = None
        self._mode = "hold"
        self._out.clear()

    def as_judged(self, left: str) -> str | None:
        """What the rules had let out where `left` has left.  None: it cannot be told."""
        return left
