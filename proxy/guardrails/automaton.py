"""One lazily built automaton for all rules of a lane: can any match be in progress here?

Theory.  It runs over a superset of the rules' grammar: assertions are dropped, folded rules widened
by all characters that fold alike, Unicode classes read as everything and counts above EXACT_COUNT
as "any number" (exact counts of overlapping runs would need millions of states).  So it says *live*
and *hit* too often, never too seldom, and the exact question is put to RE2 only when it matters.

A DFA state is a `Row`: next row per character class, filled in as texts need it.  Classes are sets
of code points that no rule tells apart.  `quiet`: nothing is live and nothing ended here.

Bounds: at most `state_cap` rows; when full, all transitions are dropped in place and the table
cleared.  A lane keeps the row it stands on: the row's own live set suffices to go on from there.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

from proxy.guardrails.charset import LAST, Ranges
from proxy.guardrails.fold import Folding
from proxy.guardrails.parse import Alt, Assert, Cat, Node, Rep, Set

EXACT_COUNT: Final = 4
STATE_CAP: Final = 4_000
CELL_CAP: Final = 2_000_000  # rows times classes: wide alphabets get fewer rows
POSITION_CAP: Final = 250_000  # of one rule; patterns are held to fewer by `shape.positions`

QUIET: Final = 1  # nothing live
ENDED: Final = 2  # something may have ended here


class Row:
    """A DFA state.  `live`: NFA positions; `ended`, `open`: masks of rules."""

    __slots__ = ("ended", "flag", "live", "next", "open")

    def __init__(self, width: int, live: frozenset[int], ended: int, open_: int) -> None:
        self.next: list[Row | None] = [None] * width
        self.live = live
        self.ended = ended
        self.open = open_ | ended
        self.flag = (0 if live else QUIET) | (ENDED if ended else 0)


class TooLarge(ValueError):
    """The rule has more positions than one automaton may hold."""


class ClassTable(dict[int, str]):
    """A table for `str.translate`: code point to character class."""

    def __init__(self, starts: list[int], classes: list[int]) -> None:
        super().__init__()
        self._starts, self._classes = starts, classes
        for code in range(128):
            self[code] = self._look_up(code)

    def _look_up(self, code: int) -> str:
        return chr(self._classes[bisect_right(self._starts, code) - 1])

    def __missing__(self, code: int) -> str:
        value = self._look_up(code)
        if code < 0x10000:  # a bounded cache
            self[code] = value
        return value


class _Nfa:
    """Thompson's construction; every state knows its rule."""

    def __init__(self) -> None:
        self.epsilon: list[list[int]] = []
        self.edge: list[tuple[Ranges, int] | None] = []
        self.owner: list[int] = []
        self.accept: dict[int, int] = {}
        self.roots: list[int] = []
        self._rule = 0
        self._folding: Folding | None = None
        self._limit = 0
        self._unfolded: dict[tuple[Folding, Ranges], Ranges] = {}

    def add(self, node: Node, folding: Folding | None) -> None:
        self._rule, self._folding = len(self.roots), folding
        self._limit = len(self.epsilon) + POSITION_CAP
        root = self._state()
        self.roots.append(root)
        self.accept[self._build(node, root)] = self._rule

    def _state(self) -> int:
        if len(self.epsilon) >= self._limit:
            raise TooLarge(f"more than {POSITION_CAP} positions")
        self.epsilon.append([])
        self.edge.append(None)
        self.owner.append(self._rule)
        return len(self.epsilon) - 1

    def _build(self, node: Node, start: int) -> int:
        match node:
            case Assert():
                return start
            case Set(ranges):
                return self._consume(ranges, start)
            case Cat(items):
                for item in items:
                    start = self._build(item, start)
                return start
            case Alt(branches):
                end = self._state()
                for branch in branches:
                    begin = self._state()
                    self.epsilon[start].append(begin)
                    self.epsilon[self._build(branch, begin)].append(end)
                return end
            case Rep():
                return self._repeat(node, start)

    def _consume(self, ranges: Ranges, start: int) -> int:
        here = start
        if self.edge[start] is not None:
            here = self._state()
            self.epsilon[start].append(here)
        end = self._state()
        if self._folding is None:
            self.edge[here] = (ranges, end)
            return end
        key = self._folding, ranges
        if key not in self._unfolded:
            self._unfolded[key] = self._folding.unfold(ranges)
        self.edge[here] = (self._unfolded[key], end)
        loop = self._state()  # characters that fold to nothing keep a started match alive
        self.edge[loop] = (self._folding.vanishing, end)
        self.epsilon[end].append(loop)
        return end

    def _repeat(self, node: Rep, start: int) -> int:
        low, high = node.low, node.high
        if high is not None and high > EXACT_COUNT:
            high = None
        low = min(low, EXACT_COUNT) if high is not None else min(low, 1)
        for _ in range(low):
            start = self._build(node.item, start)
        end = self._state()
        if high is None:
            loop = self._state()
            self.epsilon[start].append(loop)
            self.epsilon[self._build(node.item, loop)].append(loop)
            self.epsilon[loop].append(end)
            return end
        self.epsilon[start].append(end)
        for _ in range(high - low):
            start = self._build(node.item, start)
            self.epsilon[start].append(end)
        return end

    def closure(self, state: int) -> tuple[frozenset[int], int]:
        """The consuming states reachable for free, and the rules that end there."""
        seen, stack, mask = {state}, [state], 0
        while stack:
            x = stack.pop()
            if x in self.accept:
                mask |= 1 << self.accept[x]
            for y in self.epsilon[x]:
                if y not in seen:
                    seen.add(y)
                    stack.append(y)
        return frozenset(x for x in seen if self.edge[x] is not None), mask


