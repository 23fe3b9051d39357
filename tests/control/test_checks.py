"""The fixed order of checks, keys and roles, problems and headers (control-api.md §1–§5)."""

import asyncio
import json
from typing import Any

import pytest

from proxy.control.config import SCOPES_OF_ROLE
from proxy.control.frame import ANY_KEY, METRICS, PUBLIC, SERVER_ADMIN, Operation
from proxy.control.problems import KINDS
from proxy.control.routes import OPERATIONS
from proxy.settings.schema import Control
from tests.control.world import ADMIN, EVENT, Answer, World, bearer, running

EVENTS = "/v1/workspaces/default/events"


def path_of(operation: Operation, workspace: str = "default") -> str:
    return (
        operation.template.replace("{workspace}", workspace)
        .replace("{eventId}", "evt-none")
        .replace("{slug}", "not-found")
    )


async def call(world: World, operation: Operation, headers: dict[str, str], **more: Any) -> Answer:
    query = "?after=0&max_events=1" if operation.rate_class == "stream" else ""
    body = EVENT if operation.takes else None
    return await world.call(operation.method, path_of(operation) + query, body, headers, **more)


# --- keys

# fmt: off
BAD_KEYS = [
    ("absent",      {}),
    ("empty",       {"Authorization": ""}),
    ("no scheme",   {"Authorization": "x"}),
    ("basic",       {"Authorization": "Basic YTpi"}),
    ("malformed",   {"Authorization": "Bearer ppt_x"}),
    ("unknown id",  bearer("nobody000000")),
    ("wrong",       bearer("admin0000000", "t" * 40)),
    ("expired",     bearer("expired00000")),
    ("wrong admin", {"Authorization": "Bearer admin-key-of-the-tests-0123456789abcdeX"}),
]
# fmt: on


async def test_t_sec_01_one_answer_for_every_bad_key(world: World) -> None:
    bodies = []
    for name, headers in BAD_KEYS:
        answer = await world.get(EVENTS, headers)
        assert answer.status == 401, name
        expected = 'Bearer realm="control"'
        if headers:
            expected += ', error="invalid_token"'
        assert answer.headers["WWW-Authenticate"] == expected, name
        assert "X-RateLimit-Limit" not in answer.headers
        bodies.append({k: v for k, v in answer.doc.items() if k != "request_id"})
    assert all(body == bodies[0] for body in bodies)


async def test_a_key_in_the_query_is_never_taken(world: World) -> None:
    assert (await world.get(f"{EVENTS}?key=ppt_admin0000000_{'s' * 40}", {})).status == 401


async def test_the_scheme_is_case_insensitive(world: World) -> None:
    headers = {"Authorization": bearer("admin0000000")["Authorization"].replace("B", "b", 1)}
    assert (await world.get(EVENTS, headers)).status == 200


async def test_two_authorization_headers(world: World) -> None:
    answer = await world.raw(
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\n"
        b"Authorization: Bearer b\r\nConnection: close\r\n\r\n"
    )
    assert b" 400 " in answer.split(b"\r\n")[0]
    assert b"invalid-header" in answer


async def test_t_sec_01_too_many_failures_hold_back_only_failures(world: World) -> None:
    statuses = [(await world.get(EVENTS, bearer("nobody000000"))).status for _ in range(30)]
    assert statuses == [401] * 20 + [429] * 10
    assert (await world.get(EVENTS, ADMIN)).status == 200
    world.clock.advance(61)
    assert (await world.get(EVENTS, bearer("nobody000000"))).status == 401
    assert [event for event, _ in world.told].count("authentication.failed") == 2


@pytest.mark.thorough
async def test_t_sec_03_every_operation_by_every_role() -> None:
    control = Control.model_validate({"rate_limits": {"control_write": 1000, "test": 1000}})
    async with running(control=control) as world:
        await world.ingest_runtime(EVENT)
        for operation in OPERATIONS:
            for role, scopes in SCOPES_OF_ROLE.items():
                answer = await call(world, operation, bearer(role.ljust(12, "0")))
                public = operation.scope in (PUBLIC, METRICS)
                if public or operation.scope == ANY_KEY or operation.scope in scopes:
                    assert answer.status not in (401, 403), (operation.operation_id, role)
                else:
                    assert answer.status == 403, (operation.operation_id, role)
                    assert answer.doc["required_scopes"] == [operation.scope]


