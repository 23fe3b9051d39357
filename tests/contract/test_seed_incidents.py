"""One test per bullet of the seeds about incidents, alerts, digests, watchers and correlations.

What nobody but us writes is put into the store as its finder would, and comes back from the API
with the names and values of the literal.
"""

import pytest

from proxy.alerting.alert import Alert
from proxy.alerting.digest import Digest
from proxy.control.watchers import WatcherDiff
from proxy.incidents.changes import Found, correlated, joined, opened
from proxy.incidents.incident import (
    BlastRadius,
    Correlation,
    FailoverAction,
    Incident,
    PolicyViolation,
)
from proxy.storage.incidents import find, keep
from tests.contract.literals import holds, seed
from tests.control.found import START_MS, incident, logged, stored_document
from tests.control.world import World, bearer

W = "/v1/workspaces/default"
INCIDENTS = W + "/incidents"
ALERTS = W + "/alerts"
AT = "2024-03-15T14:30:00Z"


async def the_seeds_incident(api: World) -> str:
    """inc-456 as the literals tell of it, found step by step."""
    first = Incident(
        incident_id="inc-456", severity="high", type="policy_violation", created_at=AT,
        updated_at=AT, blast_radius=BlastRadius.model_validate(seed("incident_blast_radius")),
    )  # fmt: skip
    await keep(api.store, "default", "cm-1", opened(first))
    held = await find(api.store, "default", "inc-456")
    assert held is not None
    found = Found(
        ["evt-12345", "evt-12346"],
        violations=[PolicyViolation.model_validate(seed("policy_result"))],
        failovers=[FailoverAction.model_validate(seed("failover_decision"))],
        route_ids=["prod-chat"],
    )
    await keep(api.store, "default", "cm-2", joined(held.incident, found, START_MS), held)
    held = await find(api.store, "default", "inc-456")
    assert held is not None
    correlation = Correlation.model_validate(seed("correlation_event"))
    change = correlated(held.incident, correlation, START_MS)
    assert change is not None
    await keep(api.store, "default", "cm-3", change, held)
    said = correlation.model_dump(mode="json")
    await stored_document(api, "correlation", correlation.correlation_id, said)
    return f"{INCIDENTS}/inc-456"


# --- Incidents API


async def test_a21_get_incidents_to_list_recent_incidents(api: World) -> None:
    await the_seeds_incident(api)
    await incident(api, "inc-457", at_ms=START_MS + 1)
    listed = (await api.get(INCIDENTS)).doc["data"]
    assert [each["incident_id"] for each in listed] == ["inc-457", "inc-456"]
    assert "timeline" not in listed[1]


async def test_a21_get_incident_for_detailed_incident_timeline(api: World) -> None:
    doc = (await api.get(await the_seeds_incident(api))).doc
    kinds = [entry["kind"] for entry in doc["timeline"]]
    assert kinds == ["opened", "event_added", "correlation_added"]
    assert all(entry["at"] == AT for entry in doc["timeline"])


async def test_a21_the_response_includes_all_eight_members(api: World) -> None:
    path = await the_seeds_incident(api)
    wanted = {
        "incident_id": "inc-456",
        "status": "active",
        "severity": "high",
        "created_at": AT,
        "updated_at": AT,
        "related_events": ["evt-12345", "evt-12346"],
        "policy_violations": [seed("policy_result")],
        "failover_actions": [seed("failover_decision")],
    }
    assert holds((await api.get(path)).doc, wanted)
    (listed,) = (await api.get(INCIDENTS)).doc["data"]
    assert holds(listed, wanted)


async def test_a22_retrieve_and_manage_incident_data(api: World) -> None:
    path = await the_seeds_incident(api)
    operator = bearer("operator0000")
    changed = await api.call("PATCH", path, {"assignee": "ann"}, operator)
    assert (changed.status, changed.doc["assignee"]) == (200, "ann")
    for action, body, status in (
        ("acknowledge", {}, "acknowledged"), ("resolve", {"resolution": "done"}, "resolved"),
        ("reopen", {}, "active"),
    ):  # fmt: skip
        answer = await api.post(f"{path}/{action}", body, operator)
        assert (answer.status, answer.doc["status"]) == (200, status)
    await incident(api, "inc-1")
    merged = await api.post(f"{path}/merge", {"into": "inc-1"}, operator)
    assert merged.doc["related_events"] == ["evt-12345", "evt-12346"]


async def test_a23_post_notes_to_add_context(api: World) -> None:
    path = await the_seeds_incident(api)
    answer = await api.post(path + "/notes", {"text": "<b>context</b>"})
    assert answer.status == 201
    assert answer.doc["text"] == "<b>context</b>"
    assert (await api.get(path + "/notes")).doc["data"] == [answer.doc]
    assert (await api.get(path)).doc["timeline"][-1]["kind"] == "note_added"


