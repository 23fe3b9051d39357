"""Texts of unknown kind that may grow from event to event, and the events that wait for them.

A known text that is held moves into the next event of its lane.  Of an unknown one nobody can say
whether it goes on or is a value of its own, so it stays where it is and its whole event waits, and
what comes behind it waits too, until the guard has settled the text.  An event of the same choice
that does not go on with it settles it at once; should it go on later, what was said is remembered.

Laws: joined, the texts of a path are what its lane lets out; where that changes nothing, each event
leaves as it came; the order of events stays.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from proxy.gateway.slices import fed_in_slices
from proxy.guardrails.stream import Lane
from proxy.model.exchange import Delta, Part, Seen

LaneKey = tuple[int, Part, int]
MEMORY_CHARS: Final = 512  # of what a text said before it paused
MAX_PAUSED: Final = 256


@dataclass(slots=True)
class Entry:
    """Something that leaves in its turn: bytes, or an event (`seen`) with `unsettled` texts."""

    raw: bytes
    commits: bool
    seen: Seen | None = None
    unsettled: int = 0
    changed: bool = False


class _Growing:
    """One such text: `pending` are its pieces, each with its event and its end in the lane."""

    __slots__ = ("_came", "_out", "_said", "lane", "pending")

    def __init__(self, lane: Lane, said: str) -> None:
        self.lane = lane
        self.pending: deque[tuple[Delta | None, Entry | None, str, int]] = deque()
        self._said = ""
        self._out = ""
        self._came = 0
        if said:
            self._take(None, None, said)

    def __repr__(self) -> str:
        return f"<Growing {len(self.pending)} pending>"

    def feed(self, delta: Delta, entry: Entry) -> None:
        entry.unsettled += 1
        self._take(delta, entry, delta.text)
        self.settle(self._came - self.lane.held)

    def _take(self, delta: Delta | None, entry: Entry | None, text: str) -> None:
        self._came += len(text)
        self.pending.append((delta, entry, text, self._came))
        self._said = (self._said + text)[-MEMORY_CHARS:]
        self._out += fed_in_slices(self.lane, text)

    def finish(self) -> str:
        """Settle all of it; returns what is to be remembered."""
        if self.lane.blocked is None:
            self._out += self.lane.finish()
        self.settle(self._came)
        return self._said

    def settle(self, upto: int) -> None:
        while self.pending and self.pending[0][3] <= upto:
            delta, entry, text, _ = self.pending.popleft()
            left = text if self._out.startswith(text) else self._out
            self._out = self._out[len(left) :]
            if delta is None or entry is None:
                continue  # it has left long ago
            entry.unsettled -= 1
            if left != text:
                delta.text = delta.holder[delta.member] = left
                entry.changed = True


class WaitingRoom:
    """All such texts of a stream; `entries` are the events that wait."""

    __slots__ = ("_growing", "_new_lane", "_paused", "_render", "_retire", "entries")

    def __init__(
        self,
        new_lane: Callable[[Part], Lane | None],
        retire: Callable[[Lane], None],
        render: Callable[[Seen], bytes],
    ) -> None:
        self._new_lane = new_lane
        self._retire = retire
        self._render = render
        self._growing: dict[LaneKey, _Growing] = {}
        self._paused: dict[LaneKey, str] = {}
        self.entries: deque[Entry] = deque()

    def __repr__(self) -> str:
        return f"<WaitingRoom {len(self.entries)} events {len(self._growing)} texts>"

    @property
    def held(self) -> int:
        return sum(growing.lane.held for growing in self._growing.values())

    def feed(self, delta: Delta, entry: Entry) -> Lane | None:
        """Take a piece of a text; its event is `entry`.  Returns the lane, None where no rule
        looks."""
        growing = self._growing.get(delta.lane)
        if growing is None:
            lane = self._new_lane(delta.lane[1])
            if lane is None:
                return None
            growing = _Growing(lane, self._paused.pop(delta.lane, ""))
            self._growing[delta.lane] = growing
        growing.feed(delta, entry)
        return growing.lane

    def growing(self) -> list[LaneKey]:
        return list(self._growing)

    def pause(self, key: LaneKey) -> Lane | None:
        """That text does not go on here."""
        growing = self._growing.pop(key, None)
        if growing is None:
            return None
        said = growing.finish()
        self._paused[key] = said
        while len(self._paused) > MAX_PAUSED:
            del self._paused[next(iter(self._paused))]
        self._retire(growing.lane)
        return growing.lane

    def unsettled(self, ats: Iterable[int]) -> list[LaneKey]:
        """The texts of these choices that an event waits for."""
        return [key for key, growing in self._growing.items() if growing.pending and key[0] in ats]

    def drain(self, judge: Callable[[Entry], None]) -> tuple[list[bytes], bool]:
        """What may leave now; and whether the caller sees content in it."""
        out: list[bytes] = []
        commits = False
        while self.entries and not self.entries[0].unsettled:
            entry = self.entries.popleft()
            if entry.seen is not None:
                judge(entry)
                if entry.changed:
                    entry.raw = self._render(entry.seen)
            if entry.raw:
                out.append(entry.raw)
                commits = commits or entry.commits
        return out, commits

    def lanes(self) -> list[Lane]:
        return [growing.lane for growing in self._growing.values()]


def keep_flowing(seen: Seen, place: int | None) -> bool:
    """Take out of an event every text but those that flow, up to the one at `place`; whether they
    say anything."""
    shown = False
    for number, delta in enumerate(seen.deltas):
        if delta.stands == "flowing" and (place is None or number <= place):
            shown = shown or bool(delta.text)
        else:
            delta.holder[delta.member] = ""
    return shown
