"""What the file declares, for the control API (control-api.md §3)."""

from pathlib import Path

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
