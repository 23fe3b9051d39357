"""How a Parapet starts that nobody else has started: it binds what is listened on, and says so."""

import socket
from dataclasses import dataclass
from pathlib import Path

from proxy.app.life import forward_proxies
from proxy.app.version import VERSION
from proxy.settings.files import ensure_directory
from proxy.settings.load import Loaded
from proxy.telemetry.logs import Log, open_log
from proxy.workers.supervisor import bind, raise_descriptor_limit


@dataclass(frozen=True, slots=True)
class Started:
    """What it holds: its directory, the bound listeners (one of data for each worker), its log."""

    state_dir: Path
    control: socket.socket
    listeners: list[socket.socket]
    log: Log


def start(loaded: Loaded, role: str, workers: int, *, insecure: bool) -> Started | int:
    """Bind everything; the exit code when that cannot be."""
    log = open_log(role, loaded.known_secrets())
    for warning in loaded.warnings:
        log.warning("config.warning", {"warning": str(warning)})
    if insecure:
        log.warning("insecure", {"detail": "listeners may be reachable without keys"})
    try:
        forward_proxies()
    except ValueError as fault:
        log.error("start.failed", {"reason": str(fault)})
        return 2
    server = loaded.config.server
    try:
        state_dir = state_directory(loaded)
        control = bind(server.control_listen)
        listeners = [bind(server.listen, reuse_port=True) for _ in range(workers)]
    except OSError as fault:
        log.error("start.failed", {"reason": str(fault)})
        return 1
    descriptors = raise_descriptor_limit()
    log.info(
        "start",
        {"version": VERSION, "data": server.listen, "control": server.control_listen,
         "workers": workers, "streams_per_worker": descriptors // 2},
    )  # fmt: skip
    return Started(state_dir, control, listeners, log)


def state_directory(loaded: Loaded) -> Path:
    """The directory of its state, made when it is not there.  Raises OSError."""
    path = Path(loaded.config.server.state_dir)
    ensure_directory(path)
    return path.resolve()
