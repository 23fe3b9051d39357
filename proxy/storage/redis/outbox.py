"""The outbox as the server keeps it: claimed by a script, listed and counted by plain questions.

What is due goes by the clock of the machine that asks, as it was set by one; how long a claim lasts
goes by the server's, since another machine judges it.
"""

from collections.abc import Sequence
from typing import Any, Final

from proxy.model.batch import CLAIMED_ROWS, WHOLE_BATCH, Fence, OutboxRow, StoreConflict
from proxy.storage.redis.keys import WORKSPACES, Keys
from proxy.storage.redis.server import Server

TOLD_MS: Final = 10_000  # how long a question that is asked twice is told the same
FIELDS: Final = ("t", "g", "k", "p", "d", "a", "o", "n")
COUNTED: Final = 200  # workspaces in one question


async def claim(
    server: Server,
    keys: Keys,
    question: str,
    owner: str,
    *,
    lease_ms: int,
    limit: int,
    fence: Fence | None,
    now_ms: int,
) -> Sequence[OutboxRow]:
    """Raises StoreConflict, StoreUnavailable."""
    names = [keys.commit(question), keys.waiting(), keys.claimed(), keys.rows()]
    names.append((keys if fence is None else Keys(fence.lease)).lease())
    token = "" if fence is None else fence.token
    most = max(0, min(limit, CLAIMED_ROWS))
    sign, told = await server.run(
        "ob_claim", names, [now_ms, owner, lease_ms, most, token, TOLD_MS]
    )
    if sign != b"+":
        raise StoreConflict(WHOLE_BATCH, "fence")
    rows = [row_of(int(number), said) for number, said in told]
    return sorted(rows, key=lambda row: (row.due_ms, row.id))


async def listed(server: Server, keys: Keys, after_id: int, limit: int) -> Sequence[OutboxRow]:
    """By number."""
    found = await server.call(
        "ZRANGEBYSCORE", keys.all_rows(), f"({after_id}", "+inf", "LIMIT", 0, max(0, limit)
    )
    wanted = [int(member) for member in found]
    if not wanted:
        return []
    found = await server.together(*(("HMGET", keys.row(number), *FIELDS) for number in wanted))
    pairs = zip(wanted, found, strict=True)
    return [row_of(number, said) for number, said in pairs if said[0] is not None]


async def pending(server: Server) -> int:
    """Rows of all workspaces."""
    every = sorted(await server.call("SMEMBERS", WORKSPACES))
    count = 0
    for start in range(0, len(every), COUNTED):
        names = [Keys(each.decode()).all_rows() for each in every[start : start + COUNTED]]
        count += sum(await server.together(*(("ZCARD", name) for name in names)))
    return count


def row_of(number: int, said: Sequence[Any]) -> OutboxRow:
    """From the fields of its hash."""
    target, group, kind, payload, due_ms, attempts, owner, token = said
    return OutboxRow(
        number, target.decode(), group.decode(), kind.decode(), payload, int(due_ms),
        int(attempts), owner.decode(), int(token),
    )  # fmt: skip
