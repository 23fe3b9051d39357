"""When each key was last used, to the minute (control-api.md §12.9).

Every request that a key is taken for counts: those of this API, and those of the data plane, which
name their key in the spool.  What is noted here is written apart from the key, so that its revision
stays, once a minute at most and never on the way of a request.  `server.admin_key` has no document.
"""

import contextlib
from collections.abc import Sequence
from typing import Final

from proxy.control.config import ADMIN, Principal
from proxy.model.batch import ANY, Batch, StoreUnavailable
from proxy.model.events import SERVER_WORKSPACE, iso
from proxy.model.ports import Clock, Ids, Store
from proxy.storage.documents import document
from proxy.wire import jsonbody

KEY_STATE: Final = "key.state"
GRAIN_MS: Final = 60_000
EVERY_S: Final = 60.0
AT_ONCE: Final = 500  # keys in one commit
MAX_WAITING: Final = 50_000  # keys; a use of one more is forgotten


class KeyUses:
    """What was noted and is not written yet, of `limit` keys at most."""

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit = limit
        self._waiting: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<KeyUses of {len(self._waiting)} keys>"

    def by(self, caller: Principal, at_ms: int) -> None:
        """The control API took his key."""
        if caller is not ADMIN:
            self.note(caller.key_id, at_ms)

    def note(self, key_id: str, at_ms: int) -> None:
        """A key was used; earlier uses than the one that is known change nothing."""
        minute_ms = at_ms - at_ms % GRAIN_MS
        known_ms = self._waiting.get(key_id)
        if known_ms is None and len(self._waiting) >= self._limit:
            return
        if known_ms is None or known_ms < minute_ms:
            self._waiting[key_id] = minute_ms

    async def write(self, store: Store, ids: Ids) -> None:
        """What waits, in bounded commits.  It waits on when this raises StoreUnavailable."""
        waiting = dict(self._waiting)
        if not waiting:
            return
        written = _written(await store.scan(SERVER_WORKSPACE, KEY_STATE))
        puts = [
            document(KEY_STATE, key_id, {"last_used_at": iso(at_ms)}, at_ms, ANY)
            for key_id, at_ms in waiting.items()
            if at_ms > written.get(key_id, 0)  # another machine may have seen a later one
        ]
        for start in range(0, len(puts), AT_ONCE):
            batch = Batch(ids.new("cm-"), tuple(puts[start : start + AT_ONCE]))
            await store.commit(SERVER_WORKSPACE, batch)
        for key_id, at_ms in waiting.items():
            if self._waiting.get(key_id) == at_ms:
                del self._waiting[key_id]

    async def run(self, store: Store, clock: Clock, ids: Ids) -> None:
        """Write once a minute, for ever."""
        while True:
            await clock.sleep(EVERY_S)
            with contextlib.suppress(StoreUnavailable):  # it is told of where it happens
                await self.write(store, ids)


def _written(rows: Sequence[tuple[str, int, bytes]]) -> dict[str, int]:
    """Milliseconds since 1970 by key, of what the store has."""
    found = {}
    for key_id, _, body in rows:
        kept = jsonbody.loads(body)
        assert isinstance(kept, dict), "we wrote it"
        at_ms = kept["created_at"]
        assert isinstance(at_ms, int), "we wrote it"
        found[key_id] = at_ms
    return found
