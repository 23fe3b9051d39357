"""Rules that look at no text: who may use which model and which tool, and how much may be asked
for (guardrails.md §5.9, §5.10).

In charge of single decisions; `permits.py` keeps the account of a request.  They are pure and
frozen like all rules, and shared by all requests of a route.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.guardrails import shape
from proxy.guardrails.checks.arguments import Constraint
from proxy.guardrails.linear import Regex
from proxy.guardrails.rules import RuleFacts
from proxy.model.exchange import Direction, Json, Part
from proxy.model.tools import Call, DenialReason


class Names:
    """Globs: `*` is any run of characters, `?` any one, everything else is itself."""

    __slots__ = ("_regex", "globs")

    def __init__(self, globs: Sequence[str]) -> None:
        self.globs = tuple(globs)
        whole = "|".join(map(_translated, self.globs))
        self._regex = Regex(rf"\A(?s:{whole})\z") if self.globs else None

    def __bool__(self) -> bool:
        return bool(self.globs)

    def __repr__(self) -> str:
        return f"<Names {len(self.globs)}>"

    def has(self, name: str) -> bool:
        """Whether a glob fits the whole name."""
        data = name.encode("utf-8", "replace")
        return self._regex is not None and self._regex.search(data) is not None


def _translated(glob: str) -> str:
    signs = {"*": ".*", "?": "."}
    return "".join(signs[c] if c in signs else shape.escaped(c) for c in glob)


@dataclass(frozen=True, slots=True)
class Denial:
    """`role_required`: the roles that might, None when no role would help."""

    reason: DenialReason
    role_required: str | None = None


def roles_text(roles: frozenset[str]) -> str:
    """`admin`, or `admin or operator`."""
    return " or ".join(sorted(roles))


# ---- tools


@dataclass(frozen=True, slots=True)
class Entry:
    """`roles` empty: any role."""

    resource: Names
    roles: frozenset[str]
    denied: bool
    args: tuple[Constraint, ...]

    def denial(self, role: str) -> Denial | None:
        if self.denied:
            return Denial("tool_not_allowed")
        if self.roles and role not in self.roles:
            return Denial("role_restriction", roles_text(self.roles))
        return None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ToolRule(RuleFacts):
    """Kind `tool_permission`."""

    default: Literal["allow", "deny"]
    on_declared: Literal["strip", "block", "allow"]
    entries: tuple[Entry, ...]

    def may(self, names: Sequence[str], role: str) -> Denial | None:
        """Whether the role may have the tool at all.  A name that no entry knows says nothing; when
        none of them is known the default decides."""
        known = [entry for name in names if (entry := self._entry(name)) is not None]
        for entry in known:
            denial = entry.denial(role)
            if denial is not None:
                return denial
        return None if known or self.default == "allow" else Denial("tool_not_allowed")

    def may_call(self, call: Call, role: str) -> Denial | None:
        """Whether the role may make this call, with these arguments."""
        denial = self.may(call.names, role)
        if denial is not None:
            return denial
        for name in call.names:
            entry = self._entry(name)
            if entry is None or not entry.args:
                continue
            if not call.readable or not all(each.accepts(call.args) for each in entry.args):
                return Denial("argument_rejected")
        return None

    def hangs_on_arguments(self, names: Sequence[str]) -> bool:
        """Whether a call that `may` be made could still be denied for its arguments."""
        entries = [self._entry(name) for name in names]
        return any(entry is not None and entry.args for entry in entries)

    def _entry(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.resource.has(name)), None)


# ---- models


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AccessRule(RuleFacts):
    """Kind `model_access`.  `roles` with `deny` alone: who may use those models all the same; else
    who may use what the rule allows.  Empty: nobody is told apart."""

    allow: Names
    deny: Names
    providers: Names
    roles: frozenset[str]

    def may_ask(self, model: str, role: str) -> Denial | None:
        """Whether the role may ask for a model of this name."""
        has_role = role in self.roles
        needed = roles_text(self.roles) if self.roles else None
        only_denies = bool(self.deny) and not self.allow and not self.providers
        if self.roles and not has_role and not only_denies:
            return Denial("role_restriction", needed)
        if self.deny.has(model) and not (only_denies and has_role):
            return Denial("role_restriction" if needed and only_denies else "tool_not_allowed",
                          needed if only_denies else None)  # fmt: skip
        if self.allow and not self.allow.has(model):
            return Denial("tool_not_allowed")
        return None

    def may_send(self, model: str, provider: str, role: str) -> Denial | None:
        """Whether the request may go to this model of an endpoint."""
        denial = self.may_ask(model, role)
        if denial is None and self.providers and not self.providers.has(provider):
            return Denial("tool_not_allowed")
        return denial


# ---- limits

LIMITS: Final[Mapping[str, Part]] = {  # what each of them counts is this part of a request
    "max_input_chars": "text",
    "max_messages": "text",
    "max_tools": "tool_def",
    "max_images": "metadata",
    "max_output_tokens": "metadata",
    "n_max": "metadata",
}


@dataclass(slots=True)
class Amounts:
    """How much a request asks for.  `counts`: by the limit that counts it.  `outputs`: the members
    that say how long the answer may be, as they stand.  `output_member`: the one to set where none
    does; empty when this operation has none.  `choices`: the members that say how many answers."""

    counts: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Json] = field(default_factory=dict)
    output_member: str = ""
    choices: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LimitsRule(RuleFacts):
    """Kind `limits`: `most` by name."""

    most: Mapping[str, int]

    def exceeded(self, amounts: Amounts) -> list[str]:
        """The names of the limits that the request is over.  What is no number where one must be
        is over any limit."""
        return [name for name in self.most if self._is_exceeded(name, amounts)]

    def _is_exceeded(self, name: str, amounts: Amounts) -> bool:
        most = self.most[name]
        if name == "max_output_tokens":
            if self.action == "replace":
                return bool(self.clamped(amounts))
            return any(v is not None and _is_over(v, most) for v in amounts.outputs.values())
        if name == "n_max":
            return any(v is not None and _is_over(v, most) for v in amounts.choices.values())
        return amounts.counts.get(name, 0) > most

    def clamped(self, amounts: Amounts) -> dict[str, int]:
        """The members that must say less, and what they shall say.  Where no member says how long
        the answer may be, one is set."""
        most = self.most["max_output_tokens"]
        said = {name: value for name, value in amounts.outputs.items() if value is not None}
        if not said and amounts.output_member:
            return {amounts.output_member: most}
        return {name: most for name, value in said.items() if _is_over(value, most)}


def _is_over(value: Json, most: int) -> bool:
    if type(value) is int or type(value) is float:
        return value > most
    return True


# ---- all of a route


@dataclass(slots=True)
class Gates:
    """The rules of a route that look at no text, in the order of its packs."""

    tools: tuple[ToolRule, ...]
    access: tuple[AccessRule, ...]
    limits: tuple[LimitsRule, ...]

    @staticmethod
    def of(rules: Sequence[RuleFacts]) -> "Gates":
        return Gates(
            tuple(rule for rule in rules if isinstance(rule, ToolRule)),
            tuple(rule for rule in rules if isinstance(rule, AccessRule)),
            tuple(rule for rule in rules if isinstance(rule, LimitsRule)),
        )

    def __bool__(self) -> bool:
        return bool(self.tools or self.access or self.limits)

    def tools_in(self, direction: Direction) -> list[ToolRule]:
        return [rule for rule in self.tools if direction in rule.reach.directions]

    def covers(self, direction: Direction) -> bool:
        """Requests pass all of them; answers are looked at for calls."""
        return bool(self) if direction == "request" else bool(self.tools_in("response"))

    @property
    def holds_calls(self) -> bool:
        """A call may be refused: it must be whole before any of it leaves."""
        return any(rule.enforces for rule in self.tools_in("response"))
