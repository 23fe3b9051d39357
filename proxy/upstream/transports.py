"""The ways to all endpoints of one worker: a pool for each, one sweeper, one resolver.

A pool outlives a snapshot as long as nothing that matters to a connection changed: a reload that
edits a policy costs no handshake.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from proxy.model.ports import Clock, Observe
from proxy.model.tenancy import Endpoint
from proxy.upstream.connect import Connector, Ways
from proxy.upstream.origin import Origin, Proxies
from proxy.upstream.pool import IDLE_LIMIT_S, Pool
from proxy.upstream.resolver import CachingResolver, Resolver
from proxy.upstream.sweeper import Sweeper
from proxy.upstream.tls import TlsContexts, Trust

CLOSE_LIMIT_S = 2.0


class PoolKey(NamedTuple):
    """All that decides whether two endpoints may share connections.  Credentials do not: they
    travel in each request."""

    workspace_id: str
    endpoint_id: str
    url: str
    allow_private: bool
    trust: Trust


class Transports:
    """`model.ports.Upstreams`.

    `sweeper.run()` is for the owner to start.  `url_of` says where an endpoint is when its document
    does not say so itself.
    """

    def __init__(
        self,
        clock: Clock,
        observe: Observe,
        *,
        resolver: Resolver | None = None,
        proxies: Proxies | None = None,
        url_of: Callable[[Endpoint], str] = lambda endpoint: endpoint.url,
        idle_limit_s: float = IDLE_LIMIT_S,
    ) -> None:
        self._clock = clock
        self._observe = observe
        self._own_resolver = CachingResolver(clock) if resolver is None else None
        known = resolver or self._own_resolver
        assert known is not None
        self._ways = Ways(known, TlsContexts(), proxies or Proxies())
        self._url_of = url_of
        self._idle_limit_s = idle_limit_s
        self._pools: dict[PoolKey, Pool] = {}
        self._retired: list[Pool] = []
        self.sweeper = Sweeper(clock, self._pools.values)

    def key_of(self, workspace_id: str, endpoint: Endpoint) -> PoolKey:
        trust = Trust(endpoint.ca_file, endpoint.client_cert_file, endpoint.client_key_file)
        url = self._url_of(endpoint)
        return PoolKey(workspace_id, endpoint.id, url, endpoint.allow_private, trust)

    def of(self, workspace_id: str, endpoint: Endpoint) -> Pool:
        """For the builder of a snapshot: the same pool as long as nothing that matters changed."""
        key = self.key_of(workspace_id, endpoint)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = self._build(key)
        return pool

    def retain(self, keys: Iterable[PoolKey]) -> None:
        """Retire every other pool: its calls end in peace, its connections are not kept."""
        kept = set(keys)
        self._retired = [pool for pool in self._retired if pool.busy]
        for key in self._pools.keys() - kept:
            pool = self._pools.pop(key)
            pool.retire()
            self._retired.append(pool)
        self._ways.contexts.retain(key.trust for key in kept)

    def pools(self) -> Collection[Pool]:
        return self._pools.values()

    async def close(self) -> None:
        """End every call (the gateway has drained by now) and every connection."""
        for call in [*self.sweeper.running, *self.sweeper.still]:
            call.expire("reset", "the proxy is closing")
        pools = [*self._pools.values(), *self._retired]
        for pool in pools:
            pool.retire()
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                for pool in pools:
                    await pool.emptied()
        except TimeoutError:
            pass  # the process ends; the kernel closes the rest
        if self._own_resolver is not None:
            self._own_resolver.close()

    def _build(self, key: PoolKey) -> Pool:
        try:
            origin: Origin | None = Origin.of(key.url)
        except ValueError:
            origin = None
        connector = Connector(origin, key.trust, self._ways, allow_private=key.allow_private)
        return Pool(
            key.endpoint_id, connector, self.sweeper, self._clock, self._observe, self._idle_limit_s
        )

    def __repr__(self) -> str:
        return f"<Transports {len(self._pools)} pools {self.sweeper!r}>"
