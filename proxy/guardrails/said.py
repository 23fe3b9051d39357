"""What a pack says about one rule, on its way to be read by its kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from proxy.guardrails.checks.validators import Validator
from proxy.guardrails.configs import Config
from proxy.guardrails.faults import Report
from proxy.guardrails.rules import PackFacts, Reach
from proxy.model.documents import Severity
from proxy.model.policy import Action, Kind, OnError, PolicyPack, Rule


class CommonFacts(TypedDict):
    """The members of `RuleFacts`, which every kind has."""

    pack: PackFacts
    rule_id: str
    severity: Severity
    action: Action
    shadow: bool
    on_error: OnError
    detector: str
    confidence: float
    message: str | None
    order: int
    reach: Reach
    sample_pct: float
    reroute_to: tuple[str, ...]


@dataclass(slots=True)
class Said:
    """`words`: the term list that a placeholder names.  `where`: the rule's path in its pack, for
    the `report`."""

    rule: Rule
    kind: Kind
    config: Config
    words: list[str] | None
    index: int
    where: str
    pack: PolicyPack
    facts: PackFacts
    reach: Reach
    validators: Mapping[str, Validator]
    hold_max: int
    report: Report
    reroute_to: tuple[str, ...] = ()

    @property
    def action(self) -> Action:
        return self.rule.action or self.pack.default_action

    @property
    def shadow(self) -> bool:
        return (self.rule.mode or self.pack.mode) == "shadow"

    def refuse(self, member: str, code: str, message: str, position: int | None = None) -> None:
        """A fault of a member of the rule (`config.url`)."""
        self.report.refuse(f"{self.where}.{member}", code, message, position)

    def facts_of_rule(self) -> CommonFacts:
        """What the rule says of itself, its defaults filled in."""
        rule = self.rule
        return {
            "pack": self.facts,
            "rule_id": rule.rule_id,
            "severity": rule.severity,
            "action": self.action,
            "shadow": self.shadow,
            "on_error": rule.on_error or self.pack.on_error,
            "detector": self.kind,
            "confidence": 1.0 if rule.confidence is None else rule.confidence,
            "message": rule.message,
            "order": self.index,
            "reach": self.reach,
            "sample_pct": rule.sample_pct,
            "reroute_to": self.reroute_to,
        }
