"""Lists of logs: pages by number up to 10,000 entries, and by cursor as far as there is something
(control-api.md §8).  Events, audit rows, notes, attempts and diffs are listed alike.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pydantic import Field

from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.problems import FieldError, invalid
from proxy.control.wire import (
    LOG_WINDOW,
    ListQuery,
    Order,
    cursor_links,
    make_cursor,
    page_links,
    read_cursor,
    read_sort,
)
from proxy.model.batch import LogFilter, StoredEvent
from proxy.model.exchange import Json
from proxy.wire import jsonbody

NEWEST_FIRST: Final = Order("created_at", descending=True)


class LogQuery(ListQuery):
    """A page, or a cursor to go on from."""

    sorts = ("created_at",)

    cursor: str | None = Field(None, min_length=1, max_length=256)


def as_stored(entry: StoredEvent) -> bytes:
    return entry.body


async def log_reply(
    passage: Passage,
    deps: ControlDeps,
    workspace_id: str,
    log: str,
    query: LogQuery,
    *,
    narrowed: LogFilter | None = None,
    show: Callable[[StoredEvent], bytes] = as_stored,
) -> Reply:
    """One page of a log.  `narrowed` says which entries, `show` what a client sees of one.

    Raises Problem 422 for a bad cursor and beyond the window of numbered pages.
    """
    (order,) = read_sort(query.sort, query.sorts, NEWEST_FIRST)[:1]
    scope = _scope(passage, workspace_id, log, query, order)
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
        workspace_id,
        log,
        replace(
            narrowed or LogFilter(),
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
        if pages is not None and pages * query.limit > LOG_WINDOW:
            headers["Link"] = _links_in_window(passage, query, cursor)
        else:
            headers["Link"] = page_links(passage, query.page, pages)
    data = b",".join([show(entry) for entry in page.entries])
    body = b'{"data":[' + data + b"]," + jsonbody.dumps(meta)[1:]
    return Reply(200, body, headers=headers)


def _links_in_window(passage: Passage, query: LogQuery, cursor: str | None) -> str:
    """The last pages have no number.  The last that has one goes on by cursor."""
    if (query.page + 1) * query.limit <= LOG_WINDOW:
        return page_links(passage, query.page, None, following=True)
    onward = cursor_links(passage, cursor).partition(", ")[2]
    links = page_links(passage, query.page, None)
    return f"{links}, {onward}" if onward else links


def _scope(passage: Passage, workspace_id: str, log: str, query: LogQuery, order: Order) -> str:
    """What a cursor is good for: this list, these filters, this order."""
    told = query.model_dump(mode="json", exclude={"page", "limit", "cursor", "sort"})
    params: Json = {**passage.params}
    digest = hashlib.sha256(jsonbody.dumps_sorted([told, params])).hexdigest()[:16]
    return f"{workspace_id}/{log}/{order.descending}/{digest}"
