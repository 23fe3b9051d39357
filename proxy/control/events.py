"""GET {w}/events and {w}/events/{eventId}: the log of what happened, as it was stored.

Events are written to the wire as the bytes that the store holds, or as what they unpack to; only
`seq`, which the store keeps beside them, is put in.
"""

import hashlib
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from proxy.control.frame import ControlDeps, Passage, Query, Reply
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.wire import (
    LOG_WINDOW,
    Instant,
    ListQuery,
    Order,
    cursor_links,
    make_cursor,
    page_links,
    read_cursor,
    read_sort,
)
from proxy.model.batch import LogFilter, StoredEvent
from proxy.model.documents import SEVERITY_RANK, Severity
from proxy.model.events import EVENTS_LOG, parse_time
from proxy.model.exchange import Json
from proxy.spool.packed import unpacked
from proxy.wire import jsonbody

Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Words = Annotated[list[Word], Field(max_length=50)]
EventType = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?$", min_length=1, max_length=128),
]
NEWEST_FIRST: Final = Order("created_at", descending=True)


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


class EventsQuery(EventFilters, ListQuery):
    """Filters, a page, or a cursor to go on from."""

    cursor: str | None = Field(None, min_length=1, max_length=256)


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
    query = passage.query
    assert isinstance(query, EventsQuery), "the table says so"
    (order,) = read_sort(query.sort, ("created_at",), NEWEST_FIRST)[:1]
    scope = _scope(passage, query, order)
    now_ms = deps.clock.now_ms()
    position: int | None = None
    if query.cursor is not None:
        if "page" in passage.request.rel_url.query:
            raise invalid(
                [FieldError("conflicting_value", "excludes cursor", "page", place="query")]
            )
        position = read_cursor(deps.server_key, scope, query.cursor, now_ms)
    elif query.page * query.limit > LOG_WINDOW:
        detail = f"beyond {LOG_WINDOW} entries, go on by next_cursor"
        raise invalid([FieldError("use_cursor", detail, "page", place="query")])
    page = await deps.store.range(
        passage.workspace,
        EVENTS_LOG,
        log_filter(
            query,
            newest_first=order.descending,
            limit=query.limit,
            offset=0 if position is not None else (query.page - 1) * query.limit,
            before_seq=position if order.descending else None,
            after_seq=None if order.descending else position,
        ),
    )
    cursor = None
    if page.next_seq is not None:
        cursor = make_cursor(deps.server_key, scope, page.next_seq, now_ms)
    total = None if page.partial or position is not None else page.total
    meta: dict[str, Json] = {
        "page": None if position is not None else query.page,
        "limit": query.limit,
        "total": total,
        "total_pages": None if total is None else -(-total // query.limit),
        "next_cursor": cursor,
    }
    if page.partial:
        meta["partial"] = True
    headers = {"X-Total-Count": str(total)} if total is not None else {}
    if position is not None or page.partial:
        headers["Link"] = cursor_links(passage, cursor)
    else:
        pages = -(-total // query.limit) if total is not None else None
        headers["Link"] = page_links(passage, query.page, pages)
    data = b",".join([with_seq(entry) for entry in page.entries])
    body = b'{"data":[' + data + b"]," + jsonbody.dumps(meta)[1:]
    return Reply(200, body, headers=headers)


def _scope(passage: Passage, query: EventsQuery, order: Order) -> str:
    """What a cursor is good for: this list, these filters, this order."""
    told = query.model_dump(mode="json", exclude={"page", "limit", "cursor", "sort"})
    digest = hashlib.sha256(jsonbody.dumps_sorted(told)).hexdigest()[:16]
    return f"{passage.workspace}/{EVENTS_LOG}/{order.descending}/{digest}"


async def get_event(passage: Passage, deps: ControlDeps) -> Reply:
    event = await deps.store.event(passage.workspace, passage.params["eventId"])
    if event is None:
        raise Problem("not-found", "no such event")
    return Reply(200, with_seq(event))
