"""What the packs of a route look at, and what they do not (guardrails.md §12).

Judged from the documents alone: per direction and part the packs that enforce, that only record,
that run in shadow; and for a part without any, why.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, get_args

from proxy.model.exchange import Direction, Json, Part, Role
from proxy.model.policy import Action, PolicyPack, Rule, Scope

REQUEST_PARTS: Final[tuple[Part, ...]] = (
    "text",
    "refusal",
    "tool_name",
    "tool_args",
    "tool_result",
    "metadata",
    "reasoning",
    "tool_def",
)
RESPONSE_PARTS: Final[tuple[Part, ...]] = (
    "text",
    "refusal",
    "reasoning",
    "tool_name",
    "tool_args",
    "tool_result",
    "annotation",
)
REFUSED_PATHS: Final = (
    "/v1/audio/*",
    "/v1/images/*",
    "/v1/files/*",
    "/v1/batches/*",
    "/v1/realtime",
    "any other path",
)


@dataclass(frozen=True, slots=True)
class SurfaceCoverage:
    """The paths of one grammar, and the parts that its bodies have."""

    surface: str
    paths: tuple[str, ...]
    request: tuple[Part, ...]
    response: tuple[Part, ...]


_PLAIN: Final[tuple[Part, ...]] = ("text", "metadata")
SURFACES: Final = (
    SurfaceCoverage("openai_chat", ("/v1/chat/completions",), REQUEST_PARTS, RESPONSE_PARTS),
    SurfaceCoverage("openai_completions", ("/v1/completions",), _PLAIN, ("text",)),
    SurfaceCoverage("openai_embeddings", ("/v1/embeddings",), _PLAIN, ()),
    SurfaceCoverage("anthropic_messages", ("/v1/messages",), REQUEST_PARTS, RESPONSE_PARTS),
    SurfaceCoverage("anthropic_count_tokens", ("/v1/messages/count_tokens",), REQUEST_PARTS, ()),
)
_NAMED_ONLY: Final = "tool_def"
OVERLAP: Final = 200  # characters; what config.window says unless it says something
_TEXTLESS: Final = ("limits", "model_access", "tool_permission")
_RECORDS_ONLY: Final = ("log", "flag")
_ROLES: Final = frozenset(get_args(Role))
_ALIASES: Final = {"developer": "system", "function": "tool"}


Streaming = Literal[
    "exact", "exact, keys before its end", "held to its end", "window by window", "afterwards"
]
STREAMING: Final[tuple[Streaming, ...]] = get_args(Streaming)
_REASONING: Final[tuple[Direction, Part]] = ("response", "reasoning")


@dataclass(slots=True)
class PartCoverage:
    """One part in one direction: pack labels by what they do, or the reason why there is none.

    `stream`: of an answer, the packs by how they look at one that streams."""

    direction: Direction
    part: Part
    enforced: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    shadow: list[str] = field(default_factory=list)
    reason: str = ""
    hole: bool = False
    stream: dict[Streaming, list[str]] = field(default_factory=dict)

    @property
    def scanned(self) -> bool:
        return bool(self.enforced or self.recorded or self.shadow)


@dataclass(slots=True)
class NotScanned:
    """What lies outside the parts: why no rule looks there, and the setting that says so."""

    direction: Direction
    what: str
    reason: str
    setting: str


@dataclass(slots=True)
class RouteCoverage:
    """All parts of a guarded route, and what lies outside the parts."""

    parts: list[PartCoverage]
    binary: str
    remote: str
    reasoning: str
    tools: list[str]
    requests: list[str]
    not_scanned: list[NotScanned]

    @property
    def holes(self) -> list[PartCoverage]:
        return [part for part in self.parts if part.hole]


def cover(packs: Sequence[PolicyPack]) -> RouteCoverage:
    """The coverage of a route with these packs, in their order."""
    active = [pack for pack in packs if pack.enabled]
    parts = [_part(active, "request", part) for part in REQUEST_PARTS]
    parts += [_part(active, "response", part) for part in RESPONSE_PARTS]
    reasoning = _strictest(pack.reasoning for pack in active)
    if reasoning == "off":
        parts = [each for each in parts if (each.direction, each.part) != _REASONING]
        parts.append(PartCoverage(*_REASONING, reason="reasoning: off"))
    binary = "block" if any(p.unscannable.binary == "block" for p in active) else "allow"
    remote = "block" if any(p.unscannable.remote == "block" for p in active) else "allow"
    return RouteCoverage(
        parts=parts,
        binary=binary,
        remote=remote,
        reasoning=reasoning,
        tools=_packs_with(active, ("tool_permission",)),
        requests=_packs_with(active, ("limits", "model_access")),
        not_scanned=[*_outside(binary, remote), *_borders(active)],
    )


def route_doc(route_id: str, packs: Sequence[PolicyPack], unusable: str | None) -> dict[str, Json]:
    """What is told of one route, by the API and by `parapet check` alike."""
    covered = cover(packs) if packs else None
    doc: dict[str, Json] = {
        "route_id": route_id,
        "packs": [f"{pack.policy_pack_id}@{pack.version}" for pack in packs],
        "unusable": unusable,
        "guarded": covered is not None,
        "surfaces": _json([asdict(each) for each in SURFACES]) if covered else [],
        "parts": _json([asdict(part) for part in covered.parts]) if covered else [],
        "not_scanned": _json([asdict(each) for each in covered.not_scanned]) if covered else [],
        "tools": _json(covered.tools) if covered else [],
        "requests": _json(covered.requests) if covered else [],
        "binary": covered.binary if covered else "allow",
        "remote": covered.remote if covered else "allow",
        "reasoning": covered.reasoning if covered else None,
        "refused_paths": [*REFUSED_PATHS] if covered else [],
    }
    return doc


def _json(value: object) -> Json:
    if isinstance(value, dict):
        return {str(name): _json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(each) for each in value]
    assert value is None or isinstance(value, (str, int, float, bool)), "documents are JSON"
    return value


def _outside(binary: str, remote: str) -> Iterator[NotScanned]:
    """What holds no text that could be read here."""
    if binary == "allow":
        yield NotScanned("request", "images, files", "binary", "unscannable.binary: allow")
    if remote == "allow":
        yield NotScanned("request", "references", "remote", "unscannable.remote: allow")
    yield NotScanned("request", "reasoning sent back", "signed reasoning", "")
    yield NotScanned("request", "content that its provider sealed", "opaque", "")


def _borders(packs: Sequence[PolicyPack]) -> Iterator[NotScanned]:
    """Checks that see a stream window by window miss what is longer than the overlap."""
    for pack in packs:
        for rule in pack.rules:
            if (
                rule.kind == "external"
                and rule.config.get("stage") == "window"
                and is_enabled(pack, rule)
            ):
                window = rule.config.get("window")
                overlap = window.get("overlap") if isinstance(window, dict) else None
                yield NotScanned(
                    "response",
                    f"hits of {pack.policy_pack_id}/{rule.rule_id} over a border of its windows",
                    "window border",
                    f"config.window.overlap: {overlap if overlap is not None else OVERLAP}",
                )


def is_inert(pack: PolicyPack, rule: Rule) -> bool:
    """A rule that cannot hit yet: it waits for its list, its tools, its names or its schema."""
    match rule.kind:
        case None:
            name = _placeholder(rule.pattern)
            return name is not None and not pack.lists.get(name)
        case "tool_permission":
            return not rule.config.get("tools") and rule.config.get("default") != "deny"
        case "model_access":
            return not any(
                rule.config.get(name) for name in ("allow", "deny", "providers", "roles_any")
            )
        case "json_schema":
            return not rule.config.get("schema")
        case _:
            return False


def _placeholder(pattern: str | list[str] | None) -> str | None:
    """`[regulated terms]` stands for the term list of that name (guardrails.md §2)."""
    if not isinstance(pattern, str) or pattern[:1] + pattern[-1:] != "[]":
        return None
    name = pattern[1:-1]
    plain = all(c.isalpha() or c == " " for c in name) and " " in name.strip()
    return name if plain and sum(c.isalpha() for c in name) >= 8 else None


def is_enabled(pack: PolicyPack, rule: Rule) -> bool:
    return pack.enabled if rule.enabled is None else rule.enabled


def _part(packs: Sequence[PolicyPack], direction: Direction, part: Part) -> PartCoverage:
    found = PartCoverage(direction, part)
    inert = explicit = False
    for pack in packs:
        doing: dict[str, list[Scope]] = {"enforced": [], "recorded": [], "shadow": []}
        ways: set[Streaming] = set()
        for rule in pack.rules:
            action = rule.action or pack.default_action
            if not is_enabled(pack, rule) or rule.kind in _TEXTLESS or action == "allow":
                continue
            scope = _scope(pack, rule, action)
            if not _in_scope(rule, scope or Scope(), direction, part):
                explicit = explicit or scope is not None
                continue
            if is_inert(pack, rule):
                inert = True
                continue
            kind = "enforced" if _acts(rule, action) else "recorded"
            doing["shadow" if (rule.mode or pack.mode) == "shadow" else kind].append(
                scope or Scope()
            )
            ways.add(streaming(pack, rule))
        for name, scopes in doing.items():
            if scopes:
                getattr(found, name).append(pack.policy_pack_id + _limits_of(scopes))
        for way in sorted(ways, key=STREAMING.index) if direction == "response" else ():
            found.stream.setdefault(way, []).append(pack.policy_pack_id)
    if part == "tool_args" and found.enforced and leaves_live(packs):
        found.stream = {
            "exact, keys before its end" if way == "exact" else way: labels
            for way, labels in found.stream.items()
        }
    if not found.scanned:
        found.reason = "inert rule" if inert else "no rule in scope"
        found.hole = part != _NAMED_ONLY and (inert or not explicit)
        if direction == "request" and part == "reasoning":
            found.reason, found.hole = "signed reasoning", False
    return found


def _scope(pack: PolicyPack, rule: Rule, action: Action) -> Scope | None:
    """What the rule says, or its pack, or its kind; None: nobody says anything."""
    if rule.kind == "json_schema":
        return Scope(direction="response", parts=["text"])
    scope = rule.scope or pack.scope
    if scope is None and action == "reroute":
        return Scope(direction="request")  # no answer can be rerouted
    return scope


def _acts(rule: Rule, action: Action) -> bool:
    """It holds back, changes or stops a text; a check outside may do so by category."""
    actions: set[object] = {action}
    by_category = rule.config.get("map")
    if rule.kind == "external" and isinstance(by_category, dict):
        actions |= {own.get("action") or action for own in by_category.values()}
    return not actions.issubset(_RECORDS_ONLY)


def streaming(pack: PolicyPack, rule: Rule) -> Streaming:
    """How a rule about answers looks at one that streams (guardrails.md §3.2)."""
    enforces = (rule.mode or pack.mode) == "enforce"
    acts = enforces and _acts(rule, rule.action or pack.default_action)
    if rule.kind == "json_schema":
        return "held to its end" if acts else "afterwards"
    if rule.kind != "external":
        return "exact"
    if not acts:
        return "afterwards"
    return "window by window" if rule.config.get("stage") == "window" else "held to its end"


def _in_scope(rule: Rule, scope: Scope, direction: Direction, part: Part) -> bool:
    sides = {"in": "request", "out": "response"}
    side = sides.get(scope.direction, scope.direction)
    if side not in ("both", direction):
        return False
    if direction == "request" and part == "reasoning":
        return False
    if scope.parts is not None:
        return part in scope.parts
    return part != _NAMED_ONLY or rule.kind == "unicode"


def _limits_of(scopes: Sequence[Scope]) -> str:
    """Which roles and turns, when no rule of the pack looks at all of them."""
    roles = [_roles(scope) for scope in scopes]
    seen = frozenset().union(*roles)
    notes = [] if seen >= _ROLES else [" ".join(sorted(seen))]
    if all(scope.turns == "latest" for scope in scopes):
        notes.append("latest turn")
    return f" ({', '.join(notes)})" if notes else ""


def _roles(scope: Scope) -> frozenset[str]:
    if scope.roles is None:
        return _ROLES
    return frozenset(_ALIASES.get(role, role) for role in scope.roles)


def _packs_with(packs: Sequence[PolicyPack], kinds: Sequence[str]) -> list[str]:
    return [
        pack.policy_pack_id
        for pack in packs
        if any(
            rule.kind in kinds and is_enabled(pack, rule) and not is_inert(pack, rule)
            for rule in pack.rules
        )
    ]


def leaves_live(packs: Sequence[PolicyPack]) -> bool:
    """Whether arguments of tool calls leave while they are written, and not when they are whole.
    A check outside that acts on them wants the whole of them."""
    for pack in packs:
        for rule in pack.rules:
            acts = _acts(rule, rule.action or pack.default_action)
            enforces = acts and (rule.mode or pack.mode) == "enforce" and is_enabled(pack, rule)
            scope = rule.scope or pack.scope or Scope()
            if rule.kind != "external" or not enforces:
                continue
            if _in_scope(rule, scope, "response", "tool_args"):
                return False
    return all(pack.tool_args == "live" for pack in packs)


def _strictest(modes: Iterable[str]) -> str:
    named = set(modes)
    return next((mode for mode in ("hold", "live", "off") if mode in named), "hold")
