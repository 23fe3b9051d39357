"""Until when a provider wants to be left alone: after a 429, or when money has run out.

Per endpoint, credential and upstream model (failover.md §2, §7.2): what one key or model has used
up says nothing of another.  When a hold is over one request at a time tries.  Pure: `now` is
handed in.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

SHORTEST_S: Final = 1.0
LONGEST_S: Final = 300.0
UNHINTED_S: Final = 2.0
UNHINTED_MOST_S: Final = 60.0
QUOTA_S: Final = 300.0
QUOTA_MOST_S: Final = 3600.0
LATER_S: Final = 0.05  # what is told grows older on its way: that is no later end
MOST: Final = 10_000  # of one worker; the one that was touched longest ago is forgotten


class Key(NamedTuple):
    """`credential`: "" for the endpoint's own, else a digest of the caller's."""

    endpoint_id: str
    credential: str
    model: str
    workspace_id: str = "default"


@dataclass(slots=True)
class Hold:
    """`until`: nobody asks before.  `in_a_row`: how often it was said without a time.
    `trying_until`: somebody tries, and has so long to say what came of it."""

    until: float = 0.0
    in_a_row: int = 0
    trying_until: float = 0.0
    quota: bool = False


class Holds:
    """Of one process."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._holds: OrderedDict[Key, Hold] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Holds {len(self._holds)}>"

    def __bool__(self) -> bool:
        return bool(self._holds)

    def hit(self, key: Key, now: float, hint_s: float | None, *, quota: bool = False) -> float:
        """It said no.  Returns until when it is held, which a later no never brings forward."""
        hold = self._holds.get(key)
        if hold is None:
            hold = self._holds[key] = Hold()
            while len(self._holds) > self._most:
                self._holds.popitem(last=False)
        self._holds.move_to_end(key)
        if quota and not hold.quota:
            hold.in_a_row = 0
        hold.quota = hold.quota or quota
        if hint_s is not None and not quota:
            wait_s = min(max(hint_s, SHORTEST_S), LONGEST_S)
        else:
            first, most = (QUOTA_S, QUOTA_MOST_S) if quota else (UNHINTED_S, UNHINTED_MOST_S)
            wait_s = min(first * 2.0 ** min(hold.in_a_row, 16), most)
            hold.in_a_row += 1
        hold.until = max(hold.until, now + wait_s)
        hold.trying_until = 0.0
        return hold.until

    def learn(self, key: Key, now: float, left_s: float, *, in_a_row: int, quota: bool) -> bool:
        """Another process was told no.  True: it holds longer than was known here."""
        hold = self._holds.get(key)
        if hold is not None and hold.until >= now + left_s:
            return False
        self.hit(key, now, 0.0)
        hold = self._holds[key]
        hold.until, hold.in_a_row, hold.quota = now + left_s, in_a_row, quota
        return True

    def of(self, key: Key) -> Hold | None:
        return self._holds.get(key)

    def own(self) -> list[Key]:
        """Those of the endpoints' own credentials."""
        return [key for key in self._holds if not key.credential]

    def left_s(self, key: Key, now: float) -> float:
        """How long it is still held; 0: it may be asked, by one at a time."""
        hold = self._holds.get(key)
        return 0.0 if hold is None else max(0.0, hold.until - now)

    def admits(self, key: Key, now: float) -> bool:
        """Whether it may be asked now.  Takes nothing: see `try_now`."""
        hold = self._holds.get(key)
        return hold is None or (hold.until <= now and hold.trying_until <= now)

    def try_now(self, key: Key, now: float, limit_s: float) -> None:
        """A request is sent to it, which takes `limit_s` at most."""
        hold = self._holds.get(key)
        if hold is not None:
            hold.trying_until = now + limit_s

    def ended(self, key: Key, *, well: bool) -> None:
        """What came of an attempt that was no 429: a success ends the hold."""
        hold = self._holds.get(key)
        if hold is None:
            return
        hold.trying_until = 0.0
        if well:
            del self._holds[key]

    def all(
        self, endpoint_id: str, now: float, workspace_id: str = "default"
    ) -> list[tuple[Key, float]]:
        """Those of an endpoint that still hold, with the seconds that are left."""
        return [
            (key, hold.until - now)
            for key, hold in self._holds.items()
            if key.endpoint_id == endpoint_id
            and key.workspace_id == workspace_id
            and hold.until > now
        ]
