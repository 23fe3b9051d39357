"""Policy packs in words: the seed's pack payload and its extensions, and the result that is told.

Members, bounds and defaults are guardrails.md §2 and §3.1; what a pattern may hold and how rules
are run is the affair of `guardrails/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from proxy.model.documents import Doc, Severity, Slug
from proxy.model.exchange import Direction, Part, Role

Action = Literal["block", "redact", "replace", "reroute", "flag", "log", "allow"]
ActionTaken = Literal["block", "redact", "replace", "reroute", "flag", "log", "allow", "none"]
Verdict = Literal["pass", "violation", "error", "skipped", "bypassed"]
Mode = Literal["enforce", "shadow"]
OnError = Literal["block", "allow"]
Kind = Literal[
    "terms",
    "regex",
    "secret",
    "pii",
    "unicode",
    "injection",
    "topic",
    "url",
    "tool_permission",
    "model_access",
    "limits",
    "json_schema",
    "external",
]
Encoding = Literal["base64", "hex", "url"]
RuleId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
_NUMBER, _RELEASE = r"(0|[1-9][0-9]*)", r"(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
SEMVER = (  # semver.org §2, §9, §10
    rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_RELEASE}(\.{_RELEASE})*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$"
)


class Scope(Doc):
    """Where a rule looks.  None: the default of guardrails.md §3.1."""

    direction: Literal["request", "response", "both", "in", "out"] = "both"
    roles: list[Role | Literal["developer", "function"]] | None = None
    parts: list[Part] | None = None
    turns: Literal["all", "latest"] = "all"


class Context(Doc):
    words: list[Annotated[str, StringConstraints(min_length=1, max_length=64)]] = Field(
        min_length=1, max_length=100
    )
    boost: float = Field(0.3, ge=0, le=1)
    required: bool = False


class RuleTests(Doc):
    match: list[str] = Field(default_factory=list, max_length=50)
    no_match: list[str] = Field(default_factory=list, max_length=50)


class Rule(Doc):
    """One thing to look for and what to do about it."""

    rule_id: RuleId
    severity: Severity = "medium"
    pattern: Pattern | Annotated[list[Pattern], Field(min_length=1, max_length=200)] | None = None
    action: Action | None = None
    kind: Kind | None = None
    enabled: bool | None = None
    mode: Mode | None = None
    on_error: OnError | None = None
    scope: Scope | None = None
    case: Literal["ignore", "exact"] | None = None
    fold: Literal["none", "fold", "leet"] | None = None
    keywords: list[Annotated[str, StringConstraints(min_length=2, max_length=64)]] | None = Field(
        None, max_length=50
    )
    validator: str | None = None
    entropy_min: float | None = Field(None, ge=0, le=8)
    group: int = Field(0, ge=0, le=9)
    confidence: float | None = Field(None, ge=0, le=1)
    context: Context | None = None
    threshold: float = Field(0.5, ge=0, le=1)
    allow: list[Pattern] = Field(default_factory=list, max_length=100)
    label: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,23}$")] | None = None
    replacement: str | None = Field(None, max_length=200)
    reversible: bool = False
    message: str | None = Field(None, max_length=500)
    tags: list[str] = Field(default_factory=list, max_length=20)
    sample_pct: float = Field(100, ge=0, le=100)
    timeout_ms: int | None = Field(None, ge=1, le=30_000)
    tests: RuleTests = Field(default_factory=RuleTests)
    config: dict[str, object] = Field(default_factory=dict)


def reroute_targets(config: Mapping[str, object]) -> list[str]:
    """The endpoints that a rule's config names, as far as it names any."""
    said = config.get("reroute_to")
    listed = said if isinstance(said, list) else [said]
    return [name for name in listed if isinstance(name, str)]


def named_endpoints(config: Mapping[str, object]) -> list[tuple[str, str]]:
    """Where a rule's config names endpoints, and which: to go there, or to ask there."""
    found = [("reroute_to", name) for name in reroute_targets(config)]
    asked = config.get("endpoint")
    return [*found, ("endpoint", asked)] if isinstance(asked, str) else found


class Scoring(Doc):
    mode: Literal["first", "sum"] = "first"
    block_at: int = Field(2, ge=1, le=100)


class Unscannable(Doc):
    binary: Literal["allow", "block"] = "allow"
    remote: Literal["allow", "block"] = "allow"


class PolicyPack(Doc):
    """The seed's policy pack payload, extended."""

    policy_pack_id: Slug
    version: str = Field("1.0.0", pattern=SEMVER)
    rules: list[Rule] = Field(max_length=500)
    default_action: Action = "log"
    description: str = Field("", max_length=2000)
    mode: Mode = "enforce"
    on_error: OnError = "block"
    enabled: bool = True
    scope: Scope | None = None
    lists: dict[str, list[str]] = Field(default_factory=dict)
    scoring: Scoring = Field(default_factory=Scoring)
    message: str | None = Field(None, max_length=300)
    block_style: Literal["error", "finish"] = "error"
    reasoning: Literal["hold", "live", "off"] = "hold"
    tool_args: Literal["hold", "live"] = "hold"
    unscannable: Unscannable = Field(default_factory=Unscannable)
    extends: str | None = None
    tags: list[str] = Field(default_factory=list, max_length=20)


class Policy(PolicyPack):
    """A pack as the control API keeps it (control-api.md §12.3).  A paused one does nothing;
    `route_ids` are the routes that it attaches itself to."""

    status: Literal["active", "paused"] = "active"
    route_ids: list[Slug] = Field(default_factory=list, max_length=1000)


def holds_answers(pack: PolicyPack, rule: Rule) -> bool:
    """The rule may block an answer for what it is as a whole, so a stream is held to its end."""
    enabled = pack.enabled and rule.enabled is not False
    enforces = (rule.mode or pack.mode) == "enforce"
    blocks = (rule.action or pack.default_action) == "block"
    named = rule.kind == "json_schema" and rule.config.get("schema") is not None
    return enabled and enforces and blocks and named


@dataclass(slots=True)
class PolicyResult:
    """One result that is not `pass`, per (rule, direction, part); the seed's members first.

    `span_start` and `span_end` are code points of the first hit in its leaf or lane, before any
    rewriting.  The matched text stands nowhere.  `elapsed_us`: what judging took, of all rules
    that looked at the request or at the answer; of a check outside, what that took.
    """

    policy_id: str
    verdict: Verdict
    rule_matched: str | None
    confidence: float
    action_taken: ActionTaken
    timestamp_ms: int = 0
    policy_version: str = ""
    severity: Severity = "medium"
    applies_to: Part = "text"
    direction: Direction = "request"
    span_start: int = 0
    span_end: int = 0
    count: int = 1
    enforced: bool = True
    detector: str = "regex"
    elapsed_us: int = 0
    message: str | None = None
