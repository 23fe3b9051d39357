"""/v1/keys: who may call (control-api.md §2, §12.9).

A key is `ppt_<id>_<secret>`.  The secret is told once; its SHA-256 is kept beside what the document
says, never in it.  Nobody grants what he does not have, and no key changes itself.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from proxy.control.config import ALL_WORKSPACES, SCOPES_OF_ROLE, Principal
from proxy.control.documents import insistent, may_change, write
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.kinds import (
    Kind,
    Object,
    Reference,
    Revision,
    Stored,
    everything,
    nothing_unique,
    one_of,
    state_of,
)
from proxy.control.problems import FieldError, Problem
from proxy.control.secrets import MASK
from proxy.control.shown import SHOWN_ONCE, Once
from proxy.control.validation import read_as
from proxy.control.wire import ListQuery
from proxy.model.documents import Doc, Instant, Name, Slug
from proxy.model.events import SERVER_WORKSPACE, iso, parse_time
from proxy.model.exchange import Json
from proxy.model.ports import Ids
from proxy.model.tenancy import KeyRole, Limits
from proxy.settings.secrets import new_key
from proxy.settings.values import Cidr

KEY_NAME: Final = "key"
DAY_S: Final = 86_400
Scope = Literal[
    "events:read", "policies:read", "alerts:read", "deliveries:read", "failover:read",
    "incidents:read", "routes:read", "watchers:read", "digests:read", "workspaces:read",
    "incidents:write", "alerts:write", "deliveries:write", "failover:write", "policies:write",
    "routes:write", "watchers:write", "digests:write", "workspaces:write", "keys:read",
    "keys:write", "audit:read", "ingest:write", "proxy:invoke",
]  # fmt: skip
KeyStatus = Literal["active", "revoked", "expired"]
assert frozenset(get_args(Scope)) == frozenset().union(*SCOPES_OF_ROLE.values()), "one table"


class Key(Doc):
    """`workspaces`: ids, or `["*"]` for all.  A role, scopes, or both."""

    key_id: str | None = None
    name: Name
    role: KeyRole | None = None
    scopes: list[Scope] = Field(default_factory=list, max_length=50)
    workspaces: list[Slug | Literal["*"]] = Field(min_length=1, max_length=100)
    route: Slug | None = None
    expires_at: Instant | None = None
    allowed_cidrs: list[Cidr] = Field(default_factory=list, max_length=100)
    limits: Limits = Field(default_factory=Limits)


class KeysQuery(ListQuery):
    status: list[KeyStatus] | None = None
    role: list[KeyRole] | None = None


class Rotation(BaseModel):
    """`grace_seconds`: how long the secret before is still taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    grace_seconds: int = Field(DAY_S, ge=0, le=30 * DAY_S)


# --- what a key may be


def _check(said: Object, _: Object | None) -> Iterator[FieldError]:
    if said.get("role") is None and not said.get("scopes"):
        yield FieldError("missing", "a key needs a role or scopes", "role", "#/role")


def _references(said: Object) -> list[Reference]:
    workspaces, route = workspaces_of(said), said.get("route")
    found = [
        Reference(f"#/workspaces/{at}", "workspace", "workspace", name, within=(SERVER_WORKSPACE,))
        for at, name in enumerate(workspaces)
        if name != ALL_WORKSPACES
    ]
    if isinstance(route, str):
        found.append(Reference("#/route", "route", "route", route, within=tuple(workspaces)))
    return found


def granted(said: Object) -> frozenset[str]:
    """Every scope that the key has, by its role and by name."""
    scopes = said.get("scopes")
    listed = frozenset(map(str, scopes)) if isinstance(scopes, list) else frozenset()
    return SCOPES_OF_ROLE.get(str(said.get("role")), frozenset()) | listed


def workspaces_of(said: Object) -> list[str]:
    workspaces = said.get("workspaces")
    return [str(each) for each in workspaces] if isinstance(workspaces, list) else []


def within(said: Object, caller: Principal) -> bool:
    """The key can do nothing, and nowhere, that the caller could not do himself."""
    if said.get("role") == "admin" and caller.role != "admin":
        return False
    return granted(said) <= caller.scopes and reaches(said, caller)


