"""{w}/alerts: what fired, why, and whether it still does (control-api.md §12.4, alerts.md §3).

Alerts are listed and told here; nothing evaluates rules yet, so there is none unless it was stored.
"""

from typing import Final

from pydantic import TypeAdapter

from proxy.alerting.alert import ALERT, Alert, AlertStatus
from proxy.control.kinds import Kind, Object
from proxy.control.wire import Instant, ListQuery, within
from proxy.model.documents import Severity
from proxy.model.exchange import Json


class AlertsQuery(ListQuery):
    """`since` and `until` are about `starts_at`."""

    status: list[AlertStatus] | None = None
    severity: list[Severity] | None = None
    type: list[str] | None = None
    rule_id: list[str] | None = None
    incident_id: list[str] | None = None
    route_id: list[str] | None = None
    since: Instant | None = None
    until: Instant | None = None


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, AlertsQuery), "the table says so"
    wanted: tuple[tuple[Json, list[str] | None], ...] = (
        (doc["status"], [*query.status] if query.status else None),
        (doc["severity"], [*query.severity] if query.severity else None),
        (doc["type"], query.type),
        (doc["rule_id"], query.rule_id),
        (doc["incident_id"], query.incident_id),
        (_route(doc), query.route_id),
    )
    return all(values is None or value in values for value, values in wanted) and within(
        doc["starts_at"], query.since, query.until
    )


def _route(doc: Object) -> Json:
    for name in ("labels", "context"):
        told = doc.get(name)
        if isinstance(told, dict) and told.get("route_id"):
            return told["route_id"]
    return None


ALERTS: Final = Kind(
    name=ALERT,
    noun="alert",
    parameter="alertId",
    adapter=TypeAdapter(Alert),
    id_member="alert_id",
    id_of=lambda said, _: str(said["alert_id"]),
    keep=_keep,
    sorts=("starts_at", "severity", "status", "created_at"),
    conditional_get=False,
    ours=True,
)
