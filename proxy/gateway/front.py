"""The front of the data plane: HTTP/1.1 from callers, the requests of a connection in their order.

    data_received -> parser -> head: a task per request -> `HttpDownstream` -> the same transport
                            -> body: pushed into the request that waits for it

Who speaks HTTP in two ways gets no second chance: whatever a proxy before us could understand
differently (two lengths, a length beside chunks, another transfer coding, folded or malformed
lines, two hosts, a target that is no path) is refused, and the connection ends (T-HTTP-01).
Everything a caller may send is bounded: the line, the fields, the head, what stands between the
bytes of a body, the requests he sends ahead, and the time for each (one sweep, no timers).

Requests are answered in the order in which they came, one at a time.  While one is under way the
connection goes on reading, so that a caller who leaves is noticed and his request is cancelled;
it stops when a request that was sent ahead waits, or a body that nobody takes yet.

Invariant: bytes are either parsed as exactly one message or thrown away with the connection.  A
body that was not read is read on, when its rest is short, or ends the connection; no rest of it
is ever parsed as a request.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Final, cast

import httptools

from proxy.gateway import heads
from proxy.gateway.downstream import BODY_FREE_S, HIGH_WATER_BYTES, DateLine, HttpDownstream
from proxy.gateway.heads import Refused
from proxy.model.errors import InvalidRequest
from proxy.model.exchange import Inbound, RawHeaders
from proxy.model.ports import Call
from proxy.wire.headers import MARKS

HEAD_S: Final = 9.0  # swept once per second: at most 10
KEEPALIVE_S: Final = 75.0
STALL_S: Final = 75.0  # after the upstream call of a caller who does not read has been ended
LINGER_S: Final = 2.0

_NOTED: Final = MARKS | {b"transfer-encoding", b"upgrade"}

Handle = Callable[[Inbound, HttpDownstream], Coroutine[object, None, None]]


class FrontProtocol(asyncio.Protocol):
    """One connection of a caller (`downstream.Line`).

    `_reading`: the request whose body is coming; `_caller`: the one being answered, by `task`;
    `_ahead`: those that came before it was done.  `_due`: when the sweep ends a connection that
    answers nobody; 0 until the sweep has seen it idle.
    """

    __slots__ = (
        "_ahead",
        "_begun",
        "_caller",
        "_closes",
        "_connections",
        "_due",
        "_fed",
        "_handle",
        "_headers",
        "_heading",
        "_marks",
        "_parser",
        "_paused",
        "_peer",
        "_reading",
        "_refused",
        "_stuck_bytes",
        "_stuck_since",
        "_target",
        "_upgrade",
        "date",
        "following",
        "leaving",
        "left",
        "loop",
        "task",
        "transport",
        "writing_paused",
    )

    def __init__(
        self,
        handle: Handle,
        loop: asyncio.AbstractEventLoop,
        date: DateLine,
        connections: "set[FrontProtocol]",
    ) -> None:
        self._handle = handle
        self._connections = connections
        self.loop = loop
        self.date = date
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.following: Call | None = None
        self.writing_paused = False
        self.leaving = False
        self.left = False
        self._peer = ""
        self._parser: httptools.HttpRequestParser | None = None
        self._target = b""
        self._headers: RawHeaders = []
        self._marks: dict[bytes, bytes] = {}
        self._fed = 0  # bytes of the message under way, with what stood before it in its read
        self._begun = False  # a message has begun and has not ended
        self._heading = False  # its head is late enough to be timed
        self._closes = False  # the last request wants the connection to end
        self._upgrade = b""  # its head without the wish, to be read once more
        self._reading: HttpDownstream | None = None
        self._caller: HttpDownstream | None = None
        self._ahead: deque[tuple[Inbound, HttpDownstream]] = deque()
        self._refused: Refused | None = None  # told after the answers under way
        self._paused = False
        self._due = 0.0
        self._stuck_bytes = 0
        self._stuck_since = 0.0

    def __repr__(self) -> str:
        return f"<FrontProtocol {'busy' if self._caller else 'idle'}, {len(self._ahead)} ahead>"

    # ------------------------------------------------------------------ the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = made = cast(asyncio.Transport, transport)
        made.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._peer = (made.get_extra_info("peername") or ("",))[0]
        self._parser = httptools.HttpRequestParser(self)
        self._heading = True
        self._due = self.loop.time() + HEAD_S
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            return  # the connection is ending: read and thrown away
        self._fed = self._fed + len(data) if self._begun else len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            self._read_without_upgrade(data[cast(int, wish.args[0]) :])
        except httptools.HttpParserError as error:
            self._not_read(error)
        else:
            if self._begun:
                self._unfinished()

    def eof_received(self) -> None:
        """Who stops sending has left: there is no way to tell him from one who only half closed."""
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = self._parser = None  # the parser refers back to us
        self._connections.discard(self)
        self._leave()

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self.following is not None:
            self.following.pause()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self.following is not None:
            self.following.resume()

    # --------------------------------------------------------------------- the parser's calls

    def on_message_begin(self) -> None:
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._target = target = self._target + url if self._target else url
        if len(target) > heads.LINE_LIMIT_BYTES:
            raise Refused(414, "The request line is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        if len(headers) >= heads.FIELDS_LIMIT:
            raise Refused(431, "The request has too many header fields.")
        name = name.lower()
        value = value.rstrip(b" \t")
        headers.append((name, value))
        if name in _NOTED:
            marks = self._marks
            marks[name] = value if name not in marks else b""

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        headers, marks, target = self._headers, self._marks, self._target
        self._headers, self._marks, self._target = [], {}, b""
        version, method = parser.get_http_version(), parser.get_method()
        http11 = heads.must_be_http1(version, marks)
        if self._fed > heads.MAYBE_LONG_BYTES:
            heads.must_be_short(method, target, headers)
        if target[:1] != b"/" or method == b"CONNECT":
            raise Refused(400, "The request target must be a path.")
        caller = HttpDownstream(self, http11=http11, keep_alive=parser.should_keep_alive())
        if b"transfer-encoding" in marks:
            heads.must_be_chunked(marks, http11=http11)
        else:
            caller.length = heads.length_of(marks)
        if b"upgrade" in marks and parser.should_upgrade():
            self._upgrade = heads.head_without_upgrade(method, target, version, headers)
            return
        caller.no_body = method == b"HEAD"
        if b"expect" in marks:
            caller.expects = http11 and marks[b"expect"].lower() == b"100-continue"
        path = str(target, "ascii")
        inbound = Inbound("", str(method, "ascii"), path, headers, b"", self._peer, marks)
        self._arrived(inbound, caller)
        self._reading = caller
        self._closes = not caller.keep_alive

    def on_body(self, chunk: bytes) -> None:
        caller = self._reading
        if caller is not None:
            caller.chunks.append(chunk)
            caller.size += len(chunk)

    def on_message_complete(self) -> None:
        self._begun = False
        caller, self._reading = self._reading, None
        if caller is None:
            return
        if self._headers:  # trailers: read for their end, believed in nothing
            self._headers, self._marks = [], {}
        caller.completed()
        if self._caller is None:
            self._due = 0.0  # the rest of a body that nobody wanted

    # ------------------------------------------------------------ one request after the other

    def _arrived(self, inbound: Inbound, caller: HttpDownstream) -> None:
        if self._caller is None:
            self._serve(inbound, caller)
        elif len(self._ahead) < heads.AHEAD_LIMIT:
            self._ahead.append((inbound, caller))
            self._pause()
        else:
            raise Refused(400, "Too many requests were sent ahead of their answers.")

    def _serve(self, inbound: Inbound, caller: HttpDownstream) -> None:
        """The request's task: started here rather than by `runtime.tasks`, once per request; kept
        by `task` until its end, and its crash is settled inside `Front.handle`."""
        self._caller = caller
        self._heading = False
        self._due = 0.0
        self.task = self.loop.create_task(self._handle(inbound, caller))

    def served(self, caller: HttpDownstream) -> None:
        """The answer to `caller` has been written."""
        self._caller = self.task = None
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._ahead:
            if caller.keep_alive:
                self._serve(*self._ahead.popleft())
            else:
                self._close(unread=True)
        elif not caller.keep_alive:
            self._close(unread=not caller.complete or self._paused)
        elif self._refused is not None:
            self._refuse(self._refused)
        elif not caller.complete:
            caller.grown()
            self._due = self.loop.time() + BODY_FREE_S
        elif self._begun:
            self._time_the_head()
        elif self.leaving:
            transport.close()
        self.wanted()

    def wanted(self) -> None:
        if not self._paused or self._ahead:
            return
        self._paused = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _leave(self) -> None:
        self.left = True
        self._ahead.clear()
        if self.task is not None:
            self.task.cancel()

    def _unfinished(self) -> None:
        """After a read that ended inside a message."""
        caller = self._reading
        if caller is None:
            if self._fed > heads.HEAD_LIMIT_BYTES:
                self._not_read(Refused(431, "The request head is too long."))
            elif self._caller is None and not self._heading:
                self._time_the_head()
        elif self._fed > heads.BESIDE_BODY_BYTES + heads.BESIDE_BODY_RATIO * caller.size:
            self._not_read(Refused(400, "Too much stands between the bytes of the body."))
        elif not caller.grown():
            self._parser = self._reading = None
        elif caller.size > HIGH_WATER_BYTES and caller.unclaimed():
            self._pause()

    def _time_the_head(self) -> None:
        self._heading = True
        self._due = self.loop.time() + HEAD_S

    def _pause(self) -> None:
        if not self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    # ------------------------------------------------------------------------------ the ends

    def _not_read(self, error: Exception) -> None:
        """What came is not parsed any further; what came before it is still answered."""
        why: BaseException | None = error
        if isinstance(error, httptools.HttpParserCallbackError):
            why = error.__context__
            if why is not None and not isinstance(why, Refused):
                self.abort()
                raise why  # a bug of ours: the loop reports it
        self._parser = None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.broken(InvalidRequest("The request body is not valid HTTP."))
            if self._caller is None:
                self._close(unread=True)
        elif not self._closes:  # what follows a last request counts for nothing
            self._refuse(why if isinstance(why, Refused) else Refused(400, "This is not HTTP/1.1."))

    def _read_without_upgrade(self, rest: bytes) -> None:
        """No other protocol is spoken here: the request is read as if it had not asked for one.
        The parser takes what follows such a head for that protocol, so it gets the head anew."""
        head, self._upgrade = self._upgrade, b""
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _refuse(self, refused: Refused) -> None:
        """Say no, in the order of the requests, and end the connection."""
        if self._caller is not None:
            self._refused = refused
            return
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(heads.render_refusal(refused, self.date.at(self.loop.time())))
            self._close(unread=True)

    def _close(self, *, unread: bool) -> None:
        """End the connection.  `unread`: more may be coming, and closing upon it would reset the
        connection and take our last words from the caller: only our half is closed, for a while."""
        self._parser = None
        self._heading = False
        self._ahead.clear()
        transport = self.transport
        assert transport is not None
        if not unread:
            transport.close()
            return
        self._due = self.loop.time() + LINGER_S
        self.wanted()
        with suppress(OSError):  # he may have left already
            transport.write_eof()

    def abort(self) -> None:
        self._parser = None
        if self.transport is not None:
            self.transport.abort()

    def retire(self) -> None:
        """Drain: idle connections end now, the others (new ones, too) with their next answer."""
        self.leaving = True
        if self._caller is None and not self.expecting() and self.transport is not None:
            self.transport.close()

    def expecting(self) -> bool:
        """A request is on its way: the connection is new, or a part of one has come."""
        return self._heading or self._begun

    def sweep(self, now: float) -> None:
        transport = self.transport
        if transport is None:
            return
        unsent_bytes = transport.get_write_buffer_size()
        if not unsent_bytes or unsent_bytes != self._stuck_bytes:
            self._stuck_bytes, self._stuck_since = unsent_bytes, now
        elif now - self._stuck_since > STALL_S:
            self.abort()  # he has read nothing for so long
            return
        caller = self._caller
        if caller is not None:
            if caller.too_slow(now):
                self._parser = self._reading = None
        elif not self._due:
            self._due = now + KEEPALIVE_S
        elif now >= self._due:
            self.abort()
