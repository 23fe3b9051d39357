"""Rules about an answer as a whole (guardrails.md §5.11): what it says must be JSON of a schema.

In charge of reading such rules and of what they find.  A text that breaks one has no span: the
whole of it is the finding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.guardrails.checks.schemas import Schema, SchemaFault
from proxy.guardrails.configs import JsonSchemaConfig
from proxy.guardrails.findings import Findings
from proxy.guardrails.matching import Break
from proxy.guardrails.redact import Hit
from proxy.guardrails.rules import RuleFacts
from proxy.guardrails.said import Said
from proxy.model.policy import Action

ACTIONS: Final[frozenset[Action]] = frozenset({"block", "flag", "log"})
Attempt = Callable[[Callable[[], list[Hit]]], "list[Hit] | Break"]


@dataclass(frozen=True, slots=True, eq=False)
class SchemaRule(RuleFacts):
    """An answer must be one JSON value that fits."""

    schema: Schema
    strip_fence: bool

    def broken_by(self, text: str) -> bool:
        """Raises TooManySteps."""
        return not self.schema.fits(text, strip_fence=self.strip_fence)


def read_schema(said: Said) -> SchemaRule | None:
    """The rule ready to run; None when it is refused, or has no schema yet."""
    config, action = said.config, said.action
    assert isinstance(config, JsonSchemaConfig), "the table says so"
    if action not in ACTIONS:
        reason = "A whole answer can be blocked, flagged or logged."
        said.refuse("action", "action_not_possible", reason)
    if said.reach.directions != {"response"}:
        reason = "Only answers have a schema: say scope.direction: response."
        said.refuse("scope.direction", "kind_not_possible", reason)
    if said.rule.pattern is not None:
        said.refuse("pattern", "extra_forbidden", "Kind json_schema has a schema.")
    if config.schema_ is None:
        return None
    try:
        schema = Schema(config.schema_)
    except SchemaFault as fault:
        said.refuse(f"config.schema{fault.where[:256]}", fault.code, fault.message)
        return None
    if schema.formats:
        said.report.warn(
            f"{said.where}.config.schema", "format_not_checked", "The keyword format is a note."
        )
    return SchemaRule(**said.facts_of_rule(), schema=schema, strip_fence=config.strip_fence)


def judge_texts(
    rules: Sequence[SchemaRule], texts: Sequence[str], draw: float, attempt: Attempt
) -> Findings:
    """What the rules find in the texts of an answer, one for each choice."""
    findings = Findings("response")
    for rule in rules:
        if draw < rule.sample_pct:
            for text in texts:
                _judge(rule, text, findings, attempt)
    return findings


def _judge(rule: SchemaRule, text: str, findings: Findings, attempt: Attempt) -> None:
    broken: list[bool] = []

    def look() -> list[Hit]:
        broken.append(rule.broken_by(text))
        return []

    fault = attempt(look)
    if isinstance(fault, Break):
        findings.broken([(rule, fault)], "text")
    elif broken[0]:
        findings.whole(rule, "text", len(text))
