"""What is told of alerts, digests, attempts, dead letters and diffs, which nobody but us writes."""

import asyncio
from typing import Any

import pytest

from proxy.incidents.changes import Found
from tests.control.found import START_MS, incident, logged, signal, stored_document
from tests.control.world import ADMIN, EVENT, World, bearer, running

W = "/v1/workspaces/default"
ALERTS = W + "/alerts"
DIGESTS = W + "/digests"
DEAD = W + "/dead-letters"
DAY_MS = 86_400_000


async def alert(world: World, number: int, **more: Any) -> None:
    known: dict[str, Any] = {
        "alert_id": f"alert-{number}", "rule_id": "rule-1", "incident_id": None,
        "status": "active", "severity": "high", "type": "latency", "message": "slow",
        "labels": {"route_id": "prod-chat"}, "starts_at": f"2024-03-15T14:3{number}:00Z",
    }  # fmt: skip
    await stored_document(world, "alert", f"alert-{number}", known | more, at_ms=START_MS + number)


ALERT_LISTS = [
    ("", ["alert-3", "alert-2", "alert-1"]),
    ("?status=active&severity=high", ["alert-1"]),
    ("?status=resolved,no_data", ["alert-3"]),
    ("?type=cost", ["alert-2"]),
    ("?rule_id=rule-2", ["alert-3"]),
    ("?incident_id=inc-1", ["alert-2"]),
    ("?route_id=prod-chat", ["alert-2", "alert-1"]),
    ("?since=2024-03-15T14:32:00Z", ["alert-3", "alert-2"]),
    ("?until=2024-03-15T14:32:00Z", ["alert-1"]),
    ("?sort=severity:desc", ["alert-2", "alert-1", "alert-3"]),
    ("?sort=starts_at", ["alert-1", "alert-2", "alert-3"]),
    ("?sort=status,created_at", ["alert-1", "alert-2", "alert-3"]),
]


async def test_t_pg_07_alerts_are_narrowed_and_ordered(stored: World) -> None:
    await alert(stored, 1)
    await alert(stored, 2, severity="critical", type="cost", incident_id="inc-1")
    await alert(stored, 3, status="resolved", severity="low", rule_id="rule-2", labels={})
    for query, wanted in ALERT_LISTS:
        answer = await stored.get(ALERTS + query)
        assert answer.status == 200, answer.body
        assert [each["alert_id"] for each in answer.doc["data"]] == wanted, query
    one = await stored.get(ALERTS + "/alert-2")
    assert (one.status, one.doc["labels"]) == (200, {"route_id": "prod-chat"})
    assert one.doc["origin"] == "system"
    assert (await stored.get(ALERTS + "/alert-9")).status == 404
    assert (await stored.get(ALERTS + "?status=firing")).codes() == [("status", "unknown_value")]
    assert (await stored.call("DELETE", ALERTS + "/alert-2")).status == 405


async def policy_result(world: World, number: int, **payload: Any) -> None:
    body = {**EVENT, "event_id": f"p{number}", "type": "runtime.policy.result"}
    result = {"policy_id": "p", "verdict": "violation", "rule_matched": "r", "confidence": 1.0,
              "action_taken": "block", "timestamp": EVENT["timestamp"]}  # fmt: skip
    sent = await world.ingest_runtime({**body, "payload": result | payload})
    assert sent.status == 202, sent.body


async def a_day(world: World) -> None:
    """Five incidents, three violations, two failovers, and what does not count."""
    for n, severity in enumerate(["low", "critical", "high", "info", "medium"]):
        await incident(world, f"inc-{n}", severity=severity, route_ids=["prod-chat"])
    await incident(world, "inc-9", at_ms=START_MS + DAY_MS)
    for n in range(3):
        await policy_result(world, n)
    await policy_result(world, 8, enforced=False)
    await policy_result(world, 9, verdict="pass")
    for n in range(2):
        decision = {"failover_policy_id": "f", "trigger_condition": "latency > 2000ms",
                    "original_endpoint": "a", "selected_fallback": "b",
                    "timestamp": EVENT["timestamp"]}  # fmt: skip
        body = {**EVENT, "event_id": f"f{n}", "type": "runtime.failover.decision"}
        assert (await world.ingest_runtime({**body, "payload": decision})).status == 202
    world.clock.advance(86_400)


ORDER = {"period": "daily", "date": "2024-03-15"}


