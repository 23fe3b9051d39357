"""The one place where a task is started: named, kept alive, its crash observed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

_alive: set[asyncio.Task[None]] = set()
OnCrash = Callable[[str, BaseException], None]
_on_crash: list[OnCrash] = []


def on_crash(tell: OnCrash) -> None:
    """Who is told when a spawned task ends by an exception (app.py: the log)."""
    _on_crash[:] = [tell]


def spawn(work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """Start `work` and keep a reference until it ends."""
    task = asyncio.create_task(work, name=name)
    _alive.add(task)
    task.add_done_callback(_ended)
    return task


def background(work: Coroutine[Any, Any, None], *, name: str) -> None:
    """`spawn` for work that nobody waits for or cancels."""
    task = spawn(work, name=name)
    assert task in _alive


def alive() -> list[str]:
    """Names of the tasks under way."""
    return sorted(task.get_name() for task in _alive)


def _ended(task: asyncio.Task[None]) -> None:
    _alive.discard(task)
    if task.cancelled():
        return
    fault = task.exception()
    if fault is not None:
        for tell in _on_crash:
            tell(task.get_name(), fault)
