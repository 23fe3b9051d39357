"""The clocks of the machine."""

import asyncio
import time


class SystemClock:
    """`model.ports.Clock` on the machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
