"""What may be forgotten, one bounded step at a time.  Recognitions and idempotency records have a
time to live; the rest goes here: old entries of logs, old rollups, revisions of what was deleted.
"""

from collections.abc import Set
from typing import Final

from proxy.model.batch import Retention
from proxy.model.events import EVENTS_LOG
from proxy.storage.redis.keys import WORKSPACES, Keys
from proxy.storage.redis.server import Server

ENTRIES: Final = 500  # a step
DOCUMENTS: Final = 500
HOURS: Final = 48
TOMBSTONE_MS: Final = 30 * 86_400_000  # how long a revision is not given twice
EVERYTHING: Final = 1 << 52
STEPS: Final = 8  # of one call


class Trimmer:
    """Goes round the workspaces, one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: list[str] = []

    async def step(self, retention: Retention, now_ms: int, known: Set[str]) -> bool:
        """True: there is more to do.  Raises StoreUnavailable."""
        if not self._waiting:
            self._waiting = await self._workspaces(known)
        for workspace_id in self._waiting[:STEPS]:
            if await self._workspace(Keys(workspace_id), retention, now_ms):
                return True
            self._waiting.remove(workspace_id)
        return bool(self._waiting)

    async def _workspaces(self, known: Set[str]) -> list[str]:
        """Told again each round: the server may have lost them."""
        if known:
            await self._server.call("SADD", WORKSPACES, *known)
        return sorted(each.decode() for each in await self._server.call("SMEMBERS", WORKSPACES))

    async def _workspace(self, keys: Keys, retention: Retention, now_ms: int) -> bool:
        more = False
        for log, kept_ms in retention.log_ms().items():
            most = retention.redis_max_events if log == EVENTS_LOG else EVERYTHING
            went = await self._server.run(
                "trim", [keys.log(log), keys.by_id(log)], [now_ms - kept_ms, most, ENTRIES]
            )
            more = more or went == ENTRIES
        gone = await self._server.run(
            "forget", [keys.gone(), keys.gone_at()], [now_ms - TOMBSTONE_MS, DOCUMENTS]
        )
        hours = await self._rollups(keys, (now_ms - retention.rollups_ms) // 3_600_000)
        return more or gone == DOCUMENTS or hours == HOURS

    async def _rollups(self, keys: Keys, before_hour: int) -> int:
        old = await self._server.call(
            "ZRANGEBYSCORE", keys.rollups(), "-inf", f"({before_hour}", "LIMIT", 0, HOURS
        )
        if old:
            names = [keys.rollup(int(hour)) for hour in old]
            await self._server.together(("UNLINK", *names), ("ZREM", keys.rollups(), *old))
        return len(old)
