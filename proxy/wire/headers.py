"""Which headers go up, which come down, and where a caller's credential stands (wire.md §2.3, 2.4).

Up goes what a list names, nothing else: a header that nobody thought of stays here.  Names are
lower case.  SECURITY: a Parapet key, `x-parapet-*` and the caller's credential are on no list.
"""

from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import unquote_plus

from proxy.model.exchange import Credential, Dialect, RawHeaders, Surface

KEY_PREFIX: Final = "ppt_"

HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_CREDENTIALS: Final = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"x-parapet-key"}
)
_ACCOUNT: Final = frozenset(
    {b"openai-organization", b"openai-project", b"anthropic-workspace-id", b"x-goog-user-project"}
)
_UP: Final = frozenset(
    {
        b"content-type",
        b"accept",
        b"user-agent",
        b"anthropic-version",
        b"anthropic-beta",
        b"anthropic-user-profile-id",
        b"openai-beta",
        b"x-client-request-id",
        b"traceparent",
        b"tracestate",
        b"x-amzn-trace-id",
        b"x-goog-api-client",
    }
)
_UP_BEGIN: Final = (b"x-stainless-", b"x-amzn-bedrock-")
_NEVER_UP: Final = (
    HOP
    | _CREDENTIALS
    | _ACCOUNT
    | {
        b"host",
        b"content-length",
        b"content-encoding",
        b"expect",
        b"cookie",
        b"forwarded",
        b"x-real-ip",
        b"via",
        b"x-amz-date",
        b"x-amz-security-token",
        b"x-amz-content-sha256",
    }
)
_KNOWN_NAMES: Final = 256
_NEVER_UP_BEGIN: Final = (b"proxy-", b"x-forwarded-", b"x-parapet-")
_NOT_DOWN: Final = HOP | {
    b"set-cookie",
    b"alt-svc",
    b"strict-transport-security",
    b"server",
    b"date",
    b"via",
}
_NOT_DOWN_BEGIN: Final = (b"cf-", b"x-parapet-", b"proxy-")

REQUEST_ID: Final[dict[Dialect, bytes]] = {
    "openai_chat": b"x-request-id",
    "openai_responses": b"x-request-id",
    "anthropic_messages": b"request-id",
    "bedrock_converse": b"x-amzn-requestid",
}
_UPSTREAM_IDS: Final = (b"x-request-id", b"request-id", b"x-amzn-requestid", b"apim-request-id")


MARKS: Final = frozenset(
    {
        b"content-length",
        b"content-encoding",
        b"expect",
        b"host",
        b"x-parapet-route",
        b"x-parapet-workspace",
        b"traceparent",
        b"x-stainless-retry-count",
    }
)


def walk(raw: Iterable[tuple[bytes, bytes]]) -> tuple[RawHeaders, dict[bytes, bytes]]:
    """Headers as they came, with lower-case names, and those that the gateway looks for by name.
    A mark that came twice is empty: two parsers could choose differently."""
    headers: RawHeaders = []
    marks: dict[bytes, bytes] = {}
    for name, value in raw:
        name = name.lower()
        headers.append((name, value))
        if name in MARKS:
            marks[name] = value if name not in marks else b""
    return headers, marks


# --- up


class UpFilter:
    """Writes the header lines that go up to one endpoint.

    `without`: names that the endpoint writes itself.  `besides`: its `forward_headers`.
    `account`: the four headers that choose an account inside the caller's own credential.
    What was decided of a name is kept, for so many names and no more.
    """

    __slots__ = ("_account", "_besides", "_known", "_without")

    def __init__(
        self,
        *,
        without: Collection[bytes] = (),
        besides: Collection[bytes] = (),
        account: bool = False,
    ) -> None:
        self._without, self._besides, self._account = without, besides, account
        self._known: dict[bytes, bool] = {}

    def lines(self, headers: RawHeaders) -> bytes:
        """The lines, each with its line end."""
        known, kept = self._known, []
        for name, value in headers:
            goes = known.get(name)
            if goes is None:
                goes = self._goes(name)
                if len(known) < _KNOWN_NAMES:
                    known[name] = goes
            if goes:
                kept.append(b"%b: %b\r\n" % (name, value))
        lines = b"".join(kept)
        if lines.count(b"\n") == lines.count(b"\r") == len(kept):
            return lines
        return b"".join([line for line in kept if line.count(b"\n") == line.count(b"\r") == 1])

    def _goes(self, name: bytes) -> bool:
        if name in self._without:
            return False
        if name in _UP or name.startswith(_UP_BEGIN):
            return True
        if name in _ACCOUNT:
            return self._account or name in self._besides
        return name in self._besides and not _barred(name)


