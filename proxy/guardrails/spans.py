"""A lane whose text is told from outside what must be taken out of it, before the rules see it."""

from bisect import insort

from proxy.guardrails.program import Program
from proxy.guardrails.stream import Lane
from proxy.model.exchange import Part
from proxy.model.policy import PolicyResult


class SpanLane(Lane):
    """`around` says which lane of the route's own rules it stands around, if any.

    `cut` says what of the text is replaced, in characters of the text as it comes; what is fed must
    have been said before."""

    __slots__ = ("_at", "_cuts", "_fed", "_inner")

    def __init__(self, idle: Program, part: Part) -> None:
        super().__init__(idle, part)
        self._inner: Lane | None = None
        self._cuts: list[tuple[int, int, str]] = []
        self._fed = 0  # characters that came
        self._at = 0  # what stands before has left, or has been replaced

    @property
    def held(self) -> int:
        return self._inner.held if self._inner is not None else 0

    @property
    def scanned_chars(self) -> int:
        return self._inner.scanned_chars if self._inner is not None else 0

    def results(self) -> list[PolicyResult]:
        return self._inner.results() if self._inner is not None else []

    def around(self, inner: Lane | None) -> None:
        """The lane that gets what is left; None where no rule looks."""
        self._inner = inner

    def cut(self, start: int, end: int, words: str) -> None:
        """Replace these characters by `words`; a span that begins in another one only widens it."""
        insort(self._cuts, (start, end, words))

    def feed(self, text: str) -> str:
        left = self._left_of(text)
        inner = self._inner
        if inner is None:
            return left
        return self._mirrored(inner, inner.feed(left))

    def finish(self) -> str:
        inner = self._inner
        return "" if inner is None else self._mirrored(inner, inner.finish())

    def _mirrored(self, inner: Lane, text: str) -> str:
        self.blocked, self.message, self.overflows = inner.blocked, inner.message, inner.overflows
        return text

    def _left_of(self, text: str) -> str:
        base, end = self._fed, self._fed + len(text)
        self._fed = end
        if not self._cuts and self._at <= base:
            self._at = end
            return text
        out: list[str] = []
        while self._cuts and self._cuts[0][0] < end:
            start, stop, words = self._cuts.pop(0)
            if start >= self._at:
                out += (text[max(self._at - base, 0) : start - base], words)
            self._at = max(self._at, stop)
        if self._at < end:
            out.append(text[max(self._at - base, 0) :])
            self._at = end
        return "".join(out)
