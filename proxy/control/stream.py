"""GET {w}/events/stream: events as they come, as server-sent events.

Law: what a reader gets, over any number of connections that resume by the last id, is every event
that passes the filters, each once, in order of `seq`.  Nothing is queued per reader: the log is the
queue, and a reader that falls too far behind is told and let go.

SECURITY: a key that is revoked, has expired or may do something else now gets nothing more: that
is looked at before every write and whenever nothing happens, against the keys in force.
"""

import asyncio
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field

from proxy.control.auth import still_admitted
from proxy.control.events import EventFilters, log_filter, with_seq
from proxy.control.frame import EVENT_STREAM, ControlDeps, Passage, Reply
from proxy.control.problems import FieldError, invalid
from proxy.control.wire import Count
from proxy.model.batch import LogFilter, StoredEvent, StoreUnavailable
from proxy.model.events import EVENTS_LOG
from proxy.wire import jsonbody

BEHIND_MAX: Final = 1000
PAGE: Final = 100
HEARTBEAT_S: Final = 15.0
POLL_S: Final = 1.0  # for what another process wrote; our own events ring the bell
STUCK_S: Final = 60.0
MEDIA: Final = EVENT_STREAM
Seq = Annotated[Count, Field(ge=0, le=2**63 - 1)]


class _Ended(Exception):
    """The reader's key is nobody's any more."""


class StreamQuery(EventFilters):
    after: Seq | None = None
    max_events: Annotated[Count, Field(ge=1, le=1_000_000)] | None = None
    timeout_s: Annotated[Count, Field(ge=1, le=86_400)] | None = None


async def stream_events(passage: Passage, deps: ControlDeps) -> Reply | web.StreamResponse:
    """Follow the events as server-sent events.

    A reader resumes by `Last-Event-ID` or `after`, without gap or repeat."""
    query = passage.query
    assert isinstance(query, StreamQuery), "the table says so"
    after = _resume_from(passage, query)
    head = await deps.store.head(passage.workspace, EVENTS_LOG)
    if passage.request.method == "HEAD":
        return Reply(200, media=MEDIA)
    response = web.StreamResponse(headers={**passage.headers, "Content-Type": MEDIA})
    await response.prepare(passage.request)
    reader = _Reader(passage, query, deps, response)
    try:
        await reader.run(after, head)
    except _Ended:
        pass  # it asks again, and is told why
    except TimeoutError:
        response.force_close()  # it stopped reading: nothing more can be said to it
        if passage.request.transport is not None:
            passage.request.transport.abort()
        return response
    await response.write_eof()
    return response


def _resume_from(passage: Passage, query: StreamQuery) -> int | None:
    """`?after=`, else `Last-Event-ID`; None: from now on.  Raises Problem 422."""
    header = passage.request.headers.get("Last-Event-ID", "")
    if header and not (header.isascii() and header.isdigit() and len(header) <= 18):
        raise invalid(
            [FieldError("wrong_type", "must be an integer", "Last-Event-ID", place="header")]
        )
    if query.after is not None or not header:
        return query.after
    return int(header)


