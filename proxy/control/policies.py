"""{w}/policies: policy packs with their versions (control-api.md §12.3, members guardrails.md §2).

The document is the version in force; every version that was published is kept beside it, never
changes, and can be activated again.  A pack is compiled when it is written, by the engine that
runs it: one that does not compile is refused whole.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from proxy.control.compiling import compiled, settled
from proxy.control.documents import get_document, insistent, may_change, write
from proxy.control.fitting import (
    BESIDE,
    VERSION_NAME,
    content_of,
    fits_routes,
    shelf_of,
    source_of,
)
from proxy.control.frame import ControlDeps, Passage, Query, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.kinds import (
    Kind,
    Object,
    Reference,
    Revision,
    Stored,
    body_of,
    nothing_unique,
    one_of,
    stored,
)
from proxy.control.problems import FieldError, Problem
from proxy.control.routing import ENDPOINT_NAME, POLICY_NAME, ROUTE, chosen
from proxy.control.secrets import EACH
from proxy.control.validation import read_as
from proxy.control.wire import ListQuery, Order, arranged, page_reply, read_sort, whole
from proxy.model.batch import ABSENT, Delete, Op, Put
from proxy.model.documents import Instant, Severity
from proxy.model.exchange import Json
from proxy.model.policy import SEMVER, Action, Policy, PolicyPack, named_endpoints
from proxy.wire import jsonbody

FIRST_VERSION: Final = "1.0.0"
MAX_VERSIONS: Final = 1000
PACK_BODY_BYTES: Final = 1 << 20
RESERVED: Final = "coverage"


class PoliciesQuery(ListQuery):
    """`action` and `severity`: a rule of the pack has it."""

    status: list[Literal["active", "paused"]] | None = None
    action: list[Action] | None = None
    severity: list[Severity] | None = None


class PolicyQuery(Query):
    version: str | None = Field(None, pattern=SEMVER, max_length=128)


# --- versions


def precedence(version: str) -> str:
    """A text that sorts as semantic versions do (semver.org §11); what follows `+` counts not."""
    core, _, release = version.partition("+")[0].partition("-")
    numbers = ".".join(f"{len(part):03}{part}" for part in core.split("."))
    if not release:
        return f"{numbers}~"
    parts = (
        f"0{len(part):03}{part}" if part.isdigit() else f"1{part}" for part in release.split(".")
    )
    return f"{numbers}-" + "\x01".join(parts)


def bumped(version: str, published: frozenset[str]) -> str:
    """The next patch of a version that is not there yet."""
    core, _, release = version.partition("+")[0].partition("-")
    major, minor, patch = (int(part) for part in core.split("."))
    following = patch if release else patch + 1
    while f"{major}.{minor}.{following}" in published:
        following += 1
    return f"{major}.{minor}.{following}"


def _revise(said: Object, old: Stored | None, sent: Object, now_ms: int) -> Revision:
    """A changed content is a new version.  Raises Problem 409 for one that does not follow."""
    if old is None:
        version = str(said.get("version") or FIRST_VERSION)
        said = {**said, "version": version}
        return Revision(said, {"versions": [version]}, (_publish(said, now_ms),))
    listed = old.beside["versions"]
    assert isinstance(listed, list), "we wrote it"
    versions, active = frozenset(map(str, listed)), str(old.said["version"])
    if _meant({**said, "version": active}) == _meant(old.said):
        return Revision({**said, "version": active}, old.beside)
    if sent.get("version") is None:
        version = bumped(active, versions)
    else:
        version = str(sent["version"])
        if version in versions or precedence(version) <= precedence(active):
            detail = f"a changed pack needs a version above {active} that was never published"
            raise Problem("version-conflict", detail, extra={"existing": active})
    if len(versions) >= MAX_VERSIONS:
        raise Problem("conflict", f"a pack has at most {MAX_VERSIONS} versions")
    said = {**said, "version": version}
    return Revision(said, {"versions": [*listed, version]}, (_publish(said, now_ms),))


def _meant(said: Object) -> Object:
    pack = PolicyPack.model_validate(content_of(said))
    told: Object = pack.model_dump(mode="json")
    return told


def _publish(said: Object, now_ms: int) -> Put:
    name = f"{said['policy_pack_id']}@{said['version']}"
    return Put(VERSION_NAME, name, body_of(content_of(said), now_ms, now_ms), ABSENT)


def _removed(one: Stored) -> tuple[Op, ...]:
    versions = one.beside["versions"]
    assert isinstance(versions, list), "we wrote it"
    return tuple(Delete(VERSION_NAME, f"{one.id}@{version}") for version in versions)


# --- the kind


def _prepare(sent: Object) -> Object:
    """`id` is the pack's id, too; without any its name is looked at last."""
    own = {name: value for name, value in sent.items() if name != "id"}
    if own.get("policy_pack_id") is None and sent.get("id") is not None:
        own["policy_pack_id"] = sent["id"]
    return own


