"""Documents about telling people: alert rules, delivery targets, watchers, digests.

Members, bounds and defaults are alerts.md §1, §7, §11 and control-api.md §12.1.  The file takes
them and refuses what is wrong with them; `settings/later.py` says which are acted on.
"""

import base64
import binascii
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from proxy.model.documents import (
    COMPOSED,
    Doc,
    EnvRef,
    FileRef,
    Name,
    Number,
    Secret,
    Severity,
    Slug,
)
from proxy.model.tenancy import HeaderName, HeaderValue
from proxy.settings.values import TimeZone

Metric = Literal[
    "latency",
    "ttft",
    "error_rate",
    "violations",
    "violation_rate",
    "cost",
    "tokens",
    "failover",
    "requests",
    "permission_denied",
    "change",
    "incident",
]
Aggregation = Literal["p50", "p90", "p95", "p99", "avg", "max", "sum"]
GroupBy = Literal["route_id", "provider", "model", "endpoint_id", "policy_id", "rule_id"]
Targets = Annotated[list[Slug], Field(max_length=20)]
HeaderText = Annotated[str, StringConstraints(pattern=r"^[^\r\n\x00]*$", max_length=200)]
HeaderSecret = Annotated[HeaderValue, StringConstraints(min_length=1)] | EnvRef | FileRef
SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = range(24, 65)
TargetEvent = Literal["alert", "resolved", "incident", "digest", "system"]
_TOLD: tuple[TargetEvent, ...] = ("alert", "resolved", "digest", "system")
_TIMES = ("latency", "ttft")
_COUNTS = ("failover", "change", "incident", "violations")
_RATES = ("error_rate", "violation_rate")


