"""What is told of refused callers: of a 403 an event and an audit row, of 401s a sampled log line.

One of each per key and operation and minute: the first at once, what came after it as the `count`
of one more when its minute is over.  So a flood of denials cannot flood the log, and none is lost.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from proxy.control.frame import ControlDeps, Passage
from proxy.control.problems import Problem
from proxy.model.batch import StoreUnavailable
from proxy.model.events import PERMISSION_DECISION, SERVER_WORKSPACE, NewEvent, iso
from proxy.model.exchange import Json
from proxy.runtime.tasks import background

WINDOW_MS: Final = 60_000
MAX_KEPT: Final = 10_000
Say = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class _Held:
    """Told at `told_ms`; since then `count` more, the last of which `say` tells of."""

    told_ms: int
    say: Say
    count: int = 0


class Denials:
    """Counts refusals, tells the first at once and the others by the minute."""

    def __init__(self, deps: ControlDeps) -> None:
        self._deps = deps
        self._told: OrderedDict[tuple[str, str], _Held] = OrderedDict()
        self._sweeping = False

    async def tell(self, passage: Passage, problem: Problem) -> None:
        operation = passage.operation.operation_id if passage.operation else ""
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
            "timestamp": iso(self._deps.clock.now_ms()),
        }
        workspace_id = passage.workspace_id or passage.params.get("workspace") or ""
        known = workspace_id in passage.config.workspaces
        if not known or not passage.caller.bound_to(workspace_id):
            workspace_id = SERVER_WORKSPACE
        actor = passage.actor

        async def say(count: int) -> None:
            deps, now_ms = self._deps, self._deps.clock.now_ms()
            body: dict[str, Json] = {
                "event_id": deps.ids.new("evt-"),
                "type": PERMISSION_DECISION,
                "timestamp": iso(now_ms),
                "route_id": None,
                "request_id": actor.request_id,
                "payload": {**payload, "count": count},
            }
            try:
                async with deps.audit.chain(deps.store, workspace_id, now_ms) as chain:
                    refused = ("operation", operation)
                    row = chain.row(actor, "access.denied", refused, [], "denied", count)
                    await deps.intake.accept(
                        workspace_id,
                        [NewEvent(body, now_ms)],
                        source="control",
                        received_ms=now_ms,
                        also=(row,),
                    )
            except StoreUnavailable as down:
                deps.tell("denial.not_recorded", {"detail": down.detail}, None)

        if self._is_first(("403", f"{passage.caller.key_id} {operation}"), say):
            await say(1)

    async def unauthenticated(self, passage: Passage) -> None:
        address = passage.address

        async def say(count: int) -> None:
            fields: dict[str, Json] = {"address": address, "count": count}
            self._deps.tell("authentication.failed", fields, None)

        if self._is_first(("401", address), say):
            await say(1)

    def _is_first(self, about: tuple[str, str], say: Say) -> bool:
        """False: it was told within this minute, and this one is counted."""
        held = self._told.get(about)
        if held is not None:
            held.say, held.count = say, held.count + 1
            return False
        self._told[about] = _Held(self._deps.clock.now_ms(), say)
        if len(self._told) > MAX_KEPT:
            _, oldest = self._told.popitem(last=False)
            if oldest.count:
                background(_tell(oldest), name="denials")
        if not self._sweeping:
            self._sweeping = True
            background(self._sweep(), name="denials")
        return True

    async def _sweep(self) -> None:
        """Until nothing is held: tell what came within a minute that is over."""
        while self._told:
            about, held = next(iter(self._told.items()))
            now_ms = self._deps.clock.now_ms()
            left_ms = held.told_ms + WINDOW_MS - now_ms
            if left_ms > 0:
                await self._deps.clock.sleep(left_ms / 1000)
                continue
            del self._told[about]
            if held.count:
                self._told[about] = _Held(now_ms, held.say)
                await _tell(held)
        self._sweeping = False


async def _tell(held: _Held) -> None:
    await held.say(held.count)
