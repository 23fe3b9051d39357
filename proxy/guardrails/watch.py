"""Rules that only watch a stream: shadow, log and flag.

In charge of counting what they would hit, without holding a character back: the text is kept aside
and searched in pieces, so a delta costs what it costs to note it.  Pieces are counted in characters
of the lane, never of the chunks, so the record is the same however the text was chopped; only a
match longer than OVERLAP that lies across two pieces may be counted short.
"""

from typing import Final

from proxy.guardrails.findings import MAX_RESULTS, Findings
from proxy.guardrails.matching import Breaks, RuleSet
from proxy.guardrails.program import Program
from proxy.guardrails.redact import without_exempted
from proxy.guardrails.scoring import Score
from proxy.guardrails.stream import Lane
from proxy.guardrails.surrogates import UNPAIRED, mended
from proxy.guardrails.view import View
from proxy.model.exchange import Part
from proxy.model.policy import PolicyResult

PIECE: Final = 8_192
OVERLAP: Final = 512
CONTEXT: Final = 80  # characters before a piece: for boundaries and for context words


class Watch:
    """One growing text, and the rules that look at it."""

    __slots__ = (
        "_begin", "_draw", "_findings", "_next", "_part", "_rules", "_score", "_text", "_unseen",
        "_unseen_chars", "noted_chars",
    )  # fmt: skip

    def __init__(self, rules: RuleSet, part: Part, draw: float) -> None:
        self._rules = rules
        self._draw = draw
        self._part: Part = part
        self._findings = Findings("response")
        self._score = Score(lane=True)
        self._unseen: list[str] = []
        self._unseen_chars = 0
        self._text = ""  # what is still to be searched, behind its left context
        self._begin = 0  # characters of context
        self._next = 0  # where the search goes on, in the lane
        self.noted_chars = 0

    def note(self, text: str) -> None:
        self._unseen.append(text)
        self._unseen_chars += len(text)
        if self._unseen_chars >= PIECE:
            self._gather("")
            while len(self._text) - self._begin >= PIECE:
                self._search(self._begin + PIECE, self._begin + PIECE - OVERLAP)

    def finish(self) -> None:
        self._gather(UNPAIRED)
        while len(self._text) - self._begin >= PIECE:
            self._search(self._begin + PIECE, self._begin + PIECE - OVERLAP)
        self._search(len(self._text), len(self._text))

    def forget(self, count: int) -> None:
        """The last so many characters did not come after all; those that were searched stay."""
        text = "".join(self._unseen)
        self._unseen = [text[: max(0, len(text) - count)]]
        self._unseen_chars = len(self._unseen[0])

    def results(self) -> list[PolicyResult]:
        return self._findings.results()

    def _gather(self, instead_of_half: str) -> None:
        """Join what was noted; half a surrogate pair at the end waits, or is replaced."""
        text, waiting = mended("".join(self._unseen))
        if waiting and instead_of_half:
            text, waiting = text + instead_of_half, ""
        self._unseen = [waiting] if waiting else []
        self._unseen_chars = 0
        self.noted_chars += len(text)
        self._text += text

    def _search(self, end: int, stop: int) -> None:
        """Count the hits that begin before `stop`; text up to `end` is known to them."""
        view = View(self._text[:end])
        mask = self._rules.drawn(self._rules.candidates(view), self._draw)
        after = stop
        if mask:
            breaks: Breaks = []
            hits = self._rules.find(view, mask, self._begin, stop, breaks)
            after = max([stop, *(hit.last for hit in hits)])
            self._findings.broken([found for found in breaks if not found[0].exempts], self._part)
            hits = without_exempted(hits)
            if self._rules.counted:
                self._score.count(hits)
            for hit in hits:
                self._findings.hit(hit, self._part, self._next - self._begin)
        self._next += after - self._begin
        kept = max(after - CONTEXT, 0)
        self._text, self._begin = self._text[kept:], after - kept


class WatchedLane(Lane):
    """A lane with watching rules beside it; `enforcing` False: there is nothing but those."""

    __slots__ = ("_enforcing", "_watch")

    def __init__(
        self, program: Program, watch: RuleSet, part: Part, draw: float, *, enforcing: bool
    ) -> None:
        super().__init__(program, part)
        self._enforcing = enforcing
        self._watch = Watch(watch, part, draw)

    @property
    def scanned_chars(self) -> int:
        return super().scanned_chars if self._enforcing else self._watch.noted_chars

    def feed(self, text: str) -> str:
        if self.blocked is None:
            self._watch.note(text)
        return Lane.feed(self, text) if self._enforcing else text

    def finish(self) -> str:
        self._watch.finish()
        return Lane.finish(self) if self._enforcing else ""

    def rewind(self, back: int = 0) -> None:
        self._watch.forget(len(self.held_text) + back)
        Lane.rewind(self, back)

    def results(self) -> list[PolicyResult]:
        return (Lane.results(self) + self._watch.results())[:MAX_RESULTS]
