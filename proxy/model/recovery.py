"""A stream that died and the answer that goes on with it, in words (failover.md §10)."""

from dataclasses import dataclass
from typing import Literal, Protocol

Misfit = Literal["", "misfit", "diverged"]


@dataclass(frozen=True, slots=True)
class Released:
    """What the caller has of an answer.

    `text`: R.  `beside`: what else than text of one choice in one part he has (`tool_call`,
    `reasoning`, …); empty: nothing.  `closed`: he has seen that part end.
    """

    text: str
    beside: str = ""
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says about its answer: how many choices, whether with log probabilities,
    whether the model thinks first, whether it must call a tool."""

    choices: int = 1
    logprobs: bool = False
    thinks: bool = False
    tool_forced: bool = False


class Seam(Protocol):
    """Where two texts meet.  `passed`: all that comes now is new.  `fault`: they do not meet, and
    nothing of the second one may leave."""

    passed: bool
    fault: Misfit

    def take(self, piece: str) -> str:
        """What of a piece of the second text is new."""
        ...

    def ends(self) -> None:
        """Something else than text comes, or the end."""
        ...
