"""Incidents that endpoints raise, as tables (failover.md §3, §4; events.md §8)."""

from typing import Any

import pytest

from proxy.incidents.changes import Change
from proxy.incidents.incident import Incident
from proxy.incidents.raising import ended, raised, signal_of
from proxy.model.events import iso

NOW = 1_710_513_300_000
MEMBERS = {"failover_policy_id": "latency-failover"}


def changed(endpoint: str = "a", reason: str | None = None, to: str = "open", **more: Any) -> Any:
    payload = {**MEMBERS, "endpoint_id": endpoint, "from": "closed", "to": to, "reason": reason}
    return {
        "event_id": f"evt-{endpoint}-{reason}",
        "type": "runtime.endpoint.state_changed",
        "timestamp": iso(NOW),
        "route_id": "chat",
        "source": "proxy/node/1",
        "payload": payload,
        **more,
    }


def decided(fallback: str | None, scope: str = "endpoint") -> Any:
    payload = {
        **MEMBERS,
        "trigger_condition": "all endpoints unavailable",
        "original_endpoint": "a",
        "selected_fallback": fallback,
        "timestamp": iso(NOW),
        "scope": scope,
    }
    return {**changed(), "type": "runtime.failover.decision", "payload": payload}


# fmt: off
SIGNALS = [
    # event                                         incident, severity
    (changed(reason="auth"),                         ("endpoint_auth_failed", "high")),
    (changed(reason="quota"),                        ("endpoint_quota", "high")),
    (changed(reason="quota", to="limited"),          ("endpoint_quota", "high")),
    (changed(reason="model_not_found"),              ("endpoint_model_missing", "high")),
    (changed(reason="misconfigured"),                ("endpoint_misconfigured", "high")),
    (changed(reason="flap_hold", to="probing"),      ("failover_flapping", "high")),
    (decided(None),                                  ("failover_exhausted", "critical")),
    (decided("b"),                                   None),
    (decided(None, "request"),                       None),
    (changed(reason="latency"),                      None),
    (changed(reason="rate_limited", to="limited"),   None),
    (changed(to="closed"),                           None),
    (changed(reason="auth", source="api/key-1"),     None),  # anybody may send events
    (changed(reason="auth", source=None),            None),
    (changed(reason="auth", timestamp="now"),        None),
    (changed(reason="auth", payload=["a list"]),     None),
]
# fmt: on


@pytest.mark.parametrize(("event", "said"), SIGNALS, ids=range(len(SIGNALS)))
def test_what_an_event_raises(event: Any, said: tuple[str, str] | None) -> None:
    signal = signal_of(event)
    assert (signal and (signal.type, signal.severity)) == said


def after(*events: Any) -> list[Incident]:
    known: dict[str, Incident] = {}
    for event in events:
        signal = signal_of(event)
        assert signal is not None
        change = raised("default", signal, known.values(), NOW)
        known[change.incident.incident_id] = change.incident
    return [*known.values()]


def test_repeats_of_an_endpoint_are_one_incident() -> None:
    first, again = changed(reason="auth"), changed(reason="auth", event_id="evt-2")
    (incident,) = after(first, again, again)
    assert incident.related_events == ["evt-a-auth", "evt-2"]
    assert (incident.endpoint_ids, incident.route_ids) == (["a"], ["chat"])
    assert incident.title == "a refuses its credential"


def test_others_are_others() -> None:
    found = after(changed(reason="auth"), changed("b", "auth"), changed(reason="quota"))
    assert [each.type for each in found] == [
        "endpoint_auth_failed", "endpoint_auth_failed", "endpoint_quota",
    ]  # fmt: skip


def test_the_decision_stands_in_the_incident() -> None:
    (incident,) = after(decided(None))
    (action,) = incident.failover_actions
    assert (action.trigger_condition, action.selected_fallback) == (
        "all endpoints unavailable", None,
    )  # fmt: skip


def test_a_resolved_one_takes_nothing() -> None:
    (first,) = after(changed(reason="auth"))
    over = first.model_copy(update={"status": "resolved"})
    signal = signal_of(changed(reason="auth", event_id="evt-2"))
    assert signal is not None
    assert raised("default", signal, [over], NOW).incident.incident_id != first.incident_id


# fmt: off
ENDS = [
    # after ms, well, ends
    (299_999, True,  False),
    (300_000, True,  True),
    (900_000, False, False),
]
# fmt: on


@pytest.mark.parametrize(("after_ms", "well", "ends"), ENDS)
def test_it_ends_when_all_has_been_well_for_a_while(after_ms: int, well: bool, ends: bool) -> None:
    (incident,) = after(changed(reason="auth"))
    change = ended(incident, NOW + after_ms, well=well, resolve_after_s=300)
    assert isinstance(change, Change) is ends
    if change is not None:
        assert change.incident.status == "resolved"
