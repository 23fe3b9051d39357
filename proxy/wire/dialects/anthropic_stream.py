"""An Anthropic Messages stream, read and written (wire.md §3.7, §7.2; failover.md §9).

Nearly every event is one piece of text of the open block; it takes the short way.  With
`hold_tools` a tool call's block, with `hold_reasoning` a thinking block, is kept from its start to
its stop and then leaves as one `whole` Seen; a block that is dropped moves later ones up, for their
indexes have to run 0, 1, 2.

What has been sent is known only up to the event before the last: a guard may stop the stream in the
middle of the last one.  `blocked_end` therefore closes what was open before it.
"""

from collections.abc import Collection
from typing import Final

from proxy.model.errors import ProxyError
from proxy.model.exchange import Delta, Json, Part, Seen, Stand, Usage, WireEvent
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows, Lane, Object
from proxy.wire.dialects.anthropic_blocks import (
    ASKS,
    MESSAGE_WORDS,
    START_WORDS,
    STOP_WORDS,
    STOPPED,
    TEXTS,
    TOOL_CALLS,
    WORDS,
    FlowingBlocks,
    HeldBlock,
    Sent,
    delta_bytes,
    end_after_block,
    event_bytes,
    render_whole,
    text_block,
)
from proxy.wire.dialects.lanes import Halves, Strangers, paired
from proxy.wire.errors import error_doc
from proxy.wire.failures import stream_error
from proxy.wire.mould import LESSONS, Mould, cast
from proxy.wire.usage import estimate_bytes, merge_anthropic, read_usage

METRICS: Final = "amazon-bedrock-invocationMetrics"
_NO_BLOCK: Final = -1  # where lanes of members beside the blocks are
_LOSABLE: Final = frozenset({"content_block_delta", "ping"})