def _check(said: Object, _: Object | None) -> Iterator[FieldError]:
    if said["policy_pack_id"] == RESERVED:
        detail = "is a word of the API: choose another id"
        yield FieldError("reserved", detail, "policy_pack_id", "#/policy_pack_id")


async def _compiled(said: Object, passage: Passage, deps: ControlDeps) -> list[Json]:
    """The warnings of the engine.  Raises Problem 422 with every fault that it finds; a reader is
    warned of what has become wrong since."""
    pack = PolicyPack.model_validate(content_of(said))
    if pack.extends is None:
        return [*await compiled(pack), *await fits_routes(said, passage, deps)]
    try:
        await settled(await shelf_of(passage, deps), source_of(said))
    except Problem as problem:
        if passage.request.method in ("POST", "PUT", "PATCH"):
            raise
        return [each.doc() for each in problem.errors]
    return await fits_routes(said, passage, deps)


def _view(one: Stored, shown: Object, _: Passage, __: ControlDeps) -> Object:
    versions = one.beside.get("versions")
    return {
        "id": one.id,
        **shown,
        "active_version": one.told["version"],
        "versions_count": len(versions) if isinstance(versions, list) else 1,
        "content_sha256": content_sha256(one.told),
    }


def content_sha256(told: Object) -> str:
    """Of the pack with all its defaults, whatever stands beside it."""
    members = PolicyPack.model_fields
    content = {name: value for name, value in told.items() if name in members}
    return hashlib.sha256(jsonbody.dumps_sorted(content)).hexdigest()


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, PoliciesQuery), "the table says so"
    rules = doc["rules"]
    assert isinstance(rules, list), "the model says so"
    of_rules = [rule for rule in rules if isinstance(rule, dict)]
    actions = {rule["action"] or doc["default_action"] for rule in of_rules}
    return (
        (query.status is None or doc["status"] in query.status)
        and (query.action is None or not actions.isdisjoint(query.action))
        and (query.severity is None or any(r["severity"] in query.severity for r in of_rules))
    )


def _references(said: Object) -> list[Reference]:
    routes, base = said.get("route_ids"), said.get("extends")
    found = [
        Reference(f"#/route_ids/{place}", "route", "route", str(name))
        for place, name in enumerate(routes if isinstance(routes, list) else ())
    ]
    if isinstance(base, str):
        pack_id = base.partition("@")[0]
        found.append(Reference("#/extends", POLICY_NAME, "policy", pack_id, "policy_pack_id"))
    rules = said.get("rules")
    for place, rule in enumerate(rules if isinstance(rules, list) else ()):
        config = rule.get("config") if isinstance(rule, dict) else None
        if isinstance(config, dict):
            found += [
                Reference(f"#/rules/{place}/config/{member}", ENDPOINT_NAME, "endpoint", name)
                for member, name in named_endpoints(config)
            ]
    return found


def _rank(doc: Object, name: str) -> Json:
    value = doc.get(name)
    return precedence(str(value)) if name == "version" else value


class PolicyTold(BaseModel):
    id: str
    active_version: str
    versions_count: int
    content_sha256: str


class PolicyVersion(PolicyPack):
    """A version as it was published; `active`: it is the one in force."""

    id: str
    active: bool
    active_version: str
    content_sha256: str
    created_at: Instant | None
    origin: Literal["api", "file"]


class VersionsQuery(ListQuery):
    sorts = ("version", "created_at")


