"""The one way into the event log, for events of the API and of the spools alike.

Invariant: an event and whatever must be true with it (the spool position, the idempotency record)
are in one commit.  Whoever waits for events of a workspace is woken after the commit.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from proxy.control.decisions import decision_ops
from proxy.model.batch import Append, Appended, Batch, Op
from proxy.model.documents import SEVERITY_RANK
from proxy.model.events import EVENTS_LOG, SCHEMA_VERSION, Came, NewEvent, iso
from proxy.model.exchange import Json
from proxy.model.ports import Clock, Ids, Store
from proxy.spool.packed import stored
from proxy.telemetry.exposition import Registry
from proxy.wire import jsonbody


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
        dedupe_ttl_s: int = 0,
        also: Sequence[Op] = (),
        received_ms: int | None = None,
    ) -> list[Appended]:
        """Commit `events` and the operations `also` together.

        `source` is `proxy/<node>/<slot>`, `api/<key_id>`, `watcher/<id>` or `control`.
        `dedupe_ttl_s` is for events that may be sent again; those of a spool cannot come twice,
        since its cursor is committed with them.  An event that says how it `came` keeps its own
        source, time and recognition.  One outcome per event, in order.  Raises
        StoreConflict (of `also`), StoreUnavailable.
        """
        at_ms = self._clock.now_ms() if received_ms is None else received_ms
        stamp = _stamp(workspace_id, at_ms, source)
        brief = jsonbody.dumps((SCHEMA_VERSION, stamp["received_at"], source))
        ops = [
            _packed(event, brief, at_ms)
            if event.packed
            else _append(event, stamp, at_ms, dedupe_ttl_s)
            if event.came is None
            else _kept(event, event.came, workspace_id)
            for event in events
        ]
        kind = source.partition("/")[0]
        beside = decision_ops(events, ops, own=kind == "proxy", at_ms=at_ms)
        began = self._clock.monotonic()
        batch = Batch(self._ids.new("cm-"), (*ops, *beside, *also))
        result = await self._store.commit(workspace_id, batch)
        self._metrics.committed(self._engine, self._clock.monotonic() - began)
        accepted = result.appended[: len(events)]  # the others may append to other logs
        for status, count in Counter([outcome.status for outcome in accepted]).items():
            self._metrics.add("events_ingested_total", (kind, status), count)
        self.ring(workspace_id)
        return accepted

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


def _stamp(workspace_id: str, received_ms: int, source: str) -> dict[str, Json]:
    return {
        "workspace_id": workspace_id,
        "schema_version": SCHEMA_VERSION,
        "received_at": iso(received_ms),
        "source": source,
    }


def _kept(event: NewEvent, came: Came, workspace_id: str) -> Append:
    """An event that was accepted before it could be stored."""
    stamp = _stamp(workspace_id, came.received_ms, came.source)
    return _append(event, stamp, came.received_ms, came.dedupe_ttl_s)


def _packed(event: NewEvent, stamp: bytes, received_ms: int) -> Append:
    """An event of a spool, which knows what it is searched by (spool/packed.py)."""
    said: dict[str, Any] = event.body
    inner = said["payload"]
    return Append(
        EVENTS_LOG,
        stored(event, stamp),
        said["event_id"],
        at_ms=event.at_ms,
        received_ms=received_ms,
        type=said["type"],
        route_id=said["route_id"],
        provider=inner["provider"],
        model=inner["model"],
        outcome=inner["outcome"],
        request_id=said["request_id"],
    )


def _append(event: NewEvent, stamp: dict[str, Json], received_ms: int, ttl_s: int) -> Append:
    body = event.body
    payload = body.get("payload")
    inner: dict[str, Json] = payload if type(payload) is dict else {}
    event_id, kind = body.get("event_id"), body.get("type")
    route_id, model, outcome = body.get("route_id"), inner.get("model"), inner.get("outcome")
    severity = _text(body, inner, "severity")
    content_hash = event.content_hash
    if ttl_s and not content_hash:
        content_hash = hashlib.sha256(jsonbody.dumps_sorted(body)).digest()
    return Append(
        EVENTS_LOG,
        jsonbody.dumps({**body, **stamp}),
        event_id if type(event_id) is str else "",
        content_hash,
        ttl_s,
        event.at_ms,
        received_ms,
        kind if type(kind) is str else "",
        route_id if type(route_id) is str else None,
        _text(body, inner, "provider"),
        model if type(model) is str else None,
        SEVERITY_RANK.get(severity) if severity else None,
        outcome if type(outcome) is str else None,
        _text(body, inner, "request_id"),
        _text(body, inner, "incident_id"),
    )


def _text(body: dict[str, Json], payload: dict[str, Json], name: str) -> str | None:
    """A text that stands in the envelope or else in the payload."""
    value = body.get(name)
    if value and type(value) is str:
        return value
    value = payload.get(name)
    return value if type(value) is str else None
