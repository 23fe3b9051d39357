"""Workspaces and what lives in them: endpoints, routes, keys.  The file and the API share them."""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, field_validator

from proxy.model.documents import Doc, Name, Secret, Slug
from proxy.model.failover import FailoverPolicy
from proxy.model.policy import PolicyPack

Provider = Literal[
    "openai", "anthropic", "azure-openai", "bedrock", "gemini", "vertex", "openai-compatible"
]
DEFAULT_BASE_URL: dict[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "bedrock": "https://bedrock-runtime.{region}.amazonaws.com",
    "gemini": "https://generativelanguage.googleapis.com",
}
CREDENTIALS: Final = (  # of an endpoint, beside `extra_headers`
    "api_key", "access_key_id", "secret_access_key", "session_token", "access_token",
)  # fmt: skip
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\t\x20-\x7e]{0,4096}$")]


class PriceTier(Doc):
    """Other prices, above so many input tokens; what is not named stays."""

    above_input_tokens: int = Field(ge=1)
    input_per_mtok: float | str | None = None
    output_per_mtok: float | str | None = None
    cache_read_per_mtok: float | str | None = None
    cache_write_5m_per_mtok: float | str | None = None
    cache_write_1h_per_mtok: float | str | None = None
    reasoning_per_mtok: float | str | None = None


class Price(Doc):
    """USD per million tokens, as decimal strings or numbers (wire.md §10)."""

    input_per_mtok: float | str | None = None
    output_per_mtok: float | str | None = None
    cache_read_per_mtok: float | str | None = None
    cache_write_5m_per_mtok: float | str | None = None
    cache_write_1h_per_mtok: float | str | None = None
    reasoning_per_mtok: float | str | None = None
    multiplier: float | str | None = None
    tiers: list[PriceTier] = Field(default_factory=list, max_length=20)


class Endpoint(Doc):
    """One provider account: where it is, what it speaks, which credential it takes."""

    id: Slug
    provider: Provider
    base_url: str | None = Field(None, max_length=2048)
    api_key: Secret | None = None
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    access_token: Secret | None = None
    region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,64}$")
    project: str | None = Field(None, pattern=r"^[A-Za-z0-9.:_-]{1,128}$")
    location: str | None = Field(None, pattern=r"^[a-z0-9-]{1,64}$")
    models: dict[str, str] = Field(default_factory=dict)
    allow_private: bool = False
    supports_prefill: bool = False
    max_context: int | None = Field(None, ge=1)
    weight: int = Field(1, ge=1, le=1000)
    profile: Literal[
        "generic", "vllm", "ollama", "mistral", "groq", "gemini-compat", "bedrock-openai"
    ] = "generic"
    capabilities: dict[str, object] = Field(default_factory=dict)
    bedrock_api: Literal["auto", "invoke", "converse", "messages", "mantle"] = "auto"
    anthropic_version: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    betas: list[str] | None = None
    azure_api: Literal["v1", "deployments"] = "v1"
    api_version: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    extra_headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    extra_body: dict[str, object] = Field(default_factory=dict)
    drop_params: list[str] = Field(default_factory=list)
    rename_params: dict[str, str] = Field(default_factory=dict)
    forward_headers: list[str] = Field(default_factory=list)
    pricing: Price | dict[str, Price] | None = None
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None

    @field_validator("base_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return value
        scheme, found, rest = value.partition("://")
        host = rest.split("/", 1)[0]
        if not found or scheme not in ("http", "https") or not host or "@" in host:
            raise ValueError("must be http(s)://host[:port][/path], without user and password")
        if any(c in value for c in " \t\r\n#?\\"):
            raise ValueError("must not hold spaces, a query, a fragment or a backslash")
        return value.rstrip("/")

    @property
    def url(self) -> str:
        """The base URL, the provider's own where none is given.  Empty when there is none."""
        if self.base_url:
            return self.base_url
        return DEFAULT_BASE_URL.get(self.provider, "").replace("{region}", self.region or "")


class Match(Doc):
    models: list[Annotated[str, StringConstraints(min_length=1, max_length=256)]] = Field(
        default_factory=list, max_length=200
    )


class Timeouts(Doc):
    """The limits of failover.md §9, in milliseconds."""

    connect_ms: int = Field(3000, ge=1, le=600_000)
    first_content_ms: int = Field(10_000, ge=1, le=3_600_000)
    idle_ms: int = Field(15_000, ge=1, le=3_600_000)
    total_ms: int = Field(600_000, ge=1, le=86_400_000)
    unary_ms: int = Field(120_000, ge=1, le=3_600_000)


MOST_EXACT: Final = 2**53  # what every JSON reader keeps


class Limits(Doc):
    """Requests and tokens a minute, requests under way, USD a day (UTC).  None: no limit."""

    rpm: int | None = Field(None, ge=1)
    tpm: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1)
    daily_cost_usd: float | None = Field(None, gt=0, allow_inf_nan=False)

    @field_validator("rpm", "tpm", "concurrency")
    @classmethod
    def _exact(cls, value: int | None) -> int | None:
        if value is not None and value > MOST_EXACT:
            raise ValueError(f"must be at most {MOST_EXACT}")
        return value


