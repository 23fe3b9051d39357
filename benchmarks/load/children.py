"""Processes that the benchmark starts: pinned to a core, logged to a file, ended for certain."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.load import cpu

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class CannotStart(Exception):
    """A subject that is not there; the message says why and stands in its row."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child:
    """One process and what it starts."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cores: set[int],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._log = log
        with log.open("wb") as out:
            try:
                self._process = subprocess.Popen(
                    pinned(command, cores),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            except OSError as error:
                raise CannotStart(str(error)) from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for(self, port: int, seconds: float, path: str | None = None) -> None:
        """Until it answers on `port` (on `path` with less than 500), or say why it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise CannotStart(f"ended with {self._process.returncode}: {self.last_words()}")
            if answers(port, path):
                return
            time.sleep(0.05)
        raise CannotStart(f"not ready after {seconds:g} s: {self.last_words()}")

    def last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip()[:160] if lines else "nothing said"

    def stop(self, patience_s: float = 3) -> None:
        """Ask; whoever of its tree is left after `patience_s` is killed, by pid."""
        if self._process.poll() is not None:
            return
        pids = cpu.tree(self.pid)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        for pid in pids:
            if pid == self.pid and self._process.poll() is not None:
                continue
            with contextlib.suppress(ProcessLookupError):
                if pid == self.pid or os.getsid(pid) == self.pid:
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def __repr__(self) -> str:
        return f"<Child {self.pid}>"


def die_with_parent() -> None:
    """Nothing we started may outlive us, however we end."""
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)


def pinned(command: Sequence[str], cores: set[int]) -> list[str]:
    return ["taskset", "-c", ",".join(str(core) for core in sorted(cores)), *command]


def answers(port: int, path: str | None) -> bool:
    try:
        if path is None:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        else:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
    except OSError:
        return False
    return True