def reaches(said: Object, caller: Principal) -> bool:
    if caller.workspaces is None:
        return True
    return frozenset(workspaces_of(said)) <= caller.workspaces


def _permit(said: Object, old: Object | None, passage: Passage) -> None:
    """Raises Problem 403."""
    if old is not None:
        no_own_key(passage)
    if not within(said, passage.caller) or (old is not None and not within(old, passage.caller)):
        detail = "nobody grants scopes or workspaces that he does not have"
        raise Problem("forbidden", detail, extra={"reason": "role_restriction"})


def no_own_key(passage: Passage) -> None:
    if passage.params["keyId"] == passage.caller.key_id:
        detail = "a key does not change itself"
        raise Problem("forbidden", detail, extra={"reason": "role_restriction"})


def _visible(one: Stored, passage: Passage) -> bool:
    """Of the keys of others nobody learns that they are there."""
    return reaches(one.said, passage.caller)


# --- the secret


def _generated(said: Object) -> tuple[Object, Once | None]:
    _, key = new_key()
    return {**said, "key": key}, Once(("key",), key)


def _id(said: Object, _: Ids) -> str:
    return str(said["key"]).split("_")[1]


def _revise(said: Object, old: Stored | None, _: Object, __: int) -> Revision:
    if old is not None:
        return Revision(said, old.beside)
    plain = {name: value for name, value in said.items() if name != "key"}
    return Revision(plain, {"secret_sha256": _digest(str(said["key"]))})


def _digest(key: str) -> str:
    return hashlib.sha256(key.rpartition("_")[2].encode()).hexdigest()


def in_force(said: Object, kept: Object) -> Object | None:
    """The key as the rules in force have it; None: it is revoked."""
    if kept.get("revoked_at") is not None:
        return None
    named = {name: value for name, value in said.items() if name not in ("key_id", "labels")}
    secrets = ("secret_sha256", "previous_sha256", "previous_expires_at")
    return {
        "id": said["key_id"],
        "role": None,
        **named,
        **{name: kept[name] for name in secrets if name in kept},
    }


# --- the kind


def _expired(one: Stored, now_ms: int) -> bool:
    if not one.said.get("expires_at"):
        return False
    expires_ms = parse_time(str(one.said["expires_at"]))
    return expires_ms is None or expires_ms <= now_ms


def _view(one: Stored, shown: Object, _: Passage, deps: ControlDeps) -> Object:
    status: KeyStatus = "active"
    if one.beside.get("revoked_at") is not None:
        status = "revoked"
    elif _expired(one, deps.clock.now_ms()):
        status = "expired"
    return {
        **shown,
        "status": status,
        "revoked_at": one.beside.get("revoked_at"),
        "previous_expires_at": one.beside.get("previous_expires_at"),
        "last_used_at": one.state.get("last_used_at"),
    }


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, KeysQuery), "the table says so"
    return (query.status is None or doc["status"] in query.status) and (
        query.role is None or doc["role"] in query.role
    )


class KeyTold(BaseModel):
    """`key` comes once, in the answer to its making or rotation.  `last_used_at`: the minute of
    the last request that it was taken for, here or on the data plane; null: none is known."""

    key_id: str
    status: KeyStatus
    revoked_at: Instant | None
    previous_expires_at: Instant | None
    last_used_at: Instant | None


KEY: Final = Kind(
    name=KEY_NAME,
    noun="key",
    parameter="keyId",
    adapter=TypeAdapter(Key),
    id_of=_id,
    keep=_keep,
    sorts=("name", "created_at", "updated_at", "status"),
    references=_references,
    check=_check,
    permit=_permit,
    generated=_generated,
    revise=_revise,
    view=_view,
    visible=_visible,
    unique=nothing_unique,
    read_only=frozenset(
        {"key_id", "status", "revoked_at", "previous_expires_at", "last_used_at", "key"}
    ),
    id_member="key_id",
    told=KeyTold,
    conditional_get=False,
    live=True,
    server_wide=True,
    state=state_of(KEY_NAME, server_wide=True),
)


