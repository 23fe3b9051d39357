"""A row of the scorecard: the fault, what must come of it, and what is looked at besides."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tests.chaos.dialects import PUBLIC, Dialect
from tests.chaos.profile import Profile
from tests.chaos.said import Judge, Said
from tests.chaos.words import TEXT
from tests.kit.provider import Entry
from tests.kit.replies import Script, ok

if TYPE_CHECKING:
    from tests.chaos.stage import Stage

Level = Literal["pass", "partial", "safe", "fail"]
LEVELS: Sequence[Level] = ("pass", "partial", "safe", "fail")
Ends = Literal["whole", "refused", "in_band"]
Maker = Callable[[Dialect, Profile], Script]
Seconds = Callable[[Profile], float]


@dataclass
class Evidence:
    """Everything that is known of one request.  `asked`: by the role of the endpoint."""

    dialect: Dialect
    profile: Profile
    said: Said
    asked: dict[str, list[Entry]]
    event: dict[str, Any]
    decisions: list[dict[str, Any]]
    noted: list[str] = field(default_factory=list)

    @property
    def primary(self) -> list[Entry]:
        return self.asked["wall"]

    @property
    def fallbacks(self) -> list[Entry]:
        return [entry for role, found in self.asked.items() if role != "wall" for entry in found]

    @property
    def payload(self) -> dict[str, Any]:
        return dict(self.event.get("payload", {}))

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """As the event of the request tells them."""
        return list(self.payload.get("upstream_attempts", []))


Check = Callable[[Evidence], Iterator[str]]
"""Tells in a few words each what falls short."""


@dataclass(frozen=True)
class Result:
    """Of one row in one dialect."""

    row: str
    dialect: str
    level: Level
    attempts: str
    took_s: float
    short: tuple[str, ...] = ()
    tries: int = 1

    @property
    def id(self) -> str:
        return self.row if self.dialect == "chat" else f"{self.row}-{self.dialect}"


Conduct = Callable[["Stage", "Row", Dialect], Awaitable[Result]]
Meanwhile = Callable[["Stage", str], Awaitable[list[str]]]
"""Looks at something while the request of a lane is under way; tells what falls short."""


def healthy(dialect: Dialect, profile: Profile) -> Script:
    """Answers well, and goes on with an answer that was begun."""
    return ok(TEXT).continuing("exact")


def _ten_s(profile: Profile) -> float:
    return 10.0


@dataclass(frozen=True, eq=False)
class Row:
    """`attempts`: at the primary, then at each of `spares`, which are the roles of the fallbacks.

    `route` and `policy` are merged over the documents that all rows share.  `conduct`: for rows
    that are more than one request.  `lanes`: the routes of such a row.  `lasts`: seconds, roughly.
    `alone`: it needs the machine for itself.
    """

    id: str
    fault: str
    primary: Maker = healthy
    attempts: tuple[int, ...] = (1, 0)
    ends: Ends = "whole"
    answers: Maker = healthy
    spares: tuple[str, ...] = ("ok",)
    checks: tuple[Check, ...] = ()
    within: Seconds = _ten_s
    stream: bool = True
    tools: bool = False
    text: str = TEXT
    route: dict[str, object] = field(default_factory=dict)
    policy: dict[str, object] = field(default_factory=dict)
    dialects: Sequence[str] = PUBLIC
    meanwhile: Meanwhile | None = None
    conduct: Conduct | None = None
    lanes: tuple[str, ...] = ("sdk", "raw")
    lasts: Seconds = _ten_s
    alone: bool = False

    def lane(self, dialect: Dialect, judge: Judge | str) -> str:
        """The route, the model and the lane of that judge's request."""
        return f"{self.id}-{dialect.name}-{judge}".lower()
