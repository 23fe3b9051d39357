"""What takes two members to show: references that lead nowhere, ids that come twice, addresses.

Each check is a generator of problems over the typed configuration; paths are those of the file.
"""

import datetime as dt
import difflib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from proxy.model.failover import FailoverPolicy
from proxy.model.policy import named_endpoints
from proxy.model.tenancy import ApiKey, Endpoint
from proxy.runtime.addresses import judge, literal
from proxy.settings.problems import Path, Problem
from proxy.settings.schema import Config, Workspace
from proxy.settings.values import knows_zone

NEEDS_BASE_URL = ("azure-openai", "openai-compatible")
_METADATA_NAMES = ("metadata.google.internal", "metadata.goog", "instance-data.ec2.internal")


def crosscheck(config: Config) -> Iterator[Problem]:
    """Every fault between members of the file."""
    yield from _listeners(config)
    yield from _twice(((each.id, ("id",)) for each in config.workspaces), ("workspaces",))
    names = {workspace.id for workspace in config.workspaces} | {"default", "*"}
    keys: set[str] = set()
    for index, workspace in enumerate(config.workspaces):
        at: Path = ("workspaces", index)
        yield from _workspace(workspace, at)
        for number, key in enumerate(workspace.keys):
            if key.id in keys:
                yield Problem((*at, "keys", number, "id"), f"key id {key.id} stands twice")
            keys.add(key.id)
            yield from _key(key, workspace, names, (*at, "keys", number))


def _listeners(config: Config) -> Iterator[Problem]:
    data, control = config.server.data_address, config.server.control_address
    if data == control and data.port:
        yield Problem(
            ("server", "control_listen"),
            f"is {control}, where the data plane listens; each needs an address of its own",
        )


def _workspace(workspace: Workspace, at: Path) -> Iterator[Problem]:
    if not knows_zone(workspace.settings.timezone):
        message = f"no time zone {workspace.settings.timezone} on this machine"
        yield Problem((*at, "settings", "timezone"), message)
    endpoints = [endpoint.id for endpoint in workspace.endpoints]
    routes = [route.id for route in workspace.routes]
    lists: list[tuple[str, str, Sequence[str | None]]] = [
        ("endpoints", "id", endpoints),
        ("routes", "id", routes),
        ("failover_policies", "id", [policy.id for policy in workspace.failover_policies]),
        ("policies", "policy_pack_id", [pack.policy_pack_id for pack in workspace.policies]),
        ("alert_rules", "id", [rule.id for rule in workspace.alert_rules]),
        ("alert_rules", "name", [rule.name for rule in workspace.alert_rules]),
        ("deliveries", "id", [target.id for target in workspace.deliveries]),
        ("watchers", "watcher_id", [watcher.watcher_id for watcher in workspace.watchers]),
    ]
    for name, member, ids in lists:
        yield from _twice(((each, (member,)) for each in ids), (*at, name))
    for index, endpoint in enumerate(workspace.endpoints):
        yield from endpoint_faults(endpoint, (*at, "endpoints", index))
    for index, route in enumerate(workspace.routes):
        path = (*at, "routes", index, "endpoint")
        yield from _known(route.endpoint, endpoints, "endpoint", path)
    if workspace.default_route is not None:
        yield from _known(workspace.default_route, routes, "route", (*at, "default_route"))
    active: dict[str, int] = {}
    for index, policy in enumerate(workspace.failover_policies):
        path = (*at, "failover_policies", index)
        yield from _failover(policy, routes, endpoints, path)
        if policy.status != "active":
            continue
        if policy.route_id in active:
            first = active[policy.route_id]
            yield Problem(
                (*path, "route_id"),
                f"route {policy.route_id} has an active policy already "
                f"(failover_policies[{first}]); pause one of them",
            )
        active.setdefault(policy.route_id, index)
    yield from _reroutes(workspace, endpoints, at)


def _twice(ids: Iterable[tuple[str | None, Path]], at: Path) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, (name, member) in enumerate(ids):
        if name is None:
            continue
        if name in seen:
            message = f"{name} stands twice (first at {at[-1]}[{seen[name]}])"
            yield Problem((*at, index, *member), message)
        seen.setdefault(name, index)


def _known(name: str, known: Sequence[str], what: str, path: Path) -> Iterator[Problem]:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        yield Problem(path, f"no {what} {name}; did you mean {near[0]}?")
    elif known:
        yield Problem(path, f"no {what} {name}; known are {', '.join(sorted(known))}")
    else:
        yield Problem(path, f"no {what} {name}; this workspace has no {what}s")


