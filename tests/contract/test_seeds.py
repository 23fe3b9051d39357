"""One test per bullet of the two seed documents that the control API answers today.

The literals stand in `tests/golden/seeds/`, verbatim but for the quotes around member names.  Each
is accepted by the endpoint that takes it and comes back with the same names and values.
"""

from typing import Any

import pytest

from tests.contract.literals import holds, seed
from tests.control.world import ADMIN, World, bearer

EVENTS = "/v1/workspaces/default/events"
RULES = "/v1/workspaces/default/alert-rules"
TARGETS = "/v1/workspaces/default/deliveries"


async def returned(api: World, kind: str, body: Any, **headers: str) -> dict[str, Any]:
    """Send it, read it back."""
    sent = await api.post(f"/v1/ingest/{kind}", body, {**bearer("ingest000000"), **headers})
    assert sent.status == 202, sent.body
    read = await api.get(f"{EVENTS}/{sent.doc['event_id']}")
    assert read.status == 200
    (listed,) = (await api.get(EVENTS)).doc["data"]
    assert listed == read.doc
    found = read.doc
    assert isinstance(found, dict)
    return found


# --- Event ingestion endpoints


async def test_a3_post_ingest_runtime_with_route_id_event_id_timestamp(api: World) -> None:
    body = {"route_id": "prod-chat", "event_id": "e-1", "timestamp": "2024-03-15T14:30:00Z"}
    event = await returned(api, "runtime", body)
    assert holds(event, body)
    assert event["type"] == "runtime.request.completed"
    assert event["payload"] == {}


async def test_a4_post_ingest_change_with_provider_change_id_classification(api: World) -> None:
    body = {"provider": "anthropic", "change_id": "c-1", "classification": "pricing_change"}
    event = await returned(api, "change", body)
    assert event["provider"] == "anthropic"
    assert event["classification"] == "pricing_change"
    assert event["payload"]["change_id"] == "c-1"
    assert event["type"] == "watcher.pricing.change"
    assert event["event_id"].startswith("evt-")
    assert event["timestamp"] == "2024-03-15T14:30:00Z"


async def test_a2_deterministic_identifiers(api: World) -> None:
    body = {"provider": "anthropic", "change_id": "c-1", "classification": "pricing_change"}
    answers = [await api.post("/v1/ingest/change", body, bearer("ingest000000")) for _ in "12"]
    assert answers[0].doc["event_id"] == answers[1].doc["event_id"]
    assert (await api.get(EVENTS)).doc["total"] == 1


async def test_a5_use_idempotency_keys_for_exactly_once_processing(api: World) -> None:
    headers = bearer("ingest000000") | {"Idempotency-Key": "order-1"}
    body = seed("runtime_event")
    answers = [await api.post("/v1/ingest/runtime", body, headers) for _ in "123"]
    assert {answer.body for answer in answers} == {answers[0].body}
    assert (await api.get(EVENTS)).doc["total"] == 1


# --- Runtime event fields, change event fields, sample payloads


async def test_b1_runtime_event_fields(api: World) -> None:
    fields = seed("runtime_event_fields")
    body = {"event_id": "e-1", "timestamp": "2024-03-15T14:30:00Z", **fields}
    event = await returned(api, "runtime", body)
    assert event["route_id"] == fields.pop("route_id")
    assert holds(event["payload"], fields)


async def test_b2_change_event_fields(api: World) -> None:
    fields = seed("change_event_fields")
    event = await returned(api, "change", {"change_id": "c-1", **fields})
    assert holds(event, fields)
    assert holds(event["payload"], {k: v for k, v in fields.items() if k != "provider"})


async def test_b4_runtime_event_payload(api: World) -> None:
    literal = seed("runtime_event")
    event = await returned(api, "runtime", literal)
    assert holds(event, literal)
    assert event["payload"] == literal["payload"]


async def test_b4_change_event_payload(api: World) -> None:
    literal = seed("change_event")
    event = await returned(api, "change", literal)
    assert holds(event, literal)
    assert event["classification"] == "release_note"
    assert event["severity"] == "info"


# fmt: off
OBJECTS = [
    ("policy_result",       "runtime.policy.result"),
    ("permission_decision", "runtime.permission.decision"),
    ("failover_decision",   "runtime.failover.decision"),
]
# fmt: on


@pytest.mark.parametrize(("name", "event_type"), OBJECTS)
async def test_b3_object_schemas(api: World, name: str, event_type: str) -> None:
    literal = seed(name)
    body = {
        "event_id": "e-1", "route_id": "prod-chat", "timestamp": "2024-03-15T14:30:00Z",
        "type": event_type, "payload": literal,
    }  # fmt: skip
    assert (await returned(api, "runtime", body))["payload"] == literal


