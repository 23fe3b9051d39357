"""Failover in words: how an attempt can end, the policy document, the decision that is told.

The policy's members, bounds and defaults are failover.md §1; the decision's are the seed's.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import Field, field_validator, model_validator

from proxy.model.documents import Doc, Name, Slug, slug


class Outcome(StrEnum):
    """How one upstream attempt ended: exactly one class (failover.md §4)."""

    CONNECT = "connect"
    STALE = "stale"
    NO_ANSWER = "no_answer"
    UPSTREAM_5XX = "upstream_5xx"
    BAD_ANSWER = "bad_answer"
    CUT = "cut"
    STALL = "stall"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    AUTH = "auth"
    MODEL_MISSING = "model_missing"
    MISCONFIGURED = "misconfigured"
    CONTEXT_WINDOW = "context_window"
    REFUSAL = "refusal"
    CALLER = "caller"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"
    INTERNAL = "internal"
    SUCCESS = "success"


class Conditions(Doc):
    """When an endpoint counts as slow or broken."""

    latency_threshold_ms: int | None = Field(None, ge=1, le=600_000)
    error_rate_threshold: float | None = Field(None, gt=0, le=1)
    window_seconds: int = Field(60, ge=10, le=3600)
    min_samples: int = Field(10, ge=1, le=10_000)
    min_errors: int = Field(3, ge=1, le=100)
    confidence: float = Field(0.95, ge=0, le=0.999)
    slow_ratio_threshold: float = Field(0.5, gt=0, le=1)
    consecutive_failures: int = Field(5, ge=0, le=100)
    consecutive_slow: int = Field(10, ge=0, le=100)
    latency_basis: Literal["auto", "ttft", "total"] = "auto"

    @field_validator("confidence")
    @classmethod
    def _confidence(cls, value: float) -> float:
        if value and value < 0.5:
            raise ValueError("must be 0, or between 0.5 and 0.999")
        return value

    @model_validator(mode="after")
    def _one_threshold(self) -> "Conditions":
        if self.latency_threshold_ms is None and self.error_rate_threshold is None:
            raise ValueError("needs latency_threshold_ms or error_rate_threshold, or both")
        return self


class Recovery(Doc):
    """How traffic comes back."""

    cooldown_seconds: int = Field(5, ge=1, le=3600)
    max_cooldown_seconds: int = Field(20, ge=1, le=3600)
    backoff_multiplier: float = Field(2, ge=1, le=10)
    probe_requests: int = Field(3, ge=1, le=100)
    probe_max_concurrent: int = Field(1, ge=1, le=10)
    probe_success_ratio: float = Field(0.8, gt=0, le=1)
    ramp_percent: list[int] = Field(default_factory=lambda: [25, 50, 100])
    ramp_step_seconds: int = Field(10, ge=1, le=600)
    min_fallback_seconds: int = Field(10, ge=0, le=3600)

    @field_validator("ramp_percent")
    @classmethod
    def _rising(cls, value: list[int]) -> list[int]:
        if not value or value[-1] != 100 or value != sorted(set(value)) or value[0] < 1:
            raise ValueError("must rise from at least 1 and end at 100")
        return value


class RequestFailover(Doc):
    """What one request may do when its endpoint fails it."""

    enabled: bool = True
    max_attempts: int | None = Field(None, ge=1, le=10)
    same_endpoint_retries: int = Field(1, ge=0, le=2)
    rate_limit_wait_max_ms: int = Field(3000, ge=0, le=60_000)
    total_deadline_ms: int | None = Field(None, ge=1, le=3_600_000)
    budget_percent: int = Field(20, ge=0, le=100)
    min_concurrency: int = Field(3, ge=0, le=100)


class Sticky(Doc):
    enabled: bool = False
    key: Literal["user", "api_key", "conversation"] = "user"
    ttl_seconds: int = Field(300, ge=1, le=86_400)


class FailoverPolicy(Doc):
    """The seed's document: `{route_id, primary_endpoint, fallback_endpoints, conditions}`."""

    id: Slug | None = None
    name: Name | None = None
    status: Literal["active", "paused"] = "active"
    route_id: Slug
    primary_endpoint: Slug
    fallback_endpoints: list[Slug] = Field(min_length=1, max_length=10)
    tiers: list[list[Slug]] | None = None
    conditions: Conditions
    recovery: Recovery = Field(default_factory=Recovery)
    request_failover: RequestFailover = Field(default_factory=RequestFailover)
    sticky: Sticky = Field(default_factory=Sticky)
    on_exhausted: Literal["fail_fast", "try_primary"] = "fail_fast"

    @field_validator("fallback_endpoints", mode="before")
    @classmethod
    def _ids(cls, value: object) -> object:
        """`["bedrock-claude"]` and `[{"id": "bedrock-claude"}]` are the same input."""
        if not isinstance(value, list):
            return value
        return [
            item["id"] if isinstance(item, dict) and set(item) <= {"id", "status"} and "id" in item
            else item
            for item in value
        ]  # fmt: skip

    @model_validator(mode="after")
    def _distinct(self) -> "FailoverPolicy":
        if self.primary_endpoint in self.fallback_endpoints:
            raise ValueError("fallback_endpoints must not hold the primary_endpoint")
        if len(set(self.fallback_endpoints)) != len(self.fallback_endpoints):
            raise ValueError("fallback_endpoints must be unique")
        return self

    @property
    def effective_id(self) -> str:
        """The id that it says, that its name gives, or that its route gives."""
        return self.id or slug(self.name or "") or slug(f"failover-{self.route_id}")

    @property
    def max_attempts(self) -> int:
        """All upstream attempts of one request (failover.md §1)."""
        return self.request_failover.max_attempts or min(4, 2 + len(self.fallback_endpoints))


@dataclass(slots=True)
class Observed:
    """What a rule saw: a ratio or a run beside its threshold, and of how many samples."""

    value: float
    threshold: float
    samples: int
    window_seconds: int


@dataclass(slots=True)
class FailoverDecision:
    """The seed's five members, then ours (failover.md §14).  `resumed_at_chars`, `recovery`: of a
    stream that another answer went on with, what the caller had of it, and how."""

    failover_policy_id: str
    trigger_condition: str
    original_endpoint: str
    selected_fallback: str | None
    timestamp_ms: int
    reason_code: str
    scope: Literal["endpoint", "request"] = "request"
    skipped: list[tuple[str, str]] = field(default_factory=list)
    resumed_at_chars: int | None = None  # of a stream that goes on elsewhere: what was sent of it
    recovery: Literal["prefill", "restart", "buffer"] | None = None
    observed: Observed | None = None  # of all traffic, by the rule that tripped
    route_id: str | None = None  # what a request's decision has from its request
    state_version: int | None = None
