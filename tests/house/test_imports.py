"""Each module imports alone, in a fresh interpreter, and starts nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.test_dependencies import imported

ROOT = Path(__file__).parents[2]
ALONE = """
import asyncio, gc, importlib, os, socket, sys, threading

def alone(name):
    importlib.import_module(name)
    odd = [f"{threading.active_count()} threads"] if threading.active_count() > 1 else []
    odd += [repr(each) for each in gc.get_objects() if isinstance(each, socket.socket)]
    if odd:
        print(name, *odd, file=sys.stderr, flush=True)
    os._exit(bool(odd))

def ended():
    pid, status = os.wait()
    if os.waitstatus_to_exitcode(status):
        print(f"{running[pid]} does not import alone", file=sys.stderr)
    del running[pid]

foreign, ours = sys.argv[1].split(), sys.argv[2:]
for name in foreign:
    importlib.import_module(name)
running = {}
for name in ours:
    if len(running) >= os.cpu_count():
        ended()
    pid = os.fork()
    if pid == 0:
        alone(name)
    running[pid] = name
while running:
    ended()
"""


def modules() -> list[str]:
    paths = sorted((ROOT / "proxy").rglob("*.py"))
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in paths]
    return [name.removesuffix("/__init__").replace("/", ".") for name in names]


@pytest.mark.thorough
def test_each_module_imports_alone_and_starts_nothing() -> None:
    """A fork per module, from an interpreter that has imported none of ours."""
    foreign = " ".join(sorted(imported()))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, foreign, *modules()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
