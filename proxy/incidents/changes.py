"""What can happen to an incident, as functions: the incident before, the incident after, and what
its timeline tells of it.

The same functions serve whoever presses a button and whatever finds out by itself (control-api.md
§12.8, events.md §8).  None: it is so already, and nothing changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.incidents.incident import (
    MAX_CAUSES,
    SYSTEM,
    BlastRadius,
    Cause,
    Correlation,
    CorrelationRef,
    Entry,
    EntryKind,
    FailoverAction,
    Incident,
    PolicyViolation,
    Status,
    with_events,
    with_parts,
)
from proxy.model.documents import SEVERITY_RANK, Severity
from proxy.model.events import iso

MOVES: Final[Mapping[Status, frozenset[Status]]] = {
    "active": frozenset({"acknowledged", "resolved"}),
    "acknowledged": frozenset({"resolved"}),
    "resolved": frozenset({"active"}),
}
_SAYS: Final[Mapping[Status, EntryKind]] = {
    "active": "reopened",
    "acknowledged": "acknowledged",
    "resolved": "resolved",
}


class BadMove(Exception):
    """The incident cannot go there from where it is."""


@dataclass(slots=True, frozen=True)
class Change:
    """An incident as it is now, and what is new on its timeline."""

    incident: Incident
    entries: tuple[Entry, ...] = ()


@dataclass(slots=True, frozen=True)
class Edit:
    """What a client asks for; None: left as it is.  `unassign`: nobody is to have it."""

    status: Status | None = None
    severity: Severity | None = None
    assignee: str | None = None
    title: str | None = None
    unassign: bool = False
    resolution: str | None = None


@dataclass(slots=True, frozen=True)
class Found:
    """What a signal adds to an incident.

    `at_ms` is when it happened, if not now.  `severity` only raises, and not what was set by hand.
    `fingerprint` (kind, route, endpoint, rule) makes a repeat one entry of the timeline.
    """

    event_ids: Sequence[str] = ()
    kind: EntryKind = "event_added"
    message: str = ""
    fingerprint: str | None = None
    severity: Severity | None = None
    violations: Sequence[PolicyViolation] = ()
    failovers: Sequence[FailoverAction] = ()
    alerts: Sequence[str] = ()
    causes: Sequence[Cause] = ()
    route_ids: Sequence[str] = ()
    providers: Sequence[str] = ()
    endpoint_ids: Sequence[str] = ()
    at_ms: int | None = None


def opened(incident: Incident, message: str = "") -> Change:
    """A new incident, with all that is known of it."""
    entry = Entry(at=incident.created_at, kind="opened", message=message or incident.title)
    return Change(incident, (entry,))


def edited(incident: Incident, edit: Edit, actor: str, at_ms: int) -> Change | None:
    """What a client asked for.  Raises BadMove."""
    changes: dict[str, object] = {}
    told: list[Entry] = []

    def tell(kind: EntryKind, message: str) -> None:
        told.append(Entry(at=iso(at_ms), kind=kind, actor=actor, message=message))

    if edit.status is not None and edit.status != incident.status:
        changes |= _moved(incident, edit.status, edit.resolution, at_ms)
        tell(_SAYS[edit.status], edit.resolution or "")
    if edit.severity is not None:
        if edit.severity != incident.severity:
            changes["severity"] = edit.severity
            tell("severity_changed", f"{incident.severity} to {edit.severity}")
        if not incident.severity_by_hand:
            changes["severity_by_hand"] = True
    assignee = None if edit.unassign else edit.assignee or incident.assignee
    if assignee != incident.assignee:
        changes["assignee"] = assignee
        tell("assigned", f"to {assignee}" if assignee else "to nobody")
    if edit.title is not None and edit.title != incident.title:
        changes["title"] = edit.title
    return _change(incident, changes, told, at_ms, written=True) if changes else None


def _moved(incident: Incident, to: Status, resolution: str | None, at_ms: int) -> dict[str, object]:
    if to not in MOVES[incident.status]:
        raise BadMove(f"{incident.status} cannot become {to}")
    if incident.merged_into is not None:
        raise BadMove(f"was merged into {incident.merged_into}")
    if to == "acknowledged":
        return {"status": to, "acknowledged_at": iso(at_ms)}
    if to == "resolved":
        return {"status": to, "resolved_at": iso(at_ms), "resolution": resolution}
    return {
        "status": to,
        "acknowledged_at": None,
        "resolved_at": None,
        "resolution": None,
        "reopened_count": incident.reopened_count + 1,
    }


def noted(incident: Incident, actor: str, at_ms: int) -> Change:
    """A note was written; its text is not on the timeline."""
    entry = Entry(at=iso(at_ms), kind="note_added", actor=actor)
    return _change(incident, {"notes_count": incident.notes_count + 1}, [entry], at_ms)


def joined(incident: Incident, found: Found, at_ms: int) -> Change:
    """A signal belongs to this incident.  Each event is to be told once."""
    events, fresh = with_events(incident.related_events, list(found.event_ids))
    message = found.message or ", ".join(found.event_ids)[:200]
    at = iso(at_ms if found.at_ms is None else found.at_ms)
    told = [Entry(at=at, kind=found.kind, message=message, fingerprint=found.fingerprint)]
    changes: dict[str, object] = {
        "related_events": events,
        "related_events_total": incident.related_events_total + fresh,
        "policy_violations": with_parts(incident.policy_violations, list(found.violations)),
        "failover_actions": with_parts(incident.failover_actions, list(found.failovers)),
        "alerts": with_parts(incident.alerts, list(found.alerts)),
        "suspected_causes": _causes([*incident.suspected_causes, *found.causes]),
    }
    for name, new in (
        ("route_ids", found.route_ids),
        ("providers", found.providers),
        ("endpoint_ids", found.endpoint_ids),
    ):
        changes[name] = sorted({*getattr(incident, name), *new})
    written = raises(incident, found.severity)
    if written:
        changes["severity"] = found.severity
        message = f"{incident.severity} to {found.severity}"
        told.append(Entry(at=iso(at_ms), kind="severity_changed", message=message))
    return _change(incident, changes, told, at_ms, written=written)


def raises(incident: Incident, severity: Severity | None) -> bool:
    """Whether a signal of this severity makes the incident worse."""
    if severity is None or incident.severity_by_hand:
        return False
    return SEVERITY_RANK[severity] > SEVERITY_RANK[incident.severity]


def correlated(incident: Incident, correlation: Correlation, at_ms: int) -> Change | None:
    """One event was found to follow another."""
    ref = CorrelationRef(
        correlation_id=correlation.correlation_id,
        pattern=correlation.pattern,
        confidence=correlation.confidence,
    )
    if any(known.correlation_id == ref.correlation_id for known in incident.correlations):
        return None
    events, fresh = with_events(incident.related_events, correlation.related_events)
    changes: dict[str, object] = {
        "correlations": with_parts(incident.correlations, [ref]),
        "related_events": events,
        "related_events_total": incident.related_events_total + fresh,
    }
    message = f"{ref.pattern} ({ref.confidence:.2f})"
    entry = Entry(at=iso(at_ms), kind="correlation_added", message=message)
    return _change(incident, changes, [entry], at_ms)


def assessed(incident: Incident, radius: BlastRadius, at_ms: int) -> Change | None:
    """How far it reaches was computed again; repeats are one entry."""
    if radius == incident.blast_radius:
        return None
    message = f"{radius.failed_requests} failed requests, {radius.users_impacted} users"
    entry = Entry(
        at=iso(at_ms), kind="blast_radius_updated", message=message, fingerprint="blast_radius"
    )
    return _change(incident, {"blast_radius": radius}, [entry], at_ms)


def recovered(incident: Incident, resolution: str, at_ms: int) -> Change | None:
    """It ended by itself."""
    if incident.status == "resolved":
        return None
    return edited(incident, Edit(status="resolved", resolution=resolution), SYSTEM, at_ms)


def merged(young: Incident, into: Incident, actor: str, at_ms: int) -> tuple[Change, Change] | None:
    """(what `young` becomes, what `into` becomes): its events, violations, failovers, correlations
    and alerts move over, it is resolved and stays so.

    Assignee, title and notes stay with their incident.  The severity of `into` rises to that of
    `young` unless it was set by hand.  Numbers of the blast radius become the larger of both, which
    counts no request twice, until it is computed again.  Raises BadMove when `into` is resolved or
    `young` was merged elsewhere.
    """
    if young.merged_into == into.incident_id:
        return None
    if young.merged_into is not None:
        raise BadMove(f"was merged into {young.merged_into}")
    if into.status == "resolved":
        raise BadMove(f"{into.incident_id} is resolved")
    at = iso(at_ms)
    left: dict[str, object] = {
        "status": "resolved",
        "resolved_at": young.resolved_at or at,
        "resolution": f"merged into {into.incident_id}",
        "merged_into": into.incident_id,
        "related_events": [],
        "related_events_total": 0,
        **{name: [] for name in _MOVED},
    }
    gone = Entry(at=at, kind="merged", actor=actor, message=f"into {into.incident_id}")
    events, fresh = with_events(into.related_events, young.related_events)
    shared = len(young.related_events) - fresh
    took: dict[str, object] = {
        "related_events": events,
        "related_events_total": into.related_events_total + young.related_events_total - shared,
        "suspected_causes": _causes([*into.suspected_causes, *young.suspected_causes]),
        "merged_from": [*into.merged_from, young.incident_id][-100:],
        "blast_radius": _larger(into, young),
    }
    took |= {name: with_parts(getattr(into, name), getattr(young, name)) for name in _MOVED[:-1]}
    took |= {
        name: sorted({*getattr(into, name), *getattr(young, name)})
        for name in ("route_ids", "providers", "endpoint_ids")
    }
    told = [Entry(at=at, kind="merged", actor=actor, message=f"{young.incident_id} into this")]
    written = raises(into, young.severity)
    if written:
        took["severity"] = young.severity
        message = f"{into.severity} to {young.severity}"
        told.append(Entry(at=at, kind="severity_changed", actor=actor, message=message))
    return (
        _change(young, left, [gone], at_ms, written=True),
        _change(into, took, told, at_ms, written=written),
    )


_MOVED: Final = (
    "policy_violations",
    "failover_actions",
    "correlations",
    "alerts",
    "suspected_causes",
)


def _larger(into: Incident, young: Incident) -> BlastRadius | None:
    mine, theirs = into.blast_radius, young.blast_radius
    if mine is None or theirs is None:
        kept = mine or theirs
        return kept and kept.model_copy(update={"incident_id": into.incident_id})
    routes = sorted({*mine.affected_routes, *theirs.affected_routes})
    numbers = ("failed_requests", "users_impacted", "duration_seconds")
    larger = {name: max(getattr(mine, name), getattr(theirs, name)) for name in numbers}
    worse = mine if mine.failed_requests >= theirs.failed_requests else theirs
    return worse.model_copy(
        update={"incident_id": into.incident_id, "affected_routes": routes, **larger}
    )


def _causes(causes: list[Cause]) -> list[Cause]:
    """The most likely ones, each event once."""
    best: dict[str, Cause] = {}
    for cause in causes:
        known = best.get(cause.event_id)
        if known is None or cause.confidence > known.confidence:
            best[cause.event_id] = cause
    ranked = sorted(best.values(), key=lambda cause: (-cause.confidence, cause.event_id))
    return ranked[:MAX_CAUSES]


def _change(
    incident: Incident,
    changes: dict[str, object],
    told: list[Entry],
    at_ms: int,
    *,
    written: bool = False,
) -> Change:
    """`written`: something changed that a client can write."""
    stamped = {**changes, "updated_at": iso(at_ms)}
    if written:
        stamped["revision"] = incident.revision + 1
    return Change(incident.model_copy(update=stamped), tuple(told))
