"""Kind `external`: rules whose check a service outside makes (guardrails.md §5.12).

In charge of what such a rule says and which combinations there are.  What the service is asked is
the affair of its adapter, and calling it that of the gateway.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from proxy.guardrails.checks.external.table import ADAPTERS
from proxy.guardrails.checks.external.words import Adapter, Category, Spec, Spot, Stage
from proxy.guardrails.configs import ExternalConfig
from proxy.guardrails.rules import RuleFacts
from proxy.guardrails.said import Said
from proxy.model.documents import EnvRef
from proxy.model.policy import Action, Rule

BASE_URLS: Final = {
    "openai_moderation": "https://api.openai.com",
    "bedrock_guardrail": "https://bedrock-runtime.{region}.amazonaws.com",
}
_REQUEST_STAGES: Final = ("preflight", "parallel")
_WATCHES: Final[tuple[Action, ...]] = ("flag", "log")
_REWRITES: Final[tuple[Action, ...]] = ("redact", "replace")
# members of a rule that speak of patterns
_NOT_HERE: Final = (
    "pattern", "keywords", "validator", "entropy_min", "context", "allow", "case", "fold", "group",
    "confidence", "tests",
)  # fmt: skip
# members of a config that only one adapter reads
_OF_ADAPTER: Final = {
    "model": ("openai_moderation", "llama_guard"),
    "language": ("presidio",),
    "entities": ("presidio",),
    "allow_list": ("presidio",),
    "guardrail_id": ("bedrock_guardrail",),
    "guardrail_version": ("bedrock_guardrail",),
    "region": ("bedrock_guardrail",),
}
_CREDENTIAL: Final = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class ExternalRule(RuleFacts):
    """A rule that asks a service.

    `request_stage`, `response_stage`: when it is asked, None where it does not look.  `window`:
    size and overlap in characters.  `replacement` None: the category in brackets.  `variants`: the
    same rule as its `map` has it, by category."""

    adapter: Adapter
    spec: Spec
    config: ExternalConfig
    request_stage: Stage | None
    response_stage: Stage | None
    window: tuple[int, int]
    timeout_s: float
    cache_s: int
    replacement: str | None
    variants: Mapping[str, "ExternalRule"]

    @property
    def acts(self) -> bool:
        """It can hold back, change or stop a text, at least for some category."""
        return self.enforces or any(rule.enforces for rule in self.variants.values())

    def on(self, category: str) -> "ExternalRule":
        """The rule as it stands for one category."""
        return self.variants.get(category, self)

    def words_for(self, spot: Spot) -> str:
        """What takes the place of a finding."""
        if spot.replacement is not None:
            return spot.replacement
        if self.replacement is not None:
            return self.replacement
        name = spot.category or self.rule_id.rstrip(".").rpartition(".")[2].upper()
        return name if self.action == "replace" else f"[{name}]"


def read_external(said: Said) -> ExternalRule | None:
    """The rule ready to run; None when it is refused."""
    config = said.config
    assert isinstance(config, ExternalConfig)
    rule, adapter = said.rule, ADAPTERS[config.adapter]
    for member in _NOT_HERE:
        if member in rule.model_fields_set and getattr(rule, member) not in (None, [], ""):
            said.refuse(member, "extra_forbidden", "Kind external has no pattern and no hit of it.")
    if rule.reversible:
        said.refuse("reversible", "action_not_possible", "What a service finds is not put back.")
    _check_config(said, config)
    before, after = _stages(said, config)
    facts = said.facts_of_rule()
    facts["detector"] = adapter.name
    found = ExternalRule(
        **facts,
        adapter=adapter,
        spec=_spec(rule, config),
        config=config,
        request_stage=before,
        response_stage=after,
        window=(config.window.size, config.window.overlap),
        timeout_s=(config.timeout_ms or rule.timeout_ms or adapter.timeout_ms) / 1000,
        cache_s=config.cache_seconds,
        replacement=_replacement(rule, said.action),
        variants={},
    )
    variants = {
        name: replace(
            found, action=own.action or found.action, severity=own.severity or found.severity
        )
        for name, own in config.map.items()
        if own.action is not None or own.severity is not None
    }
    found = replace(found, variants=variants)
    for what in _impossible(said, config, adapter, before, after):
        said.refuse("config.stage" if config.stage else "action", "action_not_possible", what)
    return found


def _spec(rule: Rule, config: ExternalConfig) -> Spec:
    return Spec(
        threshold=config.threshold,
        doubt=rule.threshold,
        categories={
            name: Category(own.threshold, own.severity, own.action)
            for name, own in config.map.items()
        },
        model=config.model or "",
        language=config.language,
        entities=tuple(config.entities),
        allow_list=tuple(config.allow_list),
        guardrail=(config.guardrail_id or "", config.guardrail_version),
    )


def _replacement(rule: Rule, action: Action) -> str | None:
    if rule.replacement is not None or rule.label is None:
        return rule.replacement
    return rule.label if action == "replace" else f"[{rule.label}]"


# --- what is refused


def _check_config(said: Said, config: ExternalConfig) -> None:
    refuse, name = said.refuse, config.adapter
    if config.url is not None and config.endpoint is not None:
        refuse("config.endpoint", "extra_forbidden", "Either url or endpoint says where it is.")
    if config.endpoint is not None:
        for member in ("headers", "allow_private"):
            if getattr(config, member):
                what = "An endpoint has its own credentials and address rules."
                refuse(f"config.{member}", "extra_forbidden", what)
    elif config.url is None:
        known = name == "openai_moderation" or (name == "bedrock_guardrail" and config.region)
        if not known:
            refuse("config.url", "missing", f"Adapter {name} needs url or endpoint.")
    if name == "bedrock_guardrail" and config.guardrail_id is None:
        refuse("config.guardrail_id", "missing", "Adapter bedrock_guardrail needs it.")
    for member, names in _OF_ADAPTER.items():
        if member in config.model_fields_set and name not in names:
            refuse(f"config.{member}", "extra_forbidden", f"Adapter {name} does not read it.")
    for header, value in config.headers.items():
        where = f"config.headers.{header}"
        if not isinstance(value, EnvRef) and _CREDENTIAL.search(header):
            refuse(where, "literal_secret", "Name a variable that holds it: {$env: NAME}.")
        if header.lower() in ("host", "content-length", "content-type", "transfer-encoding"):
            refuse(where, "extra_forbidden", "This header is ours to send.")


def _stages(said: Said, config: ExternalConfig) -> tuple[Stage | None, Stage | None]:
    """When requests and when answers are looked at."""
    looks, wanted = said.reach.directions, config.stage
    before: Stage | None = "preflight" if "request" in looks else None
    after: Stage | None = "buffer" if "response" in looks else None
    if wanted is None:
        return before, after
    of_requests = wanted in _REQUEST_STAGES
    if (before if of_requests else after) is None:
        side = "requests" if of_requests else "answers"
        what = f"Stage {wanted} is for {side}, and the rule does not look at them."
        said.refuse("config.stage", "kind_not_possible", what)
    return (wanted, after) if of_requests else (before, wanted)


def _impossible(
    said: Said,
    config: ExternalConfig,
    adapter: Adapter,
    before: Stage | None,
    after: Stage | None,
) -> Iterator[str]:
    """What no caller could rely on (guardrails.md §3.2)."""
    actions = {said.action, *(own.action for own in config.map.values() if own.action)}
    if said.action in ("allow", "reroute") or "reroute" in actions:
        yield "A check outside blocks, redacts, replaces, flags or logs."
    actions -= {"allow"}
    rewrites = actions.intersection(_REWRITES)
    if before == "parallel" and rewrites:
        yield "A request that has left cannot be rewritten: stage parallel blocks, flags or logs."
    if after == "window" and rewrites and not adapter.points:
        yield f"Adapter {adapter.name} does not say where: stage window cannot rewrite."
    if after == "post" and actions.difference(_WATCHES):
        yield "An answer that has left can be flagged and logged only."
