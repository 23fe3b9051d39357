"""Incidents in the store, as whoever finds them writes them: whole or not at all."""

import pytest

from proxy.incidents.changes import Found, joined, opened
from proxy.incidents.incident import Incident, incident_id
from proxy.model.batch import Cursor, StoreConflict
from proxy.model.events import iso
from proxy.storage.incidents import after, find, keep
from tests.kit.store import MemoryStore

Store = MemoryStore  # and whatever else has its methods
WS = "workspace-123"
NOW = 1_710_513_000_000
FIRST = Incident(
    incident_id=incident_id(WS, "safety", "route:prod-chat", "evt-12345"),
    severity="high",
    type="policy_violation",
    created_at=iso(NOW),
    updated_at=iso(NOW),
)


async def test_what_is_found_is_kept_with_its_cursor(store: Store) -> None:
    await keep(store, WS, "cm-1", opened(FIRST), also=[Cursor("correlator", 0, 7)])
    held = await find(store, WS, FIRST.incident_id)
    assert held is not None
    assert (held.incident, held.revision) == (FIRST, 1)
    assert [entry.kind for entry in held.timeline] == ["opened"]
    assert await store.cursor(WS, "correlator") == 7
    change = joined(held.incident, Found(["evt-12345"]), NOW)
    await keep(store, WS, "cm-2", change, held)
    assert await find(store, WS, FIRST.incident_id) == after(change, held)
    assert await find(store, "other", FIRST.incident_id) is None


async def test_a_replay_does_not_open_it_twice(store: Store) -> None:
    await keep(store, WS, "cm-1", opened(FIRST))
    before = await find(store, WS, FIRST.incident_id)
    with pytest.raises(StoreConflict, match="exists"):
        await keep(store, WS, "cm-2", opened(FIRST, "again"), also=[Cursor("correlator", 0, 7)])
    assert await find(store, WS, FIRST.incident_id) == before
    assert await store.cursor(WS, "correlator") == 0


async def test_who_saw_an_older_one_changes_neither_it_nor_its_timeline(store: Store) -> None:
    await keep(store, WS, "cm-1", opened(FIRST))
    held = await find(store, WS, FIRST.incident_id)
    assert held is not None
    await keep(store, WS, "cm-2", joined(held.incident, Found(["e1"]), NOW), held)
    before = await find(store, WS, FIRST.incident_id)
    with pytest.raises(StoreConflict, match="revision"):
        await keep(store, WS, "cm-3", joined(held.incident, Found(["e2"]), NOW), held)
    assert await find(store, WS, FIRST.incident_id) == before


async def test_what_a_newer_version_wrote_stays(store: Store) -> None:
    newer = Incident.model_validate({**FIRST.model_dump(), "weather": "fair"})
    await keep(store, WS, "cm-1", opened(newer))
    held = await find(store, WS, FIRST.incident_id)
    assert held is not None
    await keep(store, WS, "cm-2", joined(held.incident, Found(["e1"]), NOW), held)
    held = await find(store, WS, FIRST.incident_id)
    assert held is not None
    assert held.incident.model_dump()["weather"] == "fair"
