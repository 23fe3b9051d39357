"""The listener of the data plane: all connections of callers, their sweep and their end."""

import asyncio

from proxy.gateway.downstream import DateLine
from proxy.gateway.front import FrontProtocol, Handle


class FrontServer:
    """Makes the protocol of each connection, and remembers it until the connection is lost."""

    def __init__(self, handle: Handle, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = handle
        self._loop = loop
        self._date = DateLine()
        self.connections: set[FrontProtocol] = set()

    def __call__(self) -> FrontProtocol:
        return FrontProtocol(self._handle, self._loop, self._date, self.connections)

    def __repr__(self) -> str:
        return f"<FrontServer {len(self.connections)} connections>"

    def sweep(self, now: float) -> None:
        """Once per second: end what has waited too long."""
        for connection in list(self.connections):
            connection.sweep(now)

    def close_idle(self) -> None:
        """Draining: connections end now, or with the answers that are under way."""
        for connection in list(self.connections):
            connection.retire()

    def expecting(self) -> bool:
        """A connection was opened, or a request begun, and we have not heard the rest."""
        return any(connection.expecting() for connection in self.connections)

    async def shutdown(self, limit_s: float) -> None:
        """Give the requests under way so long, then cancel them; close every connection."""
        self.close_idle()
        tasks = [c.task for c in self.connections if c.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=limit_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)
