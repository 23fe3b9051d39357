"""What `config` of a rule may say, by kind; a member that a kind does not have is refused by name.

In charge of the shapes alone: each kind's reader says what its members mean.
"""

from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from proxy.guardrails.checks import arguments, terms, unicode, urls
from proxy.guardrails.checks.external.words import AdapterName, Stage
from proxy.guardrails.faults import Report
from proxy.model.documents import Doc, EnvRef, Severity, Slug
from proxy.model.policy import Action, Encoding, Kind
from proxy.model.tenancy import HeaderName, HeaderValue

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Domain = Annotated[str, StringConstraints(pattern=r"^(\*\.)?[^\s/:@*\\]{1,253}$")]
_Scheme = Annotated[str, StringConstraints(pattern=f"^({'|'.join(urls.SCHEMES)})$")]
_Entity = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,23}$")]  # as a label


class Config(Doc):
    """Of kinds that have none."""


class TermsConfig(Config):
    """`list`: the pack's list of that name instead of a pattern."""

    list: str | None = None
    boundary: Literal["word", "none"] = "word"
    gaps: int = Field(0, ge=0, le=terms.MAX_GAPS)


class TopicConfig(TermsConfig):
    category: _Name | None = None


class InjectionConfig(Config):
    """`family`: what is counted where the pack's scoring is a sum; the rule's id by default."""

    family: _Name | None = None
    decode: list[Encoding] = Field(default_factory=list, max_length=3)


class ImagesConfig(Doc):
    allow_domains: list[_Domain] = Field(default_factory=list, max_length=1000)
    max_data_chars: int = Field(64, ge=0, le=4096)


class UrlConfig(Config):
    """`checks`: those that count; all by default.  An empty `allow_domains` allows all."""

    checks: list[urls.UrlCheck] = Field(
        default_factory=lambda: list(get_args(urls.UrlCheck)), min_length=1, max_length=8
    )
    allow_domains: list[_Domain] = Field(default_factory=list, max_length=1000)
    deny_domains: list[_Domain] = Field(default_factory=list, max_length=1000)
    schemes: list[_Scheme] = Field(default_factory=lambda: ["https", "http"], max_length=6)
    userinfo: Literal["deny", "allow"] = "deny"
    ip_literals: Literal["deny", "allow"] = "deny"
    punycode: Literal["deny", "flag", "allow"] = "deny"
    max_query_chars: int = Field(256, ge=0, le=65_536)
    images: ImagesConfig = Field(default_factory=ImagesConfig)


class PiiConfig(Config):
    entity: _Entity | None = None


class UnicodeConfig(Config):
    class_: Annotated[str, StringConstraints(pattern=f"^({'|'.join(unicode.CLASSES)})$")] = Field(
        alias="class"
    )


_Glob = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_Globs = Annotated[list[_Glob], Field(max_length=200)]
_RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
_RoleNames = Annotated[list[_RoleName], Field(max_length=20)]


class ArgConfig(Doc):
    """What stands at `path` of a call's arguments; all that is said holds."""

    path: Annotated[str, StringConstraints(pattern=arguments.PATH)]
    regex: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    enum: list[JsonValue] | None = Field(None, min_length=1, max_length=1000)
    min: float | None = Field(None, allow_inf_nan=False)
    max: float | None = Field(None, allow_inf_nan=False)
    max_chars: int | None = Field(None, ge=0, le=10_000_000)
    required: bool = False
    forbidden: bool = False


class ToolConfig(Doc):
    """`resource`: a glob of tool names."""

    resource: _Glob
    roles_any: _RoleNames = Field(default_factory=list)
    decision: Literal["allow", "deny"] = "allow"
    args: list[ArgConfig] = Field(default_factory=list, max_length=50)


class ToolPermissionConfig(Config):
    """`default`: of tools that no entry names."""

    default: Literal["allow", "deny"] = "allow"
    on_declared: Literal["strip", "block", "allow"] = "strip"
    tools: list[ToolConfig] = Field(default_factory=list, max_length=500)


class ModelAccessConfig(Config):
    allow: _Globs = Field(default_factory=list)
    deny: _Globs = Field(default_factory=list)
    providers: _Globs = Field(default_factory=list)
    roles_any: _RoleNames = Field(default_factory=list)


class LimitsConfig(Config):
    """None: no limit."""

    max_input_chars: int | None = Field(None, ge=0)
    max_messages: int | None = Field(None, ge=0)
    max_tools: int | None = Field(None, ge=0)
    max_images: int | None = Field(None, ge=0)
    max_output_tokens: int | None = Field(None, ge=1)
    n_max: int | None = Field(None, ge=1)


