"""Whole texts: which rules are worth running, what they find, and what is still open at the end.

In charge of every search with RE2, for unary texts and for the segments of a stream alike: one way
to find hits is what makes the two equal.  Offsets going in and out are characters of the text given
to the `View`.  A check that raises is never a pass: it lands in `breaks`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from proxy.guardrails.automaton import STATE_CAP, Automaton
from proxy.guardrails.context import KEPT, windows
from proxy.guardrails.fold import Folding
from proxy.guardrails.linear import Bounds, GateSet
from proxy.guardrails.redact import Hit
from proxy.guardrails.rules import LiveRule
from proxy.guardrails.sampling import ALL
from proxy.guardrails.scoring import counts


@dataclass(frozen=True, slots=True)
class Break:
    """A check broke; `fault` is the class of what it raised."""

    fault: str


Search = Callable[[], list[Hit]]
Attempt = Callable[[Search], "list[Hit] | Break"]  # runs a search; a fault becomes a Break
Breaks = list[tuple[LiveRule, Break]]


class Face:
    """A text as bytes, with the way back from byte offsets to characters of the original."""

    __slots__ = ("_at_byte", "_at_char", "_gone", "_plain", "_vanished", "data", "text")

    def __init__(self, text: str, vanished: Sequence[int] = ()) -> None:
        self.text = text
        self.data = text.encode("utf-8", "replace")  # an unpaired surrogate is one `?`
        self._plain = len(self.data) == len(text)
        self._vanished = vanished  # characters of the original that have none here
        self._gone = [at - index for index, at in enumerate(vanished)]  # where they would stand
        self._at_byte = self._at_char = 0

    def char(self, byte: int) -> int:
        """Characters of this face before a byte offset; cheap near the one asked for last."""
        if self._plain:
            return byte
        if byte >= self._at_byte:
            self._at_char += len(self.data[self._at_byte : byte].decode())
        elif byte > self._at_byte // 2:
            self._at_char -= len(self.data[byte : self._at_byte].decode())
        else:
            self._at_char = len(self.data[:byte].decode())
        self._at_byte = byte
        return self._at_char

    def byte(self, char: int) -> int:
        return char if self._plain else len(self.text[:char].encode("utf-8", "replace"))

    def after(self, byte: int) -> int:
        """The next character's offset."""
        byte += 1
        while byte < len(self.data) and self.data[byte] & 0xC0 == 0x80:
            byte += 1
        return byte

    def source(self, char: int) -> int:
        """The character of the original that this one was made of."""
        return char + bisect_right(self._gone, char) if self._gone else char

    def begin(self, original: int) -> int:
        """The byte offset where the original's character `original` begins."""
        return self.byte(original - bisect_left(self._vanished, original))


class View:
    """One text to be searched, raw and folded as rules need it."""

    __slots__ = ("_folded", "names", "raw", "text")

    def __init__(self, text: str, names: str = "") -> None:
        self.text = text
        self.names = names  # of the members that lead to the text, in lower case
        self.raw = Face(text)
        self._folded: dict[Folding, Face] = {}

    def face(self, folding: Folding | None) -> Face:
        if folding is None:
            return self.raw
        face = self._folded.get(folding)
        if face is None:
            text = self.text
            folded = folding.text(text)
            vanished = folding.vanished(text) if len(folded) < len(text) else []
            face = Face(folded, vanished)
            self._folded[folding] = face
        return face


