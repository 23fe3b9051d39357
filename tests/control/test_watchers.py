"""Watchers over the API (control-api.md §12.9, alerts.md §11)."""

from typing import Any

import pytest

from tests.control.world import World, bearer

WATCHERS = "/v1/workspaces/default/watchers"
PRICES: dict[str, Any] = {
    "watcher_id": "aws-bedrock-pricing",
    "provider": "aws-bedrock",
    "kind": "pricing",
    "source_url": "https://example.com/prices.json",
    "selector": {"type": "json_pointer", "value": "/price"},
    "classification": "pricing_change",
}


async def test_a_watcher_is_made_read_changed_and_removed(stored: World) -> None:
    answer = await stored.post(WATCHERS, PRICES)
    assert answer.status == 201
    path = f"{WATCHERS}/aws-bedrock-pricing"
    assert answer.headers["Location"] == path
    assert answer.doc.items() >= PRICES.items()
    assert (answer.doc["interval_seconds"], answer.doc["last_error"]) == (3600, None)
    assert (await stored.post(WATCHERS, PRICES)).status == 409
    paused = await stored.call("PATCH", path, {"status": "paused"})
    assert (paused.status, paused.doc["status"]) == (200, "paused")
    same = await stored.call("PUT", path, paused.doc)
    assert (same.status, same.doc["revision"]) == (200, 2)
    moved = await stored.call("PUT", path, {"watcher_id": "another"})
    assert (moved.status, moved.doc["watcher_id"]) == (200, "aws-bedrock-pricing")
    assert (await stored.call("DELETE", path)).status == 204
    assert (await stored.get(path)).status == 404


async def test_watchers_are_listed(stored: World) -> None:
    for name, more in (("b", {"severity": "high"}), ("a", {"status": "paused"})):
        assert (await stored.post(WATCHERS, {**PRICES, "watcher_id": name, **more})).status == 201
    for query, ids in (
        ("?sort=watcher_id", ["a", "b"]), ("?status=paused", ["a"]), ("?severity=high", ["b"]),
        ("?provider=openai", []), ("?sort=created_at:asc", ["a", "b"]),
    ):  # fmt: skip
        listed = (await stored.get(WATCHERS + query)).doc["data"]
        assert [each["watcher_id"] for each in listed] == ids, query


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"watcher_id": None}, "watcher_id", "missing"),
        ({"kind": "gossip"}, "kind", "unknown_value"),
        ({"source_url": "file:///etc/passwd"}, "source_url", "pattern"),
        ({"source_url": "https://user@example.com"}, "source_url", "pattern"),
        ({"source_url": "http://["}, "source_url", "invalid_value"),
        ({"source_url": "http://169.254.169.254/latest"}, "source_url", "blocked_address"),
        ({"source_url": "https://2130706433/"}, "source_url", "blocked_address"),
        ({"interval_seconds": 10}, "interval_seconds", "greater_than_equal"),
        ({"selector": {"type": "regex", "value": "(a"}}, "selector.value", "regex_syntax"),
        ({"selector": {"type": "regex", "value": "(?=a)"}}, "selector.value", "regex_syntax"),
        ({"selector": {"type": "regex"}}, "selector.value", "missing"),
        ({"selector": {"type": "json_pointer", "value": "price"}}, "selector.value", "pattern"),
    ],
)
async def test_what_a_watcher_cannot_be(
    world: World, change: dict[str, Any], field: str, code: str
) -> None:
    body = {name: value for name, value in {**PRICES, **change}.items() if value is not None}
    answer = await world.post(WATCHERS, body)
    assert (answer.status, answer.codes()) == (422, [(field, code)])


async def test_who_may_and_what_is_not_there_yet(world: World) -> None:
    assert (await world.post(WATCHERS, PRICES, bearer("operator0000"))).status == 403
    assert (await world.post(WATCHERS, PRICES)).status == 201
    path = f"{WATCHERS}/aws-bedrock-pricing"
    assert (await world.get(path, bearer("viewer000000"))).status == 200
    assert (await world.call("POST", path + "/run")).slug == "not-implemented"
    assert (await world.call("POST", f"{WATCHERS}/none/run")).status == 404
