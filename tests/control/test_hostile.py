"""What a hostile or a clumsy caller sends: a clear answer, soon, and nothing told of others."""

import gzip
import json
import time
from typing import Any

import pytest

from proxy.control.policies import precedence
from proxy.control.readiness import ConfigState, NodeStatus
from proxy.settings.schema import Control, Ingest
from tests.control.world import ADMIN, EVENT, Status, World, bearer, running

W = "/v1/workspaces/default"
EVALUATE = f"{W}/policies/secrets-core/evaluate"


async def test_a_name_that_stands_twice_is_found_at_once(world: World) -> None:
    names = ",".join(f'"{n}":0' for n in range(25_000))
    body = f'{{{names},"24999":0}}'.encode()
    began = time.perf_counter()
    headers = {**bearer("viewer000000"), "Content-Type": "application/json"}
    answer = await world.call("POST", EVALUATE, headers=headers, data=body)
    assert (answer.status, answer.doc["errors"][0]["code"]) == (422, "duplicate_member")
    assert time.perf_counter() - began < 3  # all pairs would take a minute


async def test_a_body_of_many_gzip_members_is_refused_at_once(world: World) -> None:
    headers = {
        **bearer("ingest000000"),
        "Content-Type": "application/json",
        "Content-Encoding": "gzip",
    }
    body = gzip.compress(b"") * 50_000
    began = time.perf_counter()
    answer = await world.call("POST", "/v1/ingest/runtime", headers=headers, data=body)
    assert (answer.status, answer.slug) == (400, "malformed-json")
    assert "members" in answer.doc["detail"]
    assert time.perf_counter() - began < 2
    few = gzip.compress(json.dumps(EVENT).encode()[:20]) + gzip.compress(
        json.dumps(EVENT).encode()[20:]
    )
    assert (await world.call("POST", "/v1/ingest/runtime", headers=headers, data=few)).status == 202


class Refusing(Status):
    """Two workspaces whose documents the file hides or the overlay refused."""

    def status(self) -> NodeStatus:
        return NodeStatus(
            "node-1", "0.1.0", 1.0, ConfigState("abc", valid=False, error="other: merger"), 7, [],
            shadowed=["default/route/a", "other/route/b"],
            refused=["other/endpoint/merger: no key", "default/policy/p: bad", "shipped packs: x"],
        )  # fmt: skip


async def test_status_tells_a_key_nothing_of_other_workspaces(world: World) -> None:
    world.status.status = Refusing().status  # type: ignore[method-assign]
    narrow = (await world.get("/v1/status", bearer("app000000000"))).doc
    assert narrow["shadowed"] == ["default/route/a"]
    assert narrow["refused"] == ["default/policy/p: bad"]
    assert (narrow["config"]["valid"], narrow["config"]["error"]) == (False, None)
    whole = (await world.get("/v1/status", ADMIN)).doc
    assert len(whole["refused"]) == 3
    assert whole["config"]["error"] == "other: merger"


async def test_a_repetition_finds_its_events_as_long_as_its_key_is_known() -> None:
    control, ingest = Control(idempotency_ttl_hours=168), Ingest(dedupe_days=1)
    async with running(control=control, ingest=ingest) as world:
        first = await world.ingest_runtime(EVENT, **{"Idempotency-Key": "k"})
        world.clock.advance(30 * 3600)
        again = await world.ingest_runtime(EVENT, **{"Idempotency-Key": "k"})
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.doc == first.doc
        assert (await world.get(f"{W}/events")).doc["total"] == 1


async def test_a_replay_warns_as_the_first_answer_did(world: World) -> None:
    unknown = {**EVENT, "route_id": "late-route"}
    first = await world.ingest_runtime(unknown, **{"Idempotency-Key": "k"})
    assert first.doc["warnings"]
    made = await world.post(f"{W}/routes", {"id": "late-route", "endpoint": "anthropic-claude"})
    assert made.status == 201
    again = await world.ingest_runtime(unknown, **{"Idempotency-Key": "k"})
    assert again.doc == first.doc


