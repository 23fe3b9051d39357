"""What of a stream has come in and was not taken yet: half an event, and long texts put off."""

from typing import Final

from proxy.gateway.account import Account
from proxy.gateway.texts import Texts
from proxy.model.exchange import Seen, WireEvent
from proxy.wire.providers.adapter import Framer

LONG_CHARS: Final = 4096


class Intake(Account):
    """`defers`: what reads the events stops before a long text that was put together, so that it
    may be taken beside the loop.  `waits`: it has."""

    __slots__ = ("_framer", "_left", "_left_seens", "defers", "waits")

    def __init__(self, texts: Texts | None, framer: Framer) -> None:
        super().__init__(texts)
        self._framer = framer
        self._left: list[WireEvent] = []  # behind `_left_seens`
        self._left_seens: list[Seen] = []
        self.defers = self.waits = False

    @property
    def pending(self) -> int:
        """Bytes that came and are no event yet."""
        return self._framer.pending

    @property
    def ends_long(self) -> bool:
        """What is to be done at the end may take long."""
        return self._framer.pending > 0


def is_long(seens: list[Seen]) -> bool:
    """Whether so much was put together that it takes long to judge it."""
    if not seens or not seens[0].whole:
        return False
    chars = 0
    for seen in seens:
        for delta in seen.deltas:
            chars += len(delta.text)
    return chars > LONG_CHARS
