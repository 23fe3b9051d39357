"""The connections to one endpoint, and the calls that they carry.

Newest idle first: the oldest are those that a provider has just closed.  There is no limit to the
connections and so no hidden queue; what is idle too long is closed by the sweeper.  With an idle
connection at hand `start` writes at once: no task, no timer.

The life of a call:

    start ─┬─ idle connection ──> carried ─┬─> answered        the sink's `end`
           └─> connecting ──────> carried  ├─> broken, expired the sink's `failed`
                    ^                │     └─> cancelled       nothing
                    └── stale ───────┘

Stale: a reused connection died before any byte of an answer.  The request goes out once more, on a
fresh connection, and the sink does not notice (failover.md §8.5).

Invariant: a call tells its sink of its end at most once, and nothing after `cancel`.
"""

import asyncio
from collections.abc import Callable

from proxy.model.exchange import Outgoing
from proxy.model.observations import UpstreamStale
from proxy.model.ports import Clock, Observe, Sink, TransportFault
from proxy.runtime.tasks import spawn
from proxy.upstream.connect import Connector
from proxy.upstream.sweeper import Sweeper
from proxy.upstream.transport import Connection

IDLE_LIMIT_S = 30.0
CALLER_LIMIT_S = 60.0  # a caller that reads nothing so long is cut
_STANDING = frozenset(("first_content", "idle"))  # clocks that stand still while paused


class PooledCall:
    """`model.ports.Call` on a connection of a pool."""

    __slots__ = (
        "_connect_s",
        "_connecting_since",
        "_connection",
        "_outgoing",
        "_paused_since",
        "_pool",
        "_reused",
        "_sink",
        "_task",
        "due",
        "phase",
    )

    def __init__(
        self, pool: "Pool", outgoing: Outgoing, sink: Sink, connect_s: float, due: float, phase: str
    ) -> None:
        self.due = due
        self.phase = phase
        self._pool = pool
        self._outgoing = outgoing
        self._sink: Sink | None = sink  # None: over
        self._connect_s = connect_s
        self._connection: Connection | None = None
        self._reused = False
        self._task: asyncio.Task[None] | None = None
        self._connecting_since: float | None = None
        self._paused_since: float | None = None

    # ------------------------------------------------------------------------- the owner's

    def pause(self) -> None:
        if self._sink is None or self._paused_since is not None:
            return
        self._paused_since = self._pool.clock.monotonic()
        self._mark_still()
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._sink is None or self._paused_since is None:
            return
        if self._connecting_since is None:
            self._catch_up(self._paused_since)
            self._mark_running()
        self._paused_since = None
        if self._connection is not None:
            self._connection.resume()

    def cancel(self) -> None:
        if self._sink is not None:
            self._close()

    # ----------------------------------------------------------------------- the sweeper's

    def overdue(self, now: float) -> str | None:
        if self._paused_since is not None and now - self._paused_since >= CALLER_LIMIT_S:
            return "caller"
        if self.phase not in _STANDING and self.due <= now:
            return self.phase
        return None

    def expire(self, phase: str, detail: str = "") -> None:
        if self._sink is None:
            return
        response_bytes = self._connection.answer_bytes if self._connection is not None else 0
        self._close().failed(TransportFault(phase, detail, response_bytes=response_bytes))

    # -------------------------------------------------------------------------- the pool's

    def carry(self, connection: Connection, *, reused: bool) -> None:
        assert self._sink is not None
        self._connection = connection
        self._reused = reused
        connection.carry(self, self._sink, self._outgoing)
        if self._paused_since is not None:
            connection.pause()

    def connect(self) -> None:
        self._connecting_since = self._pool.clock.monotonic()
        self._mark_still()
        self._task = spawn(self._connect(), name=f"connect {self._pool.name}")

    async def _connect(self) -> None:
        try:
            connection = await self._pool.open(self._connect_s)
        except TransportFault as fault:
            if self._sink is not None:
                self._task = None
                self._close().failed(fault)
            return
        finally:
            self._connected()
        if self._sink is None:
            connection.drop()
        else:
            self.carry(connection, reused=False)

    def _connected(self) -> None:
        """The clocks run: what limits an answer counts from the request, not from the dialling."""
        self._task = None
        if self._sink is None or self._connecting_since is None:
            return
        self._catch_up(self._connecting_since)
        self._connecting_since = None
        if self._paused_since is None:
            self._mark_running()
        else:
            self._paused_since = self._pool.clock.monotonic()

    # -------------------------------------------------------------------- the connection's

    def answered(self, connection: Connection, *, reusable: bool) -> None:
        paused = self._paused_since is not None
        sink = self._over()
        if not reusable:
            connection.drop()
        else:
            if paused:
                connection.resume()
            self._pool.keep(connection)
        sink.end()

    def broken(self, fault: TransportFault) -> None:
        """The connection is gone, or on its way: it died, or it was refused."""
        if self._reused and fault.response_bytes == 0 and self._outgoing.replayable:
            self._connection, self._reused = None, False
            self._pool.observe(UpstreamStale(self._pool.name))
            self.connect()
        else:
            self._over().failed(fault)

    # ------------------------------------------------------------------------------- books

    def _catch_up(self, since: float) -> None:
        if self.phase in _STANDING:
            self.due += self._pool.clock.monotonic() - since

    def _mark_still(self) -> None:
        self._pool.sweeper.running.discard(self)
        self._pool.sweeper.still.add(self)

    def _mark_running(self) -> None:
        self._pool.sweeper.still.discard(self)
        self._pool.sweeper.running.add(self)

    def _over(self) -> Sink:
        """Off the books.  Hand out the sink, for its last word."""
        sink, self._sink = self._sink, None
        assert sink is not None, "a call ends once"
        self._connection = None
        self._pool.sweeper.running.discard(self)
        self._pool.sweeper.still.discard(self)
        self._pool.busy -= 1
        return sink

    def _close(self) -> Sink:
        """End whatever is under way, in whatever phase."""
        connection, task = self._connection, self._task
        self._task = None
        sink = self._over()
        if connection is not None:
            connection.drop()
        if task is not None:
            task.cancel()
        return sink

    def __repr__(self) -> str:
        if self._sink is None:
            return f"<PooledCall {self._pool.name} over>"
        state = "connecting" if self._connection is None else "carried"
        paused = ", paused" if self._paused_since is not None else ""
        return f"<PooledCall {self._pool.name} {state}{paused}>"


