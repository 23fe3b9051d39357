"""Accepting events while the store is away: they go to the spool of this machine, class `api`.

They are committed when the store is back, once: each is recognised by its `event_id` as one that
comes through the API then, and the record of an Idempotency-Key goes into that commit, too.  Until
then nobody can say whether an event or a request is a repetition.
"""

from collections.abc import Sequence

from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import ticket_of
from proxy.control.problems import retry_later
from proxy.model.batch import Idem, StoreUnavailable
from proxy.model.events import Came, NewEvent
from proxy.spool.keeper import SpoolFull
from proxy.spool.kept import lines_of


async def keep(
    down: StoreUnavailable,
    passage: Passage,
    deps: ControlDeps,
    events: Sequence[NewEvent],
    came: Came,
    recipe: Reply,
) -> None:
    """On disk when this returns.  `recipe`: what a repetition of the request will need.

    Raises Problem 503 when the spool is full; `down` where nothing can be kept, or where it is not
    the store that has no time."""
    if deps.keeper is None or down.code != "storage-unavailable":
        raise down
    records = [op for op in ticket_of(passage).ops(recipe) if isinstance(op, Idem)]
    lines = lines_of(passage.workspace, came, events, records[0] if records else None)
    try:
        await deps.keeper.keep(lines)
    except SpoolFull as full:
        raise retry_later("spool-full", str(full)) from full
    deps.metrics.add("events_ingested_total", ("api", "spooled"), len(events))
