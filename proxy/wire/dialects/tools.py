"""Where the tools of a body are, in every dialect: declared, forced, called; and how they are taken
out (guardrails.md §5.9).

What a dialect knows stands in its own file; here is what they share.  Nothing is decided here.
"""

from collections.abc import Collection, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final, Protocol

from proxy.model.exchange import Json, Operation, Seen
from proxy.model.tools import Call, Path, Tool
from proxy.wire import jsonbody
from proxy.wire.dialect import Object
from proxy.wire.dialects.lanes import MAX_ASSEMBLED

_IMAGES: Final = frozenset({"image", "image_url", "input_image"})


@dataclass(slots=True)
class Fragment:
    """A piece of a call in an event: of the call `key`, begun by an event that gives its name."""

    key: tuple[int, int]
    call_id: str = ""
    names: tuple[str, ...] = ()
    text: str = ""
    is_text: bool = False  # plain text, no JSON


@dataclass(slots=True)
class Edit:
    """What becomes of a body: its top-level members with new values, and those that go."""

    changed: Object
    dropped: frozenset[str] = frozenset()

    def apply(self, body: bytes, doc: Object) -> bytes:
        """`body`, whose parse is `doc`, edited; what is not named stays as it came.  Raises
        jsonbody.BodyFault."""
        known = {(name,): value for name, value in self.changed.items() if name in doc}
        if known:
            body = jsonbody.splice(body, {path: jsonbody.dumps(v) for path, v in known.items()})
        for name, value in self.changed.items():
            if name not in doc:
                body = jsonbody.splice_member(body, doc, name, jsonbody.dumps(value))
        if any(name in doc for name in self.dropped):
            members = jsonbody.top_members(body)
            body = jsonbody.join_members([m for m in members if m[0] not in self.dropped])
        return body


class ToolGrammar(Protocol):
    """One dialect's tools.  Bodies are those that its reader takes."""

    def declared(self, doc: Object) -> list[Tool]:
        """Every tool that a request offers the model."""
        ...

    def forced(self, doc: Object) -> list[Tool]:
        """The tool that the model is made to call."""
        ...

    def history(self, doc: Object) -> list[Call]:
        """Calls in the messages of a request."""
        ...

    def without(self, doc: Object, gone: Sequence[Tool]) -> Edit:
        """A request without these declared tools; with the last one its choice goes, too."""
        ...

    def answered(self, doc: Object) -> list[Call]:
        """Every call of a unary answer."""
        ...

    def replaced(self, doc: Object, gone: Sequence[tuple[Call, str]]) -> Edit:
        """A unary answer in which a text stands for each of these calls."""
        ...

    def streamed(self, seen: Seen) -> Call | None:
        """The call that a reader assembled (`seen.whole`); None for a reasoning block."""
        ...

    def fragments(self, doc: Object) -> list[Fragment]:
        """The pieces of calls in an event that a reader did not assemble."""
        ...

    def count(self, doc: Object) -> dict[str, int]:
        """`max_messages`, `max_tools`, `max_images`: how many a request has."""
        ...

    def outputs(self, operation: Operation) -> tuple[tuple[str, ...], str]:
        """The members that say how long an answer may be, and the one that is set where none does
        (empty: this operation has none)."""
        ...


# --- calls


def call_of(
    names: tuple[str, ...], given: Json, path: Path = (), call_id: str = "", *, text: bool = False
) -> Call:
    """`given`: the arguments as they stand, an object or a string that holds one; `text`: a plain
    text, which a custom tool takes."""
    if type(given) is not str or text:
        return Call(names, {} if given is None else given, path, True, call_id)
    if not given.strip():
        return Call(names, {}, path, True, call_id)
    try:
        return Call(names, jsonbody.strict_value(given), path, True, call_id)
    except jsonbody.BodyFault:
        return Call(names, None, path, False, call_id)


