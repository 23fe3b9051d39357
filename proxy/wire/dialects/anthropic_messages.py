"""Anthropic Messages: where its texts are, and what its answers say (wire.md §3.7)."""

from collections.abc import Mapping
from typing import Final

from proxy.model.exchange import Dialect, Json, Leaf, Part, Role, Usage
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows, Object
from proxy.wire.dialects.anthropic_stream import MessagesStream
from proxy.wire.dialects.members import OPAQUE, OPTION_WORDS, below, beside, url
from proxy.wire.jsonbody import Path
from proxy.wire.leaves import ALL_READ, Gather, Unread
from proxy.wire.usage import read_usage, write_usage

# Settings, ids and bookkeeping: words of the protocol, never words of a user.
_SETTINGS: Final = frozenset(
    {"model", "stream", "thinking", "service_tier", "speed", "inference_geo", "cache_control"}
    | {"anthropic_version", "anthropic_beta"}
)
BLOCK_WORDS: Final = frozenset(
    {"type", "id", "tool_use_id", "cache_control", "is_error", "caller", "server_name"}
)
_WORDS: Final = BLOCK_WORDS | OPAQUE
_BELOW: Final = OPTION_WORDS | {"display", "tool_id"}  # the words in objects of settings
_ANY: Final = _WORDS | _BELOW
_ANSWER_WORDS: Final = frozenset(
    {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"}
    | {"container"}
)
# The words of what is told beside an answer: what it used, where its tools ran.
_SIDE_WORDS: Final = frozenset(
    {"type", "id", "expires_at", "service_tier", "inference_geo", "speed", "model"}
)
_TOOL_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})


class MessagesReader:
    """`POST …/messages` and `…/messages/count_tokens`"""

    name: Dialect = "anthropic_messages"
    unread: Mapping[Unread, int] = ALL_READ

    def request_leaves(self, doc: Object) -> list[Leaf]:
        return self.request_map(doc).leaves

    def request_map(self, doc: Object) -> Gather:
        """The leaves, and the counts of what cannot be scanned."""
        messages = doc.get("messages")
        if type(messages) is not list:
            raise ValueError("`messages` is not a list")
        gather = Gather("user")
        self.unread = gather.unread
        for name, value in doc.items():
            if name in _TOP:
                _TOP[name](gather, value, (name,))
            elif name in _SETTINGS:
                below(gather, value, "metadata", (name,), _BELOW)
            else:
                gather.walk(value, "metadata", (name,))
        last = -1
        for place, message in enumerate(messages):
            if type(message) is dict and message.get("role") == "assistant":
                last = place
        for place, message in enumerate(messages):
            if type(message) is not dict:
                raise ValueError(f"`messages[{place}]` is not an object")
            said = message.get("role")
            gather.role = role = _role(said)
            gather.latest = latest = place > last
            text = message.get("content")
            if type(text) is str and text and type(said) is str and len(message) == 2:
                path = ("messages", place, "content")
                gather.leaves.append(Leaf(text, "text", role, path, None, latest, True))
                continue
            for name, value in message.items():
                at: Path = ("messages", place, name)
                if name == "content":
                    _blocks(gather, value, "text", at, answer=False)
                elif name in ("role", "id"):
                    below(gather, value, "metadata", at, _BELOW)
                else:
                    gather.walk(value, "text", at)
        return gather

    def answer_leaves(self, doc: Object) -> list[Leaf]:
        gather = Gather("assistant")
        for name, value in doc.items():
            if name == "content":
                _blocks(gather, value, "text", ("content",), answer=True)
            elif name in _ANSWER_WORDS:
                below(gather, value, "metadata", (name,), _SIDE_WORDS)
            else:
                beside(gather, value, "metadata", (name,), BLOCK_WORDS)
        return gather.leaves

    def answer_usage(self, doc: Object) -> Usage | None:
        return read_usage("anthropic_messages", doc.get("usage"))

    def answer_finish(self, doc: Object) -> str | None:
        reason = doc.get("stop_reason")
        return reason if type(reason) is str else None

    def answer_error(self, doc: Object) -> bool:
        return doc.get("type") == "error" or bool(doc.get("error"))

    def answer_block(
        self,
        message: str | None,
        request_id: str,
        model: str | None,
        *,
        usage: Usage | None = None,
        choices: int = 1,
    ) -> bytes:
        return jsonbody.dumps(
            {
                "id": f"msg_{request_id}",
                "type": "message",
                "role": "assistant",
                "model": model or "",
                "content": [{"type": "text", "text": message}] if message else [],
                "stop_reason": "refusal",
                "stop_sequence": None,
                "usage": write_usage("anthropic_messages", usage or Usage()),
            }
        )

    def stream(
        self,
        *,
        hold_tools: bool,
        hold_reasoning: bool,
        want_usage: bool,
        choices: int = 1,
        flows: Flows | None = None,
    ) -> MessagesStream:
        return MessagesStream(hold_tools=hold_tools, hold_reasoning=hold_reasoning, flows=flows)


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
    said = block.get("type")
    kind = said if type(said) is str else ""
    if kind == "text":
        text = block.get("text")
        gather.text(text, part, (*path, "text"))
        if text is not None and len(block) == 2:
            return
        beside(gather, block.get("citations"), "annotation", (*path, "citations"), _CITED)
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
        gather.miss("opaque", block.get("data"))
        _structural(gather, block, part, path, "data")
    elif kind in ("image", "document"):
        _source(gather, block.get("source"), part, (*path, "source"), answer=answer)
        _others(gather, block, part, path, "source")
    elif kind == "container_upload":
        gather.remote += 1
        gather.miss("remote", block.get("file_id"))
        _structural(gather, block, part, path, "file_id")
    elif kind.endswith("_tool_result"):
        role, gather.role = gather.role, "tool"
        beside(gather, block, "tool_result", path, _ANY)
        gather.role = role
    else:
        beside(gather, block, part, path, _ANY)


