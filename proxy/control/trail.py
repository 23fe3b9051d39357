"""{w}/audit, and /v1/audit for what belongs to no workspace: who changed what, newest first, and
whether the chain holds (control-api.md §12.9)."""

from typing import Final

from proxy.control.audit import AUDIT_LOG
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.logs import LogQuery, log_reply
from proxy.model.batch import LogFilter
from proxy.model.events import SERVER_WORKSPACE
from proxy.model.exchange import Json
from proxy.storage.chain import GENESIS, row_hash
from proxy.wire import jsonbody

_STEP: Final = 500


async def list_audit(passage: Passage, deps: ControlDeps) -> Reply:
    """List who changed what, and what was refused."""
    query = passage.query
    assert isinstance(query, LogQuery), "the table says so"
    workspace_id = passage.workspace_id or SERVER_WORKSPACE
    return await log_reply(passage, deps, workspace_id, AUDIT_LOG, query)


async def verify_audit(passage: Passage, deps: ControlDeps) -> Reply:
    """Check the whole chain of the audit.

    `broken_at`: the first row that does not follow from its forerunner; the oldest row that
    retention left is taken as the beginning."""
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
