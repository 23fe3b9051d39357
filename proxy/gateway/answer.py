"""One attempt's answer, as it is pushed by the transport: the sink that decides when it has begun.

* An error answer (not 2xx) is read to its end, up to a bound.
* A unary answer is read whole before anything of it leaves, up to `HOLD_BYTES`; then it is passed
  on.  Under a response pack it is read whole up to `guard.max_answer_bytes`.
* A stream has begun when its first content may leave (failover.md §9); until then the endpoint may
  still change, and nothing has been written to the caller.
* A path that nobody understands is passed on from its head.
"""

import asyncio
from typing import Final

from proxy.gateway.coding import Decoder
from proxy.gateway.streamed import HOLD_BYTES, Streamed
from proxy.model.exchange import Dialect, RawHeaders
from proxy.model.ports import Call, Outflow, TransportFault

ERROR_BYTES: Final = 256 * 1024

UNARY, STREAM, PASS, ERROR = range(4)
_STREAM_TYPES: Final = (b"text/event-stream", b"application/vnd.amazon.eventstream")


class Answer(Streamed):
    """`model.ports.Sink` for one attempt."""

    __slots__ = ()

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
            self.mode = STREAM
            self._open_stream()
        elif kind.startswith((b"application/json", b"application/x-ndjson")) or not kind:
            self.mode = UNARY
        else:
            self._reject(f"content type {kind[:64].decode('latin-1')}")
        if self.mode in (UNARY, ERROR):
            self._idle_whole()

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
            self._stream(chunk) if self._coming is None else self._come(self._coming, chunk)
        elif self.mode == PASS:
            self._extend(self._clock.monotonic())
            self._send(chunk)
        else:
            self._gather(chunk)

    def end(self) -> None:
        if self.bad or self.too_big:
            return
        if self.mode == STREAM:
            if self.gate is None:
                self._end_stream()
            elif self._coming is None or self._coming.lets_by(None):
                self.gate.end()
            return
        if self.mode != PASS:
            self.body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            self._held.clear()
        self._complete()

    def failed(self, fault: TransportFault) -> None:
        if self.complete or self.bad or self.too_big:
            return
        if self._coming is None or self._coming.lets_by(fault):
            self._cut(fault)

    # --- whole bodies

    def _gather(self, chunk: bytes) -> None:
        self._held.append(chunk)
        if self.mode == ERROR:
            if self.size > ERROR_BYTES:
                self.bad = "error answer too long"
                self._stop()
            return
        if self.size > self._limit:
            if self._turn.guarded and self._turn.must_be_checked:
                self.too_big = True
                self._stop()
            else:
                self.mode = PASS
                self._decide()
            return
        self._idle_whole()

    def _idle_whole(self) -> None:
        """A whole body may stand still for `idle_ms`, from its head on."""
        call = self.call
        if call is not None:
            idle = self._clock.monotonic() + self._turn.route.idle_s
            whole = min(self.started + self._turn.route.unary_s, self._turn.total_due)
            call.due, call.phase = (idle, "idle") if idle < whole else (whole, "unary")

    # --- the relay

    @property
    def begun(self) -> bool:
        """The answer goes on: a stream at its commit point, a body too long to be held."""
        if self.mode == STREAM:
            return self.may_begin
        return self.mode == PASS

    def take_held(self) -> bytes:
        held = b"".join(self._held)
        self._held.clear()
        return held

    async def flow(self, caller: Outflow) -> None:
        """From here on what comes is written to the caller as it comes; returns at the end."""
        self.finished = asyncio.get_running_loop().create_future()
        caller.write(self.take_held())
        self._attached = caller
        caller.follow(self.source)
        for backlog in self._backlogs:
            backlog.go_on()
        if not self.over:
            await self.finished
        caller.follow(None)
        for backlog in self._backlogs:
            await backlog.quiet()

    @property
    def source(self) -> Call | None:
        """What the caller pauses while he does not read."""
        return self._brake or self.call

    async def still(self) -> None:
        """Until nothing works on it beside the loop; also for who is cancelled meanwhile."""
        for backlog in self._backlogs:
            await backlog.still()
