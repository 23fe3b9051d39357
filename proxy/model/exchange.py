"""One request and its answer, as values: what came in, where its texts are, what is sent up.

Header names are lower-case bytes wherever they are kept; bodies are the bytes that came.

What each request, text or event of a stream is made of has an initialiser of its own: one that is
generated is interpreted, and costs half a microsecond each time.
"""

from dataclasses import dataclass
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


@dataclass(slots=True, init=False)
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
    body: bytes
    peer: str
    marks: dict[bytes, bytes]

    def __init__(
        self,
        request_id: str,
        method: str,
        target: str,
        headers: RawHeaders,
        body: bytes = b"",
        peer: str = "",
        marks: dict[bytes, bytes] | None = None,
    ) -> None:
        self.request_id = request_id
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.peer = peer
        self.marks = {} if marks is None else marks


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


@dataclass(slots=True, init=False)
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
    inner: tuple[str | int, ...] | None
    latest: bool
    rewritable: bool

    def __init__(
        self,
        text: str,
        part: Part,
        role: Role,
        path: tuple[str | int, ...],
        inner: tuple[str | int, ...] | None = None,
        latest: bool = True,
        rewritable: bool = True,
    ) -> None:
        self.text = text
        self.part = part
        self.role = role
        self.path = path
        self.inner = inner
        self.latest = latest
        self.rewritable = rewritable


@dataclass(slots=True, init=False)
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
    stream: bool
    want_usage: bool
    user: str | None

    def __init__(
        self,
        surface: Surface,
        inbound: Inbound,
        body: bytes,
        doc: dict[str, Json] | None,
        model: str | None,
        stream: bool = False,
        want_usage: bool = False,
        user: str | None = None,
    ) -> None:
        self.surface = surface
        self.inbound = inbound
        self.body = body
        self.doc = doc
        self.model = model
        self.stream = stream
        self.want_usage = want_usage
        self.user = user


@dataclass(slots=True, init=False)
class Outgoing:
    """One attempt, ready for the wire: the whole request head and the body."""

    head: bytes
    body: bytes
    replayable: bool  # may be sent again on a fresh connection after a stale one

    def __init__(
        self,
        head: bytes,
        body: bytes,
        replayable: bool = True,
    ) -> None:
        self.head = head
        self.body = body
        self.replayable = replayable


@dataclass(slots=True, init=False)
class Usage:
    """Tokens in disjoint buckets (wire.md §9): `input` is what no cache served."""

    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int
    reasoning: int
    estimated: bool

    def __init__(
        self,
        input: int = 0,  # noqa: A002  # as the member is called
        cache_read: int = 0,
        cache_write_5m: int = 0,
        cache_write_1h: int = 0,
        output: int = 0,
        reasoning: int = 0,
        estimated: bool = False,
    ) -> None:
        self.input = input
        self.cache_read = cache_read
        self.cache_write_5m = cache_write_5m
        self.cache_write_1h = cache_write_1h
        self.output = output
        self.reasoning = reasoning
        self.estimated = estimated

    @property
    def all_input(self) -> int:
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h


@dataclass(slots=True, init=False)
class WireEvent:
    """One event of an answer stream.

    `raw` is what the caller gets when the event passes untouched: for SSE the bytes that came, for
    framed streams the SSE made of the frame.  `name` is the `event:` field or the frame's type.
    """

    name: str
    data: bytes
    raw: bytes

    def __init__(
        self,
        name: str,
        data: bytes,
        raw: bytes,
    ) -> None:
        self.name = name
        self.data = data
        self.raw = raw


@dataclass(slots=True, init=False)
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
    stands: Stand

    def __init__(
        self,
        lane: tuple[int, Part, int],
        text: str,
        holder: dict[str, Json],
        member: str,
        stands: Stand = "flowing",
    ) -> None:
        self.lane = lane
        self.text = text
        self.holder = holder
        self.member = member
        self.stands = stands


@dataclass(slots=True, init=False)
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
    name: str
    doc: dict[str, Json] | None
    deltas: list[Delta]
    ends: list[tuple[int, Part, int]]
    ends_all: bool
    content: bool
    terminal: bool
    done: bool
    carries: bool
    structural: bool
    whole: bool
    repeats: bool
    error: "ErrorSeen | None"

    def __init__(
        self,
        raw: bytes,
        name: str = "",
        doc: dict[str, Json] | None = None,
        deltas: list[Delta] | None = None,
        ends: list[tuple[int, Part, int]] | None = None,
        ends_all: bool = False,
        content: bool = False,
        terminal: bool = False,
        done: bool = False,
        carries: bool = False,
        structural: bool = False,
        whole: bool = False,
        repeats: bool = False,
        error: "ErrorSeen | None" = None,
    ) -> None:
        self.raw = raw
        self.name = name
        self.doc = doc
        self.deltas = [] if deltas is None else deltas
        self.ends = [] if ends is None else ends
        self.ends_all = ends_all
        self.content = content
        self.terminal = terminal
        self.done = done
        self.carries = carries
        self.structural = structural
        self.whole = whole
        self.repeats = repeats
        self.error = error


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


@dataclass(slots=True, init=False)
class Plan:
    """One attempt, planned: how it is forwarded and what came of the body."""

    level: Level
    outgoing: Outgoing
    model: str | None
    framing: Literal["sse", "claude_frames"]
    usage_injected: bool
    dropped: list[str]

    def __init__(
        self,
        level: Level,
        outgoing: Outgoing,
        model: str | None,
        framing: Literal["sse", "claude_frames"] = "sse",
        usage_injected: bool = False,
        dropped: list[str] | None = None,
    ) -> None:
        self.level = level
        self.outgoing = outgoing
        self.model = model
        self.framing = framing
        self.usage_injected = usage_injected
        self.dropped = [] if dropped is None else dropped


@dataclass(slots=True)
class Refused:
    """This endpoint cannot take this request: `no_credential`, `cannot express <field>`."""

    reason: str
