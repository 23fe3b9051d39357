"""Kinds that look for a pattern in texts, made ready to run: `terms regex secret pii unicode
injection topic url`.

In charge of what guardrails.md §3.1 says of patterns: their defaults by kind, their prefilter, what
is asked of a hit, and what takes its place.
"""

from typing import Final

from proxy.guardrails import shape
from proxy.guardrails.checks import secrets, terms, unicode, urls
from proxy.guardrails.checks.pattern import PatternFault, allow_check, compiled, compiled_terms
from proxy.guardrails.checks.steps import check_of
from proxy.guardrails.checks.urls import Judge
from proxy.guardrails.configs import (
    InjectionConfig,
    TermsConfig,
    UnicodeConfig,
    UrlConfig,
    aim_of,
)
from proxy.guardrails.context import ContextWords, words_pattern
from proxy.guardrails.fold import Folding, folding
from proxy.guardrails.linear import LinearError
from proxy.guardrails.rules import LiveRule, Pattern, Tally
from proxy.guardrails.said import Said
from proxy.model.policy import Action, Kind, Rule

LOOSE: Final[frozenset[Kind]] = frozenset(
    {"terms", "injection", "topic"}
)  # case ignored and folded unless it is said


def read_patterned(said: Said) -> LiveRule | None:
    """The rule ready to run; None when it is refused or can never hit."""
    rule = said.rule
    try:
        pattern = _pattern(said)
    except PatternFault as fault:
        several = isinstance(rule.pattern, list) and said.kind != "terms"
        member = f"pattern[{fault.index}]" if several else "pattern"
        said.refuse(member, fault.code, fault.message, fault.position)
        return None
    return None if pattern is None else _assembled(said, pattern)


# ---- the pattern


def _pattern(said: Said) -> Pattern | None:
    rule, config = said.rule, said.config
    fold = _folding(rule, said.kind)
    ignore_case = fold is not None or (rule.case or _default_case(said.kind)) == "ignore"
    if isinstance(config, TermsConfig):
        return _terms(said, config, ignore_case, fold)
    if isinstance(config, UnicodeConfig):
        if rule.pattern is not None:
            said.refuse("pattern", "extra_forbidden", "Kind unicode has a class.")
            return None
        text = unicode.CLASSES[config.class_].pattern
        return compiled((text,), False, None).gated(text).of_signs()
    if isinstance(config, UrlConfig):
        return _addresses(said, config)
    if rule.pattern is None:
        said.refuse("pattern", "missing", f"Kind {said.kind} needs a pattern.")
        return None
    texts = (rule.pattern,) if isinstance(rule.pattern, str) else tuple(rule.pattern)
    return _with_keywords(said, compiled(texts, ignore_case, fold))


def _addresses(said: Said, config: UrlConfig) -> Pattern | None:
    rule = said.rule
    for member in ("pattern", "group", "case", "fold", "keywords", "validator", "entropy_min"):
        if getattr(rule, member):
            said.refuse(member, "extra_forbidden", "Kind url finds addresses by itself.")
            return None
    texts = tuple(text for _, text in urls.patterns_of(aim_of(config, said.action)))
    if not texts:
        said.refuse("config", "never_hits", "None of its checks can find anything.")
        return None
    return compiled(texts, ignore_case=True, folding=None)


def _with_keywords(said: Said, pattern: Pattern) -> Pattern:
    """The rule's own keywords where the pattern implies them, else those derived from it."""
    given = said.rule.keywords
    if given is None:
        return pattern
    fold = pattern.folding
    words = tuple(fold.text(word) if fold else word.lower() for word in given)
    if words and not shape.implies(pattern.node, words):
        said.report.warn(
            f"{said.where}.keywords",
            "keywords_not_proven",
            "A match may lack all of these keywords; they are not used as a prefilter.",
        )
        return pattern
    return pattern.with_keywords(words)


def _terms(
    said: Said, config: TermsConfig, ignore_case: bool, fold: Folding | None
) -> Pattern | None:
    words = said.words
    if words is None and config.list is not None:
        words = said.pack.lists.get(config.list)
        if words is None:
            said.refuse("config.list", "unknown_list", f"The pack has no list {config.list}.")
            return None
    if words is None:
        given = said.rule.pattern or []
        words = [given] if isinstance(given, str) else given
    if not _are_terms(said, words):
        return None
    return compiled_terms(tuple(words), ignore_case, fold, config.boundary == "word", config.gaps)


def _are_terms(said: Said, words: list[str]) -> bool:
    if not 1 <= len(words) <= 10_000:
        said.refuse("pattern", "out_of_range", "A term list has 1 to 10000 terms.")
        return False
    for at, word in enumerate(words):
        if len(word.strip()) < terms.MIN_CHARS or len(word) > terms.MAX_CHARS:
            said.refuse(
                "pattern",
                "out_of_range",
                f"Term {at} is not {terms.MIN_CHARS} to {terms.MAX_CHARS} characters long.",
            )
            return False
    return True


