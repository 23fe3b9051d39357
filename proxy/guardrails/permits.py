"""What the caller of one request may use, and the account of what he was denied.

In charge of the words of policy results and permission decisions of rules that look at no text
(guardrails.md §5.9, §5.10); `gates.py` decides, the gateway does.  Invariant: a check that breaks
is a verdict, never a pass.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

from proxy.guardrails.engine import attempt
from proxy.guardrails.gates import (
    LIMITS,
    AccessRule,
    Amounts,
    Denial,
    Gates,
    LimitsRule,
    ToolRule,
)
from proxy.guardrails.matching import Break
from proxy.guardrails.rules import RuleFacts
from proxy.model.exchange import Direction, Part
from proxy.model.policy import ActionTaken, PolicyResult, Verdict
from proxy.model.tools import Call, PermissionDecision, Tool

MAX_DECISIONS: Final = 50
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/*@-]{1,128}")
_Check = Callable[[], Denial | None]
CallVerdict = Literal["pass", "redact", "block"]


def told_name(name: str) -> str:
    """A name as events and notices repeat it: callers and models choose it, so only a plain one."""
    return name if _PLAIN.fullmatch(name) else "?"


class Permits:
    """One request at the gates of its route.

    `blocked`: the result that stops it, with the `message` for the caller; `forbidden`: it is told
    as 403.  `refusal`: why an endpoint was not given it.  `aliases`: all names of a declared tool
    that has several, by the first.  `results` and `decisions` carry no time yet.
    """

    __slots__ = (
        "_decided", "_gates", "_told", "aliases", "blocked", "decisions", "flagged", "forbidden",
        "message", "refusal", "results", "role",
    )  # fmt: skip

    def __init__(self, gates: Gates, role: str) -> None:
        self._gates = gates
        self.role = role
        self.aliases: dict[str, tuple[str, ...]] = {}
        self.blocked: PolicyResult | None = None
        self.message = self.refusal = ""
        self.forbidden = self.flagged = False
        self.results: list[PolicyResult] = []
        self.decisions: list[PermissionDecision] = []
        self._told: dict[tuple[int, Part, Direction, str, str | None], PolicyResult] = {}
        self._decided: dict[tuple[str, str, str, str], PermissionDecision] = {}

    def __repr__(self) -> str:
        return f"<Permits {self.role}{' blocked' if self.blocked else ''}>"

    # ---- the request

    def ask_model(self, model: str) -> None:
        """Judge the model that was asked for."""
        for rule in self._gates.access:
            denial = self._judged(rule, _asks(rule, model, self.role), "metadata", "request")
            if denial is not None:
                result = self._tell(rule, "metadata", "request", rule.action)
                if rule.enforces:
                    self._forbid(rule, result, f"model {model[:128]!r}", denial)

    def may_send(self, endpoint_id: str, model: str, provider: str, asked: str) -> bool:
        """Whether an endpoint may be given a request for that model of its provider; the caller
        `asked` for another name, and is told that one.  When not, `refusal` says why; the request
        may go elsewhere."""
        for rule in self._gates.access:
            check = _sends(rule, model, provider, self.role)
            denial = self._judged(rule, check, "metadata", "request")
            if denial is not None:
                remark = f"endpoint {endpoint_id} skipped"
                result = self._tell(rule, "metadata", "request", rule.action, remark)
                if rule.enforces:
                    self._forbid(rule, result, f"model {asked[:128]!r}", denial)
        if self.blocked is None:
            return True
        self.refusal, self.blocked, self.message, self.forbidden = self.message, None, "", False
        return False

    def limit(self, amounts: Amounts) -> dict[str, int]:
        """Judge how much is asked for; the members that must say less, and what they shall say."""
        clamped: dict[str, int] = {}
        for rule in self._gates.limits:
            exceeded = attempt(_exceeds(rule, amounts))
            if isinstance(exceeded, Break):
                self._broken(rule, exceeded, "metadata", "request")
                continue
            for name in exceeded:
                remark = name
                if rule.action == "replace":
                    most = rule.most[name]
                    remark = f"{name} clamped to {most}"
                    if rule.enforces:
                        for member, value in rule.clamped(amounts).items():
                            clamped[member] = min(value, clamped.get(member, value))
                result = self._tell(rule, LIMITS[name], "request", rule.action, remark)
                if rule.enforces and rule.action == "block":
                    self._block(rule, result, "request")
        return clamped

    def declared(self, tools: Sequence[Tool]) -> list[Tool]:
        """Judge the tools that the model would be told of; returns those that it must not see."""
        gone: list[Tool] = []
        for rule in self._gates.tools_in("request"):
            if rule.on_declared == "allow":
                continue
            for tool in tools:
                denial = self._judged(rule, _may(rule, tool, self.role), "tool_def", "request")
                if denial is None:
                    continue
                action: ActionTaken = rule.action
                if rule.rewrites or rule.action == "block":
                    action = "redact" if rule.on_declared == "strip" else "block"
                result = self._tell(rule, "tool_def", "request", action)
                if not rule.enforces:
                    continue
                self._decide(rule, tool.names[0], "declare", denial)
                if action == "redact":
                    gone.append(tool)
                else:
                    self._forbid(rule, result, f"tool {told_name(tool.names[0])!r}", denial)
        return gone

    def forced(self, tools: Sequence[Tool]) -> None:
        """Judge the tools of which the model is made to call one: a denied one is a block."""
        for rule in self._gates.tools_in("request"):
            for tool in tools:
                denial = self._judged(rule, _may(rule, tool, self.role), "tool_name", "request")
                if denial is None:
                    continue
                action: ActionTaken = "block" if rule.rewrites else rule.action
                result = self._tell(rule, "tool_name", "request", action)
                if rule.enforces:
                    self._decide(rule, tool.names[0], "execute", denial)
                    self._forbid(rule, result, f"tool {told_name(tool.names[0])!r}", denial)

    def history(self, calls: Sequence[Call]) -> None:
        """Calls that were made before are only told."""
        for rule in self._gates.tools_in("request"):
            for call in calls:
                denial = attempt(_calls(rule, call, self.role))
                if isinstance(denial, Break):
                    self._tell(rule, "tool_args", "request", "none", denial.fault, "bypassed")
                elif denial is not None:
                    self._tell(rule, "tool_args", "request", "log", "in the history")

    # ---- the answer

    @property
    def looks_at_calls(self) -> bool:
        return bool(self._gates.tools_in("response"))

    def called(self, call: Call) -> CallVerdict:
        """Judge a call of the answer, which is complete."""
        verdict: CallVerdict = "pass"
        names = self.aliases.get(call.names[0])
        if names is not None:
            call = replace(call, names=names)
        for rule in self._gates.tools_in("response"):
            known = self.blocked
            denial = self._judged(rule, _calls(rule, call, self.role), "tool_args", "response")
            if denial is None:
                if self.blocked is not known:
                    verdict = "block"
                continue
            part: Part = "tool_args" if denial.reason == "argument_rejected" else "tool_name"
            result = self._tell(rule, part, "response", rule.action)
            if not rule.enforces:
                continue
            self._decide(rule, call.names[0], "execute", denial)
            if rule.action == "block":
                self._block(rule, result, "response")
                verdict = "block"
            elif verdict == "pass":
                verdict = "redact"
        return verdict

    def may_flow(self, names: tuple[str, ...]) -> bool:
        """Whether a call of that tool is permitted whatever its arguments are, so that they need
        not be known before it leaves."""
        names = self.aliases.get(names[0], names)
        for rule in self._gates.tools_in("response"):
            if rule.enforces and attempt(_open_question(rule, names, self.role)) is not False:
                return False
        return True

    # ---- the account

    def _judged(
        self, rule: RuleFacts, check: _Check, part: Part, direction: Direction
    ) -> Denial | None:
        found = attempt(check)
        if isinstance(found, Break):
            self._broken(rule, found, part, direction)
            return None
        return found

    def _broken(self, rule: RuleFacts, fault: Break, part: Part, direction: Direction) -> None:
        if rule.on_error == "block" and rule.enforces:
            result = self._tell(rule, part, direction, "block", fault.fault, "error")
            self._stop(result, f"The {direction} could not be checked and was blocked.", False)
        else:
            self._tell(rule, part, direction, "none", fault.fault, "bypassed")

    def _tell(
        self,
        rule: RuleFacts,
        part: Part,
        direction: Direction,
        action: ActionTaken,
        remark: str | None = None,
        verdict: Verdict = "violation",
    ) -> PolicyResult:
        """One result per rule, part and what was done, with a count."""
        message = remark or rule.message
        if rule.shadow and verdict == "violation":
            message, action = f"would {action}" + (f": {remark}" if remark else ""), "none"
        self.flagged = self.flagged or action == "flag"
        key = (id(rule), part, direction, f"{verdict} {action}", message)
        known = self._told.get(key)
        if known is not None:
            known.count += 1
            return known
        result = PolicyResult(
            policy_id=rule.pack.policy_id,
            verdict=verdict,
            rule_matched=rule.rule_id,
            confidence=rule.confidence,
            action_taken=action,
            policy_version=rule.pack.version,
            severity=rule.severity,
            applies_to=part,
            direction=direction,
            enforced=not rule.shadow,
            detector=rule.detector,
            message=message,
        )
        self._told[key] = result
        self.results.append(result)
        return result

    def _decide(
        self, rule: ToolRule, name: str, action: Literal["declare", "execute"], denial: Denial
    ) -> None:
        resource, policy_id = told_name(name), rule.pack.policy_id
        key = (resource, action, denial.reason, policy_id)
        known = self._decided.get(key)
        if known is not None:
            known.count += 1
        elif len(self.decisions) < MAX_DECISIONS:
            decision = PermissionDecision(
                resource, action, denial.reason, denial.role_required, self.role, policy_id
            )
            self._decided[key] = decision
            self.decisions.append(decision)

    def _forbid(self, rule: RuleFacts, result: PolicyResult, what: str, denial: Denial) -> None:
        """guardrails.md §10: names are no content, so a caller is told what he may not use."""
        parts = [rule.pack.message] if rule.pack.message else []
        if denial.reason == "role_restriction":
            parts.append(f"The {what} needs the role {denial.role_required}, not {self.role}.")
        else:
            parts.append(f"The {what} is not allowed here.")
        self._stop(result, " ".join(parts), True)

    def _block(self, rule: RuleFacts, result: PolicyResult, direction: Direction) -> None:
        told = rule.pack.message or f"The {direction} was blocked by a content policy."
        self._stop(result, told, False)

    def _stop(self, result: PolicyResult, message: str, forbidden: bool) -> None:
        """The first one is what the caller is told."""
        if self.blocked is None:
            self.blocked, self.message, self.forbidden = result, message, forbidden


def _asks(rule: AccessRule, model: str, role: str) -> _Check:
    return lambda: rule.may_ask(model, role)


def _sends(rule: AccessRule, model: str, provider: str, role: str) -> _Check:
    return lambda: rule.may_send(model, provider, role)


def _exceeds(rule: LimitsRule, amounts: Amounts) -> Callable[[], list[str]]:
    return lambda: rule.exceeded(amounts)


def _may(rule: ToolRule, tool: Tool, role: str) -> _Check:
    return lambda: rule.may(tool.names, role)


def _open_question(rule: ToolRule, names: Sequence[str], role: str) -> Callable[[], bool]:
    return lambda: rule.may(names, role) is not None or rule.hangs_on_arguments(names)


def _calls(rule: ToolRule, call: Call, role: str) -> _Check:
    return lambda: rule.may_call(call, role)
