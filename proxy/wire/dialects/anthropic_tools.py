"""The tools of Anthropic Messages: its own, hosted ones, those of MCP servers (wire.md §3.7)."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Final

from proxy.model.exchange import Json, Operation, Seen
from proxy.model.tools import Call, Path, Tool
from proxy.wire.dialect import Object
from proxy.wire.dialects.anthropic_blocks import TOOL_CALLS, names_called
from proxy.wire.dialects.tools import (
    Edit,
    Fragment,
    call_of,
    images_of,
    length_of,
    mcp_name,
    mcp_tools,
    objects,
    taken_out,
)
from proxy.wire.jsonbody import dumps_event

_TOOLSET: Final = "mcp_toolset"


class MessagesTools:
    """`ToolGrammar` for Messages and its token counting."""

    def declared(self, doc: Object) -> list[Tool]:
        found: list[Tool] = []
        listed: set[Json] = set()
        for place, tool in objects(doc.get("tools")):
            path: Path = ("tools", place)
            if tool.get("type") == _TOOLSET:
                server = tool.get("mcp_server_name")
                listed.add(server if type(server) is str else None)
                found += _toolset(tool, path)
            else:
                found.append(Tool(_names_of(tool), path))
        for place, server in objects(doc.get("mcp_servers")):
            name = server.get("name")
            if name in listed:
                continue  # what of it may be used, its toolset says
            settings = server.get("tool_configuration")
            path = ("mcp_servers", place)
            allowed = settings.get("allowed_tools") if type(settings) is dict else None
            if type(allowed) is list:
                path = (*path, "tool_configuration")
            found += mcp_tools(name, allowed, path)
        return found

    def forced(self, doc: Object) -> list[Tool]:
        choice = doc.get("tool_choice")
        if type(choice) is not dict or "name" not in choice:
            return []
        name = choice["name"]
        known = [tool for tool in self.declared(doc) if tool.names[0] == name]
        names = known[0].names if known else (name if type(name) is str else "",)
        return [Tool(names, ("tool_choice",))]

    def history(self, doc: Object) -> list[Call]:
        return [
            call
            for place, message in objects(doc.get("messages"))
            for call in _calls_of(message.get("content"), ("messages", place, "content"))
        ]

    def without(self, doc: Object, gone: Sequence[Tool]) -> Edit:
        changed = taken_out(doc, [tool.path for tool in gone])
        servers = _kept_servers(doc, changed)
        if servers is not None:
            changed["mcp_servers"] = servers
        dropped = {name for name in ("tools", "mcp_servers") if changed.get(name) == []}
        if not any(doc.get(name) and name not in dropped for name in ("tools", "mcp_servers")):
            dropped.add("tool_choice")
        kept = {name: value for name, value in changed.items() if name not in dropped}
        return Edit(kept, frozenset(dropped))

    def answered(self, doc: Object) -> list[Call]:
        return _calls_of(doc.get("content"), ("content",))

    def replaced(self, doc: Object, gone: Sequence[tuple[Call, str]]) -> Edit:
        content = deepcopy(doc["content"])
        assert type(content) is list, "calls were found in it"
        ids = {call.call_id for call, _ in gone} - {""}
        notices = {call.path[1]: notice for call, notice in gone}
        kept: list[Json] = []
        for place, block in enumerate(content):
            if place in notices:
                kept.append({"type": "text", "text": notices[place]})
            elif not (type(block) is dict and block.get("tool_use_id") in ids):
                kept.append(block)  # the result of a call that went goes, too
        edit = Edit({"content": kept})
        asks = any(type(b) is dict and b.get("type") == "tool_use" for b in kept)
        if doc.get("stop_reason") == "tool_use" and not asks:
            edit.changed["stop_reason"] = "end_turn"
        return edit

    def streamed(self, seen: Seen) -> Call | None:
        doc = seen.doc
        if doc is None or "arguments" not in doc:
            return None
        block = doc["block"]
        assert type(block) is dict, "a whole block of ours"
        found = block.get("id")
        call_id = found if type(found) is str else ""
        return call_of(names_called({**block, "name": doc["name"]}), doc["arguments"], (), call_id)

    def fragments(self, doc: Object) -> list[Fragment]:
        index = doc.get("index")
        at = index if type(index) is int else 0
        block, delta = doc.get("content_block"), doc.get("delta")
        if type(block) is dict and block.get("type") in TOOL_CALLS:
            given = block.get("input")
            text = dumps_event(given).decode() if given else ""
            return [Fragment((at, 0), str(block.get("id") or ""), names_called(block), text)]
        if type(delta) is dict and type(delta.get("partial_json")) is str:
            return [Fragment((at, 0), "", (), str(delta["partial_json"]))]
        return []

    def count(self, doc: Object) -> dict[str, int]:
        messages = doc.get("messages")
        return {
            "max_messages": length_of(messages),
            "max_tools": length_of(doc.get("tools"), doc.get("mcp_servers")),
            "max_images": images_of(messages),
        }

    def outputs(self, operation: Operation) -> tuple[tuple[str, ...], str]:
        return (("max_tokens",), "max_tokens") if operation == "messages" else ((), "")


def _names_of(tool: Object) -> tuple[str, ...]:
    """Its name; of a hosted tool its type as well."""
    name, kind = tool.get("name"), tool.get("type")
    names = [name] if type(name) is str else []
    if type(kind) is str and kind != "custom":
        names.append(kind)
    return tuple(names) or ("",)


def _toolset(tool: Object, path: Path) -> list[Tool]:
    """All tools of a server, or those that `configs` switches on where the others are off."""
    server, usual, configs = (
        tool.get(name) for name in ("mcp_server_name", "default_config", "configs")
    )
    named = configs if type(configs) is dict else {}
    off_by_default = type(usual) is dict and usual.get("enabled") is False
    found = [] if off_by_default else [Tool((mcp_name(server, None),), path)]
    for name, settings in named.items():
        said = settings.get("enabled") if type(settings) is dict else None
        if said is not False and (said is True or not off_by_default):
            found.append(Tool((mcp_name(server, name),), (*path, "configs", name)))
    return found


def _kept_servers(doc: Object, changed: Object) -> list[Json] | None:
    """The MCP servers that still serve; None when all of them do.  One serves nobody when its
    toolsets went, or when none of its tools is left."""
    servers = changed.get("mcp_servers", doc.get("mcp_servers"))
    if type(servers) is not list:
        return None
    before, after = (
        _toolset_servers(doc.get("tools")),
        _toolset_servers(changed.get("tools", doc.get("tools"))),
    )
    lost = before - after
    kept = [server for server in servers if not _is_lost(server, lost)]
    return kept if len(kept) < len(servers) else None


def _toolset_servers(tools: Json) -> set[str]:
    return {
        name
        for _, tool in objects(tools)
        if tool.get("type") == _TOOLSET and type(name := tool.get("mcp_server_name")) is str
    }


def _is_lost(server: Json, lost: set[str]) -> bool:
    if type(server) is not dict:
        return False
    settings = server.get("tool_configuration")
    is_empty = type(settings) is dict and settings.get("allowed_tools") == []
    return server.get("name") in lost or is_empty


# --- calls


def _calls_of(content: Json, path: Path) -> list[Call]:
    found: list[Call] = []
    for place, block in objects(content):
        if block.get("type") in TOOL_CALLS:
            call_id = block.get("id")
            known = call_id if type(call_id) is str else ""
            given = block.get("input")
            args: Json = {} if given is None else given
            found.append(Call(names_called(block), args, (*path, place), True, known))
    return found
