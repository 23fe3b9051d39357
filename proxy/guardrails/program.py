"""Rules and their automaton, ready for lanes; and the limits of what a lane may hold.

In charge of what all lanes of a kind share.  A program is built once per snapshot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.guardrails.automaton import STATE_CAP, Automaton
from proxy.guardrails.matching import RuleSet
from proxy.guardrails.rules import LiveRule


@dataclass(frozen=True, slots=True)
class Limits:
    """`grid`: distance of checkpoints; `hold_max`: longest undecided candidate; `swallow_max`:
    longest committed match that is kept for its exact end.  All in characters."""

    grid: int = 32
    hold_max: int = 512
    swallow_max: int = 65_536
    overflow: Literal["strict", "release"] = "strict"
    state_cap: int = STATE_CAP


class Program:
    """Rules and their automaton, shared by all lanes of a kind."""

    __slots__ = ("automaton", "limits", "rules")

    def __init__(self, rules: RuleSet, limits: Limits) -> None:
        self.rules = rules
        self.automaton: Automaton = rules.automaton(limits.state_cap)
        self.limits = limits


def lane_rules(rules: Sequence[LiveRule]) -> tuple[list[LiveRule], list[LiveRule]]:
    """Those of an enforcing lane and those of a watching one; exempting rules stand in both."""
    enforcing = [rule for rule in rules if rule.enforces]
    watching = [rule for rule in rules if not rule.enforces and not rule.exempts]
    exempting = [rule for rule in rules if rule.exempts]
    return (
        enforcing + exempting if enforcing else [],
        watching + exempting if watching else [],
    )
