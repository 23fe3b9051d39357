"""One reply of the scripted provider: what is answered, and everything that goes wrong with it.

A reply is a value; each method gives a new one with one more fault, and faults combine.  `after`
counts pieces of content (text, reasoning and tool-call events): `after=0` is before the first.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

from tests.kit.grammars import Grammar
from tests.kit.script import (
    Answer,
    Failure,
    Finish,
    Flood,
    Head,
    Headers,
    How,
    Raw,
    Request,
    Send,
    Step,
    Verbatim,
    Wait,
)

Prefill = Literal["ignored", "exact", "spaced", "refused"]
Framing = Literal["auto", "chunked", "length", "close"]
Edit = Callable[[list[Step], Grammar], list[Step]]


@dataclass(frozen=True)
class Wire:
    """How the bytes of the answer are put on the socket."""

    framing: Framing = "auto"
    declared_length: int | None = None
    piece_bytes: int | None = None
    trickle_every_s: float = 0.0
    gzipped: bool = False
    afterwards: bytes = b""
    interim: int | None = None
    keep_alive: bool = True


@dataclass(frozen=True)
class Reply:
    """One answer to one request, with its faults in the order in which they were added."""

    content: Answer | Failure | Raw | Verbatim
    headers: Headers = ()
    edits: tuple[Edit, ...] = ()
    wire: Wire = Wire()
    prefill: Prefill = "ignored"

    # --- in front of the answer

    def with_headers(self, **named: str) -> Self:
        """Adds headers: `with_headers(retry_after="2")`."""
        more = tuple((name.replace("_", "-"), value) for name, value in named.items())
        return replace(self, headers=self.headers + more)

    def after(self, seconds: float) -> Self:
        """Waits before the headers."""
        return self._edited(lambda steps, _: [Wait(seconds), *steps])

    def silent(self) -> Self:
        """Headers, then nothing until the client goes."""
        return self._edited(lambda steps, _: [*_heads(steps), Finish("silence")])

    def interim(self, status: int = 103) -> Self:
        """An informational answer comes first."""
        return replace(self, wire=replace(self.wire, interim=status))

    # --- the pace of the content

    def first_content_after(self, seconds: float) -> Self:
        """Headers and opening events at once, the first content later."""
        return self.pause(seconds, after=0)

    def first_event_after(self, seconds: float) -> Self:
        """Headers at once, the first event later."""

        def edit(steps: list[Step], _: Grammar) -> list[Step]:
            front = len(_heads(steps))
            return [*steps[:front], Wait(seconds), *steps[front:]]

        return self._edited(edit)

    def paced(self, seconds: float) -> Self:
        """Waits between the pieces of content."""

        def edit(steps: list[Step], _: Grammar) -> list[Step]:
            found, seen = list[Step](), 0
            for step in steps:
                if isinstance(step, Send) and step.kind == "content":
                    found += [Wait(seconds)] if seen else []
                    seen += 1
                found.append(step)
            return found

        return self._edited(edit)

    def pause(self, seconds: float, *, after: int) -> Self:
        """Waits once, and then goes on."""
        return self._edited(lambda steps, _: _inserted(steps, after, Wait(seconds)))

    def pinging(self, every_s: float) -> Self:
        """Every wait of the body so far sends the dialect's keep-alives meanwhile."""

        def edit(steps: list[Step], _: Grammar) -> list[Step]:
            front = len(_heads(steps))
            return steps[:front] + [
                replace(step, every_s=every_s) if isinstance(step, Wait) else step
                for step in steps[front:]
            ]

        return self._edited(edit)

    def keepalives(self, every_s: float, data: bytes | None = None, *, after: int = 0) -> Self:
        """Nothing but keep-alives from there on, for ever.  None: the dialect's own."""

        def edit(steps: list[Step], grammar: Grammar) -> list[Step]:
            return [*_until(steps, after), Flood(data or grammar.ping(), None, every_s)]

        return self._edited(edit)

    # --- the end of the answer

    def cut(self, *, after: int, how: How = "fin") -> Self:
        """Ends after that many pieces: the rest and the end of the body never come."""
        return self._edited(lambda steps, _: [*_until(steps, after), Finish(how)])

    def cut_bytes(self, count: int, how: How = "fin") -> Self:
        """Ends after that many bytes of the body, inside a chunk where it must be.  A body that has
        no more stays whole."""

        def edit(steps: list[Step], _: Grammar) -> list[Step]:
            if count >= sum(len(step.data) for step in steps if isinstance(step, Send)):
                return steps
            return [*_first_bytes(steps, count), Finish(how)]

        return self._edited(edit)

    def cut_inside(self, *, after: int, how: How = "fin") -> Self:
        """Ends in the middle of the event that follows that many pieces."""

        def edit(steps: list[Step], _: Grammar) -> list[Step]:
            before, behind = _until(steps, after), steps[_place(steps, after) :]
            event = next((step for step in behind if isinstance(step, Send)), Send(b""))
            part = Send(event.data[: len(event.data) // 2], event.kind, of=len(event.data))
            return [*before, part, Finish(how)]

        return self._edited(edit)

    def unterminated(self) -> Self:
        """Everything is sent but the end of the body."""
        return self._edited(lambda steps, _: [*steps, Finish("unterminated")])

    def truncated(self, *, after: int) -> Self:
        """Stops after that many pieces; the body ends in good order."""
        return self.cut(after=after, how="clean")

    def without_trailer(self) -> Self:
        """Leaves out what follows the terminal event: `[DONE]`, `message_stop`."""

        def edit(steps: list[Step], _: Grammar) -> list[Step]:
            return [s for s in steps if not (isinstance(s, Send) and s.kind == "trailer")]

        return self._edited(edit)

    def stall(self, *, after: int, seconds: float | None = None) -> Self:
        """Falls silent after that many pieces, and closes when the time is over."""

        def edit(steps: list[Step], _: Grammar) -> list[Step]:
            return [*_until(steps, after), Wait(seconds), Finish("fin")]

        return self._edited(edit)

    def error_after(
        self, after: int, error_type: str = "", *, status: int = 500, message: str = "scripted"
    ) -> Self:
        """The dialect's in-band error after that many pieces; then the body ends."""

        def edit(steps: list[Step], grammar: Grammar) -> list[Step]:
            told = grammar.in_band(Failure(status, error_type, message))
            return [*_until(steps, after), Send(told), Finish("clean")]

        return self._edited(edit)

    # --- spoilt events

    def extra(self, data: bytes, *, after: int) -> Self:
        """Bytes of one's own between the events."""
        return self._edited(lambda steps, _: _inserted(steps, after, Send(data)))

    def bad_json(self, *, after: int, structural: bool = False) -> Self:
        """One extra event that does not parse.  `structural`: not a delta; a broken message."""
        return self._spoilt(b'{"broken": ', after, structural=structural)

    def bad_utf8(self, *, after: int) -> Self:
        """One extra event that is not UTF-8."""
        return self._spoilt(b'{"delta": "\xff\xfe\xc3"}', after, structural=False)

    # --- bytes

    def framed(self, framing: Framing) -> Self:
        """How the body is delimited: by chunks, by its length, by the end of the connection."""
        return replace(self, wire=replace(self.wire, framing=framing))

    def claiming_length(self, count: int) -> Self:
        """content-length says `count`, whatever is sent."""
        return replace(self, wire=replace(self.wire, framing="length", declared_length=count))

    def in_pieces(self, count: int, every_s: float = 0.0) -> Self:
        """At most `count` bytes at a time, each in a chunk of its own where there are chunks."""
        return replace(self, wire=replace(self.wire, piece_bytes=count, trickle_every_s=every_s))

    def gzipped(self) -> Self:
        """Compressed, whatever the request asked for."""
        return replace(self, wire=replace(self.wire, gzipped=True))

    def followed_by(self, data: bytes) -> Self:
        """Bytes that nobody asked for, behind the answer."""
        return replace(self, wire=replace(self.wire, afterwards=data))

    def closing(self) -> Self:
        """`connection: close`."""
        return replace(self, wire=replace(self.wire, keep_alive=False))

    def continuing(self, prefill: Prefill) -> Self:
        """What a trailing assistant message in the request does."""
        return replace(self, prefill=prefill)

    # --- played

    def steps(self, grammar: Grammar, request: Request) -> list[Step]:
        """The whole answer, step by step."""
        steps = self._plain(grammar, request)
        for edit in self.edits:
            steps = edit(steps, grammar)
        return steps

    def _plain(self, grammar: Grammar, request: Request) -> list[Step]:
        match self._continued(request):
            case Verbatim(data, how):
                return [Send(data), Finish(how)]
            case Raw(body, content_type, status):
                return self._whole(status, (("content-type", content_type),), body)
            case Failure() as failure:
                headers, body = grammar.failure(failure, request)
                return self._whole(failure.status, (_JSON, *headers), body)
            case Answer() as answer:
                headers = grammar.headers(answer, request)
                if not grammar.streamed(request):
                    return self._whole(200, (_JSON, *headers), grammar.whole(answer, request))
                typed = ("content-type", grammar.stream_type)
                head = Head(200, (typed, *headers, *self.headers), None)
                return [head, *grammar.frames(answer, request)]

    def _whole(self, status: int, headers: Headers, body: bytes) -> list[Step]:
        body = gzip.compress(body) if self.wire.gzipped else body
        return [Head(status, headers + self.headers, len(body)), Send(body, "content")]

    def _continued(self, request: Request) -> Answer | Failure | Raw | Verbatim:
        """The content, less what the request's trailing assistant message holds already."""
        given, said = self.content, request.prefill
        if not isinstance(given, Answer) or said is None or self.prefill == "ignored":
            return given
        if self.prefill == "refused":
            return Failure(400, message="This model does not support assistant message prefill.")
        rest = given.text[len(said) :]
        if self.prefill == "spaced":
            rest = " " + rest.lstrip(" ")
        return replace(given, pieces=words(rest))

    def _spoilt(self, data: bytes, after: int, *, structural: bool) -> Self:
        def edit(steps: list[Step], grammar: Grammar) -> list[Step]:
            return _inserted(steps, after, Send(grammar.spoilt(data, structural=structural)))

        return self._edited(edit)

    def _edited(self, edit: Edit) -> Self:
        return replace(self, edits=(*self.edits, edit))


_JSON = ("content-type", "application/json")


def words(text: str) -> tuple[str, ...]:
    """The text in words, each with the space before it."""
    first, *rest = text.split(" ")
    return tuple(piece for piece in (first, *(" " + word for word in rest)) if piece)


def _place(steps: list[Step], after: int) -> int:
    """The index behind that many pieces of content: `after=0` is in front of the first."""
    content = [i for i, s in enumerate(steps) if isinstance(s, Send) and s.kind == "content"]
    if not content:
        return len(steps)
    return content[0] if after == 0 else content[min(after, len(content)) - 1] + 1


def _until(steps: list[Step], after: int) -> list[Step]:
    return steps[: _place(steps, after)]


def _inserted(steps: list[Step], after: int, step: Step) -> list[Step]:
    place = _place(steps, after)
    return [*steps[:place], step, *steps[place:]]


def _heads(steps: list[Step]) -> list[Step]:
    """Up to the headers."""
    places = [i for i, step in enumerate(steps) if isinstance(step, Head)]
    return steps[: places[0] + 1] if places else []


def _first_bytes(steps: list[Step], count: int) -> list[Step]:
    found = list[Step]()
    for step in steps:
        if isinstance(step, Send):
            if count <= len(step.data):
                part = Send(step.data[:count], step.kind, of=len(step.data))
                return [*found, part] if count else found
            count -= len(step.data)
        found.append(step)
    return found
