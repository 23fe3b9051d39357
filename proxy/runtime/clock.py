"""The clocks of the machine."""

import asyncio
import time
from collections.abc import Callable


class SystemClock:
    """`model.ports.Clock` on the machine's own clocks."""

    monotonic = staticmethod(time.monotonic)

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def cpu_budget(seconds: float) -> Callable[[], bool]:
    """Whether this thread has computed for longer than that since now.  What others do on the
    machine does not count."""
    end = time.thread_time() + seconds
    return lambda: time.thread_time() > end
