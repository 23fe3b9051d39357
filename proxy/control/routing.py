"""{w}/routes and {w}/endpoints: the same documents as in the file (control-api.md §12.7)."""

from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

from pydantic import BaseModel, TypeAdapter

from proxy.control.fitting import fits_packs
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import Kind, Object, Reference, nothing_unique, one_of
from proxy.control.objects import RouteExposure
from proxy.control.problems import FieldError, Problem
from proxy.control.secrets import EACH, inside
from proxy.control.standing import (
    EndpointExplainedTold,
    EndpointStats,
    explained_one,
    standing_of,
    stats_of,
)
from proxy.control.validation import field_of, pointer_of
from proxy.control.wire import ListQuery
from proxy.model.documents import slug
from proxy.model.exchange import Json
from proxy.model.ports import Ids
from proxy.model.tenancy import CREDENTIALS, Endpoint, Exposure, Provider, Route
from proxy.settings.crosscheck import endpoint_faults
from proxy.settings.overlay import FILE_MEMBERS
from proxy.wire.providers.registry import adapter_of

ENDPOINT_NAME: Final = "endpoint"
POLICY_NAME: Final = "policy"


class EndpointsQuery(ListQuery):
    provider: list[Provider] | None = None
    region: list[str] | None = None


class RoutesQuery(ListQuery):
    endpoint: list[str] | None = None


def chosen(id_member: str, said: Object, _: Ids) -> str:
    """The id that the client chose, or that its name gave."""
    return str(said[id_member])


def named(id_member: str, sent: Object) -> Object:
    """With the id that the name gives, where none was sent."""
    name = sent.get("name")
    if sent.get(id_member) is None and isinstance(name, str) and slug(name):
        return {**sent, id_member: slug(name)}
    return sent


# --- endpoints


SECRETS: Final = (*((name,) for name in CREDENTIALS), ("extra_headers", EACH))


def _keep_endpoint(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, EndpointsQuery), "the table says so"
    return (query.provider is None or doc["provider"] in query.provider) and (
        query.region is None or doc["region"] in query.region
    )


def _check_endpoint(said: Object, _: Object | None) -> Iterator[FieldError]:
    for problem in endpoint_faults(Endpoint.model_validate(_without_labels(said)), ()):
        where = problem.path
        yield FieldError("invalid_value", problem.message, field_of(where), pointer_of(where))
    try:
        adapter_of(
            Endpoint.model_validate(_without_labels(said)),
            lambda secret: secret if isinstance(secret, str) else None,
        )
    except ValueError as fault:
        name = next((each for each in CREDENTIALS if each in said), "base_url")
        yield FieldError("invalid_value", str(fault), name, f"#/{name}")
    for name in FILE_MEMBERS:
        path = said.get(name)
        if isinstance(path, str) and not inside(path):
            detail = "must name a file in control.secrets_dir"
            yield FieldError("forbidden_reference", detail, name, f"#/{name}")


def _without_labels(said: Object) -> Object:
    return {name: value for name, value in said.items() if name != "labels"}


_DESTINATION: Final = ("base_url", "provider", "region", "location", "project")


def _permit_endpoint(said: Object, old: Object | None, passage: Passage) -> None:
    """SECURITY: who opens the way into the private network answers for the whole process."""
    before = old or {}
    same = all(said.get(name) == before.get(name) for name in ("allow_private", *_DESTINATION))
    if said.get("allow_private") and not same and passage.caller.role != "admin":
        detail = "allow_private: true needs the role admin"
        raise Problem("forbidden", detail, extra={"reason": "role_restriction"})


ENDPOINT: Final = Kind(
    name=ENDPOINT_NAME,
    noun="endpoint",
    parameter="endpointId",
    adapter=TypeAdapter(Endpoint),
    id_of=partial(chosen, "id"),
    keep=_keep_endpoint,
    sorts=("id", "provider", "created_at", "updated_at"),
    secrets=SECRETS,
    bound=tuple(((name,), SECRETS) for name in ("base_url", "provider", "region", "location")),
    check=_check_endpoint,
    permit=_permit_endpoint,
    unique=nothing_unique,
    live=True,
)


class PolicyHealth(EndpointExplainedTold):
    """`role`: its place in the policy."""

    failover_policy_id: str
    route_id: str
    role: Literal["primary", "fallback"]
    active: bool
    stats: EndpointStats


class EndpointSeen(BaseModel):
    """How each failover policy sees an endpoint."""

    endpoint_id: str
    policies: list[PolicyHealth]


async def endpoint_health(passage: Passage, deps: ControlDeps) -> Reply:
    """How each failover policy sees the endpoint."""
    one = await one_of(ENDPOINT, passage, deps)
    rules = passage.config.workspaces[passage.workspace]
    policies: list[Json] = []
    for policy in rules.failover_policies:
        if one.id not in (policy.primary_endpoint, *policy.fallback_endpoints):
            continue
        standing = standing_of(deps, passage.workspace, policy)
        policies.append(
            {
                "failover_policy_id": policy.effective_id,
                "route_id": policy.route_id,
                "role": "primary" if one.id == policy.primary_endpoint else "fallback",
                "active": standing.active == one.id,
                "stats": stats_of(deps, standing, one.id),
                **explained_one(deps, standing, one.id, known=True),
            }
        )
    return Reply.json(200, {"endpoint_id": one.id, "policies": policies})


# --- routes


def _keep_route(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, RoutesQuery), "the table says so"
    return query.endpoint is None or doc["endpoint"] in query.endpoint


def _route_references(said: Object) -> list[Reference]:
    packs = said.get("policy_packs")
    return [
        Reference("#/endpoint", ENDPOINT_NAME, "endpoint", str(said["endpoint"])),
        *(
            _pack(place, str(pack))
            for place, pack in enumerate(packs if isinstance(packs, list) else ())
        ),
    ]


def _pack(place: int, reference: str) -> Reference:
    pack_id = reference.partition("@")[0]
    return Reference(f"#/policy_packs/{place}", POLICY_NAME, "policy", pack_id, "policy_pack_id")


ROUTE: Final = Kind(
    name="route",
    noun="route",
    parameter="routeId",
    adapter=TypeAdapter(Route),
    id_of=partial(chosen, "id"),
    keep=_keep_route,
    sorts=("id", "name", "created_at", "updated_at"),
    references=_route_references,
    prepare=partial(named, "id"),
    warn=fits_packs,
    unique=nothing_unique,
    live=True,
)


async def route_exposure(passage: Passage, deps: ControlDeps) -> Reply:
    """What hangs on the route, as its document declares it."""
    one = await one_of(ROUTE, passage, deps)
    rules = passage.config.workspaces[passage.workspace]
    endpoint = str(one.said["endpoint"])
    provider = next((each.provider for each in rules.endpoints if each.id == endpoint), None)
    declared = one.said.get("exposure")
    exposure = Exposure.model_validate(declared or {})
    told = RouteExposure(
        route_id=one.id,
        provider=provider,
        measured=False,
        basis="declared" if declared else "none",
        **exposure.model_dump(),
    )
    return Reply.json(200, told.model_dump(mode="json", exclude_unset=True))
