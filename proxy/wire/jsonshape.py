"""What the shape of a parsed body tells: how deep it is, and whether all parsers read it alike.

Theory of the count.  Without escapes, a body holds two quotes for every string, name or value.  Of
a member that stands twice the parse has lost a string at least.  So when the strings of the parse
account for all the quotes, nothing was lost; when they do not, somebody has to look closer.  With
escapes, the quotes of the parse are counted where it is written anew.
"""

from collections.abc import Callable, Iterable
from typing import Final

from proxy.model.exchange import Json

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1


def is_unambiguous(
    body: bytes, doc: dict[str, Json], max_depth: int, write: Callable[[Json], bytes]
) -> bool:
    """Whether it is certain that `doc`, the parse of `body`, lost no member, holds no number beyond
    64 bits (orjson makes them floats) and has at most `max_depth` levels.  `write` makes JSON of
    it, with `\\"` for a quote inside of a string."""
    quotes = body.count(b'"')
    escapes = b"\\" in body
    anew = escapes and b"\\\\" in body  # is a quote behind two of them escaped?
    if escapes and not anew:
        quotes -= body.count(b'\\"')
    found: list[dict[str, Json] | list[Json]] = [doc]
    for node in found:  # which grows meanwhile
        children: Iterable[Json] = node
        if type(node) is dict:
            quotes -= 2 * len(node)
            children = node.values()
        for child in children:
            if type(child) is str:
                quotes -= 2
            elif type(child) is dict or type(child) is list:
                found.append(child)
            elif type(child) is float and not INT_MIN < child < INT_MAX:
                return False
    if len(found) > max_depth and deeper_than(doc, max_depth):
        return False
    if anew:
        return b"\\u0022" not in body and write(doc).count(b'"') == body.count(b'"')
    return quotes == 0


def opens_over(data: bytes, most: int) -> bool:
    """More than so many objects and arrays may begin in it.  `count` would look at each byte."""
    found = 0
    for opening in (b"{", b"["):
        place = data.find(opening)
        while place >= 0:
            found += 1
            if found > most:
                return True
            place = data.find(opening, place + 1)
    return False


def deeper_than(doc: Json, levels: int) -> bool:
    level: list[Json] = [doc]
    for _ in range(levels):
        level = [
            child
            for node in level
            for child in (
                node.values() if type(node) is dict else node if type(node) is list else ()
            )
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True
