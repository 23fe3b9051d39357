"""`parapet demo`: the providers, the configuration, Parapet itself, the page or the self-test."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.app.single import serve_single
from proxy.demo.provider import HOST, DemoProviders
from proxy.demo.rehearsal import Rehearsal
from proxy.demo.story import Pen, Place, page
from proxy.settings.load import load_config
from proxy.settings.options import DemoOptions

OnReady = Callable[[], None]
Serve = Callable[[Path, OnReady], int]
"""Serves a configuration file in this process until a signal ends it: the exit code."""


_USUAL = DemoOptions()


def demo(options: DemoOptions = _USUAL) -> int:
    """Run the demo on Parapet itself."""
    return run_demo(options, _serve)


def _serve(config: Path, on_ready: OnReady) -> int:
    return serve_single(load_config(config), on_ready=on_ready)


def interrupt() -> None:
    """End this process as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def run_demo(options: DemoOptions, serve: Serve, end: OnReady = interrupt) -> int:
    """Tell the story until Ctrl-C; with `self_test`, play it and `end`.  The exit code."""
    pen = Pen(sys.stdout.isatty())
    with tempfile.TemporaryDirectory(prefix="parapet-demo-") as folder, DemoProviders() as running:
        data, control = free_ports(options.port, options.control_port)
        place = Place(f"{HOST}:{data}", f"{HOST}:{control}", Path(folder), running.urls)
        place.config_file.write_text(place.config())
        told = _Rehearsing(place, pen, end) if options.self_test else _Page(place, pen)
        with place.log_file.open("w") as log, contextlib.redirect_stderr(log):
            code = serve(place.config_file, told.start) or told.result()
        if code:
            sys.stderr.write(place.log_file.read_text())
        return code


@dataclass(frozen=True, slots=True)
class _Page:
    """What a person reads; the application's log goes to a file."""

    place: Place
    pen: Pen

    def start(self) -> None:
        print(page(self.place, self.pen), flush=True)

    def result(self) -> int:
        return 0


class _Rehearsing:
    """The self-test in a thread of its own, which ends the demo when it is over."""

    def __init__(self, place: Place, pen: Pen, end: OnReady) -> None:
        self._end = end
        self._rehearsal = Rehearsal(place, pen, lambda line: print(line, flush=True))
        self._thread = threading.Thread(target=self._run, name="demo-self-test")
        self._failed = 1

    def start(self) -> None:
        self._thread.start()

    def result(self) -> int:
        """0 when it ran to its end and all was as it must be."""
        if self._thread.ident is not None:
            self._thread.join()
        return self._failed

    def _run(self) -> None:
        try:
            self._failed = asyncio.run(self._rehearsal.run())
        finally:
            self._end()


def free_ports(*wanted: int) -> list[int]:
    """The wanted ports; where one is taken, a free one."""
    with contextlib.ExitStack() as held:
        return list(_bound(wanted, held))


def _bound(wanted: tuple[int, ...], held: contextlib.ExitStack) -> Iterator[int]:
    for port in wanted:
        sock = held.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            sock.bind((HOST, 0))
        sock.listen()
        yield sock.getsockname()[1]
