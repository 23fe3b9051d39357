"""`parapet serve`: the supervisor, which builds nothing but the processes that it starts."""

import os

from proxy.app.life import run
from proxy.app.starting import Started, start
from proxy.runtime.clock import SystemClock
from proxy.settings.load import Loaded
from proxy.workers.supervisor import CONTROL_FROZEN_S, WORKER_FROZEN_S, Child, Supervisor


def serve(loaded: Loaded, *, insecure: bool) -> int:
    """Serve until a signal says stop."""
    started = start(loaded, "supervisor", _worker_count(loaded), insecure=insecure)
    if isinstance(started, int):
        return started
    return run(_supervise(loaded, started, insecure), started.log)


async def _supervise(loaded: Loaded, at: Started, insecure: bool) -> int:
    arguments = ["_control", "-c", str(loaded.path)] + (["--insecure"] if insecure else [])
    children = [Child("control", 0, arguments, at.control, CONTROL_FROZEN_S)]
    for slot, listener in enumerate(at.listeners):
        worker = ["_worker", "--slot", str(slot), "--state-dir", str(at.state_dir)]
        children.append(Child("worker", slot, worker, listener, WORKER_FROZEN_S))
    return await Supervisor(children, SystemClock(), at.log.info).run()


def _worker_count(loaded: Loaded) -> int:
    workers = loaded.config.server.workers
    return max(1, (os.cpu_count() or 2) - 1) if workers == "auto" else workers
