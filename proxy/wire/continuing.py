"""What each dialect must know so that two streams can be one: what of the first the caller has, the
request that goes on with it, and the second's events as they fit behind it (failover.md §10.3)."""

from collections.abc import Mapping
from typing import Final, Protocol

from proxy.model.exchange import Operation
from proxy.model.recovery import Asked, Misfit, Released, Seam
from proxy.wire.dialect import Object
from proxy.wire.dialects.anthropic_continued import MessagesContinued
from proxy.wire.dialects.openai_continued import ChatContinued


class Joiner(Protocol):
    """Makes whole events of a second stream fit behind the first.  `fault`: they do not; nothing
    of them has come out that the caller would see as an answer."""

    @property
    def fault(self) -> Misfit: ...
    def feed(self, data: bytes) -> bytes: ...
    def release(self) -> None:
        """All that comes now is new."""
        ...


class Told(Protocol):
    """What the caller has, read from the bytes that were written to him."""

    @property
    def released(self) -> Released: ...
    def joiner(self, seam: Seam, more_tokens: int) -> Joiner:
        """`more_tokens`: what the usage of the second stream does not hold."""
        ...


class Continued(Protocol):
    """One dialect."""

    def asked(self, doc: Object) -> Asked: ...
    def told(self, data: bytes) -> Told: ...
    def going_on(self, body: bytes, doc: Object, text: str, limit_less: int) -> bytes:
        """The request of which the answer goes on with `text`: a trailing message of the assistant.
        Its output limit is less by so many tokens."""
        ...


_CONTINUED: Final[Mapping[Operation, Continued]] = {
    "chat": ChatContinued(),
    "messages": MessagesContinued(),
}


def continued_of(operation: Operation) -> Continued | None:
    """None: streams of that kind are never continued."""
    return _CONTINUED.get(operation)