async def test_a_digest_is_counted_from_what_is_stored(stored: World) -> None:
    await a_day(stored)
    answer = await stored.post(DIGESTS, {**ORDER, "deliver": False})
    assert (answer.status, answer.headers["Location"]) == (201, f"{DIGESTS}/digest-20240315")
    doc = answer.doc
    assert doc["summary"] == {"total_incidents": 5, "policy_violations": 3, "failover_events": 2}
    assert [each["id"] for each in doc["incidents"]] == [
        "inc-1", "inc-2", "inc-4", "inc-0", "inc-3"
    ]  # fmt: skip
    assert doc["incidents"][0] == {
        "id": "inc-1", "severity": "critical", "type": "failover", "route": "prod-chat",
    }  # fmt: skip
    assert (doc["period"], doc["workspace_id"], doc["partial"]) == ("daily", "default", False)
    await incident(stored, "inc-5")
    again = await stored.post(DIGESTS, ORDER)
    assert (again.status, again.doc) == (200, doc)
    assert (await stored.get(DIGESTS + "/digest-20240315")).doc == doc
    week = await stored.post(DIGESTS, {**ORDER, "period": "weekly"})
    assert (week.status, week.codes()) == (422, [("date", "not_over")])
    stored.clock.advance(7 * 86_400)
    week = await stored.post(DIGESTS, {**ORDER, "period": "weekly"})
    assert (week.status, week.doc["digest_id"]) == (201, "digest-2024-W11")
    assert week.doc["summary"]["total_incidents"] == 7
    assert (await stored.get(DIGESTS + "?period=daily")).doc["total"] == 1
    rows = (await stored.get(W + "/audit")).doc["data"]
    assert [row["action"] for row in rows] == ["digest.create", "digest.create"]