class JsonSchemaConfig(Config):
    """`schema` None: the rule is inert.  `strip_fence`: one Markdown fence is no fault."""

    schema_: object = Field(None, alias="schema")
    strip_fence: bool = True


class WindowConfig(Doc):
    """In characters; consecutive windows share `overlap`."""

    size: int = Field(2000, ge=50, le=100_000)
    overlap: int = Field(200, ge=0, le=50_000)

    @model_validator(mode="after")
    def _moves_on(self) -> "WindowConfig":
        if self.overlap * 2 > self.size:
            raise ValueError("overlap is at most half of size")
        return self


class CategoryConfig(Doc):
    """What is said of one category of the service.  Action `allow`: it does not count."""

    threshold: float | None = Field(None, ge=0, le=1)
    severity: Severity | None = None
    action: Action | None = None


_Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class ExternalConfig(Config):
    """`url`: the base of the service (adapter `http`: the whole address), `endpoint`: an endpoint
    of the workspace in its place.  Values of `headers` are text, or `{$env: NAME}`."""

    adapter: AdapterName
    url: str | None = Field(None, max_length=2048)
    allow_private: bool = False
    headers: dict[HeaderName, HeaderValue | EnvRef] = Field(default_factory=dict, max_length=50)
    endpoint: Slug | None = None
    stage: Stage | None = None
    window: WindowConfig = WindowConfig()
    timeout_ms: int | None = Field(None, ge=1, le=30_000)
    threshold: float | None = Field(None, ge=0, le=1)
    map: dict[_Word, CategoryConfig] = Field(default_factory=dict, max_length=100)
    cache_seconds: int = Field(300, ge=0, le=86_400)
    model: _Word | None = None
    language: str = Field("en", pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    entities: list[_Word] = Field(default_factory=list, max_length=200)
    allow_list: list[_Word] = Field(default_factory=list, max_length=1000)
    guardrail_id: str | None = Field(None, pattern=r"^[A-Za-z0-9:/._-]{1,2048}$")
    guardrail_version: str = Field("DRAFT", pattern=r"^(DRAFT|[1-9][0-9]{0,7})$")
    region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,64}$")

    @field_validator("url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return value
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("http", "https") and bool(parts.hostname)
            known = known and parts.port != 0
        except ValueError:
            known = False
        if not known or "@" in value or not value.isascii() or not value.isprintable():
            raise ValueError("must be http(s)://host[:port][/path], without user and password")
        if any(c in value for c in " #?\\"):
            raise ValueError("must not hold spaces, a query, a fragment or a backslash")
        return value.rstrip("/")


CONFIGS: Final[dict[Kind, type[Config]]] = {
    "terms": TermsConfig,
    "regex": Config,
    "secret": Config,
    "pii": PiiConfig,
    "unicode": UnicodeConfig,
    "tool_permission": ToolPermissionConfig,
    "model_access": ModelAccessConfig,
    "limits": LimitsConfig,
    "json_schema": JsonSchemaConfig,
    "injection": InjectionConfig,
    "topic": TopicConfig,
    "url": UrlConfig,
    "external": ExternalConfig,
}


def aim_of(config: UrlConfig, action: Action) -> urls.Aim:
    """What a rule asks of addresses.  `punycode: flag` counts only where a hit changes nothing."""
    off: set[urls.UrlCheck] = set()
    if config.userinfo == "allow":
        off.add("userinfo")
    if config.ip_literals == "allow":
        off.add("ip_literal")
    if config.punycode == "allow" or (config.punycode == "flag" and action not in ("flag", "log")):
        off.add("punycode")
    return urls.Aim(
        checks=frozenset(config.checks) - off,
        allow_domains=tuple(config.allow_domains),
        deny_domains=tuple(config.deny_domains),
        schemes=frozenset(config.schemes),
        max_query_chars=config.max_query_chars,
        image_domains=tuple(config.images.allow_domains),
        max_data_chars=config.images.max_data_chars,
    )


_CODES: Final = {"string_pattern_mismatch": "pattern", "literal_error": "unknown_value"}


def config_of(kind: Kind, said: dict[str, object], where: str, report: Report) -> Config | None:
    """The config of a rule at `where`, checked; None when it is refused."""
    try:
        return CONFIGS[kind].model_validate(said)
    except ValidationError as wrong:
        for fault in wrong.errors(include_url=False, include_input=False):
            path = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in fault["loc"])
            code = _CODES.get(fault["type"], fault["type"])
            report.refuse(f"{where}.config{path}", code, f"Kind {kind}: {fault['msg']}.")
        return None