async def test_the_making_of_a_workspace_that_is_gone_is_told_again(world: World) -> None:
    headers = {**ADMIN, "Idempotency-Key": "make"}
    first = await world.post("/v1/workspaces", {"name": "Short"}, headers)
    assert first.status == 201
    there = {**ADMIN, "x-parapet-workspace": "short"}
    assert (await world.post("/v1/ingest/runtime", EVENT, there)).status == 202
    assert (await world.call("DELETE", "/v1/workspaces/short?cascade=true")).status == 204
    again = await world.post("/v1/workspaces", {"name": "Short"}, headers)
    assert (again.status, again.doc) == (201, first.doc)
    assert (await world.post("/v1/workspaces", {"name": "Short"})).status == 409


@pytest.mark.parametrize(
    "condition",
    [
        {"metric": "cost", "threshold": 1e20},
        {"metric": "cost", "threshold": 5, "resolve_threshold": -1e300},
    ],
)
async def test_numbers_beyond_64_bits_come_back(world: World, condition: dict[str, Any]) -> None:
    answer = await world.post(f"{W}/alert-rules", {"name": "y", "condition": condition})
    assert answer.status == 201
    read = (await world.get(f"{W}/alert-rules/{answer.doc['id']}")).doc["condition"]
    assert {name: read[name] for name in condition} == condition


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "2024-03-14T00:00:00Z"])
@pytest.mark.parametrize("period", ["daily", "weekly"])
async def test_no_digest_at_the_ends_of_time(day: str, period: str) -> None:
    async with running(time_zones={"default": "Pacific/Apia"}) as world:
        answer = await world.post(f"{W}/digests", {"period": period, "date": day})
        assert answer.status == 422
        assert answer.doc["errors"][0]["pointer"] == "#/date"


async def test_head_of_the_stream_has_no_body_and_ends(world: World) -> None:
    request = (
        f"HEAD {W}/events/stream HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {ADMIN['Authorization']}\r\n\r\n"
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    told = await world.raw(request.encode())
    first, _, rest = told.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert b"text/event-stream" in first
    assert rest.startswith(b"HTTP/1.1 200"), rest[:80]


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("1.0.0-rc.1", "1.0.0"),
        ("1.0.0-2", "1.0.0-10"),
        ("1.0.0-10", "1.0.0-a"),
        ("1.0.0-alpha", "1.0.0-alpha.1"),
        ("99999999999999999999.0.0", "100000000000000000000000.0.0"),
        ("1.0.0-" + "9" * 41, "1.0.0-1" + "0" * 41),
        ("1.9.0", "1.10.0"),
    ],
)
def test_versions_follow_each_other_as_semver_says(lower: str, higher: str) -> None:
    assert precedence(lower) < precedence(higher)


@pytest.mark.parametrize("version", ["1.0.0-01", "1.0.0-", "1.0.0-a..b", "1.0.0+", "01.0.0"])
async def test_what_is_no_version(world: World, version: str) -> None:
    pack = {"policy_pack_id": "own", "version": version, "rules": []}
    assert (await world.post(f"{W}/policies", pack)).codes() == [("version", "pattern")]


async def test_a_broken_body_is_told_before_a_wrong_parameter(world: World) -> None:
    headers = {**ADMIN, "Content-Type": "application/json"}
    broken = await world.call("POST", f"{W}/alert-rules?x=1", headers=headers, data=b"{")
    assert broken.status == 400
    whole = await world.call("POST", f"{W}/alert-rules?x=1", headers=headers, data=b"{}")
    assert whole.status == 422


async def test_the_offset_of_a_broken_line_is_that_in_the_body(world: World) -> None:
    lines = [json.dumps({**EVENT, "event_id": f"e{n}"}) for n in range(3)]
    body = "\r\n".join([*lines, '{"a":x']).encode()
    headers = {**bearer("admin0000000"), "Content-Type": "application/x-ndjson"}
    answer = await world.call("POST", "/v1/ingest/runtime", headers=headers, data=body)
    assert (answer.status, answer.doc["offset"]) == (400, body.index(b"x", len(body) - 3))