class Exposure(Doc):
    daily_requests: int = Field(0, ge=0)
    affected_users: int = Field(0, ge=0)
    revenue_impact: str = Field("$0", pattern=r"^\$[0-9]+(\.[0-9]{1,2})?(/(hour|day|month))?$")


PackRef = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}(@[0-9A-Za-z.+-]+)?$")
]


class Route(Doc):
    """What callers name; everything else hangs on it."""

    id: Slug
    name: Name | None = None
    endpoint: Slug
    match: Match = Field(default_factory=Match)
    policy_packs: list[PackRef] = Field(default_factory=list, max_length=50)
    timeouts: Timeouts = Field(default_factory=Timeouts)
    stream_recovery: Literal["off", "resume", "buffer"] = "resume"
    limits: Limits = Field(default_factory=Limits)
    translation: Literal["lenient", "strict"] = "lenient"
    usage_capture: Literal["inject", "observe"] = "inject"
    exposure: Exposure | None = None


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KeyRole = Literal["viewer", "operator", "admin", "ingest", "app"]


class ApiKey(Doc):
    """A Parapet key: `ppt_<id>_<secret>`; only the hash of the secret is kept."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{4,64}$")]
    secret_sha256: Sha256
    previous_sha256: Sha256 | None = None  # of a rotated key, until `previous_expires_at`
    previous_expires_at: str | None = None
    name: Name | None = None
    role: KeyRole | None = "app"
    scopes: list[str] = Field(default_factory=list)
    workspaces: list[str] = Field(default_factory=list)  # empty: the workspace it stands in
    route: Slug | None = None
    expires_at: str | None = None
    allowed_cidrs: list[str] = Field(default_factory=list)
    limits: Limits = Field(default_factory=Limits)


class GuardSettings(Doc):
    """guardrails.md §11."""

    hold_max_chars: int = Field(512, ge=128, le=4096)
    overflow: Literal["strict", "release"] = "strict"
    max_leaves: int = Field(50_000, ge=1)
    max_answer_bytes: int = Field(16_777_216, ge=1024, le=1_073_741_824)
    policy_header: Literal["off", "verdict", "rules"] = "off"


class EventSettings(Doc):
    """events.md §12."""

    include_excerpts: bool = False
    sample_pass: float = Field(0, ge=0, le=1)
    sample_allowed: float = Field(0, ge=0, le=1)
    user_header: str | None = None


class DrainSettings(Doc):
    """How long a stop may take (reliability.md §4.4)."""

    lb_delay_seconds: int = Field(5, ge=0, le=600)
    timeout_seconds: int = Field(60, ge=0, le=3600)
    stream_seconds: int = Field(300, ge=0, le=86_400)


class WorkspaceRules(Doc):
    """All that a data worker needs of one workspace.  `policies` hold every pack a route names.

    `unusable`: routes that name what is not there, with the reason.  Their callers are refused; a
    route is never served without a pack or an endpoint that its author wanted.
    """

    id: Slug
    default_route: Slug | None = None
    endpoints: list[Endpoint] = Field(default_factory=list)
    routes: list[Route] = Field(default_factory=list)
    failover_policies: list[FailoverPolicy] = Field(default_factory=list)
    policies: list[PolicyPack] = Field(default_factory=list)
    keys: list[ApiKey] = Field(default_factory=list)
    unusable: dict[str, str] = Field(default_factory=dict)


class SnapshotDoc(Doc):
    """One frozen view of all rules: what the control process compiles and the workers build from.

    `sha256` is over everything but `version`.  References to secrets stay references; each process
    resolves them by itself.
    """

    format: Literal[1] = 1
    version: int = Field(ge=1)
    sha256: str
    data_auth: Literal["open", "keys"] = "open"
    max_in_flight: int = 1000
    max_body_bytes: int = 33_554_432
    guard: GuardSettings = Field(default_factory=GuardSettings)
    events: EventSettings = Field(default_factory=EventSettings)
    drain: DrainSettings = Field(default_factory=DrainSettings)
    prices: dict[str, Price] = Field(default_factory=dict)
    price_version: str = ""
    workspaces: list[WorkspaceRules] = Field(default_factory=list)
