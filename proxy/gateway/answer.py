"""One attempt's answer, as it is pushed by the transport: the sink that decides when it has begun.

* An error answer (not 2xx) is read to its end, up to a bound.
* A unary answer is read whole before anything of it leaves, up to `HOLD_BYTES`; then it is passed
  on.  Under a response pack it is read whole up to `guard.max_answer_bytes`.
* A stream has begun when its first content may leave (failover.md §9); until then the endpoint may
  still change, and nothing has been written to the caller.
* A path that nobody understands is passed on from its head.

`decided` is set once: begun, complete, or failed.  `finished` is set when nothing more will come.
"""

import asyncio
from bisect import bisect_left
from typing import Final

from proxy.gateway.coding import Decoder
from proxy.gateway.gate import Gate
from proxy.gateway.opening import open_ear, open_pump
from proxy.gateway.snapshot import EndpointView
from proxy.gateway.stream import Pump
from proxy.gateway.turn import Gateway, Turn
from proxy.guardrails.engine import Judgement
from proxy.guardrails.placeholders import Restoration
from proxy.model.exchange import Dialect, Json, Plan, RawHeaders
from proxy.model.ports import Call, Clock, Downstream, TransportFault
from proxy.model.records import HELD_BOUNDS

HOLD_BYTES: Final = 4 * 1024 * 1024
ERROR_BYTES: Final = 256 * 1024
TRAILER_S: Final = 1.0

UNARY, STREAM, PASS, ERROR = range(4)
_STREAM_TYPES: Final = (b"text/event-stream", b"application/vnd.amazon.eventstream")


