"""The supervisor: binds the listeners, starts the processes, watches them.  It builds nothing else.

It holds every listener for its whole life, one `SO_REUSEPORT` data listener per worker slot: a
worker that dies is replaced without a connection refused.  Each child has a socket to the
supervisor: the child beats on it every 500 ms, and stops when it sees the supervisor's end close.

A data worker without a beat for 5 s is killed and replaced, a control process after 60 s, and
never one because of the other (reliability.md §4.1).
"""

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.model.ports import Clock
from proxy.runtime.tasks import background, spawn

WORKER_FROZEN_S: Final = 5.0
CONTROL_FROZEN_S: Final = 60.0
WATCH_S: Final = 0.25
CRASHES: Final = 5
CRASH_WINDOW_S: Final = 60.0
WORKER_BACKOFF_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
CONTROL_BACKOFF_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
READY: Final = b"r"

Log = Callable[[str, dict[str, object]], None]


def bind(address: str, *, reuse_port: bool = False) -> socket.socket:
    """A listening socket.  Raises OSError with the address in its text."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, int(port)))
        listener.listen(4096)
    except OSError as why:
        listener.close()
        raise OSError(why.errno, f"cannot listen on {address}: {why.strerror}") from why
    listener.set_inheritable(True)
    return listener


@dataclass(slots=True)
class Child:
    """One process to keep alive."""

    role: str
    slot: int
    arguments: Sequence[str]
    listener: socket.socket
    frozen_s: float
    process: asyncio.subprocess.Process | None = None
    line: socket.socket | None = None
    beat_at: float = 0.0
    ready: bool = False
    crashes: list[float] = field(default_factory=list)
    restarts: int = 0
    expected: bool = False  # it was asked to stop

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def __repr__(self) -> str:
        return f"<Child {self.role} {self.slot} pid {self.pid}>"


class Supervisor:
    """Keeps the children alive until it is told to stop."""

    def __init__(self, children: Sequence[Child], clock: Clock, log: Log) -> None:
        self._children = children
        self._clock = clock
        self._log = log
        self._stopping = asyncio.Event()
        self._failed = False
        self._restarting = False

    async def run(self) -> int:
        """Start everything, watch, stop on a signal.  Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP, "control")
        loop.add_signal_handler(signal.SIGUSR2, self._restart_workers)
        for child in self._children:
            background(self._keep(child), name=f"keep {child.role} {child.slot}")
        watcher = spawn(self._watch(), name="watch")
        await self._stopping.wait()
        await self._wait_for_all()
        watcher.cancel()
        return 1 if self._failed else 0

    # --- one child

    async def _keep(self, child: Child) -> None:
        """Start the child again whenever it ends, with a back-off."""
        while not self._stopping.is_set():
            await self._start(child)
            assert child.process is not None
            code = await child.process.wait()
            if child.line is not None:
                asyncio.get_running_loop().remove_reader(child.line)
                child.line.close()
                child.line = None
            if self._stopping.is_set():
                return
            if child.expected:
                child.expected = False
                continue
            now = self._clock.monotonic()
            child.restarts += 1
            if child.ready and child.role == "control":
                child.crashes.clear()  # it lived: the back-off starts anew
            child.crashes = [at for at in child.crashes if now - at < CRASH_WINDOW_S] + [now]
            self._log("process.ended", {"role": child.role, "slot": child.slot, "code": code})
            if child.role == "worker" and len(child.crashes) > CRASHES:
                self._log("process.gives_up", {"role": child.role, "slot": child.slot})
                self._failed = True
                self._stop(signal.SIGTERM)
                return
            steps = WORKER_BACKOFF_S if child.role == "worker" else CONTROL_BACKOFF_S
            await self._clock.sleep(steps[min(len(child.crashes), len(steps)) - 1])

    async def _start(self, child: Child) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.set_inheritable(True)
        fds = (child.listener.fileno(), theirs.fileno())
        child.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "proxy",
            *child.arguments,
            "--listen-fd",
            str(fds[0]),
            "--alive-fd",
            str(fds[1]),
            pass_fds=fds,
        )
        theirs.close()
        child.line, child.ready = ours, False
        child.beat_at = self._clock.monotonic() + 20.0  # importing and building may take a while
        asyncio.get_running_loop().add_reader(ours, self._beat, child)

    def _beat(self, child: Child) -> None:
        if child.line is None:
            return
        try:
            data = child.line.recv(256)
        except (BlockingIOError, ConnectionError):
            return
        if not data:
            asyncio.get_running_loop().remove_reader(child.line)
            return
        if READY in data:
            child.ready = True
        child.beat_at = self._clock.monotonic()

    async def _watch(self) -> None:
        """Kill what is frozen."""
        while True:
            await self._clock.sleep(WATCH_S)
            now = self._clock.monotonic()
            for child in self._children:
                process = child.process
                if process is None or process.returncode is not None:
                    continue
                if now - child.beat_at > child.frozen_s:
                    self._log("process.frozen", {"role": child.role, "slot": child.slot})
                    child.beat_at = now + child.frozen_s
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()

    # --- signals

    def _stop(self, number: int) -> None:
        """Workers first, the control process after them, so that it can take what they wrote."""
        again = self._stopping.is_set()
        self._stopping.set()
        self._pass_on(number, "worker")
        if again:
            self._pass_on(number, "control")

    def _pass_on(self, number: int, role: str) -> None:
        for child in self._children:
            process = child.process
            if child.role == role and process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)

    def _restart_workers(self) -> None:
        if not self._restarting and not self._stopping.is_set():
            background(self._roll(), name="rolling restart")

    async def _roll(self) -> None:
        """One slot at a time; the listener stays open all the while."""
        self._restarting = True
        try:
            for child in self._children:
                if child.role != "worker" or child.process is None:
                    continue
                old = child.process
                child.expected = True
                with contextlib.suppress(ProcessLookupError):
                    old.send_signal(signal.SIGTERM)
                while not self._stopping.is_set() and (child.process is old or not child.ready):
                    await self._clock.sleep(0.05)
        finally:
            self._restarting = False

    async def _wait_for_all(self) -> None:
        for role in ("worker", "control"):
            self._pass_on(signal.SIGTERM, role)
            for child in self._children:
                if child.role == role and child.process is not None:
                    await child.process.wait()
        for child in self._children:
            child.listener.close()


class Line:
    """A child's end of its socket to the supervisor."""

    def __init__(self, fd: int, clock: Clock, on_orphaned: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._clock = clock
        self._on_orphaned = on_orphaned

    def open(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        background(self._beat(), name="heartbeat")

    def ready(self) -> None:
        self._send(READY)

    def _read(self) -> None:
        try:
            data = self._socket.recv(16)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._on_orphaned()

    async def _beat(self) -> None:
        while True:
            self._send(b"b")
            await self._clock.sleep(0.5)

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(data)


def raise_descriptor_limit() -> int:
    """Raise RLIMIT_NOFILE to its hard limit; two descriptors carry one stream."""

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
