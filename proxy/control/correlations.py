"""{w}/correlations and those of an incident: which event followed from which (events.md §5.8)."""

from typing import Final

from pydantic import TypeAdapter

from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import Kind, Object, everything
from proxy.control.wire import (
    Instant,
    ListQuery,
    Order,
    arranged,
    page_reply,
    read_sort,
    whole,
    within,
)
from proxy.incidents.incident import Correlation
from proxy.storage.incidents import CORRELATION as NAME

NEWEST: Final = Order("created_at", descending=True)


class CorrelationsQuery(ListQuery):
    incident_id: list[str] | None = None
    pattern: list[str] | None = None
    since: Instant | None = None
    until: Instant | None = None


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, CorrelationsQuery), "the table says so"
    return (
        (query.incident_id is None or doc["incident_id"] in query.incident_id)
        and (query.pattern is None or doc["pattern"] in query.pattern)
        and within(doc["created_at"], query.since, query.until)
    )


CORRELATION: Final = Kind(
    name=NAME,
    noun="correlation",
    parameter="correlationId",
    adapter=TypeAdapter(Correlation),
    id_member="correlation_id",
    id_of=lambda said, _: str(said["correlation_id"]),
    keep=_keep,
    sorts=("created_at", "updated_at", "confidence", "pattern"),
    conditional_get=False,
    ours=True,
)


async def correlations_of(incident_id: str, passage: Passage, deps: ControlDeps) -> Reply:
    """A page of those that belong to one incident."""
    query = passage.query
    assert isinstance(query, ListQuery), "the table says so"
    orders = read_sort(query.sort, CORRELATION.sorts, NEWEST)
    found = await everything(CORRELATION, passage, deps)
    wanted = [one.told for one in found.values() if one.said["incident_id"] == incident_id]
    return page_reply(passage, query, arranged(wanted, orders, CORRELATION.value_of), whole)
