"""From hits to a new text: the union of spans, their replacements, and where a block cuts.

In charge of guardrails.md §4.2 rule 2.  Law: what is returned is a function of the set of hits, not
of the order in which they were found.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.guardrails.placeholders import Placeholders
from proxy.guardrails.rules import LiveRule

_PLACE_BITS: Final = 31  # of a place in a text, so that two of them are one small number
_PLACE: Final = (1 << _PLACE_BITS) - 1


@dataclass(slots=True)
class Hit:
    """What a rule found.  `first`..`last`: the whole match; `start`..`end`: the span that counts.

    Offsets are characters of the text that was searched.  Not `valid`: refused by the rule's check
    or for want of context, kept only because the search went on behind it.  `acts`: enough was
    found for the rule's action (`scoring`).  `family`: another than the rule's own.

    A hit may stand for all finds of a rule in a text, `count` of them: `spans` has the first and
    the last character of each in turn, `start`..`end` is the first one, `first`..`last` goes over
    all.  Where the spans are fewer than the finds, each character is a find of its own.
    """

    rule: LiveRule
    first: int
    last: int
    start: int
    end: int
    valid: bool
    confidence: float
    acts: bool = True
    family: str = ""
    count: int = 1
    spans: list[int] | None = None

    @property
    def blocks(self) -> bool:
        return self.acts and self.rule.action == "block"

    @property
    def singly(self) -> bool:
        """Each character is a find."""
        return self.spans is not None and self.count > len(self.spans) // 2

    def apart(self) -> "list[Hit]":
        """The same as one hit for each find."""
        if not self.spans:
            return [self]
        rule, confidence, singly = self.rule, self.confidence, self.singly
        hits: list[Hit] = []
        for at in range(0, len(self.spans), 2):
            first, last = self.spans[at], self.spans[at + 1]
            for start in range(first, last) if singly else (first,):
                end = start + 1 if singly else last
                hits.append(Hit(rule, start, end, start, end, True, confidence, self.acts))
        return hits


def apart(hits: Sequence[Hit]) -> list[Hit]:
    """One hit for each find."""
    return [one for hit in hits for one in hit.apart()]


def without_exempted(hits: Sequence[Hit]) -> list[Hit]:
    """Drop what lies inside a hit of an `allow` rule of the same pack, and that hit itself."""
    exempting = [hit for hit in hits if hit.rule.exempts and hit.valid]
    if not exempting:
        return [hit for hit in hits if not hit.rule.exempts]
    reach = _reach(exempting)
    return [
        hit
        for hit in apart(hits)
        if not hit.rule.exempts and not _inside(hit, reach.get(id(hit.rule.pack)))
    ]


_Reach = tuple[list[int], list[int]]


def _reach(exempting: Sequence[Hit]) -> dict[int, _Reach]:
    """For each pack: where its hits start, in order, and how far they have reached by then."""
    found: dict[int, _Reach] = {}
    for hit in sorted(exempting, key=lambda hit: hit.start):
        starts, ends = found.setdefault(id(hit.rule.pack), ([], []))
        starts.append(hit.start)
        ends.append(max(hit.end, ends[-1]) if ends else hit.end)
    return found


def _inside(hit: Hit, reach: _Reach | None) -> bool:
    if reach is None:
        return False
    before = bisect_right(reach[0], hit.start)
    return before > 0 and hit.end <= reach[1][before - 1]


@dataclass(slots=True)
class Edit:
    """A span and what takes its place.  `rank`: of the rule that wants it.  `label`: of the
    placeholder that may stand there in place of the `replacement`, empty when there is none."""

    start: int
    end: int
    rank: tuple[int, int, int, int]
    replacement: str
    label: str = ""


def rewrite(
    text: str, hits: Sequence[Hit], placeholders: Placeholders | None = None
) -> tuple[str, Hit | None]:
    """The rewritten text and the first blocking hit; with one, the text ends where it begins.

    Overlapping spans become one region, named by the one that starts first, then by the strongest.
    With `placeholders` it gets one that can be undone, if all rules that hit it allow that.
    """
    ordered = _ordered(hits)
    block: Hit | None = None
    for hit in ordered:
        if hit.blocks:
            block = hit
            break
    stop = block.start if block is not None else len(text)
    rewriting = [hit for hit in ordered if hit.rule.rewrites]
    strewn = [hit for hit in rewriting if hit.spans]
    bare = [hit for hit in strewn if not (hit.rule.replacement or hit.rule.placeholder_label)]
    if len(bare) == len(rewriting):
        return _without(text, [hit.spans for hit in bare if hit.spans], stop), block
    writer = Writer(text, stop, placeholders)
    if not strewn:
        for hit in rewriting:
            rule = hit.rule
            writer.replace(hit.start, hit.end, rule.replacement, rule.placeholder_label)
    elif not _beside(writer, [hit for hit in rewriting if not hit.spans], strewn):
        return rewrite(text, apart(hits), placeholders)[0], block
    return writer.written(), block


def _ordered(hits: Sequence[Hit]) -> Sequence[Hit]:
    """By start; of those that start together the strongest first."""
    before = -1
    for hit in hits:
        if hit.start <= before:
            return sorted(hits, key=lambda hit: (hit.start, hit.rule.rank))
        before = hit.start
    return hits


def edit_of(hit: Hit) -> Edit:
    """What a hit of a rule that rewrites wants."""
    rule = hit.rule
    return Edit(hit.start, hit.end, rule.rank, rule.replacement, rule.placeholder_label)


def in_order(edits: Sequence[Edit]) -> list[Edit]:
    """As `spliced` takes them: of those that start together the strongest first."""
    return sorted(edits, key=lambda edit: (edit.start, edit.rank))


def spliced(
    text: str, edits: Sequence[Edit], stop: int, placeholders: Placeholders | None = None
) -> str:
    """The text up to `stop` with these spans replaced, their union; edits come in order."""
    writer = Writer(text, stop, placeholders)
    for edit in edits:
        writer.replace(edit.start, edit.end, edit.replacement, edit.label)
    return writer.written()


class Writer:
    """The text up to `stop`, written anew: spans that overlap become one region, named by the one
    that came first.  They come in the order of their starts."""

    __slots__ = ("_at", "_end", "_label", "_out", "_placeholders", "_replacement", "_start",
                 "_stop", "_text")  # fmt: skip

    def __init__(self, text: str, stop: int, placeholders: Placeholders | None = None) -> None:
        self._text, self._stop, self._placeholders = text, stop, placeholders
        self._out: list[str] = []
        self._at = 0  # what stands before is written
        self._start = -1  # of the region that still grows; -1: there is none
        self._end = 0
        self._replacement = self._label = ""

    def overlaps(self, start: int) -> bool:
        """It begins in the region that came last."""
        return start < self._end

    def before(self, end: int) -> int:
        return min(end, self._stop)

    def replace(self, start: int, end: int, replacement: str, label: str) -> None:
        """`label`: of the placeholder that may stand there instead; "" when there is none."""
        if start >= self._stop:
            return
        if start < self._end:
            if not label:
                self._label = ""
            if end > self._end:
                self._end = end
            return
        if self._start >= 0:
            self._settle()
        self._start, self._end = start, end
        self._replacement, self._label = replacement, label

    def _settle(self) -> None:
        start = self._start
        if self._at < start:
            self._out.append(self._text[self._at : start])
        shown = self._replacement
        if self._label and self._placeholders is not None:
            shown = self._placeholders.issue(self._label, self._text[start : self._end]) or shown
        if shown:
            self._out.append(shown)
        self._at = self._end

    def written(self) -> str:
        if self._start >= 0:
            self._settle()
        if self._at < self._stop:
            self._out.append(self._text[self._at : self._stop])
        return "".join(self._out)


def _without(text: str, spans: list[list[int]], stop: int) -> str:
    """The text up to `stop`, all these spans left out."""
    order: list[int] = []
    for each in spans:
        order += [each[at] << _PLACE_BITS | each[at + 1] for at in range(0, len(each), 2)]
    if len(spans) > 1:
        order.sort()
    out: list[str] = []
    at = 0
    for both in order:
        start, end = both >> _PLACE_BITS, both & _PLACE
        if start >= stop:
            break
        if at < start:
            out.append(text[at:start])
        if at < end:
            at = end
    if at < stop:
        out.append(text[at:stop])
    return "".join(out)


def _beside(writer: Writer, hits: Sequence[Hit], strewn: Sequence[Hit]) -> bool:
    """Write hits and hits that stand for many, in the order of their starts; False where one of the
    latter overlaps another, or is to have placeholders."""
    if any(hit.rule.placeholder_label for hit in strewn):
        return False
    spans = [hit.spans for hit in strewn if hit.spans]
    next_ = [0] * len(spans)
    done, size = 0, len(hits)
    mixed = False  # the region that grows last is of a hit that stands for many
    while True:
        start = hits[done].start if done < size else -1
        best = -1
        for index, place in enumerate(next_):
            if place < len(spans[index]) and (start < 0 or spans[index][place] < start):
                start = spans[index][place]
                best = index
        if start < 0:
            return True
        if writer.overlaps(start) and (mixed or best >= 0):
            return False
        mixed = best >= 0
        if best < 0:
            hit = hits[done]
            rule = hit.rule
            writer.replace(start, hit.end, rule.replacement, rule.placeholder_label)
            done += 1
            continue
        place = next_[best]
        next_[best] = place + 2
        end = spans[best][place + 1]
        rule = strewn[best].rule
        shown = rule.replacement
        if shown and strewn[best].singly:
            shown *= writer.before(end) - start
        writer.replace(start, end, shown, "")
