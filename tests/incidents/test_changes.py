"""What may happen to an incident (control-api.md §12.8), as tables."""

from typing import Any

import pytest

from proxy.incidents.changes import (
    BadMove,
    Edit,
    Found,
    assessed,
    correlated,
    edited,
    joined,
    merged,
    noted,
    opened,
    recovered,
)
from proxy.incidents.incident import (
    BlastRadius,
    Cause,
    Correlation,
    FailoverAction,
    Incident,
    PolicyViolation,
    incident_id,
)
from proxy.model.events import iso

NOW = 1_710_513_300_000
OPENED = iso(NOW - 300_000)


def incident(**more: Any) -> Incident:
    known = {"incident_id": "inc-1", "severity": "medium", "type": "failover", "title": "t"}
    return Incident(**{**known, "created_at": OPENED, "updated_at": OPENED, **more})


def radius(**more: Any) -> BlastRadius:
    return BlastRadius(incident_id="inc-1", **more)


def violation(number: int) -> PolicyViolation:
    return PolicyViolation(
        policy_id="p", verdict="violation", rule_matched=f"r{number}", confidence=1.0,
        action_taken="block", timestamp=OPENED,
    )  # fmt: skip


def test_the_id_is_the_designs_vector() -> None:
    found = incident_id("workspace-123", "safety", "route:prod-chat", "evt-12345")
    assert found == "inc-4de93b430e6fd301"


# fmt: off
MOVES = [
    # from            to              what is told, None: refused, "": nothing happens
    ("active",       "active",       ""),
    ("active",       "acknowledged", "acknowledged"),
    ("active",       "resolved",     "resolved"),
    ("acknowledged", "active",       None),
    ("acknowledged", "acknowledged", ""),
    ("acknowledged", "resolved",     "resolved"),
    ("resolved",     "active",       "reopened"),
    ("resolved",     "acknowledged", None),
    ("resolved",     "resolved",     ""),
]
# fmt: on


@pytest.mark.parametrize(("before", "to", "told"), MOVES)
def test_t_inc_04_transitions(before: Any, to: Any, told: str | None) -> None:
    old = incident(status=before)
    if told is None:
        with pytest.raises(BadMove):
            edited(old, Edit(status=to), "ann", NOW)
        return
    change = edited(old, Edit(status=to), "ann", NOW)
    if not told:
        assert change is None
        return
    assert change is not None
    assert (change.incident.status, change.incident.revision) == (to, 2)
    assert [(e.kind, e.actor, e.at) for e in change.entries] == [(told, "ann", iso(NOW))]


def test_times_and_resolution_follow_the_status() -> None:
    acknowledged = edited(incident(), Edit(status="acknowledged"), "ann", NOW)
    assert acknowledged is not None
    assert acknowledged.incident.acknowledged_at == iso(NOW)
    done = edited(acknowledged.incident, Edit(status="resolved", resolution="fixed"), "ann", NOW)
    assert done is not None
    assert (done.incident.resolved_at, done.incident.resolution) == (iso(NOW), "fixed")
    again = edited(done.incident, Edit(status="active"), "ann", NOW)
    assert again is not None
    told = again.incident
    assert (told.acknowledged_at, told.resolved_at, told.resolution) == (None, None, None)
    assert told.reopened_count == 1


# fmt: off
EDITS = [
    # edit                                  member              value     told
    (Edit(severity="critical"),             "severity",         "critical", ["severity_changed"]),
    (Edit(severity="critical"),             "severity_by_hand", True,     ["severity_changed"]),
    (Edit(severity="medium"),               "severity_by_hand", True,     []),
    (Edit(assignee="bob"),                  "assignee",         "bob",    ["assigned"]),
    (Edit(title="new"),                     "title",            "new",    []),
    (Edit(status="resolved", title="x"),    "title",            "x",      ["resolved"]),
]
# fmt: on


@pytest.mark.parametrize(("edit", "member", "value", "told"), EDITS)
def test_what_a_client_may_change(edit: Edit, member: str, value: Any, told: list[str]) -> None:
    change = edited(incident(), edit, "ann", NOW)
    assert change is not None
    assert getattr(change.incident, member) == value
    assert change.incident.updated_at == iso(NOW)
    assert [e.kind for e in change.entries] == told
    assert edited(change.incident, edit, "ann", NOW) is None


def test_nobody_is_an_assignee_too() -> None:
    change = edited(incident(assignee="bob"), Edit(unassign=True), "ann", NOW)
    assert change is not None
    assert (change.incident.assignee, change.entries[0].message) == (None, "to nobody")


def test_a_severity_set_by_hand_sticks() -> None:
    worse = joined(incident(), Found(["e"], severity="high"), NOW)
    assert (worse.incident.severity, worse.incident.revision) == ("high", 2)
    assert [e.kind for e in worse.entries] == ["event_added", "severity_changed"]
    milder = joined(worse.incident, Found(["f"], severity="low"), NOW)
    assert milder.incident.severity == "high"
    by_hand = edited(worse.incident, Edit(severity="low"), "ann", NOW)
    assert by_hand is not None
    kept = joined(by_hand.incident, Found(["g"], severity="critical"), NOW)
    assert (kept.incident.severity, kept.incident.revision) == ("low", 3)