POLICY: Final = Kind(
    name=POLICY_NAME,
    noun="policy",
    parameter="policyId",
    adapter=TypeAdapter(Policy),
    id_of=partial(chosen, "policy_pack_id"),
    keep=_keep,
    sorts=("id", "name", "created_at", "updated_at", "version"),
    references=_references,
    referrers=(ROUTE,),
    check=_check,
    prepare=_prepare,
    warn=_compiled,
    fenced=(("rules", EACH, "config", "headers", EACH),),
    unique=nothing_unique,
    revise=_revise,
    removed=_removed,
    view=_view,
    value=_rank,
    read_only=frozenset({"active_version", "versions_count", "content_sha256"}),
    id_member="policy_pack_id",
    told=PolicyTold,
    live=True,
)


# --- operations


class Activation(BaseModel):
    """`version`: one that was published."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: str = Field(pattern=SEMVER, max_length=128)


async def get_policy(passage: Passage, deps: ControlDeps) -> Reply:
    """The version in force, or the one that `?version=` names."""
    query = passage.query
    assert isinstance(query, PolicyQuery), "the table says so"
    if query.version is None:
        return await get_document(POLICY, passage, deps)
    one = await one_of(POLICY, passage, deps)
    version = await version_of(one, query.version, passage, deps)
    return Reply.json(200, one.representation(POLICY, passage, deps) | _pack(version))


async def list_versions(passage: Passage, deps: ControlDeps) -> Reply:
    """Every version that was published, newest first."""
    query = passage.query
    assert isinstance(query, ListQuery), "the table says so"
    orders = read_sort(query.sort, VersionsQuery.sorts, Order("created_at", descending=True))
    one = await one_of(POLICY, passage, deps)
    found = [await version_of(one, version, passage, deps) for version in _versions(one)]
    return page_reply(
        passage, query, arranged([_told(v, one) for v in found], orders, _rank), whole
    )


async def get_version(passage: Passage, deps: ControlDeps) -> Reply:
    """One version as it was published."""
    one = await one_of(POLICY, passage, deps)
    return Reply.json(
        200, _told(await version_of(one, passage.params["version"], passage, deps), one)
    )


async def activate_policy(passage: Passage, deps: ControlDeps) -> Reply:
    """Bring a published version into force, also an older one."""
    wanted = read_as(Activation, passage.body).version

    async def act(ticket: Ticket) -> Reply:
        async def step() -> Reply:
            ticket.recorded = False
            one = await one_of(POLICY, passage, deps)
            may_change(one, passage)
            version = await version_of(one, wanted, passage, deps)
            beside: Object = {name: one.said[name] for name in BESIDE if name in one.said}
            said = version.said | beside

            def reply(changed: Stored) -> Reply:
                shown = changed.representation(POLICY, passage, deps)
                return Reply.json(200, shown, {"ETag": changed.etag})

            if said == one.said:
                return reply(one)
            await _compiled(said, passage, deps)
            revision = Revision(said, one.beside)
            return reply(
                await write(
                    POLICY, passage, deps, one, revision, "activate",
                    lambda changed: ticket.ops(reply(changed)),
                )
            )  # fmt: skip

        return await insistent(step)

    return await once(passage, deps, act)


def _versions(one: Stored) -> list[str]:
    versions = one.beside.get("versions")
    return [str(each) for each in versions] if isinstance(versions, list) else [_active(one)]


def _active(one: Stored) -> str:
    return str(one.told["version"])


async def version_of(one: Stored, version: str, passage: Passage, deps: ControlDeps) -> Stored:
    """Raises Problem 404."""
    if one.location and version == _active(one):
        return one
    row = await deps.store.get(passage.workspace, VERSION_NAME, f"{one.id}@{version}")
    if row is None or one.location:
        raise Problem("not-found", "no such version of the policy")
    return stored(POLICY, one.id, *row)


def _told(version: Stored, policy: Stored) -> Object:
    """A version as the API shows it: the pack, and whether it is the one in force."""
    return {
        "id": policy.id,
        **_pack(version),
        "active": _active(version) == _active(policy),
        "active_version": _active(policy),
        "created_at": version.told["created_at"],
        "origin": version.told["origin"],
    }


def _pack(version: Stored) -> Object:
    """What a version is made of."""
    pack = {name: value for name, value in version.told.items() if name in PolicyPack.model_fields}
    return {**pack, "content_sha256": content_sha256(version.told)}