def endpoint_faults(endpoint: Endpoint, at: Path) -> Iterator[Problem]:
    """What is wrong between the members of an endpoint."""
    if endpoint.base_url is None:
        if endpoint.provider in NEEDS_BASE_URL:
            yield Problem((*at, "base_url"), f"is required for provider {endpoint.provider}")
        if endpoint.provider == "bedrock" and endpoint.region is None:
            yield Problem((*at, "region"), "provider bedrock needs region or base_url")
        if endpoint.provider == "vertex" and not endpoint.location:
            yield Problem((*at, "location"), "provider vertex needs location or base_url")
    if endpoint.provider == "vertex" and not endpoint.project:
        yield Problem((*at, "project"), "is required for provider vertex")
    if (endpoint.access_key_id is None) != (endpoint.secret_access_key is None):
        missing = "secret_access_key" if endpoint.access_key_id else "access_key_id"
        yield Problem((*at, missing), "access_key_id and secret_access_key go together")
    if endpoint.profile != "generic" and endpoint.provider != "openai-compatible":
        yield Problem((*at, "profile"), "is only for provider openai-compatible")
    if (endpoint.client_cert_file is None) != (endpoint.client_key_file is None):
        missing = "client_key_file" if endpoint.client_cert_file else "client_cert_file"
        yield Problem((*at, missing), "client_cert_file and client_key_file go together")
    if endpoint.base_url:
        yield from _address(endpoint, (*at, "base_url"))


def _address(endpoint: Endpoint, at: Path) -> Iterator[Problem]:
    try:
        parts = urlsplit(endpoint.base_url or "")
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        yield Problem(at, "is not a URL: its host or port is malformed")
        return
    name = host.rstrip(".").lower()
    address = literal(name)
    if name in _METADATA_NAMES or (address is not None and judge(address) == "metadata"):
        yield Problem(at, "is a cloud metadata address, which is never allowed")
    elif not endpoint.allow_private and is_private(name):
        yield Problem(at, "is a loopback or private address; set allow_private: true to allow it")


def is_private(host: str) -> bool:
    """A name or an address, however written, that is not public.  DNS is not asked."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = literal(host)
    return address is not None and judge(address) != "public"


def _failover(
    policy: FailoverPolicy, routes: Sequence[str], endpoints: Sequence[str], at: Path
) -> Iterator[Problem]:
    yield from _known(policy.route_id, routes, "route", (*at, "route_id"))
    yield from _known(policy.primary_endpoint, endpoints, "endpoint", (*at, "primary_endpoint"))
    for index, name in enumerate(policy.fallback_endpoints):
        yield from _known(name, endpoints, "endpoint", (*at, "fallback_endpoints", index))
    yield from tier_faults(policy, at)


def tier_faults(policy: FailoverPolicy, at: Path) -> Iterator[Problem]:
    """What is wrong between a policy's endpoints and its tiers."""
    if policy.tiers is None:
        return
    own = [policy.primary_endpoint, *policy.fallback_endpoints]
    tiered = [name for tier in policy.tiers for name in tier]
    if sorted(tiered) != sorted(own):
        yield Problem(
            (*at, "tiers"),
            "must name the primary and each fallback exactly once: " + ", ".join(own),
        )


def _reroutes(workspace: Workspace, endpoints: Sequence[str], at: Path) -> Iterator[Problem]:
    for number, pack in enumerate(workspace.policies):
        for index, rule in enumerate(pack.rules):
            path = (*at, "policies", number, "rules", index, "config")
            for member, target in named_endpoints(rule.config):
                yield from _known(target, endpoints, "endpoint", (*path, member))


def _key(key: ApiKey, workspace: Workspace, names: set[str], at: Path) -> Iterator[Problem]:
    if key.route is not None:
        routes = [route.id for route in workspace.routes]
        yield from _known(key.route, routes, "route", (*at, "route"))
    for index, name in enumerate(key.workspaces):
        if name not in names:
            yield from _known(name, sorted(names), "workspace", (*at, "workspaces", index))
    for index, cidr in enumerate(key.allowed_cidrs):
        try:
            ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            where = (*at, "allowed_cidrs", index)
            yield Problem(where, "must be an address range such as 10.0.0.0/8")
    if key.expires_at is not None and not _is_time(key.expires_at):
        where = (*at, "expires_at")
        yield Problem(where, "must be a time with an offset such as 2030-01-01T00:00:00Z")
    if key.role is None and not key.scopes:
        yield Problem((*at, "role"), "a key needs a role or scopes")


def _is_time(value: str) -> bool:
    try:
        return dt.datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