async def test_a_digest_is_made_once(stored: World) -> None:
    await a_day(stored)
    answers = await asyncio.gather(*(stored.post(DIGESTS, ORDER) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 201]
    assert len({answer.body for answer in answers}) == 1
    key = {**ADMIN, "Idempotency-Key": "k"}
    assert [(await stored.post(DIGESTS, ORDER, key)).status for _ in "12"] == [200, 200]
    assert (await stored.get(W + "/audit")).doc["total"] == 1


async def test_days_begin_where_the_workspace_is() -> None:
    async with running(time_zones={"default": "Asia/Tokyo"}) as world:
        await incident(world, "inc-1")  # 23:30 in Tokyo
        world.clock.advance(86_400)
        doc = (await world.post(DIGESTS, ORDER)).doc
        assert doc["window"] == {"since": "2024-03-14T15:00:00Z", "until": "2024-03-15T15:00:00Z"}
        assert doc["summary"]["total_incidents"] == 1
    async with running(time_zones={"default": "Mars/Olympus"}) as world:
        assert (await world.post(DIGESTS, ORDER)).status == 409


# fmt: off
BAD_ORDERS = [
    ({"period": "daily"},                              "date",   "missing"),
    ({"period": "hourly", "date": "2024-03-01"},       "period", "unknown_value"),
    ({"period": "daily", "date": "the ides"},          "date",   "invalid_value"),
    ({"period": "daily", "date": "9999-12-31"},        "date",   "invalid_value"),
    ({"period": "daily", "date": "2024-03-15"},        "date",   "not_over"),
    ({**ORDER, "to": "bob"},                           "to",     "extra_forbidden"),
]
# fmt: on


@pytest.mark.parametrize(("body", "field", "code"), BAD_ORDERS)
async def test_what_no_digest_is_made_of(
    world: World, body: dict[str, Any], field: str, code: str
) -> None:
    answer = await world.post(DIGESTS, body)
    assert (answer.status, answer.codes()) == (422, [(field, code)])


async def test_who_may_ask_for_a_digest_and_that_none_is_sent(world: World) -> None:
    world.clock.advance(86_400)
    sent = await world.post(DIGESTS, {**ORDER, "deliver": True})
    assert (sent.status, sent.slug) == (501, "not-implemented")
    assert (await world.get(DIGESTS)).doc["total"] == 0
    assert (await world.post(DIGESTS, ORDER, bearer("operator0000"))).status == 403
    assert (await world.get(DIGESTS, bearer("viewer000000"))).status == 200


async def target(world: World, name: str) -> str:
    body = {"name": name, "type": "webhook", "config": {"url": "https://example.com/in"}}
    answer = await world.post(W + "/deliveries", body)
    assert answer.status == 201
    return f"{W}/deliveries/{answer.doc['id']}"


async def test_attempts_of_one_target(stored: World) -> None:
    path, other = await target(stored, "one"), await target(stored, "two")
    rows = [{"attempt_id": f"a{n}", "target_id": "one", "attempt": n} for n in range(3)]
    await logged(stored, "attempts", "one", *rows)
    await logged(stored, "attempts", "two", {"attempt_id": "b", "target_id": "two"})
    doc = (await stored.get(path + "/attempts?limit=2")).doc
    assert (doc["total"], [row["attempt_id"] for row in doc["data"]]) == (3, ["a2", "a1"])
    rest = (await stored.get(f"{path}/attempts?limit=2&cursor={doc['next_cursor']}")).doc
    assert [row["attempt_id"] for row in rest["data"]] == ["a0"]
    assert (await stored.get(other + "/attempts")).doc["total"] == 1
    assert (await stored.get(W + "/deliveries/none/attempts")).status == 404


async def test_dead_letters_are_listed_and_thrown_away(stored: World) -> None:
    for n, owner in enumerate(["one", "two"]):
        said = {"id": f"dead-{n}", "target_id": owner, "reason": "410", "attempts": 1,
                "payload": "x" * 5000}  # fmt: skip
        await stored_document(stored, "dead_letter", f"dead-{n}", said)
    (listed,) = (await stored.get(DEAD + "?target_id=two")).doc["data"]
    assert (listed["id"], len(listed["payload"])) == ("dead-1", 2048)
    assert (await stored.call("POST", f"{DEAD}/dead-0/replay")).status == 501
    assert (await stored.call("POST", f"{DEAD}/dead-9/replay")).status == 404
    assert [(await stored.call("DELETE", f"{DEAD}/dead-0")).status for _ in "12"] == [204, 404]
    assert (await stored.get(DEAD)).doc["total"] == 1
    (row,) = (await stored.get(W + "/audit")).doc["data"]
    assert (row["action"], row["resource"]["id"]) == ("dead_letter.delete", "dead-0")
    refused = await stored.call("DELETE", f"{DEAD}/dead-1", headers=bearer("viewer000000"))
    assert refused.status == 403


async def test_diffs_of_one_watcher(stored: World) -> None:
    for name in ("w1", "w2"):
        body = {"watcher_id": name, "provider": "p", "kind": "pricing",
                "source_url": "https://example.com/", "selector": {"type": "text"}}  # fmt: skip
        assert (await stored.post(W + "/watchers", body)).status == 201
    await logged(stored, "diffs", "w1", {"watcher_id": "w1", "change_type": "text_changed"})
    assert (await stored.get(W + "/watchers/w1/diffs")).doc["total"] == 1
    assert (await stored.get(W + "/watchers/w2/diffs")).doc["data"] == []
    assert (await stored.get(W + "/watchers/w9/diffs")).status == 404


async def test_the_audit_is_walked_by_cursor(stored: World) -> None:
    path = await incident(stored, "inc-1")
    for n in range(5):
        await stored.post(path + "/notes", {"text": f"{n}"})
    for order, wanted in (("desc", [5, 4, 3, 2, 1]), ("asc", [1, 2, 3, 4, 5])):
        seen: list[int] = []
        url: str | None = f"{W}/audit?limit=2&sort=created_at:{order}"
        start = url
        while url:
            doc = (await stored.get(url)).doc
            seen += [row["seq"] for row in doc["data"]]
            cursor = doc["next_cursor"]
            url = f"{start}&cursor={cursor}" if cursor else None
        assert seen == wanted
    beyond = await stored.get(W + "/audit?limit=100&page=101")
    assert beyond.codes() == [("page", "use_cursor")]
    foreign = await stored.get(f"/v1/audit?cursor={(await _cursor(stored))}")
    assert foreign.codes() == [("cursor", "invalid_cursor")]


async def _cursor(world: World) -> str:
    return str((await world.get(W + "/audit?limit=1")).doc["next_cursor"])


async def test_times_with_a_fraction_stand_in_order(stored: World) -> None:
    for n, more_ms in enumerate([0, 500, 1000]):
        await incident(stored, f"inc-{n}", at_ms=START_MS + more_ms)
    await signal(stored, "inc-0", Found(["e"]), START_MS + 1500)
    listed = (await stored.get(W + "/incidents?sort=updated_at")).doc["data"]
    assert [each["incident_id"] for each in listed] == ["inc-1", "inc-2", "inc-0"]
