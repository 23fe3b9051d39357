"""Reading while the store is away: from what is known, with its age in a header (storage.md §4).

Documents alone are known; a log is not.  What changes something never looks at old documents.
"""

import math
from typing import Final

from aiohttp import web

from proxy.control.frame import ControlDeps, Handler, Passage, Reply
from proxy.control.problems import Problem
from proxy.runtime.aging import Aged, may_be_old

STALE: Final = "X-Parapet-Stale"


async def handled(
    handler: Handler, passage: Passage, deps: ControlDeps
) -> Reply | web.StreamResponse:
    """What `handler` answers; for GET from old documents, too, when there are no new ones.

    Raises Problem, StoreUnavailable."""
    if passage.operation is None or passage.operation.method != "GET":
        return await handler(passage, deps)
    with may_be_old() as aged:
        try:
            reply = await handler(passage, deps)
        except Problem:
            _tell(passage, aged)
            raise
    _tell(passage, aged)
    return reply


def _tell(passage: Passage, aged: Aged) -> None:
    if aged.seconds is not None:
        passage.headers[STALE] = str(max(1, math.ceil(aged.seconds)))
