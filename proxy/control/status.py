"""What the process tells of itself, and the few operations on it."""

from dataclasses import replace
from typing import Final

from proxy.control.config import Principal
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.gauges import show_endpoints
from proxy.control.idempotency import Ticket, once
from proxy.control.problems import KINDS, Problem
from proxy.control.readiness import NodeStatus
from proxy.model.events import iso
from proxy.model.exchange import Json

LOOP_LAG_MAX_S: Final = 5.0
TEXT: Final = "text/plain; charset=utf-8"
METRICS_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


async def healthz(_: Passage, deps: ControlDeps) -> Reply:
    """Ask whether the process is alive.

    200 while the event loop turns, else 503."""
    lag_s = deps.status.loop_lag_s()
    well = lag_s < LOOP_LAG_MAX_S
    doc: dict[str, Json] = {
        "status": "ok" if well else "stuck",
        "loop_lag_seconds": round(lag_s, 3),
    }
    return Reply.json(200 if well else 503, doc)


async def readyz(_: Passage, deps: ControlDeps) -> Reply:
    """Ask whether this node may get traffic.

    What is degraded is said and still 200."""
    readiness = deps.status.readiness()
    word = "ready" if readiness.ready else "not_ready"
    if readiness.ready and readiness.degraded:
        word = "degraded"
    doc: dict[str, Json] = {
        "status": word,
        "config": readiness.config,
        "storage": readiness.storage,
        "workers": readiness.workers,
        "draining": readiness.draining,
        "degraded": [*readiness.degraded],
    }
    return Reply.json(200 if readiness.ready else 503, doc)


async def status(passage: Passage, deps: ControlDeps) -> Reply:
    """Get the state of this node.

    A key that is bound to workspaces is told nothing of others, nor what is wrong in the file."""
    node = deps.status.status()
    caller = passage.caller
    if caller.workspaces is not None:
        node = _narrowed(node, caller)
    return Reply.json(200, status_doc(node))


def _narrowed(node: NodeStatus, caller: Principal) -> NodeStatus:
    """SECURITY: what names a document of another workspace, or may, is left out."""

    def own(told: str) -> bool:
        workspace_id, slash, _ = told.partition("/")
        return bool(slash) and caller.bound_to(workspace_id)

    return replace(
        node,
        config=replace(node.config, error=None, warnings=[]),
        shadowed=[told for told in node.shadowed if own(told)],
        refused=[told for told in node.refused if own(told)],
    )


def status_doc(node: NodeStatus) -> dict[str, Json]:
    config = node.config
    return {
        "node_id": node.node_id,
        "version": node.version,
        "uptime_seconds": round(node.uptime_seconds, 1),
        "config": {
            "hash": config.sha256,
            "valid": config.valid,
            "error": config.error,
            "loaded_at": iso(config.loaded_at_ms) if config.loaded_at_ms else None,
            "warnings": [*config.warnings],
            "restart_required": [*config.restart_required],
        },
        "config_version": node.config_version,
        "workers": [
            {
                "slot": worker.slot,
                "config_version": worker.config_version,
                "connected": worker.connected,
                "restarts": worker.restarts,
                "rejected": worker.rejected,
            }
            for worker in node.workers
        ],
        "processes": [
            {"role": process.role, "slot": process.slot, "pid": process.pid}
            for process in node.processes
        ],
        "leader": node.leader,
        "store": node.store,
        "redis": node.redis,
        "spool": {"bytes": node.spool.bytes, "lag_seconds": round(node.spool.lag_seconds, 3)},
        "shadowed": [*node.shadowed],
        "refused": [*node.refused],
        "nodes": [
            {
                "node_id": each.node_id,
                "file_hash": each.file_sha256,
                "last_beat_at": iso(each.at_ms) if each.at_ms else None,
            }
            for each in node.nodes
        ],
        "warnings": [*node.warnings],
    }


async def problem_page(passage: Passage, _: ControlDeps) -> Reply:
    """Read what a kind of problem means."""
    slug = passage.params["slug"]
    kind = KINDS.get(slug)
    if kind is None:
        raise Problem("not-found", "no such problem")
    text = f"{kind.title}\n\nslug: {slug}\nstatus: {kind.status}\n\n{kind.about}\n"
    return Reply(200, text.encode(), media=TEXT)


async def metrics(_: Passage, deps: ControlDeps) -> Reply:
    """Get the metrics in the text format of Prometheus."""
    show_endpoints(deps.metrics, deps.standings.all(), deps.clock.monotonic())
    return Reply(200, deps.metrics.render(), media=METRICS_TEXT)


async def reload(passage: Passage, deps: ControlDeps) -> Reply:
    """Read the configuration file again.

    It is in force, or the answer is 422 with what is wrong and nothing has changed."""

    async def act(_: Ticket) -> Reply:
        wrong = await deps.reload()
        if wrong:
            count = len(wrong)
            detail = f"the configuration file has {count} error{'s' if count > 1 else ''}"
            raise Problem("validation-error", detail, extra={"errors": wrong})
        return Reply.json(200, status_doc(deps.status.status()))

    return await once(passage, deps, act)
