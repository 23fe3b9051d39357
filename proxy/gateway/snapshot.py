"""The rules of one snapshot, built: what a request looks at once and keeps to its last byte.

Built from a `SnapshotDoc` in a helper thread (packs are compiled and warmed there), swapped as one
reference.  Pools, breakers and counters live elsewhere and survive the swap.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from proxy.gateway.checks import Checks, build_checks
from proxy.guardrails.compile import PackError, compile_guard
from proxy.guardrails.engine import PARTS, Guard
from proxy.guardrails.memo import Memo
from proxy.model.documents import Secret
from proxy.model.failover import FailoverPolicy
from proxy.model.policy import PolicyPack
from proxy.model.ports import Upstream, Upstreams
from proxy.model.tenancy import (
    CREDENTIALS,
    ApiKey,
    Endpoint,
    GuardSettings,
    Limits,
    Route,
    SnapshotDoc,
    WorkspaceRules,
)
from proxy.routing.limits import has_any
from proxy.routing.match import RouteTable
from proxy.routing.standing import Standing
from proxy.wire.prices import PriceBook, parse_prices
from proxy.wire.providers.registry import Adapter, adapter_of

Resolve = Callable[[Secret | None], str | None]
SECRET_CHARS: Final = 8  # what is shorter stands for too much


class SnapshotError(ValueError):
    """A part of a snapshot that cannot be built; the message says which and why."""


@dataclass(slots=True)
class EndpointView:
    """One endpoint, ready: its adapter (URL, credential, framing) and its pool.

    `secrets`: what is sent there and must not come back to a caller."""

    doc: Endpoint
    id: str
    adapter: Adapter
    upstream: Upstream
    origin: tuple[str, str]  # provider and host: where a caller's own key may go
    own_credential: bool
    head_lines: bytes  # `x-parapet-endpoint`
    secrets: tuple[bytes, ...] = ()

    def masked(self, told: str) -> str:
        """Words of the provider without what was sent to it."""
        for secret in self.secrets:
            told = told.replace(secret.decode(), "***")
        return told


@dataclass(slots=True)
class RouteView:
    """One route, ready: endpoints in order, limits in seconds, the guard of its packs.

    `fault`: why it serves nobody; empty when it does.
    """

    doc: Route
    workspace_id: str
    order: tuple[EndpointView, ...]
    policy: FailoverPolicy | None
    guard: Guard | None
    asks: bool  # a rule looks at requests
    answers: bool  # a rule looks at answers
    stops_answers: bool  # and may change or block one
    checks: Checks | None  # what a service outside is asked
    head_lines: bytes  # `x-parapet-route`
    connect_s: float
    first_content_s: float
    idle_s: float
    total_s: float
    unary_s: float
    aliases: Mapping[str, str] = field(default_factory=dict)  # the primary's models
    fault: str = ""
    buffers: bool = False  # nothing of a stream leaves before it is whole
    standing: Standing | None = None  # how the endpoints of its policy stand in this worker
    limits: Limits | None = None  # None: it has none


@dataclass(slots=True)
class KeyView:
    """`home`: the only workspace that the key can mean, when there is only one."""

    doc: ApiKey
    workspaces: frozenset[str]
    anywhere: bool
    home: "WorkspaceView | None" = None
    limits: Limits | None = None


@dataclass(slots=True)
class WorkspaceView:
    id: str
    table: RouteTable
    routes: dict[str, RouteView]
    endpoints: dict[str, EndpointView]
    guarded: bool  # every route has packs: any body is read strictly, once

    def places(self) -> Iterator[Endpoint]:
        """Everything that is called: endpoints, and the addresses of checks outside."""
        for view in self.endpoints.values():
            yield view.doc
        for route in self.routes.values():
            if route.checks is not None:
                yield from route.checks.places


@dataclass(slots=True)
class Rules:
    """Everything a request may look at."""

    version: int
    doc: SnapshotDoc
    workspaces: dict[str, WorkspaceView]
    keys: dict[str, KeyView]
    prices: PriceBook
    known_models: frozenset[str]

    def __repr__(self) -> str:
        routes = sum(len(w.routes) for w in self.workspaces.values())
        return f"<Rules v{self.version} {routes} routes {len(self.keys)} keys>"


Names = tuple[str, tuple[str, ...]]  # a workspace and the packs of a route
Guards = dict[Names, Guard | str | None]  # a text is the reason why there is none


@dataclass(slots=True)
class Kept:
    """The guards of the snapshot before, each with what it was made of: what stays the same is not
    compiled again."""

    guards: dict[Names, tuple[list[PolicyPack], GuardSettings, Guard | str | None]] = field(
        default_factory=dict
    )
    memo: Memo = field(default_factory=Memo)

    def __repr__(self) -> str:
        return f"<Kept {len(self.guards)} guards>"


def build_guards(doc: SnapshotDoc, kept: Kept | None = None, *, warm: bool = True) -> Guards:
    """Compile and warm the packs of every route: the long part, run beside the loop.

    `kept` is looked at, and holds afterwards what this snapshot is made of.  `warm` False: the
    first texts that come make the states of the automata."""
    guards: Guards = {}
    memo = kept.memo if kept is not None else None
    before = kept.guards if kept is not None else {}
    now: dict[Names, tuple[list[PolicyPack], GuardSettings, Guard | str | None]] = {}
    for rules in doc.workspaces:
        packs = {(pack.policy_pack_id, pack.version): pack for pack in rules.policies}
        newest = {pack.policy_pack_id: pack for pack in rules.policies}
        for route in rules.routes:
            names = (rules.id, tuple(route.policy_packs))
            if names in guards or route.id in rules.unusable:
                continue
            try:
                chosen = _chosen(names[1], packs, newest)
                known = before.get(names)
                if known is not None and known[:2] == (chosen, doc.guard):
                    now[names] = known
                else:
                    now[names] = chosen, doc.guard, _guard(chosen, doc.guard, memo, warm)
                guards[names] = now[names][2]
            except (PackError, SnapshotError) as fault:
                guards[names] = f"its packs cannot be used: {fault}"
    if kept is not None:
        kept.guards = now
    return guards


def build_rules(doc: SnapshotDoc, guards: Guards, upstreams: Upstreams, resolve: Resolve) -> Rules:
    """Build everything else.  What cannot be built makes its routes unusable, and no others."""
    workspaces, models = {}, set[str]()
    for rules in doc.workspaces:
        workspaces[rules.id] = _workspace(rules, guards, upstreams, resolve)
        for endpoint in rules.endpoints:
            models |= {*endpoint.models, *endpoint.models.values()}
        for route in rules.routes:
            models |= {name for name in route.match.models if "*" not in name}
    prices = parse_prices(doc.prices, doc.price_version)
    known = frozenset(models) | prices.known_models()
    return Rules(doc.version, doc, workspaces, _keys(doc, workspaces), prices, known)


def with_keys(rules: Rules, doc: SnapshotDoc) -> Rules:
    """The same rules for the keys of another snapshot: nothing is compiled for them."""
    return replace(rules, keys=_keys(doc, rules.workspaces))


def _keys(doc: SnapshotDoc, workspaces: dict[str, WorkspaceView]) -> dict[str, KeyView]:
    keys = {}
    for rules in doc.workspaces:
        for key in rules.keys:
            named = frozenset(key.workspaces or [rules.id])
            keys[key.id] = KeyView(key, named, "*" in named, None, _limits(key.limits))
    for view in keys.values():
        bound = set(workspaces) if view.anywhere else workspaces.keys() & view.workspaces
        view.home = workspaces[next(iter(bound))] if len(bound) == 1 else None
    return keys


def _limits(limits: Limits) -> Limits | None:
    return limits if has_any(limits) else None


def _secrets(endpoint: Endpoint, resolve: Resolve) -> tuple[bytes, ...]:
    """The longest first, so that none hides the end of another."""
    values = [resolve(getattr(endpoint, name)) for name in CREDENTIALS]
    values += endpoint.extra_headers.values()
    found = {value.encode() for value in values if value and len(value) >= SECRET_CHARS}
    return tuple(sorted(found, key=len, reverse=True))


def _endpoint(
    endpoint: Endpoint, workspace_id: str, upstreams: Upstreams, resolve: Resolve
) -> EndpointView:
    """Raises ValueError: a secret or an address that cannot be used."""
    adapter = adapter_of(endpoint, resolve)
    host = urlsplit(endpoint.url).netloc
    return EndpointView(
        endpoint,
        endpoint.id,
        adapter,
        upstreams.of(workspace_id, endpoint),
        (endpoint.provider, host),
        adapter.has_credential,
        b"x-parapet-endpoint: " + endpoint.id.encode("ascii") + b"\r\n",
        _secrets(endpoint, resolve),
    )


def _workspace(
    rules: WorkspaceRules, guards: Guards, upstreams: Upstreams, resolve: Resolve
) -> WorkspaceView:
    endpoints = {}
    for endpoint in rules.endpoints:
        try:
            endpoints[endpoint.id] = _endpoint(endpoint, rules.id, upstreams, resolve)
        except ValueError:
            continue  # one tenant's mistake holds up nobody: the routes that need it say so
    policies = {p.route_id: p for p in rules.failover_policies if p.status == "active"}
    routes = {}
    for route in rules.routes:
        fault, guard = rules.unusable.get(route.id, ""), None
        if not fault:
            found = guards[rules.id, tuple(route.policy_packs)]
            fault, guard = (found, None) if isinstance(found, str) else ("", found)
        checks = None
        if guard is not None:
            fault = _misses(guard, rules) or _clashes(guard, route)
            try:
                checks = build_checks(guard, rules.id, endpoints, upstreams, resolve)
            except ValueError as why:
                fault = fault or f"its packs cannot be used: {why}"
        view = _route(route, rules.id, endpoints, policies.get(route.id), guard, fault)
        view.checks = checks
        routes[route.id] = view
    table = RouteTable(rules.routes, rules.default_route)
    guarded = bool(routes) and all(view.guard is not None or view.fault for view in routes.values())
    return WorkspaceView(rules.id, table, routes, endpoints, guarded)


def _misses(guard: Guard, rules: WorkspaceRules) -> str:
    """Why the workspace lacks what a rule of the guard needs; empty when it has it."""
    missing = guard.reroutes - {endpoint.id for endpoint in rules.endpoints}
    return f"its packs reroute to endpoint {min(missing)}, which is not there" if missing else ""


def _clashes(guard: Guard, route: Route) -> str:
    """Why the route cannot have such a guard (guardrails.md §3.2); empty when it can."""
    if guard.holds_answers and route.stream_recovery == "resume":
        return "its packs judge whole answers: stream_recovery must be buffer or off"
    return ""


def _chosen(
    names: tuple[str, ...],
    packs: Mapping[tuple[str, str], PolicyPack],
    newest: Mapping[str, PolicyPack],
) -> list[PolicyPack]:
    """Raises SnapshotError."""
    chosen = []
    for name in names:
        pack_id, _, version = name.partition("@")
        pack = packs.get((pack_id, version)) if version else newest.get(pack_id)
        if pack is None:
            raise SnapshotError(f"policy pack {name} is not in the snapshot")
        chosen.append(pack)
    return chosen


def _guard(
    chosen: list[PolicyPack], settings: GuardSettings, memo: Memo | None, warm: bool
) -> Guard | None:
    """Raises PackError."""
    if not chosen:
        return None
    guard = compile_guard(chosen, settings, memo=memo)
    if warm:
        guard.warm()
    return guard


def _route(
    route: Route,
    workspace_id: str,
    endpoints: Mapping[str, EndpointView],
    policy: FailoverPolicy | None,
    guard: Guard | None,
    fault: str,
) -> RouteView:
    if policy is not None:
        wanted = [policy.primary_endpoint, *policy.fallback_endpoints]
    else:
        wanted = [route.endpoint]
    order = tuple(endpoints[name] for name in wanted if name in endpoints)
    if not order and not fault:
        fault = f"endpoint {wanted[0]} cannot be used"
    limits = route.timeouts
    total_ms = limits.total_ms
    if policy is not None and policy.request_failover.total_deadline_ms:
        total_ms = policy.request_failover.total_deadline_ms
    return RouteView(
        doc=route,
        workspace_id=workspace_id,
        order=order,
        policy=policy,
        guard=guard,
        asks=guard is not None and guard.covers("request"),
        answers=guard is not None and guard.covers("response"),
        stops_answers=guard is not None
        and (guard.holds_answers or any(guard.enforces("response", part) for part in PARTS)),
        checks=None,
        head_lines=b"x-parapet-route: " + route.id.encode("ascii") + b"\r\n",
        connect_s=limits.connect_ms / 1000,
        first_content_s=limits.first_content_ms / 1000,
        idle_s=limits.idle_ms / 1000,
        total_s=total_ms / 1000,
        unary_s=limits.unary_ms / 1000,
        aliases=order[0].doc.models if order else {},
        fault=fault,
        buffers=route.stream_recovery == "buffer",
        limits=_limits(route.limits),
    )
