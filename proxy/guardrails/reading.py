"""One rule of a pack, read: its members checked, its defaults filled in, made ready to run.

In charge of guardrails.md §3.1: what holds for every kind stands here, what a kind looks with is
read by the reader of its kind (`READERS`).  What this version cannot do is refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from proxy.guardrails.checks.validators import Validator
from proxy.guardrails.configs import CONFIGS, config_of
from proxy.guardrails.external import read_external
from proxy.guardrails.faults import Report
from proxy.guardrails.gated import read_limits, read_model_access, read_tool_permission
from proxy.guardrails.patterned import read_patterned
from proxy.guardrails.placeholders import undoable
from proxy.guardrails.rerouting import MEMBER, REQUESTS, check_scope, read_targets
from proxy.guardrails.rules import PackFacts, Reach, RuleFacts
from proxy.guardrails.said import Said
from proxy.guardrails.whole import read_schema
from proxy.model.exchange import Direction, Part, Role
from proxy.model.policy import Kind, PolicyPack, Rule, Scope

READERS: Final[dict[Kind, Callable[[Said], RuleFacts | None]]] = {
    "terms": read_patterned,
    "regex": read_patterned,
    "secret": read_patterned,
    "pii": read_patterned,
    "unicode": read_patterned,
    "tool_permission": read_tool_permission,
    "model_access": read_model_access,
    "limits": read_limits,
    "json_schema": read_schema,
    "injection": read_patterned,
    "topic": read_patterned,
    "url": read_patterned,
    "external": read_external,
}
_ROLE_NAMES: Final[dict[str, Role]] = {"developer": "system", "function": "tool"}
_DIRECTIONS: Final[dict[str, frozenset[Direction]]] = {
    "request": frozenset({"request"}),
    "in": frozenset({"request"}),
    "response": frozenset({"response"}),
    "out": frozenset({"response"}),
    "both": frozenset({"request", "response"}),
}


@dataclass(slots=True)
class RuleReader:
    """Reads the rules of one pack.  `hold_max`: what a stream may hold of an exempting rule.
    `reasoning`: some pack of the route scans the reasoning of answers (guardrails.md §2)."""

    pack: PolicyPack
    facts: PackFacts
    validators: Mapping[str, Validator]
    hold_max: int
    report: Report
    reasoning: bool = True

    def read(self, index: int) -> RuleFacts | None:
        """The rule ready to run; None when it is switched off, inert, or refused."""
        rule = self.pack.rules[index]
        where = f"rules[{index}]"
        known = len(self.report.faults)
        kind: Kind = rule.kind or "regex"
        words = self._placeholder(rule, where)
        if words is not None:
            if not words:
                return None  # inert
            kind = "terms"
        self._refuse_unbuilt(rule, kind, where)
        own: dict[str, object] = rule.config
        targets: tuple[str, ...] = ()
        if self._reroutes(rule):
            targets = read_targets(rule, where, self.report)
            own = {name: value for name, value in own.items() if name != MEMBER}
        config = config_of(kind, own, where, self.report) if kind in CONFIGS else None
        if config is None or len(self.report.faults) > known:
            return None
        said = Said(
            rule=rule,
            kind=kind,
            config=config,
            words=words,
            index=index,
            where=where,
            pack=self.pack,
            facts=self.facts,
            reach=self._reach(rule),
            validators=self.validators,
            hold_max=self.hold_max,
            report=self.report,
            reroute_to=targets,
        )
        live = READERS[kind](said)
        if len(self.report.faults) > known or rule.enabled is False:
            return None
        return live

    # ---- what is refused

    def _placeholder(self, rule: Rule, where: str) -> list[str] | None:
        """The term list that a placeholder such as `[regulated terms]` names; [] when missing."""
        name = _placeholder_name(rule)
        if name is None:
            return None
        found = self.pack.lists.get(name, [])
        becomes = "is read as the term list of that name"
        if not found:
            becomes += ", which the pack does not have: the rule is inert"
        self.report.warn(
            f"{where}.pattern", "pattern_looks_like_placeholder", f"[{name}] {becomes}."
        )
        if not found:
            self.report.warn(f"{where}.pattern", "list_missing", f"The pack has no list {name}.")
        return found

    def _refuse_unbuilt(self, rule: Rule, kind: Kind, where: str) -> None:
        refuse = self.report.refuse
        if kind not in READERS:
            refuse(f"{where}.kind", "kind_not_possible", f"Kind {kind} is not built yet.")
        if self._reroutes(rule):
            check_scope(rule, self.pack, where, self.report)
        action, scope = rule.action or self.pack.default_action, rule.scope or self.pack.scope
        if rule.reversible and not undoable(action, (scope or Scope()).direction):
            why = "Only what action redact takes out of a request can be put back."
            refuse(f"{where}.reversible", "action_not_possible", why)
        if rule.sample_pct < 100 and (rule.mode or self.pack.mode) != "shadow":
            refuse(
                f"{where}.sample_pct",
                "sample_on_enforcing_rule",
                "Sampling is for shadow rules only.",
            )
        if rule.timeout_ms is not None and kind != "external":
            refuse(
                f"{where}.timeout_ms",
                "kind_not_possible",
                "A timeout is for external checks; this kind is bounded by construction.",
            )
        if rule.validator is not None and rule.validator not in self.validators:
            known = ", ".join(sorted(self.validators))
            refuse(
                f"{where}.validator",
                "unknown_validator",
                f"No validator {rule.validator}; there are: {known}.",
            )

    def _reroutes(self, rule: Rule) -> bool:
        return (rule.action or self.pack.default_action) == "reroute"

    def _reach(self, rule: Rule) -> Reach:
        scope = rule.scope or self.pack.scope
        if scope is None:
            scope = REQUESTS if self._reroutes(rule) else Scope()
            if rule.kind == "json_schema":
                scope = Scope(direction="response")
        return Reach(
            directions=_DIRECTIONS[scope.direction],
            roles=None if scope.roles is None else frozenset(map(_role, scope.roles)),
            parts=None if scope.parts is None else frozenset[Part](scope.parts),
            latest_only=scope.turns == "latest",
            reasoning=self.reasoning,
        )


def _role(name: str) -> Role:
    return _ROLE_NAMES.get(name) or cast(Role, name)


def _placeholder_name(rule: Rule) -> str | None:
    text = rule.pattern
    if rule.kind is not None or not isinstance(text, str) or text[:1] + text[-1:] != "[]":
        return None
    name = text[1:-1]
    letters = sum(c.isalpha() for c in name)
    plain = all(c.isalpha() or c == " " for c in name)
    return name if plain and letters >= 8 and " " in name.strip() else None
