"""GET {w}/events and {w}/events/{eventId}: the log of what happened, as it was stored.

Events are written to the wire as the bytes that the store holds, or as what they unpack to; only
`seq`, which the store keeps beside them, is put in.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from proxy.control.frame import ControlDeps, Passage, Query, Reply
from proxy.control.logs import LogQuery, log_reply
from proxy.control.problems import Problem
from proxy.control.wire import Instant
from proxy.model.batch import LogFilter, StoredEvent
from proxy.model.documents import SEVERITY_RANK, Severity
from proxy.model.events import EVENTS_LOG, parse_time
from proxy.spool.packed import unpacked

Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Words = Annotated[list[Word], Field(max_length=50)]
EventType = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?$", min_length=1, max_length=128),
]


def _known(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


class EventFilters(Query):
    """What a list and a stream of events can be narrowed by."""

    type: Annotated[list[EventType], Field(max_length=50)] | None = None
    route_id: Annotated[Words, AfterValidator(_known)] | None = None
    provider: Words | None = None
    model: Words | None = None
    severity: list[Severity] | None = None
    outcome: Words | None = None
    incident_id: Words | None = None
    request_id: Words | None = None
    since: Instant | None = None
    until: Instant | None = None


class EventsQuery(EventFilters, LogQuery):
    """Filters, a page, or a cursor to go on from."""


def log_filter(
    filters: EventFilters,
    *,
    newest_first: bool,
    limit: int,
    offset: int = 0,
    after_seq: int | None = None,
    before_seq: int | None = None,
) -> LogFilter:
    return LogFilter(
        after_seq=after_seq,
        before_seq=before_seq,
        newest_first=newest_first,
        offset=offset,
        limit=limit,
        types=_tuple(filters.type),
        route_ids=_tuple(filters.route_id),
        providers=_tuple(filters.provider),
        models=_tuple(filters.model),
        severities=(
            tuple(SEVERITY_RANK[name] for name in filters.severity) if filters.severity else None
        ),
        outcomes=_tuple(filters.outcome),
        request_ids=_tuple(filters.request_id),
        incident_ids=_tuple(filters.incident_id),
        since_ms=parse_time(filters.since) if filters.since else None,
        until_ms=parse_time(filters.until) if filters.until else None,
    )


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return tuple(values) if values else None


def with_seq(event: StoredEvent) -> bytes:
    """The event as clients see it."""
    return unpacked(event.body)[:-1] + b',"seq":%d}' % event.seq


async def list_events(passage: Passage, deps: ControlDeps) -> Reply:
    """List events.

    In the order in which they came, newest first; beyond 10,000 by `next_cursor`."""
    query = passage.query
    assert isinstance(query, EventsQuery), "the table says so"
    narrowed = log_filter(query, newest_first=True, limit=query.limit)
    return await log_reply(
        passage, deps, passage.workspace, EVENTS_LOG, query, narrowed=narrowed, show=with_seq
    )


async def get_event(passage: Passage, deps: ControlDeps) -> Reply:
    """Get one event."""
    event = await deps.store.event(passage.workspace, passage.params["eventId"])
    if event is None:
        raise Problem("not-found", "no such event")
    return Reply(200, with_seq(event))
