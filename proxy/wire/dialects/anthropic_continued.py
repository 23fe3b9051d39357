"""Two Anthropic Messages streams as one (failover.md §10.3).

Of the first stay `message_start`, the open block and its index; the second begins inside it, and
its other blocks are counted on.
"""

from typing import Final

from proxy.model.exchange import WireEvent
from proxy.model.recovery import Asked, Released, Seam
from proxy.wire import jsonbody
from proxy.wire.dialect import Object
from proxy.wire.dialects.anthropic_blocks import TEXTS, event_bytes, start_bytes, stop_bytes
from proxy.wire.dialects.continued import SseJoiner, with_answer, with_less
from proxy.wire.sse import SseFramer

_LIMITS: Final = ("max_tokens",)
_FORCED: Final = frozenset({"any", "tool"})
_SILENT: Final = frozenset({"text", "thinking"})  # blocks that begin with nothing in them
_TEXT_DELTA: Final = "text_delta"
_GONE: Final = -1  # a block that the caller does not see


class MessagesContinued:
    """`wire.continuing.Continued` for Anthropic Messages."""

    def asked(self, doc: Object) -> Asked:
        thinking, choice = doc.get("thinking"), doc.get("tool_choice")
        return Asked(
            thinks=type(thinking) is dict and thinking.get("type") != "disabled",
            tool_forced=type(choice) is dict and choice.get("type") in _FORCED,
        )

    def told(self, data: bytes) -> "MessagesTold":
        return MessagesTold(data)

    def going_on(self, body: bytes, doc: Object, text: str, limit_less: int) -> bytes:
        return with_less(with_answer(body, doc, text), _LIMITS, limit_less)


class MessagesTold:
    """`wire.continuing.Told` for Anthropic Messages.

    `open_at`: the block that has begun and not ended; `text_at`: the one with text in it."""

    __slots__ = ("_beside", "_pieces", "next_at", "open_at", "released", "text_at")

    def __init__(self, data: bytes) -> None:
        self._pieces: list[str] = []
        self._beside = ""
        self.open_at: int | None = None
        self.text_at: int | None = None
        self.next_at = 0
        framer = SseFramer()
        for event in [*framer.feed(data), *framer.finish()]:
            doc = jsonbody.loads_event(event.data) if event.data[:1] == b"{" else None
            if type(doc) is dict:
                self._hear(doc)
        self.released = self._released()

    def __repr__(self) -> str:
        return f"<MessagesTold {len(self.released.text)} characters>"

    def joiner(self, seam: Seam, more_tokens: int) -> "MessagesJoiner":
        return MessagesJoiner(self, seam, more_tokens)

    def _released(self) -> Released:
        if self.open_at is not None and self.text_at not in (None, self.open_at):
            self._also("several parts")
        closed = self.open_at is None and self.text_at is not None
        return Released("".join(self._pieces), self._beside, closed)

    def _hear(self, doc: Object) -> None:
        at = doc.get("index")
        match doc.get("type"):
            case "content_block_start" if type(at) is int:
                self.open_at, self.next_at = at, at + 1
                block = doc.get("content_block")
                kind = block.get("type") if type(block) is dict else None
                if type(block) is not dict or kind not in _SILENT:
                    self._also("tool_call" if kind == "tool_use" else str(kind)[:32])
                elif kind == "text":
                    self._text(at, block.get("text"))
                elif block.get("thinking"):
                    self._also("reasoning")
            case "content_block_delta" if type(at) is int:
                delta = doc.get("delta")
                if type(delta) is dict and delta.get("type") == _TEXT_DELTA:
                    self._text(at, delta.get("text"))
                else:
                    self._also(said_in(delta if type(delta) is dict else {}))
            case "content_block_stop":
                self.open_at = None
            case "message_start" | "ping":
                return
            case kind:
                self._also("its end" if kind == "message_delta" else str(kind)[:32])

    def _text(self, at: int, text: object) -> None:
        if type(text) is not str or not text:
            return
        if self.text_at not in (None, at):
            self._also("several texts")
        self.text_at = at
        self._pieces.append(text)

    def _also(self, what: str) -> None:
        self._beside = self._beside or what


def said_in(delta: Object) -> str:
    """What a delta that is no text holds; empty: nothing."""
    kind = delta.get("type")
    known = TEXTS.get(kind) if type(kind) is str else None
    if known is not None:
        return known[1] if delta.get(known[0]) else ""
    return str(kind)[:32]


