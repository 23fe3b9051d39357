"""Families of rules that were hit, counted: how much of a pack must hit before it acts.

In charge of `scoring: {mode: sum}` (guardrails.md §5.6): below `block_at` different families a hit
is logged, whatever its action says.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from proxy.guardrails.redact import Hit
from proxy.guardrails.rules import LiveRule

ENCODED: Final = "encoded"  # the family of what is too long to be decoded

_Key = tuple[str, bool, bool]


class Score:
    """The families seen in one request, or in one lane of an answer.

    In an answer rules that may block are counted among themselves, for they alone are known when
    text leaves.  Rules in shadow are counted among themselves everywhere.
    """

    __slots__ = ("_lane", "_seen")

    def __init__(self, *, lane: bool) -> None:
        self._lane = lane
        self._seen: dict[_Key, set[str]] = {}

    def count(self, hits: Sequence[Hit]) -> None:
        """Take the hits of the next piece of text, and tell each whether it acts: the one that
        reaches the score does, and all that stand behind it."""
        counted = [hit for hit in hits if hit.rule.tally is not None]
        for hit in sorted(counted, key=lambda hit: (hit.start, hit.rule.rank)):
            tally = hit.rule.tally
            assert tally is not None
            self._seen.setdefault(self._key(hit.rule), set()).add(hit.family or tally.family)
            hit.acts = self.reached(hit.rule)

    def reached(self, rule: LiveRule) -> bool:
        """Enough families were seen for this rule to act; always so when it is not counted."""
        tally = rule.tally
        return tally is None or len(self._seen.get(self._key(rule), ())) >= tally.block_at

    def _key(self, rule: LiveRule) -> _Key:
        return rule.pack.policy_id, rule.shadow, self._lane and rule.enforces


def counts(rules: Iterable[LiveRule]) -> bool:
    """Hits of some of these rules are counted."""
    return any(rule.tally is not None for rule in rules)
