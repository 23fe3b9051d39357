"""What is asked of the text of a hit, one step after the other.

In charge of the order: placeholder, entropy, validator, allow.  Each step may narrow the span.
"""

from collections.abc import Mapping

from proxy.guardrails.checks import secrets
from proxy.guardrails.checks.validators import Validator as Check
from proxy.guardrails.linear import Regex
from proxy.model.policy import Kind, Rule


def check_of(
    rule: Rule,
    kind: Kind,
    keywords: tuple[str, ...],
    allow: list[Regex],
    validators: Mapping[str, Check],
    first: Check | None = None,
) -> Check | None:
    """What its kind asks, placeholder, entropy, validator, allow, in this order; None when the rule
    has none."""
    steps: list[Check] = [] if first is None else [first]
    if kind == "secret":
        steps.append(
            lambda span: None if secrets.is_placeholder(span, keywords) else (0, len(span))
        )
    least = rule.entropy_min
    if least:
        steps.append(lambda span: (0, len(span)) if secrets.entropy(span) >= least else None)
    if rule.validator is not None:
        steps.append(validators[rule.validator])
    if allow:
        steps.append(
            lambda span: (
                None
                if any(regex.search(span.encode("utf-8", "replace")) for regex in allow)
                else (0, len(span))
            )
        )
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else _in_turn(steps)


def _in_turn(steps: list[Check]) -> Check:
    def check(span: str) -> tuple[int, int] | None:
        start, end = 0, len(span)
        for step in steps:
            part = step(span[start:end])
            if part is None:
                return None
            start, end = start + part[0], start + part[1]
        return start, end

    return check