class CallWatch:
    """The calls of a stream that nobody holds back: what was seen of them, for rules that only
    tell."""

    __slots__ = ("_calls", "_done", "_grammar", "_size")

    def __init__(self, grammar: ToolGrammar) -> None:
        self._grammar = grammar
        self._calls: dict[tuple[int, int], list[Fragment]] = {}
        self._done: list[list[Fragment]] = []
        self._size = 0

    def __repr__(self) -> str:
        return f"<CallWatch {len(self._calls)} calls>"

    def see(self, doc: Object) -> None:
        """Take in an event.  Over the bound of an assembled call nothing more is kept."""
        for piece in self._grammar.fragments(doc):
            self._size += len(piece.text) + 64
            if self._size > MAX_ASSEMBLED:
                return
            pieces = self._calls.setdefault(piece.key, [])
            if piece.call_id and any(p.call_id not in ("", piece.call_id) for p in pieces):
                self._done.append(pieces)  # a new id on an old index is a new call
                pieces = self._calls[piece.key] = []
            pieces.append(piece)

    def calls(self) -> list[Call]:
        """All that were seen since this was asked last."""
        seen = [*self._done, *self._calls.values()]
        self._done, self._calls = [], {}
        return [_joined(pieces) for pieces in seen if any(p.names for p in pieces)]


def _joined(pieces: Sequence[Fragment]) -> Call:
    names = next(piece.names for piece in pieces if piece.names)
    text = "".join(piece.text for piece in pieces)
    return call_of(names, text, text=any(piece.is_text for piece in pieces))


# --- names


def mcp_name(server: Json, tool: Json) -> str:
    """`mcp:<server>/<tool>`; all of a server's tools without one."""
    named = tool if type(tool) is str else "*"
    return f"mcp:{server if type(server) is str else ''}/{named}"


def mcp_tools(server: Json, allowed: Json, path: Path) -> list[Tool]:
    """The tools of an MCP server: those that are listed at `path`, or all of them."""
    if type(allowed) is not list:
        return [Tool((mcp_name(server, None),), path)]
    return [
        Tool((mcp_name(server, name),), (*path, "allowed_tools", place))
        for place, name in enumerate(allowed)
    ]


def objects(value: Json) -> list[tuple[int, Object]]:
    """The objects of a list, with their places."""
    if type(value) is not list:
        return []
    return [(place, item) for place, item in enumerate(value) if type(item) is dict]


# --- taking out


def taken_out(doc: Object, paths: Iterable[Path]) -> Object:
    """Copies of the top-level members that the paths lead into, without what they lead to.  A
    member of `configs` is switched off instead."""
    ordered = sorted(set(paths), key=_order, reverse=True)
    changed: Object = {
        str(path[0]): deepcopy(doc[str(path[0])]) for path in ordered if path[0] in doc
    }
    for path in ordered:
        node: Json = changed
        for step in path[:-1]:
            if type(node) is dict and type(step) is str:
                node = node.get(step)
            elif type(node) is list and type(step) is int:
                node = node[step]
        last = path[-1]
        if type(node) is list and type(last) is int:
            del node[last]
        elif type(node) is dict and type(last) is str:
            if path[-2:-1] == ("configs",):
                node[last] = {"enabled": False}
            else:
                node.pop(last, None)
    return changed


def _order(path: Path) -> list[tuple[int, int, str]]:
    return [(1, step, "") if type(step) is int else (0, 0, str(step)) for step in path]


# --- counting


def images_of(messages: Json) -> int:
    """Images in messages, those in the results of tools and in documents too."""
    count = 0
    todo: list[Json] = [messages]
    while todo:
        node = todo.pop()
        if type(node) is list:
            todo += node
        elif type(node) is dict:
            count += node.get("type") in _IMAGES or "image_url" in node
            todo += [node[name] for name in ("content", "source", "output") if name in node]
    return count


def length_of(*values: Json) -> int:
    """Of all that are lists."""
    return sum(len(value) for value in values if type(value) is list)


def names_in(tools: Collection[Tool]) -> set[str]:
    return {name for tool in tools for name in tool.names}
