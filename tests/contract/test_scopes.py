"""Who may do what: every operation with every role, from `x-scope` alone.

Nothing is listed here by hand: an operation that is added is asked, too.
"""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from proxy.control.config import ALL_WORKSPACES, SCOPES_OF_ROLE
from proxy.settings.schema import Control
from tests.contract.described import DOC
from tests.control.world import ADMIN, WORKSPACES, Answer, World, bearer, key, running, workspace

pytestmark = pytest.mark.thorough

UNLIMITED = {
    "rate_limits": dict.fromkeys(
        ("control_read", "control_write", "ingest", "test", "stream"), 100_000
    )
}  # fmt: skip
# the table of control-api.md §2, written once more
READS = {
    f"{noun}:read"
    for noun in (
        "events", "policies", "alerts", "deliveries", "failover", "incidents", "routes",
        "watchers", "digests", "workspaces",
    )
}  # fmt: skip
OPERATES = {"incidents:write", "alerts:write", "deliveries:write", "failover:write"}
ADMINISTERS = {
    "policies:write", "routes:write", "watchers:write", "digests:write", "workspaces:write",
    "keys:read", "keys:write", "audit:read",
}  # fmt: skip
GRANTED = {
    "viewer": READS,
    "operator": READS | OPERATES,
    "admin": READS | OPERATES | ADMINISTERS | {"ingest:write", "proxy:invoke"},
    "ingest": {"ingest:write"},
    "app": {"proxy:invoke"},
}


def asked() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation: method, path as in the description, what it says."""
    for path, methods in DOC["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


CASES = [pytest.param(*case, id=case[2]["operationId"]) for case in asked()]
GUARDED = [case for case in CASES if case.values[2]["x-scope"] != "none"]
OF_A_WORKSPACE = [case for case in CASES if "{workspace}" in str(case.values[1])]


def key_of(role: str) -> str:
    return f"{role}0000000000"[:12]


def place(path: str, workspace_id: str = "default") -> str:
    return re.sub(r"\{\w+\}", "nothing-here", path.replace("{workspace}", workspace_id))


async def ask(world: World, method: str, path: str, headers: dict[str, str]) -> Answer:
    """Without a body and for one moment: what comes before the handler is what counts."""
    sent = {**headers, "Content-Type": "application/json"}
    if path.endswith("/stream"):
        path += "?after=0&max_events=1"  # there is one
    return await world.call(method, path, headers=sent)


@pytest.fixture
async def api() -> AsyncIterator[World]:
    workspaces = (*WORKSPACES, workspace("third", key("stranger0000", workspaces=["third"])))
    async with running(workspaces=workspaces, control=Control.model_validate(UNLIMITED)) as world:
        await world.ingest_runtime(
            {"event_id": "e-1", "route_id": "prod-chat", "timestamp": "2024-03-15T14:30:00Z"}
        )
        yield world


def test_the_roles_have_the_scopes_of_the_contract() -> None:
    assert {name: set(scopes) for name, scopes in SCOPES_OF_ROLE.items()} == GRANTED


def test_every_scope_is_somebodys() -> None:
    scopes = {case.values[2]["x-scope"] for case in CASES}
    known = set().union(*GRANTED.values()) | {"none", "any-key", "server-admin"}
    assert scopes <= known


@pytest.mark.parametrize(("method", "path", "operation"), CASES)
async def test_a_role_may_do_what_its_scopes_allow(
    api: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    scope = operation["x-scope"]
    for role, granted in GRANTED.items():
        answer = await ask(api, method, place(path), bearer(key_of(role)))
        if scope in ("none", "any-key") or scope in granted:
            assert answer.status not in (401, 403), role
            continue
        assert answer.status == 403, role
        reason = "role_restriction" if scope == "server-admin" else "scope_missing"
        assert (answer.slug, answer.doc["reason"]) == ("forbidden", reason)
        assert answer.doc["required_scopes"] == [scope]


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
async def test_nobody_comes_in_without_a_key(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    async with running() as world:  # of its own: failures of an address are counted
        bare = await ask(world, method, place(path), {})
        wrong = await ask(world, method, place(path), bearer("viewer000000", "x" * 40))
        unknown = await ask(world, method, place(path, "no-such"), bearer("nobody000000"))
    for answer in (bare, wrong, unknown):
        assert (answer.status, answer.slug) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="control"')
        assert not [name for name in answer.headers if "ratelimit" in name.lower()]


@pytest.mark.parametrize(("method", "path", "operation"), OF_A_WORKSPACE)
async def test_a_workspace_that_is_not_yours_does_not_show_whether_it_exists(
    api: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    told = []
    for workspace_id in ("default", "other", "no-such-workspace"):
        answer = await ask(api, method, place(path, workspace_id), bearer("stranger0000"))
        assert (answer.status, answer.slug) == (403, "forbidden")
        assert answer.doc["reason"] == "workspace_mismatch"
        ours = ("request_id", "instance")
        told.append({name: value for name, value in answer.doc.items() if name not in ours})
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize(("method", "path", "operation"), OF_A_WORKSPACE)
async def test_who_may_see_all_is_told_that_there_is_none(
    api: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    answer = await ask(api, method, place(path, "no-such-workspace"), ADMIN)
    assert (answer.status, answer.slug) == (404, "not-found")


@pytest.mark.parametrize(("method", "path", "operation"), GUARDED)
async def test_a_server_admin_may_do_everything(
    api: World, method: str, path: str, operation: dict[str, Any]
) -> None:
    for headers in (ADMIN, bearer("root00000000")):
        assert (await ask(api, method, place(path), headers)).status not in (401, 403)


def test_the_keys_of_the_world_are_what_these_tests_think() -> None:
    keys = {each.id: each for space in WORKSPACES for each in space.keys}
    assert {role: keys[key_of(role)].role for role in GRANTED} == {role: role for role in GRANTED}
    assert keys["root00000000"].workspaces == [ALL_WORKSPACES]
