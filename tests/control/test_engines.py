"""One history, two engines, the same bytes (storage.md §9)."""

from pathlib import Path

import pytest

from proxy.storage.choose import store_of
from proxy.wire import jsonbody
from tests.control.world import ADMIN, World, running
from tests.kit.fakes import FakeClock
from tests.kit.redis import RedisServer, silent

pytestmark = pytest.mark.redis
W = "/v1/workspaces/default"
LISTS = [
    f"{W}/alert-rules",
    f"{W}/alert-rules?limit=3&page=2&sort=name:asc",
    f"{W}/alert-rules?status=active&sort=created_at:desc",
    f"{W}/deliveries",
    f"{W}/watchers",
    f"{W}/audit",
    f"{W}/audit?limit=4&page=2&sort=created_at:asc",
    f"{W}/audit/verify",
    f"{W}/events",
    f"{W}/events?limit=5&sort=created_at:asc",
    f"{W}/events?limit=7&page=2",
    f"{W}/events?type=runtime.request.*&limit=4",
    f"{W}/events?route_id=prod-chat&limit=3",
    f"{W}/events?severity=critical",
    f"{W}/events?type=watcher.*&limit=2",
    "/v1/audit",
    "/v1/workspaces",
]


async def history(world: World) -> list[tuple[int, bytes]]:
    """Made, changed, removed, repeated, refused; then what is read of it, byte by byte."""
    for n in range(9):
        told = {"name": f"rule {n}", "condition": {"metric": "violations"}}
        await world.post(f"{W}/alert-rules", {**told, "id": f"rule-{n}"})
        world.clock.advance(1)
    await world.call("PATCH", f"{W}/alert-rules/rule-3", {"severity": "critical"})
    await world.call("PATCH", f"{W}/alert-rules/rule-4", {"status": "paused"})
    await world.call("DELETE", f"{W}/alert-rules/rule-5")
    await world.post(f"{W}/alert-rules", {"name": "rule 3", "condition": {"metric": "violations"}})
    config = {"webhook_url": "https://hooks.slack.com/services/T000/B000/part"}
    target = {"type": "slack", "name": "s", "config": config}
    await world.post(f"{W}/deliveries", target, {**ADMIN, "Idempotency-Key": "k"})
    await world.post(f"{W}/deliveries", target, {**ADMIN, "Idempotency-Key": "k"})
    for n in range(40):
        event = {
            "event_id": f"evt-{n % 35}",
            "route_id": ("prod-chat", "prod-summary")[n % 2],
            "timestamp": "2024-03-15T14:30:00Z",
            "violation": n % 3 == 0,
        }
        await world.ingest_runtime(event)
    for n in range(5):
        change = {"provider": "anthropic", "change_id": f"c-{n}"}
        await world.ingest_change({**change, "classification": "pricing_change"})
    answers = [await world.get(path) for path in LISTS]
    return [(answer.status, answer.body) for answer in answers]


async def test_the_same_lists_on_both_engines(redis: RedisServer, tmp_path: Path) -> None:
    seen: list[list[tuple[int, bytes]]] = []
    for said in ("sqlite", redis.url):
        clock = FakeClock()
        store = store_of(said, tmp_path, clock, silent)
        await store.start()
        async with running(store, clock=clock) as world:
            seen.append(await history(world))
        await store.close()
    for path, ours, theirs in zip(LISTS, *seen, strict=True):
        assert ours == theirs, path
    assert {status for status, _ in seen[0]} == {200}
    totals = {path: jsonbody.loads(body) for path, (_, body) in zip(LISTS, seen[0], strict=True)}
    assert [totals[path]["total"] for path in (LISTS[0], LISTS[5], LISTS[8])] == [7, 13, 53]
