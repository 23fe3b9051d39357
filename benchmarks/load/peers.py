"""Others in the table: any OpenAI-compatible gateway, by URL and pid or by a file of its own.

`--peer name=…,url=…,pid=…` and `benchmarks/peers/<name>.yaml` take the same keys; the file may
add how to start it.  A peer that is not there stays in the table with the reason.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import yaml

from benchmarks.load import cpu
from benchmarks.load.children import CannotStart, Child, answers, free_port
from benchmarks.load.subjects import Place, Subject, Target
from benchmarks.load.texts import Dialect

FOLDER = Path(__file__).parents[1] / "peers"
INSTALLED = Path(__file__).parents[1] / ".peers"


class PeerError(ValueError):
    """A peer described in a way that cannot be followed."""


@dataclass(slots=True)
class Description:
    """One peer in words."""

    name: str
    url: str = ""
    pid: int | None = None
    model: str = ""
    models: dict[Dialect, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    speaks: list[Dialect] = field(default_factory=lambda: list[Dialect](["openai-chat"]))
    exact: bool = False
    must_carry: str = ""
    start: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    ready: str | None = None
    ready_seconds: float = 60
    version: list[str] = field(default_factory=list)
    install: str = ""
    guards: str = "none"
    connections: int | None = None  # where it cannot carry what the workload says

    def check(self) -> None:
        unknown = set(self.speaks) - set(get_args(Dialect))
        if unknown:
            raise PeerError(f"peer {self.name}: speaks {', '.join(sorted(unknown))}")
        if not self.url:
            raise PeerError(f"peer {self.name}: needs url=http://host:port/v1")
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname:
            raise PeerError(f"peer {self.name}: url must be http://host:port/path")


def from_argument(argument: str) -> Description:
    """Read `name=…,url=…,pid=…[,model=…][,header=K:V]…[,speaks=a+b]`."""
    peer = Description(name="")
    for part in argument.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise PeerError(f"--peer {argument!r}: {part!r} is not key=value")
        match key:
            case "name":
                peer.name = value
            case "url":
                peer.url = value
            case "pid":
                if not value.isdigit():
                    raise PeerError(f"--peer {argument!r}: pid must be a number")
                peer.pid = int(value)
            case "model":
                peer.model = value
            case "header":
                name, colon, text = value.partition(":")
                if not colon:
                    raise PeerError(f"--peer {argument!r}: header must be name:value")
                peer.headers[name.strip()] = text.strip()
            case "speaks":
                known = {str(one): one for one in get_args(Dialect)}
                peer.speaks = [known.get(one, one) for one in value.split("+")]
            case "guards":
                peer.guards = value
            case _:
                raise PeerError(f"--peer {argument!r}: no such key {key!r}")
    if not peer.name:
        raise PeerError(f"--peer {argument!r}: needs name=…")
    peer.check()
    return peer


def from_file(name: str) -> Description:
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise PeerError(f"no benchmarks/peers/{name}.yaml (there are: {known or 'none'})")
    document = yaml.safe_load(path.read_text())
    try:
        peer = Description(name=document.pop("name", name), **document)
    except TypeError as error:
        raise PeerError(f"benchmarks/peers/{name}.yaml: {error}") from error
    peer.check()
    return peer


def known() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


class Peer(Subject):
    """Somebody else's gateway."""

    def __init__(self, description: Description) -> None:
        self._peer = description
        self.name, self.guards = description.name, description.guards
        self.version = "" if description.version else "version not told"
        self.connections = description.connections
        self._outside: dict[int, set[int]] = {}  # threads we pinned, and where they were before

    def start(self, place: Place) -> None:
        peer = self._peer
        url, headers = peer.url, peer.headers
        if peer.start:
            url, headers = self._launch(place)
        parts = urlsplit(url)
        port = parts.port or 80
        self.config = f"{peer.start}{sorted(peer.files.items())}{sorted(peer.env.items())}"
        if not peer.start:
            if not answers(port, None) and parts.hostname in ("127.0.0.1", "localhost"):
                raise CannotStart(f"nobody listens on {parts.netloc}")
            self._pin(place.cores)
        models = peer.models or (dict.fromkeys(peer.speaks, peer.model) if peer.model else {})
        self.target = Target(
            port,
            prefix=parts.path.rstrip("/"),
            host=parts.hostname or "127.0.0.1",
            headers=headers,
            models=models,
            dialects=tuple(peer.speaks),
            exact=peer.exact,
            keeps_body=peer.exact,
            must_carry=peer.must_carry,
        )

    def stop(self) -> None:
        super().stop()
        for thread, cores in self._outside.items():
            try:
                os.sched_setaffinity(thread, cores)
            except OSError:
                continue
        self._outside.clear()

    def pids(self) -> list[int]:
        if self._child is not None:
            return cpu.tree(self._child.pid)
        return cpu.tree(self._peer.pid) if self._peer.pid else []

    def _launch(self, place: Place) -> tuple[str, dict[str, str]]:
        peer, home, port = self._peer, self._home(place), free_port()
        words = {
            "{port}": str(port),
            "{mock}": str(place.mock_port),
            "{dir}": str(home),
            "{peers}": str(INSTALLED),
            "{half_descriptors}": str(min(place.descriptors // 2, 65_536)),
        }

        def filled(text: str) -> str:
            for word, meaning in words.items():
                text = text.replace(word, meaning)
            return text

        for name, text in peer.files.items():
            (home / name).write_text(filled(text))
        command = [filled(word) for word in peer.start]
        needed = [word for word in command if word.startswith(str(INSTALLED))]
        if shutil.which(command[0]) is None or not all(Path(word).exists() for word in needed):
            raise CannotStart(peer.install or f"install {command[0]}")
        if peer.version:
            self.version = self._ask_version([filled(word) for word in peer.version])
        env = {name: filled(value) for name, value in peer.env.items()}
        self._child = Child(command, cores=place.cores, log=home / "log", env=env)
        try:
            self._child.wait_for(port, peer.ready_seconds, peer.ready)
        except CannotStart:
            self.stop()
            raise
        return filled(peer.url), {name: filled(text) for name, text in peer.headers.items()}

    def _ask_version(self, command: list[str]) -> str:
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        number = re.search(r"\d+\.\d+[\w.+-]*", said.stdout + said.stderr)
        return number.group() if number else ""

    def _pin(self, cores: set[int]) -> None:
        """One core for it as for all others; its own places come back at the end."""
        for pid in self.pids():
            try:
                threads = [int(task.name) for task in (cpu.PROC / str(pid) / "task").iterdir()]
                for thread in threads:
                    self._outside[thread] = os.sched_getaffinity(thread)
                    os.sched_setaffinity(thread, cores)
            except OSError:
                continue
