"""The report of `parapet check`: what a configuration does, as values.

`report.py` makes text of it; `as_json` makes the document for machines.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from proxy.model.documents import EnvRef, FileRef, Secret
from proxy.model.exchange import Json
from proxy.model.failover import FailoverPolicy
from proxy.model.tenancy import Endpoint, Route
from proxy.settings.coverage import RouteCoverage, cover, route_doc
from proxy.settings.later import not_acted_on
from proxy.settings.load import Loaded
from proxy.settings.packs import PackSource
from proxy.settings.problems import Problem, path_text
from proxy.settings.schema import Workspace
from proxy.wire import jsonbody

Credential = Literal["own", "unset", "caller"]


@dataclass(slots=True)
class EndpointReport:
    """`credential`: its own, its own but unset (the caller's goes through), the caller's."""

    id: str
    provider: str
    url: str
    credential: Credential
    source: str
    used_by: list[str]


@dataclass(slots=True)
class FailoverReport:
    id: str | None
    status: str
    order: list[str]
    conditions: list[str]
    max_attempts: int


@dataclass(slots=True)
class RouteReport:
    id: str
    models: list[str]
    endpoint: str
    failover: FailoverReport | None
    packs: list[str]
    coverage: RouteCoverage | None
    told: dict[str, Json]


@dataclass(slots=True)
class WorkspaceReport:
    id: str
    default_route: str | None
    endpoints: list[EndpointReport]
    routes: list[RouteReport]
    keys: int


@dataclass(slots=True)
class Report:
    """A valid configuration, seen from outside."""

    file: str
    listen: str
    control_listen: str
    data_auth: str
    workers: int | str
    state_dir: str
    admin_key: str
    workspaces: list[WorkspaceReport]
    warnings: list[Problem] = field(default_factory=list)
    not_acted_on: list[Problem] = field(default_factory=list)

    @property
    def holes(self) -> list[str]:
        """Parts of guarded routes that nothing looks at and no setting names."""
        return [
            f"route {route.id}: {part.direction} {part.part}: {part.reason}"
            for workspace in self.workspaces
            for route in workspace.routes
            if route.coverage is not None
            for part in route.coverage.holes
        ]


def report_on(loaded: Loaded) -> Report:
    """What this configuration does."""
    config = loaded.config
    server = config.server
    return Report(
        file=str(loaded.path),
        listen=server.listen,
        control_listen=server.control_listen,
        data_auth=server.data_auth,
        workers=server.workers,
        state_dir=server.state_dir,
        admin_key="configured" if loaded.admin_key else "admin.key in state_dir",
        workspaces=[_workspace(each, loaded) for each in config.workspaces],
        warnings=list(loaded.warnings),
        not_acted_on=not_acted_on(config),
    )


def as_json(report: Report) -> bytes:
    document = asdict(report)
    document["valid"] = True
    document["problems"] = []
    document["warnings"] = [problem_json(each) for each in report.warnings]
    document["not_acted_on"] = [problem_json(each) for each in report.not_acted_on]
    document["holes"] = report.holes
    document["coverage"] = coverage_json(report)
    for workspace in document["workspaces"]:
        for route in workspace["routes"]:
            del route["coverage"], route["told"]
    return jsonbody.dumps(document)


def coverage_json(report: Report) -> list[Json]:
    """By workspace, what `GET …/policies/coverage` answers."""
    return [
        {"workspace_id": workspace.id, "routes": [route.told for route in workspace.routes]}
        for workspace in report.workspaces
    ]


def problems_as_json(file: str, problems: Sequence[Problem]) -> bytes:
    found = [problem_json(each) for each in problems]
    return jsonbody.dumps({"file": file, "valid": False, "problems": found})


def problem_json(problem: Problem) -> dict[str, Json]:
    return {
        "file": problem.file,
        "line": problem.line,
        "path": path_text(problem.path),
        "message": problem.message,
    }


def _workspace(workspace: Workspace, loaded: Loaded) -> WorkspaceReport:
    packs = loaded.packs.get(workspace.id, {})
    policies = {
        policy.route_id: policy
        for policy in reversed(workspace.failover_policies)
        if policy.status == "active"
    }
    return WorkspaceReport(
        id=workspace.id,
        default_route=workspace.default_route,
        endpoints=[
            _endpoint(endpoint, policies.values(), workspace.routes, loaded)
            for endpoint in workspace.endpoints
        ],
        routes=[_route(route, policies.get(route.id), packs) for route in workspace.routes],
        keys=len(workspace.keys),
    )


def _endpoint(
    endpoint: Endpoint, policies: Iterable[FailoverPolicy], routes: Iterable[Route], loaded: Loaded
) -> EndpointReport:
    used = [f"route {route.id}" for route in routes if route.endpoint == endpoint.id]
    for policy in policies:
        if endpoint.id in policy.fallback_endpoints:
            used.append(f"fallback of {policy.route_id}")
        elif endpoint.id == policy.primary_endpoint and f"route {policy.route_id}" not in used:
            used.append(f"primary of {policy.route_id}")
    credential, source = _credential(endpoint, loaded)
    return EndpointReport(
        endpoint.id, endpoint.provider, endpoint.url, credential, source, used or ["nothing"]
    )


def _credential(endpoint: Endpoint, loaded: Loaded) -> tuple[Credential, str]:
    for secret in (endpoint.api_key, endpoint.access_key_id, endpoint.access_token):
        if secret is not None:
            there = loaded.reader.optional(secret) is not None
            return "own" if there else "unset", _source(secret)
    return "caller", ""


def _source(secret: Secret) -> str:
    match secret:
        case EnvRef(env=name):
            return f"${name}"
        case FileRef(file=name):
            return f"file {name}"
        case str():
            return "in the file"


def _route(
    route: Route, policy: FailoverPolicy | None, packs: Mapping[str, PackSource]
) -> RouteReport:
    named = [packs[reference.partition("@")[0]].effective for reference in route.policy_packs]
    labels = [
        f"{pack.policy_pack_id}@{pack.version}"
        + ("" if pack.enabled else " (disabled)")
        + (" (shadow)" if pack.mode == "shadow" else "")
        for pack in named
    ]
    return RouteReport(
        id=route.id,
        models=list(route.match.models),
        endpoint=route.endpoint,
        failover=None if policy is None else _failover(policy),
        packs=labels,
        coverage=cover(named) if named else None,
        told=route_doc(route.id, named, None),
    )


def _failover(policy: FailoverPolicy) -> FailoverReport:
    conditions = []
    if policy.conditions.latency_threshold_ms is not None:
        conditions.append(f"latency > {policy.conditions.latency_threshold_ms}ms")
    if policy.conditions.error_rate_threshold is not None:
        conditions.append(f"error_rate > {policy.conditions.error_rate_threshold:g}")
    return FailoverReport(
        id=policy.id,
        status=policy.status,
        order=[policy.primary_endpoint, *policy.fallback_endpoints],
        conditions=conditions,
        max_attempts=policy.max_attempts,
    )
