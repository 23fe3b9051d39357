"""What a test says to the scripted provider: the replies, and which request gets which.

[status(500), ok("Hello.")]                        500 once, then an answer
{"wall": status(503), "*": ok()}                   by model name
ok(pieces=WORDS).cut(after=40)                     FIN after forty words, no end of the body
ok().first_content_after(20).pinging(5)            silence with pings
"""

import gzip
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tests.kit.grammars import Grammar
from tests.kit.reply import Reply, words
from tests.kit.script import (
    Answer,
    Failure,
    Flood,
    Head,
    How,
    Raw,
    Request,
    Send,
    Step,
    ToolCall,
    Usage,
    Verbatim,
)

PIECES = ("Hello", " from", " the", " fake", " provider", ".")
TEXT = "".join(PIECES)
_USAGE = Usage()


def ok(
    text: str | None = None,
    *,
    pieces: Sequence[str] | None = None,
    tools: Sequence[ToolCall] = (),
    thinking: Sequence[str] = (),
    usage: Usage | None = _USAGE,
    stop: str | None = None,
    model: str | None = None,
) -> Reply:
    """An answer: `text` in words, or `pieces` as they are; with neither and no tools, `TEXT`."""
    if pieces is None:
        pieces = () if text is None and tools else PIECES if text is None else words(text)
    return Reply(Answer(tuple(pieces), tuple(tools), tuple(thinking), usage, stop, model))


def status(
    code: int,
    error_type: str = "",
    *,
    message: str = "scripted",
    error_code: str | None = None,
    **headers: str,
) -> Reply:
    """An error in the dialect's shape: `status(429, retry_after="2")`."""
    return Reply(Failure(code, error_type, message, error_code)).with_headers(**headers)


def raw(body: bytes, content_type: str = "application/json", code: int = 200) -> Reply:
    """Any body, well framed."""
    return Reply(Raw(body, content_type, code))


def html(code: int = 502) -> Reply:
    """What a load balancer in front of the provider says."""
    return raw(b"<html><body><h1>Bad gateway</h1></body></html>", "text/html", code)


def verbatim(data: bytes, how: How = "fin") -> Reply:
    """Bytes for the socket as they stand: a bad status line, half a head."""
    return Reply(Verbatim(data, how))


def silence() -> Reply:
    """Takes the request and says nothing until the client goes."""
    return verbatim(b"", "silence")


def reset() -> Reply:
    """RST instead of headers."""
    return verbatim(b"", "rst")


def hang_up() -> Reply:
    """FIN instead of headers."""
    return verbatim(b"", "fin")


def empty(code: int = 200) -> Reply:
    """A body of no bytes at all."""
    return raw(b"", code=code)


def half_json() -> Reply:
    """A whole body that holds half a document."""
    return raw(b'{"id": "half", "choices": [{"index": 0, "message": {"role": "assis')


def endless_headers() -> Reply:
    """A head that never ends."""

    def edit(_: list[Step], __: Grammar) -> list[Step]:
        line = b"x-more: " + b"m" * 1000 + b"\r\n"
        return [Send(b"HTTP/1.1 200 OK\r\n"), Flood(line, None)]

    return replace(verbatim(b""), edits=(edit,))


def gzip_bomb(total_bytes: int = 100_000_000) -> Reply:
    """A small body that grows to `total_bytes` of spaces."""
    return raw(gzip.compress(b" " * total_bytes, 1)).with_headers(content_encoding="gzip")


def huge(total_bytes: int = 100_000_000) -> Reply:
    """A right answer of that size, made while it is sent: one long text, or many pieces of it."""
    mark, filler = "@@filler@@", b"x" * 16_384

    def edit(steps: list[Step], _: Grammar) -> list[Step]:
        found = list[Step]()
        for step in steps:
            if isinstance(step, Head) and step.length is not None:
                sent = -(-total_bytes // len(filler)) * len(filler)
                found.append(replace(step, length=step.length - len(mark) + sent))
            elif isinstance(step, Send) and mark.encode() in step.data and _is_whole(steps):
                before, behind = step.data.split(mark.encode())
                found += [Send(before), Flood(filler, total_bytes), Send(behind)]
            elif isinstance(step, Send) and step.kind == "content":
                found.append(Flood(step.data, total_bytes))
            else:
                found.append(step)
        return found

    return replace(ok(pieces=[mark]), edits=(edit,))


def _is_whole(steps: list[Step]) -> bool:
    return not any(isinstance(step, Send) and step.kind == "end" for step in steps)


Rule = Callable[[Request], Reply]
Script = Reply | Sequence[Reply] | Rule
"""One reply for all; replies in order, the last for ever; or a function of the request."""


def for_seconds(seconds: float, first: Reply, then: Reply) -> Rule:
    """`first` until that long after the first request, then `then`: an outage that heals."""
    began: list[float] = []

    def rule(request: Request) -> Reply:
        began.append(request.at)
        return first if time.monotonic() - began[0] < seconds else then

    return rule


class Casting:
    """Gives each request its reply.  A mapping goes by model name, `"*"` for all others."""

    def __init__(self, script: Script | Mapping[str, Script]) -> None:
        self._by_model = script if isinstance(script, Mapping) else {"*": script}
        self._taken: dict[str, int] = {}

    def reply(self, model: str, request: Request) -> Reply:
        name = model if model in self._by_model else "*"
        script = self._by_model.get(name)
        if script is None:
            return status(404, message=f"no such model: {model}", error_code="model_not_found")
        if isinstance(script, Reply):
            return script
        if not isinstance(script, Sequence):
            return script(request)
        taken = self._taken.get(name, 0)
        self._taken[name] = taken + 1
        return script[min(taken, len(script) - 1)]
