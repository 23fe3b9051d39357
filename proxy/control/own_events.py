"""What the control API tells of itself: an event in the commit of the change (events.md §5.9).

Values stand in the audit alone: an event has names of members, so that no secret is in the log.
"""

from typing import Final

from proxy.control.frame import ControlDeps, Passage
from proxy.control.kinds import Kind, Object
from proxy.incidents.changes import Change
from proxy.incidents.incident import Incident
from proxy.model.batch import Op
from proxy.model.events import (
    CONFIG_CHANGED,
    INCIDENT_REOPENED,
    INCIDENT_RESOLVED,
    INCIDENT_UPDATED,
    KEY_CREATED,
    KEY_REVOKED,
    POLICY_PUBLISHED,
    NewEvent,
    iso,
)
from proxy.model.exchange import Json

SOURCE: Final = "control"
_INSTEAD: Final = {("key", "create"): KEY_CREATED, ("key", "revoke"): KEY_REVOKED}


async def commit_telling(
    deps: ControlDeps, workspace_id: str, events: list[NewEvent], ops: tuple[Op, ...]
) -> None:
    """Commit `ops` with the events that tell of them.  Raises StoreConflict, StoreUnavailable."""
    await deps.intake.accept(workspace_id, events, source=SOURCE, also=ops)


def of_document(
    kind: Kind,
    passage: Passage,
    deps: ControlDeps,
    verb: str,
    doc_id: str,
    old: Object,
    new: Object,
) -> list[NewEvent]:
    """A document was made, changed or removed; what we write ourselves is no configuration."""
    if kind.ours:
        return []
    changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    members: Object = {
        "resource": {"type": kind.name, "id": doc_id},
        "change": verb,
        "changed_members": [*changed],
    }
    route_id = doc_id if kind.name == "route" else (new or old).get("route_id")
    event_type = _INSTEAD.get((kind.name, verb), CONFIG_CHANGED)
    found = [own_event(passage, deps, event_type, members, route_id)]
    version = new.get("version")
    if kind.name == "policy" and verb != "activate" and version not in (None, old.get("version")):
        published: Object = {
            "policy_id": doc_id, "version": version, "previous_version": old.get("version")
        }  # fmt: skip
        found.append(own_event(passage, deps, POLICY_PUBLISHED, published))
    return found


def of_incident(passage: Passage, deps: ControlDeps, before: Incident, change: Change) -> NewEvent:
    """An incident was changed, resolved or opened again."""
    now = change.incident
    route_id = now.route_ids[0] if len(now.route_ids) == 1 else None
    return own_event(passage, deps, _type_of(before, now), of_change(change), route_id)


def of_change(change: Change) -> Object:
    """What an event tells of an incident that changed."""
    now = change.incident
    return {
        "incident_id": now.incident_id,
        "status": now.status,
        "severity": now.severity,
        "type": now.type,
        "title": now.title,
        "route_ids": [*now.route_ids],
        "changes": [entry.kind for entry in change.entries],
    }


def _type_of(before: Incident, now: Incident) -> str:
    if now.status == before.status or "resolved" not in (now.status, before.status):
        return INCIDENT_UPDATED
    return INCIDENT_RESOLVED if now.status == "resolved" else INCIDENT_REOPENED


def own_event(
    passage: Passage,
    deps: ControlDeps,
    event_type: str,
    members: Object,
    route_id: Json = None,
) -> NewEvent:
    """An event of this request."""
    now_ms = deps.clock.now_ms()
    body: Object = {
        "event_id": deps.ids.new("evt-"),
        "type": event_type,
        "timestamp": iso(now_ms),
        "route_id": route_id,
        "request_id": passage.request_id,
        "payload": {**members, "actor": passage.caller.key_id},
    }
    return NewEvent(body, now_ms)
