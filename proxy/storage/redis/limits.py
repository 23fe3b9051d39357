"""What the nodes of one Redis took of limits, minute by minute (`routing/abroad.py`).

One hash per minute: a field per process and limited thing, with the process's own sums.  Written
twice it says the same, so a question that was cut off may be asked again.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from proxy.storage.redis import keys
from proxy.storage.redis.server import Server

KEPT_MS: Final = 240_000  # a minute's hash; nobody looks further back than one
_SEP: Final = "|"

Name = tuple[str, str, str]
Sums = tuple[int, int, int]
Rows = list[tuple[tuple[str, Name], Sums]]


class RedisLimits:
    def __init__(self, server: Server) -> None:
        self._server = server

    def __repr__(self) -> str:
        return "<RedisLimits>"

    async def exchange(
        self,
        process: str,
        minute: int,
        mine: Iterable[tuple[tuple[str, str, str], Sums]],
        minutes: Sequence[int],
    ) -> dict[int, Rows]:
        """Write `mine`, and read what lies in those `minutes`.  Raises StoreUnavailable."""
        commands: list[tuple[bytes | str | int, ...]] = []
        said: list[str] = []
        for name, sums in mine:
            said += (_SEP.join((process, *name)), ":".join(map(str, sums)))
        if said:
            commands.append(("HSET", keys.limits(minute), *said))
            commands.append(("PEXPIRE", keys.limits(minute), KEPT_MS))
        commands += [("HGETALL", keys.limits(each)) for each in minutes]
        answers = await self._server.together(*commands)
        found = answers[len(commands) - len(minutes) :]
        return {
            each: list(_rows(answer.items() if isinstance(answer, dict) else _pairs(answer)))
            for each, answer in zip(minutes, found, strict=True)
        }


def _pairs(answer: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(answer[::2], answer[1::2], strict=True)


def _rows(pairs: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[tuple[str, Name], Sums]]:
    """What another version wrote in another way is left out."""
    for field, value in pairs:
        parts, sums = field.decode().split(_SEP), value.split(b":")
        if len(parts) == 4 and len(sums) == 3 and all(each.isdigit() for each in sums):
            process, *name = parts
            yield (
                (process, (name[0], name[1], name[2])),
                (int(sums[0]), int(sums[1]), int(sums[2])),
            )
