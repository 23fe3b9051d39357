"""The tools of Chat Completions, the legacy `functions` among them (wire.md §3.4)."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Final

from proxy.model.exchange import Json, Operation, Seen
from proxy.model.tools import Call, Path, Tool
from proxy.wire.dialect import Object
from proxy.wire.dialects.openai_calls import call_places
from proxy.wire.dialects.openai_events import choices_in
from proxy.wire.dialects.tools import (
    Edit,
    Fragment,
    call_of,
    images_of,
    length_of,
    mcp_name,
    mcp_tools,
    names_in,
    objects,
    taken_out,
)

_HOLDERS: Final = ("function", "custom")
_MODES: Final = frozenset({"auto", "none", "required", "any", "allowed_tools"})
_SEARCH: Final = "web_search_options"
_SEARCH_NAMES: Final = ("web_search", _SEARCH)
_CALLS: Final = ("tool_calls", "function_call")  # members, and finish reasons
_LENGTHS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")


class ChatTools:
    """`ToolGrammar` for Chat Completions; embeddings and legacy completions have no tools."""

    def declared(self, doc: Object) -> list[Tool]:
        found: list[Tool] = []
        for place, tool in objects(doc.get("tools")):
            path: Path = ("tools", place)
            if tool.get("type") == "mcp":
                found += mcp_tools(tool.get("server_label"), tool.get("allowed_tools"), path)
            else:
                found += [Tool((name,), path) for name in _names_of(tool)]
        for place, function in objects(doc.get("functions")):
            found.append(Tool((_name(function),), ("functions", place)))
        if doc.get(_SEARCH) is not None:
            found.append(Tool(_SEARCH_NAMES, (_SEARCH,)))
        return found

    def forced(self, doc: Object) -> list[Tool]:
        found: list[Tool] = []
        choice, legacy = doc.get("tool_choice"), doc.get("function_call")
        if type(choice) is dict:
            named = _choices(choice)
            if len(named) == 1:
                found += named
        if type(legacy) is dict:
            found.append(Tool((_name(legacy),), ("function_call",)))
        return found

    def history(self, doc: Object) -> list[Call]:
        return [
            call
            for place, message in objects(doc.get("messages"))
            for call in _calls_of(message, ("messages", place))
        ]

    def without(self, doc: Object, gone: Sequence[Tool]) -> Edit:
        changed = taken_out(doc, [tool.path for tool in gone])
        dropped = {_SEARCH} if any(tool.path == (_SEARCH,) for tool in gone) else set()
        tools = changed.get("tools")
        if type(tools) is list:
            for place in reversed(range(len(tools))):
                if _is_empty_server(tools[place]):
                    del tools[place]
        if tools == []:
            dropped |= {"tools", "tool_choice", "parallel_tool_calls"}
        if changed.get("functions") == []:
            dropped |= {"functions", "function_call"}
        choice = doc.get("tool_choice")
        if type(choice) is dict and "tool_choice" not in dropped:
            narrowed = _narrowed(choice, names_in(gone))
            if narrowed is not choice:
                changed["tool_choice"] = narrowed
        kept = {name: value for name, value in changed.items() if name not in dropped}
        return Edit(kept, frozenset(dropped))

    def answered(self, doc: Object) -> list[Call]:
        found: list[Call] = []
        for place, choice in objects(doc.get("choices")):
            message = choice.get("message")
            if type(message) is dict:
                found += _calls_of(message, ("choices", place, "message"))
        return found

    def replaced(self, doc: Object, gone: Sequence[tuple[Call, str]]) -> Edit:
        choices = deepcopy(doc["choices"])
        assert type(choices) is list, "calls were found in it"
        for call, notice in gone:
            place = call.path[1]
            choice = choices[place] if type(place) is int else None
            message = choice.get("message") if type(choice) is dict else None
            if type(message) is dict:
                _say(message, notice)
        for call, _ in reversed(gone):  # the last first: places of the others stay
            place = call.path[1]
            choice = choices[place] if type(place) is int else None
            if type(choice) is dict:
                _remove(choice, call.path[3:])
        return Edit({"choices": choices})

    def streamed(self, seen: Seen) -> Call | None:
        for choice in choices_in(seen.doc):
            delta = choice.get("delta")
            if type(delta) is dict:
                for call in _calls_of(delta, ()):
                    return call
        return None

    def fragments(self, doc: Object) -> list[Fragment]:
        found: list[Fragment] = []
        for choice in choices_in(doc):
            delta, index = choice.get("delta"), choice.get("index")
            if type(delta) is not dict:
                continue
            at = index if type(index) is int else 0
            for place, call in call_places(delta):
                call_id = call.get("id")
                for kind in (*_HOLDERS, "function_call"):
                    holder = call.get(kind)
                    if type(holder) is dict:
                        piece = _piece(holder, (at, place), kind)
                        piece.call_id = call_id if type(call_id) is str else ""
                        found.append(piece)
        return found

    def count(self, doc: Object) -> dict[str, int]:
        messages = doc.get("messages")
        searches = int(doc.get(_SEARCH) is not None)
        return {
            "max_messages": length_of(messages),
            "max_tools": length_of(doc.get("tools"), doc.get("functions")) + searches,
            "max_images": images_of(messages),
        }

    def outputs(self, operation: Operation) -> tuple[tuple[str, ...], str]:
        match operation:
            case "chat":
                return _LENGTHS, "max_completion_tokens"
            case "completions":
                return _LENGTHS, "max_tokens"
            case _:
                return (), ""


def _name(holder: Object) -> str:
    name = holder.get("name")
    return name if type(name) is str else ""


def _names_of(tool: Object) -> list[str]:
    """What a declaration or a choice may mean; one that nobody understands has an empty name."""
    found = [_name(holder) for member in _HOLDERS if type(holder := tool.get(member)) is dict]
    kind = tool.get("type")
    if type(kind) is str and kind not in _HOLDERS:
        found.append(kind)  # a hosted tool
    elif not found:
        found.append(_name(tool))
    return found


def _choices(choice: Object) -> list[Tool]:
    """The tools that `tool_choice` names, when one of them must be called."""
    kind = choice.get("type")
    if kind == "allowed_tools":
        listed = choice.get("allowed_tools")
        holder = listed if type(listed) is dict else choice
        if holder.get("mode") != "required":
            return []
        tools = [tool for _, tool in objects(holder.get("tools"))]
        named = [name for tool in tools for name in _names_of(tool)]
    elif type(kind) is str and kind in _MODES:
        named = []
    elif kind == "mcp":
        named = [mcp_name(choice.get("server_label"), choice.get("name"))]
    else:
        named = _names_of(choice)
        if len(named) > 1:
            named = named[:1] if kind == "function" else named[-1:]
    return [Tool((name,), ("tool_choice",)) for name in named]


def _narrowed(choice: Object, gone: set[str]) -> Json:
    """`allowed_tools` without those that went; with none left no tool may be called."""
    if choice.get("type") != "allowed_tools":
        return choice
    listed = choice.get("allowed_tools")
    holder = listed if type(listed) is dict else choice
    tools = holder.get("tools")
    if type(tools) is not list:
        return choice
    kept = [t for t in tools if not (type(t) is dict and gone & set(_names_of(t)))]
    if len(kept) == len(tools):
        return choice
    if not kept:
        return "none"
    narrowed: Object = {**holder, "tools": kept}
    return narrowed if holder is choice else {**choice, "allowed_tools": narrowed}


def _is_empty_server(tool: Json) -> bool:
    return type(tool) is dict and tool.get("type") == "mcp" and tool.get("allowed_tools") == []


# --- calls


def _calls_of(message: Object, path: Path) -> list[Call]:
    """The calls of a message or a delta."""
    found: list[Call] = []
    for place, call in objects(message.get("tool_calls")):
        call_id = call.get("id")
        known = call_id if type(call_id) is str else ""
        for member in _HOLDERS:
            holder = call.get(member)
            if type(holder) is dict:
                found.append(_call(holder, (*path, "tool_calls", place), known, member))
    legacy = message.get("function_call")
    if type(legacy) is dict:
        found.append(_call(legacy, (*path, "function_call"), "", "function"))
    return found


def _call(holder: Object, path: Path, call_id: str, member: str) -> Call:
    is_text = member == "custom" and "arguments" not in holder
    given = holder.get("input" if is_text else "arguments")
    return call_of((_name(holder),), given, path, call_id, text=is_text)


def _piece(holder: Object, key: tuple[int, int], kind: str) -> Fragment:
    name = _name(holder)
    is_text = kind == "custom"
    given = holder.get("input" if is_text else "arguments")
    text = given if type(given) is str else ""
    return Fragment(key, "", (name,) if name else (), text, is_text)


def _say(message: Object, notice: str) -> None:
    content = message.get("content")
    if type(content) is list:
        content.append({"type": "text", "text": notice})
    else:
        message["content"] = f"{content}\n{notice}" if type(content) is str and content else notice


def _remove(choice: Object, path: Path) -> None:
    """Take a call out of its choice; `path` goes on from its message."""
    message = choice["message"]
    assert type(message) is dict, "a call was found in it"
    calls, place = message.get("tool_calls"), path[-1]
    if path[0] == "function_call":
        message.pop("function_call", None)
    elif type(calls) is list and type(place) is int and place < len(calls):
        del calls[place]
    if calls == []:
        del message["tool_calls"]
    if not any(message.get(member) for member in _CALLS) and (
        choice.get("finish_reason") in _CALLS
    ):
        choice["finish_reason"] = "stop"
