"""When a key was last used (control-api.md §12.9)."""

import asyncio
from typing import Any

import pytest

from proxy.control.key_uses import EVERY_S, KeyUses
from proxy.model.batch import StoreUnavailable
from proxy.runtime.tasks import spawn
from tests.control.found import START_MS
from tests.control.test_keys import EVENTS, KEYS, VIEWER, by, made
from tests.control.world import World, bearer
from tests.kit.fakes import CountingIds, FakeClock
from tests.kit.store import MemoryStore

MINUTE_MS = 60_000


async def last_used(world: World, key_id: str) -> Any:
    return (await world.get(f"{KEYS}/{key_id}")).doc["last_used_at"]


async def test_the_minute_of_the_last_use_is_told_and_changes_no_revision(stored: World) -> None:
    doc = await made(stored, VIEWER)
    assert doc["last_used_at"] is None
    for _ in range(3):
        assert (await stored.get(EVENTS, by(doc["key"]))).status == 200
        stored.clock.advance(25)
    await stored.key_uses.write(stored.store, CountingIds())
    shown = (await stored.get(f"{KEYS}/{doc['key_id']}")).doc
    assert (shown["last_used_at"], shown["revision"]) == ("2024-03-15T14:30:00Z", 1)
    listed = (await stored.get(f"{KEYS}?limit=100")).doc["data"]
    assert [each for each in listed if each["key_id"] == doc["key_id"]] == [shown]
    path = f"{KEYS}/{doc['key_id']}"
    patched = await stored.call("PATCH", path, {**shown, "name": "desk"})
    assert (patched.status, patched.doc["last_used_at"]) == (200, shown["last_used_at"])
    stored.key_uses.note("other", START_MS)  # a process that began anew knows the others' still
    await stored.key_uses.write(stored.store, CountingIds())
    assert await last_used(stored, doc["key_id"]) == shown["last_used_at"]


async def test_a_key_of_the_file_was_used_too_and_a_refused_one_was_not(stored: World) -> None:
    assert (await stored.get(EVENTS, bearer("viewer000000"))).status == 200
    assert (await stored.get(EVENTS, bearer("operator0000", "x" * 40))).status == 401
    assert (await stored.get(EVENTS)).status == 200  # `server.admin_key`: no document has its id
    await stored.key_uses.write(stored.store, CountingIds())
    assert await last_used(stored, "viewer000000") == "2024-03-15T14:30:00Z"
    assert await last_used(stored, "operator0000") is None
    assert await stored.store.get("_server", "key.state", "admin") is None


async def test_a_use_is_written_once_a_minute_and_never_back() -> None:
    clock = FakeClock()
    store, uses, ids = MemoryStore(clock), KeyUses(), CountingIds()
    running = spawn(uses.run(store, clock, ids), name="key uses")
    revisions = []
    for at_ms in (START_MS, START_MS + 59_999, START_MS - 1, START_MS + MINUTE_MS):
        uses.note("key0", at_ms)
        uses.note("key0", at_ms - 5 * MINUTE_MS)
        await asyncio.sleep(0)
        clock.advance(EVERY_S)
        await asyncio.sleep(0.01)
        revisions.append(await store.revision("_server", "key.state", "key0"))
    running.cancel()
    assert revisions == [1, 1, 1, 2]


async def test_what_cannot_be_written_waits_and_is_bounded() -> None:
    store, uses = MemoryStore(FakeClock()), KeyUses(limit=3)
    for number in range(4):
        uses.note(f"key{number}", START_MS)
    store.can_write = False
    with pytest.raises(StoreUnavailable):
        await uses.write(store, CountingIds())
    store.can_write = True
    for _ in range(2):
        await uses.write(store, CountingIds())
    rows = await store.scan("_server", "key.state")
    assert [(key_id, revision) for key_id, revision, _ in rows] == [
        ("key0", 1), ("key1", 1), ("key2", 1)
    ]  # fmt: skip
