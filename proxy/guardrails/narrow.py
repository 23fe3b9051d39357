"""A short regex that every match contains, for patterns without literals.

In charge of the prefilter of rules made of digits and signs: a text without `\\d{9}` has no match
of `\\b\\d{9}\\b`, and one pass over the text finds out for all rules.  Errs to the safe side: a
gate is looser than its pattern, or there is none.
"""

from typing import Final

from proxy.guardrails.charset import members
from proxy.guardrails.parse import Alt, Assert, Cat, Node, Rep, Set
from proxy.guardrails.shape import max_width, written

MEMBERS: Final = 12  # of a set that few characters belong to
WIDTH: Final = 16  # characters of a gate
RARE: Final = 0.05  # share of places in a text that the gate may fit by chance
_SIGNS: Final = 96


def narrow(node: Node) -> str:
    """The rarest such piece as a regex; "" when every piece is common."""
    best, share = "", RARE
    items = node.items if isinstance(node, Cat) else (node,)
    for start in range(len(items)):
        piece = _piece(items[start:])
        if piece is not None and (found := _share(piece)) < share:
            best, share = written(piece), found
    for item in items:
        if isinstance(item, Rep) and item.low and isinstance(item.item, (Cat, Rep)):
            inner = narrow(item.item)
            if inner and not best:
                best = inner
    return best


def _piece(items: tuple[Node, ...]) -> Node | None:
    """As many items from the first on as are narrow and short."""
    taken: list[Node] = []
    room = WIDTH
    for item in items:
        if isinstance(item, Assert):
            continue
        short = _shortened(item, room)
        if short is None:
            break
        taken.append(short)
        room -= max_width(short) or 0
        if short is not item:  # cut short: what follows does not touch it
            break
    return Cat(tuple(taken)) if taken else None


def _shortened(item: Node, room: int) -> Node | None:
    """The item, or as many repetitions of it as there is room for; None: it is not narrow."""
    if not _is_narrow(item):
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


def _is_narrow(node: Node) -> bool:
    match node:
        case Set(ranges):
            return bool(ranges) and members(ranges, MEMBERS) is not None
        case Cat(items) | Alt(items):
            return all(map(_is_narrow, items))
        case Rep(item, _, _):
            return _is_narrow(item)
        case _:
            return True


def _share(node: Node) -> float:
    """How likely the node fits at some place, roughly; of what is optional nothing counts."""
    match node:
        case Set(ranges):
            return sum(high - low + 1 for low, high in ranges) / _SIGNS
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