async def test_explicit_scopes_add_up(world: World) -> None:
    assert (await world.get(EVENTS, bearer("scoped000000"))).status == 200
    refused = await world.get("/v1/workspaces", bearer("scoped000000"))
    assert (refused.status, refused.doc["reason"]) == (403, "scope_missing")


async def test_a_server_admin_is_an_admin_of_all_workspaces(world: World) -> None:
    for who, status in (("admin0000000", 403), ("root00000000", 200)):
        assert (await world.call("POST", "/v1/admin/reload", headers=bearer(who))).status == status
    assert (await world.call("POST", "/v1/admin/reload")).status == 200


async def test_t_sec_04_a_foreign_workspace_is_refused_alike_whether_it_exists(
    world: World,
) -> None:
    answers = [
        await world.get(f"/v1/workspaces/{name}/events", bearer("admin0000000"))
        for name in ("other", "nowhere")
    ]
    assert [answer.status for answer in answers] == [403, 403]
    bodies = [
        {k: v for k, v in answer.doc.items() if k not in ("request_id", "instance")}
        for answer in answers
    ]
    assert bodies[0] == bodies[1]
    assert bodies[0]["reason"] == "workspace_mismatch"
    assert (await world.get("/v1/workspaces/nowhere/events", ADMIN)).status == 404


async def test_a_key_bound_to_networks(world: World) -> None:
    answer = await world.get(EVENTS, bearer("elsewhere000"))
    assert (answer.status, answer.doc["reason"]) == (403, "ip_not_allowed")


async def test_every_denial_is_told_but_not_every_time(world: World) -> None:
    for _ in range(5):
        await world.call("POST", "/v1/admin/reload", headers=bearer("viewer000000"))
    await world.post("/v1/ingest/runtime", EVENT, bearer("viewer000000"))
    world.clock.advance(61)
    await asyncio.sleep(0.05)
    await world.call("POST", "/v1/admin/reload", headers=bearer("viewer000000"))
    page = await world.get(EVENTS + "?type=runtime.permission.decision")
    assert page.doc["total"] == 0  # neither operation belongs to a workspace
    entries = await world.store.range("_server", "events", _all())
    told = [json.loads(entry.body)["payload"] for entry in entries.entries]
    assert [(one["resource"], one["count"]) for one in told] == [
        ("reload", 1), ("ingestRuntime", 1), ("reload", 4),
    ]  # fmt: skip
    assert told[0]["decision"] == "denied"
    assert told[0]["reason"] == "role_restriction"
    assert told[0]["role_required"] == "admin"
    assert told[1]["role_required"] is None
    world.clock.advance(61)
    await asyncio.sleep(0.05)
    assert (await world.store.range("_server", "events", _all())).total == 4  # the last one, too


async def test_a_denial_inside_the_workspace_is_told_there(world: World) -> None:
    await world.get(EVENTS, bearer("app000000000"))
    page = await world.get(EVENTS)
    assert page.doc["data"][0]["payload"]["resource"] == "listEvents"


def _all() -> Any:
    from proxy.model.batch import LogFilter  # noqa: PLC0415

    return LogFilter(newest_first=False, limit=100)


# --- the order


