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


def spare_id(role: str, provider: str, lane: str) -> str:
    """The fallback of that role.  What is learnt of a `liar` holds for the endpoint, so every lane
    has its own."""
    return f"wall-liar-{lane}" if role == "liar" else endpoint_id(role, provider)


def policy_id(lane: str) -> str:
    return f"over-{lane}"


def settings(
    rows: Sequence[tuple[Row, Dialect]], profile: Profile, url: str, dozing_url: str
) -> dict[str, object]:
    """The whole document."""
    lanes = [(row, dialect, name) for row, dialect in rows for name in row.lanes]
    named = [row.lane(dialect, name) for row, dialect, name in lanes]
    liars = [
        (row.lane(dialect, name), dialect.fallback)
        for row, dialect, name in lanes
        if "liar" in row.spares
    ]
    routes = [{"id": ALIVE, "endpoint": endpoint_id("ok", "openai")}]
    whole = workspace(
        [
            *_endpoints(named, url, dozing_url),
            *(_endpoint("liar", provider, [lane], url, lane) for lane, provider in liars),
        ],
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
    for provider in HEALTHY:
        for role in ROLES.keys() - {"liar"}:
            base = f"http://127.0.0.1:{nobody}" if role in ("gone", "dead") else url
            found.append(_endpoint(role, provider, lanes, base))
    bedrock = dict.fromkeys(lanes, HEALTHY["bedrock"])
    return [
        *found,
        endpoint("anthropic-claude", "anthropic", f"{url}/wall-anthropic"),
        endpoint("bedrock-claude", "bedrock", f"{url}/wall-ok-bedrock", models=bedrock),
        endpoint("wall-dozing", "openai", f"{dozing_url}/v1"),
    ]


def _endpoint(
    role: str, provider: str, lanes: Sequence[str], url: str, lane: str = ""
) -> dict[str, object]:
    models = dict.fromkeys(lanes, HEALTHY[provider])
    if role == "wall":
        models = {lane: f"anthropic.{lane}" for lane in lanes if provider == "bedrock"}
    name = spare_id(role, provider, lane)
    more = {**ROLES[role], "models": models, "pricing": PRICE}
    return endpoint(name, provider, f"{url}/{name}{'/v1' * (provider == 'openai')}", **more)


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
        "fallback_endpoints": [spare_id(each, dialect.fallback, lane) for each in row.spares],
        "conditions": CONDITIONS,
        **row.policy,
    }
