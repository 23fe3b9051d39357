"""The clocks of the machine."""

import asyncio
import time


class SystemClock:
    """`model.ports.Clock` on the machine's own clocks."""

    monotonic = staticmethod(time.monotonic)

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