def _barred(name: bytes) -> bool:
    return name in _NEVER_UP or name.startswith(_NEVER_UP_BEGIN)


def up_untouched(headers: RawHeaders, *, without: Collection[bytes] = ()) -> bytes:
    """The lines for a path that is only passed on: everything but what must not go up."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    kept = [
        (name, value)
        for name, value in headers
        if name not in _NEVER_UP
        and name not in without
        and name not in named
        and not name.startswith(_NEVER_UP_BEGIN)
        and b"\n" not in value
        and b"\r" not in value
    ]
    return render(kept)


# --- down


def down(
    headers: RawHeaders,
    *,
    length: bool = False,
    decoded: bool = False,
    content_type: bytes | None = None,
) -> RawHeaders:
    """The headers that reach the caller.

    `length`: the body goes on as it came, so its length holds.  `decoded`: its content coding was
    undone.  `content_type`: what the body is now, where the framing was changed.
    """
    kept: RawHeaders = []
    named: set[bytes] = set()
    for name, value in headers:
        if name in _NOT_DOWN or name.startswith(_NOT_DOWN_BEGIN):
            if name == b"connection":
                named.update(token.strip().lower() for token in value.split(b","))
            continue
        if name == b"content-length" and not length:
            continue
        if name == b"content-encoding" and decoded:
            continue
        if name == b"content-type" and content_type is not None:
            value = content_type
        kept.append((name, value))
    return [pair for pair in kept if pair[0] not in named] if named else kept


_down: Final[dict[bytes, bool]] = {}  # what was decided of a name, whatever its value


def down_lines(headers: RawHeaders, *, decoded: bool = False) -> bytes:
    """`render(down(…))` in one pass, for a body that keeps its type and gets its own length."""
    lines = []
    for name, value in headers:
        goes = _down.get(name)
        if goes is None:
            if name == b"connection" or (name == b"content-encoding" and decoded):
                return render(down(headers, decoded=decoded))
            goes = _goes_down(name)
        if goes:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def _goes_down(name: bytes) -> bool:
    goes = not (name in _NOT_DOWN or name == b"content-length" or name.startswith(_NOT_DOWN_BEGIN))
    if len(_down) < _KNOWN_NAMES and name != b"content-encoding":
        _down[name] = goes
    return goes


def render(headers: RawHeaders) -> bytes:
    """Header lines, each with its line end."""
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])


def upstream_request_id(headers: RawHeaders) -> bytes | None:
    """The provider's own id of the request, whatever it calls it."""
    for name, value in headers:
        if name in _UPSTREAM_IDS:
            return value
    return None


# --- the caller's credential


def find_credential(headers: RawHeaders, surface: Surface) -> Credential:
    """What the caller showed.  Two different ones of the same sort are a conflict: no guessing."""
    own = theirs = None
    conflict = False
    shown = [pair for pair in headers if pair[0] in _CREDENTIALS]
    if len(shown) == 1 and surface.dialect != "gemini":
        name, value = shown[0]
        text = _credential(name, value.decode("latin-1").strip())
        if name == b"x-parapet-key" or text.startswith(KEY_PREFIX):
            return Credential(text or None)
        return Credential(None, text or None)
    for name, text in _shown(shown, surface):
        if name == b"x-parapet-key" or text.startswith(KEY_PREFIX):
            conflict = conflict or own not in (None, text)
            own = text
        else:
            conflict = conflict or theirs not in (None, text)
            theirs = text
    return Credential(own, theirs, conflict)


def _shown(credentials: RawHeaders, surface: Surface) -> list[tuple[bytes, str]]:
    shown = [
        (name, text)
        for name, value in credentials
        if (text := _credential(name, value.decode("latin-1").strip()))
    ]
    if surface.dialect == "gemini" and "key=" in surface.query:
        shown += [(b"", text) for text in _query_keys(surface.query) if text]
    return shown


def _credential(name: bytes, value: str) -> str:
    if name != b"authorization":
        return value
    if value.startswith("Bearer "):
        return value[7:].strip()
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme == "AWS4-HMAC-SHA256":  # the access key id is the bearer; signatures are not checked
        _, _, scope = rest.partition("Credential=")
        key_id = scope.partition("/")[0]
        return key_id if key_id.startswith(KEY_PREFIX) else ""
    return ""


def _query_keys(query: str) -> list[str]:
    pairs = (pair.partition("=") for pair in query.split("&"))
    return [unquote_plus(value) for name, _, value in pairs if name == "key"]


def without_key(query: str) -> str:
    """A Gemini caller's query without its credential."""
    return "&".join(pair for pair in query.split("&") if pair.partition("=")[0] != "key")
