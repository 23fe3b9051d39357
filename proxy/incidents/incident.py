"""An incident, and what is kept of the things that belong to it (control-api.md §12.8).

Invariants: `related_events` holds at most 1000 ids, the first 100 and the last 900, and
`related_events_total` counts all of them; `revision` grows with every change of what a client can
write, so an entity tag made of it says nothing of what was only observed.
"""

from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from proxy.model.documents import Severity
from proxy.model.events import derived

Status = Literal["active", "acknowledged", "resolved"]
EntryKind = Literal[
    "opened",
    "event_added",
    "severity_changed",
    "correlation_added",
    "failover",
    "recovered",
    "alert_fired",
    "alert_resolved",
    "notification_sent",
    "note_added",
    "acknowledged",
    "assigned",
    "resolved",
    "reopened",
    "merged",
    "blast_radius_updated",
]
SYSTEM: Final = "system"
FIRST_EVENTS: Final = 100
LAST_EVENTS: Final = 900
FIRST_PARTS: Final = 20  # of violations, failovers, correlations, alerts
LAST_PARTS: Final = 80
MAX_CAUSES: Final = 10
Item = TypeVar("Item")


class Kept(BaseModel):
    """Base of what we write ourselves: a member that a newer version wrote stays."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class PolicyViolation(Kept):
    """A policy-result (events.md §5.1)."""

    policy_id: str
    verdict: str
    rule_matched: str | None = None
    confidence: float
    action_taken: str
    timestamp: str


class FailoverAction(Kept):
    """A failover-decision (events.md §5.3)."""

    failover_policy_id: str
    trigger_condition: str
    original_endpoint: str
    selected_fallback: str | None = None
    timestamp: str


class CorrelationRef(Kept):
    correlation_id: str
    pattern: str
    confidence: float


class Correlation(CorrelationRef):
    """A correlation event (events.md §5.8): the cause's event id first."""

    incident_id: str
    related_events: list[str]


class BlastRadius(Kept):
    """incident-blast-radius (events.md §5.5).  `duration_seconds` in seconds, money in USD."""

    incident_id: str
    affected_routes: list[str] = Field(default_factory=list)
    failed_requests: int = 0
    users_impacted: int = 0
    duration_seconds: int = 0
    revenue_impact: str = "$0"


class Cause(Kept):
    event_id: str
    confidence: float


class Entry(Kept):
    """One line of a timeline.  A repeat (same `fingerprint`) raises `count` and `last_seen`."""

    at: str
    kind: EntryKind
    actor: str = SYSTEM
    message: str = ""
    count: int = 1
    last_seen: str | None = None
    fingerprint: str | None = None


class Incident(Kept):
    """All members but the timeline, which is kept beside it.

    `severity_by_hand`: somebody set it, and nothing but a hand changes it again.  `route_ids`,
    `providers` and `endpoint_ids` are its scope.  `merged_into`: where its events are now.
    """

    incident_id: str
    status: Status = "active"
    severity: Severity
    type: str
    title: str = ""
    created_at: str
    updated_at: str
    acknowledged_at: str | None = None
    resolved_at: str | None = None
    resolution: str | None = None
    related_events: list[str] = Field(default_factory=list)
    related_events_total: int = 0
    policy_violations: list[PolicyViolation] = Field(default_factory=list)
    failover_actions: list[FailoverAction] = Field(default_factory=list)
    correlations: list[CorrelationRef] = Field(default_factory=list)
    blast_radius: BlastRadius | None = None
    alerts: list[str] = Field(default_factory=list)
    assignee: str | None = None
    notes_count: int = 0
    suspected_causes: list[Cause] = Field(default_factory=list)
    severity_by_hand: bool = False
    route_ids: list[str] = Field(default_factory=list)
    providers: list[str] = Field(default_factory=list)
    endpoint_ids: list[str] = Field(default_factory=list)
    merged_into: str | None = None
    merged_from: list[str] = Field(default_factory=list)
    reopened_count: int = 0
    revision: int = 1


def incident_id(workspace_id: str, kind: str, scope: str, first_event_id: str) -> str:
    """The id of a new incident, the same whoever opens it (events.md §6).

    `kind` is its class (availability, safety, cost, security), `scope` the most specific scope of
    its first event, such as `route:prod-chat`.
    """
    return derived("inc-", 16, workspace_id, kind, scope, first_event_id)


def with_events(kept: list[str], new: list[str]) -> tuple[list[str], int]:
    """The ids to keep, and how many of `new` were not among them."""
    fresh = [event_id for event_id in dict.fromkeys(new) if event_id not in set(kept)]
    return cut([*kept, *fresh], FIRST_EVENTS, LAST_EVENTS), len(fresh)


def with_parts(kept: list[Item], new: list[Item]) -> list[Item]:
    """Violations, failovers and such: each once, the first 20 and the last 80."""
    fresh = [item for place, item in enumerate(new) if item not in kept and item not in new[:place]]
    return cut([*kept, *fresh], FIRST_PARTS, LAST_PARTS)


def cut(items: list[Item], first: int, last: int) -> list[Item]:
    """The first and the last of them."""
    return items if len(items) <= first + last else items[:first] + items[-last:]