# --- operations


async def keeps_an_admin(one: Stored, said: Object, passage: Passage, deps: ControlDeps) -> None:
    """Raises Problem 409 for a change that leaves nobody to administer the server."""
    before_ms = _administers_until(one.said)
    serves = before_ms > deps.clock.now_ms() and one.beside.get("revoked_at") is None
    less = _administers_until(said) < before_ms
    if serves and less and await _no_other_admin(one, passage, deps):
        raise Problem("conflict", "the last key with the role admin keeps it everywhere, as long")


async def revoke_key(passage: Passage, deps: ControlDeps) -> Reply:
    """The key is nobody's any more; what it was stays readable."""

    async def step() -> Reply:
        one = await _changeable(passage, deps)
        if _administers_until(one.said) and await _no_other_admin(one, passage, deps):
            raise Problem("conflict", "the last key with the role admin cannot be revoked")
        kept = {**one.beside, "revoked_at": iso(deps.clock.now_ms())}
        await write(KEY, passage, deps, one, Revision(one.said, kept), "revoke")
        return Reply(204, media="")

    return await insistent(step)


async def rotate_key(passage: Passage, deps: ControlDeps) -> Reply:
    """A new secret, told once; the one before is taken until its grace is over."""
    grace_s = read_as(Rotation, passage.body or b"{}").grace_seconds

    async def act(ticket: Ticket) -> Reply:
        async def step() -> Reply:
            ticket.recorded = False
            one = await _changeable(passage, deps)
            _, made = new_key()
            key = f"ppt_{one.id}_{made.rpartition('_')[2]}"
            kept: Object = {"secret_sha256": _digest(key)}
            if grace_s:
                until_ms = deps.clock.now_ms() + grace_s * 1000
                kept["previous_sha256"] = one.beside["secret_sha256"]
                kept["previous_expires_at"] = iso(until_ms)

            def told(changed: Stored, secret: str) -> Object:
                return {**changed.representation(KEY, passage, deps), "key": secret}

            def recorded(changed: Stored) -> Reply:
                shown = {**told(changed, MASK), "warnings": [SHOWN_ONCE]}
                return Reply.json(200, shown, {"ETag": changed.etag})

            changed = await write(
                KEY, passage, deps, one, Revision(one.said, kept), "rotate",
                lambda changed: ticket.ops(recorded(changed)),
            )  # fmt: skip
            return Reply.json(200, told(changed, key), {"ETag": changed.etag})

        return await insistent(step)

    return await once(passage, deps, act)


async def _changeable(passage: Passage, deps: ControlDeps) -> Stored:
    """Raises Problem 403, 404, 409, 412."""
    one = await one_of(KEY, passage, deps)
    if one.beside.get("revoked_at") is not None:
        raise Problem("not-found", "the key is revoked")
    _permit(one.said, one.said, passage)
    may_change(one, passage)
    return one


def _administers_until(said: Object) -> float:
    """Milliseconds since 1970 until which the key is a server admin's; 0: it is none."""
    if said.get("role") != "admin" or ALL_WORKSPACES not in workspaces_of(said):
        return 0
    expires_at = said.get("expires_at")
    return (parse_time(str(expires_at)) or 0) if expires_at else math.inf


async def _no_other_admin(one: Stored, passage: Passage, deps: ControlDeps) -> bool:
    """Keys of the file count; `server.admin_key`, which has no document, does not."""
    now_ms = deps.clock.now_ms()
    others = await everything(KEY, passage, deps)
    return not any(
        each.beside.get("revoked_at") is None and _administers_until(each.said) > now_ms
        for name, each in others.items()
        if name != one.id
    )


def declared_key(said: Object, home: str) -> Object:
    """A key of the file as the API shows it: nothing of its secret."""
    shown: dict[str, Json] = {
        name: value for name, value in said.items() if name not in ("id", "secret_sha256")
    }
    shown["key_id"] = said["id"]
    shown.setdefault("role", "app")
    shown.setdefault("name", said["id"])
    if not shown.get("workspaces"):
        shown["workspaces"] = [home]
    return shown
