"""What the tree of a pattern says about its matches, before any text is seen.

In charge of widths, of the literals that every match contains, and of the regex for *beginnings*:
all strings that a match may begin with, which tells where the oldest open match of a held text
stands.  Invariant: each answer errs to the safe side (wider, more often, unknown).
"""

from itertools import product
from typing import Final, assert_never

from proxy.guardrails.automaton import EXACT_COUNT
from proxy.guardrails.charset import Ranges, members
from proxy.guardrails.parse import Alt, Assert, Cat, Node, Rep, Set

MAX_LITERALS: Final = 64  # strings that one place may stand for
MAX_GATE: Final = 64  # characters of the literals of a gate
MAX_TAIL: Final = 4  # items of a gate behind its literals, and characters of each
MAX_CHAIN: Final = 64  # how deep a sequence may nest in the regex of its beginnings
_META: Final = frozenset("\\.+*?()|[]{}^$")


def min_width(node: Node) -> int:
    match node:
        case Set():
            return 1
        case Assert():
            return 0
        case Cat(items):
            return sum(min_width(item) for item in items)
        case Alt(branches):
            return min(min_width(branch) for branch in branches)
        case Rep(item, low, _):
            return min_width(item) * low
        case never:
            assert_never(never)


def max_width(node: Node) -> int | None:
    """None: without bound."""
    match node:
        case Set():
            return 1
        case Assert():
            return 0
        case Rep(item, _, high):
            inner = max_width(item)
            if inner == 0:
                return 0
            return None if high is None or inner is None else inner * high
        case Cat(items):
            widths = [max_width(item) for item in items]
            known = [width for width in widths if width is not None]
            return sum(known) if len(known) == len(widths) else None
        case Alt(branches):
            widths = [max_width(branch) for branch in branches]
            known = [width for width in widths if width is not None]
            return max(known) if len(known) == len(widths) else None
        case never:
            assert_never(never)


def positions(node: Node) -> int:
    """How many places of the automaton the pattern takes, about; folding doubles them."""
    match node:
        case Set():
            return 1
        case Assert():
            return 0
        case Cat(items) | Alt(items):
            return 1 + sum(positions(item) for item in items)
        case Rep(item, _, high):
            exact = high is not None and high <= EXACT_COUNT
            return positions(item) * ((high or 1) if exact else 2) + 2
        case never:
            assert_never(never)


def late_assertion(node: Node, leading: bool = True) -> bool:
    """An assertion can stand after a consumed character: the match hangs on its right context."""
    match node:
        case Set():
            return False
        case Assert():
            return not leading
        case Alt(branches):
            return any(late_assertion(branch, leading) for branch in branches)
        case Rep(item, _, high):
            again = high != 1
            return late_assertion(item, leading and not again) or (
                again and late_assertion(item, False)
            )
        case Cat(items):
            for item in items:
                if late_assertion(item, leading):
                    return True
                leading = leading and max_width(item) == 0
            return False
        case never:
            assert_never(never)


# ---- the literals that every match contains


def literals(node: Node) -> tuple[str, ...]:
    """Strings of which every match contains one, all of two characters or more; () when unknown.

    The best such place of the pattern: the longest shortest string, then the fewest.
    """
    return _required(node)[1]


def gate(node: Node) -> str:
    """A regex for a short piece that every match contains: its literals, and what is small behind
    them.  Far fewer texts hold `secret\\s?=` than `secret`.  "" when there are no literals."""
    words = literals(node)
    if not words:
        return ""
    items = node.items if isinstance(node, Cat) else (node,)
    for run, start, stop in _runs(items):
        if _useful(run) == words:
            return "".join(map(written, items[start:stop])) + _tail(items[stop:])
    for place, item in enumerate(items):
        width = max_width(item)
        if width is not None and width <= MAX_GATE and _required(item)[1] == words:
            return written(item) + _tail(items[place + 1 :])
    return "|".join(map(escaped, words))


def escaped(word: str) -> str:
    """A literal as a regex."""
    return "".join("\\" + c if c in _META else c for c in word)


def _tail(items: tuple[Node, ...]) -> str:
    """As much of what follows as is cheap to look for."""
    pattern = ""
    for item in items[:MAX_TAIL]:
        width = max_width(item)
        if width is None or width > MAX_TAIL:
            if isinstance(item, Rep) and isinstance(item.item, Set) and item.low:
                pattern += written(item.item)
            break
        pattern += written(item)
    return pattern


def implies(node: Node, words: tuple[str, ...]) -> bool:
    """Every match surely contains one of `words`, case ignored."""
    return _implies(node, ["".join(map(plain, word)) for word in words])


def plain(c: str) -> str:
    """One letter for all that RE2 takes for it when case is ignored."""
    folded = c.casefold()
    return folded if len(folded) == 1 else c


_Exact = tuple[str, ...] | None  # the whole language of a node, when it is small


