"""Long work beside the loop: how it lets the loop have its turn."""

import asyncio
import threading
import time
from typing import Final

WORK_S: Final = 0.0005  # at most so long without a pause
PAUSE_S: Final = 0.00005

_last = threading.local()


def breathe() -> None:
    """To be called between the pieces of long work.  Only one thread runs Python at a time, and
    compiled code never makes room by itself; on the loop this does nothing."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        now = time.monotonic()
        if now - getattr(_last, "at", 0.0) > WORK_S:
            time.sleep(PAUSE_S)
            _last.at = time.monotonic()


async def until(event: asyncio.Event) -> None:
    """Wait for it, whoever is cancelled meanwhile: what is beside the loop cannot be stopped."""
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError:
            continue