def test_events_are_the_first_100_and_the_last_900() -> None:
    old = incident()
    for start in range(0, 1500, 300):
        old = joined(old, Found([f"e{n}" for n in range(start, start + 300)]), NOW).incident
    assert old.related_events_total == 1500
    assert old.related_events[:100] == [f"e{n}" for n in range(100)]
    assert old.related_events[100:] == [f"e{n}" for n in range(600, 1500)]
    same = joined(old, Found(["e1499"]), NOW).incident
    assert same.related_events_total == 1500


def test_what_a_signal_brings() -> None:
    action = FailoverAction(
        failover_policy_id="p", trigger_condition="latency > 2000ms", original_endpoint="a",
        selected_fallback="b", timestamp=OPENED,
    )  # fmt: skip
    found = Found(
        ["e1"], "failover", "a to b", "failover/r/a", violations=[violation(1), violation(1)],
        failovers=[action], alerts=["alert-1"], causes=[Cause(event_id="e0", confidence=0.7)],
        route_ids=["r2", "r1"], providers=["anthropic"], endpoint_ids=["a"],
    )  # fmt: skip
    told = joined(joined(incident(), found, NOW).incident, found, NOW).incident
    assert told.policy_violations == [violation(1)]
    assert (told.failover_actions, told.alerts) == ([action], ["alert-1"])
    assert (told.route_ids, told.providers) == (["r1", "r2"], ["anthropic"])
    assert [cause.event_id for cause in told.suspected_causes] == ["e0"]
    assert told.revision == 1
    many = joined(told, Found(violations=[violation(n) for n in range(2, 200)]), NOW).incident
    assert len(many.policy_violations) == 100


def test_what_is_heard_of_late_stands_at_its_time() -> None:
    change = joined(incident(), Found(["e1"], at_ms=NOW - 60_000), NOW)
    assert (change.entries[0].at, change.incident.updated_at) == (iso(NOW - 60_000), iso(NOW))


def test_correlations_and_blast_radius() -> None:
    correlation = Correlation(
        correlation_id="c", incident_id="inc-1", related_events=["e1", "e2"], pattern="p",
        confidence=0.92,
    )  # fmt: skip
    change = correlated(incident(), correlation, NOW)
    assert change is not None
    assert change.incident.related_events == ["e1", "e2"]
    assert change.entries[0].message == "p (0.92)"
    assert correlated(change.incident, correlation, NOW) is None
    assert noted(change.incident, "ann", NOW).incident.notes_count == 1
    first = assessed(change.incident, radius(failed_requests=3), NOW)
    assert first is not None
    assert assessed(first.incident, radius(failed_requests=3), NOW) is None
    assert first.entries[0].fingerprint


def test_what_ended_by_itself() -> None:
    change = recovered(incident(status="acknowledged"), "no_data_timeout", NOW)
    assert change is not None
    assert (change.incident.resolution, change.entries[0].actor) == ("no_data_timeout", "system")
    assert recovered(change.incident, "again", NOW) is None
    assert opened(incident()).entries[0].kind == "opened"


def test_merging_moves_what_happened() -> None:
    young = incident(
        incident_id="inc-2", severity="critical", related_events=["e2", "e3"],
        related_events_total=2, policy_violations=[violation(2)], route_ids=["r2"],
        assignee="bob", notes_count=3, alerts=["alert-2"],
        blast_radius=radius(affected_routes=["r2"], failed_requests=9, revenue_impact="$9"),
    )  # fmt: skip
    into = incident(
        related_events=["e1", "e2"], related_events_total=2, route_ids=["r1"], notes_count=1,
        blast_radius=radius(affected_routes=["r1"], failed_requests=4, users_impacted=7),
    )  # fmt: skip
    changes = merged(young, into, "ann", NOW)
    assert changes is not None
    gone, grown = (change.incident for change in changes)
    assert (gone.status, gone.resolution, gone.merged_into) == (
        "resolved", "merged into inc-1", "inc-1"
    )  # fmt: skip
    assert (gone.related_events, gone.related_events_total, gone.policy_violations) == ([], 0, [])
    assert (gone.assignee, gone.notes_count) == ("bob", 3)
    assert (grown.related_events, grown.related_events_total) == (["e1", "e2", "e3"], 3)
    assert (grown.severity, grown.assignee, grown.notes_count) == ("critical", None, 1)
    assert (grown.route_ids, grown.merged_from, grown.alerts) == (
        ["r1", "r2"], ["inc-2"], ["alert-2"]
    )  # fmt: skip
    reach = grown.blast_radius
    assert reach is not None
    assert (reach.incident_id, reach.affected_routes, reach.failed_requests) == (
        "inc-1", ["r1", "r2"], 9
    )  # fmt: skip
    assert (reach.users_impacted, reach.revenue_impact) == (7, "$9")
    assert [[e.kind for e in change.entries] for change in changes] == [
        ["merged"], ["merged", "severity_changed"]
    ]  # fmt: skip
    assert merged(gone, grown, "ann", NOW) is None


# fmt: off
REFUSED = [
    ({},                        {"status": "resolved"}),
    ({"merged_into": "inc-9"},  {}),
]
# fmt: on


@pytest.mark.parametrize(("young", "into"), REFUSED)
def test_what_cannot_be_merged(young: dict[str, Any], into: dict[str, Any]) -> None:
    with pytest.raises(BadMove):
        merged(incident(incident_id="inc-2", **young), incident(**into), "ann", NOW)


def test_a_merged_incident_stays_resolved() -> None:
    old = incident(status="resolved", merged_into="inc-9")
    with pytest.raises(BadMove, match="inc-9"):
        edited(old, Edit(status="active"), "ann", NOW)