@pytest.mark.parametrize(
    ("prefer", "strict"),
    [
        ("handling=strict", True),
        ('handling="strict"', True),
        ("HANDLING=strict", True),
        ("return=minimal, handling=strict;x=1", True),
        ("handling=lenient, handling=strict", False),
        ("handling", False),
        ("handling=stricter", False),
    ],
)
async def test_a_preference_in_all_its_spellings(world: World, prefer: str, strict: bool) -> None:
    rule = {"name": "n", "condition": {"metric": "violations"}, "delivery_targets": ["nobody"]}
    answer = await world.post(f"{W}/alert-rules", rule, {**ADMIN, "Prefer": prefer})
    assert answer.status == (422 if strict else 201)


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2"])
async def test_other_versions_of_http(world: World, version: str) -> None:
    told = await world.raw(f"GET /healthz {version}\r\nHost: x\r\n\r\n".encode())
    assert b" 400 " in told.partition(b"\r\n")[0]


@pytest.mark.parametrize("zone", ["localtime", "posixrules", "right/UTC", "posix/UTC", "Factory"])
async def test_zones_that_are_no_place(world: World, zone: str) -> None:
    answer = await world.post("/v1/workspaces", {"name": "z", "settings": {"timezone": zone}})
    assert answer.codes() == [("settings.timezone", "unknown_value")]


async def test_the_user_of_a_foreign_member_is_hidden(world: World) -> None:
    await world.ingest_runtime({**EVENT, "ext": {"user_id": "alice@example.com"}})
    told = await world.get(f"{W}/events")
    assert b"alice" not in told.body
    assert told.doc["data"][0]["ext"]["user_id_hash"]


@pytest.mark.thorough
async def test_links_of_a_long_log_lead_where_they_say(world: World) -> None:
    for start in range(0, 10_300, 1000):
        ids = range(start, min(start + 1000, 10_300))
        await world.ingest_runtime([{**EVENT, "event_id": f"e{n}"} for n in ids])
    for page in (1, 99, 100):
        answer = await world.get(f"{W}/events?limit=100&page={page}")
        assert answer.status == 200
        links = dict(_link(each) for each in answer.headers["Link"].split(", "))
        assert "last" not in links
        following = await world.get(links["next"].removeprefix("http://control.test"))
        assert following.status == 200
        assert following.doc["data"][0]["seq"] == answer.doc["data"][-1]["seq"] - 1


def _link(text: str) -> tuple[str, str]:
    address, _, rel = text.partition(">; rel=")
    return rel.strip('"'), address.removeprefix("<")


async def test_a_put_of_half_a_member_is_told_how_it_would_go(world: World) -> None:
    rule = {"name": "n", "condition": {"metric": "latency", "threshold_ms": 5}}
    path = (await world.post(f"{W}/alert-rules", rule)).headers["Location"]
    answer = await world.call("PUT", path, {"condition": {"threshold_ms": 1}})
    assert answer.status == 422
    assert "PATCH" in answer.doc["errors"][0]["hint"]


async def test_thousands_of_unknown_members_are_refused_soon(world: World) -> None:
    body = json.dumps({f"m{n}": 0 for n in range(20_000)}).encode()
    began = time.perf_counter()
    headers = {**ADMIN, "Content-Type": "application/json"}
    answer = await world.call("POST", f"{W}/alert-rules", headers=headers, data=body)
    assert (answer.status, answer.doc["errors_truncated"]) == (422, True)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
async def test_a_request_line_has_its_limit_whatever_the_method(world: World, method: str) -> None:
    def line(size: int) -> bytes:
        path = "/healthz?" + "x" * (size - len(f"{method} /healthz? HTTP/1.1"))
        assert len(f"{method} {path} HTTP/1.1") == size
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        return head.encode()

    assert b" 414 " not in (await world.raw(line(8190))).partition(b"\r\n")[0]
    assert b" 414 " in (await world.raw(line(8191))).partition(b"\r\n")[0]
