"""What is measured: nginx as the floor, Parapet in several dresses, and the mock itself.

Each listens on a free port before the same mock, pinned to the core under test, in the fair
configuration: one worker, keep-alive on both sides, no access log.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import yaml

from benchmarks.load import cpu
from benchmarks.load.children import CannotStart, Child, free_port
from benchmarks.load.texts import Dialect
from proxy.app.version import COMPILED

ROOT = Path(__file__).parents[2]
NGINX = """\
worker_processes 1;
worker_rlimit_nofile {descriptors};
error_log stderr error;
pid nginx.pid;
daemon off;
events {{ worker_connections {descriptors}; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  upstream mock {{
    server 127.0.0.1:{mock}; keepalive 512; keepalive_requests 1000000000; keepalive_timeout 300s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer sk-upstream";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything runs."""

    mock_port: int
    cores: set[int]  # of the subject under test
    descriptors: int
    scratch: Path


@dataclass(frozen=True, slots=True)
class Target:
    """How the generator reaches a subject."""

    port: int
    prefix: str = "/v1"
    prefixes: Mapping[Dialect, str] = field(default_factory=dict)  # where one dialect has its own
    host: str = "127.0.0.1"
    headers: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[Dialect, str] = field(default_factory=dict)
    dialects: tuple[Dialect, ...] = ("openai-chat", "anthropic-messages")
    exact: bool = True  # answers must be the mock's, byte for byte
    must_carry: str = ""  # a header line that every answer must have
    keeps_body: bool = True  # requests must reach the mock byte for byte

    def path(self, dialect: Dialect) -> str:
        tail = "/chat/completions" if dialect == "openai-chat" else "/messages"
        return self.prefixes.get(dialect, self.prefix) + tail


class Subject:
    """One row of the table: started once, measured many times."""

    name: str
    version = ""
    guards = "none"
    on: tuple[str, ...] = ()
    config = ""
    connections: int | None = None  # instead of what the workload says
    variant = False  # there only to tell a difference: no row of its own
    target: Target
    scraps: Path
    _child: Child | None = None

    def start(self, place: Place) -> None:
        """Come up, or raise `CannotStart` with the reason."""
        raise NotImplementedError

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def pids(self) -> list[int]:
        """The processes whose CPU is of record."""
        return cpu.tree(self._child.pid) if self._child else []

    def side_pids(self) -> list[int]:
        """Processes beside the path of requests, whose CPU has a column of its own."""
        return []

    def config_sha256(self) -> str:
        """Of the configuration, ports and places aside."""
        lasting = re.sub(r"127\.0\.0\.1:\d+|\S*/bench-\S*", "", self.config)
        return hashlib.sha256(lasting.encode()).hexdigest()

    def _home(self, place: Place) -> Path:
        return Path(tempfile.mkdtemp(prefix=self.name.replace(" ", "-") + "-", dir=place.scratch))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.version}>"


class Direct(Subject):
    """The mock without anything before it: what latency is added to."""

    name = "direct"
    guards = "-"

    def start(self, place: Place) -> None:
        self.target = Target(place.mock_port)


class Nginx(Subject):
    """The floor, present in every round: 1 N."""

    name = "nginx"

    def start(self, place: Place) -> None:
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(binary).exists():
            raise CannotStart("not installed (Debian: apt-get install nginx)")
        said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=False)
        self.version = said.stderr.rpartition("/")[2].split()[0]
        home, port = self._home(place), free_port()
        count = min(place.descriptors // 2, 65_536)
        self.config = NGINX.format(mock=place.mock_port, port=port, descriptors=count)
        (home / "nginx.conf").write_text(self.config)
        command = [binary, "-p", f"{home}/", "-c", f"{home}/nginx.conf", "-e", "stderr"]
        self._child = Child(command, cores=place.cores, log=home / "log")
        self._child.wait_for(port, 5)
        self.target = Target(port)


KEY_ID, KEY_SECRET = "bench0000001", "b" * 40
ADMIN_KEY = "bench-admin-key-of-forty-characters-long"


class Parapet(Subject):
    """Parapet, one data worker.  `without` names what is switched off: pack, failover."""

    def __init__(self, name: str, without: frozenset[str] = frozenset()) -> None:
        self.name, self._without = name, without
        self.variant = "failover" in without
        parts = ("keys", "pack", "events", "metrics", "health", "failover")
        self.on = tuple(part for part in parts if part not in without)
        self.guards = "none" if "pack" in without else "secrets-core, both ways"
        self._workers: list[int] = []
        self._beside: list[int] = []

    def start(self, place: Place) -> None:
        home, port, control = self._home(place), free_port(), free_port()
        self.config = yaml.safe_dump(self._document(place, home, port, control), sort_keys=False)
        (home / "parapet.yaml").write_text(self.config)
        command = [sys.executable, "-m", "proxy", "serve", "-c", str(home / "parapet.yaml")]
        self._child = Child(command, cores=place.cores, log=home / "log", cwd=ROOT)
        try:
            self._child.wait_for(control, 20, "/readyz")
            self._child.wait_for(port, 10)
            self._tell_apart(control)
        except CannotStart:
            self.stop()
            raise
        self.target = Target(
            port,
            prefix="/r/bench/v1",
            prefixes={"anthropic-messages": "/r/bench-messages/v1"},
            headers={"Authorization": f"Bearer ppt_{KEY_ID}_{KEY_SECRET}"},
            exact="pack" in self._without,
        )

    def pids(self) -> list[int]:
        return self._workers

    def side_pids(self) -> list[int]:
        return self._beside

    def _tell_apart(self, control: int) -> None:
        """Learn from the control API which process is which."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{control}/v1/status",
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
        )
        assert self._child is not None
        found: dict[str, list[int]] = {}
        deadline = time.monotonic() + 5
        while "worker" not in found and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(request, timeout=2) as answer:
                    status = orjson.loads(answer.read())
            except OSError as error:
                raise CannotStart(f"/v1/status: {error}") from error
            self.version = str(status.get("version", "")) + (", compiled" if COMPILED else "")
            for process in status.get("processes", []):
                found.setdefault(process["role"], []).append(process["pid"])
            time.sleep(0.1)
        if "worker" not in found:
            raise CannotStart("/v1/status names no data worker")
        self._workers = found["worker"]
        self._beside = [pid for pid in cpu.tree(self._child.pid) if pid not in self._workers]

    def _document(self, place: Place, home: Path, port: int, control: int) -> dict[str, object]:
        def endpoint(name: str, provider: str, path: str) -> dict[str, object]:
            return {
                "id": name,
                "provider": provider,
                "base_url": f"http://127.0.0.1:{place.mock_port}{path}",
                "api_key": "sk-upstream",
                "allow_private": True,
            }

        def policy(route: str) -> dict[str, object]:
            return {
                "route_id": route,
                "primary_endpoint": route,
                "fallback_endpoints": [f"{route}-too"],
                "conditions": {"latency_threshold_ms": 2000, "error_rate_threshold": 0.1},
            }

        packs = [] if "pack" in self._without else ["secrets-core"]
        routes = {"bench": ("openai", "/v1"), "bench-messages": ("anthropic", "")}
        digest = hashlib.sha256(KEY_SECRET.encode()).hexdigest()
        return {
            "server": {
                "listen": f"127.0.0.1:{port}",
                "control_listen": f"127.0.0.1:{control}",
                "workers": 1,
                "state_dir": str(home / "state"),
                "data_auth": "keys",
                "admin_key": ADMIN_KEY,
                "max_in_flight": 100_000,
            },
            "drain": {"lb_delay_seconds": 0, "timeout_seconds": 1, "stream_seconds": 1},
            "workspaces": [
                {
                    "id": "default",
                    "default_route": "bench",
                    "endpoints": [
                        endpoint(route + end, *where)
                        for route, where in routes.items()
                        for end in ("", "-too")
                    ],
                    "routes": [
                        {"id": route, "endpoint": route, "policy_packs": packs} for route in routes
                    ],
                    "failover_policies": (
                        [] if "failover" in self._without else [policy(route) for route in routes]
                    ),
                    "keys": [{"id": KEY_ID, "secret_sha256": digest, "role": "app"}],
                }
            ],
        }


def everything() -> list[Subject]:
    """Ours, in the order of the table."""
    return [
        Direct(),
        Nginx(),
        Parapet("parapet"),
        Parapet("parapet bare", frozenset({"pack"})),
        Parapet("parapet no policy", frozenset({"failover"})),
    ]
