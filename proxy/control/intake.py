"""The one way into the event log, for events of the API and of the spools alike.

Invariant: an event and whatever must be true with it (the spool position, the idempotency record)
are in one commit.  Whoever waits for events of a workspace is woken after the commit.
"""

import asyncio
import hashlib
from collections.abc import Sequence

from proxy.model.batch import Append, Appended, Batch, Op
from proxy.model.documents import SEVERITY_RANK
from proxy.model.events import EVENTS_LOG, SCHEMA_VERSION, NewEvent, iso
from proxy.model.exchange import Json
from proxy.model.ports import Clock, Ids, Store
from proxy.telemetry.exposition import Registry
from proxy.wire import jsonbody

SPOOL_DEDUPE_S = 2 * 3600  # the spool's cursor is what makes its events once


class EventIntake:
    """Accepts events; see the module."""

    def __init__(
        self, store: Store, clock: Clock, ids: Ids, metrics: Registry, *, engine: str = "sqlite"
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._waiting: dict[str, asyncio.Event] = {}

    async def accept(
        self,
        workspace_id: str,
        events: Sequence[NewEvent],
        *,
        source: str,
        dedupe_ttl_s: int = SPOOL_DEDUPE_S,
        also: Sequence[Op] = (),
        received_ms: int | None = None,
    ) -> list[Appended]:
        """Commit `events` and the operations `also` together.

        `source` is `proxy/<node>/<slot>`, `api/<key_id>`, `watcher/<id>` or `control`.  One outcome
        per event, in order.  Raises StoreConflict (of `also`), StoreUnavailable.
        """
        at_ms = self._clock.now_ms() if received_ms is None else received_ms
        stamp: dict[str, Json] = {
            "workspace_id": workspace_id,
            "schema_version": SCHEMA_VERSION,
            "received_at": iso(at_ms),
            "source": source,
        }
        ops: list[Op] = [_append(event, stamp, at_ms, dedupe_ttl_s) for event in events]
        began = self._clock.monotonic()
        result = await self._store.commit(workspace_id, Batch(self._ids.new("cm-"), (*ops, *also)))
        self._metrics.committed(self._engine, self._clock.monotonic() - began)
        kind = source.partition("/")[0]
        for outcome in result.appended:
            self._metrics.add("events_ingested_total", (kind, outcome.status))
        self.ring(workspace_id)
        return result.appended

    def ring(self, workspace_id: str) -> None:
        """Wake whoever waits for events of this workspace."""
        waiting = self._waiting.pop(workspace_id, None)
        if waiting is not None:
            waiting.set()

    def bell(self, workspace_id: str) -> asyncio.Event:
        """Set after the next commit of events.  Take it before looking, then wait for it."""
        return self._waiting.setdefault(workspace_id, asyncio.Event())

    def __repr__(self) -> str:
        return f"<EventIntake {len(self._waiting)} workspaces waited for>"


def _append(event: NewEvent, stamp: dict[str, Json], received_ms: int, ttl_s: int) -> Append:
    body = event.body
    payload = body.get("payload")
    inner: dict[str, Json] = payload if isinstance(payload, dict) else {}
    severity = _text(body, "severity") or _text(inner, "severity")
    return Append(
        EVENTS_LOG,
        jsonbody.dumps({**body, **stamp}),
        event_id=_text(body, "event_id") or "",
        content_hash=event.content_hash or hashlib.sha256(jsonbody.dumps_sorted(body)).digest(),
        dedupe_ttl_s=ttl_s,
        at_ms=event.at_ms,
        received_ms=received_ms,
        type=_text(body, "type") or "",
        route_id=_text(body, "route_id"),
        provider=_text(body, "provider") or _text(inner, "provider"),
        model=_text(inner, "model"),
        severity=SEVERITY_RANK.get(severity) if severity else None,
        outcome=_text(inner, "outcome"),
        request_id=_text(body, "request_id") or _text(inner, "request_id"),
        incident_id=_text(body, "incident_id") or _text(inner, "incident_id"),
    )


def _text(holder: dict[str, Json], name: str) -> str | None:
    value = holder.get(name)
    return value if isinstance(value, str) else None
