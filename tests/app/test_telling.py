"""What changes about endpoints is told once, and decisions are counted."""

import asyncio
from pathlib import Path
from typing import Any

from proxy.app.telling import Telling
from proxy.model.batch import LogFilter
from proxy.model.failover import Conditions, FailoverPolicy
from proxy.routing.effects import Recovered, StateChanged, Switched
from proxy.routing.standing import Standing
from proxy.routing.states import Change, Reason, State
from proxy.spool.reader import SpoolReader
from proxy.telemetry.exposition import Registry
from proxy.wire import jsonbody
from proxy.workers.spooler import Spooler
from tests.kit.fakes import CountingIds
from tests.kit.store import HandClock, MemoryStore, PlainIntake

POLICY = FailoverPolicy(
    id="p",
    route_id="chat",
    primary_endpoint="a",
    fallback_endpoints=["b"],
    conditions=Conditions(error_rate_threshold=0.1),
)


def test_decisions_of_all_traffic_are_counted(tmp_path: Path) -> None:
    metrics = Registry("0.1.0")
    telling = Telling(tmp_path, CountingIds(), metrics)
    standing = Standing(POLICY, lambda: 0.5)
    for after in ("b", "b", None):
        telling.tell(standing, Switched("a", after, Reason("latency")), 0)
    telling.close()
    text = metrics.render().decode()
    for code, count in (("latency", 2), ("exhausted", 1)):
        labels = f'workspace="default",policy="p",reason="{code}",scope="endpoint"'
        assert f"parapet_failover_decisions_total{{{labels}}} {count}\n" in text


def tell_a_trip_and_its_end(state_dir: Path) -> None:
    telling = Telling(state_dir, CountingIds(), Registry("0.1.0"))
    standing = Standing(POLICY, lambda: 0.5)
    standing.breakers["a"].version = 7
    for effect in (
        StateChanged("a", Change(State.CLOSED, State.OPEN, Reason("latency"))),
        Switched("a", "b", Reason("latency")),
        Recovered("b", "a", 5.0, 3),
    ):
        telling.tell(standing, effect, 0)
    telling.close()


async def test_every_change_says_which_node_tells_it_and_of_which_state(tmp_path: Path) -> None:
    """Two nodes that hear nothing of each other each tell theirs (failover.md §11, §14)."""
    await asyncio.to_thread(tell_a_trip_and_its_end, tmp_path)
    store, clock = MemoryStore(HandClock()), HandClock()
    spooler = Spooler(SpoolReader(tmp_path), store, PlainIntake(store), clock, node="node-1")
    await spooler.drain()
    page = await store.range("default", "events", LogFilter(limit=10, newest_first=False))
    told: list[Any] = [jsonbody.loads(each.body) for each in page.entries]
    payloads = [each["payload"] for each in told]
    assert [each["node_id"] for each in payloads] == ["node-1"] * 3
    assert payloads[0]["version"] == payloads[1]["state_version"] == 7
