"""From packs to a guard: everything a pack says is checked here, or refused here.

In charge of validation of whole packs (guardrails.md §3.3).  The whole pack compiles or none of it.
Invariant: what this version cannot do is refused with a fault that names the member; nothing is
ignored in silence at run time.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from proxy.guardrails import samples
from proxy.guardrails.checks.validators import VALIDATORS, Validator
from proxy.guardrails.engine import Guard, attempt
from proxy.guardrails.faults import PackError, PackFault, Report
from proxy.guardrails.matching import Break
from proxy.guardrails.memo import Memo
from proxy.guardrails.program import Limits
from proxy.guardrails.reading import RuleReader
from proxy.guardrails.rules import LiveRule, PackFacts, RuleFacts
from proxy.guardrails.search import search
from proxy.guardrails.view import View
from proxy.guardrails.whole import SchemaRule
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings

__all__ = ["PackError", "PackFault", "check_pack", "compile_guard", "compile_rules"]

Over = Callable[[], bool]  # the time that a pack may take to compile is over

TOO_LARGE: Final = "pack_too_large"
FILLED_IN: Final = re.compile(r"\{[^{}]*\}|<%|%(?:\([^()]*\))?[sdr]\b|\$[A-Za-z_]")
OFTEN: Final = 0.2  # share of the sample sentences that a sensible rule does not hit


def _never() -> bool:
    return False


def check_pack(
    pack: PolicyPack, *, validators: Mapping[str, Validator] = VALIDATORS, over: Over = _never
) -> tuple[list[PackFault], list[PackFault]]:
    """The faults that refuse the pack, and the warnings that come with it.

    `over` is asked before each rule: once it says so the pack is refused as `pack_too_large`."""
    report = Report()
    facts = PackFacts(pack.policy_pack_id, pack.version, pack.message, 0)
    _read(RuleReader(pack, facts, validators, GuardSettings().hold_max_chars, report), over)
    return report.faults, report.warnings


def compile_guard(
    packs: Sequence[PolicyPack],
    settings: GuardSettings,
    *,
    validators: Mapping[str, Validator] = VALIDATORS,
    memo: Memo | None = None,
) -> Guard:
    """The guard of a route with these packs, in their order.  `memo`: shared with other guards.
    Raises PackError."""
    rules = compile_rules(packs, settings, validators=validators)
    limits = Limits(hold_max=settings.hold_max_chars, overflow=settings.overflow)
    enabled = [pack for pack in packs if pack.enabled]
    return Guard(enabled, rules, limits, settings.policy_header, memo)


def compile_rules(
    packs: Sequence[PolicyPack],
    settings: GuardSettings,
    *,
    validators: Mapping[str, Validator] = VALIDATORS,
) -> list[RuleFacts]:
    """All rules that can run, of all packs that are switched on.  Raises PackError."""
    rules: list[RuleFacts] = []
    faults: list[PackFault] = []
    reasoning = any(pack.enabled and pack.reasoning != "off" for pack in packs)
    for order, pack in enumerate(packs):
        if not pack.enabled:
            continue
        report = Report()
        facts = PackFacts(pack.policy_pack_id, pack.version, pack.message, order)
        hold_max = settings.hold_max_chars
        rules += _read(RuleReader(pack, facts, validators, hold_max, report, reasoning))
        for fault in report.faults:
            fault.message = f"{pack.policy_pack_id}: {fault.message}"
        faults += report.faults
    if faults:
        raise PackError(faults)
    return rules


def _read(reader: RuleReader, over: Over = _never) -> list[RuleFacts]:
    pack, report = reader.pack, reader.report
    _refuse_unbuilt(pack, report)
    seen: set[str] = set()
    rules: list[RuleFacts] = []
    for index, rule in enumerate(pack.rules):
        if over():
            detail = f"The pack takes too long to compile: the time is over at rule {index}."
            report.refuse("rules", TOO_LARGE, detail)
            break
        if rule.rule_id in seen:
            report.refuse(
                f"rules[{index}].rule_id", "duplicate_rule_id", f"{rule.rule_id} is there twice."
            )
        seen.add(rule.rule_id)
        live = reader.read(index)
        if live is not None:
            if isinstance(live, (LiveRule, SchemaRule)):
                _test(pack, index, live, report)
            rules.append(live)
    return rules


def _refuse_unbuilt(pack: PolicyPack, report: Report) -> None:
    if pack.extends is not None:
        report.refuse(
            "extends", "kind_not_possible", "The pack must be merged with what it extends first."
        )
    if pack.message is not None and FILLED_IN.search(pack.message):
        why = "Nothing is filled in, and nothing of the text may stand there: no placeholders."
        report.refuse("message", "placeholder_in_message", why)
    if pack.scoring.mode == "sum" and all(rule.kind != "injection" for rule in pack.rules):
        report.warn("scoring.mode", "never_counts", "Only rules of kind injection are counted.")


def _test(pack: PolicyPack, index: int, live: LiveRule | SchemaRule, report: Report) -> None:
    """Run the rule's own tests, and see whether it hits nearly everything."""
    rule = pack.rules[index]
    where = f"rules[{index}]"
    for at, text in enumerate(rule.tests.match):
        field = f"{where}.tests.match[{at}]"
        if not _hits(live, text):
            report.refuse(field, "test_failed", f"{rule.rule_id} does not hit its match {at}.")
        elif (
            isinstance(live, LiveRule)
            and rule.keywords
            and not _has_keyword(live, rule.keywords, text)
        ):
            report.refuse(
                f"{where}.keywords",
                "keywords_not_implied",
                f"{rule.rule_id} hits its match {at}, which has none of its keywords.",
            )
    for at, text in enumerate(rule.tests.no_match):
        if _hits(live, text):
            field = f"{where}.tests.no_match[{at}]"
            report.refuse(field, "test_failed", f"{rule.rule_id} hits its no_match {at}.")
    if isinstance(live, SchemaRule):
        return
    often = sum(_hits(live, text) for text in samples.SENTENCES)
    if often > OFTEN * len(samples.SENTENCES):
        report.warn(
            f"{where}.pattern",
            "matches_very_often",
            f"{rule.rule_id} hits {often} of {len(samples.SENTENCES)} ordinary sentences.",
        )


def _hits(live: LiveRule | SchemaRule, text: str) -> bool:
    """By the rule alone, prefilter left aside.  A check that breaks counts as no hit here."""
    if isinstance(live, SchemaRule):
        return live.broken_by(text)
    found = attempt(lambda: search(live, View(text), 0, len(text), False))
    return not isinstance(found, Break) and bool(found)


def _has_keyword(live: LiveRule, keywords: Sequence[str], text: str) -> bool:
    fold = live.pattern.folding
    seen = fold.text(text) if fold else text.lower()
    return any((fold.text(word) if fold else word.lower()) in seen for word in keywords)
