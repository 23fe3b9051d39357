"""Where a result comes from: the commit, the machine, how busy it is."""

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commit() -> str:
    """The short commit, with `+` when files differ from it; `none` outside of a repository."""
    try:
        named = subprocess.run(
            ["git", "rev-parse", "--short=9", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        changed = subprocess.run(
            ["git", "--no-optional-locks", "status", "--porcelain", "--", "proxy", "benchmarks"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return named.stdout.strip() + ("+" if changed.stdout.strip() else "")


def kept_results(folder: Path) -> list[Path]:
    """Committed results of this class of machine, oldest first."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    paths = [ROOT / line for line in listed.stdout.split("\n") if line.endswith(f"{slug()}.json")]
    return sorted(path for path in paths if path.is_file())


def cpu_model() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or "unknown"


def facts() -> dict[str, object]:
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "loop": "uvloop",
        "load_average": list(os.getloadavg()),
    }


def slug() -> str:
    """A short name of this class of machine, for the name of the file."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\([a-z]+\)|cpu|processor", "", cpu_model().lower()))
    return "-".join(words[:4]) + f"-{os.cpu_count()}c"


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