class RuleSet:
    """Rules that judge the same texts together, strongest first: bit i of a mask is rule i."""

    def __init__(self, rules: Sequence[LiveRule], attempt: Attempt) -> None:
        self.rules = sorted(rules, key=lambda rule: rule.rank)
        self._attempt = attempt
        self.token = object()  # of this rule set alone
        self.foldings = list(
            dict.fromkeys(r.pattern.folding for r in self.rules if r.pattern.folding is not None)
        )
        self._always = 0
        owners: dict[str, int] = {}
        for index, rule in enumerate(self.rules):
            if not rule.pattern.gates:
                self._always |= 1 << index
            for gate in rule.pattern.gates:
                owners[gate] = owners.get(gate, 0) | 1 << index
        self._owners = list(owners.values())
        self._gates = GateSet(owners) if owners else None
        self.counted = counts(self.rules)
        self.exempts = any(rule.exempts for rule in self.rules)
        sampled = [(i, rule.sample_pct) for i, rule in enumerate(self.rules)]
        self._sampled = [(1 << i, percent) for i, percent in sampled if percent < 100]
        self.alike = not self._sampled and not self.counted  # a text alone says what is found
        self.left_chars = KEPT if any(rule.context for rule in self.rules) else 1

    def automaton(self, state_cap: int = STATE_CAP) -> Automaton:
        """The automaton of these rules, for streams."""
        parts = [(rule.pattern.node, rule.pattern.folding) for rule in self.rules]
        return Automaton(parts, state_cap=state_cap)

    def candidates(self, view: View) -> int:
        """The rules that may hit: one pass over the text for the gates of all rules."""
        mask = self._always
        if self._gates is None:
            return mask
        for index in self._gates.present(view.raw.data):
            mask |= self._owners[index]
        if view.names:  # context words may stand there
            for index in self._gates.present(view.names.encode("utf-8", "replace")):
                mask |= self._owners[index]
        for folding in self.foldings:
            face = view.face(folding)
            if face.data != view.raw.data.lower():
                for index in self._gates.present(face.data):
                    mask |= self._owners[index]
        return mask

    def untouched(self, text: str) -> bool:
        """No rule can hit: what most texts are told, in one pass and without a view.  May raise."""
        if self._always or self._gates is None:
            return False
        for folding in self.foldings:
            if folding.changes(text):
                return False
        return not self._gates.present(text.encode("utf-8", "replace"))

    def left(self, text: str) -> str:
        """Of a text that has left, what a search behind it may look at: the last character, raw or
        folded, and what context words may stand in."""
        left = text[-self.left_chars :]
        if not self.foldings or left.isascii():
            return left
        return self.foldings[0].context(text, self.left_chars)

    def drawn(self, mask: int, draw: float) -> int:
        """Of `mask`, the rules that look at the request of that number."""
        for bit, percent in self._sampled:
            if draw >= percent:
                mask &= ~bit
        return mask

    def scan(self, view: View, breaks: Breaks, draw: float = ALL) -> list[Hit]:
        """All valid hits of a whole text."""
        mask = self.candidates(view)
        if self._sampled:
            mask = self.drawn(mask, draw)
        return self.find(view, mask, 0, len(view.text), breaks) if mask else []

    def find(
        self, view: View, mask: int, begin: int, stop: int, breaks: Breaks, refused: bool = False
    ) -> list[Hit]:
        """Hits of the rules in `mask` that begin in `begin`..`stop`; what stands around is context.

        `refused`: also the hits that a check refused and the search jumped over.
        """
        hits: list[Hit] = []
        while mask:
            lowest = mask & -mask
            mask ^= lowest
            rule = self.rules[lowest.bit_length() - 1]
            found = self._attempt(partial(search, rule, view, begin, stop, refused))
            if isinstance(found, Break):
                breaks.append((rule, found))
            else:
                hits += found
        return hits

    # ---- what is open at the end of a text

    def oldest_open(self, view: View, begin: int, mask: int) -> int:
        """Where the oldest match begins that the text leaves open; its length when none is.

        Rule by rule, and only for those in `mask`: one regex for all of them would be slow.
        """
        oldest = len(view.text)
        for index, rule in enumerate(self.rules):
            if not mask >> index & 1 or oldest <= begin:
                continue
            face = view.face(rule.pattern.folding)
            start = rule.pattern.open_tail.search_start(face.data, face.begin(begin))
            oldest = min(oldest, face.source(face.char(start)))
        return oldest

    def open_at(self, view: View, begin: int, mask: int) -> int:
        """Which rules of `mask` may have begun exactly at `begin` and still be going on."""
        found = 0
        for index, rule in enumerate(self.rules):
            if mask >> index & 1:
                face = view.face(rule.pattern.folding)
                if rule.pattern.open_tail.match(face.data, face.begin(begin)) is not None:
                    found |= 1 << index
        return found

    def match_at(self, rule: LiveRule, view: View, begin: int, breaks: Breaks) -> Hit | None:
        """The match that begins exactly at `begin`, as the text stands now; never a folded rule."""
        face = view.raw
        found = rule.pattern.regex.match(face.data, face.byte(begin), rule.group)
        if found is None:
            return None
        hits = self._attempt(lambda: [_hit(rule, view, face, *found)])
        if isinstance(hits, Break):
            breaks.append((rule, hits))
            return None
        return hits[0]

    def __repr__(self) -> str:
        return f"<RuleSet {len(self.rules)} rules>"


