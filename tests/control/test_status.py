"""Health, readiness, status, metrics and reload."""

import pytest

from proxy.control.readiness import Readiness
from proxy.model.coord import NodeBeat
from proxy.settings.schema import Control
from tests.control.world import ADMIN, World, bearer


async def test_healthz_is_about_the_loop_alone(world: World) -> None:
    assert (await world.get("/healthz", {})).doc == {"status": "ok", "loop_lag_seconds": 0.0}
    world.status.lag_s = 5.0
    assert (await world.get("/healthz", {})).status == 503


# fmt: off
READY = [
    (Readiness(True, True, True),                               200, "ready"),
    (Readiness(True, True, True, degraded=["redis"]),           200, "degraded"),
    (Readiness(False, True, True),                              503, "not_ready"),
    (Readiness(True, False, True),                              503, "not_ready"),
    (Readiness(True, True, False),                              503, "not_ready"),
    (Readiness(True, True, True, draining=True),                503, "not_ready"),
    (Readiness(True, False, True, degraded=["redis"]),          503, "not_ready"),
]
# fmt: on


@pytest.mark.parametrize(("readiness", "status", "word"), READY)
async def test_readyz(world: World, readiness: Readiness, status: int, word: str) -> None:
    world.status.ready = readiness
    answer = await world.get("/readyz", {})
    assert (answer.status, answer.doc["status"]) == (status, word)
    assert answer.doc["storage"] == readiness.storage


async def test_status_needs_any_key(world: World) -> None:
    assert (await world.get("/v1/status", {})).status == 401
    for who in ("viewer000000", "app000000000", "ingest000000"):
        answer = await world.get("/v1/status", bearer(who))
        assert answer.status == 200
    assert answer.doc["node_id"] == "node-1"
    assert answer.doc["config"]["hash"] == "abc123"
    assert answer.doc["workers"][0]["config_version"] == 7
    assert {"redis", "spool", "shadowed", "leader", "uptime_seconds"} <= set(answer.doc)


async def test_status_lists_the_nodes_and_what_is_wrong_between_them(world: World) -> None:
    world.status.nodes = [NodeBeat("a", "f1", 1_710_513_000_000), NodeBeat("b", "f2")]
    answer = await world.get("/v1/status")
    assert answer.doc["nodes"] == [
        {"node_id": "a", "file_hash": "f1", "last_beat_at": "2024-03-15T14:30:00Z"},
        {"node_id": "b", "file_hash": "f2", "last_beat_at": None},
    ]
    assert answer.doc["warnings"] == ["the nodes differ"]


async def test_metrics_are_public_unless_told_otherwise(world: World) -> None:
    answer = await world.get("/metrics", {"Accept": "application/openmetrics-text, */*;q=0.1"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b'parapet_build_info{version="0.1.0"} 1\n' in answer.body
    world.control = Control(metrics_auth="key")
    assert (await world.get("/metrics", {})).status == 401
    assert (await world.get("/metrics", bearer("app000000000"))).status == 200


async def test_a_reload_tells_what_is_wrong(world: World) -> None:
    world.wrong = [{"pointer": "#/server/listen", "code": "invalid_value", "detail": "x"}]
    answer = await world.call("POST", "/v1/admin/reload", headers=ADMIN)
    assert (answer.status, answer.slug) == (422, "validation-error")
    assert answer.doc["errors"] == world.wrong
    world.wrong = []
    answer = await world.call("POST", "/v1/admin/reload", headers=ADMIN)
    assert (answer.status, answer.doc["config_version"]) == (200, 7)
