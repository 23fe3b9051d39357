"""A short regex that every match contains, for patterns without literals.

In charge of the prefilter of rules made of digits and signs: a text without `\\d{9}` has no match
of `\\b\\d{9}\\b`, and one pass over the text finds out for all rules.  Errs to the safe side: a
gate is looser than its pattern, or there is none.

Theory.  All gates run as one automaton, and runs of digits that several of them cut differently
make it explode on digits: each place of a run is another place of each gate.  So a long run is
asked for by the number of its digits alone, signs between them allowed: such gates are one inside
the other, and their states are but one count.
"""

from dataclasses import dataclass
from typing import Final

from proxy.guardrails.charset import DIGIT, Ranges, members, merge, of
from proxy.guardrails.parse import Alt, Assert, Cat, Node, Rep, Set
from proxy.guardrails.shape import max_width, written

MEMBERS: Final = 12  # of a set that few characters belong to
WIDTH: Final = 16  # characters of a gate
WIDE_MEMBERS: Final = 64  # of any set in a gate of WIDE_WIDTH characters
WIDE_WIDTH: Final = 10
RARE: Final = 0.05  # share of places in a text that the gate may fit by chance
RUN: Final = range(5, 13)  # digits of a gate that counts nothing else
FAR: Final = 24  # items of a pattern in which a run of digits is looked for
GAP: Final = 2  # signs between two digits of a run
OFTEN: Final = 0.9  # the share of any set of letters
_BETWEEN: Final = of(" ()+-./")
_IN_RUN: Final = merge([*DIGIT, *_BETWEEN])


def narrow(node: Node) -> str:
    """The rarest such piece as a regex; "" when every piece is common."""
    items = node.items if isinstance(node, Cat) else (node,)
    runs = [_run(item) for item in items]
    run = max((_digits(runs[start : start + FAR]) for start in range(len(runs))), default=0)
    if run >= RUN.start:
        count = min(run, RUN.stop - 1) - 1
        return f"(?:[0-9][ ()+./-]{{0,{GAP}}}){{{count}}}[0-9]"
    best, share = "", RARE
    for start in range(len(items)):
        for most, room in ((MEMBERS, WIDTH), (WIDE_MEMBERS, WIDE_WIDTH)):
            piece = _piece(items[start:], most, room)
            if piece is not None and (found := _share(piece)) < share:
                best, share = written(piece), found
    for item in items:
        if isinstance(item, Rep) and item.low and isinstance(item.item, (Cat, Rep)):
            inner = narrow(item.item)
            if inner and not best:
                best = inner
    return best


# ---- runs of digits


def is_number(word: str) -> bool:
    """A literal of digits: a poor one, for long numbers are rarer than any of their parts."""
    return set(word) <= set("0123456789 ()+-./") and any(map(str.isdigit, word))


@dataclass(frozen=True, slots=True)
class _Run:
    """What a node made of digits and signs matches.  `digits`: at least so many.  Signs, at most:
    `before` the first digit, `after` the last, `between` two; `bare` (None: there is always a
    digit) in all where there is no digit."""

    digits: int
    before: int
    after: int
    between: int
    bare: int | None


_NOTHING: Final = _Run(0, 0, 0, 0, 0)
_TOO_MANY: Final = 99


def _digits(runs: list[_Run | None]) -> int:
    """How many digits stand, at least, in what the first of the runs match, close together; more
    than a gate counts are not looked for."""
    run, best = _NOTHING, 0
    for each in runs:
        if each is None:
            break
        run = _joined(run, each)
        if run.between > GAP:
            break
        best = run.digits
        if best >= RUN.stop:
            break
    return best


