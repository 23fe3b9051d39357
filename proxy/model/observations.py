"""Everything worth observing on the data path, as one closed union.

Code says `observe(SomethingHappened(...))`; what is counted and what is logged is decided by a
`match` in `telemetry/`.
"""

from dataclasses import dataclass

from proxy.model.records import RequestRecord


@dataclass(slots=True)
class RequestFinished:
    """A request ended, whatever the way: exactly once per request."""

    record: RequestRecord


@dataclass(slots=True)
class UpstreamStale:
    """A pooled connection died with no byte of an answer; the request went out again."""

    endpoint_id: str


@dataclass(slots=True)
class RetryBudgetSpent:
    """A retry was not made: too many of that policy are under way."""

    policy_id: str


@dataclass(slots=True)
class StreamEventDropped:
    """An event of a stream did not parse: what cannot be scanned is not forwarded."""

    endpoint_id: str


@dataclass(slots=True)
class StreamRecovery:
    """A stream had died after its content went out.  `mode`: `prefill`, `restart`, `buffer`; `none`
    where nobody was asked.  `result`: what came of it."""

    mode: str
    result: str


@dataclass(slots=True)
class GuardOverflowed:
    """A candidate match stayed undecided beyond `guard.hold_max_chars`."""

    policy_id: str
    rule_id: str


@dataclass(slots=True)
class GuardAsked:
    """A check outside was asked.  `result`: `pass`, `violation`, `cached`, or why it failed."""

    policy_id: str
    rule_id: str
    result: str
    failed: bool = False


@dataclass(slots=True)
class GuardAskingEnded:
    """A check outside has said all that it was asked of a request or of a piece of an answer."""

    elapsed_s: float


@dataclass(slots=True)
class LimitReached:
    """A request was refused by a limit of its key or of its route (`scope`)."""

    workspace_id: str
    scope: str
    limit: str


@dataclass(slots=True)
class SpoolLost:
    """A record could not be written to the spool."""

    reason: str


@dataclass(slots=True)
class SpoolDropped:
    """Lines of a class were dropped at the cap of the spool."""

    line_class: str
    lines: int


@dataclass(slots=True)
class SnapshotApplied:
    version: int


@dataclass(slots=True)
class SnapshotRejected:
    version: int
    reason: str


Observation = (
    RequestFinished
    | UpstreamStale
    | RetryBudgetSpent
    | StreamEventDropped
    | StreamRecovery
    | GuardOverflowed
    | GuardAsked
    | GuardAskingEnded
    | LimitReached
    | SpoolLost
    | SpoolDropped
    | SnapshotApplied
    | SnapshotRejected
)
