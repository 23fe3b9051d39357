"""The entries of the processes: `serve` (supervisor, or both halves with `--single`), the control
process, a data worker.  Each builds its parts, serves, and ends on a signal.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from proxy.app.control import ControlHalf
from proxy.app.data import GC_THRESHOLDS, DataHalf, DrainLimits
from proxy.app.version import VERSION
from proxy.app.workers import LinkedWorkers, LocalWorker
from proxy.link.client import Apply, LinkClient
from proxy.link.server import LinkServer
from proxy.model.exchange import Json
from proxy.model.tenancy import SnapshotDoc
from proxy.runtime.clock import SystemClock
from proxy.runtime.ids import UlidIds
from proxy.runtime.loop import new_loop
from proxy.runtime.tasks import background, on_crash
from proxy.settings.files import ensure_directory
from proxy.settings.load import Loaded, load_config
from proxy.settings.options import ControlOptions, ServeOptions, WorkerOptions
from proxy.settings.secrets import (
    SecretReader,
    ensure_server_key,
    environment,
    secret_values,
)
from proxy.settings.snapshot import read_snapshot
from proxy.storage.faults import CannotOpen
from proxy.telemetry.logs import Log, open_log
from proxy.upstream.origin import Proxies
from proxy.workers.supervisor import (
    CONTROL_FROZEN_S,
    WORKER_FROZEN_S,
    Child,
    Line,
    Supervisor,
    bind,
    raise_descriptor_limit,
)

LINK: Final = "link.sock"
INTERRUPTED_S: Final = 5.0


# --- serve


def serve(options: ServeOptions) -> int:
    """`parapet serve`.  Raises ConfigError (exit 2)."""
    loaded = load_config(options.config, insecure=options.insecure)
    return serve_loaded(loaded, single=options.single, insecure=options.insecure)


def serve_loaded(
    loaded: Loaded,
    *,
    single: bool,
    insecure: bool = False,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Serve until a signal says stop.  `on_ready` is called when callers are served."""
    log = open_log("supervisor" if not single else "single", known_secrets(loaded))
    for warning in loaded.warnings:
        log.warning("config.warning", {"warning": str(warning)})
    if insecure:
        log.warning("insecure", {"detail": "listeners may be reachable without keys"})
    try:
        _proxies()
    except ValueError as fault:
        log.error("start.failed", {"reason": str(fault)})
        return 2
    try:
        state_dir = _state_dir(loaded)
        control = bind(loaded.config.server.control_listen)
        count = 1 if single else _worker_count(loaded)
        listeners = [bind(loaded.config.server.listen, reuse_port=True) for _ in range(count)]
    except OSError as fault:
        log.error("start.failed", {"reason": str(fault)})
        return 1
    descriptors = raise_descriptor_limit()
    log.info(
        "start",
        {"version": VERSION, "data": loaded.config.server.listen,
         "control": loaded.config.server.control_listen, "workers": count,
         "streams_per_worker": descriptors // 2},
    )  # fmt: skip
    if single:
        return _run(_single(loaded, state_dir, control, listeners[0], log, on_ready), log)
    return _run(_supervise(loaded, state_dir, control, listeners, log, insecure), log)


async def _supervise(
    loaded: Loaded,
    state_dir: Path,
    control: socket.socket,
    listeners: Sequence[socket.socket],
    log: Log,
    insecure: bool,
) -> int:
    clock = SystemClock()
    arguments = ["_control", "-c", str(loaded.path)] + (["--insecure"] if insecure else [])
    children = [Child("control", 0, arguments, control, CONTROL_FROZEN_S)]
    for slot, listener in enumerate(listeners):
        worker = ["_worker", "--slot", str(slot), "--state-dir", str(state_dir)]
        children.append(Child("worker", slot, worker, listener, WORKER_FROZEN_S))
    return await Supervisor(children, clock, log.info).run()


async def _single(
    loaded: Loaded,
    state_dir: Path,
    control_listener: socket.socket,
    listener: socket.socket,
    log: Log,
    on_ready: Callable[[], None] | None,
) -> int:
    """Both halves in one process, behind the same ports."""
    clock, ids = SystemClock(), UlidIds()
    data = _data_half(0, state_dir, loaded.reader, log)
    worker = LocalWorker(data)
    stop = _Stop()
    try:
        control = ControlHalf(loaded, state_dir, clock, ids, log, worker, worker.publish)
        stop.on_hangup(control.reload)
        control.standings.workers = worker
        worker.talk(control.standings)
        await control.start(control_listener)
    except CannotOpen as fault:
        log.error("start.failed", {"reason": str(fault)})
        return 1
    await data.ready.wait()
    await data.start(listener)
    background(worker.report(clock, control.take_totals), name="totals")
    limits = data.limits
    background(limits.report(lambda doc: limits.take(control.limits.take(0, doc))), name="limits")
    if on_ready is not None:
        on_ready()
    log.info("ready", {})
    await stop.wait()
    control.begin_drain()
    await data.drain(stop.limits(loaded))
    worker.flush(control.take_totals)
    await control.stop()
    return 0


# --- the processes of the supervisor


def run_control(options: ControlOptions) -> int:
    """The control process."""
    loaded = load_config(options.config, insecure=True)
    log = open_log("control", known_secrets(loaded))
    return _run(_control(loaded, options, log), log)


async def _control(loaded: Loaded, options: ControlOptions, log: Log) -> int:
    clock, ids = SystemClock(), UlidIds()
    state_dir = _state_dir(loaded)
    stop = _Stop()
    line = Line(options.alive_fd, clock, stop.set)
    line.open()
    half: ControlHalf | None = None

    def take(slot: int, totals: dict[str, Json]) -> None:
        if half is not None:
            half.take_totals(slot, totals)

    link = LinkServer(take)
    workers = LinkedWorkers(link)
    try:
        half = ControlHalf(loaded, state_dir, clock, ids, log, workers, workers.publish)
        half.standings.workers, link.host = link, half.standings
        stop.on_hangup(half.reload)
        await half.start(_adopt(options.listen_fd))
    except CannotOpen as fault:
        log.error("start.failed", {"reason": str(fault)})
        return 1
    link.on_limits = half.limits.take
    await link.start(state_dir / LINK)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # a chunk of the spool is a hundred default collections
    line.ready()
    log.info("ready", {})
    await stop.wait()
    await half.stop()
    await link.close()
    return 0


def run_worker(options: WorkerOptions) -> int:
    """One data worker: rules come as snapshots, from the disk first, then over the link."""
    log = open_log(f"worker-{options.slot}", ())
    return _run(_worker(options, log), log)


async def _worker(options: WorkerOptions, log: Log) -> int:
    clock = SystemClock()
    stop = _Stop()
    line = Line(options.alive_fd, clock, stop.set)
    line.open()
    secrets = SecretReader(environment())
    data = _data_half(options.slot, options.state_dir, secrets, log)
    apply = learning(log, secrets, data.apply)
    client = LinkClient(
        options.state_dir / LINK, options.slot, apply, data.totals_doc, clock, data.share
    )
    data.share.to(client.send)
    cold = await asyncio.to_thread(read_snapshot, options.state_dir)
    if cold is not None:
        log.learn(await asyncio.to_thread(secret_values, [cold], secrets))
        client.version, _ = await data.apply_snapshot(cold)
    background(client.run(), name="link")
    background(client.report(), name="totals")
    client.take_limits = data.limits.take
    background(data.limits.report(client.say_limits), name="limits")
    await data.ready.wait()
    await data.share.first_word()
    await data.start(_adopt(options.listen_fd))
    line.ready()
    log.info("ready", {"version": client.version})
    await stop.wait()
    await data.drain(stop.drain_limits(data.drain_settings()))
    client.flush()
    await asyncio.sleep(0.05)  # let the last totals leave
    return 0


# --- shared


class _Stop:
    """The signals of a process that serves.  SIGINT: now, within five seconds; twice: at once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._quick = False
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def set(self) -> None:
        self._event.set()

    def _interrupt(self) -> None:
        if self._event.is_set():
            os._exit(1)
        self._quick = True
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    def on_hangup(self, reload: Callable[[], Awaitable[object]]) -> None:
        async def act() -> None:
            await reload()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: background(act(), name="reload"))

    def limits(self, loaded: Loaded) -> DrainLimits:
        drain = loaded.config.drain
        return self.drain_limits(
            DrainLimits(drain.lb_delay_seconds, drain.timeout_seconds, drain.stream_seconds)
        )

    def drain_limits(self, limits: DrainLimits) -> DrainLimits:
        return DrainLimits(0.0, INTERRUPTED_S, INTERRUPTED_S) if self._quick else limits


def _data_half(slot: int, state_dir: Path, secrets: SecretReader, log: Log) -> DataHalf:
    return DataHalf(
        slot=slot,
        state_dir=state_dir,
        clock=SystemClock(),
        ids=UlidIds(),
        server_key=ensure_server_key(state_dir),
        secrets=secrets,
        on_bug=log.bug,
        tell=log.observe,
        proxies=_proxies(),
    )


def learning(log: Log, secrets: SecretReader, apply: Apply) -> Apply:
    """`apply`, before which the log learns what it must never show of the new rules."""

    def values(document: dict[str, Json]) -> set[str] | None:
        try:
            return secret_values([SnapshotDoc.model_validate(document)], secrets)
        except ValidationError:
            return None  # `apply` refuses it, and says so

    async def learn_and_apply(document: dict[str, Json]) -> tuple[int, str]:
        found = await asyncio.to_thread(values, document)
        if found is not None:
            log.learn(found)
        return await apply(document)

    return learn_and_apply


def _proxies() -> Proxies:
    """The forward proxies that the environment names (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`)."""
    variables = environment()

    def named(name: str) -> str | None:
        return variables.get(name.lower()) or variables.get(name) or None

    return Proxies(named("HTTP_PROXY"), named("HTTPS_PROXY"), named("NO_PROXY") or "")


def known_secrets(loaded: Loaded) -> set[str]:
    """Every secret value of the configuration, for the redaction filter."""
    return secret_values([loaded.config], loaded.reader)


def _adopt(fd: int) -> socket.socket:
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    return listener


def _state_dir(loaded: Loaded) -> Path:
    path = Path(loaded.config.server.state_dir)
    ensure_directory(path)
    return path.resolve()


def _worker_count(loaded: Loaded) -> int:
    workers = loaded.config.server.workers
    return max(1, (os.cpu_count() or 2) - 1) if workers == "auto" else workers


def _run(work: Coroutine[Any, Any, int], log: Log) -> int:
    """Run on uvloop, or on the standard loop and say so."""
    on_crash(lambda name, fault: log.crash(name, fault))
    factory, note = new_loop()
    if note:
        log.warning("loop", {"detail": note})
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
    return 1
