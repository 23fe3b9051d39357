"""The configuration file as a type: every section, every member, every default.

`config/parapet.yaml` says the same in prose; a test keeps the two equal.  What one member alone
can show to be wrong is refused here, what takes two of them in `crosscheck.py`.
"""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from proxy.model.documents import Doc, EnvRef, Name, Secret, Slug
from proxy.model.failover import FailoverPolicy
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import (
    ApiKey,
    DrainSettings,
    Endpoint,
    EventSettings,
    GuardSettings,
    Route,
)
from proxy.settings.notices import AlertRule, Delivery, Smtp, Watcher, WorkspaceSettings
from proxy.settings.values import Address, ByteSize, Cidr, Listen, parse_address

_REDIS = re.compile(r"(rediss?|redis\+sentinel)://[^\s/]+(/[^\s]*)?")
ADMIN_KEY_CHARS = 32


def _store(value: Secret) -> Secret:
    if isinstance(value, str) and value != "sqlite" and not _REDIS.fullmatch(value):
        raise ValueError("must be sqlite, redis://…, rediss://… or redis+sentinel://…")
    return value


def _admin_key(value: Secret) -> Secret:
    if isinstance(value, str) and len(value) < ADMIN_KEY_CHARS:
        raise ValueError(f"must have at least {ADMIN_KEY_CHARS} characters")
    return value


class Server(Doc):
    """The process: where it listens, how many workers, where its state is."""

    listen: Listen = "127.0.0.1:8080"
    control_listen: Listen = "127.0.0.1:8081"
    workers: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = 1
    state_dir: str = Field("./var", min_length=1, max_length=4096)
    public_url: str = Field("http://localhost:8081", max_length=2048)
    data_auth: Literal["open", "keys"] = "open"
    admin_key: Annotated[Secret, AfterValidator(_admin_key)] | None = Field(
        default_factory=lambda: EnvRef(env="PARAPET_ADMIN_KEY")
    )
    max_in_flight: int = Field(1000, ge=1, le=1_000_000)
    max_body_bytes: ByteSize = 33_554_432

    @field_validator("public_url")
    @classmethod
    def _public(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("must be http(s)://host[:port][/path], without user and password")
        return value.rstrip("/")

    @property
    def data_address(self) -> Address:
        return parse_address(self.listen)

    @property
    def control_address(self) -> Address:
        return parse_address(self.control_listen)


class Egress(Doc):
    allow_cidrs: list[Cidr] = Field(default_factory=list, max_length=100)
    allow_http: bool = False


class RateLimits(Doc):
    """Requests per minute and key."""

    control_read: int = Field(600, ge=1)
    control_write: int = Field(120, ge=1)
    ingest: int = Field(6000, ge=1)
    test: int = Field(10, ge=1)
    stream: int = Field(20, ge=1)


Origin = Annotated[str, StringConstraints(pattern=r"^(\*|https?://[^\s/]+)$")]


class Control(Doc):
    references: Literal["lenient", "strict"] = "lenient"
    require_if_match: bool = False
    allowed_hosts: list[str] = Field(default_factory=list, max_length=100)
    cors_origins: list[Origin] = Field(default_factory=list, max_length=100)
    secret_env_prefix: str = Field("PARAPET_SECRET_", pattern=r"^[A-Z][A-Z0-9_]*_$")
    secrets_dir: str = Field("/run/secrets", min_length=1, max_length=4096)
    idempotency_ttl_hours: int = Field(24, ge=1, le=168)
    metrics_auth: Literal["none", "key"] = "none"
    rate_limits: RateLimits = Field(default_factory=RateLimits)


class Ingest(Doc):
    require_idempotency_key: bool = False
    dedupe_days: int | None = Field(None, ge=1, le=365)


class Retention(Doc):
    events_days: int = Field(7, ge=1, le=3650)
    events_bytes: ByteSize = 2_147_483_648
    redis_max_events: int = Field(2_000_000, ge=1000)
    rollups_days: int = Field(90, ge=1, le=3650)
    incidents_days: int = Field(365, ge=1, le=3650)
    audit_days: int = Field(365, ge=1, le=3650)
    attempts_days: int = Field(30, ge=1, le=3650)
    dead_days: int = Field(14, ge=1, le=3650)


class Telemetry(Doc):
    mode: Literal["best_effort", "strict"] = "best_effort"
    spool_bytes: ByteSize = 1_073_741_824


class Alerts(Doc):
    tick_seconds: int = Field(10, ge=1, le=300)
    max_series: int = Field(5000, ge=1, le=1_000_000)


class Pricing(Doc):
    """`file` is merged over the prices that the package ships; relative to this file."""

    file: str | None = Field(None, min_length=1, max_length=4096)


FileName = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class Workspace(Doc):
    """One tenant: the same documents as in the API."""

    id: Slug
    name: Name | None = None
    default_route: Slug | None = None
    settings: WorkspaceSettings = Field(default_factory=WorkspaceSettings)
    endpoints: list[Endpoint] = Field(default_factory=list, max_length=1000)
    routes: list[Route] = Field(default_factory=list, max_length=1000)
    failover_policies: list[FailoverPolicy] = Field(default_factory=list, max_length=1000)
    policies: list[PolicyPack] = Field(default_factory=list, max_length=200)
    policy_files: list[FileName] = Field(default_factory=list, max_length=200)
    alert_rules: list[AlertRule] = Field(default_factory=list, max_length=1000)
    deliveries: list[Delivery] = Field(default_factory=list, max_length=1000)
    watchers: list[Watcher] = Field(default_factory=list, max_length=1000)
    keys: list[ApiKey] = Field(default_factory=list, max_length=10_000)


class Config(Doc):
    """The whole file."""

    server: Server = Field(default_factory=Server)
    store: Annotated[Secret, AfterValidator(_store)] = "sqlite"
    egress: Egress = Field(default_factory=Egress)
    control: Control = Field(default_factory=Control)
    ingest: Ingest = Field(default_factory=Ingest)
    events: EventSettings = Field(default_factory=EventSettings)
    retention: Retention = Field(default_factory=Retention)
    telemetry: Telemetry = Field(default_factory=Telemetry)
    drain: DrainSettings = Field(default_factory=DrainSettings)
    smtp: Smtp = Field(default_factory=Smtp)
    alerts: Alerts = Field(default_factory=Alerts)
    guard: GuardSettings = Field(default_factory=GuardSettings)
    pricing: Pricing = Field(default_factory=Pricing)
    workspaces: list[Workspace] = Field(
        default_factory=lambda: [Workspace(id="default")], max_length=1000
    )

    @property
    def declared_workspaces(self) -> list[Workspace]:
        """Those that stand in the file: the default workspace exists without that."""
        return self.workspaces if "workspaces" in self.model_fields_set else []
