"""{w}/incidents: listed, told, and worked on by hand (control-api.md §12.8).

Every action is one commit: the incident, its timeline, the audit row and the idempotency record.
What may happen is decided by `proxy/incidents`; an action that finds everything done already
changes nothing and answers 200.
"""

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from proxy.control.audit import Chain, changes_of
from proxy.control.conditions import check_matching
from proxy.control.documents import insistent
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.kinds import Kind, Object
from proxy.control.own_events import commit_telling, of_incident
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.reading import read_document
from proxy.control.validation import Model, errors_of
from proxy.control.wire import Instant, ListQuery, within
from proxy.incidents.changes import BadMove, Change, Edit, edited, merged
from proxy.incidents.incident import Entry, Incident, Status
from proxy.model.batch import Append, Op
from proxy.model.documents import COMPOSED, Doc, Severity
from proxy.model.events import NewEvent
from proxy.model.exchange import Json
from proxy.storage.incidents import INCIDENT, Held, after, find, moved, ops

LISTED_EVENTS: Final = 20
ETAGS: Final = '"r{}"'
_WRITTEN: Final = ("status", "severity", "assignee", "title", "resolution", "merged_into")
_NO_TICKET: Final = Ticket(b"", b"", 0)


class IncidentsQuery(ListQuery):
    """`since` and `until` are about `created_at`."""

    status: list[Status] | None = None
    severity: list[Severity] | None = None
    type: list[str] | None = None
    route_id: list[str] | None = None
    provider: list[str] | None = None
    assignee: list[str] | None = None
    since: Instant | None = None
    until: Instant | None = None


class IncidentEdit(Doc):
    """What PATCH takes; a member that is not sent stays.  `assignee` null: nobody."""

    status: Status = "active"
    severity: Severity = "medium"
    assignee: str | None = Field(None, min_length=1, max_length=200)
    title: Annotated[str, Field(min_length=1, max_length=300), COMPOSED] = "untitled"


class Resolve(Doc):
    resolution: str | None = Field(None, min_length=1, max_length=2000)


class Merge(Doc):
    into: str = Field(min_length=1, max_length=128)


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, IncidentsQuery), "the table says so"
    return (
        (query.status is None or doc["status"] in query.status)
        and (query.severity is None or doc["severity"] in query.severity)
        and (query.type is None or doc["type"] in query.type)
        and (query.assignee is None or doc["assignee"] in query.assignee)
        and (query.provider is None or _meets(doc["providers"], query.provider))
        and (query.route_id is None or _meets(_routes(doc), query.route_id))
        and within(doc["created_at"], query.since, query.until)
    )


def _meets(found: Json, wanted: list[str]) -> bool:
    return isinstance(found, list) and any(value in found for value in wanted)


def _routes(doc: Object) -> list[Json]:
    """Those of its events, and those that its failures reached."""
    radius = doc.get("blast_radius")
    reached = radius.get("affected_routes") if isinstance(radius, dict) else None
    found: list[Json] = []
    for routes in (doc["route_ids"], reached):
        found += routes if isinstance(routes, list) else []
    return found


def _value(doc: Object, name: str) -> Json:
    if name == "failed_requests":
        radius = doc.get("blast_radius")
        return radius.get("failed_requests") if isinstance(radius, dict) else None
    return doc.get(name)


def _listed(doc: Object) -> Object:
    events = doc["related_events"]
    assert isinstance(events, list), "we wrote it"
    return {**doc, "related_events": events[:LISTED_EVENTS]}


def _edition(said: Object, revision: int) -> int:
    edition = said["revision"]
    return edition if isinstance(edition, int) else revision


INCIDENTS: Final = Kind(
    name=INCIDENT,
    noun="incident",
    parameter="incidentId",
    adapter=TypeAdapter(Incident),
    id_member="incident_id",
    id_of=lambda said, _: str(said["incident_id"]),
    keep=_keep,
    sorts=("created_at", "updated_at", "severity", "status", "failed_requests"),
    conditional_get=False,
    ours=True,
    listed=_listed,
    value=_value,
    edition=_edition,
)


# --- reading


async def get_incident(passage: Passage, deps: ControlDeps) -> Reply:
    """One incident with its whole timeline."""
    return told(await held_by(passage, deps))


async def held_by(passage: Passage, deps: ControlDeps) -> Held:
    """Raises Problem 404."""
    held = await find(deps.store, passage.workspace, passage.params["incidentId"])
    if held is None:
        raise Problem("not-found", "no such incident")
    return held


def told(held: Held) -> Reply:
    doc: Object = held.incident.model_dump(mode="json")
    doc |= {"origin": "system", "timeline": [*timeline_doc(held)]}
    return Reply.json(200, doc, {"ETag": ETAGS.format(held.incident.revision)})


def timeline_doc(held: Held) -> list[Object]:
    """The timeline as clients see it."""
    return [entry.model_dump(mode="json", exclude={"fingerprint"}) for entry in held.timeline]


# --- changing

Step = Callable[[Incident], Change | None]


