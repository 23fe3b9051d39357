"""What is told of refused callers: of a 403 an event and an audit row, of 401s a sampled log line.

One of each per key and operation and minute; what came in between is its successor's `count`, so a
flood of denials cannot flood the log.
"""

from collections import OrderedDict
from typing import Final

from proxy.control.frame import ControlDeps, Passage
from proxy.control.problems import Problem
from proxy.model.batch import StoreUnavailable
from proxy.model.events import PERMISSION_DECISION, SERVER_WORKSPACE, NewEvent, iso
from proxy.model.exchange import Json

WINDOW_MS: Final = 60_000
MAX_KEPT: Final = 10_000


class Denials:
    """Counts refusals, and tells the first of each minute."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps
        self._told: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()

    async def tell(self, passage: Passage, problem: Problem) -> None:
        operation = passage.operation.operation_id if passage.operation else ""
        count = self._due(("403", f"{passage.caller.key_id} {operation}"))
        if count == 0:
            return
        now_ms = self._deps.clock.now_ms()
        needed = problem.extra.get("required_scopes")
        payload: dict[str, Json] = {
            "request_id": passage.request_id,
            "resource": operation,
            "action": passage.request.method,
            "decision": "denied",
            "reason": problem.extra.get("reason"),
            "role_required": "admin" if needed == ["server-admin"] else None,
            "actor": passage.caller.key_id,
            "role": passage.caller.role,
            "timestamp": iso(now_ms),
            "count": count,
        }
        body: dict[str, Json] = {
            "event_id": self._deps.ids.new("evt-"),
            "type": PERMISSION_DECISION,
            "timestamp": iso(now_ms),
            "route_id": None,
            "request_id": passage.request_id,
            "payload": payload,
        }
        workspace_id = passage.workspace_id or passage.params.get("workspace") or ""
        known = workspace_id in passage.config.workspaces
        if not known or not passage.caller.bound_to(workspace_id):
            workspace_id = SERVER_WORKSPACE
        deps = self._deps
        try:
            async with deps.audit.chain(deps.store, workspace_id, now_ms) as chain:
                refused = ("operation", operation)
                row = chain.row(passage.actor, "access.denied", refused, [], "denied", count)
                await deps.intake.accept(
                    workspace_id,
                    [NewEvent(body, now_ms)],
                    source="control",
                    received_ms=now_ms,
                    also=(row,),
                )
        except StoreUnavailable as down:
            self._deps.tell("denial.not_recorded", {"detail": down.detail}, None)

    def unauthenticated(self, passage: Passage) -> None:
        count = self._due(("401", passage.address))
        if count:
            fields: dict[str, Json] = {"address": passage.address, "count": count}
            self._deps.tell("authentication.failed", fields, None)

    def _due(self, about: tuple[str, str]) -> int:
        """How many to tell of now; 0: told within this minute."""
        now_ms = self._deps.clock.now_ms()
        told_ms, held = self._told.get(about, (now_ms - WINDOW_MS, 0))
        due = now_ms - told_ms >= WINDOW_MS
        self._told[about] = (now_ms, 0) if due else (told_ms, held + 1)
        self._told.move_to_end(about)
        if len(self._told) > MAX_KEPT:
            self._told.popitem(last=False)
        return held + 1 if due else 0
