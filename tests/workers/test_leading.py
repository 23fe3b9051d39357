"""One node leads, and whoever was away for too long does not (storage.md §4)."""

import pytest

from proxy.model.batch import Batch, Put, StoreConflict, StoreUnavailable
from proxy.workers.leading import LEASE_S, Leading
from tests.kit.store import HandClock, MemoryStore

WS = "workspace-123"


class Shaky:
    """The leases of a store that may be away."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.away = False

    async def take(self, name: str, node: str, ttl_s: float) -> int | None:
        self._answer()
        return await self._store.leases.take(name, node, ttl_s)

    async def renew(self, name: str, node: str, token: int, ttl_s: float) -> bool:
        self._answer()
        return await self._store.leases.renew(name, node, token, ttl_s)

    async def free(self, name: str, node: str, token: int) -> None:
        self._answer()
        await self._store.leases.free(name, node, token)

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("storage-unavailable", "away")


class Two:
    """Two nodes that would lead."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.store = MemoryStore(self.clock)
        self.leases = Shaky(self.store)
        self.a, self.b = (Leading(self.leases, self.clock, WS, node) for node in "ab")

    async def step(self, *nodes: Leading, after_s: float = 0.0) -> None:
        self.clock.at_ms += int(after_s * 1000)
        for node in nodes:
            await node.step()

    async def writes(self, node: Leading) -> None:
        assert node.fence is not None
        await self.store.commit(WS, Batch("cm", (Put("doc", "a", b""),), node.fence))


async def test_one_leads_for_as_long_as_it_renews() -> None:
    two = Two()
    assert two.a.fence is None
    for _ in range(20):
        await two.step(two.a, two.b, after_s=LEASE_S / 3)
        await two.writes(two.a)
        assert two.b.fence is None


async def test_the_next_takes_over_when_the_lease_is_over_and_the_last_is_refused() -> None:
    two = Two()
    await two.step(two.a, two.b)
    late = two.a.fence
    await two.step(two.b, after_s=LEASE_S - 1)
    assert two.b.fence is None
    await two.step(two.b, after_s=1)
    assert two.a.fence is None  # it knows by its own clock
    await two.writes(two.b)
    with pytest.raises(StoreConflict):
        await two.store.commit(WS, Batch("late", (Put("doc", "a", b""),), late))
    await two.step(two.a)
    assert two.a.fence is None


async def test_a_store_that_is_away_ends_no_lease_before_its_time() -> None:
    two = Two()
    await two.step(two.a)
    two.leases.away = True
    await two.step(two.a, two.b, after_s=LEASE_S - 1)
    assert two.a.fence is not None
    await two.step(two.a, two.b, after_s=1)
    assert two.a.fence is None
    two.leases.away = False
    await two.step(two.b, two.a)
    assert two.a.fence is None
    await two.writes(two.b)


async def test_who_stops_lets_the_next_lead_at_once() -> None:
    two = Two()
    await two.step(two.a, two.b)
    await two.a.stop()
    assert two.a.fence is None
    await two.step(two.b)
    await two.writes(two.b)
    await two.a.stop()  # nothing to give back
    assert two.b.fence is not None


async def test_a_store_that_lost_its_leases_is_led_again() -> None:
    two = Two()
    await two.step(two.a)
    late = two.a.fence
    two.store.forget_leases()
    await two.step(two.a, after_s=LEASE_S / 3)
    assert two.a.fence != late
    await two.writes(two.a)


async def test_it_renews_three_times_in_the_time_of_a_lease() -> None:
    class Twice(HandClock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if self.slept_s > LEASE_S:
                raise RuntimeError("enough")

    clock = Twice()
    leading = Leading(MemoryStore(clock).leases, clock, WS, "a")
    with pytest.raises(RuntimeError, match="enough"):
        await leading.run()
    assert leading.fence is not None
    assert clock.slept_s == 4 * LEASE_S / 3
