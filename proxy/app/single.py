"""Both halves in one process, behind the same ports: `parapet serve --single`, and the demo."""

from collections.abc import Callable

from proxy.app.control import ControlHalf
from proxy.app.life import Stop, run
from proxy.app.starting import Started, start
from proxy.app.worker_process import data_half
from proxy.app.workers import LocalWorker
from proxy.runtime.clock import SystemClock
from proxy.runtime.ids import UlidIds
from proxy.runtime.tasks import background
from proxy.settings.load import Loaded
from proxy.storage.faults import CannotOpen


def serve_single(
    loaded: Loaded, *, insecure: bool = False, on_ready: Callable[[], None] | None = None
) -> int:
    """Serve until a signal says stop.  `on_ready` is called when callers are served."""
    started = start(loaded, "single", 1, insecure=insecure)
    if isinstance(started, int):
        return started
    return run(_single(loaded, started, on_ready), started.log)


async def _single(loaded: Loaded, at: Started, on_ready: Callable[[], None] | None) -> int:
    clock, ids, log = SystemClock(), UlidIds(), at.log
    data = data_half(0, at.state_dir, loaded.reader, log)
    worker = LocalWorker(data)
    stop = Stop()
    try:
        control = ControlHalf(loaded, at.state_dir, clock, ids, log, worker, worker.publish)
        stop.on_hangup(control.reload)
        control.standings.workers = worker
        worker.talk(control.standings)
        await control.start(at.control)
    except CannotOpen as fault:
        log.error("start.failed", {"reason": str(fault)})
        return 1
    if not await stop.unless(data.ready):
        await data.close()
        await control.stop()
        return 0
    await data.start(at.listeners[0])
    background(worker.report(clock, control.take_totals), name="totals")
    limits = data.limits
    background(limits.report(lambda doc: limits.take(control.limits.take(0, doc))), name="limits")
    if on_ready is not None:
        on_ready()
    log.info("ready", {})
    await stop.wait()
    control.begin_drain()
    await data.drain(stop.drain_limits(data.drain_settings()))
    worker.flush(control.take_totals)
    await control.stop()
    return 0
