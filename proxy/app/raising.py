"""Opens and ends the incidents that endpoints raise (incidents/raising.py).

The log is read from a cursor that is moved in the commit of what was found, so each event is
counted once, whoever crashes; of several nodes the one that is late finds the cursor moved.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.control.intake import EventIntake
from proxy.control.own_events import of_change
from proxy.incidents.changes import Change
from proxy.incidents.incident import SYSTEM, Incident
from proxy.incidents.raising import (
    EXHAUSTED,
    RAISED,
    SIGNALS,
    Signal,
    ended,
    raised,
    signal_of,
)
from proxy.model.batch import Cursor, LogFilter, LogPage, Op, StoreConflict, StoreUnavailable
from proxy.model.events import (
    EVENTS_LOG,
    INCIDENT_OPENED,
    INCIDENT_RESOLVED,
    INCIDENT_UPDATED,
    NewEvent,
    iso,
)
from proxy.model.exchange import Json
from proxy.model.ports import Clock, Ids, Store
from proxy.routing.standing import Standing
from proxy.routing.standings import Standings
from proxy.routing.states import State
from proxy.settings.notices import IncidentSettings
from proxy.storage.incidents import INCIDENT, Held, find, ops
from proxy.wire import jsonbody

CURSOR: Final = "raising"
LOOK_S: Final = 1.0
END_S: Final = 10.0
PAGE: Final = 100
SOURCE: Final = "control"
_RAISED: Final = tuple(kind.encode() for kind in RAISED)


@dataclass(slots=True)
class _Looked:
    """`head`: of the log when it was last looked at, `upto` where that ended; `ends_at`: when ends
    are looked for."""

    head: int = -1
    upto: int = 0
    ends_at: float = 0.0


class Raising:
    """Of all workspaces, for as long as the process lives."""

    def __init__(
        self,
        store: Store,
        intake: EventIntake,
        clock: Clock,
        ids: Ids,
        settings: Callable[[], Iterable[tuple[str, IncidentSettings]]],
        standings: Standings,
    ) -> None:
        """`settings`: of each workspace in force."""
        self._store = store
        self._intake = intake
        self._clock = clock
        self._ids = ids
        self._settings = settings
        self._standings = standings
        self._looked: dict[str, _Looked] = {}

    def __repr__(self) -> str:
        return f"<Raising in {len(self._looked)} workspaces>"

    async def run(self) -> None:
        while True:
            await self._clock.sleep(LOOK_S)
            for workspace_id, settings in list(self._settings()):
                # a store that is away is told of where it happens; who was faster has done it
                with contextlib.suppress(StoreUnavailable, StoreConflict):
                    await self.look(workspace_id, settings)

    async def look(self, workspace_id: str, settings: IncidentSettings) -> None:
        """Take what is new in the log.  Raises StoreUnavailable, StoreConflict."""
        looked = self._looked.setdefault(workspace_id, _Looked())
        head = await self._store.head(workspace_id, EVENTS_LOG)
        if head != looked.head:
            while not await self._take(workspace_id, looked, head):
                pass
            looked.head = head
        if self._clock.monotonic() >= looked.ends_at:
            looked.ends_at = self._clock.monotonic() + END_S
            await self._end(workspace_id, settings.resolve_after_seconds)

    async def _take(self, workspace_id: str, looked: _Looked, head: int) -> bool:
        """Take a page; whether nothing is left.  The cursor moves with what was found alone: a log
        without signals costs no write."""
        cursor = await self._store.cursor(workspace_id, CURSOR)
        after_seq = min(max(cursor, looked.upto), head)  # a log may have lost its end
        query = LogFilter(after_seq=after_seq, newest_first=False, limit=PAGE, types=SIGNALS)
        page = await self._store.range(workspace_id, EVENTS_LOG, query)
        signals = _signals(page)
        if signals:
            upto = page.entries[-1].seq
            await self._raise(workspace_id, signals, Cursor(CURSOR, cursor, upto))
        looked.upto = head if page.next_seq is None else page.next_seq
        return page.next_seq is None

    async def _raise(self, workspace_id: str, signals: Sequence[Signal], moved: Cursor) -> None:
        held = await self._open(workspace_id)
        changes: dict[str, Change] = {}
        for signal in signals:
            known = {name: each.incident for name, each in held.items()}
            known |= {name: each.incident for name, each in changes.items()}
            change = raised(workspace_id, signal, known.values(), self._clock.now_ms())
            name = change.incident.incident_id
            if name in changes:
                change = Change(change.incident, (*changes[name].entries, *change.entries))
            changes[name] = change
        await self._keep(workspace_id, changes, held, moved)

    async def _end(self, workspace_id: str, resolve_after_s: int) -> None:
        changes: dict[str, Change] = {}
        held = await self._open(workspace_id)
        for name, each in held.items():
            change = ended(
                each.incident,
                self._clock.now_ms(),
                well=is_well(self._standings.all(), workspace_id, each.incident),
                resolve_after_s=resolve_after_s,
            )
            if change is not None:
                changes[name] = change
        if changes:
            await self._keep(workspace_id, changes, held)

    async def _open(self, workspace_id: str) -> dict[str, Held]:
        """The open incidents of ours, by id."""
        found: dict[str, Held] = {}
        for name, _, body in await self._store.scan(workspace_id, INCIDENT):
            if not any(kind in body for kind in _RAISED):
                continue  # most of a long history need not be read
            held = await find(self._store, workspace_id, name)
            if held is None or held.incident.status == "resolved":
                continue
            if held.incident.type in RAISED:
                found[name] = held
        return found

    async def _keep(
        self, workspace_id: str, changes: dict[str, Change], held: dict[str, Held], *also: Op
    ) -> None:
        writes = [op for name, change in changes.items() for op in ops(change, held.get(name))]
        told = [self._told(change, fresh=name not in held) for name, change in changes.items()]
        await self._intake.accept(workspace_id, told, source=SOURCE, also=(*writes, *also))

    def _told(self, change: Change, *, fresh: bool) -> NewEvent:
        now, now_ms = change.incident, self._clock.now_ms()
        kind = INCIDENT_OPENED if fresh else INCIDENT_UPDATED
        if now.status == "resolved":
            kind = INCIDENT_RESOLVED
        route_id = now.route_ids[0] if len(now.route_ids) == 1 else None
        payload: Json = {**of_change(change), "actor": SYSTEM}
        body: dict[str, Json] = {
            "event_id": self._ids.new("evt-"),
            "type": kind,
            "timestamp": iso(now_ms),
            "route_id": route_id,
            "payload": payload,
        }
        return NewEvent(body, now_ms)


def is_well(standings: Iterable[Standing], workspace_id: str, incident: Incident) -> bool:
    """What the incident is about is over: an endpoint is asked again under every policy, or there
    is one again where none was left."""
    own = [each for each in standings if each.workspace_id == workspace_id]
    if incident.type == EXHAUSTED:
        routes = set(incident.route_ids)
        return all(each.active is not None for each in own if each.policy.route_id in routes)
    return all(
        each.breakers[name].state is State.CLOSED and name not in each.limited
        for each in own
        for name in incident.endpoint_ids
        if name in each.breakers
    )


def _signals(page: LogPage) -> list[Signal]:
    events = [jsonbody.loads(each.body) for each in page.entries]
    found = [signal_of(event) for event in events if isinstance(event, dict)]
    return [signal for signal in found if signal is not None]
