"""Anthropic Messages: where its texts are, and what its answers say (wire.md §3.7)."""

from typing import Final

from proxy.model.exchange import Dialect, Json, Leaf, Part, Role, Usage
from proxy.wire import jsonbody
from proxy.wire.dialect import Object
from proxy.wire.dialects.anthropic_stream import MessagesStream
from proxy.wire.jsonbody import Path
from proxy.wire.leaves import Gather
from proxy.wire.usage import read_usage

# Settings, ids and bookkeeping: words of the protocol, never words of a user.
_SETTINGS: Final = frozenset(
    {"model", "stream", "thinking", "service_tier", "speed", "inference_geo", "cache_control"}
    | {"anthropic_version", "anthropic_beta"}
)
BLOCK_WORDS: Final = frozenset(
    {"type", "id", "tool_use_id", "cache_control", "is_error", "caller", "server_name"}
)
OPAQUE: Final = frozenset({"encrypted_content", "encrypted_index", "signature"})
_ANSWER_WORDS: Final = frozenset(
    {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"}
    | {"container"}
)
_TOOL_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})


class MessagesReader:
    """`POST …/messages` and `…/messages/count_tokens`"""

    name: Dialect = "anthropic_messages"

    def request_leaves(self, doc: Object) -> list[Leaf]:
        return self.request_map(doc).leaves

    def request_map(self, doc: Object) -> Gather:
        """The leaves, and the counts of what cannot be scanned."""
        messages = doc.get("messages")
        if type(messages) is not list:
            raise ValueError("`messages` is not a list")
        gather = Gather("user")
        for name, value in doc.items():
            if name in _TOP:
                _TOP[name](gather, value, (name,))
            elif name not in _SETTINGS:
                gather.walk(value, "metadata", (name,))
        last = -1
        for place, message in enumerate(messages):
            if type(message) is dict and message.get("role") == "assistant":
                last = place
        for place, message in enumerate(messages):
            if type(message) is not dict:
                raise ValueError(f"`messages[{place}]` is not an object")
            role = _role(message.get("role"))
            gather.role, gather.latest = role, place > last
            for name, value in message.items():
                at: Path = ("messages", place, name)
                if name == "content":
                    _blocks(gather, value, "text", at, answer=False)
                elif name not in ("role", "id"):
                    gather.walk(value, "text", at)
        return gather

    def answer_leaves(self, doc: Object) -> list[Leaf]:
        gather = Gather("assistant")
        for name, value in doc.items():
            if name == "content":
                _blocks(gather, value, "text", ("content",), answer=True)
            elif name not in _ANSWER_WORDS:
                gather.walk(value, "metadata", (name,), skip=BLOCK_WORDS)
        return gather.leaves

    def answer_usage(self, doc: Object) -> Usage | None:
        return read_usage("anthropic_messages", doc.get("usage"))

    def answer_finish(self, doc: Object) -> str | None:
        reason = doc.get("stop_reason")
        return reason if type(reason) is str else None

    def answer_error(self, doc: Object) -> bool:
        return doc.get("type") == "error" or bool(doc.get("error"))

    def answer_block(self, message: str | None, request_id: str, model: str | None) -> bytes:
        """A whole answer that says no more than that it was blocked (`block_style: finish`)."""
        return jsonbody.dumps(
            {
                "id": f"msg_{request_id}",
                "type": "message",
                "role": "assistant",
                "model": model or "",
                "content": [{"type": "text", "text": message}] if message else [],
                "stop_reason": "refusal",
                "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            }
        )

    def stream(self, *, hold_tools: bool, hold_reasoning: bool, want_usage: bool) -> MessagesStream:
        return MessagesStream(hold_tools=hold_tools, hold_reasoning=hold_reasoning)


def _role(value: Json) -> Role:
    return "assistant" if value == "assistant" else "system" if value == "system" else "user"


# --- content blocks


def _blocks(gather: Gather, content: Json, part: Part, path: Path, *, answer: bool) -> None:
    if type(content) is str:
        gather.text(content, part, path)
        return
    if content is None:
        return
    if type(content) is not list:
        raise ValueError(f"`{path[-1]}` is neither a string nor a list")
    for place, block in enumerate(content):
        if type(block) is not dict:
            raise ValueError(f"`{path[-1]}[{place}]` is not a block")
        _block(gather, block, part, (*path, place), answer=answer)


def _block(gather: Gather, block: Object, part: Part, path: Path, *, answer: bool) -> None:
    kind = block.get("type")
    if kind == "text":
        gather.text(block.get("text"), part, (*path, "text"))
        gather.walk(block.get("citations"), "annotation", (*path, "citations"), skip=_CITED)
        _others(gather, block, part, path, "text", "citations")
    elif kind in _TOOL_CALLS:
        gather.text(block.get("name"), "tool_name", (*path, "name"), rewritable=False)
        gather.data(block.get("input"), "tool_args", (*path, "input"))
        _others(gather, block, "tool_args", path, "name", "input")
    elif kind == "tool_result":
        role, gather.role = gather.role, "tool"
        _blocks(gather, block.get("content"), "tool_result", (*path, "content"), answer=answer)
        _others(gather, block, "tool_result", path, "content")
        gather.role = role
    elif kind == "thinking":
        _thinking(gather, block, path, answer=answer)
    elif kind == "redacted_thinking":
        gather.opaque += 1
        _others(gather, block, part, path, "data")
    elif kind in ("image", "document"):
        _source(gather, block.get("source"), part, (*path, "source"), answer=answer)
        _others(gather, block, part, path, "source")
    elif kind == "container_upload":
        gather.remote += 1
    elif type(kind) is str and kind.endswith("_tool_result"):
        role, gather.role = gather.role, "tool"
        gather.walk(block, "tool_result", path, skip=BLOCK_WORDS | OPAQUE)
        gather.role = role
    else:
        gather.walk(block, part, path, skip=BLOCK_WORDS | OPAQUE)


_CITED: Final = OPAQUE | {"type", "file_id"}


def _others(gather: Gather, block: Object, part: Part, path: Path, *known: str) -> None:
    """The members of a block that are neither known nor words of the protocol."""
    for name, value in block.items():
        if name not in known and name not in BLOCK_WORDS and name not in OPAQUE:
            gather.walk(value, part, (*path, name))


def _thinking(gather: Gather, block: Object, path: Path, *, answer: bool) -> None:
    """Signed reasoning in a request came from the provider and must go back as it is."""
    signed = bool(block.get("signature"))
    if signed and not answer:
        gather.opaque += 1
    else:
        gather.text(block.get("thinking"), "reasoning", (*path, "thinking"), rewritable=not signed)
    _others(gather, block, "reasoning", path, "thinking")


def _source(gather: Gather, source: Json, part: Part, path: Path, *, answer: bool) -> None:
    if type(source) is not dict:
        gather.walk(source, part, path)
        return
    kind = source.get("type")
    if kind == "base64":
        gather.binary += 1
        _others(gather, source, part, path, "data", "media_type")
    elif kind == "url":
        gather.url(source.get("url"), (*path, "url"))
    elif kind == "file":
        gather.remote += 1
    elif kind == "content":
        _blocks(gather, source.get("content"), part, (*path, "content"), answer=answer)
    else:
        gather.walk(source, part, path, skip=("type", "media_type"))


# --- the other members of a request


def _skip(gather: Gather, value: Json, path: Path) -> None:
    """Looked at elsewhere."""


def _system(gather: Gather, value: Json, path: Path) -> None:
    gather.role = "system"
    _blocks(gather, value, "text", path, answer=False)
    gather.role = "user"


def _stops(gather: Gather, value: Json, path: Path) -> None:
    gather.walk(value, "text", path, rewritable=False)


def _tools(gather: Gather, tools: Json, path: Path) -> None:
    if tools is None:
        return
    if type(tools) is not list:
        raise ValueError("`tools` is not a list")
    for place, tool in enumerate(tools):
        if type(tool) is not dict:
            raise ValueError(f"`tools[{place}]` is not an object")
        for name, value in tool.items():
            at = (*path, place, name)
            if name == "name":
                gather.text(value, "tool_def", at, rewritable=False)
            elif name == "input_schema":
                gather.schema(value, at)
            elif name == "input_examples":
                gather.data(value, "tool_def", at)
            elif name not in ("type", "cache_control", "allowed_callers"):
                gather.walk(value, "tool_def", at)


def _tool_choice(gather: Gather, value: Json, path: Path) -> None:
    gather.walk(value, "tool_name", path, skip=("type",), rewritable=False)


def _output_config(gather: Gather, value: Json, path: Path) -> None:
    if type(value) is not dict:
        return
    for name, child in value.items():
        if name == "format" and type(child) is dict:
            for inner, schema in child.items():
                if inner != "type":
                    gather.schema(schema, (*path, name, inner))
        elif name != "effort":
            gather.walk(child, "metadata", (*path, name))


def _container(gather: Gather, value: Json, path: Path) -> None:
    if type(value) is dict:
        gather.walk(value, "metadata", path, skip=("id",))
    gather.remote += value is not None


def _mcp_servers(gather: Gather, value: Json, path: Path) -> None:
    """SECURITY: their authorization tokens are neither scanned nor logged."""
    gather.walk(value, "metadata", path, skip=("type", "authorization_token"))


_TOP: Final = {
    "messages": _skip,
    "system": _system,
    "stop_sequences": _stops,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "output_config": _output_config,
    "container": _container,
    "mcp_servers": _mcp_servers,
}