class Pool:
    """`model.ports.Upstream`: the way to one endpoint.  `name` is the endpoint's id."""

    __slots__ = (
        "_connections",
        "_connector",
        "_emptied",
        "_idle",
        "_idle_limit_s",
        "_retired",
        "busy",
        "clock",
        "name",
        "observe",
        "sweeper",
    )

    def __init__(
        self,
        name: str,
        connector: Connector,
        sweeper: Sweeper,
        clock: Clock,
        observe: Observe,
        idle_limit_s: float = IDLE_LIMIT_S,
    ) -> None:
        self.name = name
        self.sweeper = sweeper
        self.clock = clock
        self.observe = observe
        self.busy = 0  # calls under way, connecting ones included
        self._connector = connector
        self._idle_limit_s = idle_limit_s
        self._idle: dict[Connection, float] = {}  # since when; the newest is the last
        self._connections: set[Connection] = set()
        self._retired = False
        self._emptied: Callable[[], object] | None = None

    def start(
        self, outgoing: Outgoing, sink: Sink, *, connect_s: float, due: float, phase: str
    ) -> PooledCall:
        call = PooledCall(self, outgoing, sink, connect_s, due, phase)
        self.busy += 1
        connection = self._newest_idle()
        if connection is None:
            call.connect()
        else:
            self.sweeper.running.add(call)
            call.carry(connection, reused=True)
        return call

    def prune(self, now: float) -> None:
        """Close what has been idle too long."""
        while self._idle:
            oldest, since = next(iter(self._idle.items()))
            if now - since < self._idle_limit_s:
                break
            del self._idle[oldest]
            oldest.drop()

    def retire(self) -> None:
        """Nobody new will come: calls under way end in peace, nothing is kept."""
        self._retired = True
        for connection in self._idle:
            connection.drop()
        self._idle.clear()

    async def emptied(self) -> None:
        """Wait until the last connection is gone."""
        if self._connections:
            gone = asyncio.Event()
            self._emptied = gone.set
            await gone.wait()

    async def open(self, connect_s: float) -> Connection:
        """Raises TransportFault."""
        connection = await self._connector.open(connect_s, self._lost)
        if not connection.is_lost():
            self._connections.add(connection)
        return connection

    def keep(self, connection: Connection) -> None:
        if self._retired:
            connection.drop()
        else:
            self._idle[connection] = self.clock.monotonic()

    def _newest_idle(self) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_quiet():
                return connection
            connection.drop()
        return None

    def _lost(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._connections.discard(connection)
        if not self._connections and self._emptied is not None:
            self._emptied()

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.busy} busy {len(self._idle)} idle>"
