"""The event log as a list and one by one (T-PG, T-EVT), on both engines."""

from typing import Any

import pytest

from proxy.control.wire import make_cursor, read_cursor
from proxy.settings.schema import Control
from tests.control.world import ADMIN, CHANGE, EVENT, World, bearer

EVENTS = "/v1/workspaces/default/events"


async def fill(world: World, count: int, **more: Any) -> None:
    for start in range(0, count, 500):
        batch = [
            {**EVENT, "event_id": f"e{i}", **more} for i in range(start, min(start + 500, count))
        ]
        assert (await world.ingest_runtime(batch)).status == 202


def links(header: str) -> dict[str, str]:
    found = {}
    for part in header.split(", <"):
        url, _, rel = part.strip("<").partition('>; rel="')
        found[rel.rstrip('"')] = url.removeprefix("http://control.test")
    return found


async def test_t_pg_01_walking_next_gives_every_id_once(stored: World) -> None:
    await fill(stored, 101)
    seen: list[str] = []
    path: str | None = EVENTS + "?limit=20&route_id=prod-chat"
    pages = 0
    while path:
        answer = await stored.get(path)
        assert answer.doc["total"] == 101
        assert answer.headers["X-Total-Count"] == "101"
        seen += [event["event_id"] for event in answer.doc["data"]]
        path = links(answer.headers["Link"]).get("next")
        pages += 1
    assert pages == 6
    assert seen == [f"e{i}" for i in range(100, -1, -1)]


async def test_t_pg_01_walking_the_cursor_gives_every_id_once(stored: World) -> None:
    await fill(stored, 101)
    for order, wanted in (("desc", range(100, -1, -1)), ("asc", range(101))):
        seen: list[str] = []
        path: str | None = f"{EVENTS}?limit=40&sort=created_at:{order}"
        while path:
            answer = await stored.get(path)
            seen += [event["event_id"] for event in answer.doc["data"]]
            cursor = answer.doc["next_cursor"]
            path = f"{EVENTS}?limit=40&sort=created_at:{order}&cursor={cursor}" if cursor else None
        assert seen == [f"e{i}" for i in wanted]
        assert answer.doc["page"] is None


async def test_events_that_come_meanwhile_do_not_shift_a_cursor(stored: World) -> None:
    await fill(stored, 4)
    first = await stored.get(EVENTS + "?limit=2")
    await stored.ingest_runtime({**EVENT, "event_id": "late"})
    second = await stored.get(EVENTS + f"?limit=2&cursor={first.doc['next_cursor']}")
    assert [e["event_id"] for e in second.doc["data"]] == ["e1", "e0"]
    assert second.doc["next_cursor"] is None
    assert set(links(second.headers["Link"])) == {"first"}


async def test_the_envelope_and_the_defaults(world: World) -> None:
    empty = await world.get(EVENTS)
    assert empty.doc == {
        "data": [], "page": 1, "limit": 25, "total": 0, "total_pages": 0, "next_cursor": None,
    }  # fmt: skip
    assert links(empty.headers["Link"]) == {"first": EVENTS + "?page=1"}
    await fill(world, 30)
    answer = await world.get(EVENTS)
    assert (len(answer.doc["data"]), answer.doc["total_pages"]) == (25, 2)
    beyond = await world.get(EVENTS + "?page=9")
    assert (beyond.status, beyond.doc["data"], beyond.doc["total"]) == (200, [], 30)


async def test_t_pg_04_links_keep_and_encode_the_filters(world: World) -> None:
    await fill(world, 3)
    answer = await world.get(
        EVENTS + "?sort=created_at:asc&type=runtime.*,watcher.*&limit=1&page=2&route_id=prod-chat"
    )
    assert answer.status == 200
    kept = "?sort=created_at%3Aasc&type=runtime.%2A%2Cwatcher.%2A&limit=1&route_id=prod-chat"
    assert links(answer.headers["Link"]) == {
        rel: f"{EVENTS}{kept}&page={page}"
        for rel, page in (("first", 1), ("prev", 1), ("next", 3), ("last", 3))
    }


