"""The event loop: uvloop, or the standard one with a word about it."""

import asyncio
import importlib
from collections.abc import Callable


def new_loop() -> tuple[Callable[[], asyncio.AbstractEventLoop], str]:
    """(loop factory, what to tell the operator)."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop]
        factory = importlib.import_module("uvloop").new_event_loop
    except ImportError:  # no wheel for this platform
        return asyncio.new_event_loop, "uvloop is not installed: the standard loop costs more"
    return factory, ""
