"""Which provider is asked, and what each of them can write.

`frames` names the part that each event plays (`start`, `content`, `end`, `trailer`), so that a
fault can be put "after the second piece" in any dialect.  `refuse` says what the real provider
would not take.
"""

from typing import Protocol

from tests.kit.anthropic_answers import CountTokens, Invoke, Messages
from tests.kit.openai_answers import Chat, Completions, Embeddings, Models
from tests.kit.script import Answer, Failure, Headers, Request, Send


class Grammar(Protocol):
    """What one kind of provider writes."""

    stream_type: str

    def model(self, request: Request) -> str: ...
    def streamed(self, request: Request) -> bool: ...
    def refuse(self, request: Request) -> Failure | None: ...
    def whole(self, answer: Answer, request: Request) -> bytes: ...
    def frames(self, answer: Answer, request: Request) -> list[Send]: ...
    def headers(self, answer: Answer, request: Request) -> Headers: ...
    def failure(self, failure: Failure, request: Request) -> tuple[Headers, bytes]: ...
    def in_band(self, failure: Failure) -> bytes: ...
    def ping(self) -> bytes: ...
    def spoilt(self, data: bytes, *, structural: bool) -> bytes:
        """An event of the stream whose data is `data`, whatever that is."""
        ...


def grammar_of(request: Request) -> Grammar | None:
    """Who is asked, by the end of the path; None where no provider serves anything."""
    path, post = request.path, request.method == "POST"
    if request.method == "GET" and (path.endswith("/models") or "/models/" in path):
        return Models()
    for tail, grammar in _TAILS:
        if post and path.endswith(tail):
            return grammar()
    return None


_TAILS: tuple[tuple[str, type[Chat | Completions | Embeddings | Messages]], ...] = (
    ("/chat/completions", Chat),
    ("/completions", Completions),
    ("/embeddings", Embeddings),
    ("/messages/count_tokens", CountTokens),
    ("/messages", Messages),
    ("/invoke", Invoke),
    ("/invoke-with-response-stream", Invoke),
)
