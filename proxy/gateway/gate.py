"""A stream before checks outside: its events wait here until every check has let their texts go.

    chunk -> ear (which texts?) -> questions ...
          -> queue ... verdict -> pump -> caller

Stages `buffer` (the whole text), `window` (stretches that overlap) and `post` (nothing waits; the
texts are kept for the end).  What is let go goes through the pump as if it came just now, so the
route's own rules hold what they hold: a character leaves when both have let it go.

Laws: nothing passes unasked; a check that fails is a verdict; what waits is bounded; when the
answer fails or the caller leaves, what waits is thrown away and every call ends.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from proxy.gateway.asking import Answer, Asking
from proxy.gateway.checks import Checks, sampled
from proxy.gateway.heard import Ear, Mark, Progress, Text, Window
from proxy.gateway.outside import last_said
from proxy.gateway.turn import Gateway, Turn
from proxy.gateway.waiting import LaneKey
from proxy.guardrails.checks.external.words import Asker, Opinion, Question
from proxy.guardrails.engine import Judgement
from proxy.guardrails.external import ExternalRule
from proxy.guardrails.matching import Break
from proxy.guardrails.outside import Verdicts
from proxy.guardrails.spans import SpanLane
from proxy.guardrails.stream import Lane
from proxy.model.exchange import Leaf
from proxy.wire.dialect import StreamReader
from proxy.wire.providers.adapter import Framer

TEXTS: Final = 10_000  # of one answer


class Gate:
    """`pour` takes what is let go, `close` is told when all has been poured and nothing more comes,
    `stop` when a check has blocked."""

    __slots__ = (
        "_again", "_asker", "_askings", "_before", "_bytes", "_checks", "_close", "_ended",
        "_gateway", "_going", "_guard", "_lanes", "_limit", "_over", "_pour", "_queue", "_scanned",
        "_stop", "_told", "_took", "_turn", "_verdicts", "ear", "too_long",
    )  # fmt: skip

    def __init__(
        self,
        checks: Checks,
        turn: Turn,
        gateway: Gateway,
        framer: Framer,
        reader: StreamReader,
        limit_bytes: int,
        pour: Callable[[bytes], None],
        close: Callable[[], None],
        stop: Callable[[Judgement], None],
    ) -> None:
        guard = turn.route.guard
        assert guard is not None, "checks are rules of a guard"
        self._checks = checks
        self._turn = turn
        self._gateway = gateway
        self._guard = guard
        self._limit = limit_bytes
        self._pour = pour
        self._close = close
        self._stop = stop
        self.ear = Ear(framer, reader, checks.holding, keep=bool(sampled(checks.post, turn.draw)))
        self._verdicts = Verdicts(guard, "response", turn.draw)
        self._asker = Asker(turn.route.doc.id, turn.record.request_id)
        self._before: str | None = None
        self._queue: deque[tuple[bytes, list[Mark]]] = deque()
        self._bytes = 0
        self._lanes: dict[LaneKey, SpanLane] = {}
        self._askings: set[Asking] = set()
        self._ended = self._over = self._told = False
        self._going = self._again = False
        self._scanned = 0  # characters at which no other rule looks
        self._took: dict[tuple[str, str], float] = {}  # seconds, by rule
        self.too_long = False  # for those that are asked at the end

    def __repr__(self) -> str:
        return f"<Gate {len(self._queue)} waiting, {len(self._askings)} asked>"

    # --- what comes

    @property
    def over(self) -> bool:
        """Nothing more is let in."""
        return self._over

    def hear(self, chunk: bytes) -> list[Mark]:
        """What a piece needs to be let go.  It touches the ear alone."""
        return [] if self.too_long or self._over else self.ear.feed(chunk)

    def take(self, chunk: bytes, marks: list[Mark]) -> None:
        """A piece that was heard."""
        if self._over:
            return
        self._bytes += len(chunk)
        overflows = self._bytes > self._limit and not self.too_long
        if not self._checks.holding or self.too_long:
            self.too_long = self.too_long or overflows
            self._pour(chunk)
            return
        self._queue.append((chunk, marks))
        if overflows:
            self._give_up("too_large")
        else:
            self._go_on()

    def end(self) -> None:
        """The body has ended in good order."""
        if self._over:
            return
        self._ended = True
        self.ear.end()
        self._go_on()

    def cancel(self) -> None:
        """What waits is thrown away."""
        self._over = True
        self._queue.clear()
        for asking in list(self._askings):
            asking.cancel()
        self._askings.clear()

    def wrap(self, key: LaneKey, lane: Lane | None) -> Lane | None:
        """Around the lane of a text that checks may rewrite."""
        found = self._lane(key)
        found.around(lane)
        return found

    def _lane(self, key: LaneKey) -> SpanLane:
        found = self._lanes.get(key)
        if found is None:
            # whoever is first: the pump may be at work beside the loop
            found = self._lanes.setdefault(key, self._guard.span_lane(key[1]))
        return found

    # --- what is asked

    def _go_on(self) -> None:
        """Ask what is due, let go what may; answers that are known come while we are at it."""
        self._again = True
        if self._going:
            return
        self._going = True
        while self._again and not self._over:
            self._again = False
            self._ask_what_is_due()
            if not self._over:
                self._let_go()
        self._going = False

    def _ask_what_is_due(self) -> None:
        open_texts: list[Text] = []
        for text in self.ear.texts:
            for progress in text.progress:
                for window in text.due(progress):
                    if not self._over:
                        self._ask(text, progress, window)
            if not text.ended or text.cleared < text.chars or text.whole is not None:
                open_texts.append(text)
        self.ear.texts = open_texts
        if len(open_texts) > TEXTS and not self._over:
            self._give_up("too_many_texts")

    def _ask(self, text: Text, progress: Progress, window: Window) -> None:
        leaf = window.leaf
        if not leaf.text.strip():
            window.answered = True
            progress.settle()
            return
        before = self._asked_before(progress)
        question = Question(leaf.text, "response", leaf.part, leaf.role, before)

        def done(asking: Asking) -> None:
            self._askings.discard(asking)
            rule = progress.check.rule
            key = rule.pack.policy_id, rule.rule_id
            self._took[key] = self._took.get(key, 0.0) + asking.elapsed_s
            if not self._over:
                answer = asking.answers[0]
                self._answered(text, progress, window, answer or Break("cancelled"))

        asking = Asking(progress.check, [question], self._asker, self._gateway, done)
        self._askings.add(asking)
        asking.start()

    def _asked_before(self, progress: Progress) -> str:
        if progress.check.rule.adapter.name != "llama_guard":
            return ""
        if self._before is None:
            self._before = last_said(self._turn)
        return self._before

    # --- what is said

    def _answered(self, text: Text, progress: Progress, window: Window, answer: Answer) -> None:
        rule, leaf = progress.check.rule, window.leaf
        if isinstance(answer, Break):
            self._verdicts.broke(rule, leaf, answer.fault)
        else:
            if not self._guard.looks_at(leaf, "response"):
                self._scanned += window.own
            answer = _owned(rule, window, answer)
            if answer.spots:
                self._verdicts.said(rule, leaf, answer, window.start)
                self._cut(text, window, leaf)
        window.answered = True
        progress.settle()
        judged = self._concluded()
        if judged.block is not None:
            self._block(judged)
        else:
            self._go_on()

    def _cut(self, text: Text, window: Window, leaf: Leaf) -> None:
        if text.key is None or not leaf.rewritable:
            return
        edits = self._verdicts.edits(leaf)
        if not edits:
            return
        lane = self._lane(text.key)
        for edit in edits:
            lane.cut(window.start + edit.start, window.start + edit.end, edit.replacement)

    def _let_go(self) -> None:
        while self._queue and not self._over:
            chunk, marks = self._queue[0]
            if any(text.cleared < upto for text, upto in marks):
                return
            self._queue.popleft()
            self._bytes -= len(chunk)
            self._pour(chunk)
        if self._ended and not self._queue and not self._over:
            self._over = True
            self._close()

    def _give_up(self, fault: str) -> None:
        """More than may wait: the checks cannot be made, and `on_error` says what that means."""
        for check in self._checks.holding:
            self._verdicts.broke(check.rule, Leaf("", "text", "assistant", ()), fault)
        judged = self._concluded()
        if judged.block is not None:
            self._block(judged)
            return
        self.too_long = True
        for asking in list(self._askings):
            asking.cancel()
        self._askings.clear()
        while self._queue:
            self._pour(self._queue.popleft()[0])
        if self._ended:
            self._over = True
            self._close()

    def _block(self, judged: Judgement) -> None:
        self.cancel()
        self._told = True
        self._stop(judged)

    def _concluded(self) -> Judgement:
        judged = self._verdicts.concluded()
        judged.scanned_chars = self._scanned
        for result in judged.results:
            took_s = self._took.get((result.policy_id, result.rule_matched or ""), 0.0)
            result.elapsed_us = int(took_s * 1_000_000)
        return judged

    # --- afterwards

    def untold(self) -> Judgement | None:
        """Everything that was found; None when it has been told."""
        told, self._told = self._told, True
        return None if told else self._concluded()

    def leaves(self) -> list[Leaf]:
        """The texts of the whole answer, for the checks that are asked afterwards."""
        return [
            Leaf("".join(text.whole), text.part, "assistant", (), text.inner)
            for text in self.ear.texts
            if text.whole
        ]


def _owned(rule: ExternalRule, window: Window, opinion: Opinion) -> Opinion:
    """What a window has to say: a rewrite that begins where the next window looks, too, is told by
    that one, for it sees more of it.  A block falls at once."""
    later = window.own < len(window.leaf.text)
    if not later:
        return opinion if window.start == 0 else replace(opinion, rewritten=None)
    spots = [
        spot
        for spot in opinion.spots
        if spot.start < window.own or opinion.stops or rule.on(spot.category).action == "block"
    ]
    return replace(opinion, spots=tuple(spots), rewritten=None)
