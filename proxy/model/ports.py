"""The ports: what the stories ask of the adapters.  Each has a fake in tests/kit."""

from collections.abc import Callable, Sequence
from typing import Protocol

from proxy.model.batch import (
    Batch,
    CommitResult,
    Fence,
    LogFilter,
    LogPage,
    OutboxRow,
    Setback,
    StoredEvent,
)
from proxy.model.coord import NodeBeat, Quota
from proxy.model.exchange import Outgoing, RawHeaders
from proxy.model.observations import Observation
from proxy.model.tenancy import Endpoint

Observe = Callable[[Observation], None]


class Clock(Protocol):
    """`now_ms`: milliseconds since 1970, for people.  `monotonic`: seconds, for limits."""

    def now_ms(self) -> int: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    """New identifiers: prefix + lower-case ULID."""

    def new(self, prefix: str) -> str: ...


class TransportFault(Exception):
    """The way to the endpoint failed, not its answer.

    `phase` says where: `dns`, `refused`, `tls`, `connect_timeout`, `blocked_address`, `reset`,
    `eof`, `bad_http`, or the name of the limit that expired (`first_content`, `idle`, `total`,
    `unary`, `caller`).  `response_bytes` counts what had come of the answer.
    """

    def __init__(self, phase: str, detail: str = "", *, response_bytes: int = 0) -> None:
        super().__init__(f"{phase}: {detail}" if detail else phase)
        self.phase = phase
        self.detail = detail
        self.response_bytes = response_bytes


class Sink(Protocol):
    """Where an answer is pushed, in this order: head once, data often, then end or failed, once.

    Called from the transport's `data_received`: it must return quickly and must not raise.
    Header names are lower case.
    """

    def head(self, status: int, headers: RawHeaders) -> None: ...
    def data(self, chunk: bytes) -> None: ...
    def end(self) -> None: ...
    def failed(self, fault: TransportFault) -> None: ...


class Call(Protocol):
    """One attempt under way.

    `due` (seconds of the monotonic clock) and `phase` are the limit in force: the sweeper ends the
    call with `TransportFault(phase)` at most 100 ms after `due`.  The owner moves them as the
    answer goes on.  `cancel` closes the connection at once and calls nothing.
    """

    due: float
    phase: str

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cancel(self) -> None: ...


class Upstream(Protocol):
    """The way to one endpoint: a pool of connections."""

    def start(
        self, outgoing: Outgoing, sink: Sink, *, connect_s: float, due: float, phase: str
    ) -> Call:
        """Send one request; its answer is pushed into `sink`.  Never raises: faults go to the sink.

        Connecting is limited by `connect_s`.  A reused connection that dies before any byte of an
        answer is replaced by a fresh one once, unseen by the sink (failover.md §8.5).
        """
        ...


class Upstreams(Protocol):
    def of(self, workspace_id: str, endpoint: Endpoint) -> Upstream: ...


class Outflow(Protocol):
    """Where an answer flows to."""

    def write(self, data: bytes) -> None: ...
    def follow(self, call: "Call | None") -> None:
        """Pause this call while the caller does not read."""
        ...


class Downstream(Outflow, Protocol):
    """The caller's side of one request.

    `begin` says the head, which leaves with the first bytes of the body; `write` sends at once;
    `hold` keeps the last bytes until `end`, so that the record is on disk before them.  With
    `cut` the answer ends without its last chunk and the connection closes (wire.md §7.6).
    `gone`: the caller has left.  `begun`: bytes have left, so no other answer is possible.
    """

    @property
    def gone(self) -> bool: ...
    @property
    def begun(self) -> bool: ...
    @property
    def bytes_sent(self) -> int: ...

    async def body(self, limit_bytes: int) -> bytes:
        """The request's body.  Raises TooLarge, InvalidRequest (a bad or slow body)."""
        ...

    def begin(self, status: int, head: bytes, *, length: int | None) -> None: ...
    def hold(self, last: bytes, *, cut: bool = False) -> None: ...
    def end(self) -> None: ...
    def release(self) -> None:
        """Write what is held, for once before the end: nothing of the answer waits any more."""
        ...


class Journal(Protocol):
    """The spool, as the gateway sees it: one line per request, on disk before the last write."""

    def append(self, line: bytes, *, critical: bool) -> None: ...


