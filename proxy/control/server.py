"""The control listener, put together: one call gives a runner that `app.py` starts and stops."""

import socket

from aiohttp import web

from proxy.control.body import BodyPace
from proxy.control.frame import ControlDeps
from proxy.control.listener import Listener, ListenerLimits
from proxy.control.middleware import Checks

SHUTDOWN_S = 5.0


def build_control(
    deps: ControlDeps,
    *,
    limits: ListenerLimits | None = None,
    pace: BodyPace | None = None,
) -> web.ServerRunner:
    """A runner of the control API, to be called on the loop that serves it.

    `await runner.setup()`, then `web.SockSite(runner, socket)`; `await runner.cleanup()` ends it.
    """
    limits = limits or ListenerLimits()
    checks = Checks(deps, pace or BodyPace(), limits.handler_s)
    return web.ServerRunner(Listener(checks, limits), shutdown_timeout=SHUTDOWN_S)


async def start_control(
    deps: ControlDeps,
    listener: socket.socket,
    *,
    limits: ListenerLimits | None = None,
    pace: BodyPace | None = None,
) -> web.ServerRunner:
    """Serve on a bound socket.  The caller ends it by `await runner.cleanup()`."""
    runner = build_control(deps, limits=limits, pace=pace)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    return runner