async def patch_incident(passage: Passage, deps: ControlDeps) -> Reply:
    """Change status, severity, assignee or title."""
    sent = read_document(INCIDENTS, passage)
    ours = (Incident.model_fields.keys() | {"timeline"}) - IncidentEdit.model_fields.keys()
    given = {name: value for name, value in sent.items() if name not in ours}
    asked = as_model(IncidentEdit, given)
    named = asked.model_fields_set
    edit = Edit(
        status=asked.status if "status" in named else None,
        severity=asked.severity if "severity" in named else None,
        assignee=asked.assignee,
        title=asked.title if "title" in named else None,
        unassign="assignee" in named and asked.assignee is None,
    )
    at_ms, by = deps.clock.now_ms(), passage.caller.name

    async def step() -> Reply:
        held = await held_by(passage, deps)
        etag = ETAGS.format(held.incident.revision)
        check_matching(passage.request, etag, required=passage.config.control.require_if_match)
        return await _apply(
            passage, deps, held, "update", lambda old: edited(old, edit, by, at_ms), _NO_TICKET
        )

    return await insistent(step)


async def acknowledge(passage: Passage, deps: ControlDeps) -> Reply:
    """Say that somebody is on it."""
    return await _act(passage, deps, "acknowledge", Edit(status="acknowledged"))


async def resolve(passage: Passage, deps: ControlDeps) -> Reply:
    """Say that it is over, and how."""
    sent = read_document(INCIDENTS, passage) if passage.body else {}
    resolution = as_model(Resolve, sent).resolution
    return await _act(passage, deps, "resolve", Edit(status="resolved", resolution=resolution))


async def reopen(passage: Passage, deps: ControlDeps) -> Reply:
    """Make a resolved incident active again."""
    return await _act(passage, deps, "reopen", Edit(status="active"))


async def _act(passage: Passage, deps: ControlDeps, verb: str, edit: Edit) -> Reply:
    at_ms, by = deps.clock.now_ms(), passage.caller.name

    async def act(ticket: Ticket) -> Reply:
        async def step() -> Reply:
            held = await held_by(passage, deps)
            return await _apply(
                passage, deps, held, verb, lambda old: edited(old, edit, by, at_ms), ticket
            )

        return await insistent(step)

    return await once(passage, deps, act)


async def _apply(
    passage: Passage, deps: ControlDeps, held: Held, verb: str, step: Step, ticket: Ticket
) -> Reply:
    ticket.recorded = False
    try:
        change = step(held.incident)
    except BadMove as why:
        raise Problem("invalid-state-transition", str(why)) from why
    if change is None:
        return told(held)
    reply = told(after(change, held))
    async with deps.audit.chain(deps.store, passage.workspace, deps.clock.now_ms()) as chain:
        row = row_of(chain, passage, verb, held.incident, change.incident)
        events = [of_incident(passage, deps, held.incident, change)]
        await commit(passage, deps, events, (*ops(change, held), row, *ticket.ops(reply)))
    return reply


async def merge(passage: Passage, deps: ControlDeps) -> Reply:
    """Put this incident into another one: its events move there, and it is resolved.

    The answer is the incident that goes on."""
    into = as_model(Merge, read_document(INCIDENTS, passage)).into
    if into == passage.params["incidentId"]:
        raise invalid([FieldError("invalid_value", "is this incident", "into", "#/into")])
    at_ms, by = deps.clock.now_ms(), passage.caller.name

    async def act(ticket: Ticket) -> Reply:
        async def step() -> Reply:
            ticket.recorded = False
            young = await held_by(passage, deps)
            target = await find(deps.store, passage.workspace, into)
            if target is None:
                error = FieldError("unknown_reference", "no such incident", "into", "#/into")
                raise Problem("unknown-reference", errors=[error])
            try:
                changes = merged(young.incident, target.incident, by, at_ms)
            except BadMove as why:
                raise Problem("invalid-state-transition", str(why)) from why
            if changes is None:
                return told(target)
            gone, grown = changes
            reply = told(after(grown, target))
            along = await moved(deps.store, passage.workspace, young.incident.incident_id, into)
            async with deps.audit.chain(deps.store, passage.workspace, at_ms) as chain:
                rows = (
                    row_of(chain, passage, "merge", young.incident, gone.incident),
                    row_of(chain, passage, "merge", target.incident, grown.incident),
                )
                writes = (*ops(gone, young), *ops(grown, target), *along)
                events = [
                    of_incident(passage, deps, young.incident, gone),
                    of_incident(passage, deps, target.incident, grown),
                ]
                await commit(passage, deps, events, (*writes, *rows, *ticket.ops(reply)))
            return reply

        return await insistent(step)

    return await once(passage, deps, act)


# --- what every action needs


def as_model(model: type[Model], sent: Object) -> Model:
    """Raises Problem 422 with all that is wrong."""
    try:
        return model.model_validate(sent)
    except ValidationError as fault:
        raise invalid([*errors_of(fault, sent)]) from fault


def row_of(chain: Chain, passage: Passage, verb: str, old: Incident, new: Incident) -> Append:
    """The audit row of an action."""
    before, now = (_written(incident) for incident in (old, new))
    resource = (INCIDENT, new.incident_id)
    return chain.row(passage.actor, f"{INCIDENT}.{verb}", resource, changes_of(before, now))


def _written(incident: Incident) -> Json:
    doc: Object = incident.model_dump(mode="json")
    told = {name: doc[name] for name in _WRITTEN}
    return {**told, "notes_count": incident.notes_count, "merged_from": [*incident.merged_from]}


async def commit(
    passage: Passage, deps: ControlDeps, events: list[NewEvent], writes: tuple[Op, ...]
) -> None:
    await commit_telling(deps, passage.workspace, events, writes)


class IncidentDetail(Incident):
    """What is told of one incident."""

    origin: str = "system"
    timeline: list[Entry] = Field(default_factory=list)