async def test_links_name_the_host_only_when_it_is_allowed(world: World) -> None:
    assert "http://control.test/" in (await world.get(EVENTS)).headers["Link"]
    world.control = Control(allowed_hosts=["ops.example:8081"])
    headers = ADMIN | {"Host": "ops.example:8081"}
    assert "<http://ops.example:8081/v1/" in (await world.get(EVENTS, headers)).headers["Link"]
    evil = await world.get(EVENTS, ADMIN | {"Host": "evil.example"})
    assert "evil" not in evil.headers["Link"]


# fmt: off
BAD_QUERIES = [
    ("limit=0",                        [("limit", "greater_than_equal")]),
    ("limit=101",                      [("limit", "less_than_equal")]),
    ("limit=x",                        [("limit", "invalid_value")]),
    ("limit=1.0",                      [("limit", "invalid_value")]),
    ("limit=+1",                       [("limit", "invalid_value")]),
    ("limit=",                         [("limit", "invalid_value")]),
    ("limit=%D9%A1",                   [("limit", "invalid_value")]),
    ("page=0",                         [("page", "greater_than_equal")]),
    ("page=-1",                        [("page", "invalid_value")]),
    ("page=1&page=2",                  [("page", "repeated")]),
    ("page=401",                       [("page", "use_cursor")]),
    ("page=101&limit=100",             [("page", "use_cursor")]),
    ("sort=name",                      [("sort", "unknown_value")]),
    ("sort=created_at:up",             [("sort", "unknown_value")]),
    ("sort=severity:asc",              [("sort", "unknown_value")]),
    ("severity=urgent",                [("severity", "unknown_value")]),
    ("severity=high,urgent",           [("severity", "unknown_value")]),
    ("type=",                          [("type", "too_short")]),
    ("type=Runtime",                   [("type", "pattern")]),
    ("type=runtime.*.x",               [("type", "pattern")]),
    ("since=yesterday",                [("since", "invalid_value")]),
    ("until=2024-03-15T14:30:00",      [("until", "invalid_value")]),
    ("cursor=abc",                     [("cursor", "invalid_cursor")]),
    ("cursor=%FF",                     [("cursor", "invalid_cursor")]),
    ("colour=red",                     [("colour", "unknown_parameter")]),
    ("route=x&limit=0",                [("route", "unknown_parameter"),
                                        ("limit", "greater_than_equal")]),
]
# fmt: on


@pytest.mark.parametrize(("query", "codes"), BAD_QUERIES)
async def test_t_pg_02_and_05_bad_queries(
    world: World, query: str, codes: list[tuple[str, str]]
) -> None:
    answer = await world.get(f"{EVENTS}?{query}")
    assert (answer.status, answer.codes()) == (422, codes)
    assert all(error["in"] == "query" for error in answer.doc["errors"])


async def test_what_is_allowed_is_told(world: World) -> None:
    errors = (await world.get(EVENTS + "?severity=urgent&colour=red")).doc["errors"]
    assert "route_id" in errors[0]["allowed"]
    assert errors[1]["allowed"] == ["info", "low", "medium", "high", "critical"]
    sort = (await world.get(EVENTS + "?sort=name")).doc["errors"]
    assert sort[0]["allowed"] == ["created_at"]


