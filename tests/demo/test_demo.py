"""The whole demo as a person starts it: `python -m proxy demo`."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo.provider import MADE_UP_KEY
from tests.kit.processes import ROOT, free_ports

pytestmark = pytest.mark.process

DEMO = [sys.executable, "-m", "proxy", "demo"]


def options() -> list[str]:
    data, control = free_ports(2)
    return ["--port", str(data), "--control-port", str(control)]


def test_p12_the_self_test_passes(tmp_path: Path) -> None:
    """P12: the slow primary's request is answered by `bedrock-claude`, and the event says so."""
    ran = subprocess.run(
        [*DEMO, *options(), "--self-test"],
        cwd=ROOT,
        env={"PATH": os.defpath, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert "all as it must be" in ran.stdout
    assert "anthropic-claude → bedrock-claude" in ran.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [*DEMO, *options()],
        cwd=ROOT,
        env={"PATH": os.defpath, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


def read_page(demo: subprocess.Popen[str]) -> str:
    """What is printed until the page ends."""
    assert demo.stdout is not None
    page = ""
    while "Ctrl-C" not in page:
        line = demo.stdout.readline()
        assert line, f"ended: {demo.communicate()}"
        page += line
    return page


def test_the_printed_commands_work_and_ctrl_c_ends_it(
    demo: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert shutil.which("curl"), "this test needs curl"
    commands = re.findall(r"curl (?:[^\n]*\\\n)*[^\n]*", read_page(demo))
    plain, secret, slow = (run(command) for command in commands[:3])
    events, metrics = commands[3:]
    assert "x-parapet-endpoint: anthropic-claude" in plain.lower()
    assert MADE_UP_KEY[:8] not in secret
    assert "us-east-1" in secret
    assert "x-parapet-endpoint: bedrock-claude" in slow.lower()
    says_in_time(events, "runtime.failover.decision")
    says_in_time(metrics, "parapet_")
    demo.send_signal(signal.SIGINT)
    asked_at = time.monotonic()
    assert demo.wait(10) == 0
    assert time.monotonic() - asked_at < 7
    assert list(tmp_path.iterdir()) == []


def says_in_time(command: str, word: str, within_s: float = 5.0) -> None:
    """Events and counters reach the control half a moment after the answer has ended."""
    until = time.monotonic() + within_s
    while word not in (said := run(command)):
        assert time.monotonic() < until, said
        time.sleep(0.1)


def run(command: str) -> str:
    """One pasted command, through a shell; the interpreter that it names is this one."""
    pasted = command.replace("python3 -m", f"{shlex.quote(sys.executable)} -m")
    ran = subprocess.run(
        ["sh", "-c", pasted], capture_output=True, text=True, timeout=20, check=False
    )
    assert ran.returncode == 0, (pasted, ran.stdout, ran.stderr)
    return ran.stdout
