"""The stream of one answer: upstream bytes in, bytes that may leave out.

    chunk -> framer -> reader -> guard -> bytes

Laws (guardrails.md §9.1, §9.8; failover.md §9):
* what leaves, joined, is the same prefix of the answer however the chunks were cut;
* held text leaves before the event that ends its lane; an event left empty is not sent;
* what does not parse is dropped and counted, or, if the stream cannot go on without it, breaks it;
* of an event on a guarded stream nothing leaves but its data and its name;
* a text that comes after its choice or block has ended is dropped and counted;
* of the event in which a block falls nothing leaves that begins or ends anything;
* after `over` nothing leaves but `last`.

A `Pump` knows no socket, no clock and no caller: it is tested at every split of recorded streams.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

from proxy.gateway.gates import StreamCalls
from proxy.gateway.intake import Intake, is_long
from proxy.gateway.slices import SLICE_CHARS
from proxy.gateway.texts import Texts, Wrap
from proxy.gateway.waiting import Entry, LaneKey, keep_flowing
from proxy.guardrails.engine import Guard
from proxy.guardrails.placeholders import Restoration
from proxy.guardrails.sampling import ALL
from proxy.model.exchange import Delta, ErrorSeen, Seen, WireEvent
from proxy.wire.dialect import StreamReader
from proxy.wire.dialects.lanes import TOO_MANY
from proxy.wire.jsonbody import must_be_unique
from proxy.wire.mould import Mould
from proxy.wire.providers.adapter import Framer
from proxy.wire.sse import bare

_NO_ENTRIES: Final[deque[Entry]] = deque()  # never written


class Pump(Intake):
    """One stream under way.

    `content`: the upstream has sent content.  `released`: something that the caller would see as
    content has come out (the commit point).  `terminal`: the answer is whole.  `over`: nothing more
    is read, because of `done` (the trailer), `blocked`, `error` (in-band) or `broken`.
    `last`: the bytes of the last write.  `progress` counts content and structural events.
    """

    __slots__ = (
        "_out", "_queue", "_take", "broken", "content", "done", "dropped", "error", "last",
        "progress", "reader", "released", "terminal",
    )  # fmt: skip

    def __init__(
        self,
        framer: Framer,
        reader: StreamReader,
        guard: Guard | None,
        draw: float = ALL,
        calls: StreamCalls | None = None,
        restoration: Restoration | None = None,
        wrap: Wrap | None = None,
        texts: Texts | None = None,
    ) -> None:
        self.reader = reader
        self._take: Callable[[Seen, list[bytes]], None]
        self._take = self._pass if guard is None else self._judge
        if texts is None and guard is not None:
            texts = Texts(guard, reader, draw, calls, restoration, wrap)
        super().__init__(texts, framer)
        self._queue = self._texts.room.entries if self._texts is not None else _NO_ENTRIES
        self._out: list[bytes] = []
        self.broken = ""
        self.error: ErrorSeen | None = None
        self.content = self.released = self.terminal = self.done = False
        self.last = b""
        self.dropped = self.progress = 0

    def __repr__(self) -> str:
        held = self._texts.held if self._texts is not None else 0
        return f"<Pump {self.progress} events {held} held{' over' if self.over else ''}>"

    # --- in

    def feed(self, chunk: bytes) -> bytes:
        """Read a piece of the body; returns what may leave now."""
        if self.over:
            return b""
        framer, out = self._framer, self._out
        if not framer.pending:
            text = self.reader.plain(chunk)  # one plain event: what nearly every chunk is
            if text is not None:
                return self._plain(chunk, text)
        try:
            self._feed_events(framer.feed(chunk), out)
        except ValueError as why:  # the framing itself is broken
            self._break(str(why))
        return self._taken(out)

    def _feed_events(self, events: list[WireEvent], out: list[bytes]) -> None:
        plain = self.reader.plain
        rest = iter(events)
        for event in rest:
            text = plain(event.raw)
            if text is not None:
                out.append(self._plain(event.raw, text))
                if self.over:
                    break
            elif not self._read(event, out):
                break
        if self._left_seens:
            self._left += rest

    def go_on(self) -> bytes:
        """Take the long text before which `feed` has stopped, and what came behind it."""
        out, seens, events = self._out, self._left_seens, self._left
        self._left_seens, self._left, self.defers, self.waits = [], [], False, False
        if self._take_all(seens, out):
            self._feed_events(events, out)
        self.defers = True
        return self._taken(out)

    def finish(self) -> bytes:
        """The body has ended.  Returns what may leave before `last`; without `terminal` the stream
        was cut, and what is held is discarded."""
        out = self._out
        self.defers = False
        if not self.over:
            try:
                for event in self._framer.finish():
                    if not self._read(event, out):
                        break
            except ValueError as why:
                self._break(str(why))
            if self._texts is not None and self.terminal and not self.over:
                self._close_all(self._texts, out)
            if self.terminal and not self.over:
                self._break("")
        return self._taken(out)

    def _read(self, event: WireEvent, out: list[bytes]) -> bool:
        """Take one event; False when nothing more is to be read."""
        try:
            if self._texts is not None:
                event.raw = bare(event)
                if event.data[:1] == b"{":
                    must_be_unique(event.data)
            seens = self.reader.read(event)
        except ValueError:
            if self.reader.structural(event) and not self.terminal:
                self._break(f"unreadable {event.name or 'event'}")
            else:
                self.dropped += 1
            return not self.over
        if self.defers and is_long(seens):
            self._left_seens, self.waits = seens, True
            return False
        return self._take_all(seens, out)

    def _take_all(self, seens: list[Seen], out: list[bytes]) -> bool:
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

    def _plain(self, raw: bytes, text: str) -> bytes:
        """A piece of text and nothing else, in an event that fitted the reader's mould."""
        self.content = True
        self.progress += 1
        texts = self._texts
        if texts is None:
            self.released = True
            return raw
        mould = self.reader.mould
        assert mould is not None
        if self._queue:
            return self._plain_behind(texts, mould, raw, text)
        texts.chars += len(text)
        lane = texts.lane(mould.lane)
        if lane is not None:
            passed = lane.feed(text) if len(text) <= SLICE_CHARS else texts.fed(lane, text)
            if lane.blocked is not None:
                texts.blocked, texts.message = lane.blocked, lane.message
                self.over = True
            if not passed:
                return b""
            if passed != text:
                raw = mould.event(passed)
        self.released = True
        return raw

    def _plain_behind(self, texts: Texts, mould: Mould, raw: bytes, text: str) -> bytes:
        """A plain piece of text while events before it wait."""
        out: list[bytes] = []
        self._go_on_without(texts, {mould.lane}, out)
        if not self.over:
            waiting, self._queue = self._queue, _NO_ENTRIES
            released, self.released = self.released, False
            left = Entry(self._plain(raw, text), self.released)
            self._queue, self.released = waiting, released
            if texts.blocked is not None:
                self._stop(texts, out)
            self._emit(left, out)
        return b"".join(out)

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
        texts = self._texts
        assert texts is not None
        if seen.repeats and seen.raw:
            seen.raw = self.reader.render(seen)
        if seen.content or seen.structural:
            self.content = self.content or seen.content
            self.progress += 1
        texts.see_calls(seen)
        here = {delta.lane for delta in seen.deltas}
        for key in texts.ended(seen):
            if key not in here:
                self._close(texts, key, out)
                if self.over:
                    return
        if seen.deltas:
            self._judge_deltas(texts, seen, here, out)
        elif not seen.done:
            self._emit(Entry(seen.raw, seen.content), out)
        self._drain(texts, out)
        if self.over:
            return
        if seen.terminal:
            self.terminal = True
            self.released = self.released or not self._queue
        if seen.done:
            self._finished(seen)

    def _judge_deltas(self, texts: Texts, seen: Seen, here: set[LaneKey], out: list[bytes]) -> None:
        if self._queue:
            self._go_on_without(texts, here, out)
            if self.over:
                return
        if seen.whole and not self._may_leave(texts, seen, out):
            return
        entry = Entry(seen.raw, False, seen)
        visible = False
        for place, delta in enumerate(seen.deltas):
            text = self._one(texts, delta, seen, entry)
            if text is None:
                return
            if text != delta.text and delta.stands != "waiting":
                delta.text = delta.holder[delta.member] = text
                entry.changed = True
            visible = visible or bool(text)
            if texts.blocked is not None:
                self._stop(texts, out, seen, place)
                return
        for key in texts.ended(seen):
            if key in here:
                texts.pause(key)
        if not entry.unsettled:
            texts.values(entry)
            if entry.changed:
                entry.raw = self.reader.render(seen)
            entry.seen = None
        if texts.blocked is not None:
            self._stop(texts, out, seen)
            return
        entry.commits = visible and seen.content
        if seen.done:
            seen.raw = entry.raw
        elif visible or seen.carries or seen.terminal or not entry.changed:
            self._emit(entry, out)

    def _one(self, texts: Texts, delta: Delta, seen: Seen, entry: Entry) -> str | None:
        """What of a delta may leave; None: nothing of the event."""
        match delta.stands:
            case "flowing" if not seen.whole:
                return texts.flow(delta, ends=seen.ends_all or delta.lane in seen.ends)
            case "flowing" if delta.lane[1] != "tool_name":
                return texts.whole(delta, seen)
            case "flowing" | "alone":
                return texts.alone(delta)
            case "late":
                self.dropped += 1
                return ""
            case "waiting":
                if delta.lane[2] == TOO_MANY:
                    self._break("more texts of unknown kind than can be told apart")
                    return None
                texts.wait(delta, entry)
                return delta.text
            case never:
                assert_never(never)

    def _may_leave(self, texts: Texts, seen: Seen, out: list[bytes]) -> bool:
        """A denied tool call does not; a notice does, behind the texts of its choice."""
        notice, at = texts.denied(seen), seen.deltas[0].lane[0]
        if texts.blocked is not None:
            self._stop(texts, out)
        elif notice:
            self._close_all(texts, out, at)
            if not self.over:
                self.reader.drop(seen)
                self._emit(Entry(self.reader.notice(at, notice), commits=True), out)
        return not notice and not self.over

    def _go_on_without(self, texts: Texts, here: set[LaneKey], out: list[bytes]) -> None:
        """An event of a choice that does not go on with a text settles it."""
        ats = {lane[0] for lane in here} | {-1}
        for key in texts.room.unsettled(ats):
            if key not in here:
                texts.pause(key)
        self._drain(texts, out)

    def _emit(self, entry: Entry, out: list[bytes]) -> None:
        """In its turn."""
        if entry.unsettled or self._queue:
            self._queue.append(entry)
        elif entry.raw:
            out.append(entry.raw)
            self.released = self.released or entry.commits

    def _drain(self, texts: Texts, out: list[bytes]) -> None:
        if self._queue:
            left, commits = texts.room.drain(texts.values)
            out += left
            self.released = self.released or commits
        if texts.blocked is not None and not self.over:
            self._stop(texts, out)

    def _close(self, texts: Texts, key: LaneKey, out: list[bytes]) -> None:
        """The lane ends: what it still holds leaves first."""
        text = texts.finish(key)
        if text:
            self._emit(Entry(self.reader.tail(key, text), commits=True), out)
        texts.pause(key)
        if texts.blocked is not None:
            self._stop(texts, out)

    def _close_all(self, texts: Texts, out: list[bytes], at: int | None = None) -> None:
        for key in texts.open_lanes():
            if not self.over and at in (None, key[0]):
                self._close(texts, key, out)
        self._drain(texts, out)

    # --- ends

    def _finished(self, seen: Seen) -> None:
        self.done = self.over = True
        self.last = seen.raw

    def _break(self, why: str) -> None:
        self.over = True
        if self.terminal:  # the answer is whole without what does not read
            self.last = self.reader.trailer()
        else:
            self.broken = why

    def _stop(
        self, texts: Texts, out: list[bytes], seen: Seen | None = None, place: int | None = None
    ) -> None:
        """A block: all lanes stop, and what was held is dropped.  The events before it leave, and
        of the one in which it fell (at the delta of that place) the texts that came before."""
        self.over = True
        for key in texts.room.growing():
            texts.pause(key)
        self._drain(texts, out)
        if seen is None or seen.whole:
            return
        left = self.reader.cut(seen) if keep_flowing(seen, place) else b""
        if left:
            out.append(left)
            self.released = self.released or seen.content

    def _taken(self, out: list[bytes]) -> bytes:
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data
