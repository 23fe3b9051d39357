"""What is known of one request when it ends: one record, told exactly once.

The gateway fills it, the spool carries it, the control process expands it into events (events.md
§3.1).  It holds no prompt and no completion.
"""

from dataclasses import dataclass
from typing import Final

from proxy.model.exchange import Usage
from proxy.model.failover import FailoverDecision, Outcome
from proxy.model.policy import PolicyResult
from proxy.model.tools import PermissionDecision

# characters that a guarded stream holds back at the end of a chunk: bounds of their histogram
REASONING_OFF: Final = "reasoning_off"  # of `unread_chars`: counted in `total_chars`, too
HELD_BOUNDS: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(slots=True, init=False)
class Attempt:
    """One upstream attempt, as it is told in `upstream_attempts[]`.  `why`: `status 503`,
    `first_content > 10000ms`, `connect: refused`.  `timed_out`: the limit that expired, one of
    connect, first_content, idle, total, unary.  `usage`, `model`: where more than one attempt of a
    request was answered, what its answer told."""

    endpoint_id: str
    outcome: Outcome
    upstream_status: int | None
    latency_ms: float
    ttft_ms: float | None
    tokens: dict[str, int | bool] | None
    cost_nano: int | None
    why: str
    timed_out: str
    retry_after_s: float | None
    usage: Usage | None
    model: str | None

    def __init__(
        self,
        endpoint_id: str,
        outcome: Outcome,
        upstream_status: int | None = None,
        latency_ms: float = 0.0,
        why: str = "",
        timed_out: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.endpoint_id = endpoint_id
        self.outcome = outcome
        self.upstream_status = upstream_status
        self.latency_ms = latency_ms
        self.why = why
        self.timed_out = timed_out
        self.retry_after_s = retry_after_s
        self.ttft_ms = self.tokens = self.cost_nano = None
        self.usage = self.model = None


@dataclass(slots=True, init=False)
class RequestRecord:
    """One request.  Times of the wall clock end in `_at_ms`; durations are milliseconds.

    It is made with what is known at first sight, by an initialiser of its own: one with a parameter
    per member costs half as much again, on the path of every request.
    """

    request_id: str
    event_id: str
    received_at_ms: int
    workspace_id: str
    route_id: str
    dialect: str
    operation: str
    stream: bool
    api_key_id: str | None
    trace_id: str | None
    user_id_hash: str | None
    conversation_id_hash: str | None
    client_retry_count: int | None
    requested_model: str | None
    model: str | None
    provider: str | None
    endpoint_id: str | None
    original_endpoint: str | None
    attempts: list[Attempt]
    decisions: list[FailoverDecision]
    outcome: str
    status_code: int | None
    upstream_status: int | None
    latency_ms: float
    ttft_ms: float | None
    upstream_latency_ms: float | None
    overhead_ms: float | None
    usage: Usage | None
    cost_nano: int | None
    cost_basis: str | None
    price_version: str | None
    forwarding: str | None
    dropped: list[str]
    finish_reason: str | None
    request_bytes: int
    response_bytes: int
    events_dropped: int
    placeholders_unrestored: int
    policy_profile: str | None
    policy_results: list[PolicyResult]
    permissions: list[PermissionDecision]
    scanned_chars: int
    total_chars: int
    unread_chars: dict[str, int] | None  # by reason: no rule could look there
    unknown_events: int  # of a guarded stream: of types that its dialect does not have
    guard_request_s: float
    guard_unary_s: float
    guard_lane_s: float  # of a guarded stream: reading and judging it, all chunks together
    held_counts: list[int] | None  # by HELD_BOUNDS, the last one open, then the sum
    flagged: bool
    truncated_by_policy: bool
    failover: bool
    recovered: bool
    interrupted: bool  # the upstream died after content went out
    error_class: str | None
    error_code: str | None
    error_message: str | None
    finished_at_ms: int

    def __init__(self, request_id: str, event_id: str, received_at_ms: int) -> None:
        self.request_id = request_id
        self.event_id = event_id
        self.received_at_ms = received_at_ms
        self.workspace_id = "default"
        self.dialect = "openai_chat"
        self.operation = "pass"
        self.outcome = "gateway_error"
        self.attempts = []
        self.decisions = []
        self.dropped = []
        self.policy_results = []
        self.permissions = []
        self.latency_ms = self.guard_request_s = self.guard_unary_s = self.guard_lane_s = 0.0
        self.held_counts = self.unread_chars = None
        self.route_id = ""
        self.stream = self.flagged = self.truncated_by_policy = False
        self.failover = self.recovered = self.interrupted = False
        self.request_bytes = self.response_bytes = self.events_dropped = 0
        self.scanned_chars = self.total_chars = self.finished_at_ms = 0
        self.placeholders_unrestored = self.unknown_events = 0
        self.api_key_id = self.trace_id = self.policy_profile = None
        self.user_id_hash = self.conversation_id_hash = self.client_retry_count = None
        self.requested_model = self.model = self.provider = None
        self.endpoint_id = self.original_endpoint = None
        self.status_code = self.upstream_status = None
        self.ttft_ms = self.upstream_latency_ms = self.overhead_ms = None
        self.usage = self.cost_nano = self.cost_basis = self.price_version = None
        self.forwarding = self.finish_reason = None
        self.error_class = self.error_code = self.error_message = None
