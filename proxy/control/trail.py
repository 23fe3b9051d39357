"""{w}/audit, and /v1/audit for what belongs to no workspace: who changed what, newest first, and
whether the chain holds (control-api.md §12.9)."""

from typing import Final

from proxy.control.audit import AUDIT_LOG, GENESIS, row_hash
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.problems import FieldError, invalid
from proxy.control.wire import LOG_WINDOW, ListQuery, Order, page_links, read_sort
from proxy.model.batch import LogFilter
from proxy.model.events import SERVER_WORKSPACE
from proxy.model.exchange import Json
from proxy.wire import jsonbody

_STEP: Final = 500


async def list_audit(passage: Passage, deps: ControlDeps) -> Reply:
    query = passage.query
    assert isinstance(query, ListQuery), "the table says so"
    (order,) = read_sort(query.sort, ("created_at",), Order("created_at", descending=True))[:1]
    if query.page * query.limit > LOG_WINDOW:
        detail = f"beyond {LOG_WINDOW} rows narrow the list"
        raise invalid([FieldError("use_cursor", detail, "page", place="query")])
    page = await deps.store.range(
        passage.workspace_id or SERVER_WORKSPACE,
        AUDIT_LOG,
        LogFilter(
            newest_first=order.descending,
            limit=query.limit,
            offset=(query.page - 1) * query.limit,
        ),
    )
    total = page.total or 0
    pages = -(-total // query.limit)
    doc: dict[str, Json] = {
        "data": [jsonbody.loads(entry.body) for entry in page.entries],
        "page": query.page,
        "limit": query.limit,
        "total": total,
        "total_pages": pages,
    }
    headers = {"X-Total-Count": str(total), "Link": page_links(passage, query.page, pages)}
    return Reply.json(200, doc, headers)


async def verify_audit(passage: Passage, deps: ControlDeps) -> Reply:
    """Walk the whole chain.  `broken_at`: the first row that does not follow from its forerunner;
    the oldest row that retention left is taken as the beginning."""
    head, checked, after = "", 0, 0
    while True:
        page = await deps.store.range(
            passage.workspace_id or SERVER_WORKSPACE,
            AUDIT_LOG,
            LogFilter(after_seq=after, newest_first=False, limit=_STEP),
        )
        for entry in page.entries:
            row = jsonbody.loads(entry.body)
            whole = isinstance(row, dict) and row.get("hash") == row_hash(row)
            if (
                not isinstance(row, dict)
                or not whole
                or row["prev_hash"] != (head or row["prev_hash"])
            ):
                told: Json = {"ok": False, "checked": checked, "broken_at": entry.seq}
                return Reply.json(200, told)
            head, checked, after = str(row["hash"]), checked + 1, entry.seq
        if len(page.entries) < _STEP:
            return Reply.json(200, {"ok": True, "checked": checked, "head": head or GENESIS})
