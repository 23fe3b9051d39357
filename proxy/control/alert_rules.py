"""{w}/alert-rules: when and how a team is told (control-api.md §12.4, members alerts.md §1).

Rules are kept, listed and checked here; nothing evaluates them yet, and `…/test` says so.
"""

from typing import Final, Literal

from pydantic import TypeAdapter

from proxy.control.kinds import Kind, Object, Reference
from proxy.control.wire import ListQuery
from proxy.model.documents import Severity
from proxy.settings.notices import AlertRule, Metric

DELIVERY: Final = "delivery"


class AlertRulesQuery(ListQuery):
    """Active rules unless another status is asked for."""

    status: Literal["active", "paused", "all"] = "active"
    severity: list[Severity] | None = None
    metric: list[Metric] | None = None


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, AlertRulesQuery), "the table says so"
    condition = doc["condition"]
    assert isinstance(condition, dict), "the model says so"
    return (
        query.status in ("all", doc["status"])
        and (query.severity is None or doc["severity"] in query.severity)
        and (query.metric is None or condition["metric"] in query.metric)
    )


def _references(said: Object) -> list[Reference]:
    targets = said.get("delivery_targets")
    return [
        Reference(f"#/delivery_targets/{place}", DELIVERY, "delivery target", str(target))
        for place, target in enumerate(targets if isinstance(targets, list) else ())
    ]


ALERT_RULE: Final = Kind(
    name="alert_rule",
    noun="alert rule",
    parameter="ruleId",
    adapter=TypeAdapter(AlertRule),
    id_of=lambda said, ids: str(said.get("id") or ids.new("rule-")),
    keep=_keep,
    sorts=("name", "severity", "created_at", "updated_at"),
    references=_references,
)
