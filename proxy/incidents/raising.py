"""Incidents that endpoints raise: what their failover says that somebody has to look at.

    nothing is left of a policy            failover_exhausted      critical
    an endpoint comes and goes             failover_flapping       high
    an endpoint refuses our credential     endpoint_auth_failed    high
    … has no money left                    endpoint_quota          high
    … does not know the model              endpoint_model_missing  high
    … does not take what we send           endpoint_misconfigured  high

One that is open takes what is said of the same endpoint again.  It ends by itself when the endpoint
has been well, and silent, for a while (events.md §8; failover.md §3, §4).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.incidents.changes import Change, Found, joined, opened, recovered
from proxy.incidents.incident import FailoverAction, Incident, incident_id
from proxy.model.documents import Severity
from proxy.model.events import ENDPOINT_STATE_CHANGED, FAILOVER_DECISION, iso, parse_time
from proxy.model.exchange import Json

AVAILABILITY: Final = "availability"
SIGNALS: Final = (ENDPOINT_STATE_CHANGED, FAILOVER_DECISION)
EXHAUSTED: Final = "failover_exhausted"
FLAPPING: Final = "failover_flapping"
_OF_REASON: Final[Mapping[str, tuple[str, str]]] = {
    "flap_hold": (FLAPPING, "{} comes and goes: traffic stays on its fallback"),
    "auth": ("endpoint_auth_failed", "{} refuses its credential"),
    "quota": ("endpoint_quota", "{} has no quota left"),
    "model_not_found": ("endpoint_model_missing", "{} does not know the model"),
    "misconfigured": ("endpoint_misconfigured", "{} does not take what is sent"),
}
_STATES: Final = ("open", "probing", "limited")  # that such a reason is told with
RAISED: Final = frozenset({EXHAUSTED, *(kind for kind, _ in _OF_REASON.values())})


@dataclass(frozen=True, slots=True)
class Signal:
    """What an event says that raises an incident.  `at_ms`: when it happened."""

    event_id: str
    at_ms: int
    type: str
    severity: Severity
    title: str
    policy_id: str
    endpoint_id: str
    route_id: str | None
    action: FailoverAction | None = None


def signal_of(event: Mapping[str, Json]) -> Signal | None:
    """What an event of our own gateways raises; None: nothing."""
    payload, at = event.get("payload"), event.get("timestamp")
    at_ms = parse_time(at) if isinstance(at, str) else None
    if not isinstance(payload, dict) or at_ms is None or not _is_own(event.get("source")):
        return None
    route_id = event.get("route_id")
    route = route_id if isinstance(route_id, str) else None
    policy_id, event_id = str(payload.get("failover_policy_id")), str(event["event_id"])
    if event["type"] == FAILOVER_DECISION:
        if payload.get("scope") != "endpoint" or payload.get("selected_fallback") is not None:
            return None
        action = FailoverAction.model_validate(payload)
        title = f"no endpoint of {policy_id} is left"
        return Signal(
            event_id, at_ms, EXHAUSTED, "critical", title, policy_id, action.original_endpoint,
            route, action,
        )  # fmt: skip
    kind, title = _OF_REASON.get(str(payload.get("reason")), ("", ""))
    if not kind or payload.get("to") not in _STATES:
        return None
    endpoint_id = str(payload.get("endpoint_id"))
    return Signal(
        event_id, at_ms, kind, "high", title.format(endpoint_id), policy_id, endpoint_id, route
    )


def _is_own(source: Json) -> bool:
    return isinstance(source, str) and (source == "control" or source.startswith("proxy/"))


def takes(incident: Incident, signal: Signal) -> bool:
    """It is the open incident that this signal belongs to."""
    if incident.status == "resolved" or incident.type != signal.type:
        return False
    if signal.type == EXHAUSTED:
        return signal.route_id in incident.route_ids
    return signal.endpoint_id in incident.endpoint_ids


def raised(workspace_id: str, signal: Signal, known: Iterable[Incident], at_ms: int) -> Change:
    """The incident of this signal: a new one, or the open one that it belongs to."""
    found = Found(
        event_ids=(signal.event_id,),
        kind="failover" if signal.action is not None else "event_added",
        message=signal.title,
        fingerprint=f"{signal.type}|{signal.route_id or ''}|{signal.endpoint_id}|",
        severity=signal.severity,
        failovers=() if signal.action is None else (signal.action,),
        route_ids=() if signal.route_id is None else (signal.route_id,),
        endpoint_ids=(signal.endpoint_id,),
        at_ms=signal.at_ms,
    )
    for incident in known:
        if takes(incident, signal):
            return joined(incident, found, at_ms)
    scope = f"endpoint:{signal.endpoint_id}"
    if signal.type == EXHAUSTED and signal.route_id is not None:
        scope = f"route:{signal.route_id}"
    fresh = Incident(
        incident_id=incident_id(workspace_id, AVAILABILITY, scope, signal.event_id),
        severity=signal.severity,
        type=signal.type,
        title=signal.title,
        created_at=iso(at_ms),
        updated_at=iso(at_ms),
    )
    told = joined(fresh, found, at_ms)
    return Change(told.incident, (*opened(fresh).entries, *told.entries))


def ended(incident: Incident, at_ms: int, *, well: bool, resolve_after_s: int) -> Change | None:
    """It has ended by itself: all is `well`, and nothing was told of it for so long."""
    updated_ms = parse_time(incident.updated_at)
    if not well or updated_ms is None or at_ms - updated_ms < resolve_after_s * 1000:
        return None
    return recovered(incident, "its endpoints answer again", at_ms)
