"""From an origin to an open connection: name, address check, TCP, forward proxy, TLS.

SECURITY: what is checked is what is connected to.  Names are resolved here and the sockets get
addresses, so there is no second resolution to slip in between (T-SSRF-05).  Behind a forward proxy
the proxy resolves; there only addresses that stand in the configuration itself can be checked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import Any

from proxy.model.ports import TransportFault
from proxy.runtime import addresses
from proxy.runtime.tasks import spawn
from proxy.upstream import failures
from proxy.upstream.origin import ForwardProxy, Origin, Proxies
from proxy.upstream.resolver import Resolver
from proxy.upstream.tls import TlsContexts, Trust
from proxy.upstream.transport import Connection
from proxy.upstream.tunnel import Tunnel

STAGGER_S = 0.25  # the next address is tried when one has not answered so long (RFC 8305)

Lost = Callable[[Connection], None]


@dataclass(slots=True, frozen=True)
class Ways:
    """What all connectors share."""

    resolver: Resolver
    contexts: TlsContexts
    proxies: Proxies


class Connector:
    """Opens connections to one origin.  None: the endpoint has no usable URL."""

    def __init__(
        self, origin: Origin | None, trust: Trust, ways: Ways, *, allow_private: bool
    ) -> None:
        self._origin = origin
        self._trust = trust
        self._ways = ways
        self._allow_private = allow_private

    async def open(self, connect_s: float, lost: Lost) -> Connection:
        """Raises TransportFault.  Whatever was begun when it fails or is cancelled is closed."""
        origin = self._origin
        if origin is None:
            raise TransportFault("dns", "the endpoint has no usable base_url")
        try:
            async with asyncio.timeout(connect_s):
                return await self._open(origin, lost)
        except (OSError, ValueError) as error:
            raise failures.while_connecting(error, tls=origin.tls) from error

    async def _open(self, origin: Origin, lost: Lost) -> Connection:
        by_itself = addresses.literal(origin.host)
        proxy = self._ways.proxies.before(origin)
        if by_itself is not None:
            found = self._checked([by_itself])
        elif proxy is None:
            found = self._checked(await self._ways.resolver.resolve(origin.host))
        else:
            found = ()  # the proxy resolves
        if proxy is not None:
            return await self._open_behind(proxy, origin, lost)
        return await self._race(found, origin, lost)

    def _checked(self, found: Sequence[str]) -> Sequence[str]:
        allow = self._allow_private
        good = [a for a in found if addresses.may_connect(a, allow_private=allow)]
        if not good:
            raise TransportFault("blocked_address", "private, loopback or metadata address")
        return alternated(good)

    async def _race(self, found: Sequence[str], origin: Origin, lost: Lost) -> Connection:
        """Connect to whichever address answers first; a later one is tried when an earlier one
        fails, or hesitates."""
        if len(found) == 1:
            return await self._dial(found[0], origin, lost)
        race = _Race(asyncio.get_running_loop().create_future())
        tasks: list[asyncio.Task[None]] = []
        try:
            for address in found:
                dialling = self._run(race, partial(self._dial, address, origin, lost))
                tasks.append(spawn(dialling, name=f"dial {address}"))
                await _first(race.won, tasks[-1], timeout_s=STAGGER_S)
                if race.won.done():
                    break
            while not race.won.done():
                running = [task for task in tasks if not task.done()]
                if not running:
                    raise race.faults[0]
                await _first(race.won, *running)
            return race.won.result()
        except BaseException:
            if race.won.done():
                race.won.result().drop()
            race.over = True
            raise
        finally:
            for task in tasks:
                task.cancel()

    async def _run(self, race: "_Race", dial: Callable[[], Awaitable[Connection]]) -> None:
        try:
            connection = await dial()
        except (OSError, ValueError, TransportFault) as fault:
            race.faults.append(fault)
            return
        if race.over or race.won.done():
            connection.drop()
        else:
            race.won.set_result(connection)

    async def _dial(self, address: str, origin: Origin, lost: Lost) -> Connection:
        connection = Connection(lost)
        context = await self._ways.contexts.get(self._trust) if origin.tls else None
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address,
                origin.port,
                ssl=context,
                server_hostname=origin.host if origin.tls else None,
            )
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _open_behind(self, proxy: ForwardProxy, origin: Origin, lost: Lost) -> Connection:
        loop = asyncio.get_running_loop()
        transport, tunnel = await loop.create_connection(
            lambda: Tunnel(origin.authority, proxy.authorization),
            await self._proxy_address(proxy),
            proxy.port,
        )
        try:
            await tunnel.opened
            connection = Connection(lost)
            through: asyncio.BaseTransport | None = transport
            if origin.tls:
                context = await self._ways.contexts.get(self._trust)
                through = await loop.start_tls(
                    transport, connection, context, server_hostname=origin.host
                )
            else:
                transport.set_protocol(connection)
            assert through is not None
            connection.connection_made(through)
        except BaseException:
            transport.abort()
            raise
        return connection

    async def _proxy_address(self, proxy: ForwardProxy) -> str:
        by_itself = addresses.literal(proxy.host)
        return by_itself or (await self._ways.resolver.resolve(proxy.host))[0]


class _Race:
    """Attempts on several addresses, of which one wins."""

    __slots__ = ("faults", "over", "won")

    def __init__(self, won: "asyncio.Future[Connection]") -> None:
        self.won = won
        self.over = False
        self.faults: list[OSError | ValueError | TransportFault] = []


async def _first(*futures: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def alternated(found: Sequence[str]) -> list[str]:
    """The families in turn, the first one's first, each in its own order."""
    first = [a for a in found if (":" in a) == (":" in found[0])]
    other = [a for a in found if (":" in a) != (":" in found[0])]
    return [a for a in chain.from_iterable(zip_longest(first, other)) if a is not None]