def search(rule: LiveRule, view: View, begin: int, stop: int, refused: bool) -> list[Hit]:
    """One rule over one text: left to right, without overlap (guardrails.md §4.2)."""
    face = view.face(rule.pattern.folding)
    regex, data, group, retry = rule.pattern.regex, face.data, rule.group, rule.retry
    at = face.begin(begin)
    hits: list[Hit] = []
    places = _places(rule, view, face)
    place = 0
    while (found := regex.search(data, at, group)) is not None:
        (low, high), span = found
        if places is not None:  # a find elsewhere is refused, and tried again one character later
            while place < len(places) and places[place][1] < low:
                place += 1
            if place == len(places):
                break
            if low < places[place][0]:
                at = places[place][0]
                continue
        if face.source(face.char(low)) >= stop:
            break
        hit = _hit(rule, view, face, (low, high), span)
        at = high if hit.valid or not retry else face.after(low)
        if hit.valid or (refused and not retry):
            hits.append(_mapped(hit, face))
    return hits


def _places(rule: LiveRule, view: View, face: Face) -> list[tuple[int, int]] | None:
    """Where a match may begin that counts, in bytes; None: anywhere."""
    context = rule.context
    if context is None or not (rule.needs_context and rule.retry) or face is not view.raw:
        return None
    if context.present("", 0, view.names):
        return None
    return windows(context.words, face.data, rule.pattern.max_width or 0)


def _hit(rule: LiveRule, view: View, face: Face, whole: Bounds, span: Bounds) -> Hit:
    """What a match means, in characters of the face: the check may refuse it or narrow its span."""
    first, last = face.char(whole[0]), face.char(whole[1])
    start, end = first, last
    if span[0] < span[1] and span != whole:  # a group that took no part: the whole match counts
        start, end = face.char(span[0]), face.char(span[1])
    valid, confidence = True, rule.confidence
    if rule.check is not None:
        part = rule.check(face.text[start:end])
        if part is None:
            return Hit(rule, first, last, start, end, False, confidence)
        start, end = start + part[0], start + part[1]
    if rule.belongs is not None and rule.belongs(face.text, start, end):
        valid = False
    elif rule.context is not None:
        if rule.context.present(view.text, face.source(start), view.names):
            confidence = min(1.0, confidence + rule.context.boost)
            valid = confidence >= rule.threshold
        else:
            valid = not rule.context.required and confidence >= rule.threshold
    return Hit(rule, first, last, start, end, valid, confidence)


def _mapped(hit: Hit, face: Face) -> Hit:
    """From characters of a folded face to those of the original."""
    if hit.rule.pattern.folding is None:
        return hit
    hit.first, hit.last = face.source(hit.first), face.source(hit.last - 1) + 1
    hit.start, hit.end = face.source(hit.start), face.source(hit.end - 1) + 1
    return hit
