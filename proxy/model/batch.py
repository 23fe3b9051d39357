"""The vocabulary of `commit` (storage.md §2): operations in, revisions and sequence numbers out.

A revision belongs to one document: 1 when it is created, one more with every change.  A document
that is created again after a deletion goes on counting, so that an old revision never fits it.
"""

from dataclasses import dataclass, field
from typing import Literal

ABSENT = -1  # `expect`: the document must not exist
ANY = -2  # `expect`: whatever is there; `token`: whoever holds it
OUTBOX = "outbox"  # what its rows are numbered under, as entries of a log are; no log has this name
CLAIMED_ROWS = 100  # by one `Store.claim`, at most
WHOLE_BATCH = -1  # `StoreConflict.op` when no operation is to blame, but the batch's fence


@dataclass(slots=True, frozen=True)
class Put:
    """Write a document.  `expect`: revision, ABSENT or ANY.  `unique`: (field, value) it holds."""

    kind: str
    id: str
    body: bytes
    expect: int = ANY
    unique: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, frozen=True)
class Delete:
    kind: str
    id: str
    expect: int = ANY


@dataclass(slots=True)
class Append:
    """Append to a log.  A known `event_id` with the same hash is a duplicate, with another hash a
    conflict of this item alone.  `content_hash` is 32 bytes; `dedupe_ttl_s` 0: never recognised.

    `body` is the event as JSON without `seq`; the engine keeps `seq` beside it.  `chained`: the
    body is a row of a hash chain (storage/chain.py), which an engine that other machines write to
    chains anew when the log has grown meanwhile.
    """

    log: str
    body: bytes
    event_id: str = ""
    content_hash: bytes = b""
    dedupe_ttl_s: int = 0
    at_ms: int = 0
    received_ms: int = 0
    type: str = ""
    route_id: str | None = None
    provider: str | None = None
    model: str | None = None
    severity: int | None = None
    outcome: str | None = None
    request_id: str | None = None
    incident_id: str | None = None
    chained: bool = False


@dataclass(slots=True, frozen=True)
class Idem:
    """The finished form of an idempotency record; refused when a finished one exists."""

    key: bytes
    fingerprint: bytes
    status: int
    headers: bytes
    body: bytes
    ttl_s: int


@dataclass(slots=True, frozen=True)
class Cursor:
    """Move a position; refused when the stored one is not `old` (0 when there is none)."""

    name: str
    old: int
    new: int


@dataclass(slots=True, frozen=True)
class Count:
    """Add to a rollup: integer counters only."""

    minute: int
    series: str
    counters: dict[int, int]


@dataclass(slots=True, frozen=True)
class OutboxPut:
    """Write something that must be sent, not before `due_ms`.  The store numbers it.

    Rows of one (target, group) are claimed in the order of their numbers, one at a time: the next
    is to be had when the one before it is done.  An empty group has no order.
    """

    target: str
    group: str
    kind: str
    payload: bytes
    due_ms: int
    attempts: int = 0


@dataclass(slots=True, frozen=True)
class OutboxDone:
    """Take a row away.  Refused (`fence`) unless it is claimed under this token, and when it is
    not there (`missing`); with the token ANY whoever has it loses it, and a missing one is fine."""

    id: int
    token: int


@dataclass(slots=True, frozen=True)
class OutboxRetry:
    """Give a claimed row back, to be sent at `due_ms`.  Refused as `OutboxDone` is."""

    id: int
    token: int
    due_ms: int
    attempts: int


Op = Put | Delete | Append | Idem | Cursor | Count | OutboxPut | OutboxDone | OutboxRetry


@dataclass(slots=True, frozen=True)
class Fence:
    """The lease (`ports.Leases`) under which a worker of a cluster writes, and its token."""

    lease: str
    token: int


@dataclass(slots=True, frozen=True)
class Batch:
    """All or nothing.  `commit_id` (a ULID) makes an ambiguous answer safe to repeat.  With a
    `fence` it is refused once the lease is not held under that token."""

    commit_id: str
    ops: tuple[Op, ...]
    fence: Fence | None = None


@dataclass(slots=True)
class Appended:
    """What became of one `Append`, in the order of the batch."""

    seq: int
    status: Literal["accepted", "duplicate", "conflict"]
    received_ms: int = 0


