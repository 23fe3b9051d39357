"""Incidents in the store: what is told of one is a document, its timeline another beside it, so
that a list does not read timelines.  Both are written in one commit under the incident's revision.

Whoever finds incidents and whoever works on them by hand write through here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter

from proxy.alerting.alert import ALERT
from proxy.incidents.changes import Change
from proxy.incidents.incident import Entry, Incident
from proxy.incidents.timeline import extended
from proxy.model.batch import ABSENT, Batch, Op, Put
from proxy.model.events import parse_time
from proxy.model.exchange import Json
from proxy.model.ports import Store
from proxy.wire import jsonbody

INCIDENT: Final = "incident"
TIMELINE: Final = "incident.timeline"
CORRELATION: Final = "correlation"
_ENTRIES: Final = TypeAdapter(list[Entry])


@dataclass(slots=True, frozen=True)
class Held:
    """An incident at hand.  `revision` is the store's, which a change must name."""

    incident: Incident
    timeline: Sequence[Entry]
    revision: int


async def find(store: Store, workspace_id: str, incident_id: str) -> Held | None:
    row = await store.get(workspace_id, INCIDENT, incident_id)
    if row is None:
        return None
    revision, body = row
    kept = jsonbody.loads(body)
    assert isinstance(kept, dict), "we wrote it"
    incident = Incident.model_validate(kept["said"])
    return Held(incident, await timeline_of(store, workspace_id, incident_id), revision)


async def timeline_of(store: Store, workspace_id: str, incident_id: str) -> list[Entry]:
    row = await store.get(workspace_id, TIMELINE, incident_id)
    return _ENTRIES.validate_python(jsonbody.loads(row[1])) if row is not None else []


def after(change: Change, held: Held | None = None) -> Held:
    """What is at hand once the change is written."""
    timeline = extended(held.timeline if held is not None else (), change.entries)
    return Held(change.incident, timeline, held.revision + 1 if held is not None else 1)


def ops(change: Change, held: Held | None = None) -> tuple[Op, ...]:
    """The operations that write a change of what is `held`, or of a new one.  A commit of them
    raises StoreConflict (`revision`, `exists`) when somebody was faster: look again."""
    incident, timeline = change.incident, after(change, held).timeline
    kept: Json = {
        "said": incident.model_dump(mode="json"),
        "created_at": parse_time(incident.created_at),
        "updated_at": parse_time(incident.updated_at),
    }
    entries: Json = _ENTRIES.dump_python(list(timeline), mode="json")
    expect = held.revision if held is not None else ABSENT
    return (
        Put(INCIDENT, incident.incident_id, jsonbody.dumps(kept), expect),
        Put(TIMELINE, incident.incident_id, jsonbody.dumps(entries)),
    )


async def moved(store: Store, workspace_id: str, young_id: str, into_id: str) -> tuple[Op, ...]:
    """What lets the correlations and alerts of an incident belong to another one."""
    found: list[Op] = []
    for kind in (CORRELATION, ALERT):
        for doc_id, revision, body in await store.scan(workspace_id, kind):
            if young_id.encode() not in body:
                continue
            kept = jsonbody.loads(body)
            assert isinstance(kept, dict), "we wrote it"
            said = kept["said"]
            if isinstance(said, dict) and said.get("incident_id") == young_id:
                changed: Json = {**kept, "said": {**said, "incident_id": into_id}}
                found.append(Put(kind, doc_id, jsonbody.dumps(changed), revision))
    return tuple(found)


async def keep(
    store: Store,
    workspace_id: str,
    commit_id: str,
    change: Change,
    held: Held | None = None,
    also: Sequence[Op] = (),
) -> None:
    """Write a change, with what must be true together with it (a cursor, a correlation).

    Raises StoreConflict, StoreUnavailable.
    """
    await store.commit(workspace_id, Batch(commit_id, (*ops(change, held), *also)))
