"""One request and its answer, as values: what came in, where its texts are, what is sent up.

Header names are lower-case bytes wherever they are kept; bodies are the bytes that came.
"""

from dataclasses import dataclass, field
from typing import Literal

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
RawHeaders = list[tuple[bytes, bytes]]

Dialect = Literal[
    "openai_chat", "openai_responses", "anthropic_messages", "gemini", "bedrock_converse"
]
Part = Literal[
    "text",
    "reasoning",
    "refusal",
    "tool_name",
    "tool_args",
    "tool_result",
    "tool_def",
    "annotation",
    "metadata",
]
Role = Literal["system", "user", "assistant", "tool"]
Direction = Literal["request", "response"]
Level = Literal["L0", "L1", "L2"]
Operation = Literal[
    "chat", "completions", "embeddings", "messages", "count_tokens", "models", "model", "pass"
]


@dataclass(slots=True)
class Inbound:
    """A request as it came: nothing decoded, nothing decided.

    `target` is the raw path with its query, byte for byte as sent (wire.md: an ARN's `%2F` stays).
    `headers` keep their order; names are lower case.
    """

    request_id: str
    method: str
    target: str
    headers: RawHeaders
    body: bytes = b""
    peer: str = ""


@dataclass(slots=True, frozen=True)
class Surface:
    """What a path means: the body grammar and the operation.  `path` is the tail, after `/r/<id>`.

    `model` is the name in the path where the dialect has it there (`GET …/models/{id}`).
    """

    dialect: Dialect
    operation: Operation
    path: str
    query: str = ""
    route_id: str | None = None
    model: str | None = None


@dataclass(slots=True)
class Leaf:
    """One string of a body that a guardrail may look at.

    `path` leads to it in the parsed body (`("messages", 0, "content")`); a leaf of a string that
    itself holds JSON (tool arguments) has the path of that string and `inner`, the path inside.
    `latest`: it stands in a message after the last assistant message (scope `turns: latest`).
    `rewritable` is false for object keys, numbers and signed reasoning: there a rewrite is a block.
    """

    text: str
    part: Part
    role: Role
    path: tuple[str | int, ...]
    inner: tuple[str | int, ...] | None = None
    latest: bool = True
    rewritable: bool = True


@dataclass(slots=True)
class Exchange:
    """One request, read: the original that every attempt starts from.

    `body` is what goes out at L0 before the model is spliced in: the caller's bytes, or those bytes
    with guarded strings rewritten.  `doc` is its parse, None when nobody needed one.
    """

    surface: Surface
    inbound: Inbound
    body: bytes
    doc: dict[str, Json] | None
    model: str | None
    stream: bool = False
    want_usage: bool = False
    user: str | None = None


@dataclass(slots=True)
class Outgoing:
    """One attempt, ready for the wire: the whole request head and the body."""

    head: bytes
    body: bytes
    replayable: bool = True  # may be sent again on a fresh connection after a stale one


@dataclass(slots=True)
class Usage:
    """Tokens in disjoint buckets (wire.md §9): `input` is what no cache served."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    estimated: bool = False

    @property
    def all_input(self) -> int:
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h


@dataclass(slots=True)
class WireEvent:
    """One event of an answer stream.

    `raw` is what the caller gets when the event passes untouched: for SSE the bytes that came, for
    framed streams the SSE made of the frame.  `name` is the `event:` field or the frame's type.
    """

    name: str
    data: bytes
    raw: bytes


@dataclass(slots=True)
class Delta:
    """A piece of one lane inside an event: it stands at `holder[member]`, so it can be rewritten.

    `lane` names the growing string: (choice or block index, part, tool index).
    """

    lane: tuple[int, Part, int]
    text: str
    holder: dict[str, Json]
    member: str


@dataclass(slots=True)
class Seen:
    """What one event of a stream means, whatever the dialect (failover.md §9).

    `content`: the caller would see content.  `terminal`: with this event the answer is whole.
    `done`: the dialect's trailer (`[DONE]`, `message_stop`).  `ends`: lanes that this event
    closes, so what is held of them must leave before it; `ends_all`: it closes every lane.
    `doc` is the parsed event; None for trailers, pings and comments.
    """

    doc: dict[str, Json] | None = None
    content: bool = False
    terminal: bool = False
    done: bool = False
    deltas: list[Delta] = field(default_factory=list)
    ends: list[tuple[int, Part, int]] = field(default_factory=list)
    ends_all: bool = False
    usage_only: bool = False
    error: "InBandError | None" = None


@dataclass(slots=True)
class InBandError:
    """An error told inside a 200 stream, in the provider's own words.  `status`: the HTTP status of
    that type where it has one, else 500."""

    type: str
    code: str
    message: str
    status: int
