"""The words of a scripted provider: what was asked, what is answered, step by step.

A reply is played from a list of steps.  Every fault is an edit of that list, so faults combine:
`ok().paced(0.01).cut(after=40)`.
"""

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

StepKind = Literal["start", "content", "end", "trailer", "noise"]
How = Literal["clean", "unterminated", "fin", "rst", "silence"]
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """One request as it arrived.  Header names are lower case; of repeated ones, the last."""

    number: int
    connection: int
    at: float
    method: str
    target: str
    raw_headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    reused: bool = False  # not the first request of its connection

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.raw_headers}

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self) -> dict[str, Any]:
        """The body's object; empty when it is none."""
        found: object = None
        with contextlib.suppress(ValueError):
            found = json.loads(self.body)
        if isinstance(found, dict):
            return found
        return {}

    @property
    def messages(self) -> list[dict[str, Any]]:
        given = self.json.get("messages")
        return [said for said in given if isinstance(said, dict)] if isinstance(given, list) else []

    @property
    def prefill(self) -> str | None:
        """The text of a trailing assistant message: what the answer shall continue."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant":
            return None
        content = last.get("content") or ""
        if isinstance(content, str):
            return content
        return "".join(part.get("text", "") for part in content)

    @property
    def tool_results(self) -> list[str]:
        """The texts of the tool results in the request, in order."""
        found: list[object] = []
        for said in self.messages:
            content = said.get("content")
            if said.get("role") == "tool":
                found.append(content)
            elif isinstance(content, list):
                found += [p["content"] for p in content if p.get("type") == "tool_result"]
        return [text if isinstance(text, str) else json.dumps(text) for text in found]


@dataclass(frozen=True)
class Usage:
    input: int = 11
    output: int = 7


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, object] = field(default_factory=dict)
    id: str = "call_0abcdefg"

    @property
    def fragments(self) -> tuple[str, str]:
        """The arguments as JSON text, in the two pieces in which they are streamed."""
        whole = json.dumps(self.arguments)
        return whole[:6], whole[6:]


@dataclass(frozen=True)
class Answer:
    """What the model says, whatever the dialect.  `stop` is in the dialect's own words."""

    pieces: tuple[str, ...]
    calls: tuple[ToolCall, ...] = ()
    thinking: tuple[str, ...] = ()
    usage: Usage | None = Usage()
    stop: str | None = None
    model: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Failure:
    """An error in the dialect's own shape.  Empty `type`: the dialect's usual one."""

    status: int
    type: str = ""
    message: str = "scripted"
    code: str | None = None


@dataclass(frozen=True)
class Raw:
    """A well-framed answer with any body."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200


@dataclass(frozen=True)
class Verbatim:
    """Bytes for the socket as they stand, the status line included."""

    data: bytes
    how: How = "fin"


@dataclass(frozen=True)
class Head:
    """The status line and the headers.  `length` is what content-length says, None: chunked."""

    status: int
    headers: Headers
    length: int | None


@dataclass(frozen=True)
class Send:
    """Body bytes.  `of` is the size that the chunk announces, where it is cut inside."""

    data: bytes
    kind: StepKind = "noise"
    of: int | None = None


@dataclass(frozen=True)
class Wait:
    """Nothing but keep-alives.  None: until the client goes."""

    seconds: float | None
    every_s: float | None = None


@dataclass(frozen=True)
class Flood:
    """The same bytes again and again, never held at once.  None: until the client goes."""

    data: bytes
    total_bytes: int | None
    every_s: float = 0.0


@dataclass(frozen=True)
class Finish:
    """How the answer ends; nothing follows."""

    how: How


Step = Head | Send | Wait | Flood | Finish