class MessagesJoiner(SseJoiner):
    """`wire.continuing.Joiner` for Anthropic Messages.

    `_places`: where the second stream's blocks are for the caller."""

    __slots__ = ("_closed", "_joined", "_more", "_next_at", "_open_at", "_places",
                 "_text_at")  # fmt: skip

    def __init__(self, told: MessagesTold, seam: Seam, more_tokens: int) -> None:
        super().__init__(seam)
        self._more = more_tokens
        self._open_at, self._next_at = told.open_at, told.next_at
        # an open block that is no text holds nothing: it ends before anything else begins
        self._text_at = told.text_at if told.open_at is None else told.open_at
        self._closed = told.open_at is None and told.text_at is not None
        self._joined = False  # the second stream's text has found its block
        self._places: dict[int, int] = {}

    def _join(self, doc: Object, event: WireEvent, out: list[bytes]) -> None:
        at = doc.get("index")
        match doc.get("type"):
            case "message_start":
                return
            case "content_block_start" if type(at) is int:
                block = doc.get("content_block")
                self._start(at, block if type(block) is dict else {}, out)
            case "content_block_delta" if type(at) is int:
                delta = doc.get("delta")
                self._delta(at, doc, delta if type(delta) is dict else {}, out)
            case "content_block_stop" if type(at) is int:
                self._stop(at, out)
            case "message_delta":
                self._ends(out)
                usage = doc.get("usage")
                count = usage.get("output_tokens") if type(usage) is dict else None
                if type(usage) is dict and type(count) is int:
                    usage["output_tokens"] = count + self._more
                out.append(event_bytes("message_delta", doc))
            case _:
                out.append(event.raw)

    def _start(self, at: int, block: Object, out: list[bytes]) -> None:
        kind = block.get("type")
        if kind == "text" and not self._joined and self._text_at is not None:
            self._joined = True
            if self._open_at is not None or not self._seam.passed:
                self._places[at] = self._text_at
                self._say(at, block.get("text"), out)
                return
        if not self._seam.passed:
            if kind == "thinking" and not block.get("thinking"):
                self._places[at] = _GONE
                return
            if kind != "text":
                self._seam.ends()
        self._begin(at, block, out)

    def _begin(self, at: int, block: Object, out: list[bytes]) -> None:
        """A block of its own."""
        self._end_open(out)
        self._places[at] = self._open_at = self._next_at
        self._next_at += 1
        text = block.get("text")
        if block.get("type") == "text":
            self._joined = True
            out.append(start_bytes(self._open_at, {**block, "text": ""}))
            self._say(at, text, out)
        else:
            out.append(start_bytes(self._open_at, block))

    def _delta(self, at: int, doc: Object, delta: Object, out: list[bytes]) -> None:
        if delta.get("type") == _TEXT_DELTA:
            self._say(at, delta.get("text"), out, doc)
            return
        if not self._seam.passed and said_in(delta):
            self._seam.ends()
        if self._places.get(at, _GONE) != _GONE and not self._seam.fault:
            doc["index"] = self._places[at]
            out.append(event_bytes("content_block_delta", doc))

    def _say(self, at: int, text: object, out: list[bytes], doc: Object | None = None) -> None:
        """A piece of text, less what the caller has."""
        if type(text) is not str or not text:
            return
        left = self._seam.take(text)
        if not left:
            return
        place = self._places.get(at, _GONE)
        if self._closed and place == self._text_at:  # the caller has seen its block end
            self._seam.fault = "diverged"
            return
        said: Object = doc if doc is not None else {"type": "content_block_delta"}
        said["index"], said["delta"] = place, {"type": _TEXT_DELTA, "text": left}
        out.append(event_bytes("content_block_delta", said))

    def _stop(self, at: int, out: list[bytes]) -> None:
        place = self._places.get(at, _GONE)
        if place == _GONE:
            return
        if place == self._text_at and not self._seam.passed:
            self._seam.ends()
        if place == self._open_at and not self._seam.fault:
            out.append(stop_bytes(place))
            self._open_at = None

    def _ends(self, out: list[bytes]) -> None:
        if not self._seam.passed:
            self._seam.ends()
        if not self._seam.fault:
            self._end_open(out)

    def _end_open(self, out: list[bytes]) -> None:
        if self._open_at is not None:
            out.append(stop_bytes(self._open_at))
            self._open_at = None