class Store(Protocol):
    """What must not be lost.  One atomic write, narrow reads (storage.md §1, §2)."""

    async def commit(self, workspace_id: str, batch: Batch) -> CommitResult:
        """All or nothing.  Raises StoreConflict, StoreUnavailable."""
        ...

    async def get(self, workspace_id: str, kind: str, doc_id: str) -> tuple[int, bytes] | None:
        """(revision, body)"""
        ...

    async def revision(self, workspace_id: str, kind: str, doc_id: str) -> int:
        """The last revision of a document, also of one that was deleted; 0: there was none."""
        ...

    async def scan(self, workspace_id: str, kind: str) -> Sequence[tuple[str, int, bytes]]:
        """(id, revision, body), by id"""
        ...

    def edition(self, workspace_id: str, kind: str) -> int | None:
        """Another number after each change of a document of that kind; None: it is not known, and
        only `scan` tells."""
        ...

    async def range(self, workspace_id: str, log: str, query: LogFilter) -> LogPage:
        """A page of a log in order of `seq`."""
        ...

    async def event(self, workspace_id: str, event_id: str) -> StoredEvent | None: ...

    async def head(self, workspace_id: str, log: str) -> int:
        """The last `seq`, 0 when the log is empty."""
        ...

    def setback(self, workspace_id: str, log: str) -> Setback:
        """Whether the log has lost its end since this process began."""
        ...

    async def cursor(self, workspace_id: str, name: str) -> int: ...

    async def idempotency(self, workspace_id: str, key: bytes) -> "IdempotencyRecord | None": ...

    async def claim(
        self,
        workspace_id: str,
        owner: str,
        *,
        lease_ms: int,
        limit: int = 32,
        fence: Fence | None = None,
    ) -> Sequence[OutboxRow]:
        """Rows of the outbox that are due, each with a token of its own that `OutboxDone` and
        `OutboxRetry` must name; oldest due first, 100 at most.

        A row is nobody else's for `lease_ms`; then it can be claimed again and the token is stale.
        Only the first row of a (target, group) is given.  Raises StoreConflict (`fence`) when the
        fence is stale, StoreUnavailable.
        """
        ...

    async def outbox(
        self, workspace_id: str, *, after_id: int = 0, limit: int = 100
    ) -> Sequence[OutboxRow]:
        """What waits to be sent, by number, whoever has claimed it."""
        ...

    def writable(self) -> bool: ...


class IdempotencyRecord(Protocol):
    @property
    def fingerprint(self) -> bytes: ...
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> bytes: ...
    @property
    def body(self) -> bytes: ...


class Leases(Protocol):
    """Who of several nodes does a thing (storage.md §4).  A lease is held by one node until its
    time is over or it is given back; whoever holds it renews it every third of that time.

    Each `take` gives a greater token than all before it, under this name.  The holder commits with
    it as `batch.Fence`, so what a node says that was away for too long is refused.  The name is
    that of the workspace that is written.
    """

    async def take(self, name: str, node: str, ttl_s: float) -> int | None:
        """The token; None while another node holds it.  A node that takes what it holds begins
        anew: its older token is stale.  Raises StoreUnavailable."""
        ...

    async def renew(self, name: str, node: str, token: int, ttl_s: float) -> bool:
        """False: it is not held under this token any more.  Raises StoreUnavailable."""
        ...

    async def free(self, name: str, node: str, token: int) -> None:
        """Give it back; nothing happens when it is not held under this token.  Raises
        StoreUnavailable."""
        ...


class Coord(Protocol):
    """What machines agree on while they run; losing all of it is legal (storage.md §1).

    No call raises, and none waits for a server that is away: what cannot be agreed on is decided by
    this process alone.
    """

    async def take(self, workspace_id: str, rate_class: str, owner: str, limit: int) -> Quota:
        """Take one request from the owner's bucket, which holds `limit` a minute.  While the
        bucket cannot be reached: from this node's share of it, at least one."""
        ...

    async def begin(self, workspace_id: str, key: bytes, fingerprint: bytes) -> bytes | None:
        """Mark an idempotent request as under way, for a minute at most.  None: it is marked now;
        else the fingerprint of the one that is under way."""
        ...

    async def ended(self, workspace_id: str, key: bytes, within_s: float) -> bool:
        """Wait for the end of the request that is under way.  False: it goes on."""
        ...

    async def end(self, workspace_id: str, key: bytes) -> None:
        """Take back the mark of `begin`."""
        ...

    async def notify(self) -> None:
        """Tell the other machines that something was committed."""
        ...

    async def noticed(self) -> None:
        """Wait until another machine has told so, or may have; for one waiter."""
        ...

    async def beat(self, node: NodeBeat) -> None:
        """Say that this node is alive; to be repeated every second."""
        ...

    def nodes(self) -> Sequence[NodeBeat]:
        """The nodes that are alive, this one included, as last known; by id."""
        ...
