"""OpenAI Chat Completions: where its texts are, and what its answers say (wire.md §3.4)."""

from collections.abc import Mapping
from typing import Final

from proxy.model.exchange import Dialect, Json, Leaf, Part, Role, Usage
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows, Object
from proxy.wire.dialects.members import NO_TEXT, OPTION_WORDS, below, beside, is_data_url, url
from proxy.wire.dialects.openai_events import choices_of
from proxy.wire.dialects.openai_stream import ChatStream
from proxy.wire.jsonbody import Path
from proxy.wire.leaves import ALL_READ, Gather, Unread
from proxy.wire.usage import read_usage, write_usage

ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Settings, ids and bookkeeping: words of the protocol, never words of a user.
_SETTINGS: Final = frozenset(
    {"model", "stream", "stream_options", "modalities", "reasoning_effort", "service_tier"}
    | {"verbosity", "prompt_cache_retention", "prompt_cache_options", "logit_bias", "moderation"}
)
_MESSAGE_WORDS: Final = frozenset({"role", "tool_call_id", "id"})
_PART_WORDS: Final = frozenset({"type", "id", "prompt_cache_breakpoint"})
_OPTIONS: Final = OPTION_WORDS | {"model"}
_VOICE_WORDS: Final = frozenset({"id", "voice", "format"})
_URLS: Final = frozenset({"image_url", "video_url", "audio_url"})
_ANSWER_WORDS: Final = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint"}
    | {"x_groq", "prompt_filter_results", "prompt_annotations", "kv_transfer_params"}
)
_CHOICE_WORDS: Final = frozenset(
    {"index", "finish_reason", "stop_reason", "logprobs", "message", "content_filter_results"}
    | {"content_filter_offsets", "token_ids"}
)
# What says the texts once more, or is numbers alone.
_ECHOES: Final = frozenset({"choices", "message", "logprobs", "token_ids"})
# The words of what providers tell beside an answer: what it used, how its filters judged it.
_SIDE_WORDS: Final = OPTION_WORDS | {"id", "severity", "service_tier"}


