"""The words in which a breaker speaks: its states, why it changed, what a probe needs."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class State(StrEnum):
    CLOSED = "closed"
    LIMITED = "limited"  # closed, and its provider wants to be left alone: see `Standing.limited`
    OPEN = "open"
    PROBING = "probing"
    RAMP = "ramp"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a breaker opened: the code of failover.md §5, and what was seen beside its limit.
    `left_s`: of a hold, for how long nobody asks; `said`: by the operator who forced or released
    it."""

    code: str
    value: float = 0.0
    threshold: float = 0.0
    samples: int = 0
    left_s: float = 0.0
    said: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """From one state to another."""

    before: State
    after: State
    reason: Reason | None = None


class Claim(Protocol):
    """A permit that several processes were given, of which one uses it at a time.  Nothing here
    waits."""

    def take(self) -> bool:
        """False: another one has it."""
        ...

    def free(self) -> None:
        """What was taken, if it was; more than once is no fault."""
        ...


@dataclass(slots=True)
class Permit:
    """The leave to send one probe; it is gone at `deadline` whatever becomes of its holder."""

    deadline: float
    limit_s: float = 0.0
    slow: bool = False
    number: int = 0  # of the grant that it comes from
    verdict: str = ""  # what came of it: good, bad, hard, slow; empty: nothing that counts
    claim: Claim | None = None  # which is freed at its end


@dataclass(frozen=True, slots=True)
class Grant:
    """The leave to probe that another process gave; unused it is gone at `until`.  `claim`: what
    is taken first, because others were given the same one."""

    number: int
    until: float
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """How a breaker stands, as one process tells another (failover.md §11).

    There is no time of day in it, nor one of a clock: `ago_ms` it has been in that state,
    `left_ms` are left of OPEN or of what was forced, `opened_ago_ms` it was last seen healthy."""

    endpoint_id: str
    state: State
    version: int
    level: int = 0
    step: int = 0
    ago_ms: int = 0
    left_ms: int = 0
    opened_ago_ms: int = 0
    reason: Reason | None = None
