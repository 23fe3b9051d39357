"""What is legal and probably not meant: warnings of `parapet check` and of a start.

The list is failover.md §14 and a few of the same sort.  What the file alone cannot show is told by
the control API, by the traffic that it sees (`observed_risks`).
"""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from proxy.model.documents import slug
from proxy.model.failover import FailoverPolicy
from proxy.model.tenancy import Endpoint, Route
from proxy.routing.standing import Standing
from proxy.settings.crosscheck import is_private
from proxy.settings.problems import Path, Problem
from proxy.settings.schema import Config, Workspace
from proxy.wire.providers.rehearsal import host, speaks_of

TTFT_SIZED_MS = 5000


def risks(config: Config) -> Iterator[Problem]:
    """Every warning of the file."""
    for index, workspace in enumerate(config.workspaces):
        at: Path = ("workspaces", index)
        endpoints = {endpoint.id: endpoint for endpoint in workspace.endpoints}
        routes = {route.id: route for route in workspace.routes}
        for number, endpoint in enumerate(workspace.endpoints):
            yield from _endpoint(endpoint, workspace, (*at, "endpoints", number))
        for number, route in enumerate(workspace.routes):
            yield from route_risks(route, (*at, "routes", number))
        yield from _globs(workspace, at)
        for number, policy in enumerate(workspace.failover_policies):
            path = (*at, "failover_policies", number)
            yield from policy_risks(policy, routes[policy.route_id], endpoints, path)
        yield from _targets(workspace, at)
    yield from _open(config)


def _open(config: Config) -> Iterator[Problem]:
    at: Path = ("server", "data_auth")
    if config.server.data_auth == "open":
        routes = [each for each in config.workspaces if each.id == "default" and each.routes]
        if not routes and any(each.routes for each in config.workspaces):
            yield Problem(at, "open: callers use workspace default, which has no routes")
    elif not any(
        key.role in ("app", "admin") or "proxy:invoke" in key.scopes
        for each in config.workspaces
        for key in each.keys
    ):
        yield Problem(at, "keys: no key in this file may call a model; see parapet keys create")


def _endpoint(endpoint: Endpoint, workspace: Workspace, at: Path) -> Iterator[Problem]:
    tiered = {
        name
        for policy in workspace.failover_policies
        for tier in policy.tiers or []
        for name in tier
    }
    if endpoint.weight != 1 and endpoint.id not in tiered:
        yield Problem((*at, "weight"), "has no effect: no failover policy has it in its tiers")
    parts = urlsplit(endpoint.url)
    if parts.scheme == "http" and not is_private(parts.hostname or "") and "." in parts.netloc:
        yield Problem((*at, "base_url"), "is plain http: credentials travel unencrypted")


def route_risks(route: Route, at: Path) -> Iterator[Problem]:
    """Limits that never expire."""
    limits, code = route.timeouts, "limit_never_reached"
    path = (*at, "timeouts")
    if limits.first_content_ms >= limits.total_ms:
        said = "never expires: total_ms comes first"
        yield Problem((*path, "first_content_ms"), said, code=code)
    if limits.connect_ms >= limits.first_content_ms:
        said = "never expires: first_content_ms comes first"
        yield Problem((*path, "connect_ms"), said, code=code)


def _globs(workspace: Workspace, at: Path) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for number, route in enumerate(workspace.routes):
        for index, glob in enumerate(route.match.models):
            if glob in seen and seen[glob] != route.id:
                path = (*at, "routes", number, "match", "models", index)
                yield Problem(path, f"never matches: route {seen[glob]} has the same pattern first")
            seen.setdefault(glob, route.id)


def policy_risks(
    policy: FailoverPolicy, route: Route, endpoints: Mapping[str, Endpoint], at: Path
) -> Iterator[Problem]:
    """What is probably not meant in a policy whose endpoints are all known."""
    if policy.status == "paused":
        yield _risk((*at, "status"), "paused", "paused: this policy does nothing")
        return
    primary = endpoints[policy.primary_endpoint]
    fallbacks = [endpoints[name] for name in policy.fallback_endpoints]
    if policy.primary_endpoint != route.endpoint:
        said = f"{policy.primary_endpoint} serves route {route.id}, not its endpoint"
        path = (*at, "primary_endpoint")
        yield _risk(path, "primary_differs_from_route", f"{said} {route.endpoint}")
    yield from _thresholds(policy, route, at)
    if policy.request_failover.max_attempts == 1:
        path = (*at, "request_failover", "max_attempts")
        yield _risk(path, "single_attempt", "1: no request is ever sent on")
    for index, fallback in enumerate(fallbacks):
        yield from _fallback(fallback, primary, (*at, "fallback_endpoints", index))
    prefill = any(each.supports_prefill for each in [primary, *fallbacks])
    asked = "stream_recovery" in route.model_fields_set and route.stream_recovery == "resume"
    if asked and not prefill:
        said = "no endpoint has supports_prefill"
        message = f"resume: {said}; restart only: works when answers repeat exactly"
        yield _risk((*at, "route_id"), "restart_only", f"route {route.id}: {message}")