@pytest.mark.thorough
async def test_the_first_failure_wins() -> None:
    control = Control.model_validate({"rate_limits": {"ingest": 1, "control_read": 1}})
    async with running(control=control) as world:
        bad: dict[str, Any] = {"data": b"\xff", "headers": {"Accept": "image/png"}}

        async def status(method: str, path: str, **headers: str) -> int:
            answer = await world.call(
                method, path, headers={**bad["headers"], **headers}, data=bad["data"]
            )
            return answer.status

        world.status.stopping = True
        assert await status("PUT", "/nowhere") == 503  # 2 before 3
        world.status.stopping = False
        assert await status("PUT", "/nowhere") == 404  # 3 before 4
        assert await status("PUT", "/v1/ingest/runtime") == 405  # 4 before 5
        assert await status("POST", "/v1/ingest/runtime") == 401  # 5 before 6
        viewer = bearer("viewer000000")
        assert await status("POST", "/v1/ingest/runtime", **viewer) == 403  # 8 before 11
        assert await status("POST", "/v1/ingest/runtime", **viewer) == 429  # 6 before 7
        assert await status("GET", "/v1/workspaces/nowhere/events", **ADMIN) == 404  # 9 before 11
    async with running() as world:
        cap = 1024 * 1024
        too_long = b"POST /v1/ingest/runtime HTTP/1.1\r\nHost: x\r\nAccept: image/png\r\n"
        too_long += f"Authorization: {ADMIN['Authorization']}\r\n".encode()
        declared = b"Content-Length: %d\r\n\r\n"
        answer = await world.raw(too_long + declared % (cap + 1))  # 10 before 11, nothing read
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in answer
        answer = await world.raw(too_long + declared % 10_000_000_000)
        assert answer.startswith(b"HTTP/1.1 413 ")
        for content_type, accept, key, body, wanted in (
            ("text/plain", "image/png", "", b"{", 415),  # 11: 415 before 406
            ("application/json", "image/png", "a b", b"{", 406),  # 11 before 12
            ("application/json", "*/*", "a b", b"[]", 400),  # 12 before 13
            ("application/json", "*/*", "ok", b"{", 400),
            ("application/json", "*/*", "ok", b"[]", 422),  # 13
        ):
            headers = {**ADMIN, "Content-Type": content_type, "Accept": accept}
            headers |= {"Idempotency-Key": key} if key else {}
            got = await world.call("POST", "/v1/ingest/runtime", headers=headers, data=body)
            assert got.status == wanted


async def test_draining_answers_503_but_for_health_and_metrics(world: World) -> None:
    world.status.stopping = True
    answer = await world.get(EVENTS)
    assert (answer.status, answer.slug) == (503, "draining")
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Connection"] == "close"
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await world.get(path, {})).status == 200


# --- methods and paths

