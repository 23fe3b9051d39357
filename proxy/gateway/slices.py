"""Long texts of streams, in pieces between which others have their turn.

A lane lets the same out however its text was cut (guardrails.md §9.1), so it may be fed in slices.
"""

from collections.abc import Callable
from typing import Final

from proxy.guardrails.stream import Lane
from proxy.runtime.beside import breathe

SLICE_CHARS: Final = 1024


def _wanted() -> bool:
    return False


def fed_in_slices(lane: Lane, text: str, given_up: Callable[[], bool] = _wanted) -> str:
    """What leaves a lane that gets this text; nothing once it is `given_up`."""
    if len(text) <= SLICE_CHARS:
        return lane.feed(text)
    out: list[str] = []
    for at in range(0, len(text), SLICE_CHARS):
        breathe()
        if given_up():
            return ""
        out.append(lane.feed(text[at : at + SLICE_CHARS]))
    return "".join(out)