def _better(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
    def worth(words: tuple[str, ...]) -> tuple[int, int]:
        return (min(map(len, words), default=0), -len(words))

    return max(a, b, key=worth)


def _useful(words: _Exact) -> tuple[str, ...]:
    return words if words and min(map(len, words)) >= 2 else ()


def _joined(left: _Exact, right: _Exact) -> _Exact:
    if left is None or right is None or len(left) * len(right) > MAX_LITERALS:
        return None
    return tuple(dict.fromkeys(a + b for a, b in product(left, right)))


def exact(node: Node) -> _Exact:
    """Every string the node matches, case folded, assertions aside; None: too many."""
    match node:
        case Set(ranges):
            small = members(ranges, MAX_LITERALS)
            return None if small is None else tuple(dict.fromkeys(map(plain, small)))
        case Assert():
            return ("",)
        case Cat(items):
            whole: _Exact = ("",)
            for item in items:
                whole = _joined(whole, exact(item))
            return whole
        case Alt(branches):
            found: list[str] = []
            for branch in branches:
                words = exact(branch)
                if words is None or len(found) + len(words) > MAX_LITERALS:
                    return None
                found += words
            return tuple(dict.fromkeys(found))
        case Rep(item, low, high):
            if high is None or high > 8:
                return None
            once, total = exact(item), [""] if low == 0 else []
            power: tuple[str, ...] = ("",)
            for count in range(1, high + 1):
                grown = _joined(power, once)
                if grown is None or len(total) + len(grown) > MAX_LITERALS:
                    return None
                power = grown
                if count >= low:
                    total += power
            return tuple(dict.fromkeys(total))
        case never:
            assert_never(never)


def _runs(items: tuple[Node, ...]) -> list[tuple[tuple[str, ...], int, int]]:
    """For each longest run of small neighbours in a sequence: all that it can be, and from which
    item to which it goes."""
    runs: list[tuple[tuple[str, ...], int, int]] = []
    current: tuple[str, ...] = ("",)
    start = 0
    for place, item in enumerate(items):
        words = exact(item)
        grown = _joined(current, words)
        if grown is None:
            runs.append((current, start, place))
            grown, start = (words, place) if words is not None else (("",), place + 1)
        current = grown
    runs.append((current, start, len(items)))
    return runs


def _required(node: Node) -> tuple[_Exact, tuple[str, ...]]:
    whole = exact(node)
    best = _useful(whole)
    match node:
        case Set() | Assert():
            pass
        case Rep(item, low, _):
            if low > 0:
                best = _better(best, _required(item)[1])
        case Cat(items):
            for run, _, _ in _runs(items):
                best = _better(best, _useful(run))
            for item in items:
                best = _better(best, _required(item)[1])
        case Alt(branches):
            each = [_required(branch)[1] for branch in branches]
            if all(each):
                best = _better(best, tuple(dict.fromkeys(word for words in each for word in words)))
        case never:
            assert_never(never)
    return whole, best


def _implies(node: Node, lowered: list[str]) -> bool:
    def each(words: _Exact) -> bool:
        return bool(words) and all(any(key in word for key in lowered) for word in words or ())

    if each(exact(node)):
        return True
    match node:
        case Set() | Assert():
            return False
        case Rep(item, low, _):
            return low > 0 and _implies(item, lowered)
        case Cat(items):
            runs = [run for run, _, _ in _runs(items)]
            return any(map(each, runs)) or any(_implies(item, lowered) for item in items)
        case Alt(branches):
            return all(_implies(branch, lowered) for branch in branches)
        case never:
            assert_never(never)


# ---- beginnings


def written(node: Node) -> str:
    """The node as a regex again, without assertions."""
    match node:
        case Set(ranges):
            return _written_set(ranges)
        case Assert():
            return ""
        case Cat(items):
            return "".join(map(written, items))
        case Alt(branches):
            return "(?:" + "|".join(map(written, branches)) + ")"
        case Rep(item, low, high):
            return f"(?:{written(item)}){{{low},{'' if high is None else high}}}"
        case never:
            assert_never(never)


def _written_set(ranges: Ranges) -> str:
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1] and 32 < ranges[0][0] < 127:
        c = chr(ranges[0][0])
        return "\\" + c if c in _META else c
    if not ranges:
        return r"[^\x{0}-\x{10ffff}]"
    return "[" + "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in ranges) + "]"


def beginnings(node: Node) -> str:
    """A regex for every string that can be the beginning of a match: nothing, a part, the whole.

    The whole counts, for a match that has just ended still waits for its right context.
    """
    match node:
        case Set(ranges):
            return _written_set(ranges) + "?"
        case Assert():
            return ""
        case Alt(branches):
            return "(?:" + "|".join(map(beginnings, branches)) + ")"
        case Rep(item, _, high):
            full, part = written(item), beginnings(item)
            if high is None:
                return f"(?:{full})*(?:{part})"
            if high == 0:
                return ""
            return f"(?:{full}){{0,{high - 1}}}(?:{part})" if high > 1 else f"(?:{part})?"
        case Cat(items):
            return _beginnings_of(tuple(i for i in items if not isinstance(i, Assert)))
        case never:
            assert_never(never)


def _beginnings_of(items: tuple[Node, ...]) -> str:
    """Part of the first, or all of it and part of what follows; halved where that nests too deep
    for RE2."""
    if len(items) > MAX_CHAIN:
        half = len(items) // 2
        left, right = items[:half], items[half:]
        return f"(?:{_beginnings_of(left)}|{''.join(map(written, left))}{_beginnings_of(right)})"
    pattern = ""
    for item in reversed(items):
        if isinstance(item, Set):
            pattern = f"(?:{written(item)}{pattern})?"
        else:
            pattern = f"(?:{beginnings(item)}|{written(item)}{pattern})"
    return pattern


def opening(node: Node) -> str:
    """The assertions that every match must satisfy where it begins."""
    match node:
        case Assert(text):
            return text
        case Cat(items):
            out = ""
            for item in items:
                out += opening(item)
                if max_width(item) != 0:
                    break
            return out
        case Set() | Alt() | Rep():
            return ""
        case never:
            assert_never(never)
