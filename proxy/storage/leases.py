"""Leases within one process, for a store that has no other writers.

The table is asked where commits are written, between two of them or inside one, so that nobody can
take a lease between the check of a fence and what it guards.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from proxy.model.batch import Fence
from proxy.model.ports import Clock


@dataclass(slots=True, frozen=True)
class _Lease:
    node: str
    token: int
    until_s: float  # of the monotonic clock


class LeaseTable:
    """Tokens start at the time of day, so that none is given again after a restart."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, _Lease] = {}
        self._last: dict[str, int] = {}

    def take(self, name: str, node: str, ttl_s: float) -> int | None:
        """As `Leases.take`."""
        now_s = self._clock.monotonic()
        held = self._held.get(name)
        if held is not None and held.node != node and held.until_s > now_s:
            return None
        token = self._last[name] = max(self._last.get(name, 0) + 1, self._clock.now_ms())
        self._held[name] = _Lease(node, token, now_s + ttl_s)
        return token

    def renew(self, name: str, node: str, token: int, ttl_s: float) -> bool:
        """As `Leases.renew`."""
        held = self._held.get(name)
        if held is None or (held.node, held.token) != (node, token) or not self._lives(held):
            return False
        self._held[name] = _Lease(node, token, self._clock.monotonic() + ttl_s)
        return True

    def free(self, name: str, node: str, token: int) -> None:
        """As `Leases.free`."""
        held = self._held.get(name)
        if held is not None and (held.node, held.token) == (node, token):
            del self._held[name]

    def holds(self, fence: Fence | None) -> bool:
        """May a batch with this fence be written?"""
        if fence is None:
            return True
        held = self._held.get(fence.lease)
        return held is not None and held.token == fence.token and self._lives(held)

    def _lives(self, lease: _Lease) -> bool:
        return lease.until_s > self._clock.monotonic()


class LocalLeases:
    """`model.ports.Leases` over a table; `between`: do this between two commits."""

    def __init__(
        self, table: LeaseTable, between: Callable[[Callable[[], object]], Awaitable[object]]
    ) -> None:
        self._table = table
        self._between = between

    async def take(self, name: str, node: str, ttl_s: float) -> int | None:
        token = await self._between(lambda: self._table.take(name, node, ttl_s))
        assert token is None or isinstance(token, int)
        return token

    async def renew(self, name: str, node: str, token: int, ttl_s: float) -> bool:
        return bool(await self._between(lambda: self._table.renew(name, node, token, ttl_s)))

    async def free(self, name: str, node: str, token: int) -> None:
        await self._between(lambda: self._table.free(name, node, token))
