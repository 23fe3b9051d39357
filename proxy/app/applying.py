"""Changes come into force one run at a time; who asks while one is under way shares the next."""

import asyncio
from collections.abc import Awaitable, Callable


class Applying:
    """`act` reads everything and brings it into force.

    Invariant: whoever awaits `asked` returns after a run that began after he asked."""

    def __init__(self, act: Callable[[], Awaitable[None]]) -> None:
        self._act = act
        self._lock = asyncio.Lock()
        self._asked = 0
        self._done = 0

    def __repr__(self) -> str:
        return f"<Applying {self._done} of {self._asked}>"

    async def asked(self) -> None:
        self._asked += 1
        mine = self._asked
        async with self._lock:
            if self._done >= mine:
                return
            covered = self._asked
            await self._act()
            self._done = covered
