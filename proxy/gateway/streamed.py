"""The state of one attempt's answer, and what is done with one that is a stream.

    data -> backlog -> gate -> backlog -> pump -> caller

The gate is there where checks outside look at answers, the backlogs where any rule does.  `decided`
is set once: begun, complete, or failed.  `finished` is set when nothing more will come.
"""

import asyncio
from bisect import bisect_left
from functools import partial
from typing import Final

from proxy.gateway.backlog import Backlog, Brake, Station, Then
from proxy.gateway.coding import Decoder
from proxy.gateway.gate import Gate
from proxy.gateway.going import GoingOn
from proxy.gateway.opening import open_ear, open_pump
from proxy.gateway.snapshot import EndpointView
from proxy.gateway.stream import Pump
from proxy.gateway.threshold import Threshold
from proxy.gateway.turn import Gateway, Turn
from proxy.gateway.way import Way
from proxy.guardrails.engine import Judgement
from proxy.guardrails.placeholders import Restoration
from proxy.model.exchange import Json, Plan, RawHeaders
from proxy.model.observations import StreamRecovery
from proxy.model.ports import Call, Clock, Outflow, TransportFault
from proxy.model.records import HELD_BOUNDS

HOLD_BYTES: Final = 4 * 1024 * 1024
TRAILER_S: Final = 1.0