class ChatReader:
    """`POST …/chat/completions`"""

    name: Dialect = "openai_chat"
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
            elif name == "messages" or type(value) in NO_TEXT:
                continue
            elif name in _SETTINGS:
                if type(value) is not str:
                    below(gather, value, "metadata", (name,), _OPTIONS)
            else:
                gather.walk(value, "metadata", (name,))
        last = _last_assistant(messages)
        for place, message in enumerate(messages):
            if type(message) is not dict:
                raise ValueError(f"`messages[{place}]` is not an object")
            said = message.get("role")
            gather.role = role = ROLES.get(said, "user") if type(said) is str else "user"
            gather.latest = latest = place > last
            text = message.get("content")
            if type(text) is str and text and type(said) is str and len(message) == 2:
                part: Part = "tool_result" if role == "tool" else "text"
                path = ("messages", place, "content")
                gather.leaves.append(Leaf(text, part, role, path, None, latest, True))
            else:
                _message(gather, message, ("messages", place))
        return gather

    def answer_leaves(self, doc: Object) -> list[Leaf]:
        gather = Gather("assistant")
        for name, value in doc.items():
            if type(value) in NO_TEXT:
                continue
            if name not in _ANSWER_WORDS:
                gather.walk(value, "metadata", (name,))
            elif type(value) is not str and name not in _ECHOES:
                below(gather, value, "metadata", (name,), _SIDE_WORDS)
        for place, choice in enumerate(choices_of(doc)):
            for name, value in choice.items():
                if type(value) in NO_TEXT:
                    continue
                at: Path = ("choices", place, name)
                if name == "message" and type(value) is dict:
                    _message(gather, value, at)
                elif name not in _CHOICE_WORDS:
                    gather.walk(value, "metadata", at)
                elif type(value) is not str and name not in _ECHOES:
                    below(gather, value, "metadata", at, _SIDE_WORDS)
        return gather.leaves

    def answer_usage(self, doc: Object) -> Usage | None:
        return read_usage("openai_chat", doc.get("usage"))

    def answer_finish(self, doc: Object) -> str | None:
        return finish_of(doc)

    def answer_error(self, doc: Object) -> bool:
        return is_error(doc)

    def answer_block(
        self,
        message: str | None,
        request_id: str,
        model: str | None,
        *,
        usage: Usage | None = None,
        choices: int = 1,
    ) -> bytes:
        told: list[Json] = []
        for at in range(choices):
            said: Object = {"role": "assistant", "content": message or "", "refusal": None}
            told.append(
                {"index": at, "message": said, "logprobs": None, "finish_reason": "content_filter"}
            )
        return jsonbody.dumps(
            {
                "id": f"chatcmpl-{request_id}",
                "object": "chat.completion",
                "created": 0,
                "model": model or "",
                "choices": told,
                "usage": write_usage("openai_chat", usage or Usage()),
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
    ) -> ChatStream:
        return ChatStream(
            hold_tools=hold_tools, want_usage=want_usage, choices=choices, flows=flows
        )


def finish_of(doc: Object) -> str | None:
    """The first reason that a choice gives."""
    choices = doc.get("choices")
    for choice in choices if type(choices) is list else ():
        reason = choice.get("finish_reason") if type(choice) is dict else None
        if type(reason) is str:
            return reason
    return None


def is_error(doc: Object) -> bool:
    """A 2xx body that is an error object."""
    return bool(doc.get("error")) or doc.get("object") == "error"


def _last_assistant(messages: list[Json]) -> int:
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if type(message) is dict and message.get("role") == "assistant":
            return place
    return -1


# --- a message, asked or answered


def _message(gather: Gather, message: Object, path: Path) -> None:
    for name, value in message.items():
        if value is None:
            continue
        at = (*path, name)
        if name in _MESSAGE_WORDS:
            if type(value) is not str:
                below(gather, value, "metadata", at, _MESSAGE_WORDS)
        elif name == "content":
            if type(value) is str and value and gather.role != "tool":
                gather.leaves.append(Leaf(value, "text", gather.role, at, None, gather.latest))
            else:
                _content(gather, value, at)
        elif name in ("reasoning_content", "reasoning", "reasoning_details"):
            gather.text(value, "reasoning", at)
        elif name == "refusal":
            gather.text(value, "refusal", at)
        elif name == "tool_calls":
            _tool_calls(gather, value, at)
        elif name == "function_call":
            _call(gather, value, at)
        elif name == "annotations":
            beside(gather, value, "annotation", at, _PART_WORDS)
        elif name == "audio" and type(value) is dict:
            if "data" in value:
                gather.binary += 1
                gather.miss("binary", value["data"])
            elif "id" in value:
                gather.remote += 1
                gather.miss("remote", value["id"])
            beside(gather, value, "text", at, ("id", "data", "format"))
        else:
            gather.text(value, "text", at)


def _content(gather: Gather, content: Json, path: Path) -> None:
    part: Part = "tool_result" if gather.role == "tool" else "text"
    if type(content) is str:
        gather.text(content, part, path)
        return
    if content is None:
        return
    if type(content) is not list:
        raise ValueError(f"`{path[-1]}` is neither a string nor a list")
    for place, piece in enumerate(content):
        at = (*path, place)
        if type(piece) is str:
            gather.text(piece, part, at)
        elif type(piece) is dict:
            _piece(gather, piece, at)
        else:
            raise ValueError(f"`{path[-1]}[{place}]` is not a part")


def _piece(gather: Gather, piece: Object, path: Path) -> None:
    for name, value in piece.items():
        at = (*path, name)
        if name in _PART_WORDS:
            below(gather, value, "metadata", at, OPTION_WORDS)
        elif name in _URLS:
            _linked(gather, value, at)
        elif name == "input_audio":
            gather.binary += 1
            gather.miss("binary", value.get("data") if type(value) is dict else value)
            below(gather, value, "metadata", at, ("data", "format"))
        elif name == "file" and type(value) is dict:
            _file(gather, value, at)
        elif name == "refusal":
            gather.text(value, "refusal", at)
        else:
            gather.text(value, "tool_result" if gather.role == "tool" else "text", at)


def _linked(gather: Gather, value: Json, path: Path) -> None:
    """`{url, detail}`, or the URL alone."""
    if type(value) is not dict:
        url(gather, value, path)
        return
    for name, child in value.items():
        at = (*path, name)
        if name == "url":
            url(gather, child, at)
        elif name == "detail":
            below(gather, child, "metadata", at, OPTION_WORDS)
        else:
            gather.walk(child, "metadata", at)


def _file(gather: Gather, file: Object, path: Path) -> None:
    """What is no `data:` URL is base64, as is promised, or a text that only says so."""
    for name, value in file.items():
        at = (*path, name)
        if name == "file_id":
            gather.remote += 1
            gather.miss("remote", value)
            below(gather, value, "metadata", at, OPTION_WORDS)
        elif name == "file_data" and is_data_url(value):
            url(gather, value, at)
        elif name == "file_data":
            gather.binary += value is not None
            gather.walk(value, "text", at, rewritable=False)
        else:
            gather.walk(value, "metadata", at)


def _tool_calls(gather: Gather, calls: Json, path: Path) -> None:
    if calls is None:
        return
    if type(calls) is not list:
        raise ValueError("`tool_calls` is not a list")
    for place, call in enumerate(calls):
        if type(call) is not dict:
            raise ValueError(f"`tool_calls[{place}]` is not an object")
        for name, value in call.items():
            at = (*path, place, name)
            if name in ("function", "custom"):
                _call(gather, value, at)
            elif name in ("id", "type", "index"):
                below(gather, value, "tool_args", at, OPTION_WORDS)
            else:
                gather.walk(value, "tool_args", at)


def _call(gather: Gather, call: Json, path: Path) -> None:
    """`{name, arguments}` or `{name, input}`."""
    if call is None:
        return
    if type(call) is not dict:
        raise ValueError(f"`{path[-1]}` is not an object")
    for name, value in call.items():
        at = (*path, name)
        if name == "name":
            gather.text(value, "tool_name", at, rewritable=False)
        elif name == "arguments":
            gather.json_text(value, "tool_args", at)
        else:
            gather.walk(value, "tool_args", at)


# --- the other members of a request


def _stop(gather: Gather, value: Json, path: Path) -> None:
    gather.walk(value, "text", path, rewritable=False)


def _prediction(gather: Gather, value: Json, path: Path) -> None:
    if type(value) is not dict:
        gather.walk(value, "text", path)
        return
    for name, child in value.items():
        at = (*path, name)
        if name == "content":
            _content(gather, child, at)
        elif name == "type":
            below(gather, child, "text", at, OPTION_WORDS)
        else:
            gather.walk(child, "text", at)


def _tools(gather: Gather, tools: Json, path: Path) -> None:
    if tools is None:
        return
    if type(tools) is not list:
        raise ValueError(f"`{path[-1]}` is not a list")
    for place, tool in enumerate(tools):
        if type(tool) is not dict:
            raise ValueError(f"`{path[-1]}[{place}]` is not an object")
        for name, value in tool.items():
            _definition(gather, name, value, (*path, place, name))


def _definition(gather: Gather, name: str, value: Json, path: Path) -> None:
    if name == "name":
        gather.text(value, "tool_def", path, rewritable=False)
    elif name in ("parameters", "schema"):
        gather.schema(value, path)
    elif type(value) is dict:
        for inner, child in value.items():
            _definition(gather, inner, child, (*path, inner))
    elif name == "type":
        below(gather, value, "tool_def", path, ())
    else:
        gather.walk(value, "tool_def", path)


def _response_format(gather: Gather, value: Json, path: Path) -> None:
    if type(value) is dict:
        for name, child in value.items():
            _definition(gather, name, child, (*path, name))
    else:
        below(gather, value, "tool_def", path, OPTION_WORDS)


def _tool_choice(gather: Gather, value: Json, path: Path) -> None:
    below(gather, value, "tool_name", path, OPTION_WORDS, rewritable=False)


def _audio(gather: Gather, value: Json, path: Path) -> None:
    below(gather, value, "metadata", path, _VOICE_WORDS)


_TOP: Final = {
    "stop": _stop,
    "prediction": _prediction,
    "tools": _tools,
    "functions": _tools,
    "response_format": _response_format,
    "tool_choice": _tool_choice,
    "function_call": _tool_choice,
    "audio": _audio,
}
