"""The documents that were read or written last, for readers while the server is away.

A reader that said that old things will do (`runtime.aging`) is answered from here when the server
gives no answer, and is told their age.  A collection is known once it was read whole; a document
that is not in it is not there.  Of other collections single documents are known.  Nobody else ever
sees any of it: a change looks at the server alone.

What was asked for least recently goes when there are too many bytes.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from proxy.model.batch import Batch, CommitResult, Delete, Put, StoreUnavailable
from proxy.model.ports import Clock
from proxy.runtime.aging import Aged, old_will_do

BYTES: Final = 64 << 20
ROW_BYTES: Final = 200  # of a document beside its body, about

Row = tuple[str, int, bytes]  # id, revision, body
Place = tuple[str, str, str | None]  # workspace, kind, id; None: the whole collection


@dataclass(slots=True)
class _Known:
    """Rows as they were at `at_s`, and what this process changed since (None: removed)."""

    at_s: float
    rows: list[Row]
    size_bytes: int
    since: dict[str, tuple[int, bytes] | None] = field(default_factory=dict)

    def all(self) -> list[Row]:
        if self.since:
            found: dict[str, tuple[int, bytes] | None] = {
                doc_id: (revision, body) for doc_id, revision, body in self.rows
            }
            found |= self.since
            self.rows = sorted((doc_id, *row) for doc_id, row in found.items() if row is not None)
            self.since = {}
        return self.rows


class Remembered:
    """At most about `limit_bytes`."""

    def __init__(self, clock: Clock, limit_bytes: int = BYTES) -> None:
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._known: OrderedDict[Place, _Known] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Remembered {len(self._known)} places, {self._bytes} bytes>"

    async def scan(
        self, workspace_id: str, kind: str, ask: Callable[[], Awaitable[list[Row]]]
    ) -> list[Row]:
        """What `ask` gives, or what it gave last.  Raises StoreUnavailable."""
        place = (workspace_id, kind, None)
        old = self._old_already(place)
        if old is not None:
            return old.all()
        began_s = self._clock.monotonic()
        try:
            rows = await ask()
        except StoreUnavailable as down:
            return self._old(down, place).all()
        self._keep(place, rows, began_s)
        return rows

    async def get(
        self,
        workspace_id: str,
        kind: str,
        doc_id: str,
        ask: Callable[[], Awaitable[tuple[int, bytes] | None]],
    ) -> tuple[int, bytes] | None:
        """What `ask` gives, or what was known of it last.  Raises StoreUnavailable."""
        places: tuple[Place, Place] = (workspace_id, kind, None), (workspace_id, kind, doc_id)
        old = self._old_already(*places)
        if old is None:
            began_s = self._clock.monotonic()
            try:
                row = await ask()
            except StoreUnavailable as down:
                old = self._old(down, *places)
            else:
                self._keep(places[1], [] if row is None else [(doc_id, *row)], began_s)
                return row
        return next((row[1:] for row in old.all() if row[0] == doc_id), None)

    def committed(self, workspace_id: str, batch: Batch, result: CommitResult) -> None:
        """This process wrote: what it reads later is not older than that."""
        for op in batch.ops:
            if not isinstance(op, Put | Delete):
                continue
            row = None
            if isinstance(op, Put):
                row = result.revisions[op.kind, op.id], op.body
            whole = self._known.get((workspace_id, op.kind, None))
            if whole is not None:
                whole.since[op.id] = row
                whole.size_bytes += _size(row)
                self._bytes += _size(row)
            rows = [] if row is None else [(op.id, *row)]
            self._keep((workspace_id, op.kind, op.id), rows, self._clock.monotonic())

    def _keep(self, place: Place, rows: list[Row], at_s: float) -> None:
        before = self._known.pop(place, None)
        self._bytes -= before.size_bytes if before is not None else 0
        if not rows and place[2] is not None:
            return  # nobody fills the memory by asking for what is not there
        known = _Known(at_s, rows, sum(_size(row[1:]) for row in rows))
        self._known[place] = known
        self._bytes += known.size_bytes
        while self._bytes > self._limit_bytes:
            _, gone = self._known.popitem(last=False)
            self._bytes -= gone.size_bytes

    def _old_already(self, *places: Place) -> _Known | None:
        """One answer is made of old things alone, and nobody waits for the server twice."""
        aged = old_will_do()
        return self._newest(aged, places) if aged is not None and aged.seconds is not None else None

    def _old(self, down: StoreUnavailable, *places: Place) -> _Known:
        """Raises StoreUnavailable when it is not known, or not wanted."""
        aged = old_will_do()
        if aged is None or down.code != "storage-unavailable":
            raise down
        known = self._newest(aged, places)
        if known is None:
            raise down
        return known

    def _newest(self, aged: Aged, places: Iterable[Place]) -> _Known | None:
        found = [self._known[place] for place in places if place in self._known]
        if not found:
            return None
        known = max(found, key=lambda each: each.at_s)
        aged.given(self._clock.monotonic() - known.at_s)
        return known


def _size(row: tuple[int, bytes] | None) -> int:
    return ROW_BYTES + (len(row[1]) if row is not None else 0)
