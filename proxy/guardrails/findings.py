"""What was found, counted for the record: one result per (rule, part), strongest first.

In charge of the words of a policy result (guardrails.md §11).  The matched text stands nowhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.guardrails.matching import Break
from proxy.guardrails.redact import Hit
from proxy.guardrails.rules import LiveRule, RuleFacts
from proxy.guardrails.scoring import Score
from proxy.model.exchange import Direction, Part
from proxy.model.policy import Action, ActionTaken, PolicyResult, Verdict

MAX_RESULTS: Final = 50


@dataclass(slots=True)
class Finding:
    """`stopped`: a rewrite that was not possible there and became a block.  `acts`: enough was
    found for the rule's action; else the hit is only logged."""

    rule: RuleFacts
    part: Part
    verdict: Verdict
    start: int
    end: int
    confidence: float
    count: int = 0
    stopped: bool = False
    acts: bool = True
    fault: str | None = None

    @property
    def blocks(self) -> bool:
        if self.verdict != "violation":
            return self.verdict == "error"
        return self.rule.enforces and (self.stopped or (self.acts and self.rule.action == "block"))

    @property
    def weight(self) -> tuple[bool, bool, bool, tuple[int, int, int, int]]:
        return not self.blocks, self.rule.shadow, self.verdict == "bypassed", self.rule.rank


class Findings:
    """The findings of one direction, or of one lane."""

    __slots__ = ("_direction", "_found")

    def __init__(self, direction: Direction) -> None:
        self._direction = direction
        self._found: dict[tuple[int, Part, Verdict], Finding] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def hit(self, hit: Hit, part: Part, base: int = 0, *, rewritable: bool = True) -> Finding:
        """Count a hit; `base` moves its offsets to the whole leaf or lane."""
        rule, start, end, count = hit.rule, base + hit.start, base + hit.end, hit.count
        finding = self.found(rule, part, start, end, hit.confidence, count, rewritable=rewritable)
        finding.acts = hit.acts or (finding.acts and finding.count > count)
        return finding

    def found(
        self,
        rule: RuleFacts,
        part: Part,
        start: int,
        end: int,
        confidence: float,
        count: int = 1,
        *,
        rewritable: bool = True,
    ) -> Finding:
        """Count findings of any kind of rule.  Not `rewritable`: a rewrite there is a block."""
        finding = self._of(rule, part, "violation", start, end, count)
        first = finding.count == count
        finding.confidence = confidence if first else max(finding.confidence, confidence)
        finding.stopped = finding.stopped or (rule.rewrites and not rewritable)
        return finding

    def whole(self, rule: RuleFacts, part: Part, chars: int) -> Finding:
        """Count a text of so many characters that is wrong as a whole."""
        return self._of(rule, part, "violation", 0, chars)

    def broken(self, breaks: Sequence[tuple[RuleFacts, Break]], part: Part) -> Finding | None:
        """Count checks that broke; the finding of the first that must block."""
        first = None
        for rule, fault in breaks:
            acts = rule.enforces or rule.exempts or rule.reroutes
            blocks = rule.on_error == "block" and acts
            finding = self._of(rule, part, "error" if blocks else "bypassed", 0, 0)
            finding.fault = fault.fault
            first = first or (finding if blocks else None)
        return first

    def passed_unseen(self, rule: RuleFacts, part: Part, start: int, end: int) -> None:
        """A rule could not be settled and the text left all the same."""
        self._of(rule, part, "bypassed", start, end).fault = "overflow"

    def _of(
        self, rule: RuleFacts, part: Part, verdict: Verdict, start: int, end: int, count: int = 1
    ) -> Finding:
        key = (id(rule), part, verdict)
        finding = self._found.get(key)
        if finding is None:
            found = Finding(rule, part, verdict, start, end, rule.confidence)
            finding = self._found[key] = found
        finding.count += count
        return finding

    def settle(self, score: Score) -> None:
        """The text is whole: what is counted acts, or is logged."""
        for finding in self._found.values():
            if isinstance(finding.rule, LiveRule):
                finding.acts = score.reached(finding.rule)

    @property
    def flagged(self) -> bool:
        flags = [f for f in self._found.values() if f.rule.action == "flag" and f.acts]
        return any(not finding.rule.shadow for finding in flags)

    def reroute(self) -> tuple[str, ...]:
        """Where the strongest rerouting rule that hit wants the request; empty without one."""
        hits = [f for f in self._found.values() if f.verdict == "violation" and f.rule.reroutes]
        strongest = min(hits, key=lambda finding: finding.rule.rank, default=None)
        return strongest.rule.reroute_to if strongest is not None else ()

    def strongest_block(self) -> Finding | None:
        blocking = [finding for finding in self._found.values() if finding.blocks]
        return min(blocking, key=lambda finding: finding.weight, default=None)

    def results(self) -> list[PolicyResult]:
        ordered = sorted(self._found.values(), key=lambda finding: finding.weight)
        return [self.result(finding) for finding in ordered[:MAX_RESULTS]]

    def result(self, finding: Finding) -> PolicyResult:
        rule = finding.rule
        return PolicyResult(
            policy_id=rule.pack.policy_id,
            verdict=finding.verdict,
            rule_matched=rule.rule_id,
            confidence=finding.confidence,
            action_taken=_action_taken(finding),
            policy_version=rule.pack.version,
            severity=rule.severity,
            applies_to=finding.part,
            direction=self._direction,
            span_start=finding.start,
            span_end=finding.end,
            count=finding.count,
            enforced=not rule.shadow,
            detector=rule.detector,
            message=_remark(finding),
        )


def _action_taken(finding: Finding) -> ActionTaken:
    if finding.blocks:
        return "block"
    if finding.rule.shadow or finding.verdict == "bypassed":
        return "none"
    return _effective(finding)


def _remark(finding: Finding) -> str | None:
    if finding.fault is not None:
        return finding.fault
    if finding.rule.shadow:
        return f"would {'block' if finding.stopped else _effective(finding)}"
    return finding.rule.message


def _effective(finding: Finding) -> Action:
    return finding.rule.action if finding.acts else "log"


def sentence(finding: Finding, direction: Direction) -> str:
    """What a caller reads on a block (guardrails.md §10), without the request id."""
    if finding.verdict == "error":
        return f"The {direction} could not be checked and was blocked."
    return finding.rule.pack.message or f"The {direction} was blocked by a content policy."
