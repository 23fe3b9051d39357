"""Incidents that endpoints raise: out of the log, each event once (events.md §7.1, §8)."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from proxy.app.raising import PAGE, Raising, is_well
from proxy.app.standings import NodeStandings
from proxy.control.intake import EventIntake
from proxy.incidents.incident import Incident
from proxy.model.batch import LogFilter, StoreConflict
from proxy.model.events import NewEvent, iso
from proxy.model.failover import Outcome
from proxy.model.tenancy import SnapshotDoc, WorkspaceRules
from proxy.settings.notices import IncidentSettings
from proxy.storage.incidents import find
from proxy.telemetry.exposition import Registry
from proxy.wire import jsonbody
from tests.kit.builders import policy
from tests.kit.fakes import CountingIds, FakeClock
from tests.kit.store import MemoryStore

W, POLICY = "default", "test-failover"


@dataclass
class Room:
    clock: FakeClock = field(default_factory=FakeClock)
    ids: CountingIds = field(default_factory=CountingIds)
    standings: NodeStandings = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.intake = EventIntake(self.store, self.clock, self.ids, Registry("test"))
        self.standings = NodeStandings(self.clock, lambda *_: None, lambda: 0.5)
        rules = WorkspaceRules(id=W, failover_policies=[policy("a", "b")])
        self.standings.keep(SnapshotDoc(version=1, sha256="", workspaces=[rules]))
        self.raising = self.another()

    def another(self) -> Raising:
        """As another node, or the same one after its start."""
        settings = IncidentSettings(resolve_after_seconds=300)
        return Raising(
            self.store, self.intake, self.clock, self.ids, lambda: [(W, settings)], self.standings
        )  # fmt: skip

    async def look(self, raising: Raising | None = None) -> None:
        await (raising or self.raising).look(W, IncidentSettings(resolve_after_seconds=300))

    def fail(self, *endpoints: str) -> None:
        """Three of our own credentials refused by each."""
        standing = self.standings.of(W, POLICY)
        assert standing is not None
        now = self.clock.monotonic()
        for name in endpoints:
            for _ in range(3):
                standing.observe(name, now, Outcome.AUTH, began=now)

    async def told(self, *reasons: str, endpoint: str = "a", source: str = "proxy/n/0") -> None:
        events = []
        for reason in reasons:
            body: dict[str, Any] = {
                "event_id": self.ids.new("evt-"),
                "type": "runtime.endpoint.state_changed",
                "timestamp": iso(self.clock.now_ms()),
                "route_id": "chat",
                "payload": {
                    "failover_policy_id": "p", "endpoint_id": endpoint, "from": "closed",
                    "to": "open", "reason": reason,
                },
            }  # fmt: skip
            events.append(NewEvent(body, self.clock.now_ms()))
        await self.intake.accept(W, events, source=source)

    async def exhausted(self, *, source: str) -> None:
        """A decision that leaves nobody."""
        body: dict[str, Any] = {
            "event_id": self.ids.new("evt-"),
            "type": "runtime.failover.decision",
            "timestamp": iso(self.clock.now_ms()),
            "route_id": "chat",
            "payload": {
                "failover_policy_id": "p", "trigger_condition": "all endpoints unavailable",
                "original_endpoint": "a", "selected_fallback": None, "scope": "endpoint",
                "timestamp": iso(self.clock.now_ms()), "reason_code": "exhausted",
            },
        }  # fmt: skip
        await self.intake.accept(W, [NewEvent(body, self.clock.now_ms())], source=source)

    async def incidents(self) -> list[Incident]:
        rows = await self.store.scan(W, "incident")
        found = [await find(self.store, W, name) for name, _, _ in rows]
        return [each.incident for each in found if each is not None]

    async def types(self) -> list[str]:
        page = await self.store.range(W, "events", LogFilter(types=("control.*",), limit=100))
        bodies = [jsonbody.loads(each.body) for each in page.entries]
        return [str(body["type"]) for body in bodies if isinstance(body, dict)]


async def test_an_incident_is_opened_once_and_told() -> None:
    room = Room()
    await room.told("latency", "auth", "auth")
    for _ in range(3):
        await room.look()
    (incident,) = await room.incidents()
    assert (incident.type, incident.status, incident.related_events_total) == (
        "endpoint_auth_failed", "active", 2,
    )  # fmt: skip
    assert await room.types() == ["control.incident.opened"]
    held = await find(room.store, W, incident.incident_id)
    assert held is not None
    assert [each.kind for each in held.timeline][:1] == ["opened"]


async def test_after_a_start_nothing_is_counted_twice() -> None:
    room = Room()
    await room.told("auth")
    await room.look()
    await room.told("auth")
    await room.look(room.another())
    await room.look()
    await room.look(room.another())
    (incident,) = await room.incidents()
    assert incident.related_events_total == 2
    assert sorted(await room.types()) == ["control.incident.opened", "control.incident.updated"]


async def test_what_two_nodes_told_while_they_were_alone_is_one_incident() -> None:
    room, other = Room(), "proxy/other/control"
    await room.told("auth", source="proxy/one/control")
    await room.exhausted(source="proxy/one/control")
    await room.look()
    await room.told("auth", source=other)  # it came when the store was back
    await room.exhausted(source=other)
    await room.look(room.another())
    found = {each.type: each.related_events_total for each in await room.incidents()}
    assert found == {"endpoint_auth_failed": 2, "failover_exhausted": 2}
    types = await room.types()
    assert types.count("control.incident.opened") == 2
    room.clock.advance(400)
    await room.look()
    await room.look(room.another())
    assert {each.status for each in await room.incidents()} == {"resolved"}
    assert (await room.types()).count("control.incident.resolved") == 2


async def test_more_than_a_page_is_taken_whole() -> None:
    room = Room()
    await room.told(*["auth"] * (2 * PAGE + 7))
    await room.told("quota", endpoint="b")
    await room.look()
    found = {each.type: each.related_events_total for each in await room.incidents()}
    assert found == {"endpoint_auth_failed": 2 * PAGE + 7, "endpoint_quota": 1}


async def test_what_anybody_sends_raises_nothing() -> None:
    room = Room()
    await room.told("auth", source="api/key-1")
    await room.look()
    assert await room.incidents() == []


async def test_it_ends_by_itself_and_begins_anew() -> None:
    room = Room()
    room.fail("a")
    await room.told("auth")
    await room.look()
    assert [each.status for each in await room.incidents()] == ["active"]
    room.clock.advance(400)
    await room.look()
    assert [each.status for each in await room.incidents()] == ["active"]  # it is still refused
    room.standings.force(W, POLICY, "a", 1, "mended")
    room.standings.release(W, POLICY, "mended")
    room.clock.advance(11)
    await room.look()
    assert [each.status for each in await room.incidents()] == ["resolved"]
    await room.told("auth")
    await room.look()
    assert sorted(each.status for each in await room.incidents()) == ["active", "resolved"]


async def test_nothing_left_is_over_when_one_is_there_again() -> None:
    room = Room()
    room.fail("a", "b")
    (standing,) = room.standings.all()
    exhausted = Incident(
        incident_id="inc-1", severity="critical", type="failover_exhausted", route_ids=["chat"],
        created_at="2024-03-15T14:30:00Z", updated_at="2024-03-15T14:30:00Z",
    )  # fmt: skip
    assert not is_well([standing], W, exhausted)
    standing.force("b", room.clock.monotonic(), ttl_s=60)
    assert is_well([standing], W, exhausted)
    assert is_well([standing], "other", exhausted)


async def test_of_two_nodes_that_look_at_once_one_writes() -> None:
    room = Room()
    await room.told("auth", "quota")
    looks = [room.look(), room.look(room.another())]
    done = await asyncio.gather(*looks, return_exceptions=True)
    assert {type(each) for each in done} <= {type(None), StoreConflict}
    found = {each.type: each.related_events_total for each in await room.incidents()}
    assert found == {"endpoint_auth_failed": 1, "endpoint_quota": 1}
    await room.look(room.another())
    assert await room.types() == ["control.incident.opened"] * 2