@dataclass(slots=True)
class CommitResult:
    """`outbox`: the numbers of the rows written, in the order of the batch."""

    revisions: dict[tuple[str, str], int] = field(default_factory=dict)
    appended: list[Appended] = field(default_factory=list)
    outbox: list[int] = field(default_factory=list)


class StoreConflict(Exception):
    """Nothing was applied.  `op` is the index in the batch; WHOLE_BATCH: its fence is stale."""

    def __init__(
        self,
        op: int,
        reason: Literal["revision", "exists", "missing", "unique", "fence", "idem", "cursor"],
    ) -> None:
        super().__init__(f"operation {op}: {reason}")
        self.op = op
        self.reason = reason


@dataclass(slots=True, frozen=True)
class OutboxRow:
    """What waits to be sent.  `owner`: who has claimed it, empty when nobody has; `token`: of the
    last claim, 0 before the first."""

    id: int
    target: str
    group: str
    kind: str
    payload: bytes
    due_ms: int
    attempts: int
    owner: str = ""
    token: int = 0


class StoreUnavailable(Exception):
    """The store cannot be written or read now.  `code`: control-api §5.

    Nothing was applied; from a store over the network that went silent twice, a commit may have
    been.  Whoever repeats it is told by its idempotency record, its cursor or its event ids.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(slots=True, frozen=True)
class LogFilter:
    """Which entries, in which direction.  `since_ms` and `until_ms` are on the event's own time,
    half-open.  `types` may end in `.*`.  None: no condition; a tuple: any of these."""

    after_seq: int | None = None
    before_seq: int | None = None
    newest_first: bool = True
    offset: int = 0
    limit: int = 25
    types: tuple[str, ...] | None = None
    route_ids: tuple[str, ...] | None = None
    providers: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    severities: tuple[int, ...] | None = None
    outcomes: tuple[str, ...] | None = None
    request_ids: tuple[str, ...] | None = None
    incident_ids: tuple[str, ...] | None = None
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(slots=True)
class StoredEvent:
    """One log entry: its sequence number and the body as it was appended."""

    seq: int
    body: bytes


@dataclass(slots=True, frozen=True)
class Setback:
    """`times`: how often a log was found without its last entries (a Redis that crashed).
    `whole_to`: the last `seq` that was the same before and after, the last time."""

    times: int = 0
    whole_to: int = 0


@dataclass(slots=True)
class LogPage:
    """`total` is None when the filter met the bound on rows read (`partial`).

    `next_seq` goes on from here, as `before_seq` newest first and as `after_seq` oldest first.
    None: nothing is left.
    """

    entries: list[StoredEvent]
    total: int | None
    next_seq: int | None = None
    partial: bool = False


@dataclass(slots=True, frozen=True)
class FinishedIdem:
    """What `idempotency` gives back: the answer that was given."""

    fingerprint: bytes
    status: int
    headers: bytes
    body: bytes


_DAY_MS = 86_400_000


@dataclass(slots=True, frozen=True)
class Retention:
    """How long things are kept (storage.md §6); the log `events` also by size, in Redis by number,
    incidents also by number.  Logs without a member here are kept."""

    events_ms: int = 7 * _DAY_MS
    events_bytes: int = 2 << 30
    redis_max_events: int = 2_000_000  # of one workspace
    rollups_ms: int = 90 * _DAY_MS
    audit_ms: int = 365 * _DAY_MS
    attempts_ms: int = 30 * _DAY_MS  # the logs `attempts` and `decisions`
    dead_ms: int = 14 * _DAY_MS
    incidents_ms: int = 365 * _DAY_MS  # with their correlations and notes; diffs of watchers, too
    incidents_most: int = 50_000  # of one workspace
    digests_ms: int = 365 * _DAY_MS

    def log_ms(self) -> dict[str, int]:
        """For how long each log is kept."""
        return {
            "events": self.events_ms,
            "audit": self.audit_ms,
            "attempts": self.attempts_ms,
            "decisions": self.attempts_ms,
            "dead": self.dead_ms,
            "notes": self.incidents_ms,
            "diffs": self.incidents_ms,
        }
