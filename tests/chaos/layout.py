"""The configuration under which rows are played (failover.md §12): endpoints that declare different
things, and for every lane one route and one policy, so that no state of a breaker leaks."""

from collections.abc import Mapping, Sequence
from typing import get_args

from proxy.model.tenancy import Route
from tests.chaos.dialects import HEALTHY, Dialect
from tests.chaos.profile import Profile
from tests.chaos.rows import Row
from tests.chaos.words import HOLDING
from tests.kit.processes import endpoint, free_ports, workspace

PRICE = {"input_per_mtok": "10", "output_per_mtok": "30"}
ROLES: Mapping[str, Mapping[str, object]] = {
    "wall": {"max_context": 8192},
    "ok": {"supports_prefill": True, "max_context": 1_000_000},
    "noprefill": {"max_context": 8192},
    "liar": {"supports_prefill": True, "max_context": 8192},
    "gone": {},
    "dead": {},
    "third": {},
}
"""What the endpoints declare.  `liar` says that it continues answers, and refuses to; `gone` and
`dead` are a port where nobody listens; of `dead` it is known after a while."""
CONDITIONS = {"latency_threshold_ms": 2000, "error_rate_threshold": 0.1}
ALIVE = "alive"
RECOVERY = get_args(Route.model_fields["stream_recovery"].annotation)


def endpoint_id(role: str, provider: str) -> str:
    """`wall`, `wall-ok`, `wall-ok-bedrock`."""
    parts = ("wall", role if role != "wall" else "", provider if provider != "openai" else "")
    return "-".join(part for part in parts if part)


def policy_id(lane: str) -> str:
    return f"over-{lane}"


def settings(
    rows: Sequence[tuple[Row, Dialect]], profile: Profile, url: str, dozing_url: str
) -> dict[str, object]:
    """The whole document."""
    lanes = [(row, dialect, name) for row, dialect in rows for name in row.lanes]
    named = [row.lane(dialect, name) for row, dialect, name in lanes]
    routes = [{"id": ALIVE, "endpoint": endpoint_id("ok", "openai")}]
    whole = workspace(
        _endpoints(named, url, dozing_url),
        [*routes, *(_route(row, dialect, name, profile) for row, dialect, name in lanes)],
        *(_policy(row, dialect, row.lane(dialect, name)) for row, dialect, name in lanes),
        policies=[HOLDING],
    )
    limits = {"control_read": 1_000_000, "control_write": 1_000_000}
    return {**whole, "control": {"rate_limits": limits}}


def _endpoints(lanes: Sequence[str], url: str, dozing_url: str) -> list[dict[str, object]]:
    """At the primaries each lane has a model of its own, so that holds do not leak either."""
    (nobody,) = free_ports(1)
    found = []
    for provider, healthy in HEALTHY.items():
        for role, declared in ROLES.items():
            name = endpoint_id(role, provider)
            base = f"http://127.0.0.1:{nobody}" if role in ("gone", "dead") else f"{url}/{name}"
            models = dict.fromkeys(lanes, healthy)
            if role == "wall":
                models = {lane: f"anthropic.{lane}" for lane in lanes if provider == "bedrock"}
            more = {**declared, "models": models, "pricing": PRICE}
            tail = "/v1" if provider == "openai" else ""
            found.append(endpoint(name, provider, base + tail, **more))
    bedrock = dict.fromkeys(lanes, HEALTHY["bedrock"])
    return [
        *found,
        endpoint("anthropic-claude", "anthropic", f"{url}/wall-anthropic"),
        endpoint("bedrock-claude", "bedrock", f"{url}/wall-ok-bedrock", models=bedrock),
        endpoint("wall-dozing", "openai", f"{dozing_url}/v1"),
    ]


def _route(row: Row, dialect: Dialect, name: str, profile: Profile) -> dict[str, object]:
    """A lane that is named after a manner of recovery recovers so."""
    own = row.route.get("timeouts")
    timeouts = {**profile.timeouts, **(own if isinstance(own, Mapping) else {})}
    route = {
        "id": row.lane(dialect, name),
        "endpoint": endpoint_id("wall", dialect.primary),
        **row.route,
        "timeouts": timeouts,
    }
    return route | ({"stream_recovery": name} if name in RECOVERY else {})


def _policy(row: Row, dialect: Dialect, lane: str) -> dict[str, object]:
    return {
        "id": policy_id(lane),
        "route_id": lane,
        "primary_endpoint": endpoint_id("wall", dialect.primary),
        "fallback_endpoints": [endpoint_id(each, dialect.fallback) for each in row.spares],
        "conditions": CONDITIONS,
        **row.policy,
    }