class Answer:
    """`model.ports.Sink` for one attempt."""

    __slots__ = (
        "_attached", "_clock", "_decoder", "_gateway", "_held", "_limit", "_turn", "bad", "body",
        "call", "candidate", "complete", "decided", "doc", "fault", "finished",
        "first_content_at", "gate", "guard_s", "headers", "held_counts", "mode", "plan", "pump",
        "restoration", "size", "started", "status", "too_big",
    )  # fmt: skip

    def __init__(
        self,
        turn: Turn,
        candidate: EndpointView,
        plan: Plan,
        gateway: Gateway,
        limit_bytes: int,
    ) -> None:
        self._turn = turn
        self._gateway = gateway
        self._clock: Clock = gateway.clock
        self._limit = limit_bytes if turn.guarded else HOLD_BYTES
        self.candidate = candidate
        self.plan = plan
        self._held: list[bytes] = []
        self._attached: Downstream | None = None
        self._decoder: Decoder | None = None
        loop = asyncio.get_running_loop()
        self.decided: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] | None = None
        self.call: Call | None = None
        self.started = self._clock.monotonic()
        self.first_content_at = 0.0
        self.guard_s = 0.0  # what a guarded stream took here
        self.held_counts: list[int] | None = None  # see RequestRecord
        self.mode = UNARY
        self.status = 0
        self.headers: RawHeaders = []
        self.body = b""
        self.size = 0
        self.pump: Pump | None = None
        self.gate: Gate | None = None  # before the pump, where checks outside look at answers
        self.restoration: Restoration | None = None
        if turn.placeholders is not None:
            self.restoration = turn.placeholders.restoration()
        self.fault: TransportFault | None = None
        self.complete = False
        self.too_big = False
        self.bad = ""  # why a 2xx answer cannot be used
        self.doc: dict[str, Json] | None = None  # the parse of a whole unary body

    def __repr__(self) -> str:
        names = ("unary", "stream", "pass", "error")
        return f"<Answer {self.status} {names[self.mode]} {self.size} bytes>"

    @property
    def dialect(self) -> Dialect:
        return self._turn.exchange.surface.dialect

    @property
    def decoded(self) -> bool:
        """Its content coding was undone on the way."""
        return self._decoder is not None

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.complete or self.fault is not None or bool(self.bad) or self.too_big

    def wall_ms(self) -> int:
        return self._clock.now_ms()

    # --- the sink

    def head(self, status: int, headers: RawHeaders) -> None:
        self.status, self.headers = status, headers
        kind = encoding = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value.lower()
            elif name == b"content-encoding":
                encoding = value.strip().lower()
        if self._turn.dialect is None:
            if 300 <= status < 400 and self._turn.exchange.surface.operation != "pass":
                self._reject("a redirect")
                return
            self.mode = PASS
            self._decide()
            return
        if encoding and encoding != b"identity":
            try:
                self._decoder = Decoder(encoding, HOLD_BYTES)
            except ValueError as why:
                self._reject(str(why))
        if not 200 <= status < 300:
            self.mode = ERROR
        elif kind.startswith(_STREAM_TYPES):
            self._open_stream()
        elif kind.startswith((b"application/json", b"application/x-ndjson")) or not kind:
            self.mode = UNARY
        else:
            self._reject(f"content type {kind[:64].decode('latin-1')}")

    def data(self, chunk: bytes) -> None:
        if self._decoder is not None:
            try:
                chunk = self._decoder.feed(chunk)
            except ValueError as why:
                self._reject(str(why))
        if self.bad or self.too_big or not chunk:
            return
        self.size += len(chunk)
        if self.mode == STREAM:
            self._stream(chunk) if self.gate is None else self._wait_for(self.gate, chunk)
        elif self.mode == PASS:
            self._extend(self._clock.monotonic())
            self._send(chunk)
        else:
            self._gather(chunk)

    def end(self) -> None:
        if self.bad or self.too_big:
            return
        if self.mode == STREAM:
            self._stream_ended() if self.gate is None else self.gate.end()
            return
        if self.mode != PASS:
            self.body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held.clear()
        self._complete()

    def failed(self, fault: TransportFault) -> None:
        if self.complete or self.bad or self.too_big:
            return
        if self.gate is not None:
            if fault.phase == "trailer" or self.gate.ear.terminal:
                self.gate.end()  # the answer is whole; what waits is still asked about
                return
            self.gate.cancel()
        if fault.phase == "trailer" or (self.pump is not None and self.pump.done):
            self._complete()  # the answer was whole; only the connection's end was late
            return
        if self.mode == STREAM and self.pump is not None and self.pump.terminal:
            data = self.pump.finish()
            if data:
                self._send(data)
            self._complete()
            return
        self.fault = fault
        self._settle()

    # --- streams

    def _open_stream(self) -> None:
        self.mode = STREAM
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
                    close=self._stream_ended,
                    stop=self._stream_stopped,
                )
                wrap = gate.wrap if checks.holding else None
        self.pump = open_pump(turn, self.candidate, self.plan, self.restoration, self._limit, wrap)

    def _wait_for(self, gate: Gate, chunk: bytes) -> None:
        """What comes waits before the gate; the endpoint is alive all the same."""
        before = gate.ear.chars
        gate.feed(chunk)
        if gate.ear.chars != before and not self.over:
            self._idle_from(self._clock.monotonic())

    def _stream_ended(self) -> None:
        """The body is over and all of it has been through the pump."""
        assert self.pump is not None
        data = self.pump.finish()
        self._note_content()
        if data:
            self._send(data)
        self._complete()

    def _stream_stopped(self, judged: Judgement) -> None:
        """A check outside has blocked."""
        assert self.pump is not None
        self.pump.outside(judged)
        if self.call is not None:
            self.call.cancel()
        self._complete()

    def _stream(self, chunk: bytes) -> None:
        pump = self.pump
        assert pump is not None
        before = pump.progress
        counts = self.held_counts
        data = pump.feed(chunk) if counts is None else self._watched(pump, chunk, counts)
        if pump.progress != before:
            now = self._clock.monotonic()
            if pump.content and not self.first_content_at:
                self.first_content_at = now
            self._extend(now)
        if data:
            self._send(data)
        if pump.over:
            self._stream_over()
        elif pump.released and not self.decided.done():
            self._decide()

    def _watched(self, pump: Pump, chunk: bytes, counts: list[int]) -> bytes:
        """A piece of a guarded stream: how long it takes, how much is held behind it."""
        began = self._clock.monotonic()
        data = pump.feed(chunk)
        self.guard_s += self._clock.monotonic() - began
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

    # --- whole bodies

    def _gather(self, chunk: bytes) -> None:
        self._held.append(chunk)
        if self.mode == ERROR:
            if self.size > ERROR_BYTES:
                self.bad = "error answer too long"
                self._stop()
            return
        if self.size > self._limit:
            if self._turn.guarded:
                self.too_big = True
                self._stop()
            else:
                self.mode = PASS
                self._decide()
            return
        call = self.call
        if call is not None:
            idle = self._clock.monotonic() + self._turn.route.idle_s
            whole = min(self.started + self._turn.route.unary_s, self._turn.total_due)
            call.due, call.phase = (idle, "idle") if idle < whole else (whole, "unary")

    # --- ends

    def _send(self, data: bytes) -> None:
        if self._attached is not None:
            self._attached.write(data)
        else:
            self._held.append(data)

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
        if self.finished is not None and not self.finished.done():
            self.finished.set_result(None)

    def _decide(self) -> None:
        if not self.decided.done():
            self.decided.set_result(None)

    # --- the relay

    @property
    def begun(self) -> bool:
        """The answer goes on: a stream at its commit point, a body too long to be held."""
        if self.mode == STREAM:
            assert self.pump is not None
            return self.pump.released
        return self.mode == PASS

    def take_held(self) -> bytes:
        held = b"".join(self._held)
        self._held.clear()
        return held

    async def flow(self, caller: Downstream) -> None:
        """From here on what comes is written to the caller as it comes; returns at the end."""
        self.finished = asyncio.get_running_loop().create_future()
        caller.write(self.take_held())
        self._attached = caller
        caller.follow(self.call)
        if not self.over:
            await self.finished
        caller.follow(None)

    def cancel(self) -> None:
        """The caller has left, or the request is over: the upstream is closed at once."""
        if self.gate is not None:
            self.gate.cancel()
        if self.call is not None and not self.complete:
            self.call.cancel()
