"""T-GR-04: a guard with a fault in it is found out by the property tests, for every fault that has
ever been made while such a guard was written.

Each fault is a part of a lane, made wrong on purpose and given to the same cases.  The parts are
replaced by subclasses, which compiled classes do not take: `make test-compiled` leaves this out.
"""

from copy import copy
from dataclasses import replace

import pytest

from proxy.guardrails import shape
from proxy.guardrails.automaton import ENDED, QUIET, Automaton, Row
from proxy.guardrails.fold import Folding
from proxy.guardrails.linear import Regex
from proxy.guardrails.matching import RuleSet
from proxy.guardrails.parse import Alt, Cat, Node, Rep, Set
from proxy.guardrails.rules import LiveRule
from proxy.guardrails.stream import Lane
from proxy.guardrails.view import View
from tests.fuzz.guard_cases import Build, random_rules
from tests.guardrails.texts import Maker

pytestmark = pytest.mark.thorough
CASES = 12_000


class OneCharacterOfRightContext(Lane):
    def _rewritten(self, count: int) -> str | None:
        held, pos = self._held, self._pos
        self._held = held[: count + 1]
        self._pos -= len(held) - len(self._held)
        try:
            return super()._rewritten(count)
        finally:
            self._held, self._pos = held, pos


class PendingEndNotAwaited(Lane):
    def _scan(self, codes: object) -> int:
        used = super()._scan(codes)
        if self._mode == "hold" and self._row.flag == QUIET | ENDED:
            self._sync = self._pos
            self._done, self._open = self._done | self._open, 0
        return used


class CrossingNotChecked(Lane):
    def _soft_sync(self) -> bool:
        view, begin = self._view()
        cut = self._rules.oldest_open(view, begin, self._row.open)
        if cut <= begin:
            return False
        self._sync = self._base + cut - begin
        self._done |= self._open
        return True


class CommitIgnoresStrongerRules(Lane):
    def _commit(self, view: View, begin: int, live: int) -> bool:
        ended = self._open
        try:
            for index in range(len(self._rules.rules)):
                self._open = ended & 1 << index
                if super()._commit(view, begin, live & 1 << index):
                    return True
        finally:
            self._open = ended
        return False


class HitsDroppedAtASync(Lane):
    def _soft_sync(self) -> bool:
        found = super()._soft_sync()
        if found:
            self._open = 0
        return found


class ChecksAtChunkEnds(Lane):
    def feed(self, text: str) -> str:
        out = super().feed(text)
        if self.blocked is None:
            self._left_plain()
            self._checkpoint()
        return out + self._taken()


class NoLeftContext(RuleSet):
    def left(self, text: str) -> str:
        return ""


def without_orbits(node: Node) -> Node:
    """Letters of other alphabets that RE2 takes for k and s are gone."""
    match node:
        case Set(ranges):
            return Set(tuple(r for r in ranges if r not in ((0x17F, 0x17F), (0x212A, 0x212A))))
        case Cat(items):
            return Cat(tuple(map(without_orbits, items)))
        case Alt(branches):
            return Alt(tuple(map(without_orbits, branches)))
        case Rep(item, low, high):
            return Rep(without_orbits(item), low, high)
    return node


class NoCaseOrbits(RuleSet):
    def automaton(self, state_cap: int = 4_000) -> Automaton:
        parts = [(without_orbits(r.pattern.node), r.pattern.folding) for r in self.rules]
        return Automaton(parts, state_cap=state_cap)


class FoldedWithoutLoop(RuleSet):
    def automaton(self, state_cap: int = 4_000) -> Automaton:
        def loopless(folding: Folding | None) -> Folding | None:
            found = copy(folding)
            if found is not None:
                found.vanishing = ()
            return found

        parts = [(r.pattern.node, loopless(r.pattern.folding)) for r in self.rules]
        return Automaton(parts, state_cap=state_cap)


class WithoutJustEnded(Automaton):
    def _intern(self, live: frozenset[int], ended: int) -> Row:
        row = super()._intern(live, ended)
        row.open = 0
        for position in live:
            row.open |= 1 << self._owner[position]
        return row


class OpenMaskWithoutJustEnded(RuleSet):
    def automaton(self, state_cap: int = 4_000) -> Automaton:
        parts = [(r.pattern.node, r.pattern.folding) for r in self.rules]
        return WithoutJustEnded(parts, state_cap=state_cap)


def late_assertions_committable(rule: LiveRule) -> LiveRule:
    weighed = rule.check or rule.context or rule.group or rule.pattern.folding
    return rule if weighed else replace(rule, certain_from=0)


def one_less(node: Node) -> Node:
    match node:
        case Cat(items):
            return Cat(tuple(map(one_less, items)))
        case Alt(branches):
            return Alt(tuple(map(one_less, branches)))
        case Rep(item, low, high) if high is not None and high > 1:
            return Rep(one_less(item), min(low, high - 1), high - 1)
        case Rep(item, low, high):
            return Rep(one_less(item), low, high)
    return node


def beginnings_one_short(rule: LiveRule) -> LiveRule:
    pattern = copy(rule.pattern)
    begun = shape.beginnings(one_less(pattern.node))
    pattern.open_tail = Regex(f"(?:|{shape.opening(pattern.node)}(?:{begun}))\\z")
    return replace(rule, pattern=pattern)


MUTANTS: list[tuple[str, Build]] = [
    ("one character of right context", Build(lane=OneCharacterOfRightContext)),
    ("pending end not awaited", Build(lane=PendingEndNotAwaited)),
    ("crossing not checked", Build(lane=CrossingNotChecked)),
    ("no left context", Build(rule_set=NoLeftContext)),
    ("commit ignores a stronger rule", Build(lane=CommitIgnoresStrongerRules)),
    ("late assertion committable", Build(rule=late_assertions_committable)),
    ("no case orbits", Build(rule_set=NoCaseOrbits)),
    ("folded without loop", Build(rule_set=FoldedWithoutLoop)),
    ("hits dropped at a sync", Build(lane=HitsDroppedAtASync)),
    ("checks at chunk ends", Build(lane=ChecksAtChunkEnds)),
    ("open mask without just-ended", Build(rule_set=OpenMaskWithoutJustEnded)),
    ("beginnings one repetition short", Build(rule=beginnings_one_short)),
]


@pytest.mark.parametrize("build", [m[1] for m in MUTANTS], ids=[m[0] for m in MUTANTS])
def test_t_gr_04_the_fault_is_found(build: Build) -> None:
    with pytest.raises(AssertionError):
        random_rules(Maker(4), CASES, build)


def test_t_gr_04_the_parts_themselves_have_none() -> None:
    random_rules(Maker(4), 2_000, Build())
