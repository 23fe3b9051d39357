"""What `config` of a rule may say, by kind; a member that a kind does not have is refused by name.

In charge of the shapes alone: each kind's reader says what its members mean.
"""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, JsonValue, StringConstraints, ValidationError

from proxy.guardrails.checks import arguments, terms, unicode, urls
from proxy.guardrails.faults import Report
from proxy.model.documents import Doc
from proxy.model.policy import Action, Encoding, Kind

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
