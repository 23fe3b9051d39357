"""What an answer says as a whole, choice by choice, and streams that are judged by it.

A choice that calls a tool or refuses, and says nothing else, is no answer to be judged.  A stream
that a rule may block for what it is as a whole leaves at its end or not at all; where the rules
only record, it flows.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from proxy.gateway.gates import StreamCalls
from proxy.gateway.intake import LONG_CHARS
from proxy.gateway.stream import Pump
from proxy.gateway.texts import Wrap
from proxy.gateway.turn import Turn
from proxy.guardrails.engine import Guard, Judgement
from proxy.guardrails.placeholders import Restoration
from proxy.guardrails.sampling import ALL
from proxy.model.exchange import Json, Leaf, Part, Seen
from proxy.wire.dialect import StreamReader
from proxy.wire.dialects.lanes import SPEAKING
from proxy.wire.providers.adapter import Framer

MAX_ANSWER_BYTES: Final = 16_777_216  # held of an answer, unless a limit is given
_INSTEAD: Final[frozenset[Part]] = frozenset({"tool_name", "tool_args", "refusal"})


class Spoken:
    """The texts of an answer, by choice."""

    __slots__ = ("_instead", "_texts", "chars")

    def __init__(self, choices: Iterable[int] = ()) -> None:
        self._texts: dict[int, list[str]] = {at: [] for at in choices}
        self._instead: set[int] = set()
        self.chars = 0

    def hear(self, at: int, part: Part, text: str, *, is_text: bool) -> None:
        """A piece of a choice; `is_text`: of what it says."""
        if is_text:
            self._texts.setdefault(at, []).append(text)
            self.chars += len(text)
        elif part in _INSTEAD:
            self._instead.add(at)

    def texts(self) -> list[str]:
        """What each choice says; an answer without any choice says nothing."""
        found = {at: "".join(pieces) for at, pieces in sorted(self._texts.items())}
        if not found and not self._instead:
            return [""]
        return [text for at, text in found.items() if text or at not in self._instead]


def spoken(turn: Turn, doc: dict[str, Json], leaves: Sequence[Leaf]) -> list[str]:
    """What each choice of a whole answer says; nothing where answers are no texts."""
    if turn.exchange.surface.operation not in SPEAKING:
        return []
    choices = doc.get("choices")
    heard = Spoken(range(len(choices)) if isinstance(choices, list) else ())
    for leaf in leaves:
        at, path = 0, leaf.path
        if path[0] == "choices" and len(path) > 1 and isinstance(path[1], int):
            at, path = path[1], path[2:]
            is_text = path == ("text",) or path[:2] == ("message", "content")
        else:
            is_text = path[0] == "content" and path[-1] == "text"
        heard.hear(at, leaf.part, leaf.text, is_text=is_text and leaf.part == "text")
    return heard.texts()


class WholePump(Pump):
    """A `Pump` whose answer is judged as a whole when it has come to its end.

    `joined`: its blocks are parts of one text.  Held (`_holds`), nothing is `released` before; an
    answer of more than `limit` bytes cannot be held, and is blocked."""

    __slots__ = ("_draw", "_guard", "_heard", "_holds", "_joined", "_judged", "_kept",
                 "_limit", "_size")  # fmt: skip

    def __init__(
        self,
        framer: Framer,
        reader: StreamReader,
        guard: Guard,
        draw: float = ALL,
        calls: StreamCalls | None = None,
        restoration: Restoration | None = None,
        wrap: Wrap | None = None,
        *,
        limit: int = MAX_ANSWER_BYTES,
        joined: bool = False,
    ) -> None:
        super().__init__(framer, reader, guard, draw, calls, restoration, wrap)
        self._guard = guard
        self._draw = draw
        self._limit = limit
        self._joined = joined
        self._holds = guard.holds_answers
        self._heard = Spoken()
        self._judged: Judgement | None = None
        self._kept: list[bytes] = []
        self._size = 0

    @property
    def ends_long(self) -> bool:
        return self._framer.pending > 0 or (self._judged is None and self._heard.chars > LONG_CHARS)

    def go_on(self) -> bytes:
        data = super().go_on()
        self.defers = False
        data = self._settled(data)
        self.defers = True
        return data

    def feed(self, chunk: bytes) -> bytes:
        return self._settled(super().feed(chunk))

    def finish(self) -> bytes:
        return self._settled(super().finish())

    def _plain(self, raw: bytes, text: str) -> bytes:
        mould = self.reader.mould
        if mould is not None and not self._queue:  # behind what waits it comes here once more
            self._hear(mould.lane, text)
        return super()._plain(raw, text)

    def _judge(self, seen: Seen, out: list[bytes]) -> None:
        for delta in seen.deltas:
            if delta.stands == "flowing":
                self._hear(delta.lane, delta.text)
        super()._judge(seen, out)

    def _hear(self, lane: tuple[int, Part, int], text: str) -> None:
        at, part, number = lane
        is_text = part == "text" and number == 0
        self._heard.hear(0 if self._joined else at, part, text, is_text=is_text)

    def _settled(self, data: bytes) -> bytes:
        """What may leave of what has left the rules about texts."""
        if self.over and self.terminal and self.blocked is None and self._judged is None:
            self.waits = self.defers and self._heard.chars > LONG_CHARS
            if not self.waits:
                self._conclude(self._guard.judge_whole(self._heard.texts(), self._draw))
        elif self._holds and self._judged is None:
            self._size += len(data)
            if self._size > self._limit:
                self._conclude(self._guard.unjudged("AnswerTooLong"))
        if not self._holds:
            return data
        self._kept.append(data)
        if self._judged is None or self.blocked is not None:
            self.released = False
            if self.blocked is not None:
                self._kept.clear()
            return b""
        self._holds, self.released = False, True
        out = b"".join(self._kept)
        self._kept.clear()
        return out

    def _conclude(self, judged: Judgement) -> None:
        texts = self._texts
        assert texts is not None
        self._judged = judged
        texts.add(judged.results)
        if judged.block is not None and self._holds:
            texts.blocked, texts.message = judged.block, judged.message
            self.over = True
