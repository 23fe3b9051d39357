"""One rule of a pack, read: its members checked, its defaults filled in, its pattern compiled.

In charge of guardrails.md §3.1 for the kinds and actions of this version (`terms`, `regex`,
`secret`, `pii`, `unicode`; block, redact, replace, flag, log, allow).  All else is refused by name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from proxy.guardrails import shape
from proxy.guardrails.checks import secrets, terms, unicode
from proxy.guardrails.checks.context import ContextWords
from proxy.guardrails.checks.pattern import PatternFault, allow_check, compiled, compiled_terms
from proxy.guardrails.checks.steps import check_of
from proxy.guardrails.checks.validators import Validator
from proxy.guardrails.faults import Report
from proxy.guardrails.fold import Folding, folding
from proxy.guardrails.rules import LiveRule, PackFacts, Pattern, Reach
from proxy.model.exchange import Direction, Part, Role
from proxy.model.policy import Action, Kind, PolicyPack, Rule, Scope

BUILT_KINDS: Final[frozenset[Kind]] = frozenset({"terms", "regex", "secret", "pii", "unicode"})
_CONFIG: Final[dict[Kind, frozenset[str]]] = {
    "terms": frozenset({"list", "boundary", "gaps"}),
    "pii": frozenset({"entity"}),
    "unicode": frozenset({"class"}),
}
_ENTITY: Final = re.compile(r"[A-Z][A-Z0-9_]{0,23}", re.ASCII)
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
    """Reads the rules of one pack.  `hold_max`: what a stream may hold of an exempting rule."""

    pack: PolicyPack
    facts: PackFacts
    validators: Mapping[str, Validator]
    hold_max: int
    report: Report

    def read(self, index: int) -> LiveRule | None:
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
        if len(self.report.faults) > known:
            return None
        try:
            pattern = self._pattern(rule, kind, where, words)
        except PatternFault as fault:
            several = isinstance(rule.pattern, list) and kind != "terms"
            field = f"{where}.pattern[{fault.index}]" if several else f"{where}.pattern"
            self.report.refuse(field, fault.code, fault.message, fault.position)
            return None
        if pattern is None:
            return None
        live = self._assembled(rule, kind, index, pattern, where)
        if len(self.report.faults) > known:
            return None
        enabled = rule.enabled if rule.enabled is not None else True
        if live is None or not enabled:
            return None
        likeliest = live.confidence + (live.context.boost if live.context else 0)
        if likeliest < rule.threshold:
            self.report.warn(
                where, "never_hits", "The rule's confidence is below its threshold: it never hits."
            )
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
        return found

    def _refuse_unbuilt(self, rule: Rule, kind: Kind, where: str) -> None:
        refuse = self.report.refuse
        if kind not in BUILT_KINDS:
            refuse(f"{where}.kind", "kind_not_possible", f"Kind {kind} is not built yet.")
        action = rule.action or self.pack.default_action
        if action == "reroute":
            field = f"{where}.action" if rule.action else "default_action"
            refuse(field, "action_not_possible", "Action reroute is not built yet.")
        if rule.reversible:
            refuse(
                f"{where}.reversible",
                "action_not_possible",
                "Reversible placeholders are not built yet.",
            )
        if rule.sample_pct < 100:
            shadow = (rule.mode or self.pack.mode) == "shadow"
            code = "kind_not_possible" if shadow else "sample_on_enforcing_rule"
            reason = "is not built yet" if shadow else "is for shadow rules only"
            refuse(f"{where}.sample_pct", code, f"Sampling {reason}.")
        if rule.timeout_ms is not None:
            refuse(
                f"{where}.timeout_ms",
                "kind_not_possible",
                "A timeout is for external checks; this kind is bounded by construction.",
            )
        for member in rule.config:
            if member not in _CONFIG.get(kind, ()):
                refuse(f"{where}.config.{member}", "extra_forbidden", f"Kind {kind} has no such.")
        entity = rule.config.get("entity", "X")
        if kind == "pii" and not (isinstance(entity, str) and _ENTITY.fullmatch(entity)):
            refuse(f"{where}.config.entity", "pattern", "An entity is upper case, like a label.")
        if rule.validator is not None and rule.validator not in self.validators:
            known = ", ".join(sorted(self.validators))
            refuse(
                f"{where}.validator",
                "unknown_validator",
                f"No validator {rule.validator}; there are: {known}.",
            )

    # ---- the pattern

    def _pattern(
        self, rule: Rule, kind: Kind, where: str, words: list[str] | None
    ) -> Pattern | None:
        fold = _folding(rule, kind)
        ignore_case = fold is not None or (rule.case or _default_case(kind)) == "ignore"
        if kind == "terms":
            return self._terms(rule, where, words, ignore_case, fold)
        if kind == "unicode":
            return self._characters(rule, where)
        if rule.pattern is None:
            self.report.refuse(f"{where}.pattern", "missing", f"Kind {kind} needs a pattern.")
            return None
        texts = (rule.pattern,) if isinstance(rule.pattern, str) else tuple(rule.pattern)
        pattern = compiled(texts, ignore_case, fold)
        return self._with_keywords(rule, pattern, where)

    def _characters(self, rule: Rule, where: str) -> Pattern | None:
        if rule.pattern is not None:
            self.report.refuse(f"{where}.pattern", "extra_forbidden", "Kind unicode has a class.")
            return None
        if rule.config.get("class") not in unicode.CLASSES:
            known = ", ".join(unicode.CLASSES)
            self.report.refuse(
                f"{where}.config.class", "unknown_value", f"A class is one of: {known}."
            )
            return None
        text = _class_of(rule).pattern
        return compiled((text,), False, None).gated(text)

    def _with_keywords(self, rule: Rule, pattern: Pattern, where: str) -> Pattern:
        """The rule's own keywords where the pattern implies them, else those derived from it."""
        if rule.keywords is None:
            return pattern
        words = tuple(
            pattern.folding.text(word) if pattern.folding else word.lower()
            for word in rule.keywords
        )
        if words and not shape.implies(pattern.node, words):
            self.report.warn(
                f"{where}.keywords",
                "keywords_not_proven",
                "A match may lack all of these keywords; they are not used as a prefilter.",
            )
            return pattern
        return pattern.with_keywords(words)

    def _terms(
        self,
        rule: Rule,
        where: str,
        words: list[str] | None,
        ignore_case: bool,
        fold: Folding | None,
    ) -> Pattern | None:
        name = rule.config.get("list")
        if words is None and name is not None:
            if not isinstance(name, str) or name not in self.pack.lists:
                self.report.refuse(
                    f"{where}.config.list", "unknown_list", f"The pack has no list {name}."
                )
                return None
            words = self.pack.lists[name]
        if words is None:
            given = rule.pattern or []
            words = [given] if isinstance(given, str) else given
        boundary, gaps = rule.config.get("boundary", "word"), rule.config.get("gaps", 0)
        known = len(self.report.faults)
        if boundary not in ("word", "none"):
            self.report.refuse(
                f"{where}.config.boundary", "literal_error", "The boundary is word or none."
            )
        if not isinstance(gaps, int) or not 0 <= gaps <= terms.MAX_GAPS:
            self.report.refuse(
                f"{where}.config.gaps", "out_of_range", f"Gaps are 0 to {terms.MAX_GAPS}."
            )
        self._check_terms(words, where)
        if len(self.report.faults) > known:
            return None
        return compiled_terms(tuple(words), ignore_case, fold, boundary == "word", cast(int, gaps))

    def _check_terms(self, words: list[str], where: str) -> None:
        if not 1 <= len(words) <= 10_000:
            self.report.refuse(
                f"{where}.pattern", "out_of_range", "A term list has 1 to 10000 terms."
            )
        for at, word in enumerate(words):
            if len(word.strip()) < terms.MIN_CHARS or len(word) > terms.MAX_CHARS:
                self.report.refuse(
                    f"{where}.pattern",
                    "out_of_range",
                    f"Term {at} is not {terms.MIN_CHARS} to {terms.MAX_CHARS} characters long.",
                )
                return

    # ---- the rest

    def _assembled(
        self, rule: Rule, kind: Kind, index: int, pattern: Pattern, where: str
    ) -> LiveRule | None:
        if rule.group > pattern.regex.groups:
            self.report.refuse(
                f"{where}.group", "out_of_range", f"The pattern has no group {rule.group}."
            )
        action = rule.action or self.pack.default_action
        if action == "allow":
            self._check_exempting(pattern, where)
        try:
            allow = allow_check(rule.allow)
        except PatternFault as fault:
            field = f"{where}.allow[{fault.index}]"
            self.report.refuse(field, fault.code, fault.message, fault.position)
            return None
        check = check_of(rule, kind, pattern.keywords, allow, self.validators)
        context, confidence = _context(rule), 1.0 if rule.confidence is None else rule.confidence
        if context and (context.required or confidence < rule.threshold):
            pattern = pattern.gated("|".join(map(shape.escaped, context.words)))
        if rule.validator is not None and pattern.max_width is None:
            self.report.warn(
                f"{where}.validator",
                "unbounded_in_stream",
                "A stream holds the whole match back, up to the limit: give it a maximum width.",
            )
        return LiveRule(
            pack=self.facts,
            rule_id=rule.rule_id,
            severity=rule.severity,
            action=action,
            shadow=(rule.mode or self.pack.mode) == "shadow",
            on_error=rule.on_error or self.pack.on_error,
            detector=kind,
            confidence=confidence,
            message=rule.message,
            replacement=_replacement(rule, action),
            order=index,
            pattern=pattern,
            group=rule.group,
            check=check,
            belongs=_class_of(rule).belongs if kind == "unicode" else None,
            context=context,
            threshold=rule.threshold,
            certain_from=_certain_from(rule, kind, pattern),
            reach=self._reach(rule),
        )

    def _check_exempting(self, pattern: Pattern, where: str) -> None:
        """An exemption must be settled before a stream lets go of what it exempts."""
        width = pattern.max_width
        if width is None or width > self.hold_max // 2 or pattern.folding is not None:
            self.report.refuse(
                f"{where}.action",
                "action_not_possible",
                f"An allow rule needs a pattern of at most {self.hold_max // 2} characters, "
                "without folding.",
            )

    def _reach(self, rule: Rule) -> Reach:
        scope = rule.scope or self.pack.scope or Scope()
        return Reach(
            directions=_DIRECTIONS[scope.direction],
            roles=None if scope.roles is None else frozenset(map(_role, scope.roles)),
            parts=None if scope.parts is None else frozenset[Part](scope.parts),
            latest_only=scope.turns == "latest",
            reasoning=self.pack.reasoning != "off",
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


def _default_case(kind: Kind) -> Literal["ignore", "exact"]:
    return "ignore" if kind == "terms" else "exact"


def _folding(rule: Rule, kind: Kind) -> Folding | None:
    mode = rule.fold
    if mode is None:
        mode = "fold" if kind == "terms" and rule.case != "exact" else "none"
    return None if mode == "none" else folding(mode)


def _replacement(rule: Rule, action: Action) -> str:
    if rule.replacement is not None:
        return rule.replacement
    if rule.kind == "unicode" and action == "replace":
        return ""
    label = rule.label or rule.config.get("entity")
    if not isinstance(label, str):
        last = rule.rule_id.rstrip(".").rpartition(".")[2]
        label = last.upper().replace("-", "_")[:24]
    return label if action == "replace" else f"[{label}]"


def _class_of(rule: Rule) -> unicode.CharacterClass:
    return unicode.CLASSES[str(rule.config["class"])]


def _context(rule: Rule) -> ContextWords | None:
    found = rule.context
    if found is None:
        return None
    words = tuple(word.strip().lower() for word in found.words)
    return ContextWords(words, found.boost, found.required)


def _certain_from(rule: Rule, kind: Kind, pattern: Pattern) -> int | None:
    """After how many characters a match that still goes on is certain (guardrails.md §9.5)."""
    late = pattern.late_assertion or pattern.folding is not None or rule.group
    weighed = rule.validator or rule.entropy_min or rule.allow or rule.context
    if late or weighed or kind == "unicode":
        return None
    return secrets.HEAD if kind == "secret" else 0
