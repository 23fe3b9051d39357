"""T-FO-71: each warning of the file and of the traffic, other odd things, what is not acted on."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.model.failover import Conditions, FailoverPolicy, Outcome
from proxy.routing.standing import Standing
from proxy.settings.later import not_acted_on
from proxy.settings.load import Loaded
from proxy.settings.problems import path_text
from proxy.settings.risks import observed_risks

Load = Callable[..., Loaded]

BASE = """\
workspaces:
  - id: default
    endpoints:
      - {id: a, provider: anthropic, api_key: key-of-a-0123}
      - {id: b, provider: bedrock, region: us-east-1, api_key: key-of-b-0123}
    routes:
      - {id: r, endpoint: a}
    failover_policies:
      - route_id: r
        primary_endpoint: a
        fallback_endpoints: [b]
        conditions: {latency_threshold_ms: 2000}
"""

# fmt: off
CHANGES: list[tuple[str, str, str]] = [
    # replaced                              by                                     warning
    ("conditions: {latency_threshold_ms: 2000}",
     "conditions: {latency_threshold_ms: 10000}",
     "conditions.latency_threshold_ms: 10000: first_content_ms (10000) expires"),
    ("conditions: {latency_threshold_ms: 2000}",
     "conditions: {latency_threshold_ms: 2000, latency_basis: total}",
     "sized for a first token, but judges whole answers"),
    ("        conditions:",
     "        request_failover: {max_attempts: 1}\n        conditions:",
     "request_failover.max_attempts: 1: no request is ever sent on"),
    ("        conditions:",
     "        request_failover: {total_deadline_ms: 10000}\n        conditions:",
     "request_failover.total_deadline_ms: 10000: first_content_ms (10000) never expires"),
    ("provider: bedrock, region: us-east-1, api_key: key-of-b-0123",
     "provider: openai, api_key: key-of-b-0123",
     "fallback_endpoints[0]: b cannot express anthropic_messages"),
    ("        conditions:",
     "        status: paused\n        conditions:",
     "status: paused: this policy does nothing"),
    (", api_key: key-of-b-0123}",
     "}",
     "fallback_endpoints[0]: b has no credential of its own"),
    ("provider: bedrock, region: us-east-1, api_key: key-of-b-0123",
     "provider: anthropic, api_key: key-of-b-0123",
     "fallback_endpoints[0]: b is on the same host as the primary"),
    ("{id: r, endpoint: a}",
     "{id: r, endpoint: b}",
     "primary_endpoint: a serves route r, not its endpoint b"),
    ("{id: r, endpoint: a}",
     "{id: r, endpoint: a, stream_recovery: resume}",
     "restart only: works when answers repeat exactly"),
    ("{id: r, endpoint: a}",
     "{id: r, endpoint: a, timeouts: {first_content_ms: 9000, total_ms: 9000}}",
     "timeouts.first_content_ms: never expires: total_ms comes first"),
    ("{id: r, endpoint: a}",
     "{id: r, endpoint: a, timeouts: {connect_ms: 10000}}",
     "timeouts.connect_ms: never expires: first_content_ms comes first"),
    ("{id: r, endpoint: a}",
     "{id: r, endpoint: a, match: MODELS}\n      - {id: s, endpoint: a, match: MODELS}",
     "routes[1].match.models[0]: never matches: route r has the same pattern first"),
    ("api_key: key-of-a-0123}",
     "api_key: key-of-a-0123, weight: 3}",
     "endpoints[0].weight: has no effect: no failover policy has it in its tiers"),
    ("api_key: key-of-a-0123}",
     "api_key: key-of-a-0123, base_url: 'http://a.example'}",
     "endpoints[0].base_url: is plain http: credentials travel unencrypted"),
    ("workspaces:",
     "server: {data_auth: keys}\nworkspaces:",
     "server.data_auth: keys: no key in this file may call a model"),
    ("  - id: default",
     "  - id: other",
     "server.data_auth: open: callers use workspace default, which has no routes"),
    ("    routes:",
     "    settings: {default_delivery_targets: [nobody]}\n    routes:",
     "settings.default_delivery_targets: no delivery target nobody"),
]
# fmt: on


def warnings(loaded: Loaded) -> list[str]:
    return [str(each) for each in loaded.warnings if "admin_key" not in str(each)]


def test_nothing_odd(load: Load) -> None:
    assert warnings(load(BASE)) == []


@pytest.mark.parametrize(("replaced", "by", "said"), CHANGES)
def test_t_fo_71_what_is_odd_is_said(load: Load, replaced: str, by: str, said: str) -> None:
    assert replaced in BASE
    by = by.replace("MODELS", "{models: [c*]}")
    found = warnings(load(BASE.replace(replaced, by, 1)))
    assert any(said in each for each in found), found


def test_a_fallback_on_the_primarys_provider_and_host_shares_the_callers_key(load: Load) -> None:
    text = BASE.replace("provider: bedrock, region: us-east-1, ", "provider: anthropic, ")
    text = text.replace(", api_key: key-of-a-0123", "").replace(", api_key: key-of-b-0123", "")
    assert not any("no credential" in each for each in warnings(load(text)))


# --- by the traffic that there is

SAID = {"latency_threshold_ms": 2000, "error_rate_threshold": 0.1}


def observed(seen: Callable[[Standing], None], **said: Any) -> list[tuple[str, str, str]]:
    policy = FailoverPolicy(
        route_id="r",
        primary_endpoint="a",
        fallback_endpoints=["b"],
        conditions=Conditions(**{**SAID, **said}),
    )
    standing = Standing(policy, lambda: 0.5)
    seen(standing)
    found = observed_risks(policy, standing, 1030.0, ())
    return [(path_text(each.path), each.code, each.message) for each in found]


def nothing(_: Standing) -> None:
    pass


def slow(standing: Standing) -> None:
    standing.breakers["b"].latencies.add(1000.0, 2.5)


def quick(standing: Standing) -> None:
    standing.breakers["a"].latencies.add(1000.0, 1.5)


def whole(standing: Standing) -> None:
    standing.breakers["a"].latencies.wholes += 1


def seldom(standing: Standing) -> None:
    for at in (1000.0, 1010.0, 1020.0):
        standing.observe("a", at, Outcome.SUCCESS, began=at)


def just_begun(standing: Standing) -> None:
    for at in (1024.0, 1026.0, 1029.0):
        standing.observe("a", at, Outcome.SUCCESS, began=at)


def often(standing: Standing) -> None:
    for at in range(1000, 1030):
        standing.observe("a", at, Outcome.SUCCESS, began=at)


def refused(standing: Standing) -> None:
    standing.prefill_off = {"a": 1029.0, "b": 1600.0}


REFUSED = "b has refused to go on with an answer: supports_prefill counts as false for 570 s"
# fmt: off
LATENCY, SAMPLES = "conditions.latency_threshold_ms", "conditions.min_samples"
OBSERVED: list[tuple[Callable[[Standing], None], dict[str, Any], list[tuple[str, str, str]]]] = [
    (nothing,    {}, []),
    (quick,      {}, []),
    (often,      {}, []),
    (just_begun, {}, []),
    (slow,       {}, [(LATENCY, "threshold_below_median",
                       "2000: below the median of b, 2430 ms: it is always slow")]),
    (slow,       {"latency_threshold_ms": None}, []),
    (whole,      {}, [(LATENCY, "threshold_for_first_token",
                       "2000: sized for a first token, but a gives whole answers, too")]),
    (whole,      {"latency_threshold_ms": 5000}, []),
    (seldom,     {}, [(SAMPLES, "too_few_requests",
                       "10: a gets 6 requests in 60 s, so ratios are never judged")]),
    (seldom,     {"min_samples": 5}, []),
    (refused,    {}, [("route_id", "prefill_refused",
                       REFUSED)]),
]
# fmt: on


@pytest.mark.parametrize(("seen", "said", "found"), OBSERVED)
def test_t_fo_71_what_traffic_shows(
    seen: Callable[[Standing], None], said: dict[str, Any], found: list[tuple[str, str, str]]
) -> None:
    assert observed(seen, **said) == found


# --- accepted, not acted on

# fmt: off
UNUSED: list[tuple[str, str, list[str]]] = [
    ("workspaces:", "store: redis://h:6379/0\nworkspaces:",     []),
    ("workspaces:", "smtp: {host: mail}\nworkspaces:",          ["smtp"]),
    ("workspaces:", "egress: {allow_http: true}\nworkspaces:",  ["egress"]),
    ("    routes:", "    alert_rules: [{name: n, condition: {metric: failover}}]\n    routes:",
     ["workspaces[0].alert_rules"]),
    ("    routes:", "    settings: {timezone: Europe/Berlin}\n    routes:", []),
    ("    routes:", "    settings: {incidents: {resolve_after_seconds: 60}}\n    routes:", []),
    ("    routes:", "    settings: {incidents: {min_confidence: 0.7}}\n    routes:",
     ["workspaces[0].settings"]),
    ("endpoint: a}", "endpoint: a, limits: {rpm: 5}}",          []),
    ("endpoint: a}", "endpoint: a, stream_recovery: buffer}",   []),
    ("endpoint: a}", "endpoint: a, translation: lenient}",      []),
    ("endpoint: a}", "endpoint: a, translation: strict}",
     ["workspaces[0].routes[0].translation"]),
    ("workspaces:", "retention: {events_days: 3, audit_days: 3}\nworkspaces:", []),
    ("    routes:", "      - {id: g, provider: gemini, max_context: 5}\n    routes:",
     ["workspaces[0].endpoints[2].provider"]),
    ("us-east-1, api_key: key-of-b-0123", "r, access_key_id: a, secret_access_key: b",
     ["workspaces[0].endpoints[1].access_key_id"]),
    ("        cond", "        sticky: {enabled: true}\n        tiers: [[a], [b]]\n        cond",
     []),
]
# fmt: on


@pytest.mark.parametrize(("replaced", "by", "paths"), UNUSED)
def test_what_is_not_acted_on_is_listed(
    load: Load, replaced: str, by: str, paths: list[str]
) -> None:
    config = load(BASE.replace(replaced, by, 1)).config
    listed = [str(each).partition(": ")[0] for each in not_acted_on(config)]
    assert listed == paths
