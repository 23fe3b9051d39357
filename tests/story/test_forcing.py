"""An operator forces an endpoint: told as a decision, shown, counted, taken back (failover.md §1).

Over real processes: the decision goes through the spool of the control process into the log.
"""

import asyncio
from pathlib import Path

import pytest

from tests.kit.processes import Parapet, endpoint, running, workspace

pytestmark = pytest.mark.process

W = "/v1/workspaces/default"
PATH = f"{W}/failover-policies/latency-failover"


async def conditions_of(parapet: Parapet, count: int) -> list[str]:
    """The trigger conditions of the policy's decisions, the newest first, once there are so
    many."""
    for _ in range(100):
        data = (await parapet.control("GET", f"{PATH}/decisions")).json["data"]
        if len(data) >= count:
            return [each["trigger_condition"] for each in data]
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {count} decisions were told")


async def test_what_an_operator_forces_is_told_and_taken_back(tmp_path: Path) -> None:
    config = workspace(
        [endpoint(name, "anthropic", "http://127.0.0.1:9") for name in ("claude", "spare")],
        [{"id": "prod-chat", "endpoint": "claude"}],
        failover_policies=[
            {
                "id": "latency-failover",
                "route_id": "prod-chat",
                "primary_endpoint": "claude",
                "fallback_endpoints": ["spare"],
                "conditions": {"latency_threshold_ms": 2000},
            }
        ],
    )
    async with running(config, tmp_path) as parapet:
        asked = {"endpoint": "spare", "ttl_seconds": 60, "reason": "maintenance"}
        forced = (await parapet.control("POST", f"{PATH}/force", asked)).json
        assert (forced["state"], forced["active_endpoint"]) == ("forced", "spare")
        assert await conditions_of(parapet, 1) == ["manual: maintenance"]
        dry = (await parapet.control("POST", f"{W}/explain", {"model": "claude-3"})).json
        assert (dry["answers"], dry["endpoints"][0]["reason"]) == ("spare", "forced")
        released = (await parapet.control("POST", f"{PATH}/release", {"reason": "done"})).json
        assert (released["state"], released["active_endpoint"]) == ("normal", "claude")
        assert await conditions_of(parapet, 2) == ["manual: done", "manual: maintenance"]
        text = (await parapet.control("GET", "/metrics")).body.decode()
        labels = 'workspace="default",policy="latency-failover"'
        counted = f'parapet_failover_decisions_total{{{labels},reason="manual",scope="endpoint"}} 2'
        assert counted in text
