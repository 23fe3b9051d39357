"""Changes come into force one run at a time; who asks while one is under way shares the next."""

import asyncio
from collections.abc import Awaitable, Callable

from proxy.runtime.tasks import spawn


class Applying:
    """`act` reads everything and brings it into force.

    Invariants: whoever awaits `asked` returns after a run that began after he asked; a run goes on
    when nobody waits for it any more."""

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        self._act = act
        self._running: asyncio.Task[None] | None = None
        self._asked = 0
        self._done = 0

    def __repr__(self) -> str:
        return f"<Applying {self._done} of {self._asked}>"

    async def asked(self) -> None:
        self._asked += 1
        mine = self._asked
        while self._done < mine:
            if self._running is None:
                self._running = spawn(self._run(), name="applying")
            await asyncio.shield(self._running)

    async def _run(self) -> None:
        covered = self._asked
        try:
            await self._act()
            self._done = covered
        finally:
            self._running = None