class Automaton:
    """Rows for the rules given, in their order: bit i of a mask is rule i."""

    def __init__(
        self, rules: Iterable[tuple[Node, Folding | None]], *, state_cap: int = STATE_CAP
    ) -> None:
        nfa = _Nfa()
        for node, fold in rules:
            nfa.add(node, fold)
        sets = list(dict.fromkeys(edge[0] for edge in nfa.edge if edge is not None))
        starts, classes, holders = _partition(sets)
        self._width = len(holders)
        self._wide = self._width > 256
        self._table = ClassTable(starts, classes)
        self._ascii = b"" if self._wide else bytes(ord(self._table[at % 128]) for at in range(256))
        masks = _masks(sets, holders)
        closures: dict[int, tuple[frozenset[int], int]] = {}
        self._edges: list[tuple[int, frozenset[int], int]] = []
        for edge in nfa.edge:
            if edge is None:
                self._edges.append((0, frozenset(), 0))
                continue
            ranges, target = edge
            if target not in closures:
                closures[target] = nfa.closure(target)
            self._edges.append((masks[ranges], *closures[target]))
        self._owner = nfa.owner
        self._root = frozenset(x for root in nfa.roots for x in nfa.closure(root)[0])
        self._begun: dict[int, tuple[frozenset[int], int]] = {}
        self._cap = max(min(state_cap, CELL_CAP // max(self._width, 1)), 2)
        self._rows: dict[tuple[frozenset[int], int], Row] = {}
        self.flushes = self.soft_syncs = self.commits = 0
        self.empty = Row(self._width, frozenset(), 0, 0)
        self._rows[frozenset(), 0] = self.empty

    def classify(self, text: str) -> Sequence[int]:
        """The class of each character."""
        if self._ascii and text.isascii():
            return text.encode("ascii").translate(self._ascii)
        translated = text.translate(self._table)
        if self._wide:
            return [ord(c) for c in translated]
        return translated.encode("latin-1")

    def step(self, row: Row, cls: int) -> Row:
        """Build the transition that `row` does not have yet."""
        begun = self._begun.get(cls)
        if begun is None:
            begun = self._begun[cls] = self._moved(self._root, cls)
        live, ended = self._moved(row.live, cls)
        following = self._intern(live | begun[0], ended | begun[1])
        row.next[cls] = following
        return following

    def _moved(self, positions: frozenset[int], cls: int) -> tuple[frozenset[int], int]:
        live: set[int] = set()
        ended = 0
        bit = 1 << cls
        for x in positions:
            mask, target, finished = self._edges[x]
            if mask & bit:
                live |= target
                ended |= finished
        return frozenset(live), ended

    def _intern(self, live: frozenset[int], ended: int) -> Row:
        key = (live, ended)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= self._cap:
                self._flush()
            open_ = 0
            for x in live:
                open_ |= 1 << self._owner[x]
            row = self._rows[key] = Row(self._width, live, ended, open_)
        return row

    def _flush(self) -> None:
        for row in list(self._rows.values()):  # another thread may add to them
            row.next[:] = [None] * self._width
        self._rows.clear()
        self._rows[frozenset(), 0] = self.empty  # where every lane begins
        self.flushes += 1

    @property
    def states(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<Automaton {len(self._rows)} states, {self._width} classes>"


def _partition(sets: list[Ranges]) -> tuple[list[int], list[int], dict[tuple[int, ...], int]]:
    """Where a new class begins, which class that is, and of which sets each class is a part."""
    opens: dict[int, list[int]] = {}
    closes: dict[int, list[int]] = {}
    for index, ranges in enumerate(sets):
        for low, high in ranges:
            opens.setdefault(low, []).append(index)
            closes.setdefault(high + 1, []).append(index)
    cuts = sorted(cut for cut in {0, *opens, *closes} if cut <= LAST)
    holders: dict[tuple[int, ...], int] = {}
    classes: list[int] = []
    current: set[int] = set()
    for cut in cuts:
        current.difference_update(closes.get(cut, ()))
        current.update(opens.get(cut, ()))
        classes.append(holders.setdefault(tuple(sorted(current)), len(holders)))
    return cuts, classes, holders


def _masks(sets: list[Ranges], holders: dict[tuple[int, ...], int]) -> dict[Ranges, int]:
    masks = [0] * len(sets)
    for members, cls in holders.items():
        for index in members:
            masks[index] |= 1 << cls
    return dict(zip(sets, masks, strict=True))
