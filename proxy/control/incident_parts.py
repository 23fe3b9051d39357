"""What belongs to one incident: its notes, its timeline, how far it reaches, its correlations
(control-api.md §12.8).

Notes are a log: never changed, kept as they were written, and never rendered here.
"""

from typing import Final

from pydantic import Field

from proxy.control.correlations import correlations_of
from proxy.control.documents import insistent
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.incidents import (
    INCIDENTS,
    as_model,
    commit,
    held_by,
    row_of,
    timeline_doc,
)
from proxy.control.logs import LogQuery, log_reply
from proxy.control.own_events import of_incident
from proxy.control.reading import read_document
from proxy.control.wire import ListQuery, Order, page_reply, read_sort, whole
from proxy.incidents.changes import noted
from proxy.incidents.incident import BlastRadius
from proxy.model.batch import Append, LogFilter
from proxy.model.documents import Doc
from proxy.model.events import iso
from proxy.model.exchange import Json
from proxy.storage.incidents import ops
from proxy.wire import jsonbody

NOTES_LOG: Final = "notes"


class NoteText(Doc):
    """What is sent; without `author` the key's name counts."""

    text: str = Field(min_length=1, max_length=10_000)
    author: str | None = Field(None, min_length=1, max_length=200)


class Note(Doc):
    note_id: str
    incident_id: str
    text: str
    author: str
    created_at: str


async def add_note(passage: Passage, deps: ControlDeps) -> Reply:
    """Write a note, also on a resolved incident."""
    asked = as_model(NoteText, read_document(INCIDENTS, passage))
    at_ms = deps.clock.now_ms()
    author = asked.author or passage.caller.name
    note: dict[str, Json] = {
        "note_id": deps.ids.new("note-"),
        "incident_id": passage.params["incidentId"],
        "text": asked.text,
        "author": author,
        "created_at": iso(at_ms),
    }
    reply = Reply.json(201, note)

    async def act(ticket: Ticket) -> Reply:
        async def step() -> Reply:
            held = await held_by(passage, deps)
            change = noted(held.incident, author, at_ms)
            incident_id = held.incident.incident_id
            written = Append(NOTES_LOG, jsonbody.dumps(note), at_ms=at_ms, incident_id=incident_id)
            async with deps.audit.chain(deps.store, passage.workspace, at_ms) as chain:
                row = row_of(chain, passage, "note", held.incident, change.incident)
                events = [of_incident(passage, deps, held.incident, change)]
                writes = (*ops(change, held), written, row, *ticket.ops(reply))
                await commit(passage, deps, events, writes)
            return reply

        return await insistent(step)

    return await once(passage, deps, act)


async def list_notes(passage: Passage, deps: ControlDeps) -> Reply:
    """The notes of an incident, newest first."""
    query = passage.query
    assert isinstance(query, LogQuery), "the table says so"
    held = await held_by(passage, deps)
    narrowed = LogFilter(incident_ids=(held.incident.incident_id,))
    return await log_reply(passage, deps, passage.workspace, NOTES_LOG, query, narrowed=narrowed)


async def get_timeline(passage: Passage, deps: ControlDeps) -> Reply:
    """What happened, oldest first."""
    query = passage.query
    assert isinstance(query, ListQuery), "the table says so"
    (order,) = read_sort(query.sort, ("created_at",), Order("created_at", descending=False))[:1]
    entries = timeline_doc(await held_by(passage, deps))
    return page_reply(passage, query, entries[::-1] if order.descending else entries, whole)


async def get_blast_radius(passage: Passage, deps: ControlDeps) -> Reply:
    """How far the incident reaches.  `computed_at` null: nobody computed it yet, and the zeros are
    no measurement."""
    incident = (await held_by(passage, deps)).incident
    radius = incident.blast_radius
    if radius is None:
        radius = BlastRadius(incident_id=incident.incident_id, affected_routes=incident.route_ids)
    return Reply.json(200, {"computed_at": None, **radius.model_dump(mode="json")})


async def list_correlations(passage: Passage, deps: ControlDeps) -> Reply:
    """The correlations of an incident, newest first."""
    held = await held_by(passage, deps)
    return await correlations_of(held.incident.incident_id, passage, deps)