class MessagesStream:
    """`StreamReader` for Anthropic Messages."""

    __slots__ = (
        "_before", "_done", "_flowing", "_gone", "_halves", "_held", "_hold_reasoning",
        "_hold_tools", "_lanes", "_lessons", "_now", "_shift", "_strangers", "_terminal",
        "_text_lane", "_tools_dropped", "_tools_sent", "_unsigned_at", "finish_reason", "model",
        "mould", "output_bytes", "unknown_events", "usage",
    )  # fmt: skip

    def __init__(
        self, *, hold_tools: bool, hold_reasoning: bool, flows: Flows | None = None
    ) -> None:
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.output_bytes = self.unknown_events = 0
        self.mould: Mould | None = None
        self._lessons = LESSONS
        self._hold_tools, self._hold_reasoning = hold_tools, hold_reasoning
        self._flowing = FlowingBlocks(flows)
        self._held: HeldBlock | None = None
        self._gone: set[str] = set()  # ids of calls that were dropped
        self._now = self._before = Sent()
        self._shift = 0  # a block's index for the caller = the provider's − this
        self._lanes: set[Lane] = set()  # that the open block may have
        self._text_lane: Lane | None = None
        self._tools_sent = self._tools_dropped = 0
        self._unsigned_at = -1  # the block whose reasoning was rewritten
        self._terminal = self._done = False
        self._halves = Halves()
        self._strangers = Strangers()

    def __repr__(self) -> str:
        state = "done" if self._done else "terminal" if self._terminal else "open"
        return f"<MessagesStream {self._now.next_at} blocks {state}>"

    # --- in

    def plain(self, raw: bytes) -> str | None:
        mould = self.mould
        text = mould.text(raw) if mould is not None else None
        if text is not None:
            self._before = self._now
            self.output_bytes += len(text) if text.isascii() else len(text.encode())
        return text

    def read(self, event: WireEvent) -> list[Seen]:
        data = event.data
        if not data:
            return [Seen(event.raw)]
        try:
            doc = jsonbody.loads(data)
            mend = bool(self._halves)
            if len(data) > jsonbody.SHALLOW_BYTES:
                jsonbody.refuse_depth(doc, data)
        except jsonbody.JsonError:
            doc, mend = jsonbody.loads_event(data), True
        if type(doc) is not dict:
            raise ValueError("an event that is no object")
        self._before = self._now
        lane = self._text_lane
        if lane is not None and not mend and len(doc) == 3:  # the short way: a piece of text
            delta = doc.get("delta")
            if (
                type(delta) is dict
                and len(delta) == 2
                and delta.get("type") == "text_delta"
                and doc.get("type") == "content_block_delta"
                and doc.get("index") == lane[0]
            ):
                text = delta.get("text")
                if type(text) is str and text:
                    self.output_bytes += len(text) if text.isascii() else len(text.encode())
                    piece = Delta(lane, text, delta, "text")
                    seen = Seen(event.raw, event.name, doc, [piece], content=True)
                    if self._lessons:
                        self._lessons -= 1
                        self.mould = cast(seen, self.render)
                    return [seen]
        return self._long_way(event, doc, mend)

    def _long_way(self, event: WireEvent, doc: Object, mend: bool) -> list[Seen]:
        kind = doc.get("type")
        seen = Seen(event.raw, event.name, doc)
        if kind == "ping" or (kind is None and event.name == "ping"):
            self._beside(seen, doc, ("type",))
            return [seen]
        if kind == "error" or (kind is None and doc.get("error")):
            seen.error, seen.structural = stream_error(doc), True
            return [seen]
        first: list[Seen] = []
        if kind == "content_block_delta":
            self._block_delta(seen, doc)
        elif kind == "content_block_start":
            first = self.flush()
            self._block_start(seen, doc)
        elif kind == "content_block_stop":
            whole = self._block_stop(seen, doc)
            if whole is not None:
                return [whole]
        elif kind == "message_delta":
            first = self.flush()
            self._message_delta(seen, doc)
        elif kind == "message_stop":
            first = self.flush()
            self._message_stop(seen, doc)
        elif kind == "message_start":
            self._message_start(seen, doc)
        else:
            self.unknown_events += 1
            names = [name for name in doc if name not in WORDS]
            self._strange(seen, doc, names, "text", _NO_BLOCK)
        if mend:
            self.mould = None  # what follows may begin with the other half
            if self._halves.mend_all(seen.deltas):
                seen.raw = self.render(seen)
        self.output_bytes += sum(len(d.text.encode("utf-8", "replace")) for d in seen.deltas)
        return [*first, seen]

    def _message_start(self, seen: Seen, doc: Object) -> None:
        seen.structural = seen.carries = True
        message = doc.get("message")
        if type(message) is dict:
            model = message.get("model")
            self.model = paired(model) if type(model) is str and model else self.model
            self._merge_usage(message.get("usage"))
            names = [name for name in message if name not in MESSAGE_WORDS]
            self._strange(seen, message, names, "text", _NO_BLOCK, "alone")
        self._beside(seen, doc, ("type", "message"))
        self._now = self._now._replace(started=True)

    def _block_start(self, seen: Seen, doc: Object) -> None:
        came_at, block = doc.get("index"), doc.get("content_block")
        if type(came_at) is not int or type(block) is not dict:
            raise ValueError("a content block without index or body")
        kind = block.get("type")
        is_tool = kind in TOOL_CALLS
        gone = bool(self._gone) and block.get("tool_use_id") in self._gone
        held = is_tool and self._hold_tools and not self._flowing.begin(block)
        if held or gone or (kind == "thinking" and self._hold_reasoning):
            self._held = HeldBlock(came_at, block, seen.raw, is_tool=is_tool, gone=gone)
            self._held.strange = len(doc) != len(START_WORDS)
            seen.raw, seen.doc, seen.content, seen.structural = b"", None, True, True
            return
        at = self._place(seen, doc, came_at)
        seen.structural = seen.carries = True
        self._lanes = {(at, "text", 0), (at, "reasoning", 0), (at, "tool_args", 0)}
        self._text_lane = (at, "text", 0) if kind == "text" and not self._shift else None
        self.mould = None
        name = kind if type(kind) is str else ""
        self._now = Sent(True, at, name, at + 1)
        self._beside(seen, doc, START_WORDS)
        strange = [n for n in block if n not in WORDS]
        part: Part = "text"
        stands: Stand = "alone"  # of a block that we know, nothing goes on in its deltas
        if kind == "text":
            self._piece(seen, block, "text", (at, "text", 0))
            strange, part = [n for n in strange if n != "text"], "annotation"
        elif kind == "thinking":
            self._piece(seen, block, "thinking", (at, "reasoning", 0))
            strange, part = [n for n in strange if n != "thinking"], "metadata"
        elif is_tool:
            self._tools_sent += kind == ASKS
            seen.content = True
            self._piece(seen, block, "name", (at, "tool_name", 0))
            seen.ends += [(at, "tool_name", 0)]
            strange, part = [n for n in strange if n != "name"], "tool_args"
        else:
            seen.content = True
            if name.endswith("_tool_result"):
                part = "tool_result"
            else:
                stands = "waiting"
        self._strange(seen, block, strange, part, at, stands)

    def _block_delta(self, seen: Seen, doc: Object) -> None:
        came_at, delta = doc.get("index"), doc.get("delta")
        if type(came_at) is not int or type(delta) is not dict:
            raise ValueError("a delta without index or body")
        if self._held is not None and self._held.came_at == came_at:
            self.output_bytes += self._held.add(delta, seen.raw)
            seen.raw, seen.doc, seen.content = b"", None, True
            return
        at = self._place(seen, doc, came_at)
        kind = delta.get("type")
        known = TEXTS.get(kind) if type(kind) is str else None
        if known is not None:
            self._piece(seen, delta, known[0], (at, known[1], 0))
            if known[1] == "tool_args" and self._hold_tools:
                self._flowing.grow(sum(len(piece.text) for piece in seen.deltas))
            names = [name for name in delta if name not in ("type", known[0])]
        else:  # signatures, citations and what nobody has heard of
            self.unknown_events += kind not in ("signature_delta", "citations_delta")
            seen.carries = seen.content = True
            names = [name for name in delta if name not in WORDS]
            if kind == "signature_delta" and at == self._unsigned_at:
                seen.raw = b""  # what it signed was rewritten
        part: Part = "annotation" if kind == "citations_delta" else "text"
        self._strange(seen, delta, names, part, at)
        names = [name for name in doc if name not in ("type", "index", "delta")]
        self._strange(seen, doc, names, "metadata", at)
        if at != self._now.open_at:
            for piece in seen.deltas:
                piece.stands = "late"

    def _block_stop(self, seen: Seen, doc: Object) -> Seen | None:
        """The held block, whole; None where the event speaks for itself."""
        came_at = doc.get("index")
        if type(came_at) is not int:
            raise ValueError("the end of a block without index")
        seen.structural = seen.carries = True
        if self._held is not None and self._held.came_at == came_at:
            self._held.strange = self._held.strange or len(doc) != len(STOP_WORDS)
            return self._release(self._held, seen.raw)
        at = self._place(seen, doc, came_at)
        self._flowing.open = False
        self._beside(seen, doc, STOP_WORDS)
        seen.ends = [*sorted(self._lanes), *self._strangers.lanes_of(at)]
        self._halves.forget(seen.ends)
        self._strangers.forget(at)
        self._lanes.clear()
        self._text_lane = self.mould = None
        self._now = self._now._replace(open_at=None, kind="")
        return None

    def _message_delta(self, seen: Seen, doc: Object) -> None:
        seen.structural = seen.carries = True
        self._merge_usage(doc.get("usage"))
        delta = doc.get("delta")
        if type(delta) is dict:
            reason = delta.get("stop_reason")
            if type(reason) is str and reason:
                self._terminal = seen.terminal = seen.ends_all = True
                if reason == "tool_use" and self._tools_dropped and not self._tools_sent:
                    delta["stop_reason"] = reason = "end_turn"
                    seen.raw = self.render(seen)
                self.finish_reason = paired(reason)
            names = [name for name in delta if name not in MESSAGE_WORDS]
            self._strange(seen, delta, names, "metadata", _NO_BLOCK, "alone")
        self._beside(seen, doc, ("type", "delta", "usage"))

    def _message_stop(self, seen: Seen, doc: Object) -> None:
        metrics = read_usage("bedrock_invoke_metrics", doc.pop(METRICS, None))
        if metrics is not None and self.usage is None:
            self.usage = metrics
        self._beside(seen, doc, ("type",))
        seen.done = seen.ends_all = self._done = True

    def _merge_usage(self, raw: Json) -> None:
        if type(raw) is dict:
            self.usage = merge_anthropic(self.usage or Usage(), raw)

    def _place(self, seen: Seen, doc: Object, came_at: int) -> int:
        """The block's index for the caller; the event is written anew where it differs."""
        at = came_at - self._shift
        if self._shift:
            doc["index"] = at
            seen.raw = self.render(seen)
        return at

    def _piece(self, seen: Seen, holder: Object, member: str, lane: Lane) -> None:
        text = holder.get(member)
        if type(text) is str and text:
            seen.deltas.append(Delta(lane, text, holder, member))
            seen.content = True

    def _strange(
        self,
        seen: Seen,
        holder: Object,
        names: list[str],
        part: Part,
        at: int,
        stands: Stand = "waiting",
    ) -> None:
        if names:
            seen.deltas += self._strangers.deltas(holder, names, part, at, WORDS, stands)
            seen.carries = True

    def _beside(self, seen: Seen, doc: Object, known: Collection[str]) -> None:
        """Members of the event itself that nobody knows."""
        names = [name for name in doc if name not in known]
        self._strange(seen, doc, names, "metadata", _NO_BLOCK, "alone")

    def _release(self, held: HeldBlock, raw: bytes) -> Seen:
        self._held = None
        if held.gone:
            self._shift += 1
            return Seen(b"", structural=True)
        at = held.came_at - self._shift
        self._tools_sent += held.asks
        self._now = Sent(True, None, "", at + 1)
        return held.whole(at, raw)

    def structural(self, event: WireEvent) -> bool:
        return event.name not in _LOSABLE or self._held is not None or self._flowing.open

    def flush(self) -> list[Seen]:
        held = self._held
        return [self._release(held, b"")] if held is not None else []

    # --- out

    def render(self, seen: Seen) -> bytes:
        if seen.whole:
            return render_whole(seen)
        assert seen.doc is not None, "an event without a document was changed"
        kind = seen.doc.get("type")
        if any(delta.lane[1] == "reasoning" for delta in seen.deltas):
            self._unsigned_at = seen.deltas[0].lane[0]
        return event_bytes(kind if type(kind) is str else seen.name, seen.doc)

    def cut(self, seen: Seen) -> bytes:
        is_delta = seen.doc is not None and seen.doc.get("type") == "content_block_delta"
        return self.render(seen) if is_delta else b""

    def tail(self, lane: Lane, text: str) -> bytes:
        for kind, (member, part) in TEXTS.items():
            if part == lane[1] and lane[2] == 0:
                return delta_bytes(lane[0], {"type": kind, member: text})
        return b""  # a text of unknown kind ends in its own event

    def drop(self, seen: Seen) -> None:
        assert seen.doc is not None, "only whole blocks are dropped"
        block = seen.doc["block"]
        if type(block) is dict and "arguments" in seen.doc:
            found = block.get("id")
            if type(found) is str and found:
                self._gone.add(found)
            asks = block.get("type") == ASKS
            self._tools_sent -= asks
            self._tools_dropped += asks
        self._shift += 1
        self._now = self._now._replace(next_at=self._now.next_at - 1)

    def notice(self, at: int, text: str) -> bytes:
        """A text of our own, where a block was taken out: a block of its own."""
        place = self._now.next_at
        self._shift -= 1
        self._now = self._now._replace(next_at=place + 1)
        return text_block(place, text)

    def blocked_end(self, message: str | None) -> bytes:
        usage = self.usage or Usage(input=1)
        usage.output = max(usage.output, estimate_bytes(self.output_bytes))
        return end_after_block(self._before, self.model or "", usage, message)

    def error_end(self, fault: ProxyError, request_id: str) -> bytes:
        return event_bytes("error", error_doc("anthropic_messages", fault, request_id))

    def trailer(self) -> bytes:
        return STOPPED if self._terminal and not self._done else b""
