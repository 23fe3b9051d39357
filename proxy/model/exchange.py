"""One request and its answer, as values: what came in, where its texts are, what is sent up.

Header names are lower-case bytes wherever they are kept; bodies are the bytes that came.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

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
Stand = Literal["flowing", "waiting", "alone", "late"]
Direction = Literal["request", "response"]
Level = Literal["L0", "L1", "L2"]
Operation = Literal[
    "chat", "completions", "embeddings", "messages", "count_tokens", "models", "model", "pass"
]


@dataclass(slots=True)
class Inbound:
    """A request as it came: nothing decoded, nothing decided.

    `target` is the raw path with its query, byte for byte as sent (wire.md: an ARN's `%2F` stays).
    `headers` keep their order; names are lower case.  `marks` are the few of them that stages look
    for by name (`wire/headers.py`: walk), so that the list is walked once.
    """

    request_id: str
    method: str
    target: str
    headers: RawHeaders
    body: bytes = b""
    peer: str = ""
    marks: dict[bytes, bytes] = field(default_factory=dict)


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

    `lane` names the growing string: (choice or block index, part, tool index).  `stands`: a
    `flowing` text may move into later events of its lane; one of unknown kind makes its event wait
    (`waiting`) until it is settled; `alone`, it is complete; `late`, its choice or block has ended.
    """

    lane: tuple[int, Part, int]
    text: str
    holder: dict[str, Json]
    member: str
    stands: Stand = "flowing"


@dataclass(slots=True)
class Seen:
    """What one event of a stream means, whatever the dialect (failover.md §9).

    `raw` is what the caller gets when nothing is changed; empty for an event that must not reach
    him (usage that he did not ask for).  `doc` is the parsed event, None for trailers, pings and
    comments; after a holder of a delta was changed, the reader renders it anew.
    `content`: the caller would see content.  `terminal`: with this event the answer is whole.
    `done`: the dialect's trailer (`[DONE]`, `message_stop`).  `ends`: lanes that this event
    closes, so what is held of them must leave before it; `ends_all`: it closes every lane.
    `carries`: besides its deltas it says something (role, finish reason, usage, id), so that it
    leaves even when its deltas are held.  `structural`: losing it would break the stream.
    `whole`: its one delta is a complete tool call or reasoning block that the reader assembled.
    `repeats`: token by token it says something else than its own texts, perhaps what is held; a
    rendered event says nothing twice.
    """

    raw: bytes
    name: str = ""
    doc: dict[str, Json] | None = None
    deltas: list[Delta] = field(default_factory=list)
    ends: list[tuple[int, Part, int]] = field(default_factory=list)
    ends_all: bool = False
    content: bool = False
    terminal: bool = False
    done: bool = False
    carries: bool = False
    structural: bool = False
    whole: bool = False
    repeats: bool = False
    error: "ErrorSeen | None" = None


@dataclass(slots=True)
class ErrorSeen:
    """A provider's error in its own words, from an error answer or inside a 200 stream.

    `status` is the HTTP status, inside a stream that of the error's type (500 when it has none).
    `type`, `code`: the dialect's strings, empty when it gave none.  `retry_after_s`: its hint.
    """

    status: int
    type: str = ""
    code: str = ""
    message: str = ""
    retry_after_s: float | None = None


class Credential(NamedTuple):
    """What the caller showed.  `parapet_key` is a whole `ppt_…` key; `provider_key` is his own
    credential for a provider, as it may go up when the endpoint has none (wire.md §2.3)."""

    parapet_key: str | None = None
    provider_key: str | None = None
    conflict: bool = False


@dataclass(slots=True)
class Plan:
    """One attempt, planned: how it is forwarded and what came of the body."""

    level: Level
    outgoing: Outgoing
    model: str | None
    framing: Literal["sse", "claude_frames"] = "sse"
    usage_injected: bool = False
    dropped: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Refused:
    """This endpoint cannot take this request: `no_credential`, `cannot express <field>`."""

    reason: str