async def test_every_filter(stored: World) -> None:
    await stored.ingest_runtime(
        {**EVENT, "event_id": "a", "model": "m1", "provider": "anthropic", "outcome": "success",
         "request_id": "r1", "timestamp": "2024-03-15T10:00:00Z"}
    )  # fmt: skip
    await stored.ingest_runtime(
        {**EVENT, "event_id": "b", "route_id": "other", "model": "m2", "provider": "bedrock",
         "outcome": "blocked", "type": "runtime.request.blocked", "request_id": "r2",
         "payload": {"incident_id": "inc-1"}, "timestamp": "2024-03-15T11:00:00Z"}
    )  # fmt: skip
    await stored.ingest_change(
        {**CHANGE, "event_id": "c", "severity": "high", "timestamp": "2024-03-15T12:00:00Z"}
    )
    # fmt: off
    wanted = {
        "type=runtime.*": "ba", "type=runtime.request.blocked": "b", "type=watcher.*": "c",
        "type=watcher.*,runtime.request.blocked": "cb", "type=runtime.request.*&type=x": "ba",
        "route_id=prod-chat": "a", "route_id=prod-chat,other": "ba", "provider=anthropic": "ca",
        "model=m2": "b", "severity=high": "c", "severity=low": "", "outcome=success,blocked": "ba",
        "request_id=r1": "a", "incident_id=inc-1": "b", "since=2024-03-15T11:00:00Z": "cb",
        "until=2024-03-15T11:00:00Z": "a", "provider=anthropic&type=runtime.*": "a",
        "since=2024-03-15T12:00:00%2B01:00&until=2024-03-15T11:00:00.001Z": "b",
    }
    # fmt: on
    for query, ids in wanted.items():
        answer = await stored.get(f"{EVENTS}?{query}")
        assert "".join(event["event_id"] for event in answer.doc["data"]) == ids, query
        assert answer.doc["total"] == len(ids), query


async def test_one_event_and_none(stored: World) -> None:
    await stored.ingest_runtime(EVENT)
    listed = (await stored.get(EVENTS)).doc["data"][0]
    assert (await stored.get(EVENTS + "/evt-1")).doc == listed
    for event_id in ("evt-2", "%00", "..%2F..%2Fetc", "x" * 300):
        answer = await stored.get(f"{EVENTS}/{event_id}")
        assert (answer.status, answer.slug) == (404, "not-found")


async def test_t_sec_04_an_event_of_another_workspace_is_not_there(stored: World) -> None:
    await stored.ingest_runtime(EVENT)
    answer = await stored.get("/v1/workspaces/other/events/evt-1", bearer("foreign00000"))
    assert answer.status == 404


async def test_a_cursor_belongs_to_one_list_for_a_day(world: World) -> None:
    await fill(world, 3)
    cursor = (await world.get(EVENTS + "?limit=1")).doc["next_cursor"]
    for path in (
        EVENTS + f"?limit=1&sort=created_at:asc&cursor={cursor}",
        EVENTS + f"?limit=1&outcome=success&cursor={cursor}",
        f"/v1/workspaces/other/events?limit=1&cursor={cursor}",
    ):
        assert (await world.get(path)).codes() == [("cursor", "invalid_cursor")]
    both = await world.get(EVENTS + f"?page=1&cursor={cursor}")
    assert both.codes() == [("page", "conflicting_value")]
    world.clock.advance(24 * 3600 + 1)
    assert (await world.get(EVENTS + f"?limit=1&cursor={cursor}")).status == 422


def test_a_cursor_reads_back() -> None:
    for seq in (0, 1, 2**62):
        cursor = make_cursor(b"k", "s", seq, 0)
        assert read_cursor(b"k", "s", cursor, 0) == seq


async def test_workspaces_are_those_of_the_key(world: World) -> None:
    # fmt: off
    for who, ids in (("viewer000000", ["default"]), ("both00000000", ["default", "other"]),
                     ("root00000000", ["default", "other"])):
        answer = await world.get("/v1/workspaces", bearer(who))
        assert [one["id"] for one in answer.doc["data"]] == ids
    # fmt: on
    turned = await world.get("/v1/workspaces?sort=name:desc&limit=1", ADMIN)
    assert [one["id"] for one in turned.doc["data"]] == ["other"]
    assert turned.doc["total_pages"] == 2
    assert (await world.get("/v1/workspaces?sort=created_at:desc", ADMIN)).status == 200