class _Reader:
    """One stream.  `position`: everything up to this `seq` was sent or does not pass."""

    def __init__(
        self, passage: Passage, query: StreamQuery, deps: ControlDeps, out: web.StreamResponse
    ) -> None:
        self._workspace_id = passage.workspace
        self._caller = passage.caller
        self._config = passage.config
        self._query = query
        self._deps = deps
        self._out = out
        self._left = query.max_events
        self._position = 0
        self._live = False  # until it has caught up, old events do not count as falling behind
        self._setbacks = deps.store.setback(self._workspace_id, EVENTS_LOG).times
        self._told: int | None = None  # a reset whose setback is not known yet
        self._scanned: int | None = None  # how far a query came that met its bound
        now = deps.clock.monotonic()
        self._due = now + query.timeout_s if query.timeout_s is not None else None
        self._beat_at = now + HEARTBEAT_S

    async def run(self, after: int | None, head: int) -> None:
        await self._write(b"retry: 3000\n\n")
        self._position = head
        while not self._over():
            bell = self._deps.intake.bell(self._workspace_id)
            try:
                if after is not None:
                    self._position = await self._first(after, head)
                    after = None
                if not await self._step(bell):
                    return
            except StoreUnavailable:  # the stream outlives it, and then goes on where it was
                self._live = False
                await self._rest(bell)

    async def _step(self, bell: asyncio.Event) -> bool:
        """Send what there is, or wait.  False: it was too much."""
        head = await self._head()
        whole_to = min(head, self._lost(head))
        if whole_to < self._position:  # the store lost its end and says so
            await self._say("stream.reset", whole_to)
            self._position = whole_to
        if head == self._position:
            self._live = True
            await self._rest(bell)
            return True
        if await self._catch_up(head, live=self._live):
            return True
        await self._say("stream.overflow", self._position)
        return False

    def _lost(self, head: int) -> int:
        """Up to where the log is what it was.  It may be longer again when that is known."""
        if head < self._position:
            self._told = head
        setback = self._deps.store.setback(self._workspace_id, EVENTS_LOG)
        if setback.times == self._setbacks:
            return head
        self._setbacks = setback.times
        told, self._told = self._told, None
        return head if told is not None and told <= setback.whole_to else setback.whole_to

    async def _first(self, after: int, head: int) -> int:
        """Where to begin; a gap between there and what the log still holds is told."""
        if after > head:
            await self._say("stream.reset", head)
            return head
        oldest = await self._range(LogFilter(after_seq=after, newest_first=False, limit=1))
        if oldest and oldest[0].seq > after + 1:
            await self._say("stream.reset", oldest[0].seq - 1)
            return oldest[0].seq - 1
        return after

    async def _catch_up(self, target: int, *, live: bool) -> bool:
        """Send what is there up to `target`.  False: a live reader fell too far behind."""
        while self._position < target and not self._over():
            entries = await self._range(
                log_filter(self._query, newest_first=False, limit=PAGE, after_seq=self._position)
            )
            for entry in entries:
                if self._left == 0:
                    return True
                await self._write(_frame(entry))
                self._position = entry.seq
                if self._left is not None:
                    self._left -= 1
            if len(entries) < PAGE:
                self._position = max(self._position, self._scanned or target)
            if live and await self._head() - target > BEHIND_MAX:
                return False
        return True

    async def _range(self, query: LogFilter) -> list[StoredEvent]:
        page = await self._deps.store.range(self._workspace_id, EVENTS_LOG, query)
        self._scanned = page.next_seq if page.partial else None
        return page.entries

    async def _head(self) -> int:
        return await self._deps.store.head(self._workspace_id, EVENTS_LOG)

    async def _rest(self, bell: asyncio.Event) -> None:
        """Wait for events, a heartbeat or the end."""
        now = self._deps.clock.monotonic()
        if now >= self._beat_at:
            await self._write(b": still here\n\n")
        wait_s = POLL_S if self._due is None else min(POLL_S, max(0.001, self._due - now))
        try:
            async with asyncio.timeout(wait_s):
                await bell.wait()
        except TimeoutError:
            return

    def _over(self) -> bool:
        done = self._due is not None and self._deps.clock.monotonic() >= self._due
        return done or self._left == 0 or self._deps.status.draining() or not self._admitted()

    def _admitted(self) -> bool:
        config = self._deps.config()
        return self._workspace_id in config.workspaces and still_admitted(
            self._caller, self._config, config, self._deps.clock.now_ms()
        )

    async def _say(self, event: str, seq: int) -> None:
        data = jsonbody.dumps({"seq": seq})
        await self._write(b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, event.encode(), data))

    async def _write(self, data: bytes) -> None:
        """Raises _Ended, TimeoutError."""
        if not self._admitted():
            raise _Ended
        async with asyncio.timeout(STUCK_S):
            await self._out.write(data)
        self._beat_at = self._deps.clock.monotonic() + HEARTBEAT_S


def _frame(entry: StoredEvent) -> bytes:
    told = with_seq(entry)
    body = jsonbody.loads(told)
    name = body.get("type") if isinstance(body, dict) else None
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        entry.seq,
        str(name or "message").encode(),
        told,
    )