def _run(node: Node) -> _Run | None:
    """None: other characters belong to it."""
    match node:
        case Assert():
            return _NOTHING
        case Set(ranges):
            if not ranges or merge([*ranges, *_IN_RUN]) != _IN_RUN:
                return None
            if merge([*ranges, *DIGIT]) == DIGIT:
                return _Run(1, 0, 0, 0, None)
            return _Run(0, 0, 0, 0, 1)
        case Cat(items):
            whole: _Run | None = _NOTHING
            for item in items:
                each = _run(item)
                whole = None if each is None or whole is None else _joined(whole, each)
            return whole
        case Alt(branches):
            runs = [_run(branch) for branch in branches]
            found = [run for run in runs if run is not None]
            return _either(found) if len(found) == len(runs) else None
        case Rep(item, low, high):
            each = _run(item)
            return None if each is None else _repeated(each, low, high)


def _joined(a: _Run, b: _Run) -> _Run:
    return _Run(
        a.digits + b.digits,
        a.before if a.bare is None else max(a.before, a.bare + b.before),
        b.after if b.bare is None else max(b.after, b.bare + a.after),
        max(a.between, b.between, a.after + b.before),
        None if a.bare is None or b.bare is None else a.bare + b.bare,
    )


def _either(runs: list[_Run]) -> _Run:
    bare = [run.bare for run in runs if run.bare is not None]
    return _Run(
        min(run.digits for run in runs),
        max(run.before for run in runs),
        max(run.after for run in runs),
        max(run.between for run in runs),
        max(bare, default=None),
    )


def _repeated(each: _Run, low: int, high: int | None) -> _Run:
    times = _TOO_MANY if high is None else high
    if each.bare is not None:
        bare = each.bare * times
        around = max(each.before, each.after) + bare
        return _Run(each.digits * low, around, around, 2 * around, bare)
    between = each.between if times < 2 else max(each.between, each.after + each.before)
    return _Run(each.digits * low, each.before, each.after, between, 0 if low == 0 else None)


# ---- pieces


def _piece(items: tuple[Node, ...], most: int, room: int) -> Node | None:
    """As many items from the first on as are narrow and short."""
    taken: list[Node] = []
    for item in items:
        if isinstance(item, Assert):
            continue
        short = _shortened(item, most, room)
        if short is None:
            break
        taken.append(short)
        room -= max_width(short) or 0
        if short is not item:  # cut short: what follows does not touch it
            break
    return Cat(tuple(taken)) if taken else None


def _shortened(item: Node, most: int, room: int) -> Node | None:
    """The item, or as many repetitions of it as there is room for; None: it is not narrow."""
    if not _is_narrow(item, most):
        return None
    width = max_width(item)
    if width is not None and width <= room:
        return item
    if isinstance(item, Rep) and item.low:
        each = max_width(item.item)
        times = min(item.low, room // each) if each else 0
        if times:
            return Rep(item.item, times, times)
    return None


def _is_narrow(node: Node, most: int) -> bool:
    match node:
        case Set(ranges):
            return bool(ranges) and members(ranges, most) is not None
        case Cat(items) | Alt(items):
            return all(_is_narrow(item, most) for item in items)
        case Rep(item, _, _):
            return _is_narrow(item, most)
        case _:
            return True


def _share(node: Node) -> float:
    """How likely the node fits at some place, roughly; of what is optional nothing counts."""
    match node:
        case Set(ranges):
            return min(OFTEN, sum(map(_weight, _ascii(ranges))))
        case Cat(items):
            share = 1.0
            for item in items:
                share *= _share(item)
            return share
        case Alt(branches):
            return min(1.0, sum(map(_share, branches)))
        case Rep(item, low, _):
            return _share(item) ** low
        case _:
            return 1.0


def _ascii(ranges: Ranges) -> list[str]:
    return [chr(code) for low, high in ranges for code in range(low, min(high, 127) + 1)]


def _weight(c: str) -> float:
    """How often a character is this one, in prose and code, roughly."""
    if c == " ":
        return 0.2
    if c in ".,-":
        return 0.02
    return 0.035 if c.islower() else 0.01 if c.isdigit() else 0.004
