"""One content block of an Anthropic stream, put together from its events, and taken apart again."""

from typing import Final, NamedTuple

from proxy.model.exchange import Delta, Part, Seen, Usage
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows, Object
from proxy.wire.dialects.lanes import MAX_ASSEMBLED, Strangers, paired
from proxy.wire.dialects.tools import mcp_name
from proxy.wire.usage import write_usage

# fmt: off
TEXTS: Final[dict[str, tuple[str, Part]]] = {
    # type of a delta:  member          part of its lane
    "text_delta":       ("text",         "text"),
    "input_json_delta": ("partial_json", "tool_args"),
    "thinking_delta":   ("thinking",     "reasoning"),
}
# fmt: on
_OPAQUE: Final = frozenset({"encrypted_content", "encrypted_index", "signature", "data"})
WORDS: Final = frozenset({"type", "id", "tool_use_id", "cache_control", "caller"}) | _OPAQUE
START_WORDS: Final = ("type", "index", "content_block")
STOP_WORDS: Final = ("type", "index")
TOOL_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
ASKS: Final = "tool_use"  # the type of a call that is the caller's to make
MESSAGE_WORDS: Final = frozenset(
    {"id", "type", "role", "model", "stop_reason", "stop_sequence", "usage", "container"}
)
_HELD_WORDS: Final = WORDS | {"name", "input", "thinking"}
_DELTA_WORDS: Final = frozenset({"type", "thinking", "partial_json", "signature"})


