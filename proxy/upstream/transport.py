"""One connection to an endpoint: HTTP/1.1 out, an answer pushed into a sink, over and over.

The connection carries one call at a time.  `carry` writes the request; what comes back goes from
`data_received` through the parser straight into the sink: no task, no timer, no queue.

What an endpoint may do is bounded.  Between two bytes of a body, or before the first, it may send
`SILENT_LIMIT_BYTES` of anything else (head, interim answers, chunk extensions, trailers), at most
`FIELDS_LIMIT` header fields and `INTERIM_LIMIT` interim answers.  What two readers could
understand differently is refused: two lengths, a length beside chunks, any transfer coding but one
`chunked`, another protocol version.  Whatever is not understood is `bad_http`, and the connection
is closed.

Invariant: a connection is reusable only when it is provably between two messages: the answer was
delimited by itself, its last byte was the last byte read, the whole request had left, and nothing
came while nobody asked (T-HTTP-09).  Order: a call is off the connection before its sink hears of
the end, so the sink may start the next call from there.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from proxy.model.exchange import Outgoing, RawHeaders
from proxy.model.ports import Sink, TransportFault
from proxy.upstream import failures

SILENT_LIMIT_BYTES = 65_536
FIELDS_LIMIT = 128
INTERIM_LIMIT = 10
JOIN_LIMIT_BYTES = 65_536  # below it a request is joined to one buffer; above, a copy costs more
_FRAMING = frozenset((b"transfer-encoding", b"content-length"))


class Carried(Protocol):
    """The call, as its connection sees it.  One of the two is called, once."""

    def answered(self, connection: "Connection", *, reusable: bool) -> None: ...
    def broken(self, fault: TransportFault) -> None: ...


class BadHttp(Exception):
    """Raised inside a callback of the parser: the answer is not what we accept."""


class Connection(asyncio.Protocol):
    """`lost` is told once, when the connection is gone."""

    __slots__ = (
        "_begun",
        "_call",
        "_chunked",
        "_done",
        "_headers",
        "_headless",
        "_interims",
        "_keep",
        "_lost",
        "_lost_by",
        "_parser",
        "_poll",
        "_silent_bytes",
        "_sink",
        "_sized",
        "_transport",
        "_until_close",
        "answer_bytes",
    )

    def __init__(self, lost: Callable[["Connection"], None]) -> None:
        self._lost = lost
        self._lost_by: Exception | None = None
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._poll = select.poll()
        self._call: Carried | None = None
        self._sink: Sink | None = None
        self._headers: RawHeaders = []
        self._reset()

    def _reset(self) -> None:
        self.answer_bytes = 0
        self._silent_bytes = 0
        self._interims = 0
        self._begun = False  # the final head is out
        self._done = False
        self._keep = False
        self._headless = False  # the request was HEAD: no body, whatever the head says
        self._chunked = False
        self._sized = False
        self._until_close = False

    def carry(self, call: Carried, sink: Sink, outgoing: Outgoing) -> None:
        """Send a request; its answer goes to `sink`, its end to `call`."""
        assert self._call is None, "one call at a time"
        transport = self._transport
        if transport is None:  # it died before it was of use
            call.broken(failures.while_open(self._lost_by, 0))
            return
        self._reset()
        self._call, self._sink = call, sink
        if transport.is_closing():
            return  # `connection_lost` is on its way
        head, body = outgoing.head, outgoing.body
        self._headless = head.startswith(b"HEAD ")
        if len(body) <= JOIN_LIMIT_BYTES:
            transport.write(head + body if body else head)
        else:
            transport.writelines((head, body))

    def drop(self) -> None:
        """Close at once and call nobody, `lost` excepted."""
        self._call = self._sink = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and self.is_open():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self.is_open():
            self._transport.resume_reading()

    def is_lost(self) -> bool:
        return self._transport is None

    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def is_quiet(self) -> bool:
        """Open, and nothing has come that nobody asked for, not even unread in the kernel."""
        return self.is_open() and not self._poll.poll(0)

    # ------------------------------------------------------------------ the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self._call is None or parser is None:
            self.drop()  # SECURITY: nobody asked; the next request must not see it
            return
        self.answer_bytes += len(data)
        self._silent_bytes += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._callback_failed(error.__context__)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse("unasked upgrade" if _is_upgrade(error) else str(error))
        else:
            if self._done:
                self._complete()
            elif self._silent_bytes > SILENT_LIMIT_BYTES:
                self._refuse("too much beside the body")

    def connection_lost(self, exc: Exception | None) -> None:
        call, whole = self._call, self._until_close and exc is None
        self._call = self._sink = self._transport = None
        self._parser = None  # it refers back to us
        self._lost_by = exc
        self._lost(self)
        if call is None:
            return
        if whole:
            call.answered(self, reusable=False)
        else:
            call.broken(failures.while_open(exc, self.answer_bytes))

    # --------------------------------------------------------------------- the parser's calls

    def on_message_begin(self) -> None:
        if self._done:
            raise BadHttp("bytes after the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        value = value.rstrip(b" \t")
        if name in _FRAMING and not self._begun:
            self._framed(name, value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status: int = parser.get_status_code()
        headers, self._headers = self._headers, []
        self._judge(headers)
        if not 100 <= status <= 599:
            raise BadHttp("no such status")
        if status < 200:
            self._interim(status)
            return
        version = parser.get_http_version()
        if version != "1.1" and (version != "1.0" or self._chunked):
            raise BadHttp("not HTTP/1.1")
        self._begun = True
        self._silent_bytes = 0
        if self._headless:
            self._done = True
        else:
            self._keep = parser.should_keep_alive()
            self._until_close = not (self._sized or self._chunked or status in (204, 304))
        if self._sink is not None:
            self._sink.head(status, headers)

    def on_body(self, chunk: bytes) -> None:
        if self._done or not self._begun:
            raise BadHttp("a body where none may be")
        self._silent_bytes = 0
        if self._sink is not None:
            self._sink.data(chunk)

    def on_message_complete(self) -> None:
        if self._begun:
            self._done = True
        else:
            self._sized = self._chunked = False  # of the interim answer

    # -------------------------------------------------------------------------------- rules

    def _framed(self, name: bytes, value: bytes) -> None:
        """SECURITY: one way to find the end of the body, or none of this is believed."""
        if self._sized or self._chunked:
            raise BadHttp("two ways to delimit the body")
        if name == b"content-length":
            self._sized = True
        elif value.lower() == b"chunked":
            self._chunked = True
        else:
            raise BadHttp("a transfer coding that nobody asked for")

    def _judge(self, headers: RawHeaders) -> None:
        if len(headers) > FIELDS_LIMIT:
            raise BadHttp("too many header fields")
        if self._silent_bytes > SILENT_LIMIT_BYTES:  # of which the read may hold body, too
            head_bytes = sum(len(name) + len(value) + 4 for name, value in headers)
            if head_bytes > SILENT_LIMIT_BYTES:
                raise BadHttp("too large a head")

    def _interim(self, status: int) -> None:
        if status == 101:
            raise BadHttp("unasked upgrade")
        self._interims += 1
        if self._interims > INTERIM_LIMIT:
            raise BadHttp("too many interim answers")

    def _complete(self) -> None:
        call, transport = self._call, self._transport
        if call is None or transport is None:
            return  # the sink cancelled meanwhile
        self._call = self._sink = None
        self._headers.clear()  # trailers
        early = transport.get_write_buffer_size() > 0  # the request is not out yet
        call.answered(self, reusable=self._keep and not early and not transport.is_closing())

    def _refuse(self, reason: str) -> None:
        call, response_bytes = self._call, self.answer_bytes
        self.drop()
        if call is not None:
            call.broken(TransportFault("bad_http", reason, response_bytes=response_bytes))

    def _callback_failed(self, error: BaseException | None) -> None:
        if isinstance(error, BadHttp):
            self._refuse(str(error))
            return
        self._refuse("the sink failed")
        if error is not None:
            raise error  # a bug of ours: the loop reports it

    def __repr__(self) -> str:
        state = "closed" if self._transport is None else "busy" if self._call else "idle"
        return f"<Connection {state}, {self.answer_bytes} bytes of an answer>"


def _is_upgrade(error: Exception) -> bool:
    return isinstance(error, httptools.HttpParserUpgrade)
