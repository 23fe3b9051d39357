"""What providers have said no to, between nodes (failover.md §7.2, §11).

One hash per workspace: a field for each hold of an endpoint's own key.  All times go by the
server's clock; as everywhere between nodes a question is asked once, and has 200 ms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.routing.holds import QUOTA_MOST_S
from proxy.storage.redis.keys import STANDINGS, Keys
from proxy.storage.redis.server import Server

MOST: Final = 256  # of a workspace; what comes then stays with the node that met it
KEPT_MS: Final = 60_000  # after its end, for those that hear of it late
LONGEST_MS: Final = round(QUOTA_MOST_S * 1000)
NAME_CHARS: Final = 512
_OVER: Final = -1


@dataclass(frozen=True, slots=True)
class SaidHold:
    """`left_ms` None: it is over, somebody was answered.  `rest`: for other nodes."""

    name: str
    left_ms: int | None
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class HeardHold:
    """As the nodes know it; `over`: somebody was answered after it."""

    name: str
    left_ms: int
    over: bool
    rest: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one workspace.  `news`, for each that was said: whether nobody had said so before, and 2
    when others had said meanwhile that it is over."""

    news: Sequence[int]
    heard: Sequence[HeardHold]


class RedisHolds:
    """`name`: of this node, among all."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name

    def __repr__(self) -> str:
        return f"<RedisHolds of {self._name}>"

    async def exchange(self, said: Mapping[str, Sequence[SaidHold]]) -> dict[str, Answer]:
        """Say and hear, workspace by workspace.  Raises StoreUnavailable."""
        calls = [self._call(each, holds) for each, holds in said.items()]
        answers = await self._server.hint_all("holds", calls)
        return {
            workspace_id: Answer([int(each) for each in news], [_heard(each) for each in heard])
            for workspace_id, (news, heard) in zip(said, answers, strict=True)
        }

    def _call(
        self, workspace_id: str, holds: Sequence[SaidHold]
    ) -> tuple[Sequence[bytes], list[Any]]:
        words: list[Any] = [STANDINGS, self._name, MOST, KEPT_MS, LONGEST_MS]
        for each in holds:
            words += [each.name, _OVER if each.left_ms is None else each.left_ms, each.rest]
        return [Keys(workspace_id).holds()], words


def _heard(row: Sequence[Any]) -> HeardHold:
    name, left_ms, over, rest = row
    return HeardHold(name.decode("utf-8", "replace"), int(left_ms), over == 1, rest)
