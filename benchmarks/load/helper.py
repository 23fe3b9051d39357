"""The mock and the generator as the runner sees them: a process each, spoken to in lines."""

import contextlib
import subprocess
import sys

import orjson

from benchmarks.load.children import CannotStart, die_with_parent, pinned
from benchmarks.load.subjects import ROOT

Answer = dict[str, object]


class Helper:
    """The mock or the generator: a process of ours on the load cores, spoken to in lines."""

    def __init__(self, module: str, cores: set[int], *arguments: str) -> None:
        self._process = subprocess.Popen(
            pinned([sys.executable, "-m", module, *arguments], cores),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def read(self) -> Answer | int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CannotStart(f"{self._process.args!r} ended")
        said: Answer | int = orjson.loads(line)
        return said

    def write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0


def number_of(value: object, default: float = 0) -> float:
    return float(value) if isinstance(value, int | float) else default


def as_dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def percentiles(value: object) -> dict[str, float] | None:
    found = {name: number_of(one) for name, one in as_dict(value).items()}
    return found or None
