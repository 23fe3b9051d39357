"""The life of a process that serves: its signals, its loop, its listener, its garbage."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from proxy.runtime.loop import new_loop
from proxy.runtime.tasks import background, on_crash, spawn
from proxy.settings.secrets import environment
from proxy.telemetry.logs import Log
from proxy.upstream.origin import Proxies

INTERRUPTED_S: Final = 5.0
GC_THRESHOLDS: Final = (50_000, 20, 50)


@dataclass(slots=True)
class DrainLimits:
    """How long a stop may take (reliability.md §4.4)."""

    lb_delay_s: float = 5.0
    timeout_s: float = 60.0
    stream_s: float = 300.0


class Stop:
    """The signals of a process that serves.  SIGINT: now, within five seconds; twice: at once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._quick = False
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def set(self) -> None:
        self._event.set()

    def _interrupt(self) -> None:
        if self._event.is_set():
            os._exit(1)
        self._quick = True
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    async def unless(self, event: asyncio.Event) -> bool:
        """Wait for what must be before anybody is served.  False: told to stop before it was."""
        waiting = [spawn(self.wait(), name="stop"), spawn(_until(event), name="start")]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        return not self._event.is_set()

    def on_hangup(self, reload: Callable[[], Awaitable[object]]) -> None:
        async def act() -> None:
            await reload()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: background(act(), name="reload"))

    def drain_limits(self, limits: DrainLimits) -> DrainLimits:
        return DrainLimits(0.0, INTERRUPTED_S, INTERRUPTED_S) if self._quick else limits


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def settle_garbage() -> None:
    """What is built stays: keep it out of later collections (performance.md §4.6)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def forward_proxies() -> Proxies:
    """The forward proxies that the environment names (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`)."""
    variables = environment()

    def named(name: str) -> str | None:
        return variables.get(name.lower()) or variables.get(name) or None

    return Proxies(named("HTTP_PROXY"), named("HTTPS_PROXY"), named("NO_PROXY") or "")


def adopt(fd: int) -> socket.socket:
    """A listener that the supervisor has bound."""
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    return listener


def run(work: Coroutine[Any, Any, int], log: Log) -> int:
    """Run on uvloop, or on the standard loop and say so."""
    on_crash(lambda name, fault: log.crash(name, fault))
    factory, note = new_loop()
    if note:
        log.warning("loop", {"detail": note})
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
    return 1
