"""Parapet as a child process: its own state, its own ports, real signals.

    async with running({"workspaces": [workspace]}, tmp_path) as parapet:
        answer = await post(parapet.url + "/v1/chat/completions", {...})
        os.kill(await parapet.pid_of("worker"), signal.SIGKILL)

Every child leads a process group of its own; the group is killed when the test is over, so nothing
stays behind.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.kit.httpclient import Answer, get, request

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 60.0  # a busy machine is not what a test of something else is about
STOPPED_WITHIN_S = 15.0
_POLL_S = 0.05


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class Parapet:
    """One `python -m proxy serve`.  `config` is the file's content; `server` is filled in.

    Standard output and error go to `log_file`; `log` reads it.
    """

    def __init__(
        self,
        config: Mapping[str, object],
        state_dir: Path,
        *,
        single: bool = True,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.state_dir = state_dir
        self.config_file = state_dir / "parapet.yaml"
        self.log_file = state_dir / "parapet.log"
        self.data_port, self.control_port = free_ports(2)
        self.config = dict(config)
        self._single = single
        self._env = dict(env or {})
        self._options = list(options)
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<Parapet pid {self._process.pid if self._process else '-'} on {self.url}>"

    @property
    def url(self) -> str:
        """The data plane."""
        return f"http://127.0.0.1:{self.data_port}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def pid(self) -> int:
        """The process that was started: the supervisor, or the only one with `--single`."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def admin_key(self) -> str:
        return (self.state_dir / "admin.key").read_text().strip()

    def write_config(self, config: Mapping[str, object] | None = None) -> None:
        """Writes the file (JSON is YAML).  A running Parapet reads it again on SIGHUP."""
        self.config = dict(self.config if config is None else config)
        server = {
            "listen": f"127.0.0.1:{self.data_port}",
            "control_listen": f"127.0.0.1:{self.control_port}",
            "state_dir": str(self.state_dir),
            **dict(_mapping(self.config.get("server"))),
        }
        drain = {"lb_delay_seconds": 0, **dict(_mapping(self.config.get("drain")))}
        whole = {**self.config, "server": server, "drain": drain}
        self.config_file.write_text(json.dumps(whole, indent=2))

    async def start(self, *, ready: bool = True) -> Self:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.write_config()
        command = [sys.executable, "-m", "proxy", "serve", "-c", str(self.config_file)]
        command += ["--single"] if self._single else []
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *self._options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={"PATH": os.defpath, "HOME": str(self.state_dir), **self._env},
                start_new_session=True,
            )
        if ready:
            await self.ready()
        return self

    async def ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Waits for 200 from `/readyz`.  A process that ends before fails with its log."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            code = self._process.returncode if self._process else None
            if code is not None:
                raise AssertionError(f"ended with {code} before it was ready:\n{self.log}")
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                if (await get(self.control_url + "/readyz")).status == 200:
                    return
            await asyncio.sleep(_POLL_S)
        raise AssertionError(f"not ready after {within_s} s:\n{self.log}")

    async def control(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One call of the control API with the admin key."""
        data = b"" if body is None else json.dumps(body).encode()
        named = {"authorization": f"Bearer {self.admin_key}", **headers}
        if data:
            named["content-type"] = "application/json"
        return await request(method, self.control_url + path, data, named)

    async def status(self) -> dict[str, Any]:
        answer = await self.control("GET", "/v1/status")
        assert answer.status == 200, answer.text
        return dict(answer.json)

    async def pid_of(self, role: str, slot: int | None = None) -> int:
        """The process of that role: `worker` (of a slot) or `control`."""
        processes = (await self.status())["processes"]
        for process in processes:
            if process["role"] == role and slot in (None, process.get("slot")):
                return int(process["pid"])
        raise AssertionError(f"no {role} {slot or ''} in {processes}")

    async def events(self, count: int = 1, within_s: float = 5.0, **filters: str) -> list[Any]:
        """Events of workspace `default` in the order of arrival, once there are `count`."""
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        path = f"/v1/workspaces/default/events?limit=100&sort=created_at:asc&{query}".rstrip("&")
        until = time.monotonic() + within_s
        while True:
            answer = await self.control("GET", path)
            assert answer.status == 200, answer.text
            found = list(answer.json["data"])
            if len(found) >= count:
                return found
            assert time.monotonic() < until, f"{len(found)} of {count} events: {found}"
            await asyncio.sleep(_POLL_S)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process that was started."""
        os.kill(self.pid, number)

    async def ended(self, within_s: float = STOPPED_WITHIN_S) -> int:
        """Waits for the exit code; negative: the signal that killed it."""
        assert self._process is not None, "not started"
        async with asyncio.timeout(within_s):
            return await self._process.wait()

    async def stop(self, within_s: float = STOPPED_WITHIN_S) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(within_s)

    async def kill(self) -> None:
        """SIGKILL to the whole group, children included."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


@contextlib.asynccontextmanager
async def running(
    config: Mapping[str, object],
    state_dir: Path,
    *,
    single: bool = True,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Parapet]:
    """A Parapet that is ready; gone afterwards, however the test went."""
    parapet = Parapet(config, state_dir, single=single, env=env)
    try:
        yield await parapet.start()
    finally:
        await parapet.kill()


def workspace(
    endpoints: Sequence[Mapping[str, object]],
    routes: Sequence[Mapping[str, object]],
    *policies: Mapping[str, object],
    **more: object,
) -> dict[str, object]:
    """The configuration of one workspace, `default`."""
    only = {
        "id": "default",
        "endpoints": list(endpoints),
        "routes": list(routes),
        "failover_policies": list(policies),
        **more,
    }
    return {"workspaces": [only]}


def endpoint(name: str, provider: str, base_url: str, **more: object) -> dict[str, object]:
    """An endpoint on the loopback address with a key of its own."""
    told: dict[str, object] = {
        "id": name,
        "provider": provider,
        "base_url": base_url,
        "api_key": "upstream-key",
        "allow_private": True,
    }
    if provider == "bedrock":
        told["region"] = "us-east-1"
    return told | more
