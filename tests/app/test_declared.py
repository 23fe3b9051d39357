"""What the file declares, for the control API (control-api.md §3)."""

from pathlib import Path

import pytest

from proxy.app.declared import declared
from proxy.settings.load import Loaded
from proxy.settings.schema import Config

RULE = {"name": "High Latency", "condition": {"metric": "latency", "threshold_ms": 3000}}
SLACK = {"name": "Slack DevOps", "type": "slack", "config": {"webhook_url": {"$env": "SLACK"}}}
WATCHER = {
    "watcher_id": "prices",
    "provider": "p",
    "kind": "pricing",
    "source_url": "https://e.com",
}


def test_documents_of_the_file_by_workspace_and_kind() -> None:
    config = Config.model_validate(
        {
            "workspaces": [
                {"id": "empty"},
                {
                    "id": "default",
                    "keys": [{"id": "abcd", "secret_sha256": "0" * 64}],
                    "endpoints": [{"id": "e", "provider": "openai"}],
                    "routes": [{"id": "r", "endpoint": "e"}],
                    "alert_rules": [{**RULE, "id": "own"}, RULE],
                    "deliveries": [SLACK],
                    "watchers": [WATCHER],
                },
            ]
        }
    )
    at = "parapet.yaml#/workspaces/1"
    loaded = Loaded(config, Path("/etc/parapet.yaml"), (), "")
    key = {"key_id": "abcd", "name": "abcd", "role": "app", "workspaces": ["default"]}
    assert declared(loaded) == {
        ("_server", "workspace"): [
            ("parapet.yaml#/workspaces/0", {"id": "empty", "name": "empty"}),
            (at, {"id": "default", "name": "default"}),
        ],
        ("_server", "key"): [(f"{at}/keys/0", key)],
        ("default", "endpoint"): [(f"{at}/endpoints/0", {"id": "e", "provider": "openai"})],
        ("default", "route"): [(f"{at}/routes/0", {"id": "r", "endpoint": "e"})],
        ("default", "alert_rule"): [
            (f"{at}/alert_rules/0", {**RULE, "id": "own"}),
            (f"{at}/alert_rules/1", {**RULE, "id": "high-latency"}),
        ],
        ("default", "delivery"): [(f"{at}/deliveries/0", {**SLACK, "id": "slack-devops"})],
        ("default", "watcher"): [(f"{at}/watchers/0", WATCHER)],
    }


POLICY = {
    "route_id": "prod.chat",
    "primary_endpoint": "a",
    "fallback_endpoints": ["b"],
    "conditions": {"latency_threshold_ms": 1},
}


@pytest.mark.parametrize(
    ("said", "policy_id"),
    [
        ({"id": "own", "name": "Latency"}, "own"),
        ({"name": "Latency Failover"}, "latency-failover"),
        ({"name": "\u5019"}, "failover-prod-chat"),  # it gives no id
        ({}, "failover-prod-chat"),
    ],
)
def test_a_failover_policy_is_called_as_its_decisions_call_it(
    said: dict[str, str], policy_id: str
) -> None:
    workspace = {"id": "default", "failover_policies": [{**POLICY, **said}]}
    config = Config.model_validate({"workspaces": [workspace]})
    found = declared(Loaded(config, Path("/etc/parapet.yaml"), (), ""))
    ((_, shown),) = found["default", "failover_policy"]
    (policy,) = config.workspaces[0].failover_policies
    assert (shown["id"], policy.effective_id) == (policy_id, policy_id)


def test_a_file_without_workspaces_declares_none() -> None:
    """The default one can be changed over the API then."""
    loaded = Loaded(Config(), Path("/etc/parapet.yaml"), (), "")
    assert declared(loaded) == {}
