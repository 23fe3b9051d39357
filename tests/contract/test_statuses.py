"""T-API-01: every status that the description names is one that the API gives."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from proxy.control.listener import ListenerLimits
from proxy.control.problems import KINDS
from proxy.control.routes import OPERATIONS
from proxy.settings.schema import Control
from tests.contract.described import DOC
from tests.control.world import ADMIN, CHANGE, EVENT, World, bearer, running

RULES = "/v1/workspaces/default/alert-rules"
RULE = {"name": "x", "condition": {"metric": "change"}}
TEST_A_RULE = "/v1/workspaces/default/alert-rules/{id}/test"
HTTP = b" HTTP/1.1\r\nHost: x\r\n"


def status_of(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1])


async def made(world: World) -> str:
    return str((await world.post(RULES, RULE)).headers["Location"])


async def gone(world: World) -> int:
    return (await world.call("DELETE", await made(world))).status


async def known(world: World) -> int:
    tag = (await world.get("/openapi.json")).headers["ETag"]
    return (await world.get("/openapi.json", {"If-None-Match": tag})).status


async def taken(world: World) -> int:
    await world.post(RULES, RULE)
    return (await world.post(RULES, RULE)).status


async def changed(world: World, **headers: str) -> int:
    sent = {**ADMIN, **headers}
    return (await world.call("PUT", await made(world), {"severity": "high"}, sent)).status


async def unconditional(world: World) -> int:
    world.control = world.control.model_copy(update={"require_if_match": True})
    return await changed(world)


async def crashed(world: World) -> int:
    world.crash = RuntimeError("boom")
    return (await world.post("/v1/admin/reload", {})).status


async def too_many(world: World) -> int:
    once = {"rate_limits": {"control_read": 1}}
    world.control = Control.model_validate(once)
    await world.get("/v1/status")
    return (await world.get("/v1/status")).status


async def stopping(world: World) -> int:
    world.status.stopping = True
    return (await world.get("/v1/status")).status


async def not_built(world: World) -> int | None:
    """Whatever operation is not: none, once all of them are."""
    missing = [row for row in OPERATIONS if not row.built]
    if not missing:
        return None
    made_by = {"alert-rules": RULE, "deliveries": TARGET, "watchers": WATCHER}
    for row in missing:
        place = row.template.split("/")[4]
        if place in made_by:
            path = f"/v1/workspaces/default/{place}"
            location = (await world.post(path, made_by[place])).headers["Location"]
            return (await world.post(f"{location}/{row.template.rpartition('/')[2]}", {})).status
    return None


TARGET = {"name": "t", "type": "slack", "config": {"webhook_url": "https://hooks.slack.com/x"}}
WATCHER = {"watcher_id": "w", "provider": "p", "kind": "pricing", "source_url": "https://x.test/"}


async def slow(world: World) -> int:
    return status_of(await world.raw(b"GET /healthz HTTP/1.1\r\nHost"))


async def raw(world: World, head: bytes) -> int:
    return status_of(await world.raw(head + b"\r\n"))


async def get(world: World, path: str, **headers: str) -> int:
    return (await world.get(path, {**ADMIN, **headers})).status


async def post(world: World, path: str, body: object, **headers: str) -> int:
    return (await world.post(path, body, {**ADMIN, **headers})).status


Way = Callable[[World], Awaitable[int | None]]
# fmt: off
WAYS: dict[int, Way] = {
    200: lambda world: get(world, "/v1/status"),
    201: lambda world: post(world, RULES, RULE),
    202: lambda world: post(world, "/v1/ingest/change", CHANGE, **bearer("ingest000000")),
    204: gone,
    304: known,
    400: lambda world: get(world, "/v1/status", **{"If-Match": "x"}),
    401: lambda world: get(world, "/v1/status", Authorization="Bearer x"),
    403: lambda world: get(world, "/v1/audit", **bearer("viewer000000")),
    404: lambda world: get(world, RULES + "/none"),
    405: lambda world: post(world, "/v1/status", {}),
    406: lambda world: get(world, "/v1/status", Accept="image/png"),
    408: slow,
    409: taken,
    412: lambda world: changed(world, **{"If-Match": '"r9"'}),
    413: lambda world: post(world, RULES, {"name": "x" * 300_000}),
    414: lambda world: raw(world, b"GET /" + b"x" * 8200 + HTTP),
    415: lambda world: post(world, RULES, RULE, **{"Content-Type": "text/plain"}),
    422: lambda world: post(world, RULES, {}),
    428: unconditional,
    429: too_many,
    431: lambda world: raw(world, b"GET /healthz" + HTTP + b"a: b\r\n" * 130),
    500: crashed,
    501: not_built,
    503: stopping,
}
# fmt: on


def documented() -> set[int]:
    return {
        int(status)
        for methods in DOC["paths"].values()
        for operation in methods.values()
        for status in operation["responses"]
    }


def test_each_documented_status_has_a_way_to_it() -> None:
    assert documented() <= set(WAYS)
    assert {kind.status for kind in KINDS.values()} <= set(WAYS)


@pytest.mark.parametrize("status", sorted(documented()))
async def test_the_api_gives_it(status: int) -> None:
    async with running(limits=ListenerLimits(head_s=0.05)) as world:
        assert await WAYS[status](world) == status


def resolved(schema: Any) -> Any:
    """A schema of the description that stands alone."""
    return {**schema, "components": DOC["components"]}


ANSWERS = [
    ("GET", "/v1/status", None, "getStatus"),
    ("GET", "/healthz", None, "healthz"),
    ("GET", "/readyz", None, "readyz"),
    ("GET", "/v1/workspaces", None, "listWorkspaces"),
    ("GET", "/v1/workspaces/default/events", None, "listEvents"),
    ("GET", "/v1/workspaces/default/events/evt-1", None, "getEvent"),
    ("GET", "/v1/workspaces/default/audit", None, "listAudit"),
    ("GET", "/v1/workspaces/default/audit/verify", None, "verifyAudit"),
    ("GET", RULES, None, "listAlertRules"),
    ("POST", RULES, {**RULE, "name": "y", "labels": {"a": "b"}}, "createAlertRule"),
    ("GET", "/v1/workspaces/default/deliveries", None, "listDeliveries"),
    ("POST", "/v1/workspaces/default/deliveries", {**TARGET, "name": "u"}, "createDelivery"),
    ("POST", "/v1/workspaces/default/watchers", {**WATCHER, "watcher_id": "v"}, "createWatcher"),
    ("GET", "/v1/workspaces/default/watchers", None, "listWatchers"),
    ("GET", "/v1/schemas", None, "listSchemas"),
    ("GET", "/v1/changelog", None, "getChangelog"),
]


@pytest.mark.parametrize(("method", "path", "body", "name"), ANSWERS)
async def test_an_answer_is_what_its_schema_says(
    world: World, method: str, path: str, body: object, name: str
) -> None:
    await world.ingest_runtime(EVENT)
    for place, document in (("alert-rules", RULE), ("deliveries", TARGET), ("watchers", WATCHER)):
        assert (await world.post(f"/v1/workspaces/default/{place}", document)).status == 201
    answer = await world.call(method, path, body)
    (operation,) = (
        one for methods in DOC["paths"].values() for one in methods.values()
        if one["operationId"] == name
    )  # fmt: skip
    schema = operation["responses"][str(answer.status)]["content"]["application/json"]["schema"]
    Draft202012Validator(resolved(schema)).validate(answer.doc)
    if "data" in answer.doc:
        assert answer.doc["data"]


async def test_a_problem_is_what_its_schema_says(world: World) -> None:
    schema = DOC["components"]["responses"]["Problem422"]["content"]["application/problem+json"]
    for body in ({}, [], {"name": 1, "labels": 2}):
        answer = await world.post(RULES, body)
        Draft202012Validator(resolved(schema["schema"])).validate(answer.doc)