def event_bytes(name: str, doc: Object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + jsonbody.dumps_event(doc) + b"\n\n"


STOPPED: Final = event_bytes("message_stop", {"type": "message_stop"})


def start_bytes(index: int, block: Object) -> bytes:
    doc: Object = {"type": "content_block_start", "index": index, "content_block": block}
    return event_bytes("content_block_start", doc)


def delta_bytes(index: int, delta: Object) -> bytes:
    doc: Object = {"type": "content_block_delta", "index": index, "delta": delta}
    return event_bytes("content_block_delta", doc)


def stop_bytes(index: int) -> bytes:
    return event_bytes("content_block_stop", {"type": "content_block_stop", "index": index})


def text_block(index: int, text: str) -> bytes:
    """A whole block of text."""
    return (
        start_bytes(index, {"type": "text", "text": ""})
        + delta_bytes(index, {"type": "text_delta", "text": text})
        + stop_bytes(index)
    )


def message_start(model: str, usage: Usage) -> bytes:
    """The beginning of an answer that is our own."""
    message: Object = {
        "id": "msg_parapet",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": write_usage("anthropic_messages", usage),
    }
    return event_bytes("message_start", {"type": "message_start", "message": message})


class Sent(NamedTuple):
    """What the caller has seen begin: the stream, a block (its index and type), the next index."""

    started: bool = False
    open_at: int | None = None
    kind: str = ""
    next_at: int = 0


def end_after_block(sent: Sent, model: str, usage: Usage, message: str | None) -> bytes:
    """An orderly end, with `message` as text before it (guardrails.md §9.9)."""
    out = []
    if not sent.started:
        out.append(message_start(model, usage))
    if sent.open_at is not None:
        if message and sent.kind == "text":
            out.append(delta_bytes(sent.open_at, {"type": "text_delta", "text": message}))
            message = None
        out.append(stop_bytes(sent.open_at))
    if message:
        out.append(text_block(sent.next_at, message))
    ended: Object = {"stop_reason": "refusal", "stop_sequence": None}
    counted = write_usage("anthropic_messages", usage)
    doc: Object = {"type": "message_delta", "delta": ended, "usage": counted}
    return b"".join([*out, event_bytes("message_delta", doc), STOPPED])


def names_called(block: Object) -> tuple[str, ...]:
    """The tool that a block calls; one of a server by both names."""
    name = block.get("name")
    if block.get("type") == "mcp_tool_use":
        return (mcp_name(block.get("server_name"), name if type(name) is str else ""),)
    return (name if type(name) is str else "",)


class FlowingBlocks:
    """Tool calls that leave as they come.  `open`: one is under way, and no event of it may be
    lost."""

    __slots__ = ("_flows", "_size", "open")

    def __init__(self, flows: Flows | None) -> None:
        self._flows = flows
        self._size = 0
        self.open = False

    def __repr__(self) -> str:
        return f"<FlowingBlocks {self._size if self.open else 'none'}>"

    def begin(self, block: Object) -> bool:
        """Whether the call of this block flows: it may, and all of its input is still to come."""
        self._size = 0
        self.open = self._flows is not None and not block.get("input")
        if self.open and self._flows is not None:
            self.open = self._flows(names_called(block))
        return self.open

    def grow(self, chars: int) -> None:
        """Raises ValueError: too long to be held, and so to be followed."""
        self._size += chars
        if self._size > MAX_ASSEMBLED:
            self.open = True
            raise ValueError("a block too long to be followed")


class HeldBlock:
    """A tool call or a thinking block under way, or the result of a call that was taken out, which
    goes, too (`gone`).  `asks`: the caller is to do something.  `came_at`: as the provider counts.
    `strange`: its events hold members that nobody knows; those outside the block are not sent."""

    __slots__ = (
        "_block", "_pieces", "_raws", "_signature", "_size", "asks", "came_at", "gone", "is_tool",
        "strange",
    )  # fmt: skip

    def __init__(
        self, came_at: int, block: Object, raw: bytes, *, is_tool: bool, gone: bool = False
    ) -> None:
        self.strange = False
        self.came_at = came_at
        self.is_tool = is_tool
        self.gone = gone
        self.asks = block.get("type") == ASKS
        self._block = block
        self._raws = [raw]
        self._pieces: list[str] = []
        self._signature: list[str] = []
        self._size = 0
        start = block.get("thinking")
        if not is_tool and type(start) is str:
            self._grow(start)
        found = block.get("signature")
        if type(found) is str:
            self._signature.append(found)

    def __repr__(self) -> str:
        return f"<HeldBlock {self.came_at} {self._size} held>"

    def add(self, delta: Object, raw: bytes) -> int:
        """Take in one more event; returns the bytes of text in it.  Raises ValueError: too long."""
        self._raws.append(raw)
        self.strange = self.strange or not delta.keys() <= _DELTA_WORDS
        signature = delta.get("signature")
        if type(signature) is str:
            self._signature.append(signature)
        text = delta.get("partial_json" if self.is_tool else "thinking")
        if type(text) is not str:
            return 0
        self._grow(text)
        return len(text.encode("utf-8", "replace"))

    def _grow(self, text: str) -> None:
        self._pieces.append(text)
        self._size += len(text)
        if self._size > MAX_ASSEMBLED:
            raise ValueError("a block too long to be held")

    def whole(self, index: int, raw: bytes) -> Seen:
        """The complete block; it stands at `index` for the caller."""
        self._raws.append(raw)
        if self.is_tool:
            return self._tool(index)
        text = paired("".join(self._pieces))
        doc: Object = {"index": index, "thinking": text, "signature": "".join(self._signature)}
        doc["block"] = self._block
        moved = index != self.came_at or self.strange
        seen = Seen(b"" if moved else b"".join(self._raws), "", doc, content=True, whole=True)
        seen.deltas = [Delta((index, "reasoning", 0), text, doc, "thinking")]
        seen.deltas += self._strangers(index, self._block)
        seen.carries = seen.structural = True
        if moved:
            seen.raw = render_whole(seen)
        return seen

    def _tool(self, index: int) -> Seen:
        text, given = paired("".join(self._pieces)), self._block.get("input")
        if not text:
            text = jsonbody.dumps_event(given if given else {}).decode()
        name = self._block.get("name")
        if type(name) is str:
            name = paired(name)
        block: Object = {**self._block, "input": {}}
        doc: Object = {"index": index, "name": name, "arguments": text, "block": block}
        seen = Seen(b"", "", doc, content=True, carries=True, structural=True, whole=True)
        seen.deltas = [Delta((index, "tool_args", 0), text, doc, "arguments")]
        if type(name) is str and name:
            seen.deltas.insert(0, Delta((index, "tool_name", 0), name, doc, "name"))
        seen.deltas += self._strangers(index, block)
        seen.ends = [delta.lane for delta in seen.deltas]
        seen.raw = render_whole(seen)
        return seen

    def _strangers(self, index: int, block: Object) -> list[Delta]:
        names = [name for name in block if name not in _HELD_WORDS]
        return Strangers().deltas(block, names, "metadata", index, WORDS, "alone")


def render_whole(seen: Seen) -> bytes:
    """A whole block as the three events it takes."""
    doc = seen.doc
    assert doc is not None, "a whole block has a document"
    index, block = doc["index"], doc["block"]
    assert isinstance(index, int), "our own index"
    assert isinstance(block, dict), "our own block"
    if "arguments" in doc:
        shown = {**block, "name": doc["name"]}
        delta: Object = {"type": "input_json_delta", "partial_json": doc["arguments"]}
        return start_bytes(index, shown) + delta_bytes(index, delta) + stop_bytes(index)
    text, signature = doc["thinking"], doc["signature"]
    out = [start_bytes(index, {**block, "thinking": "", "signature": ""})]
    if text:
        out.append(delta_bytes(index, {"type": "thinking_delta", "thinking": text}))
    if signature:
        out.append(delta_bytes(index, {"type": "signature_delta", "signature": signature}))
    return b"".join([*out, stop_bytes(index)])