# --- Alert rules API


async def test_a8_a16_post_alert_rules_to_create_new_rule(api: World) -> None:
    literal = seed("alert_rule")
    answer = await api.post(RULES, literal)
    assert answer.status == 201
    assert holds(answer.doc, literal)
    assert holds((await api.get(answer.headers["Location"])).doc, literal)


async def test_a17_get_alert_rules_to_list_all_active_rules(api: World) -> None:
    literal = seed("alert_rule")
    await api.post(RULES, literal)
    await api.post(RULES, {**literal, "name": "asleep", "status": "paused"})
    (listed,) = (await api.get(RULES)).doc["data"]
    assert holds(listed, literal)


async def test_a18_put_alert_rule_to_update_thresholds(api: World) -> None:
    literal = seed("alert_rule")
    path = (await api.post(RULES, literal)).headers["Location"]
    condition = {**literal["condition"], "threshold_ms": 5000}
    answer = await api.call("PUT", path, {"condition": condition})
    assert answer.status == 200
    assert holds(answer.doc, {**literal, "condition": condition})


async def test_a19_post_alert_rule_test_says_that_nothing_is_sent_yet(api: World) -> None:
    path = (await api.post(RULES, seed("alert_rule"))).headers["Location"]
    assert (await api.call("POST", path + "/test")).status == 501


# --- Delivery targets API


async def test_a20_post_and_get_deliveries(api: World) -> None:
    literal = seed("delivery_target")
    answer = await api.post(TARGETS, literal)
    assert answer.status == 201
    assert answer.headers["Location"] == f"{TARGETS}/slack-devops"
    shown = {
        **literal,
        "config": {**literal["config"], "webhook_url": "https://hooks.slack.com/***"},
    }
    assert holds(answer.doc, shown)
    (listed,) = (await api.get(TARGETS)).doc["data"]
    assert holds(listed, shown)


async def test_a9_put_delivery_to_update_target(api: World) -> None:
    path = (await api.post(TARGETS, seed("delivery_target"))).headers["Location"]
    answer = await api.call("PUT", path, {"default_severity": "high"})
    assert (answer.status, answer.doc["default_severity"]) == (200, "high")
    assert (answer.doc["name"], answer.doc["config"]["channel"]) == ("Slack DevOps", "#ai-ops")


async def test_a20_verify_and_delete_a_target(api: World) -> None:
    path = (await api.post(TARGETS, seed("delivery_target"))).headers["Location"]
    assert (await api.call("POST", path + "/verify")).status == 501
    assert [(await api.call("DELETE", path)).status for _ in "12"] == [204, 404]


# --- API behavior and contracts


async def test_a24_auth_errors_401_and_403(api: World) -> None:
    assert (await api.get(EVENTS, {})).status == 401
    assert (await api.get(EVENTS, {"Authorization": "Bearer nonsense"})).status == 401
    assert (await api.get(EVENTS, bearer("app000000000"))).status == 403


async def test_a25_validation_errors_422_with_field_specific_messages(api: World) -> None:
    answer = await api.post("/v1/ingest/runtime", {"event_id": "x"}, bearer("ingest000000"))
    assert answer.status == 422
    assert {error["field"] for error in answer.doc["errors"]} == {"route_id", "timestamp"}
    assert all(error["detail"] for error in answer.doc["errors"])


async def test_a26_rate_limit_headers(api: World) -> None:
    answer = await api.get(EVENTS)
    for name in ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"):
        assert answer.headers[name].isdigit()


async def test_a27_page_limit_and_link_default_25_max_100(api: World) -> None:
    body = [
        {"event_id": f"e{n}", "route_id": "r", "timestamp": "2024-03-15T14:30:00Z"}
        for n in range(101)
    ]
    assert (await api.post("/v1/ingest/runtime", body, bearer("ingest000000"))).status == 202
    assert len((await api.get(EVENTS)).doc["data"]) == 25
    answer = await api.get(EVENTS + "?page=1&limit=50")
    assert len(answer.doc["data"]) == 50
    assert 'rel="next"' in answer.headers["Link"]
    assert (await api.get(EVENTS + "?limit=100")).status == 200
    assert (await api.get(EVENTS + "?limit=101")).status == 422


@pytest.mark.parametrize("path", [EVENTS, RULES, TARGETS, "/v1/workspaces"])
async def test_a28_sort_created_at_desc_on_every_list(api: World, path: str) -> None:
    assert (await api.get(path + "?sort=created_at:desc", ADMIN)).status == 200
