"""The texts of a stream as they come, before anything is judged: what checks outside are shown.

In charge of which text each event carries, and of the windows that are due of it.  It changes
nothing of the stream.  A text is followed like a lane; one that is complete stands alone.
"""

from collections.abc import Iterable, Sequence

from proxy.gateway.checks import Check
from proxy.gateway.intake import is_long
from proxy.gateway.waiting import LaneKey
from proxy.guardrails.surrogates import UNPAIRED, mended
from proxy.model.exchange import Delta, Leaf, Part, Seen, WireEvent
from proxy.wire.dialect import StreamReader
from proxy.wire.leaves import json_text_leaves
from proxy.wire.providers.adapter import Framer


class Window:
    """A stretch of a text that is asked about.  `own`: how many of its characters no later window
    begins with; a finding that begins behind them is told by the next one."""

    __slots__ = ("answered", "leaf", "own", "start")

    def __init__(self, start: int, own: int, leaf: Leaf) -> None:
        self.start = start
        self.own = own
        self.leaf = leaf
        self.answered = False


class Progress:
    """How far one check has come with one text.  `size` 0: it wants the whole."""

    __slots__ = ("check", "cleared", "overlap", "size", "start", "windows")

    def __init__(self, check: Check, *, whole: bool) -> None:
        windowed = check.rule.response_stage == "window" and not whole
        self.check = check
        self.size, self.overlap = check.rule.window if windowed else (0, 0)
        self.start = 0  # of the next window
        self.cleared = 0
        self.windows: list[Window] = []

    def settle(self) -> None:
        """Windows count in their order."""
        while self.windows and self.windows[0].answered:
            window = self.windows.pop(0)
            self.cleared = window.start + window.own


class Text:
    """One text.  `key` None: it stands alone.  Not `rewritable`: a rewrite in it is a block."""

    __slots__ = (
        "_base", "_pieces", "chars", "ended", "inner", "key", "part", "progress", "rewritable",
        "whole",
    )  # fmt: skip

    def __init__(
        self, part: Part, key: LaneKey | None, checks: Sequence[Check], *, rewritable: bool
    ) -> None:
        self.part: Part = part
        self.key = key
        self.rewritable = rewritable
        self.inner: tuple[str | int, ...] | None = None
        self.chars = 0
        self.ended = False
        self.whole: list[str] | None = None  # all of it, where somebody wants that at the end
        self._pieces: list[str] = []
        self._base = 0  # characters that nobody asks about any more
        covering = [c for c in checks if c.rule.reach.covers("response", part, "assistant", True)]
        self.progress = [Progress(check, whole=key is None) for check in covering]

    def add(self, text: str) -> None:
        self.chars += len(text)
        if self.progress:
            self._pieces.append(text)
        if self.whole is not None:
            self.whole.append(text)

    @property
    def cleared(self) -> int:
        """Characters that every check has let go."""
        return min((each.cleared for each in self.progress), default=self.chars)

    def due(self, progress: Progress) -> list[Window]:
        """Windows that are to be asked about now."""
        found: list[Window] = []
        size, overlap = progress.size, progress.overlap
        while size and self.chars - progress.start >= size:
            own = size - overlap
            found.append(Window(progress.start, own, self._leaf(progress.start, size)))
            progress.start += own
        if self.ended and progress.start < self.chars:
            rest = self.chars - progress.start
            found.append(Window(progress.start, rest, self._leaf(progress.start, rest)))
            progress.start = self.chars
        progress.windows += found
        self._forget()
        return found

    def _leaf(self, start: int, size: int) -> Leaf:
        text = self._joined()[start - self._base : start - self._base + size]
        rewritable = self.rewritable
        if not text.isascii():
            clean, waiting = mended(text)
            clean += UNPAIRED if waiting else ""
            rewritable = rewritable and len(clean) == len(text)  # else offsets would be others
            text = clean
        return Leaf(text, self.part, "assistant", (), self.inner, True, rewritable)

    def _joined(self) -> str:
        if len(self._pieces) != 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def _forget(self) -> None:
        needed = min((each.start for each in self.progress), default=self.chars)
        if needed > self._base:
            self._pieces = [self._joined()[needed - self._base :]]
            self._base = needed


Mark = tuple[Text, int]  # an event needs so many characters of a text to be let go


