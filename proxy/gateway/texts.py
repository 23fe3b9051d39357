"""The texts of one guarded stream, and what the guard says of them.

In charge of every lane and of the account of all that was found; `stream.py` decides what becomes
of the events.  A lane that has ended leaves its account here and is forgotten, so that a stream may
have any number of blocks.
"""

from collections.abc import Callable
from typing import Final

from proxy.gateway.gates import StreamCalls
from proxy.gateway.slices import SLICE_CHARS, fed_in_slices
from proxy.gateway.waiting import Entry, LaneKey, WaitingRoom
from proxy.guardrails.engine import Guard, Judgement
from proxy.guardrails.placeholders import RESTORED, Restoration
from proxy.guardrails.sampling import ALL
from proxy.guardrails.stream import Lane
from proxy.model.exchange import Delta, Leaf, Part, Seen
from proxy.model.policy import PolicyResult
from proxy.runtime.beside import breathe
from proxy.wire.dialect import StreamReader
from proxy.wire.leaves import json_text_leaves, rewrite_json_text

# what is put around the lane of a text, which may have none
Wrap = Callable[[LaneKey, Lane | None], Lane | None]
_FIRST_TEXT: Final[tuple[Part, int]] = ("text", 0)


class Texts:
    """`blocked` and `message`: why nothing more may leave.  `chars`: of all texts that came.
    `reasoning_off`: characters of reasoning among them, where no pack scans any.
    `given_up`: nobody wants them any more, so that long work may stop."""

    __slots__ = (
        "_calls", "_draw", "_guard", "_noticed", "_overflows", "_reader", "_restoration",
        "_results", "_scanned", "_wrap", "blocked", "chars", "given_up", "lanes", "message",
        "reasoning_off", "room",
    )  # fmt: skip

    def __init__(
        self,
        guard: Guard,
        reader: StreamReader,
        draw: float = ALL,
        calls: StreamCalls | None = None,
        restoration: Restoration | None = None,
        wrap: Wrap | None = None,
    ) -> None:
        self._guard = guard
        self._calls = calls
        self._draw = draw
        self._wrap = wrap
        self._reader = reader
        self._restoration = restoration
        self.lanes: dict[LaneKey, Lane | None] = {}
        self.room = WaitingRoom(self._begun, self._retire, reader.render)
        self._results: list[PolicyResult] = []
        self._overflows: list[tuple[str, str]] = []
        self._scanned = 0
        self.chars = self.reasoning_off = 0
        self.given_up = self._noticed = False
        self.blocked: PolicyResult | None = None
        self.message = ""

    def __repr__(self) -> str:
        return f"<Texts {len(self._open())} open{', blocked' if self.blocked else ''}>"

    def open_lanes(self) -> list[LaneKey]:
        """Every lane that has not ended."""
        return [*self.lanes, *self.room.growing()]

    def ended(self, seen: Seen) -> list[LaneKey]:
        """The lanes that an event ends."""
        return self.open_lanes() if seen.ends_all else seen.ends

    # --- tool calls

    def see_calls(self, seen: Seen) -> None:
        if self._calls is not None:
            self._calls.see(seen)

    def denied(self, seen: Seen) -> str:
        """The notice that stands for a whole call that is denied; it may be blocked, too."""
        if self._calls is None:
            return ""
        notice, permits = self._calls.judge(seen), self._calls.permits
        self._noticed = self._noticed or bool(notice)
        if permits.blocked is not None and self.blocked is None:
            self.blocked, self.message = permits.blocked, permits.message
        return notice

    # --- pieces of texts

    def lane(self, key: LaneKey) -> Lane | None:
        """None: nobody looks at that part."""
        lane = self.lanes.get(key)
        if lane is None and key not in self.lanes:
            if self._restoration is None:
                lane = self._begun(key[1])
            else:
                lane = self._guard.restoring_lane(key[1], self._restoration, self._draw)
            if self._wrap is not None:
                lane = self._wrap(key, lane)
            self.lanes[key] = lane
        return lane

    def _begun(self, part: Part) -> Lane | None:
        return self._guard.lane(part, self._draw)

    def flow(self, delta: Delta, *, ends: bool) -> str:
        """A piece of a growing lane: what of it (and of what was held) may leave."""
        self._count(delta)
        lane = self.lane(delta.lane)
        text = delta.text if lane is None else self.fed(lane, delta.text)
        return text + self.finish(delta.lane) if ends else self._checked(lane, text)

    def fed(self, lane: Lane, text: str) -> str:
        """What leaves a lane that gets this text; a long one in slices."""
        if len(text) <= SLICE_CHARS:
            return lane.feed(text)
        return fed_in_slices(lane, text, lambda: self.given_up)

    def finish(self, key: LaneKey) -> str:
        """A lane ends: what it still holds."""
        lane = self.lanes.pop(key, None)
        if lane is None:
            return ""
        text = lane.finish() if lane.blocked is None else ""
        self._retire(lane)
        return self._checked(lane, text)

    def alone(self, delta: Delta) -> str:
        """A text that is complete."""
        self._count(delta)
        return self._value(delta, note_all=True)

    def whole(self, delta: Delta, seen: Seen) -> str | None:
        """A complete tool call or reasoning block.  None: nothing of it leaves."""
        part = delta.lane[1]
        self.chars += len(delta.text)
        if part == "tool_args":
            leaves = json_text_leaves(delta.text, part, "assistant", ())
        else:
            leaves = [Leaf(delta.text, part, "assistant", ())]
        breathe()
        judged = self._guard.judge(leaves, "response", self._draw)
        breathe()
        self.note(judged)
        if judged.block is not None:
            return ""
        if judged.rewrites and part == "reasoning":
            self._reader.drop(seen)  # an edited signed block would be refused on the next turn
            return None
        rewrites = judged.rewrites
        if self._restoration is not None and part == "tool_args":
            if delta.member == "input" and not rewrites:  # of a custom tool: any text
                return self._restoration.whole(delta.text)
            rewrites = self._restoration.leaves(leaves, rewrites)
        return rewrite_json_text(delta.text, rewrites) if rewrites else delta.text

    def wait(self, delta: Delta, entry: Entry) -> None:
        """A text of unknown kind: its event leaves when it is settled."""
        self._count(delta)
        self._checked(self.room.feed(delta, entry), "")

    def pause(self, key: LaneKey) -> None:
        """A text of unknown kind does not go on: it is settled."""
        self._checked(self.room.pause(key), "")

    def values(self, entry: Entry) -> None:
        """Texts of unknown kind, each as a value of its own: it may be read like that, too."""
        assert entry.seen is not None, "bytes have no texts"
        for delta in entry.seen.deltas:
            if delta.stands == "waiting" and delta.text:
                text = self._value(delta, note_all=False)
                if text != delta.text:
                    delta.text = delta.holder[delta.member] = text
                    entry.changed = True

    def _value(self, delta: Delta, *, note_all: bool) -> str:
        leaf = Leaf(delta.text, delta.lane[1], "assistant", ())
        judged = self._guard.judge([leaf], "response", self._draw)
        if note_all or judged.block is not None or judged.rewrites:
            self.note(judged)
        if judged.block is not None:
            return ""
        text = judged.rewrites[0][1] if judged.rewrites else delta.text
        if self._restoration is None or delta.lane[1] not in RESTORED:
            return text
        return self._restoration.whole(text)

    def _checked(self, lane: Lane | None, text: str) -> str:
        if lane is not None and lane.blocked is not None and self.blocked is None:
            self.blocked, self.message = lane.blocked, lane.message
        return text

    # --- another answer goes on

    def last_lane(self) -> LaneKey | None:
        """Of the one text under way.  None: there is none, or several, or events wait, or there are
        words of ours between those of the model."""
        found = [key for key in self.lanes if key[1:] == _FIRST_TEXT]
        waits = bool(self.room.entries) or self._noticed
        return found[0] if len(found) == 1 and not waits else None

    def go_on(self, key: LaneKey, reader: StreamReader, calls: StreamCalls | None) -> None:
        """The text of that lane goes on in another answer, from what has left; what was held is
        forgotten, and nothing else of this answer goes on."""
        lane = self.lanes.pop(key)
        for other in self._open():
            self._retire(other)
        if self._calls is not None:
            self._calls.settle()
        self._reader, self._calls = reader, calls
        self.room = WaitingRoom(self._begun, self._retire, reader.render)
        if lane is not None:
            lane.rewind()
        self.lanes = {(0, *_FIRST_TEXT): lane}

    # --- the account

    def _count(self, delta: Delta) -> None:
        self.chars += len(delta.text)
        if delta.lane[1] == "reasoning" and self._guard.reasoning == "off":
            self.reasoning_off += len(delta.text)

    def _retire(self, lane: Lane) -> None:
        self._results += lane.results()
        self._overflows += lane.overflows
        self._scanned += lane.scanned_chars

    def add(self, results: list[PolicyResult]) -> None:
        """What was found beside the lanes."""
        self._results += results

    def note(self, judged: Judgement) -> None:
        """Take what was found beside the lanes into the account, a block too."""
        self._results += judged.results
        self._scanned += judged.scanned_chars
        if judged.block is not None and self.blocked is None:
            self.blocked, self.message = judged.block, judged.message

    def _open(self) -> list[Lane]:
        return [lane for lane in self.lanes.values() if lane is not None] + self.room.lanes()

    @property
    def held(self) -> int:
        held = 0
        for lane in self.lanes.values():
            if lane is not None:
                held += lane.held
        for waiting in self.room.lanes():
            held += waiting.held
        return held

    def results(self) -> list[PolicyResult]:
        """What the rules of texts found; calls have their own account, which is settled here."""
        if self._calls is not None:
            self._calls.settle()
        return self._results + [found for lane in self._open() for found in lane.results()]

    def coverage(self) -> int:
        """Characters that some rule has looked at."""
        return self._scanned + sum(lane.scanned_chars for lane in self._open())

    def overflows(self) -> list[tuple[str, str]]:
        return self._overflows + [pair for lane in self._open() for pair in lane.overflows]
