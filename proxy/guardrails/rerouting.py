"""`action: reroute` (guardrails.md §3.2, §6): where a request goes instead, as a rule says it.

In charge of the rule's own words.  Whether such endpoints are there is known where endpoints are.
"""

from typing import Final

from pydantic import Field, ValidationError

from proxy.guardrails.faults import Report
from proxy.model.documents import Doc, Slug
from proxy.model.policy import PolicyPack, Rule, Scope

MEMBER: Final = "reroute_to"
MAX_TARGETS: Final = 10


class _Targets(Doc):
    reroute_to: list[Slug] = Field(min_length=1, max_length=MAX_TARGETS)


def read_targets(rule: Rule, where: str, report: Report) -> tuple[str, ...]:
    """The endpoints of `config.reroute_to`, in order; empty when they are refused."""
    field, said = f"{where}.config.{MEMBER}", rule.config.get(MEMBER)
    if said is None:
        report.refuse(field, "missing", "Action reroute needs an endpoint, or a list of them.")
        return ()
    listed = [said] if isinstance(said, str) else said
    try:
        targets = _Targets.model_validate({MEMBER: listed}).reroute_to
    except ValidationError:
        report.refuse(
            field, "invalid_value", f"An endpoint's id, or a list of 1 to {MAX_TARGETS} of them."
        )
        return ()
    if len(set(targets)) != len(targets):
        report.refuse(field, "invalid_value", "Each endpoint once: it gets one attempt.")
    return tuple(targets)


def check_scope(rule: Rule, pack: PolicyPack, where: str, report: Report) -> None:
    """An answer cannot be rerouted; a rule without any scope looks at requests."""
    scope = rule.scope or pack.scope
    if scope is None or scope.direction in ("request", "in"):
        return
    report.refuse(
        f"{where}.action",
        "action_not_possible",
        "An answer cannot be rerouted: say scope.direction: request.",
    )


REQUESTS: Final = Scope(direction="request")