class Ear:
    """Reads the events of one stream.  `terminal`: the answer is whole.  `defers`: see `Intake`."""

    __slots__ = (
        "_checks", "_framer", "_keep", "_lanes", "_left", "_left_seens", "_reader", "chars",
        "content", "deaf", "defers", "terminal", "texts",
    )  # fmt: skip

    def __init__(
        self, framer: Framer, reader: StreamReader, checks: Sequence[Check], *, keep: bool
    ) -> None:
        self._framer = framer
        self._reader = reader
        self._checks = checks
        self._keep = keep
        self._lanes: dict[LaneKey, Text] = {}
        self.texts: list[Text] = []  # open ones, and all where they are kept
        self.chars = 0
        self.content = self.terminal = self.deaf = False
        self.defers = False
        self._left: list[WireEvent] = []  # behind `_left_seens`
        self._left_seens: list[Seen] = []

    def __repr__(self) -> str:
        return f"<Ear {self.chars} characters in {len(self.texts)} texts>"

    @property
    def pending(self) -> int:
        """Bytes that came and are no event yet."""
        return self._framer.pending

    def feed(self, chunk: bytes) -> list[Mark]:
        """Read a piece of the body; what it needs to be let go.  What does not parse carries no
        text for us: who forwards drops it, or ends the stream."""
        try:
            events = self._framer.feed(chunk)
        except ValueError:
            self.deaf = True
            return []
        marks: dict[int, Mark] = {}
        self._hear(events, marks)
        return list(marks.values())

    @property
    def waits(self) -> bool:
        """`feed` has stopped before a long text that was put together."""
        return bool(self._left_seens)

    def go_on(self) -> list[Mark]:
        """Hear that text, and what came behind it."""
        seens, events, marks = self._left_seens, self._left, dict[int, Mark]()
        self._left_seens, self._left, self.defers = [], [], False
        self._hear_all(seens, marks)
        self._hear(events, marks)
        self.defers = True
        return list(marks.values())

    def _hear(self, events: Iterable[WireEvent], marks: dict[int, Mark]) -> None:
        rest = iter(events)
        for event in rest:
            try:
                seens = self._reader.read(event)
            except ValueError:
                continue
            if self.defers and is_long(seens):
                self._left_seens, self._left = seens, [*rest]
                return
            self._hear_all(seens, marks)

    def _hear_all(self, seens: list[Seen], marks: dict[int, Mark]) -> None:
        for seen in seens:
            for text in self._take(seen):
                marks[id(text)] = (text, text.chars)

    def end(self) -> None:
        """Nothing more will come: every text is whole."""
        for text in self.texts:
            text.ended = True

    def _take(self, seen: Seen) -> list[Text]:
        self.content = self.content or seen.content
        self.terminal = self.terminal or seen.terminal
        touched: list[Text] = []
        for delta in seen.deltas:
            if delta.text and delta.stands != "late":
                touched += self._heard(delta, seen)
        for key in list(self._lanes) if seen.ends_all else seen.ends:
            text = self._lanes.pop(key, None)
            if text is not None:
                text.ended = True
        return touched

    def _heard(self, delta: Delta, seen: Seen) -> list[Text]:
        self.chars += len(delta.text)
        part = delta.lane[1]
        if seen.whole and part == "tool_args":
            leaves = json_text_leaves(delta.text, part, "assistant", ())
            return [self._alone(leaf.text, part, leaf.inner) for leaf in leaves if leaf.text]
        if seen.whole or delta.stands == "alone" or part == "tool_name":
            return [self._alone(delta.text, part, None)]
        text = self._lanes.get(delta.lane)
        if text is None:
            text = self._lanes[delta.lane] = self._new(
                part, delta.lane, rewritable=delta.stands == "flowing" and part != "tool_args"
            )
        text.add(delta.text)
        return [text]

    def _alone(self, said: str, part: Part, inner: tuple[str | int, ...] | None) -> Text:
        text = self._new(part, None, rewritable=False)
        text.inner = inner
        text.add(said)
        text.ended = True
        return text

    def _new(self, part: Part, key: LaneKey | None, *, rewritable: bool) -> Text:
        text = Text(part, key, self._checks, rewritable=rewritable)
        if self._keep:
            text.whole = []
        self.texts.append(text)
        return text