class Streamed:
    """The state of an answer, its streams and its ends; `Answer` is the rest of it."""

    __slots__ = (
        "_attached", "_backlog", "_brake", "_clock", "_coming", "_decoder", "_gateway",
        "_going_on", "_held", "_limit", "_room", "_threshold", "_turn", "bad", "body", "buffers",
        "call", "candidate",
        "complete", "decided", "doc", "fault", "finished", "first_content_at", "gate", "guard_s",
        "headers", "held_counts", "is_read", "mode", "plan", "pump", "restoration", "size",
        "started", "status", "too_big", "way",
    )  # fmt: skip

    def __init__(
        self,
        turn: Turn,
        candidate: EndpointView,
        plan: Plan,
        gateway: Gateway,
        limit_bytes: int,
        going_on: GoingOn | None = None,
    ) -> None:
        self._turn = turn
        self._gateway = gateway
        self._clock: Clock = gateway.clock
        self._limit = limit_bytes if turn.guarded else HOLD_BYTES
        self.candidate = candidate
        self.plan = plan
        self._held: list[bytes] = []
        self._attached: Outflow | None = None
        self._decoder: Decoder | None = None
        self._coming: Backlog | None = None  # before the gate
        self._backlog: Backlog | None = None  # before the pump of a guarded stream
        self._brake: Brake | None = None
        self._threshold: Threshold | None = None
        loop = asyncio.get_running_loop()
        self.decided: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] | None = None
        self.call: Call | None = None
        self.started = self._clock.monotonic()
        self.first_content_at = 0.0
        self.guard_s = 0.0  # what a guarded stream took here
        self.held_counts: list[int] | None = None  # see RequestRecord
        self.mode = 0
        self.status = 0
        self.headers: RawHeaders = []
        self.body = b""
        self.size = 0
        self.pump: Pump | None = None
        self.gate: Gate | None = None  # before the pump, where checks outside look at answers
        self.restoration: Restoration | None = None
        self._going_on = going_on
        self._room = HOLD_BYTES  # for a stream that is buffered
        self.buffers = turn.buffers
        if going_on is not None and going_on.restoration is not None:
            self.restoration = going_on.restoration
        elif turn.placeholders is not None:
            self.restoration = turn.placeholders.restoration()
        self.fault: TransportFault | None = None
        self.complete = False
        self.too_big = False
        self.bad = ""  # why a 2xx answer cannot be used
        self.doc: dict[str, Json] | None = None  # the parse of a whole unary body
        self.is_read = False  # and it was tried
        self.way: Way | None = None  # on which the request came to it

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.complete or self.fault is not None or bool(self.bad) or self.too_big

    # --- in

    def _open_stream(self) -> None:
        turn, checks, wrap = self._turn, self._turn.route.checks, None
        if turn.guarded:
            self.held_counts = [0] * (len(HELD_BOUNDS) + 2)
            if checks is not None and checks.of_answers:
                gate = self.gate = Gate(
                    checks,
                    turn,
                    self._gateway,
                    *open_ear(turn, self.candidate, self.plan, self.restoration),
                    self._limit,
                    pour=self._stream,
                    close=self._end_stream,
                    stop=self._stop_stream,
                )
                wrap = gate.wrap if checks.holding else None
        self.pump = open_pump(
            turn, self.candidate, self.plan, self.restoration, self._limit, wrap, self._going_on
        )
        if turn.guarded and self.call is not None:
            self.pump.defers = True
            self._brake = Brake(self.call)
            self._backlog = self._before(self)
            if self.gate is not None:
                self._threshold = Threshold(self.gate, self._alive, self._cut)
                self._coming = self._before(self._threshold)

    def _before(self, station: Station) -> Backlog:
        assert self._brake is not None
        off_loop = self._gateway.off_loop
        return Backlog(station, self._brake, self._clock, off_loop, self._crashed)

    def _come(self, coming: Backlog, chunk: bytes) -> None:
        """What comes waits before the gate."""
        threshold = self._threshold
        assert threshold is not None
        if coming.lets_by(chunk, threshold.pending, self._clock.monotonic()):
            if not threshold.feed(chunk):
                coming.begin()
            coming.last = self._clock.monotonic()

    def _alive(self) -> None:
        """Texts have come: the endpoint is alive, though they may wait."""
        if not self.over:
            self._idle_from(self._clock.monotonic())

    def _end_stream(self) -> None:
        """The body is over."""
        if self._backlog is None or self._backlog.lets_by(None):
            self.look(None)()

    def _stop_stream(self, judged: Judgement) -> None:
        """A check outside has blocked."""
        if self.call is not None:
            self.call.cancel()
        if self._backlog is None or self._backlog.lets_by(judged):
            self.settle(judged)

    def _stream(self, chunk: bytes) -> None:
        pump, backlog, counts = self.pump, self._backlog, self.held_counts
        assert pump is not None
        if backlog is None or counts is None:
            before = pump.progress
            self._looked_at(pump.feed(chunk), before)
            return
        began = self._clock.monotonic()
        if backlog.lets_by(chunk, pump.pending, began):
            before = pump.progress
            self._looked_at(self._watched(pump, chunk, counts, began), before)

    def _looked_at(self, data: bytes, before: int) -> None:
        """Send what may leave; `before`: the pump's progress."""
        pump = self.pump
        assert pump is not None
        if pump.progress != before:
            now = self._clock.monotonic()
            if pump.content and not self.first_content_at:
                self.first_content_at = now
            self._extend(now)
        if data:
            self._send(data)
        if pump.waits and self._backlog is not None:
            self._backlog.begin()
        elif pump.over:
            self._stream_over()
        elif pump.released and not self.decided.done() and self.may_begin:
            self._decide()

    def _watched(self, pump: Pump, chunk: bytes, counts: list[int], began: float) -> bytes:
        """A piece of a guarded stream, or, if it is empty, what was put off: how long it takes,
        how much is held behind it."""
        data = pump.feed(chunk) if chunk else pump.go_on()
        ended = self._clock.monotonic()
        self.guard_s += ended - began
        if self._backlog is not None:
            self._backlog.last = ended
        assert pump.texts is not None, "it is guarded"
        held = pump.texts.held
        counts[bisect_left(HELD_BOUNDS, held)] += 1
        counts[-1] += held
        return data

    def _extend(self, now: float) -> None:
        """Content resets the idle limit; comments and pings do not.  What flows has no limit of
        its own but this and the total."""
        if self.pump is None or self.pump.content:
            self._idle_from(now)

    def _idle_from(self, now: float) -> None:
        call = self.call
        if call is None:
            return
        due = now + self._turn.route.idle_s
        if due < self._turn.total_due:
            call.due, call.phase = due, "idle"
        else:
            call.due, call.phase = self._turn.total_due, "total"

    def _note_content(self) -> None:
        if self.pump is not None and self.pump.content and not self.first_content_at:
            self.first_content_at = self._clock.monotonic()

    def _stream_over(self) -> None:
        pump, call = self.pump, self.call
        assert pump is not None
        if pump.done:
            if call is not None:  # let the body end, so that the connection can be used again
                call.due, call.phase = self._clock.monotonic() + TRAILER_S, "trailer"
            if pump.released:
                self._decide()
            return
        if call is not None:
            call.cancel()
        self._complete()

    # --- what the backlog before the pump asks of it

    @property
    def holds(self) -> bool:
        """Its beginning is being judged: until that is done nothing may change."""
        return self.decided.done() and self.finished is None and not self.over

    @property
    def pending(self) -> int:
        return self.pump.pending if self.pump is not None else 0

    @property
    def is_long(self) -> bool:
        return self.pump is not None and self.pump.waits

    @property
    def ends_long(self) -> bool:
        return self.pump is not None and not self.pump.over and self.pump.ends_long

    def look(self, piece: bytes | None) -> Then:
        """Have a piece judged, or the end.  Nothing but the pump and the account of what it took
        is touched, so this may run beside the loop."""
        pump, counts = self.pump, self.held_counts
        assert pump is not None
        if piece is None:
            return partial(self._ended, pump.finish())
        before = pump.progress
        if counts is None:
            data = pump.feed(piece)
        else:
            data = self._watched(pump, piece, counts, self._clock.monotonic())
        return partial(self._looked_at, data, before)

    def _ended(self, data: bytes) -> None:
        self._note_content()
        if data:
            self._send(data)
        self._complete()

    def settle(self, step: TransportFault | Judgement) -> None:
        """All that came before has been looked at."""
        pump = self.pump
        if self.over:
            return
        if isinstance(step, Judgement):
            assert pump is not None
            pump.outside(step)
            self._complete()
        elif step.phase == "trailer" or (pump is not None and pump.done):
            self._complete()  # the answer was whole; only the connection's end was late
        elif pump is not None and pump.terminal:
            self._end_stream()
        else:
            self.fault = step
            self._settle()

    def _crashed(self) -> None:
        self.cancel()
        if not self.over:
            self.fault = TransportFault("bad_http", "the sink failed")
            self._settle()

    def leave(self) -> None:
        """What it says is of no use: it ends here."""
        self.cancel()
        if not self.over:
            self.fault = TransportFault("left")
            self._settle()

    def give_up(self) -> None:
        if self.pump is not None and self.pump.texts is not None:
            self.pump.texts.given_up = True

    def _cut(self, fault: TransportFault) -> None:
        """The body was cut, and all that came of it has come to the gate."""
        gate = self.gate
        if gate is not None and not gate.over:
            if fault.phase == "trailer" or gate.ear.terminal:
                gate.end()  # the answer is whole; what waits is still asked about
                return
            gate.cancel()
        if self._backlog is None or self._backlog.lets_by(fault):
            self.settle(fault)

    @property
    def _backlogs(self) -> list[Backlog]:
        return [backlog for backlog in (self._coming, self._backlog) if backlog is not None]

    # --- ends

    def cancel(self) -> None:
        """The caller has left, or the request is over: the upstream is closed at once."""
        if self.gate is not None:
            self.gate.cancel()
        for backlog in self._backlogs:
            backlog.drop()
        if self.call is not None and not self.complete:
            self.call.cancel()

    @property
    def may_begin(self) -> bool:
        """A stream is at its commit point: content has come out; where it is buffered, all of it
        has, or more than may be held."""
        pump = self.pump
        if pump is None or not pump.released:
            return False
        return not self.buffers or pump.terminal or self._room < 0

    @property
    def died_unseen(self) -> bool:
        """It was buffered, and has failed after its content came: its caller has none of it."""
        pump = self.pump
        if not self.buffers or pump is None or pump.blocked is not None:
            return False
        return pump.content and not self.may_begin

    def _send(self, data: bytes) -> None:
        if self._attached is not None:
            self._attached.write(data)
        else:
            self._held.append(data)
            before, self._room = self._room, self._room - len(data)
            if self.buffers and self._room < 0 <= before:
                self._gateway.observe(StreamRecovery("buffer", "released"))

    def _reject(self, why: str) -> None:
        self.bad = why
        self._stop()

    def _stop(self) -> None:
        if self.call is not None:
            self.call.cancel()
        self._settle()

    def _complete(self) -> None:
        self.complete = True
        if self.gate is not None:
            self.gate.cancel()
        self._settle()

    def _settle(self) -> None:
        self._decide()
        for backlog in self._backlogs:
            backlog.go_on()  # to its end: nothing more is looked at
        if self.finished is not None and not self.finished.done():
            self.finished.set_result(None)

    def _decide(self) -> None:
        if not self.decided.done():
            self.decided.set_result(None)
