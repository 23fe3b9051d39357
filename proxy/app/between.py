"""Holds between nodes, over Redis (failover.md §7.2, §11).

Two things are marked there: that an endpoint's own key is held for a model, and that an endpoint is
limited under a policy, which moves its traffic.  A node says what its own workers were told, never
what it has heard, so that no end grows later on its way to and fro.  Of a change the node tells
whose word was news to the server.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from proxy.model.batch import StoreUnavailable
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.routing.effects import Effect
from proxy.routing.holds import LATER_S, Key
from proxy.routing.merging import whole
from proxy.routing.standing import Standing
from proxy.storage.redis.holds import MOST, NAME_CHARS, HeardHold, RedisHolds, SaidHold
from proxy.wire.jsonbody import JsonError, dumps, loads

HELD: Final = "h"
LIMITED: Final = "l"
KEPT: Final = 10_000  # marks of this node
_NEWS, _AGAIN = 1, 2  # see `Answer.news`


class Mark(NamedTuple):
    """`kind` HELD: of an endpoint, for a model; LIMITED: of a policy, for an endpoint."""

    workspace_id: str
    kind: str
    of: str
    at: str

    @property
    def name(self) -> str:
        """In Redis."""
        return f"{self.kind}|{self.of}|{self.at}"

    @property
    def is_told(self) -> bool:
        """What cannot be read or is too long stays with the node that met it."""
        return len(self.name) <= NAME_CHARS and self.name.isprintable()

    @property
    def key(self) -> Key:
        """Of one that is HELD."""
        return Key(self.of, "", self.at, self.workspace_id)


def held_mark(key: Key) -> Mark:
    return Mark(key.workspace_id, HELD, key.endpoint_id, key.model)


def limited_mark(standing: Standing, endpoint_id: str) -> Mark:
    return Mark(standing.workspace_id, LIMITED, standing.policy.effective_id, endpoint_id)


@dataclass(frozen=True, slots=True)
class Held:
    """How a mark stands: for so long still; `over`: somebody was answered after it."""

    left_s: float
    over: bool = False
    in_a_row: int = 0
    quota: bool = False


class Hears(Protocol):
    """What is to be done on this node."""

    def hears(self, mark: Mark, held: Held) -> None:
        """Another node may know better: silently."""
        ...

    def limited_again(self, mark: Mark, *, quota: bool) -> tuple[Standing, Sequence[Effect]] | None:
        """To be told: others have said that it is over, and this node knows better."""
        ...


class Tells(Protocol):
    def tell(self, standing: Standing, effects: Sequence[Effect], at_ms: int) -> None: ...


@dataclass(slots=True)
class _Met:
    """`alone`: told while nobody heard it."""

    until: float
    in_a_row: int
    quota: bool
    alone: bool = False


@dataclass(frozen=True, slots=True)
class _Change:
    """What came of a mark, and is not told yet."""

    mark: Mark
    standing: Standing
    effects: Sequence[Effect]
    at_ms: int


class HoldsBetween:
    """What the workers of this node were told, and what the other nodes say."""

    def __init__(self, redis: RedisHolds, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock
        self._met: dict[Mark, _Met] = {}
        self._over: dict[Mark, None] = {}
        self._untold: list[_Change] = []

    def __repr__(self) -> str:
        return f"<HoldsBetween {len(self._met)} met>"

    def met(self, mark: Mark, until: float, *, in_a_row: int = 0, quota: bool = False) -> bool:
        """A worker was told so.  True: others do not know it yet."""
        known = self._met.get(mark)
        if not mark.is_told or (known is not None and until <= known.until + LATER_S):
            return False
        self._over.pop(mark, None)
        self._met[mark] = _Met(until, in_a_row, quota)
        if len(self._met) > KEPT:
            del self._met[next(iter(self._met))]
        return True

    def over(self, mark: Mark) -> None:
        """A worker was answered."""
        self._met.pop(mark, None)
        if mark.is_told and len(self._over) < KEPT:
            self._over[mark] = None

    def forget(self, mark: Mark) -> None:
        """It is of no interest any more."""
        self._met.pop(mark, None)

    def changed(
        self, mark: Mark, standing: Standing, effects: Sequence[Effect], at_ms: int
    ) -> None:
        """To be told when the server believes it."""
        self._untold.append(_Change(mark, standing, effects, at_ms))

    async def exchange(self, workspaces: Iterable[str], tells: Tells, hears: Hears) -> None:
        """Say and hear once.  Raises StoreUnavailable, and then has told what it knew alone."""
        untold, self._untold = self._untold, []
        said = self._said(workspaces)
        try:
            answers = await self._redis.exchange(
                {name: list(marks.values()) for name, marks in said.items()}
            )
        except StoreUnavailable:
            self._alone(tells, untold)
            raise
        news: dict[Mark, int] = {}
        for name, marks in said.items():
            news |= zip(marks, answers[name].news, strict=True)
        for change in untold:  # of one mark all or none: the server was told how it ended
            if news.get(change.mark, _NEWS):
                tells.tell(change.standing, change.effects, change.at_ms)
        for change in untold:
            news.pop(change.mark, None)
        for mark, answer in news.items():
            met = self._met.get(mark)
            if answer == _AGAIN and mark.kind == LIMITED and met is not None and not met.alone:
                again = hears.limited_again(mark, quota=met.quota)
                if again is not None:
                    tells.tell(*again, self._clock.now_ms())
        for name, answered in answers.items():
            for each in answered.heard:
                found = _understood(name, each)
                if found is not None:
                    hears.hears(*found)

    def _said(self, workspaces: Iterable[str]) -> dict[str, dict[Mark, SaidHold]]:
        """What the server is to know.  Of too many the newest are said."""
        now = self._clock.monotonic()
        self._met = {mark: met for mark, met in self._met.items() if met.until > now}
        over, self._over = self._over, {}
        said: dict[str, dict[Mark, SaidHold]] = {name: {} for name in workspaces}
        for mark in over:
            if mark.workspace_id in said:
                said[mark.workspace_id][mark] = SaidHold(mark.name, None, _rest(0, quota=False))
        for mark, met in reversed(self._met.items()):
            marks = said.get(mark.workspace_id)
            if marks is not None and len(marks) < MOST:
                left_ms = round((met.until - now) * 1000)
                rest = _rest(met.in_a_row, quota=met.quota)
                marks[mark] = SaidHold(mark.name, left_ms, rest)
        return said

    def _alone(self, tells: Tells, untold: Sequence[_Change]) -> None:
        for change in untold:
            tells.tell(change.standing, change.effects, change.at_ms)
            met = self._met.get(change.mark)
            if met is not None:
                met.alone = True


def _rest(in_a_row: int, *, quota: bool) -> bytes:
    return dumps({"in_a_row": in_a_row, "quota": quota})


def _understood(workspace_id: str, heard: HeardHold) -> tuple[Mark, Held] | None:
    """None: another version of Parapet has said it."""
    parts = heard.name.split("|", 2)
    if len(parts) != 3 or parts[0] not in (HELD, LIMITED):
        return None
    try:
        doc: Json = loads(heard.rest)
        if not isinstance(doc, dict):
            return None
        in_a_row, quota = whole(doc, "in_a_row"), doc.get("quota") is True
    except (JsonError, ValueError):
        return None
    mark = Mark(workspace_id, parts[0], parts[1], parts[2])
    return mark, Held(heard.left_ms / 1000, heard.over, max(0, in_a_row), quota)
