"""What changes about endpoints is told once, and decisions are counted."""

from pathlib import Path

from proxy.app.telling import Telling
from proxy.model.failover import Conditions, FailoverPolicy
from proxy.routing.effects import Switched
from proxy.routing.standing import Standing
from proxy.routing.states import Reason
from proxy.telemetry.exposition import Registry
from tests.kit.fakes import CountingIds


def test_decisions_of_all_traffic_are_counted(tmp_path: Path) -> None:
    policy = FailoverPolicy(
        id="p",
        route_id="chat",
        primary_endpoint="a",
        fallback_endpoints=["b"],
        conditions=Conditions(error_rate_threshold=0.1),
    )
    metrics = Registry("0.1.0")
    telling = Telling(tmp_path, CountingIds(), metrics)
    standing = Standing(policy, lambda: 0.5)
    for after in ("b", "b", None):
        telling.tell(standing, Switched("a", after, Reason("latency")), 0)
    telling.close()
    text = metrics.render().decode()
    for code, count in (("latency", 2), ("exhausted", 1)):
        labels = f'workspace="default",policy="p",reason="{code}",scope="endpoint"'
        assert f"parapet_failover_decisions_total{{{labels}}} {count}\n" in text