def _signing(value: str) -> str:
    """Of webhooks, as alerts.md §7 has it; the text of a fault never holds it."""
    try:
        key = base64.b64decode(value.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not value.startswith(SECRET_PREFIX) or len(key) not in SECRET_BYTES:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 bytes")
    return value


SigningSecret = Annotated[str, AfterValidator(_signing)] | EnvRef | FileRef


class Filters(Doc):
    route_id: list[str] = Field(default_factory=list)
    provider: list[str] = Field(default_factory=list)
    model: list[str] = Field(default_factory=list)
    endpoint_id: list[str] = Field(default_factory=list)
    policy_id: list[str] = Field(default_factory=list)
    rule_id: list[str] = Field(default_factory=list)
    classification: list[str] = Field(default_factory=list)
    action_taken: list[str] = Field(default_factory=list)
    severity_min: Severity | None = None
    token_type: Literal["input", "output"] | None = None


class AlertCondition(Doc):
    metric: Metric
    threshold_ms: Number | None = Field(None, gt=0, le=3_600_000)
    threshold: Number | None = Field(None, ge=0)
    operator: Literal["gt", "gte", "lt", "lte"] | None = None
    window_seconds: int = Field(300, ge=10, le=86_400)
    aggregation: Aggregation | None = None
    min_samples: int | None = Field(None, ge=1, le=100_000)
    for_seconds: int = Field(0, ge=0, le=3600)
    keep_firing_seconds: int = Field(60, ge=0, le=3600)
    resolve_threshold: Number | None = None
    resolve_threshold_ms: Number | None = None
    no_data: Literal["keep", "resolve", "alert"] = "keep"
    group_by: list[GroupBy] = Field(default_factory=list)
    filters: Filters = Field(default_factory=Filters)

    @model_validator(mode="after")
    def _threshold(self) -> "AlertCondition":
        if self.metric in _TIMES:
            if self.threshold_ms is None or self.threshold is not None:
                raise ValueError(f"metric {self.metric} needs threshold_ms and no threshold")
        elif self.threshold_ms is not None:
            raise ValueError(f"metric {self.metric} takes threshold, not threshold_ms")
        elif self.threshold is None and self.metric not in _COUNTS:
            raise ValueError(f"metric {self.metric} needs threshold")
        elif self.metric in _RATES and (self.threshold or 0) > 1:
            raise ValueError(f"threshold of {self.metric} is a rate between 0 and 1")
        return self


class Notify(Doc):
    group_wait_seconds: int = Field(5, ge=0, le=300)
    group_interval_seconds: int = Field(300, ge=10, le=3600)
    repeat_interval_seconds: int = Field(14_400, ge=0, le=604_800)
    send_resolved: bool = True


class AlertRule(Doc):
    id: Slug | None = None
    name: Annotated[str, Field(min_length=1, max_length=200), COMPOSED]
    status: Literal["active", "paused"] = "active"
    severity: Severity = "medium"
    delivery_targets: Targets = Field(default_factory=list)
    condition: AlertCondition
    notify: Notify = Field(default_factory=Notify)
    create_incident: bool | None = None


class SlackConfig(Doc):
    webhook_url: Secret
    channel: str | None = Field(None, pattern=r"^[#@]\S{1,80}$")
    username: HeaderText | None = None
    icon_emoji: HeaderText | None = None
    mention: HeaderText | None = None


class Smtp(Doc):
    """A mail server; `host` null: none."""

    host: str | None = Field(None, pattern=r"^[^\s\x00-\x1f\x7f/@]+$", max_length=253)
    port: int = Field(587, ge=1, le=65_535)
    starttls: Literal["required", "opportunistic", "off"] = "required"
    implicit_tls: bool = False
    username: str | None = None
    password: Secret | None = None
    from_: HeaderText | None = Field(None, alias="from")


class EmailConfig(Doc):
    to: list[HeaderText] = Field(min_length=1, max_length=50)
    from_: HeaderText | None = Field(None, alias="from")
    reply_to: HeaderText | None = None
    subject_prefix: HeaderText | None = None
    smtp: Smtp | None = None


class WebhookConfig(Doc):
    url: Secret
    secret: SigningSecret | None = None
    headers: dict[HeaderName, HeaderSecret] = Field(default_factory=dict, max_length=20)
    timeout_seconds: int = Field(15, ge=1, le=30)
    schema_version: str | None = None


class PagerdutyConfig(Doc):
    routing_key: Secret
    region: Literal["us", "eu"] = "us"
    severity_map: dict[Severity, str] = Field(default_factory=dict)


class _Target(Doc):
    id: Slug | None = None
    name: Name
    default_severity: Severity = "medium"
    min_severity: Severity = "info"
    events: list[TargetEvent] = Field(default_factory=lambda: list(_TOLD))


class SlackTarget(_Target):
    type: Literal["slack"]
    config: SlackConfig


class EmailTarget(_Target):
    type: Literal["email"]
    config: EmailConfig


class WebhookTarget(_Target):
    type: Literal["webhook"]
    config: WebhookConfig


class PagerdutyTarget(_Target):
    type: Literal["pagerduty"]
    config: PagerdutyConfig


Delivery = Annotated[
    SlackTarget | EmailTarget | WebhookTarget | PagerdutyTarget, Field(discriminator="type")
]


class Selector(Doc):
    type: Literal["text", "json_pointer", "regex"] = "text"
    value: str | None = Field(None, max_length=4096)


def _web(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise ValueError("must be http(s)://host[:port][/path], without user and password")
    return value


class Watcher(Doc):
    watcher_id: Slug
    provider: str = Field(min_length=1, max_length=100)
    kind: Literal["pricing", "models", "release_note", "status", "terms", "custom"]
    source_url: Annotated[str, AfterValidator(_web)] = Field(
        pattern=r"^https?://[^\s@]+$", max_length=2048
    )
    selector: Selector = Field(default_factory=Selector)
    interval_seconds: int = Field(3600, ge=300, le=604_800)
    classification: str | None = Field(None, max_length=100)
    severity: Severity = "medium"
    affected_assets: list[str] = Field(default_factory=list, max_length=200)
    confirmations: int = Field(2, ge=1, le=10)
    status: Literal["active", "paused"] = "active"


class Digest(Doc):
    period: Literal["daily", "weekly", "off"] = "off"
    hour: int = Field(8, ge=0, le=23)
    targets: Targets = Field(default_factory=list)


class IncidentSettings(Doc):
    group_window_seconds: int = Field(300, ge=30, le=3600)
    resolve_after_seconds: int = Field(300, ge=30, le=86_400)
    reopen_window_seconds: int = Field(900, ge=0, le=86_400)
    min_confidence: float = Field(0.5, ge=0, le=1)
    critical_revenue_usd: float = Field(1000, ge=0)
    blocked_weight: float = Field(0, ge=0, le=1)
    patterns: list[dict[str, object]] = Field(default_factory=list, max_length=100)


class WorkspaceSettings(Doc):
    timezone: TimeZone = "UTC"
    default_delivery_targets: Targets = Field(default_factory=list)
    digest: Digest = Field(default_factory=Digest)
    incidents: IncidentSettings = Field(default_factory=IncidentSettings)
    notify_max_age_seconds: int = Field(3600, ge=60, le=86_400)
