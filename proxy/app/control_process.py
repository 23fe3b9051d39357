"""The control process: its entry.  It builds the control half alone."""

from proxy.app.control import ControlHalf
from proxy.app.life import Stop, adopt, run, settle_garbage
from proxy.app.starting import state_directory
from proxy.app.workers import LinkedWorkers
from proxy.link.frames import SOCKET
from proxy.link.server import LinkServer
from proxy.model.exchange import Json
from proxy.runtime.clock import SystemClock
from proxy.runtime.ids import UlidIds
from proxy.settings.load import Loaded, load_config
from proxy.settings.options import ControlOptions
from proxy.storage.faults import CannotOpen
from proxy.telemetry.logs import Log, open_log
from proxy.workers.supervisor import Line


def run_control(options: ControlOptions) -> int:
    """The control process."""
    loaded = load_config(options.config, insecure=True)
    log = open_log("control", loaded.known_secrets())
    return run(_control(loaded, options, log), log)


async def _control(loaded: Loaded, options: ControlOptions, log: Log) -> int:
    clock, ids = SystemClock(), UlidIds()
    state_dir = state_directory(loaded)
    stop = Stop()
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
        await half.start(adopt(options.listen_fd))
    except CannotOpen as fault:
        log.error("start.failed", {"reason": str(fault)})
        return 1
    link.on_limits = half.limits.take
    await link.start(state_dir / SOCKET)
    settle_garbage()  # a chunk of the spool is a hundred default collections
    line.ready()
    log.info("ready", {})
    await stop.wait()
    await half.stop()
    await link.close()
    return 0
