"""The stream of one answer: upstream bytes in, bytes that may leave out.

    chunk -> framer -> reader -> guard -> bytes

Laws (guardrails.md §9.1, §9.8; failover.md §9):
* what leaves, joined, is the same prefix of the answer however the chunks were cut;
* held text leaves before the event that ends its lane; an event left empty is not sent;
* what does not parse is dropped and counted, or, if the stream cannot go on without it, breaks it;
* after `over` nothing leaves but `last`.

A `Pump` knows no socket, no clock and no caller: it is tested at every split of recorded streams.
"""

from collections.abc import Callable
from typing import Protocol

from proxy.guardrails.engine import Guard, Judgement
from proxy.guardrails.stream import Lane
from proxy.model.exchange import Delta, ErrorSeen, Leaf, Part, Seen, WireEvent
from proxy.model.policy import PolicyResult
from proxy.wire.dialect import StreamReader
from proxy.wire.leaves import json_text_leaves, rewrite_json_text

LaneKey = tuple[int, Part, int]


class Framer(Protocol):
    """Bytes into events; `pending` bytes at the end of the body mean truncation."""

    pending: int

    def feed(self, data: bytes) -> list[WireEvent]: ...
    def finish(self) -> list[WireEvent]: ...


class Pump:
    """One stream under way.

    `content`: the upstream has sent content.  `released`: something that the caller would see as
    content has come out (the commit point).  `terminal`: the answer is whole.  `over`: nothing more
    is read, because of `done` (the trailer), `blocked`, `error` (in-band) or `broken`.
    `last`: the bytes of the last write.  `progress` counts content and structural events.
    """

    __slots__ = (
        "_framer",
        "_guard",
        "_judgements",
        "_lanes",
        "_message",
        "_out",
        "_take",
        "blocked",
        "broken",
        "content",
        "done",
        "dropped",
        "error",
        "last",
        "over",
        "progress",
        "reader",
        "released",
        "terminal",
    )

    def __init__(self, framer: Framer, reader: StreamReader, guard: Guard | None) -> None:
        self._framer = framer
        self.reader = reader
        self._guard = guard
        self._take: Callable[[Seen, list[bytes]], None]
        self._take = self._pass if guard is None else self._judge
        self._lanes: dict[LaneKey, Lane | None] = {}
        self._judgements: list[Judgement] = []
        self._out: list[bytes] = []
        self._message = ""
        self.blocked: PolicyResult | None = None
        self.broken = ""
        self.error: ErrorSeen | None = None
        self.content = self.released = self.terminal = self.done = self.over = False
        self.last = b""
        self.dropped = 0
        self.progress = 0

    def __repr__(self) -> str:
        held = sum(lane.held for lane in self._lanes.values() if lane is not None)
        return f"<Pump {self.progress} events {held} held{' over' if self.over else ''}>"

    # --- in

    def feed(self, chunk: bytes) -> bytes:
        """Read a piece of the body; returns what may leave now."""
        if self.over:
            return b""
        out = self._out
        try:
            for event in self._framer.feed(chunk):
                if not self._read(event, out):
                    break
        except ValueError as why:  # the framing itself is broken
            self._break(str(why))
        return self._taken(out)

    def finish(self) -> bytes:
        """The body has ended.  Returns what may leave before `last`; without `terminal` the stream
        was cut, and what is held is discarded."""
        out = self._out
        if not self.over:
            try:
                for event in self._framer.finish():
                    if not self._read(event, out):
                        break
            except ValueError as why:
                self._break(str(why))
            if self.terminal and not self.over:
                self._close_all(out)
                self.last = self.reader.trailer()
                self.over = True
        return self._taken(out)

    def _read(self, event: WireEvent, out: list[bytes]) -> bool:
        """Take one event; False when nothing more is to be read."""
        try:
            seens = self.reader.read(event)
        except ValueError:
            if self.reader.structural(event):
                self._break(f"unreadable {event.name or 'event'}")
            else:
                self.dropped += 1
            return not self.over
        take = self._take
        for seen in seens:
            if seen.error is not None:
                self.error = seen.error
                self.over = True
                return False
            take(seen, out)
            if self.over:
                return False
        return True

    # --- without rules

    def _pass(self, seen: Seen, out: list[bytes]) -> None:
        if seen.done:
            self._finished(seen)
            return
        if seen.content:
            self.content = self.released = True
            self.progress += 1
        elif seen.structural:
            self.progress += 1
        if seen.terminal:
            self.terminal = self.released = True
        if seen.raw:
            out.append(seen.raw)

    # --- with rules

    def _judge(self, seen: Seen, out: list[bytes]) -> None:
        if seen.content:
            self.content = True
            self.progress += 1
        elif seen.structural:
            self.progress += 1
        if seen.deltas:
            self._judge_deltas(seen, out)
        else:
            if seen.ends_all:
                self._close_all(out)
            for key in seen.ends:
                self._close(key, out)
            if self.over:
                return
            if seen.done:
                self._finished(seen)
                return
            if seen.raw:
                out.append(seen.raw)
                if seen.content:
                    self.released = True
        if seen.terminal and not self.over:
            self.terminal = self.released = True

    def _judge_deltas(self, seen: Seen, out: list[bytes]) -> None:
        here = {delta.lane for delta in seen.deltas}
        if seen.ends_all:
            self._close_all(out, but=here)
        for key in seen.ends:
            if key not in here:
                self._close(key, out)
        changed, visible = False, False
        for delta in seen.deltas:
            if self.over:
                return
            if seen.whole and delta.lane[1] != "tool_name":
                text = self._judge_whole(delta, seen)
                if text is None:
                    return
            else:
                ends = seen.ends_all or delta.lane in seen.ends
                text = self._flow(delta, ends=ends)
            if text != delta.text:
                delta.holder[delta.member] = text
                changed = True
            if text:
                visible = True
        if not changed:
            out.append(seen.raw)
        elif visible or seen.carries or seen.terminal:
            out.append(self.reader.render(seen))
        if visible and seen.content:
            self.released = True
        if self.blocked is not None:
            self._end_blocked()

    def _flow(self, delta: Delta, *, ends: bool) -> str:
        """A piece of a growing lane: what of it (and of what was held) may leave."""
        key = delta.lane
        lane = self._lanes.get(key)
        if lane is None:
            if key in self._lanes:
                return delta.text
            assert self._guard is not None
            lane = self._lanes[key] = self._guard.lane(key[1])
            if lane is None:
                return delta.text
        text = lane.feed(delta.text)
        if ends and lane.blocked is None:
            text += lane.finish()
        if lane.blocked is not None:
            self.blocked, self._message = lane.blocked, lane.message
        return text

    def _judge_whole(self, delta: Delta, seen: Seen) -> str | None:
        """A complete tool call or reasoning block.  None: nothing of it leaves."""
        assert self._guard is not None
        part = delta.lane[1]
        if part == "tool_args":
            leaves = json_text_leaves(delta.text, part, "assistant", ())
        else:
            leaves = [Leaf(delta.text, part, "assistant", ())]
        judged = self._guard.judge(leaves, "response")
        self._judgements.append(judged)
        if judged.block is not None:
            self.blocked, self._message = judged.block, judged.message
            self._end_blocked()
            return None
        if not judged.rewrites:
            return delta.text
        if part == "reasoning":  # an edited signed block would be refused on the next turn
            self.reader.drop(seen)
            return None
        return rewrite_json_text(delta.text, judged.rewrites)

    def _close(self, key: LaneKey, out: list[bytes]) -> None:
        """The lane ends: what it still holds leaves first."""
        lane = self._lanes.get(key)
        if lane is None or self.over:
            return
        text = lane.finish()
        if text:
            out.append(self.reader.tail(key, text))
            self.released = True
        if lane.blocked is not None:
            self.blocked, self._message = lane.blocked, lane.message
            self._end_blocked()

    def _close_all(self, out: list[bytes], but: set[LaneKey] | None = None) -> None:
        for key in list(self._lanes):
            if but is None or key not in but:
                self._close(key, out)

    # --- ends

    def _finished(self, seen: Seen) -> None:
        self.done = self.over = True
        self.last = seen.raw

    def _break(self, why: str) -> None:
        self.broken = why
        self.over = True

    def _end_blocked(self) -> None:
        """All lanes stop; what was held is dropped."""
        self.over = True

    def _taken(self, out: list[bytes]) -> bytes:
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # --- what the guard says

    @property
    def message(self) -> str:
        """The sentence for the caller when `blocked`."""
        return self._message

    def results(self) -> list[PolicyResult]:
        found = [result for judged in self._judgements for result in judged.results]
        for lane in self._lanes.values():
            if lane is not None:
                found += lane.results()
        return found

    def coverage(self) -> int:
        """Characters that some rule has looked at."""
        lanes = sum(lane.scanned_chars for lane in self._lanes.values() if lane is not None)
        return lanes + sum(judged.scanned_chars for judged in self._judgements)

    def overflows(self) -> list[tuple[str, str]]:
        return [
            pair for lane in self._lanes.values() if lane is not None for pair in lane.overflows
        ]
