"""Which node does what only one may do for a workspace (storage.md §2, §4).

A node leads while it holds the lease; the fence goes into each of its commits.  That it believes to
lead is a reason to work, never a proof: the store refuses a commit whose lease has gone elsewhere.
"""

from typing import Final

from proxy.model.batch import Fence, StoreUnavailable
from proxy.model.ports import Clock, Leases

LEASE_S: Final = 15.0
RENEWALS: Final = 3  # in the time of one lease


class Leading:
    """Takes the lease of a workspace when it is free, and keeps it."""

    def __init__(
        self,
        leases: Leases,
        clock: Clock,
        workspace_id: str,
        node: str,
        *,
        ttl_s: float = LEASE_S,
    ) -> None:
        self._leases = leases
        self._clock = clock
        self._name = workspace_id
        self._node = node
        self._ttl_s = ttl_s
        self._token: int | None = None
        self._until_s = 0.0

    @property
    def fence(self) -> Fence | None:
        """None: another node leads, or the time of the lease is over here."""
        if self._token is None or self._clock.monotonic() >= self._until_s:
            return None
        return Fence(self._name, self._token)

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.step()
            await self._clock.sleep(self._ttl_s / RENEWALS)

    async def step(self) -> None:
        """Renew the lease or take it.  A store that is away changes nothing: what is held ends with
        its time, which counts from before the question."""
        asked_s = self._clock.monotonic()
        token = self._token if self.fence is not None else None
        try:
            if token is None or not await self._renewed(token):
                token = await self._leases.take(self._name, self._node, self._ttl_s)
        except StoreUnavailable:
            return
        self._token, self._until_s = token, asked_s + self._ttl_s

    async def stop(self) -> None:
        """Give the lease back, so that the next node need not wait for its end.  Raises
        StoreUnavailable."""
        token, self._token = self._token, None
        if token is not None:
            await self._leases.free(self._name, self._node, token)

    async def _renewed(self, token: int) -> bool:
        return await self._leases.renew(self._name, self._node, token, self._ttl_s)
