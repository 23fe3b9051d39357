"""What a dialect can do: the shape of every file of `dialects/`, for unary bodies and streams.

A reader of a stream belongs to one attempt.  It watches; it changes nothing by itself, except that
it *assembles*: with `hold_tools` the fragments of a tool call come as one `Seen` (`whole`) when the
call is complete, its name and id with it; with `hold_reasoning` a signed reasoning block likewise.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from proxy.model.errors import ProxyError
from proxy.model.exchange import Dialect, Json, Leaf, Part, Seen, Usage, WireEvent
from proxy.wire.leaves import Unread
from proxy.wire.mould import Mould

Lane = tuple[int, Part, int]
Object = dict[str, Json]
Flows = Callable[[tuple[str, ...]], bool]


class StreamReader(Protocol):
    """Reads one answer stream and writes what the guard needs to say in it.

    `usage`, `finish_reason`, `model` hold what was seen so far.  `output_bytes` counts the UTF-8
    bytes of all deltas, for an estimate when the stream is cut.  `unknown_events` counts those of a
    type that the dialect does not have (of OpenAI: with neither choices nor usage); their texts are
    judged like all others.  `mould` is that of the last plain piece of text, while one may follow.
    """

    usage: Usage | None
    finish_reason: str | None
    model: str | None
    output_bytes: int
    unknown_events: int
    mould: Mould | None

    def plain(self, raw: bytes) -> str | None:
        """The text of an event that fits the mould: it has been read.  None: `read` it."""
        ...

    def read(self, event: WireEvent) -> list[Seen]:
        """What the event means; several when it completes something that was assembled.

        Raises ValueError when its data does not parse; `structural(event)` then says whether the
        stream can go on without it.
        """
        ...

    def structural(self, event: WireEvent) -> bool: ...

    def render(self, seen: Seen) -> bytes:
        """The bytes of an event whose holders were changed."""
        ...

    def cut(self, seen: Seen) -> bytes:
        """What may leave of an event in which a block fell: its texts, as far as they are left in
        their holders, and nothing that begins or ends anything."""
        ...

    def tail(self, lane: Lane, text: str) -> bytes:
        """A delta event that carries held text of a lane."""
        ...

    def drop(self, seen: Seen) -> None:
        """The assembled block of `seen` is not sent: later blocks are renumbered."""
        ...

    def notice(self, at: int, text: str) -> bytes:
        """A text of our own in that choice, where a block or a call was taken out."""
        ...

    def flush(self) -> list[Seen]:
        """What is still being assembled when the stream ends early or has no closing event."""
        ...

    def blocked_end(self, message: str | None) -> bytes:
        """An orderly end after a block (guardrails.md §9.9), `message` as text before it if set."""
        ...

    def error_end(self, fault: ProxyError, request_id: str) -> bytes:
        """The dialect's in-band error (wire.md §7.5); nothing follows it."""
        ...

    def trailer(self) -> bytes:
        """What the provider left out after the terminal event; empty when nothing is missing."""
        ...


class DialectReader(Protocol):
    """One body grammar, for one request.

    `unread`: characters of the request last looked at that hold no text for us, by reason."""

    name: Dialect
    unread: Mapping[Unread, int]

    def request_leaves(self, doc: Object) -> list[Leaf]:
        """Every text of a request (guardrails.md §7.2).  Raises ValueError: not this dialect."""
        ...

    def answer_leaves(self, doc: Object) -> list[Leaf]:
        """Every text of a unary answer (guardrails.md §7.3)."""
        ...

    def answer_usage(self, doc: Object) -> Usage | None: ...

    def answer_finish(self, doc: Object) -> str | None: ...

    def answer_error(self, doc: Object) -> bool:
        """A 2xx body that is an error object."""
        ...

    def answer_block(
        self,
        message: str | None,
        request_id: str,
        model: str | None,
        *,
        usage: Usage | None = None,
        choices: int = 1,
    ) -> bytes:
        """A whole answer that says no more than that it was blocked (`block_style: finish`), once
        for each of the `choices` that were asked for."""
        ...

    def stream(
        self,
        *,
        hold_tools: bool,
        hold_reasoning: bool,
        want_usage: bool,
        choices: int = 1,
        flows: Flows | None = None,
    ) -> StreamReader:
        """`choices`: how many were asked for; the answer is not whole before they have ended.
        `flows`: which tools' calls come as they are written all the same, by their names."""
        ...


Headers = Mapping[bytes, bytes]