# ---- the rest


def _assembled(said: Said, pattern: Pattern) -> LiveRule | None:
    rule, kind = said.rule, said.kind
    if rule.group > pattern.regex.groups:
        said.refuse("group", "out_of_range", f"The pattern has no group {rule.group}.")
    if said.action == "allow":
        _check_exempting(said, pattern)
    try:
        allow = allow_check(rule.allow)
    except PatternFault as fault:
        said.refuse(f"allow[{fault.index}]", fault.code, fault.message, fault.position)
        return None
    config = said.config
    judge = Judge(aim_of(config, said.action)) if isinstance(config, UrlConfig) else None
    check = check_of(rule, kind, pattern.keywords, allow, said.validators, judge)
    context, confidence = _context(rule), 1.0 if rule.confidence is None else rule.confidence
    if context and (context.required or confidence < rule.threshold):
        pattern = pattern.gated(words_pattern(context.words))
    if rule.validator is not None and pattern.max_width is None:
        said.report.warn(
            f"{said.where}.validator",
            "unbounded_in_stream",
            "A stream holds the whole match back, up to the limit: give it a maximum width.",
        )
    if confidence + (context.boost if context else 0) < rule.threshold:
        said.report.warn(
            said.where,
            "never_hits",
            "The rule's confidence is below its threshold: it never hits.",
        )
        return None
    if not _holds_streams(said, pattern):
        return None
    belongs = unicode.CLASSES[config.class_].belongs if isinstance(config, UnicodeConfig) else None
    return LiveRule(
        **said.facts_of_rule(),
        replacement=_replacement(rule, said.action),
        pattern=pattern,
        group=rule.group,
        check=check,
        belongs=belongs,
        context=context,
        threshold=rule.threshold,
        certain_from=_certain_from(rule, kind, pattern),
        placeholder_label=_label(rule) if rule.reversible else "",
        settled=None if judge is None or rule.allow or rule.context else judge.settled,
        tally=_tally(said, config) if isinstance(config, InjectionConfig) else None,
        decode=tuple(config.decode) if isinstance(config, InjectionConfig) else (),
    )


def _tally(said: Said, config: InjectionConfig) -> Tally | None:
    if config.decode and "request" not in said.reach.directions:
        said.refuse("config.decode", "kind_not_possible", "Only requests are decoded.")
    if said.pack.scoring.mode != "sum":
        return None
    if said.action not in ("block", "flag", "log"):
        said.report.refuse(
            f"{said.where}.action" if said.rule.action else "default_action",
            "action_not_possible",
            "What is counted can be blocked, flagged or logged: other actions come too late.",
        )
    return Tally(config.family or said.rule.rule_id, said.pack.scoring.block_at)


def _check_exempting(said: Said, pattern: Pattern) -> None:
    """An exemption must be settled before a stream lets go of what it exempts."""
    width, most = pattern.max_width, said.hold_max // 2
    if width is None or width > most or pattern.folding is not None:
        said.refuse(
            "action",
            "action_not_possible",
            f"An allow rule needs a pattern of at most {most} characters, without folding.",
        )


def _default_case(kind: Kind) -> str:
    return "ignore" if kind in LOOSE else "exact"


def _folding(rule: Rule, kind: Kind) -> Folding | None:
    mode = rule.fold
    if mode is None:
        mode = "fold" if kind in LOOSE and rule.case != "exact" else "none"
    return None if mode == "none" else folding(mode)


def _holds_streams(said: Said, pattern: Pattern) -> bool:
    """The pattern can do what its rule asks of it; where it holds streams back it is asked for the
    beginnings of its matches."""
    acts = said.action in ("block", "redact", "replace", "allow")
    if acts and not said.shadow and "response" in said.reach.directions:
        try:
            return pattern.open_tail is not None
        except LinearError:
            said.refuse("pattern", "regex_too_large", "The pattern is too large for RE2.")
            return False
    return True


def _replacement(rule: Rule, action: Action) -> str:
    if rule.replacement is not None:
        return rule.replacement
    if rule.kind == "unicode" and action == "replace":
        return ""
    return _label(rule) if action == "replace" else f"[{_label(rule)}]"


def _label(rule: Rule) -> str:
    label = rule.label or rule.config.get("entity") or ("URL" if rule.kind == "url" else None)
    if isinstance(label, str):
        return label
    return rule.rule_id.rstrip(".").rpartition(".")[2].upper().replace("-", "_")[:24]


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
    if late or weighed or kind in ("unicode", "url"):
        return None
    return secrets.HEAD if kind == "secret" else 0
