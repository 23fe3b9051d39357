"""Each module imports with nothing of ours but the stairs below it, and starts nothing.

What is below has been imported alone before: to import it again for each of those above would take
minutes.
"""

import subprocess
import sys
import tomllib
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

foreign, *stairs = (group.split() for group in sys.argv[1:])
for name in foreign:
    importlib.import_module(name)
running = {}
for stair in stairs:
    gc.freeze()  # a fork looks only at what its own module made
    for name in stair:
        if len(running) >= os.cpu_count():
            ended()
        pid = os.fork()
        if pid == 0:
            alone(name)
        running[pid] = name
    while running:
        ended()
    for name in stair:
        if not name.endswith("__main__"):
            importlib.import_module(name)
"""


def stairs() -> list[list[str]]:
    """Our modules, the lowest stair first."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (layers,) = [each["layers"] for each in tools["importlinter"]["contracts"] if "layers" in each]
    paths = sorted((ROOT / "proxy").rglob("*.py"))
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in paths]
    modules = [name.removesuffix("/__init__").replace("/", ".") for name in names]
    found = [
        [name for name in modules if name.split(".")[1:2] and name.split(".")[1] in layer.split()]
        for layer in reversed(layers)
    ]
    assert sum(map(len, found)) == len(modules) - 1, "all but the package itself have a stair"
    return found


@pytest.mark.thorough
def test_each_module_imports_alone_and_starts_nothing() -> None:
    """A fork per module."""
    foreign = " ".join(sorted(imported()))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, foreign, *map(" ".join, stairs())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# fmt: off
NEVER = [
    # process                    what it never imports
    ("proxy.cli",                {"proxy.app", "proxy.gateway", "proxy.control", "proxy.storage"}),
    ("proxy.app.serve",          {"proxy.control", "proxy.storage", "proxy.link", "aiohttp"}),
    ("proxy.app.worker_process", {"proxy.control", "proxy.storage", "proxy.alerting",
                                  "aiohttp", "redis", "sqlite3"}),
]
# fmt: on


@pytest.mark.parametrize(("process", "never"), NEVER)
def test_a_process_reads_only_its_own_half(process: str, never: set[str]) -> None:
    """It starts in half of the time so, and the workers are many."""
    look = f"import sys, {process}; print(*sorted({never!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
