"""/v1/workspaces: the tenants (control-api.md §12.1).  `default` always exists."""

import asyncio
from functools import partial
from typing import Final

from pydantic import Field, TypeAdapter

from proxy.control.audit import AUDIT_LOG
from proxy.control.documents import insistent, may_change, removed_with, write
from proxy.control.frame import ControlDeps, Passage, Query, Reply
from proxy.control.keys import KEY, workspaces_of
from proxy.control.kinds import (
    Kind,
    Object,
    Reference,
    Revision,
    Stored,
    everything,
    nothing_unique,
    one_of,
)
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.routing import chosen, named
from proxy.control.wire import ListQuery
from proxy.model.batch import ANY, Batch, Delete, Op, OutboxDone
from proxy.model.documents import Doc, Name, Slug
from proxy.model.events import EVENTS_LOG, iso
from proxy.model.exchange import Json
from proxy.settings.notices import WorkspaceSettings
from proxy.settings.overlay import DEFAULT
from proxy.settings.values import knows_zone

WORKSPACE_NAME: Final = "workspace"
STEP: Final = 500  # documents that are removed in one commit
OWN_KINDS: Final = (
    "route", "endpoint", "failover_policy", "policy", "alert_rule", "delivery", "watcher",
)  # fmt: skip
FOLLOWING_KINDS: Final = (  # nobody is kept from removing a workspace by these
    "policy_version", "incident", "incident.timeline", "correlation", "alert", "digest",
    "dead_letter", "failover_policy.state",
)  # fmt: skip


class Tenant(Doc):
    id: Slug
    name: Name
    default_route: Slug | None = None
    settings: WorkspaceSettings = Field(default_factory=WorkspaceSettings)


class RemovalQuery(Query):
    """`cascade`: everything that lives in the workspace goes, too."""

    cascade: bool = False


def _references(said: Object) -> list[Reference]:
    found = []
    if said.get("default_route") is not None:
        found.append(Reference("#/default_route", "route", "route", str(said["default_route"])))
    settings = WorkspaceSettings.model_validate(said.get("settings") or {})
    for member, targets in (
        ("default_delivery_targets", settings.default_delivery_targets),
        ("digest/targets", settings.digest.targets),
    ):
        found += [
            Reference(f"#/settings/{member}/{place}", "delivery", "delivery target", target)
            for place, target in enumerate(targets)
        ]
    return found


def _keep(_: Object, __: ListQuery) -> bool:
    return True


def _visible(one: Stored, passage: Passage) -> bool:
    return passage.caller.bound_to(one.id)


def _always() -> dict[str, Object]:
    return {DEFAULT: {"id": DEFAULT, "name": DEFAULT}}


async def _fresh(doc_id: str, passage: Passage, deps: ControlDeps) -> None:
    """Raises Problem 409 for the id of a workspace that was."""
    if doc_id in passage.config.workspaces:
        return
    for log in (EVENTS_LOG, AUDIT_LOG):
        if await deps.store.head(doc_id, log):
            detail = "events of a workspace of this id are still kept: choose another id"
            raise Problem("conflict", detail, extra={"existing": doc_id})


async def _warn(said: Object, *_: object) -> list[Json]:
    """Raises Problem 422 for a time zone that is none."""
    settings = WorkspaceSettings.model_validate(said.get("settings") or {})
    if not await asyncio.to_thread(knows_zone, settings.timezone):
        fault = FieldError(
            "unknown_value", "is no time zone here", "settings.timezone", "#/settings/timezone"
        )
        raise invalid([fault])
    return []


WORKSPACE: Final = Kind(
    name=WORKSPACE_NAME,
    noun="workspace",
    parameter="workspace",
    adapter=TypeAdapter(Tenant),
    id_of=partial(chosen, "id"),
    keep=_keep,
    sorts=("id", "name", "created_at", "updated_at"),
    references=_references,
    warn=_warn,
    fresh=_fresh,
    prepare=partial(named, "id"),
    unique=nothing_unique,
    visible=_visible,
    always=_always,
    live=True,
    server_wide=True,
)


async def remove_workspace(passage: Passage, deps: ControlDeps) -> Reply:
    """Only an empty workspace goes, unless `?cascade=true`; its events stay as long as retention
    keeps them."""
    query = passage.query
    assert isinstance(query, RemovalQuery), "the table says so"

    async def step() -> Reply:
        one = await one_of(WORKSPACE, passage, deps)
        may_change(one, passage)
        if one.id == DEFAULT:
            raise Problem("conflict", "the workspace `default` always exists")
        inside = await _inside(one.id, passage, deps)
        if inside and not query.cascade:
            told: list[Json] = [f"{kind}/{name}" for kind, name in inside[:20]]
            raise Problem("in-use", "the workspace is not empty", extra={"referenced_by": told})
        await _empty(one.id, deps)
        await _forsake(one.id, passage, deps)
        await removed_with(WORKSPACE, passage, deps, one)
        return Reply(204, media="")

    removed = await insistent(step)
    while await _empty(passage.params[WORKSPACE.parameter], deps):
        pass
    return removed


async def _inside(workspace_id: str, passage: Passage, deps: ControlDeps) -> list[tuple[str, str]]:
    own = [
        (kind, doc_id)
        for kind in OWN_KINDS
        for doc_id, _, _ in await deps.store.scan(workspace_id, kind)
    ]
    return own + [(KEY.name, one.id) for one in await _keys_of(workspace_id, passage, deps)]


async def _keys_of(workspace_id: str, passage: Passage, deps: ControlDeps) -> list[Stored]:
    """Keys of the store that open this workspace and are not revoked."""
    return [
        one
        for one in (await everything(KEY, passage, deps)).values()
        if workspace_id in workspaces_of(one.said)
        and not one.location
        and one.beside.get("revoked_at") is None
    ]


async def _forsake(workspace_id: str, passage: Passage, deps: ControlDeps) -> None:
    """SECURITY: no key opens what comes later under this name.  One that opens nothing else is
    revoked."""
    for one in await _keys_of(workspace_id, passage, deps):
        others: list[Json] = [each for each in workspaces_of(one.said) if each != workspace_id]
        said, beside = {**one.said, "workspaces": others}, one.beside
        if not others:
            said, beside = one.said, {**one.beside, "revoked_at": iso(deps.clock.now_ms())}
        verb = "update" if others else "revoke"
        await write(KEY, passage, deps, one, Revision(said, beside), verb)


async def _empty(workspace_id: str, deps: ControlDeps) -> bool:
    """Remove what lives there: before the workspace itself, so that a repeated call goes on where
    this one was cut off, and after it, until nothing comes any more and nothing is left for a
    namesake.  What was still to be sent of it is not sent.  Answers whether there was anything."""
    ops: list[Op] = []
    for kind in (*OWN_KINDS, *FOLLOWING_KINDS):
        ops += [Delete(kind, doc_id) for doc_id, _, _ in await deps.store.scan(workspace_id, kind)]
    found = bool(ops)
    for start in range(0, len(ops), STEP):
        batch = Batch(deps.ids.new("cm-"), tuple(ops[start : start + STEP]))
        await deps.store.commit(workspace_id, batch)
    while rows := await deps.store.outbox(workspace_id, limit=STEP):
        found = True
        batch = Batch(deps.ids.new("cm-"), tuple(OutboxDone(row.id, ANY) for row in rows))
        await deps.store.commit(workspace_id, batch)
    return found
