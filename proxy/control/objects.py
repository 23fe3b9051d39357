"""The objects of the API that have a schema of their own, and until when (control-api.md §11).

Members and what they mean are events.md §1, §3, §5.  The members that the contract names are
required; every object may have more.  A schema that has a successor lives at least six months
after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, TypeAdapter

from proxy.control.answers import ChangeEventSent, RuntimeEventSent, Time, Told
from proxy.model.documents import Severity
from proxy.model.events import SCHEMA_VERSION
from proxy.model.policy import PolicyPack

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SUCCESSION_DAYS: Final = 180
Schema = dict[str, Any]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0)]
Day = Annotated[str, Field(json_schema_extra={"format": "date"})]
Revenue = Annotated[str, Field(pattern=r"^\$[0-9]+(\.[0-9]{1,2})?(/(hour|day|month))?$")]


def open_to(*values: str) -> Any:
    """An enumeration that may become longer."""
    return Field(json_schema_extra={"x-extensible-enum": [*values]})


IncidentType = Annotated[
    str,
    open_to(
        "policy_violation", "failover", "error_rate", "latency", "cost", "rate_limit", "security"
    ),
]
Pattern = Annotated[
    str,
    open_to(
        "policy_violation_followed_by_failover",
        "provider_change_followed_by_error_rate_rise",
        "provider_change_followed_by_latency_rise",
        "provider_change_followed_by_violation_rise",
        "provider_change_followed_by_failover",
        "pricing_change_followed_by_cost_rise",
        "failover_followed_by_violation_rise",
        "failover_cascade",
        "rate_limit_followed_by_failover",
        "error_rate_rise_followed_by_failover",
        "violation_burst",
        "permission_denial_burst",
    ),
]
Reason = Annotated[
    str,
    open_to(
        "role_restriction", "scope_missing", "workspace_mismatch", "ip_not_allowed",
        "tool_not_allowed", "argument_rejected", "ok",
    ),
]  # fmt: skip


class PolicyResultTold(Told):
    """What one rule of a policy found in a request or an answer."""

    policy_id: str
    verdict: Literal["pass", "violation", "error", "skipped", "bypassed"]
    rule_matched: str | None
    confidence: Share
    action_taken: Literal["block", "redact", "replace", "reroute", "flag", "log", "allow", "none"]
    timestamp: Time
    severity: Severity | None = None
    route_id: str | None = None
    message: str | None = None


class PermissionDecision(Told):
    """Whether somebody might do something."""

    request_id: str
    resource: str
    action: str
    decision: Literal["allowed", "denied"]
    reason: Reason
    role_required: str | None


class Observed(BaseModel):
    """What a rule saw: the ratio or the run beside its threshold, and of how many samples."""

    value: float
    threshold: float
    samples: Whole
    window_seconds: Whole


class FailoverDecisionTold(Told):
    """A change of endpoint; `selected_fallback` null: there was none left.

    `scope` endpoint: all new traffic; request: one.  `observed` stands in those of scope endpoint,
    `resumed_at_chars` and `recovery` in those of a stream that went on elsewhere."""

    failover_policy_id: str
    trigger_condition: str
    original_endpoint: str
    selected_fallback: str | None
    timestamp: Time
    decision_id: str | None = None
    scope: Literal["endpoint", "request"] | None = None
    reason_code: str | None = None
    route_id: str | None = None
    request_id: str | None = None
    skipped: list[dict[str, str]] | None = None
    observed: Observed | None = None
    state_version: Whole | None = None
    node_id: str | None = None
    resumed_at_chars: Whole | None = None
    recovery: Literal["prefill", "restart", "buffer"] | None = None


class RouteExposure(Told):
    """What hangs on a route.

    `provider` null: its endpoint is not there.  `measured` false: the figures are those that the
    route's document declares (`basis` declared), or nobody knows any (`none`)."""

    route_id: str
    provider: str | None
    daily_requests: Whole
    affected_users: Whole
    revenue_impact: Revenue
    revenue_per_day_usd: float | None = None
    measured: bool | None = None
    basis: Literal["declared", "none"] = "none"
    window_days: int | None = None
    as_of: Time | None = None


class BlastRadius(Told):
    """What an incident has hit so far."""

    incident_id: str
    affected_routes: list[str]
    failed_requests: Whole
    users_impacted: Whole
    duration_seconds: Whole
    revenue_impact: Revenue
    revenue_impact_usd: float | None = None
    blocked_requests: Whole | None = None
    rerouted_requests: Whole | None = None
    users_method: Literal["exact", "estimated"] | None = None
    computed_at: Time | None = None
    final: bool | None = None


