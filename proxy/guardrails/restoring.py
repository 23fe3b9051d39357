"""A lane with the restore stage behind it: the rules judge what the provider wrote, and only what
they let out is restored."""

from proxy.guardrails.placeholders import Restorer
from proxy.guardrails.program import Program
from proxy.guardrails.stream import Lane
from proxy.model.exchange import Part
from proxy.model.policy import PolicyResult


class RestoringLane(Lane):
    """`judging`: the lane before it, None where no rule looks.  `program`: one without rules."""

    __slots__ = ("_judging", "_restorer")

    def __init__(
        self, program: Program, part: Part, judging: Lane | None, restorer: Restorer
    ) -> None:
        super().__init__(program, part)
        self._judging = judging
        self._restorer = restorer
        if judging is not None:
            self.overflows = judging.overflows

    @property
    def held(self) -> int:
        return self._restorer.held + (self._judging.held if self._judging is not None else 0)

    @property
    def scanned_chars(self) -> int:
        return self._judging.scanned_chars if self._judging is not None else 0

    def results(self) -> list[PolicyResult]:
        return self._judging.results() if self._judging is not None else []

    def feed(self, text: str) -> str:
        judging = self._judging
        if judging is None:
            return self._restorer.feed(text)
        if self.blocked is not None:
            return ""
        text = self._restorer.feed(judging.feed(text))
        return text if judging.blocked is None else text + self._stopped(judging)

    def finish(self) -> str:
        judging = self._judging
        if judging is None:
            return self._restorer.finish()
        text = self._restorer.feed(judging.finish())
        return text + self._stopped(judging)

    @property
    def held_text(self) -> str:
        judging = self._judging
        return self._restorer.held_text + (judging.held_text if judging is not None else "")

    def rewind(self, back: int = 0) -> None:
        if self._judging is not None:
            self._judging.rewind(self._restorer.held + back)
        self._restorer.rewind()

    def as_judged(self, left: str) -> str | None:
        return self._restorer.as_judged(left)

    def _stopped(self, judging: Lane) -> str:
        """No more comes: what looked like the beginning of a placeholder is text."""
        self.blocked, self.message = judging.blocked, judging.message
        return self._restorer.finish()
