"""What binds a request to one provider account, and what says which conversation it belongs to.

Ids of what a provider keeps (a response, a file, a container) mean nothing elsewhere, so such a
request goes to the primary and to nobody else (failover.md §6, wire.md §3.5).  `null` means absent.
"""

from typing import Final

from proxy.model.exchange import Json
from proxy.wire.jsonbody import Object

# members of the body's top whose presence is enough
_BINDING: Final = ("previous_response_id", "conversation", "container", "cachedContent",
                   "cached_content")  # fmt: skip
_HOLDING: Final = ("messages", "input", "contents", "system")  # where ids of files may stand
_FILE_IDS: Final = ("file_id", "fileUri", "file_uri")
_TOOL_CALLS: Final = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})  # a model's words
_ARGUMENTS: Final = frozenset({"args", "functionCall", "function_call"})  # they, too


def bound_by(doc: Object) -> str:
    """The member that binds the request to a provider's state; empty when none does."""
    for name in _BINDING:
        if doc.get(name) not in (None, "", {}):
            return name
    if doc.get("background") is True:
        return "background"
    prompt = doc.get("prompt")
    if type(prompt) is dict and prompt.get("id"):
        return "prompt"
    for name in _HOLDING:
        found = _within(doc.get(name))
        if found:
            return found
    return ""


def _within(value: Json) -> str:
    """Looked for in messages and their parts, not in the arguments of tools."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if type(each) is list:
            waiting += each
        elif type(each) is dict:
            kind = each.get("type")
            if kind == "item_reference":
                return "item_reference"
            if kind in _TOOL_CALLS:
                continue
            for name in _FILE_IDS:
                if type(each.get(name)) is str and each[name]:
                    return name
            waiting += [
                below
                for name, below in each.items()
                if (type(below) is dict or type(below) is list) and name not in _ARGUMENTS
            ]
    return ""


def conversation_of(doc: Object) -> str | None:
    """The conversation that a body names: `conversation` (its id), `prompt_cache_key`, or
    `metadata.conversation_id`, in this order."""
    told = doc.get("conversation")
    if type(told) is dict:
        told = told.get("id")
    if type(told) is str and told:
        return told
    told = doc.get("prompt_cache_key")
    if type(told) is str and told:
        return told
    metadata = doc.get("metadata")
    told = metadata.get("conversation_id") if type(metadata) is dict else None
    return told if type(told) is str and told else None
