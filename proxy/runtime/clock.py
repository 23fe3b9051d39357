"""The clocks of the machine."""

import asyncio
import time
from collections.abc import Callable
from typing import Final


class SystemClock:
    """`model.ports.Clock` on the machine's own clocks."""

    monotonic = staticmethod(time.monotonic)

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


TURN_S: Final = 0.02
PAUSE_S: Final = 0.01


def cpu_budget(seconds: float) -> Callable[[], bool]:
    """Whether this thread has computed for longer than that since now; what others do on the
    machine does not count.  Who asks after a long turn lets the event loop go first."""
    end = time.thread_time() + seconds
    turn = time.thread_time()

    def over() -> bool:
        nonlocal turn
        if time.thread_time() - turn > TURN_S:
            time.sleep(PAUSE_S)
            turn = time.thread_time()
        return time.thread_time() > end

    return over
