"""An alert: one episode of one rule and one set of labels (alerts.md §3)."""

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.model.documents import Severity
from proxy.model.events import derived

ALERT: Final = "alert"
AlertStatus = Literal["pending", "active", "resolved", "no_data"]


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Context(_Kept):
    """What it is about; null where it does not apply."""

    route_id: str | None = None
    model: str | None = None
    timestamp: str | None = None


class Notification(_Kept):
    """What became of telling one target."""

    target_id: str
    state: str
    attempts: int = 0
    at: str | None = None


class Alert(_Kept):
    """`value` and `threshold` are in the unit of the rule's metric."""

    alert_id: str
    rule_id: str | None = None
    incident_id: str | None = None
    status: AlertStatus = "active"
    severity: Severity
    type: str
    message: str = Field("", max_length=1000)
    value: float | None = None
    threshold: float | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    context: Context = Field(default_factory=Context)
    starts_at: str
    ends_at: str | None = None
    last_evaluated_at: str | None = None
    stale_since: str | None = None
    test: bool = False
    suppressed_by: str | None = None
    notifications: list[Notification] = Field(default_factory=list)


def alert_id(workspace_id: str, rule_id: str, labels: Mapping[str, str], starts_at_s: int) -> str:
    """The id of an episode, the same whoever finds it (events.md §6)."""
    told = [f"{name}={value}" for name, value in sorted(labels.items())]
    return derived("alert-", 12, workspace_id, rule_id, *told, str(starts_at_s))
