"""What a path means: route, dialect, operation (wire.md §2.1).

The path is matched as it was sent: split at `?`, then at `/`, then each segment is decoded, so an
encoded slash never makes a segment.  The version part may be missing or another.  What is not
normalised matches nothing: empty segments, dot segments, encoded ones too.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from proxy.model.exchange import Dialect, Operation, RawHeaders, Surface

_VERSION: Final = re.compile(r"v\d{1,3}(?:(?:alpha|beta)\d{0,3})?")
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_SENDABLE: Final = re.compile(r"/[\x21-\x7e]*")
_PREFIXES: Final = frozenset(
    {"openai", "anthropic", "api"}
)  # what base URLs hold before the version

_POSTED: Final[dict[tuple[str, ...], tuple[Dialect, Operation]]] = {
    ("chat", "completions"): ("openai_chat", "chat"),
    ("completions",): ("openai_chat", "completions"),
    ("embeddings",): ("openai_chat", "embeddings"),
    ("messages",): ("anthropic_messages", "messages"),
    ("messages", "count_tokens"): ("anthropic_messages", "count_tokens"),
}


@dataclass(slots=True, frozen=True)
class PathFault:
    """A path that matches nothing; the message says what to do about it."""

    message: str


def read_target(method: str, target: str, headers: RawHeaders | None = None) -> Surface | PathFault:
    """What `target`, as it was sent, asks for.  `headers` tell apart what paths do not: whose list
    of models is wanted, whose errors an unknown path shall have."""
    if _SENDABLE.fullmatch(target) is None:
        return PathFault("The request target is not a path.")
    path, _, query = target.partition("?")
    parts = path.split("/")[1:]
    fault = _unclean(parts)
    if fault is not None:
        return fault
    route_id = None
    if parts[0] == "r" and len(parts) > 1:
        route_id = unquote(parts[1])
        if _SLUG.fullmatch(route_id) is None:
            return PathFault("The path names no route: use /r/<route id>/…")
        parts = parts[2:]
        path = "/" + "/".join(parts)
    if len(parts) > 1 and parts[0] == parts[1] and _VERSION.fullmatch(parts[0]):
        return PathFault(_doubled(parts[0], route_id))
    tail = _tail(parts)
    dialect, operation, model = _meaning(method, tail, parts, headers or [])
    return Surface(dialect, operation, path, query, route_id, model)


def _unclean(parts: list[str]) -> PathFault | None:
    last = len(parts) - 1
    for place, part in enumerate(parts):
        if not part and place != last:
            return PathFault("The path holds an empty segment (//).")
        if "%" not in part and "\\" not in part and part[:1] != ".":
            continue
        inner = unquote(part).replace("\\", "/").split("/")
        if "." in inner or ".." in inner:
            return PathFault("The path holds a dot segment.")
        if any(ord(char) < 0x20 or ord(char) == 0x7F for char in unquote(part)):
            return PathFault("The path holds a control character.")
    return None


def _doubled(version: str, route_id: str | None) -> str:
    where = f"/r/{route_id}" if route_id else ""
    return (
        f"The path holds /{version} twice: this client adds /{version} itself. "
        f"Use …{where or '/r/<route id>'} as its base URL, without /{version}."
    )


def _tail(parts: list[str]) -> tuple[str, ...]:
    """What stands behind the prefix and the version of the base URL."""
    at = 0
    while at < len(parts) and parts[at] in _PREFIXES:
        at += 1
    if at < len(parts) and _VERSION.fullmatch(parts[at]):
        at += 1
    return tuple(parts[at:])


def _meaning(
    method: str, tail: tuple[str, ...], parts: list[str], headers: RawHeaders
) -> tuple[Dialect, Operation, str | None]:
    if method == "POST":
        found = _POSTED.get(tail)
        if found is not None:
            return found[0], found[1], None
        if len(tail) > 2 and tail[0] == "deployments" and "openai" in parts[:2]:  # Azure's callers
            found = _POSTED.get(tail[2:])
            if found is not None and found[0] == "openai_chat":
                return found[0], found[1], unquote(tail[1])
    elif method == "GET" and tail[:1] == ("models",):
        dialect = _listing_dialect(parts, headers)
        if len(tail) == 1:
            return dialect, "models", None
        return dialect, "model", unquote("/".join(tail[1:]))
    return _pass_dialect(tail, headers), "pass", None


def _listing_dialect(parts: list[str], headers: RawHeaders) -> Dialect:
    names = {name for name, _ in headers}
    if b"anthropic-version" in names or parts[0] == "anthropic":
        return "anthropic_messages"
    if b"x-goog-api-key" in names or parts[0].startswith("v1beta"):
        return "gemini"
    return "openai_chat"


def _pass_dialect(tail: tuple[str, ...], headers: RawHeaders) -> Dialect:
    """Whose shape the errors of a path that is only passed on shall have."""
    head, last = tail[:1], tail[-1] if tail else ""
    if head == ("model",) and len(tail) == 3:
        return "bedrock_converse"
    if head == ("models",) and ":" in last:
        return "gemini"
    if head == ("responses",):
        return "openai_responses"
    if head == ("messages",) or any(name == b"anthropic-version" for name, _ in headers):
        return "anthropic_messages"
    return "openai_chat"
