"""What is known of one request when it ends: one record, told exactly once.

The gateway fills it, the spool carries it, the control process expands it into events (events.md
§3.1).  It holds no prompt and no completion.
"""

from dataclasses import dataclass, field

from proxy.model.exchange import Usage
from proxy.model.failover import Attempt, FailoverDecision
from proxy.model.policy import PolicyResult


@dataclass(slots=True)
class RequestRecord:
    """One request.  Times of the wall clock end in `_at_ms`; durations are milliseconds."""

    request_id: str
    event_id: str
    received_at_ms: int
    workspace_id: str = "default"
    route_id: str = ""
    dialect: str = "openai_chat"
    operation: str = "pass"
    stream: bool = False
    api_key_id: str | None = None
    trace_id: str | None = None
    user_id_hash: str | None = None
    conversation_id_hash: str | None = None
    client_retry_count: int | None = None
    requested_model: str | None = None
    model: str | None = None
    provider: str | None = None
    endpoint_id: str | None = None
    original_endpoint: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    decisions: list[FailoverDecision] = field(default_factory=list)
    outcome: str = "gateway_error"
    status_code: int | None = None
    upstream_status: int | None = None
    latency_ms: float = 0.0
    ttft_ms: float | None = None
    upstream_latency_ms: float | None = None
    overhead_ms: float | None = None
    usage: Usage | None = None
    cost_nano: int | None = None
    cost_basis: str | None = None
    price_version: str | None = None
    forwarding: str | None = None
    dropped: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    events_dropped: int = 0
    policy_profile: str | None = None
    policy_results: list[PolicyResult] = field(default_factory=list)
    scanned_chars: int = 0
    total_chars: int = 0
    flagged: bool = False
    truncated_by_policy: bool = False
    failover: bool = False
    recovered: bool = False
    interrupted: bool = False  # the upstream died after content went out
    error_class: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    finished_at_ms: int = 0
