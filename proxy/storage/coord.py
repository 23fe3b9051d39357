"""Coordination in one process (`model.ports.Coord`): for a store that no other machine writes, and
what every machine falls back on.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from proxy.model.coord import NS, WINDOW_S, NodeBeat, Quota, gcra
from proxy.model.ports import Clock, Coord

LEASE_S: Final = 60.0  # of a mark: longer than a request may take
MAX_BUCKETS: Final = 10_000


class Coordination(Coord, Protocol):
    """With its lifetime."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...


class Buckets:
    """Named buckets; one `limit` per call, so that a reload changes it at once.  A bucket that is
    full again is the same as none, so the least recently used may be forgotten."""

    def __init__(self, clock: Clock, window_s: int = WINDOW_S) -> None:
        self._clock = clock
        self._window_ns = window_s * NS
        self._tats: OrderedDict[tuple[str, str], int] = OrderedDict()

    def take(self, name: str, owner: str, limit: int) -> Quota:
        now_ns = int(self._clock.monotonic() * NS)
        tat, quota = gcra(self._tats.get((name, owner), 0), now_ns, limit, self._window_ns)
        self._keep(name, owner, tat)
        return quota

    def at_least(self, name: str, owner: str, used_ns: int) -> None:
        """A bucket that stands for this one is that far used: what is left here is no more of it.
        Time is the same part of the quota whatever the limit."""
        now_ns = int(self._clock.monotonic() * NS)
        self._keep(name, owner, max(self._tats.get((name, owner), 0), now_ns + used_ns))

    def _keep(self, name: str, owner: str, tat_ns: int) -> None:
        tats = self._tats
        tats[name, owner] = tat_ns
        tats.move_to_end((name, owner))
        if len(tats) > MAX_BUCKETS:
            tats.popitem(last=False)

    def __repr__(self) -> str:
        return f"<Buckets {len(self._tats)}>"


@dataclass(slots=True)
class _Running:
    """A request under way.  `until_s`: when its owner counts as gone (monotonic clock)."""

    fingerprint: bytes
    until_s: float
    done: asyncio.Event = field(default_factory=asyncio.Event)


class LocalCoord:
    """Requests under way are bounded by the connections of the control API."""

    def __init__(self, clock: Clock, lease_s: float = LEASE_S) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self.buckets = Buckets(clock)
        self._running: dict[tuple[str, bytes], _Running] = {}
        self._bell = asyncio.Event()
        self._node: NodeBeat | None = None

    def __repr__(self) -> str:
        return f"<LocalCoord {self.buckets!r}, {len(self._running)} running>"

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def take(self, workspace_id: str, rate_class: str, owner: str, limit: int) -> Quota:
        return self.buckets.take(rate_class, owner, limit)

    async def begin(self, workspace_id: str, key: bytes, fingerprint: bytes) -> bytes | None:
        now_s = self._clock.monotonic()
        running = self._running.get((workspace_id, key))
        if running is not None and running.until_s > now_s:
            return running.fingerprint
        self._running[workspace_id, key] = _Running(fingerprint, now_s + self._lease_s)
        return None

    async def ended(self, workspace_id: str, key: bytes, within_s: float) -> bool:
        running = self._running.get((workspace_id, key))
        if running is None:
            return True
        try:
            async with asyncio.timeout(within_s):
                await running.done.wait()
        except TimeoutError:
            return False
        return True

    async def end(self, workspace_id: str, key: bytes) -> None:
        running = self._running.pop((workspace_id, key), None)
        if running is not None:
            running.done.set()

    def holds(self, workspace_id: str, key: bytes) -> bool:
        """Whether that request is under way in this process."""
        return (workspace_id, key) in self._running

    async def notify(self) -> None:
        self._bell.set()

    async def noticed(self) -> None:
        await self._bell.wait()
        self._bell.clear()

    async def beat(self, node: NodeBeat) -> None:
        self._node = node

    def nodes(self) -> Sequence[NodeBeat]:
        return [] if self._node is None else [self._node]