class AlertContext(Told):
    route_id: str | None
    model: str | None
    timestamp: Time | None


class AlertLinks(Told):
    incident_url: str | None


class WebhookAlert(Told):
    """The body of a webhook."""

    alert_id: str
    incident_id: str | None
    severity: Severity
    type: IncidentType
    message: str = Field(max_length=1000)
    context: AlertContext
    links: AlertLinks
    status: Literal["firing", "resolved"] | None = None
    workspace_id: str | None = None
    rule_id: str | None = None
    rule_name: str | None = None
    value: float | None = None
    threshold: float | None = None
    window_seconds: int | None = None
    starts_at: Time | None = None
    ends_at: Time | None = None
    test: bool | None = None
    schema_version: str | None = None


class DigestSummary(Told):
    total_incidents: Whole
    policy_violations: Whole
    failover_events: Whole


class DigestIncident(Told):
    id: str
    severity: Severity
    type: IncidentType
    route: str | None


class EmailDigest(Told):
    """What happened in a day or in a week."""

    digest_id: str
    period: Literal["daily", "weekly"]
    workspace_id: str
    summary: DigestSummary
    incidents: list[DigestIncident] = Field(max_length=50)
    generated_at: Time | None = None


class ChangeImpact(Told):
    cost_change_percent: int | None
    affected_workspaces: list[str]


class WatcherDiff(Told):
    """What changed on a page that is watched."""

    watcher_id: str
    change_type: Annotated[
        str,
        open_to(
            "pricing_update", "model_added", "model_removed", "text_changed", "status_changed",
            "terms_update", "custom",
        ),
    ]  # fmt: skip
    old_value: str | None
    new_value: str | None
    effective_date: Day | None
    affected_routes: list[str]
    impact_assessment: ChangeImpact
    event_id: str | None = None
    source_url: str | None = None
    detected_at: Time | None = None
    diff: str | None = None


class Correlation(Told):
    """Events that belong together, the cause first; `confidence` ranks, it is no probability."""

    correlation_id: str
    incident_id: str
    related_events: list[str]
    pattern: Pattern
    confidence: Share
    detected_at: Time | None = None
    workspace_id: str | None = None


@dataclass(slots=True, frozen=True)
class Published:
    """One object's schema.  `succeeded_on`: the day on which its successor appeared; `sunset`: the
    day from which it may be gone, at least 180 days later."""

    name: str
    shape: Any
    succeeded_on: date | None = None
    sunset: date | None = None
    version: str = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if (self.succeeded_on is None) != (self.sunset is None):
            raise ValueError(f"{self.name}: a successor and a sunset come together")
        if self.succeeded_on is not None and self.sunset is not None:
            lives = (self.sunset - self.succeeded_on).days
            if lives < SUCCESSION_DAYS:
                raise ValueError(f"{self.name}: {SUCCESSION_DAYS} days are promised")

    def summary(self) -> Schema:
        return {
            "name": self.name,
            "version": self.version,
            "status": "current" if self.sunset is None else "deprecated",
            "sunset_at": f"{self.sunset.isoformat()}T00:00:00Z" if self.sunset else None,
        }

    def schema(self) -> Schema:
        """JSON Schema 2020-12, with what the summary says beside it."""
        adapter: TypeAdapter[Any] = TypeAdapter(self.shape)
        schema = adapter.json_schema(by_alias=True)
        return {
            "$schema": DIALECT, **schema, "title": self.name, "deprecated": self.sunset is not None
        } | {key: value for key, value in self.summary().items() if key != "name"}  # fmt: skip


SCHEMAS: Final[Sequence[Published]] = (
    Published("runtime-event", RuntimeEventSent),
    Published("change-event", ChangeEventSent),
    Published("policy-result", PolicyResultTold),
    Published("permission-decision", PermissionDecision),
    Published("failover-decision", FailoverDecisionTold),
    Published("route-exposure", RouteExposure),
    Published("incident-blast-radius", BlastRadius),
    Published("webhook-alert", WebhookAlert),
    Published("email-digest", EmailDigest),
    Published("watcher-diff", WatcherDiff),
    Published("correlation-event", Correlation),
    Published("policy-pack", PolicyPack),
)


class SchemaSummary(Told):
    """An object's schema, and whether it goes."""

    name: str
    version: str
    status: Literal["current", "deprecated"]
    sunset_at: Time | None


class SchemaList(Told):
    data: list[SchemaSummary]


class Change(Told):
    """One change of the API."""

    version: str
    date: Day
    kind: Literal["added", "changed", "deprecated", "removed"]
    text: str
    member: str | None = Field(None, description="what is deprecated or removed")


class Changes(Told):
    data: list[Change]
