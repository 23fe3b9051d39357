"""Whole texts: which rules are worth running, what they find, and what is still open at the end.

In charge of every search with RE2, for unary texts and for the segments of a stream alike: one way
to find hits is what makes the two equal.  Offsets going in and out are characters of the text given
to the `View`.  A check that raises is never a pass: it lands in `breaks`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from proxy.guardrails.automaton import STATE_CAP, Automaton
from proxy.guardrails.context import KEPT, firsts_of
from proxy.guardrails.linear import GateSet
from proxy.guardrails.redact import Hit
from proxy.guardrails.rules import LiveRule
from proxy.guardrails.sampling import ALL
from proxy.guardrails.scoring import counts
from proxy.guardrails.search import found_at, search
from proxy.guardrails.view import View

SEVERAL: Final = 4  # rules whose words of context are looked for together


@dataclass(frozen=True, slots=True)
class Break:
    """A check broke; `fault` is the class of what it raised."""

    fault: str


Search = Callable[[], list[Hit]]
Attempt = Callable[[Search], "list[Hit] | Break"]  # runs a search; a fault becomes a Break
Breaks = list[tuple[LiveRule, Break]]


class RuleSet:
    """Rules that judge the same texts together, strongest first: bit i of a mask is rule i."""

    def __init__(self, rules: Sequence[LiveRule], attempt: Attempt) -> None:
        self.rules = sorted(rules, key=lambda rule: rule.rank)
        self.attempt = attempt
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
        self._wordy = 0  # rules that look around words of context only
        for index, rule in enumerate(self.rules):
            self._wordy |= int(rule.needs_context and rule.retry) << index
        around = [r.context.words for r in self.rules if r.context and r.needs_context and r.retry]
        self._words = frozenset(first for words in around for first in firsts_of(words))
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
            if folding.changes(view.text, view.raw.data):
                for index in self._gates.present(view.face(folding).data):
                    mask |= self._owners[index]
        return mask

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
        return self.among(self.candidates(view), view, breaks, draw)

    def among(self, mask: int, view: View, breaks: Breaks, draw: float = ALL) -> list[Hit]:
        """The same for a text whose candidates are known."""
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
        if (mask & self._wordy).bit_count() >= SEVERAL:
            view.seek(self._words)
        while mask:
            lowest = mask & -mask
            mask ^= lowest
            rule = self.rules[lowest.bit_length() - 1]
            found = self.attempt(partial(search, rule, view, begin, stop, refused))
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
        hits = self.attempt(lambda: [found_at(rule, view, face, *found)])
        if isinstance(hits, Break):
            breaks.append((rule, hits))
            return None
        return hits[0]

    def __repr__(self) -> str:
        return f"<RuleSet {len(self.rules)} rules>"