# fmt: off
PATHS = [
    ("GET",    "/",                                 404),
    ("GET",    "/v1",                               404),
    ("GET",    "/v1/",                              404),
    ("GET",    "/v1/events",                        404),
    ("GET",    "/v1/workspaces//events",            404),
    ("GET",    "/v1/workspaces/default/events/",    404),
    ("GET",    "/v1/workspaces%2Fdefault/events",   404),
    ("GET",    "/v1/workspaces/%FF/events",         404),
    ("GET",    "/v1/%77orkspaces",                  404),
    ("GET",    "/V1/workspaces",                    404),
    ("DELETE", "/v1/workspaces/default/events",     405),
    ("PUT",    "/v1/ingest/runtime",                405),
    ("GET",    "/v1/ingest/runtime",                405),
    ("POST",   "/healthz",                          405),
    ("TRACE",  "/healthz",                          405),
]
# fmt: on


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
async def test_t_err_04_paths_and_methods(
    world: World, method: str, path: str, status: int
) -> None:
    answer = await world.raw(
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json" in head
    assert (b"Allow: " in head) == (status == 405)
    assert json.loads(body)["status"] == status


@pytest.mark.thorough
async def test_head_works_wherever_get_does(world: World) -> None:
    for operation in OPERATIONS:
        if operation.method == "GET" and operation.rate_class != "stream":
            got = await world.call("GET", path_of(operation), headers=ADMIN)
            head = await world.call("HEAD", path_of(operation), headers=ADMIN)
            assert (head.status, head.body) == (got.status, b"")
            assert head.headers["Content-Type"] == got.headers["Content-Type"]


async def test_options_needs_no_key_and_tells_the_methods(world: World) -> None:
    for path, allow in (
        (EVENTS, "GET, HEAD, OPTIONS"),
        ("/v1/ingest/change", "OPTIONS, POST"),
    ):
        answer = await world.call("OPTIONS", path, headers={})
        assert (answer.status, answer.body, answer.headers["Allow"]) == (204, b"", allow)


async def test_cors_is_off_unless_the_origin_is_listed() -> None:
    origin = {"Origin": "https://ops.example"}
    async with running() as world:
        assert "Access-Control-Allow-Origin" not in (await world.get("/healthz", origin)).headers
    control = Control(cors_origins=["https://ops.example"])
    async with running(control=control) as world:
        answer = await world.call("OPTIONS", EVENTS, headers=origin)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://ops.example"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        other = await world.get("/healthz", {"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


# --- media types

# fmt: off
MEDIA = [
    ({"Content-Type": "application/json"},                                   202),
    ({"Content-Type": "Application/JSON; charset=UTF-8"},                    202),
    ({"Content-Type": 'application/json; charset="utf-8"'},                  202),
    ({"Content-Type": "application/json; charset=latin-1"},                  415),
    ({"Content-Type": "application/json; ;"},                                202),
    ({"Content-Type": "application/json; charset"},                          415),
    ({"Content-Type": "text/json"},                                          415),
    ({"Content-Type": "application/merge-patch+json"},                       415),
    ({"Content-Type": "application/json", "Content-Encoding": "br"},         415),
    ({"Content-Type": "application/json", "Content-Encoding": "gzip, gzip"}, 415),
    ({"Content-Type": "application/json", "Content-Encoding": "identity"},   202),
    ({"Content-Type": "application/json", "Accept": "*/*"},                  202),
    ({"Content-Type": "application/json", "Accept": "application/*;q=0.1"},  202),
    ({"Content-Type": "application/json", "Accept": "application/json;q=0"}, 406),
    ({"Content-Type": "application/json", "Accept": "text/html"},            406),
    ({"Content-Type": "application/json", "Accept": "text/html, */*;q=0.1"}, 202),
    ({"Content-Type": "application/json", "Accept": "*/*, application/json;q=0"}, 406),
    ({"Content-Type": "application/json", "Accept": "*/*;q=x"},              406),
]
# fmt: on


@pytest.mark.parametrize(("headers", "status"), MEDIA)
async def test_media_types(world: World, headers: dict[str, str], status: int) -> None:
    answer = await world.call(
        "POST", "/v1/ingest/runtime", headers={**bearer("ingest000000"), **headers},
        data=json.dumps(EVENT).encode(),
    )  # fmt: skip
    assert answer.status == status


async def test_a_body_needs_a_content_type(world: World) -> None:
    head = f"POST /v1/ingest/runtime HTTP/1.1\r\nHost: x\r\n{_line(ADMIN)}Connection: close\r\n"
    answer = await world.raw(head.encode() + b"Content-Length: 2\r\n\r\n{}")
    assert answer.startswith(b"HTTP/1.1 415 ")
    empty = await world.raw(head.encode() + b"Content-Length: 0\r\n\r\n")
    assert empty.startswith(b"HTTP/1.1 400 ")


def _line(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


# --- JSON

# fmt: off
BROKEN = [
    (b"",                                  400, 0),
    (b"   ",                               400, None),
    (b"{",                                 400, 1),
    (b'{"a":NaN}',                         400, 5),
    (b'{"a":1e999}',                       400, 5),
    (b'{"a":' + b"9" * 10**6 + b"}",       400, 5),
    (b'{"a":"\\ud800"}',                   400, None),
    (b'{"a":"\xff"}',                      400, None),
    (b'{"a":1} x',                         400, 8),
    ('{"é":}'.encode(),                    400, 6),
    (b"[" * 100_000,                       422, None),
    (b"[" * 40 + b"]" * 40,                422, None),
    (b"3",                                 422, None),
    (b"null",                              422, None),
    (b'"text"',                            422, None),
]
# fmt: on


@pytest.mark.parametrize(("body", "status", "offset"), BROKEN)
async def test_t_http_06_json_abuse(
    world: World, body: bytes, status: int, offset: int | None
) -> None:
    answer = await world.call(
        "POST",
        "/v1/ingest/runtime",
        headers={**ADMIN, "Content-Type": "application/json", "x-parapet-workspace": "default"},
        data=body,
    )
    assert answer.status == status
    if offset is not None:
        assert answer.doc["offset"] == offset


async def test_depth_is_32(world: World) -> None:
    for depth, status in ((30, 202), (31, 422)):
        value: Any = 1
        for _ in range(depth):
            value = [value]
        answer = await world.ingest_runtime(
            {**EVENT, "event_id": f"e{depth}", "payload": {"x": value}}
        )
        assert answer.status == status
    assert answer.codes() == [("", "too_deep")]


async def test_64_bit_numbers_survive(world: World) -> None:
    await world.ingest_runtime({**EVENT, "payload": {"big": 2**63 - 1, "small": -(2**63)}})
    got = await world.get(f"{EVENTS}/evt-1")
    assert got.doc["payload"] == {"big": 2**63 - 1, "small": -(2**63)}


# --- headers of every answer


async def test_what_every_answer_carries(world: World) -> None:
    for path, headers in (
        ("/healthz", {}), (EVENTS, ADMIN), (EVENTS, {}), ("/nowhere", {}), ("/metrics", {}),
    ):  # fmt: skip
        answer = await world.get(path, headers)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'"
        assert answer.headers["X-Request-Id"]
        assert "Server" not in answer.headers


# fmt: off
REQUEST_IDS = [("my-id_1.2", True), ("x" * 64, True), ("x" * 65, False), ("a b", False),
               ("<script>", False), ("", False)]
# fmt: on


@pytest.mark.parametrize(("sent", "kept"), REQUEST_IDS)
async def test_t_http_07_the_request_id_is_kept_when_it_is_one(
    world: World, sent: str, kept: bool
) -> None:
    answer = await world.get("/nowhere", {"X-Request-Id": sent})
    assert (answer.headers["X-Request-Id"] == sent) == kept
    assert answer.doc["request_id"] == answer.headers["X-Request-Id"]


async def test_t_err_01_a_problem_has_every_member(world: World) -> None:
    answer = await world.get(EVENTS + "?limit=101&page=0&sort=up")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.doc["type"] == "http://control.test/problems/validation-error"
    assert answer.doc["instance"] == EVENTS
    assert answer.doc["errors"] == [
        {"in": "query", "parameter": "page", "field": "page", "code": "greater_than_equal",
         "detail": "must be >= 1", "limit": 1},
        {"in": "query", "parameter": "limit", "field": "limit", "code": "less_than_equal",
         "detail": "must be <= 100", "limit": 100},
    ]  # fmt: skip


async def test_t_err_03_at_most_fifty_errors_are_listed(world: World) -> None:
    answer = await world.ingest_runtime([{}] * 100)
    assert len(answer.doc["errors"]) == 50
    assert answer.doc["errors_truncated"] is True


async def test_every_kind_of_problem_is_explained(world: World) -> None:
    for slug, kind in KINDS.items():
        page = await world.get(f"/problems/{slug}", {})
        assert page.status == 200
        assert page.headers["Content-Type"].startswith("text/plain")
        assert kind.title.encode() in page.body
    assert (await world.get("/problems/nothing", {})).status == 404


async def test_a_bug_is_a_500_that_says_only_where_to_look(world: World) -> None:
    world.crash = RuntimeError("secret detail")
    answer = await world.call("POST", "/v1/admin/reload", headers=ADMIN | {"X-Request-Id": "r1"})
    assert (answer.status, answer.slug) == (500, "internal")
    assert b"secret detail" not in answer.body
    assert answer.doc["request_id"] == "r1"
    assert "X-RateLimit-Limit" in answer.headers
    assert ("control.crashed", {"request_id": "r1", "path": "/v1/admin/reload"}) in world.told
    assert (await world.get("/healthz")).status == 200


async def test_requests_are_counted_by_operation_and_status(world: World) -> None:
    await world.get(EVENTS)
    await world.get("/nowhere")
    await world.get(EVENTS, {})
    text = (await world.get("/metrics")).body.decode()
    for line in (
        'parapet_control_requests_total{operation="listEvents",status="200"} 1',
        'parapet_control_requests_total{operation="listEvents",status="401"} 1',
        'parapet_control_requests_total{operation="none",status="404"} 1',
    ):
        assert line in text


async def test_many_at_once(world: World) -> None:
    answers = await asyncio.gather(*(world.get(EVENTS) for _ in range(50)))
    assert {answer.status for answer in answers} == {200}


def test_every_operation_stands_once_and_has_a_scope() -> None:
    ids = [operation.operation_id for operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    known = {scope for scopes in SCOPES_OF_ROLE.values() for scope in scopes}
    special = {PUBLIC, ANY_KEY, SERVER_ADMIN, METRICS}
    assert all(operation.scope in known | special for operation in OPERATIONS)
