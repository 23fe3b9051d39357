"""Who changed what: a row in the same commit as the change, each chained to the one before it.

A row that is changed, dropped or put in later breaks the chain (storage/chain.py, control-api.md
§12.9).  Invariant: a process writes a workspace's rows by one `Audit` under one lock; its head is
read from the log again whenever a commit did not say how it ended.  Where other machines write the
same log, the store chains a row anew that does not follow its end any more.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.model.batch import Append, LogFilter
from proxy.model.events import iso
from proxy.model.exchange import Json
from proxy.model.ports import Store
from proxy.storage.chain import GENESIS, row_hash
from proxy.wire import jsonbody

AUDIT_LOG: Final = "audit"
MAX_CHANGES: Final = 100
Object = dict[str, Json]


@dataclass(slots=True, frozen=True)
class Actor:
    """Who, from where, by which request."""

    key_id: str
    name: str
    role: str | None
    address: str
    request_id: str


@dataclass(slots=True)
class Chain:
    """The end of one workspace's log.  `row` gives the next row; it counts once it is committed."""

    seq: int
    head: str
    at_ms: int

    def row(
        self,
        actor: Actor,
        action: str,
        resource: tuple[str, str],
        changes: list[Json],
        outcome: Literal["success", "denied", "failed"] = "success",
        count: int = 1,
    ) -> Append:
        """`count`: how often it happened since the last row that tells of it."""
        self.seq += 1
        row: Object = {
            "audit_id": f"aud-{self.seq}",
            "seq": self.seq,
            "timestamp": iso(self.at_ms),
            "actor": {
                "key_id": actor.key_id,
                "name": actor.name,
                "role": actor.role,
                "ip": actor.address,
            },
            "action": action,
            "resource": {"type": resource[0], "id": resource[1]},
            "outcome": outcome,
            "request_id": actor.request_id,
            "changes": changes[:MAX_CHANGES],
            "count": count,
            "prev_hash": self.head,
        }
        self.head = row_hash(row)
        body = jsonbody.dumps({**row, "hash": self.head})
        return Append(
            AUDIT_LOG, body, at_ms=self.at_ms, received_ms=self.at_ms, type=action, chained=True
        )


@dataclass(slots=True)
class Audit:
    """The logs of all workspaces."""

    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _heads: dict[str, tuple[int, str]] = field(default_factory=dict)

    @asynccontextmanager
    async def chain(self, store: Store, workspace_id: str, now_ms: int) -> AsyncIterator[Chain]:
        """Hold the end of the log for one commit.  Leaving without a fault says it is committed."""
        async with self._locks.setdefault(workspace_id, asyncio.Lock()):
            known = self._heads.pop(workspace_id, None)
            seq, head = known if known is not None else await _last(store, workspace_id)
            chain = Chain(seq, head, now_ms)
            yield chain
            self._heads[workspace_id] = chain.seq, chain.head


async def _last(store: Store, workspace_id: str) -> tuple[int, str]:
    page = await store.range(workspace_id, AUDIT_LOG, LogFilter(limit=1))
    if not page.entries:
        return 0, GENESIS
    row = jsonbody.loads(page.entries[0].body)
    assert isinstance(row, dict), "we wrote it"
    return page.entries[0].seq, str(row["hash"])


def changes_of(old: Json, new: Json, path: str = "") -> list[Json]:
    """What is different, by JSON Pointer, members of objects one by one."""
    if old == new:
        return []
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [{"path": path or "/", "old": old, "new": new}]
    found: list[Json] = []
    for name in dict.fromkeys([*old, *new]):
        step = str(name).replace("~", "~0").replace("/", "~1")
        found += changes_of(old.get(name), new.get(name), f"{path}/{step}")
    return found