_CITED: Final = OPAQUE | {"type", "file_id"}


def _others(gather: Gather, block: Object, part: Part, path: Path, *known: str) -> None:
    """The members of a block that the caller has not looked at."""
    for name, value in block.items():
        if name in known:
            continue
        if name in _WORDS:
            below(gather, value, part, (*path, name), _BELOW)
        else:
            gather.walk(value, part, (*path, name))


def _structural(gather: Gather, block: Object, part: Part, path: Path, *names: str) -> None:
    """A block whose members `names` are structural or opaque too."""
    for name in names:
        below(gather, block.get(name), part, (*path, name), _BELOW)
    _others(gather, block, part, path, *names)


def _thinking(gather: Gather, block: Object, path: Path, *, answer: bool) -> None:
    """Signed reasoning in a request came from the provider and must go back as it is."""
    signed = bool(block.get("signature"))
    if signed and not answer:
        gather.opaque += 1
        gather.miss("signed_reasoning", block.get("thinking"))
        below(gather, block.get("thinking"), "reasoning", (*path, "thinking"), _BELOW)
    else:
        gather.text(block.get("thinking"), "reasoning", (*path, "thinking"))
    _others(gather, block, "reasoning", path, "thinking")


def _source(gather: Gather, source: Json, part: Part, path: Path, *, answer: bool) -> None:
    if type(source) is not dict:
        gather.walk(source, part, path)
        return
    kind = source.get("type")
    if kind == "base64":
        _encoded(gather, source, part, path)
    elif kind == "url":
        url(gather, source.get("url"), (*path, "url"))
        _others(gather, source, part, path, "url")
    elif kind == "file":
        gather.remote += 1
        gather.miss("remote", source.get("file_id"))
        _structural(gather, source, part, path, "file_id")
    elif kind == "content":
        _blocks(gather, source.get("content"), part, (*path, "content"), answer=answer)
        _others(gather, source, part, path, "content")
    else:
        _structural(gather, source, part, path, "media_type")


def _encoded(gather: Gather, source: Object, part: Part, path: Path) -> None:
    """Base64, which is binary but for texts."""
    data, media = source.get("data"), source.get("media_type")
    if type(data) is str and type(media) is str and media.strip().lower().startswith("text/"):
        gather.url(f"data:text/plain;base64,{data}", (*path, "data"))
    else:
        gather.binary += 1
        gather.miss("binary", data)
    _structural(gather, source, part, path, "data", "media_type")


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
            elif name in ("type", "cache_control", "allowed_callers"):
                below(gather, value, "tool_def", at, _BELOW)
            else:
                gather.walk(value, "tool_def", at)


def _tool_choice(gather: Gather, value: Json, path: Path) -> None:
    beside(gather, value, "tool_name", path, ("type",), rewritable=False)


def _output_config(gather: Gather, value: Json, path: Path) -> None:
    if type(value) is not dict:
        gather.walk(value, "metadata", path)
        return
    for name, child in value.items():
        at = (*path, name)
        if name == "format" and type(child) is dict:
            for inner, schema in child.items():
                if inner == "type":
                    below(gather, schema, "tool_def", (*at, inner), _BELOW)
                else:
                    gather.schema(schema, (*at, inner))
        elif name == "effort":
            below(gather, child, "metadata", at, _BELOW)
        else:
            gather.walk(child, "metadata", at)


def _container(gather: Gather, value: Json, path: Path) -> None:
    gather.remote += value is not None
    gather.miss("remote", value)
    below(gather, value, "metadata", path, ("id",))


def _mcp_servers(gather: Gather, servers: Json, path: Path) -> None:
    """SECURITY: their authorization tokens are neither scanned nor logged."""
    beside(gather, servers, "metadata", path, ("type", "authorization_token"))


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