def _risk(at: Path, code: str, message: str) -> Problem:
    return Problem(at, message, code=code)


def _fallback(fallback: Endpoint, primary: Endpoint, at: Path) -> Iterator[Problem]:
    if host(fallback) == host(primary):
        yield _risk(at, "same_host", f"{fallback.id} is on the same host as the primary")
    if not has_credential(fallback) and not shares_credential(primary, fallback):
        yield _risk(
            at,
            "no_credential",
            f"{fallback.id} has no credential of its own, and the caller's goes only to the "
            "primary's provider and host: it will be skipped",
        )
        return
    why = speaks_of(fallback, primary)
    if why:
        said = f"{fallback.id} {why}, which is how the primary is asked: it will be skipped"
        yield _risk(at, "cannot_express", said)


def _thresholds(policy: FailoverPolicy, route: Route, at: Path) -> Iterator[Problem]:
    limits, deadline_ms = route.timeouts, policy.request_failover.total_deadline_ms
    first_ms = limits.first_content_ms
    if deadline_ms is not None and first_ms >= deadline_ms:
        path = (*at, "request_failover", "total_deadline_ms")
        said = f"{deadline_ms}: first_content_ms ({first_ms}) never expires, and nobody is sent on"
        yield _risk(path, "deadline_too_short", said)
    threshold = policy.conditions.latency_threshold_ms
    if threshold is None:
        return
    path = (*at, "conditions", "latency_threshold_ms")
    if threshold >= first_ms:
        said = f"{threshold}: first_content_ms ({first_ms}) expires first"
        yield _risk(path, "threshold_never_reached", said)
    if policy.conditions.latency_basis == "total" and threshold < TTFT_SIZED_MS:
        said = f"{threshold}: sized for a first token, but judges whole answers"
        yield _risk(path, "threshold_for_first_token", said)


def observed_risks(
    policy: FailoverPolicy, standing: Standing, now: float, at: Path
) -> Iterator[Problem]:
    """What is probably not meant, seen by the traffic that there is."""
    if policy.status == "paused":
        return
    said = policy.conditions
    threshold, path = said.latency_threshold_ms, (*at, "conditions", "latency_threshold_ms")
    for name in standing.order if threshold is not None else ():
        latencies = standing.breakers[name].latencies
        median_ms = latencies.median_ms(now)
        if median_ms is not None and median_ms > (threshold or 0):
            seen = f"{threshold}: below the median of {name}, {median_ms:g} ms: it is always slow"
            yield _risk(path, "threshold_below_median", seen)
        if (
            latencies.wholes
            and said.latency_basis == "auto"
            and (threshold or 0) < TTFT_SIZED_MS
        ):  # fmt: skip
            seen = f"{threshold}: sized for a first token, but {name} gives whole answers, too"
            yield _risk(path, "threshold_for_first_token", seen)
    for name, until in standing.prefill_off.items():
        if until > now:
            seen = f"{name} has refused to go on with an answer: supports_prefill counts as false"
            yield _risk((*at, "route_id"), "prefill_refused", f"{seen} for {until - now:.0f} s")
    if standing.active is not None:
        expected = standing.breakers[standing.active].window.expected(now)
        if expected is not None and expected < said.min_samples:
            seen = (
                f"{said.min_samples}: {standing.active} gets {expected:.0f} requests in "
                f"{said.window_seconds} s, so ratios are never judged"
            )
            yield _risk((*at, "conditions", "min_samples"), "too_few_requests", seen)


def _targets(workspace: Workspace, at: Path) -> Iterator[Problem]:
    known = {target.id or slug(target.name) for target in workspace.deliveries}
    settings = workspace.settings
    named: list[tuple[Path, list[str]]] = [
        (("settings", "default_delivery_targets"), settings.default_delivery_targets),
        (("settings", "digest", "targets"), settings.digest.targets),
    ]
    for index, rule in enumerate(workspace.alert_rules):
        named.append((("alert_rules", index, "delivery_targets"), rule.delivery_targets))
    for path, names in named:
        for name in names:
            if name not in known:
                yield Problem((*at, *path), f"no delivery target {name}")


def has_credential(endpoint: Endpoint) -> bool:
    """A credential of its own is configured; an unset variable shows only when it is resolved."""
    named = (endpoint.api_key, endpoint.access_key_id, endpoint.access_token)
    return any(each is not None for each in named)


def shares_credential(primary: Endpoint, fallback: Endpoint) -> bool:
    """The caller's own key goes on to the primary's provider and host only (wire.md §2.3)."""
    if fallback.provider == "openai-compatible":
        return True  # called without any
    return fallback.provider == primary.provider and host(fallback) == host(primary)