# --- API behavior and contracts


@pytest.mark.parametrize("path", [INCIDENTS, ALERTS])
async def test_a29_filter_status_active_and_severity_high(api: World, path: str) -> None:
    for n, (status, severity) in enumerate(
        [("active", "high"), ("resolved", "high"), ("active", "low")]
    ):
        await incident(api, f"id-{n}", status=status, severity=severity)
        alert = Alert.model_validate(
            {"alert_id": f"id-{n}", "status": status, "severity": severity, "type": "latency",
             "starts_at": AT}
        )  # fmt: skip
        await stored_document(api, "alert", f"id-{n}", alert.model_dump(mode="json"))
    (listed,) = (await api.get(path + "?status=active&severity=high")).doc["data"]
    assert "id-0" in (listed.get("incident_id"), listed.get("alert_id"))


LISTS = ["/incidents", "/alerts", "/correlations", "/digests", "/dead-letters", "/audit"]


@pytest.mark.parametrize("path", LISTS)
async def test_a28_sort_created_at_desc_on_every_list(api: World, path: str) -> None:
    assert (await api.get(f"{W}{path}?sort=created_at:desc")).status == 200


@pytest.mark.parametrize("path", [INCIDENTS, ALERTS])
async def test_a28_sort_severity_asc(api: World, path: str) -> None:
    assert (await api.get(path + "?sort=severity:asc")).status == 200


async def test_a27_page_limit_and_link(api: World) -> None:
    for n in range(101):
        await incident(api, f"inc-{n}")
    seen: list[str] = []
    path: str | None = INCIDENTS + "?limit=20"
    while path:
        answer = await api.get(path)
        seen += [each["incident_id"] for each in answer.doc["data"]]
        links = dict(
            reversed(part.strip("<").split('>; rel="')) for part in
            answer.headers["Link"].rstrip('"').split('", <')
        )  # fmt: skip
        path = links["next"].removeprefix("http://control.test") if "next" in links else None
    assert len(seen) == len(set(seen)) == 101


# --- Object schemas and sample payloads


async def test_b3_incident_blast_radius(api: World) -> None:
    path = await the_seeds_incident(api)
    literal = seed("incident_blast_radius")
    assert holds((await api.get(path + "/blast-radius")).doc, literal)
    assert holds((await api.get(path)).doc["blast_radius"], literal)


async def test_b4_correlation_event_payload(api: World) -> None:
    path = await the_seeds_incident(api)
    literal = seed("correlation_event")
    assert holds((await api.get(W + "/correlations/corr-789")).doc, literal)
    for where in (path + "/correlations", W + "/correlations"):
        (listed,) = (await api.get(where)).doc["data"]
        assert holds(listed, literal)
    (ref,) = (await api.get(path)).doc["correlations"]
    assert holds(literal, ref)


async def test_b4_webhook_alert_payload(api: World) -> None:
    literal = seed("webhook_alert")
    alert = Alert.model_validate({**literal, "starts_at": AT})
    await stored_document(api, "alert", "alert-789", alert.model_dump(mode="json"))
    assert holds((await api.get(ALERTS + "/alert-789")).doc, literal)
    (listed,) = (await api.get(ALERTS + "?incident_id=inc-456&route_id=prod-chat")).doc["data"]
    assert holds(listed, literal)


async def test_b4_email_digest_payload(api: World) -> None:
    literal = seed("email_digest")
    window = {"since": "2024-03-15T00:00:00Z", "until": "2024-03-16T00:00:00Z"}
    digest = Digest.model_validate({**literal, "window": window, "generated_at": AT})
    await stored_document(api, "digest", "digest-20240315", digest.model_dump(mode="json"))
    assert holds((await api.get(W + "/digests/digest-20240315")).doc, literal)
    (listed,) = (await api.get(W + "/digests?period=daily")).doc["data"]
    assert holds(listed, literal)


async def test_b4_watcher_diff_payload(api: World) -> None:
    literal = seed("watcher_diff")
    watcher = {"watcher_id": literal["watcher_id"], "provider": "aws-bedrock", "kind": "pricing",
               "source_url": "https://example.com/"}  # fmt: skip
    assert (await api.post(W + "/watchers", watcher)).status == 201
    diff = WatcherDiff.model_validate(literal)
    await logged(api, "diffs", literal["watcher_id"], diff.model_dump(mode="json"))
    (listed,) = (await api.get(f"{W}/watchers/{literal['watcher_id']}/diffs")).doc["data"]
    assert listed == literal
