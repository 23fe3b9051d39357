"""A whole collection in the order that a list asks for.

What was put in order once stays so until a document or the configuration changes: a filter keeps
the order, so a list of thousands costs its filter and its page.
"""

from collections.abc import Sequence

from proxy.control.frame import ControlDeps, Passage
from proxy.control.kinds import Kind, Object, Stored, collection_of, everything
from proxy.control.parsed import MAX_ORDERS
from proxy.control.wire import Order, arranged
from proxy.model.exchange import Json

Seen = tuple[Object, Stored]


async def in_order(
    kind: Kind, passage: Passage, deps: ControlDeps, orders: Sequence[Order]
) -> list[Seen]:
    """Each document with what a list looks at."""
    if not kind.fixed:
        return await _arranged(kind, passage, deps, orders)
    collection = await collection_of(kind, passage, deps)
    if collection.config is not passage.config:
        collection.config = passage.config
        collection.orders.clear()
    known = collection.orders.get(tuple(orders))
    if known is None:
        known = await _arranged(kind, passage, deps, orders)
        if len(collection.orders) >= MAX_ORDERS:
            collection.orders.clear()
        collection.orders[tuple(orders)] = known
    return known


async def _arranged(
    kind: Kind, passage: Passage, deps: ControlDeps, orders: Sequence[Order]
) -> list[Seen]:
    def value_of(each: Seen, name: str) -> Json:
        return kind.value_of(each[0], name)

    found = await everything(kind, passage, deps)
    seen = [(one.seen(kind, passage, deps), one) for one in found.values()]
    return arranged(seen, orders, value_of)
