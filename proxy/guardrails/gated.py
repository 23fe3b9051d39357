"""Kinds that look at no text (`tool_permission model_access limits`), made ready to run.

In charge of what of them may be combined (guardrails.md §3.2); a rule without anything to look for
is inert.
"""

from typing import Final

from proxy.guardrails.checks.arguments import Constraint, steps_of
from proxy.guardrails.checks.pattern import PatternFault, allow_check
from proxy.guardrails.configs import (
    ArgConfig,
    LimitsConfig,
    ModelAccessConfig,
    ToolConfig,
    ToolPermissionConfig,
)
from proxy.guardrails.gates import AccessRule, Entry, LimitsRule, Names, ToolRule
from proxy.guardrails.linear import LinearError, Regex
from proxy.guardrails.said import Said
from proxy.model.policy import Action, Rule, Scope

_OF_TEXTS: Final = (
    "pattern", "case", "fold", "keywords", "validator", "entropy_min", "group", "context",
    "threshold", "allow", "label", "replacement", "reversible", "sample_pct",
)  # fmt: skip
_TOOL_ACTIONS: Final[tuple[Action, ...]] = ("block", "redact", "flag", "log")
_ACCESS_ACTIONS: Final[tuple[Action, ...]] = ("block", "flag", "log")
_LIMITS_ACTIONS: Final[tuple[Action, ...]] = ("block", "replace", "flag", "log")
_CLAMPED: Final = "max_output_tokens"


def read_tool_permission(said: Said) -> ToolRule | None:
    """The rule ready to run; None when it is refused, or denies nothing."""
    config = said.config
    assert isinstance(config, ToolPermissionConfig), "checked by its kind"
    _refuse_text_members(said)
    _refuse_actions(said, _TOOL_ACTIONS)
    entries = [_entry(said, at, tool) for at, tool in enumerate(config.tools)]
    if not entries and config.default == "allow":
        return None
    return ToolRule(
        **said.facts_of_rule(),
        default=config.default,
        on_declared=config.on_declared,
        entries=tuple(entries),
    )


def read_model_access(said: Said) -> AccessRule | None:
    """The rule ready to run; None when it is refused, or names nothing."""
    config = said.config
    assert isinstance(config, ModelAccessConfig), "checked by its kind"
    _refuse_text_members(said)
    _refuse_actions(said, _ACCESS_ACTIONS)
    _requests_only(said)
    if not (config.allow or config.deny or config.providers or config.roles_any):
        return None
    return AccessRule(
        **said.facts_of_rule(),
        allow=_names(said, "allow", config.allow),
        deny=_names(said, "deny", config.deny),
        providers=_names(said, "providers", config.providers),
        roles=frozenset(config.roles_any),
    )


def read_limits(said: Said) -> LimitsRule | None:
    """The rule ready to run; None when it is refused, or limits nothing."""
    config = said.config
    assert isinstance(config, LimitsConfig), "checked by its kind"
    _refuse_text_members(said)
    _refuse_actions(said, _LIMITS_ACTIONS)
    _requests_only(said)
    most: dict[str, int] = config.model_dump(exclude_none=True)
    if said.action == "replace" and most.keys() - {_CLAMPED}:
        said.refuse("action", "action_not_possible", f"Action replace is for {_CLAMPED} alone.")
    return LimitsRule(**said.facts_of_rule(), most=most) if most else None


# ---- what is refused


def _refuse_actions(said: Said, possible: tuple[Action, ...]) -> None:
    if said.action in possible:
        return
    field = f"{said.where}.action" if said.rule.action else "default_action"
    can = ", ".join(possible)
    said.report.refuse(
        field, "action_not_possible", f"Kind {said.kind} cannot {said.action}; it can: {can}."
    )


def _refuse_text_members(said: Said) -> None:
    for member in _OF_TEXTS:
        usual = Rule.model_fields[member].get_default(call_default_factory=True)
        if getattr(said.rule, member) != usual:
            said.refuse(member, "extra_forbidden", f"Kind {said.kind} looks at no text.")
    if said.rule.tests.match or said.rule.tests.no_match:
        said.refuse("tests", "extra_forbidden", f"Kind {said.kind} looks at no text.")
    own = said.rule.scope or Scope()
    told = (("roles", own.roles), ("parts", own.parts), ("turns", own.turns != "all" or None))
    for member, value in told:
        if value is not None:
            said.refuse(f"scope.{member}", "extra_forbidden", f"Kind {said.kind} has none.")


def _requests_only(said: Said) -> None:
    if "request" not in said.reach.directions:
        said.refuse("scope.direction", "kind_not_possible", f"Kind {said.kind} judges requests.")


# ---- what it looks with


def _entry(said: Said, at: int, tool: ToolConfig) -> Entry:
    where = f"tools[{at}]"
    args = [_constraint(said, f"{where}.args[{n}]", arg) for n, arg in enumerate(tool.args)]
    return Entry(
        resource=_names(said, f"{where}.resource", [tool.resource]),
        roles=frozenset(tool.roles_any),
        denied=tool.decision == "deny",
        args=tuple(args),
    )


def _constraint(said: Said, where: str, arg: ArgConfig) -> Constraint:
    if arg.min is not None and arg.max is not None and arg.min > arg.max:
        said.refuse(f"config.{where}.max", "out_of_range", "It is below `min`.")
    if arg.required and arg.forbidden:
        said.refuse(f"config.{where}.forbidden", "out_of_range", "It is required, too.")
    limits = (arg.regex, arg.enum, arg.min, arg.max, arg.max_chars)
    if limits == (None,) * len(limits) and not arg.required and not arg.forbidden:
        said.refuse(f"config.{where}", "missing", "It says nothing of what stands at the path.")
    return Constraint(
        steps=steps_of(arg.path),
        regex=_whole(said, where, arg.regex),
        enum=None if arg.enum is None else tuple(arg.enum),
        low=arg.min,
        high=arg.max,
        max_chars=arg.max_chars,
        required=arg.required,
        forbidden=arg.forbidden,
    )


def _whole(said: Said, where: str, text: str | None) -> Regex | None:
    if text is None:
        return None
    try:
        (regex,) = allow_check([text])
    except PatternFault as fault:
        said.refuse(f"config.{where}.regex", fault.code, fault.message, fault.position)
        return None
    if text.startswith("^") and not text.endswith(("$", "*", "+", "\\z")):
        said.report.warn(
            f"{said.where}.config.{where}.regex",
            "regex_is_whole",
            "The regex must fit the whole value: end it with .* to say how the value begins.",
        )
    return regex


def _names(said: Said, where: str, globs: list[str]) -> Names:
    try:
        return Names(globs)
    except LinearError:
        said.refuse(f"config.{where}", "regex_too_large", "The names are too large for RE2.")
        return Names([])
