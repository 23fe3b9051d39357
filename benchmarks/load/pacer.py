"""Things that must happen at absolute times, to tens of microseconds.

The loop's own timers count in milliseconds, which is as much as what is to be measured.  So one
kernel timer (timerfd) wakes the loop for the earliest of all deadlines.
"""

import asyncio
import ctypes
import heapq
import os
import time
from collections.abc import Callable

CLOCK_MONOTONIC = 1
NONBLOCK = os.O_NONBLOCK
ABSOLUTE = 1


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Pacer:
    """Calls back at absolute monotonic nanoseconds and remembers how late it was.

    A callback that leads to the next one calls `at` again; nothing is held for the past.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = loop
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._armed_ns = 0
        self._count = 0
        self.slips_ns: list[int] = []
        loop.add_reader(self._fd, self._fire)

    def at(self, due_ns: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (due_ns, self._count, action))
        if not self._armed_ns or due_ns < self._armed_ns:
            self._arm(due_ns)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._due.clear()

    def _arm(self, due_ns: int) -> None:
        self._armed_ns = due_ns
        spec = _Spec(0, 0, *divmod(max(due_ns, 1), 1_000_000_000))
        self._libc.timerfd_settime(self._fd, ABSOLUTE, ctypes.byref(spec), None)

    def _fire(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._armed_ns = 1  # nothing is earlier: actions that plan do not arm one by one
        due = self._due
        now_ns = time.monotonic_ns()
        while due and due[0][0] <= now_ns:
            due_ns, _, action = heapq.heappop(due)
            self.slips_ns.append(now_ns - due_ns)
            action()
            now_ns = time.monotonic_ns()
        self._armed_ns = 0
        if due:
            self._arm(due[0][0])

    def __repr__(self) -> str:
        return f"<Pacer {len(self._due)} due>"
