"""An endpoint's envelope: URL, credential, headers, and the bytes of a request for it.

Whatever is the same for every request is put together once, when the adapter is built.  `plan` is
pure and runs per attempt: it starts from the caller's original exchange and never parses, changes
and dumps a body, but splices the bytes that came.

SECURITY: the credential of the caller goes up only where the endpoint has none of its own and is of
the same provider and host as the route's primary.
"""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, Literal, Protocol
from urllib.parse import quote, unquote, urlsplit

from proxy.model.documents import Secret
from proxy.model.exchange import (
    Credential,
    Exchange,
    Level,
    Outgoing,
    Plan,
    RawHeaders,
    Refused,
    WireEvent,
)
from proxy.model.tenancy import Endpoint
from proxy.wire import jsonbody
from proxy.wire.headers import HOP, KEY_PREFIX, UpFilter, up_untouched
from proxy.wire.jsonbody import Object
from proxy.wire.providers.models import model_for
from proxy.wire.sse import SseFramer

Secrets = Callable[[Secret | None], str | None]
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~"
_KNOWN_TARGETS: Final = 64
_OWN_KEY: Final = re.compile(rf"\b{KEY_PREFIX}[A-Za-z0-9]+_")
_JSON: Final = b"content-type: application/json\r\n"
_OURS: Final = HOP | {b"host", b"content-length", b"content-encoding", b"expect"}


class Framer(Protocol):
    """Bytes into events; `pending` bytes at the end of the body mean truncation."""

    pending: int

    def feed(self, data: bytes) -> list[WireEvent]: ...
    def finish(self) -> list[WireEvent]: ...


class CannotExpress(Exception):
    """Says what of a request this endpoint cannot be told."""


class Adapter:
    """What all providers share.  A provider says which header holds its key, and what of a surface
    it speaks (`_send`)."""

    key_header: ClassVar[bytes] = b"authorization"
    key_prefix: ClassVar[bytes] = b"Bearer "

    def __init__(self, endpoint: Endpoint, secrets: Secrets) -> None:
        self.endpoint = endpoint
        url = urlsplit(endpoint.url)
        self._scheme: Literal["http", "https"] = "http" if url.scheme == "http" else "https"
        self._host = url.hostname or ""
        self._port = url.port or (80 if self._scheme == "http" else 443)
        self.base_path = self._base_path(quote(url.path.rstrip("/"), safe=_PATH_SAFE))
        self._key = _header_value(secrets(endpoint.api_key), f"{endpoint.id}: api_key")
        self._forward = frozenset(name.lower().encode("ascii") for name in endpoint.forward_headers)
        extra = {
            name.lower().encode("ascii"): value.encode("ascii")
            for name, value in endpoint.extra_headers.items()
            if name.lower().encode("ascii") not in _OURS
        }
        self._own = frozenset({*extra, self.key_header, b"accept-encoding", b"content-type"})
        self._json_line = b"" if b"content-type" in extra else _JSON
        self._filters: dict[tuple[frozenset[bytes], bool], UpFilter] = {}
        lines = [b" HTTP/1.1\r\nhost: " + url.netloc.lower().encode("idna")]
        lines += [name + b": " + value for name, value in extra.items()]
        self._opening = b"\r\n".join(lines) + b"\r\n"
        self._begun: dict[tuple[str, str], bytes] = {}  # heads up to the credential, by target
        self._changes_body = bool(
            endpoint.drop_params or endpoint.rename_params or endpoint.extra_body
        )
        self._key_line = self._credential_line(self._key)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.endpoint.id} {self._host}:{self._port}>"

    @property
    def has_credential(self) -> bool:
        """It calls with a credential of its own."""
        return bool(self._key)

    def target(self) -> tuple[Literal["http", "https"], str, int, str]:
        """(scheme, host, port, base path)"""
        return self._scheme, self._host, self._port, self.base_path

    def framer(self) -> Framer:
        """What makes events of the body of a streamed answer."""
        return SseFramer()

    def plan(
        self,
        exchange: Exchange,
        credential: Credential,
        *,
        same_origin: bool,
        inject_usage: bool,
        aliases: Mapping[str, str],
    ) -> Plan | Refused:
        """One attempt at this endpoint.  `same_origin`: the caller's own key may be used here."""
        key_line = self._key_line
        theirs = not key_line
        if theirs:
            if same_origin:
                key_line = self._credential_line(_sendable(credential.provider_key))
            elif not self._may_go_without():
                return Refused("no_credential")
        try:
            return self._send(
                exchange, Draft(key_line, theirs and same_origin, inject_usage), aliases
            )
        except CannotExpress as what:
            return Refused(f"cannot express {what}")
        except jsonbody.BodyFault:  # a body that cannot be taken apart
            return Refused("cannot express the body")

    def own_call(self, path: str, body: bytes, lines: bytes = b"") -> Outgoing:
        """A request of ours, which no caller sent: JSON by POST, with the endpoint's credential.
        `path` begins where the host ends, `lines` are more headers."""
        begun = self._begin("POST", path)
        line = b"content-length: %d\r\n\r\n" % len(body)
        return Outgoing(b"".join((begun, self._key_line, lines, self._json_line, line)), body)

    # --- what a provider says

    def _base_path(self, path: str) -> str:
        return path

    def _may_go_without(self) -> bool:
        return False

    def _send(self, exchange: Exchange, draft: "Draft", aliases: Mapping[str, str]) -> Plan:
        """The plan.  Raises CannotExpress."""
        raise CannotExpress(exchange.surface.dialect)

    # --- what providers build with

    def _credential_line(self, key: str) -> bytes:
        if not key:
            return b""
        return self.key_header + b": " + self.key_prefix + key.encode("latin-1") + b"\r\n"

    def _model(self, exchange: Exchange, aliases: Mapping[str, str]) -> str | None:
        if exchange.model is None:
            return None
        return model_for(self.endpoint, exchange.model, aliases)

    def _outgoing(
        self,
        exchange: Exchange,
        draft: "Draft",
        target: str,
        body: bytes,
        *,
        without: frozenset[bytes] = frozenset(),
        lines: bytes = b"",
    ) -> Outgoing:
        """The request for `target`.  `without`: more headers that are not the caller's to send;
        `lines`: headers in their place."""
        chosen = self._filters.get((without, draft.theirs))
        if chosen is None:
            chosen = self._filters[without, draft.theirs] = UpFilter(
                without=self._own | without, besides=self._forward, account=draft.theirs
            )
        inbound = exchange.inbound
        begun = self._begun.get((inbound.method, target))
        if begun is None:
            begun = self._begin(inbound.method, target)
        sent = chosen.lines(inbound.headers)
        if not body:
            return Outgoing(b"".join((begun, draft.key_line, lines, sent, b"\r\n")), body)
        head = b"%b%b%b%b%bcontent-length: %d\r\n\r\n" % (
            begun, draft.key_line, lines, sent, self._json_line, len(body)
        )  # fmt: skip
        return Outgoing(head, body)

    def _begin(self, method: str, target: str) -> bytes:
        begun = f"{method} {target}".encode("ascii") + self._opening
        begun += b"accept-encoding: identity\r\n"
        if len(self._begun) < _KNOWN_TARGETS:
            self._begun[method, target] = begun
        return begun

    def _passed_on(self, exchange: Exchange, draft: "Draft", target: str) -> Plan:
        """A path that nobody understands: bytes and headers as they came."""
        inbound = exchange.inbound
        sent = up_untouched(
            inbound.headers, without=self._own - {b"accept-encoding", b"content-type"}
        )
        head = [
            f"{inbound.method} {target}".encode("ascii"),
            self._opening,
            draft.key_line,
            sent,
        ]
        if inbound.body or inbound.method in ("POST", "PUT", "PATCH"):
            head.append(b"content-length: %d\r\n" % len(inbound.body))
        head.append(b"\r\n")
        replayable = inbound.method in _IDEMPOTENT
        outgoing = Outgoing(b"".join(head), inbound.body, replayable)
        return Plan("L0", outgoing, exchange.model)

    def _body(self, exchange: Exchange, model: str | None, draft: "Draft") -> bytes:
        """The caller's bytes with the model's name, and what the endpoint's settings change."""
        body, doc = exchange.body, exchange.doc
        if doc is None:
            doc = jsonbody.read_object(body)
        # the body may name another model than its path, which is the one that was routed
        if model is not None and (model != doc.get("model") or body.count(b'"model"') != 1):
            body = jsonbody.splice_member(body, doc, "model", jsonbody.dumps(model))
            doc = {**doc, "model": model}
        if exchange.stream:
            body = self._asked(exchange, draft, body, doc)
        if self._changes_body and self._edits(exchange):
            body = self._edited(body, draft)
        return body

    def _asked(self, exchange: Exchange, draft: "Draft", body: bytes, doc: Object) -> bytes:
        """The body of a stream's request, whose parse is `doc`, with what we ask for besides."""
        return body

    def _edits(self, exchange: Exchange) -> bool:
        """Where the endpoint's settings change bodies: this one too."""
        return True

    def _edited(self, body: bytes, draft: "Draft") -> bytes:
        endpoint = self.endpoint
        members: dict[str, bytes] = {}
        for name, value in jsonbody.top_members(body):
            if name in endpoint.drop_params:
                draft.dropped.append(name)
            else:
                members[endpoint.rename_params.get(name, name)] = value
        for name, extra in endpoint.extra_body.items():
            members[name] = jsonbody.dumps(extra)
        return jsonbody.join_members(list(members.items()))


class Draft:
    """What is settled of an attempt before its provider is asked.

    `theirs`: the credential is the caller's.  `dropped`: what the endpoint is not told.
    """

    __slots__ = ("dropped", "inject_usage", "key_line", "theirs", "usage_injected")

    def __init__(self, key_line: bytes, theirs: bool, inject_usage: bool) -> None:
        self.key_line = key_line
        self.theirs = theirs
        self.inject_usage = inject_usage
        self.usage_injected = False
        self.dropped: list[str] = []

    def plan(self, level: Level, outgoing: Outgoing, model: str | None) -> Plan:
        return Plan(
            level, outgoing, model, usage_injected=self.usage_injected, dropped=self.dropped
        )


def header_of(headers: RawHeaders, name: bytes) -> bytes | None:
    """All values of a header, in order, as one."""
    found = [value for known, value in headers if known == name]
    return b",".join(found) if found else None


def with_query(path: str, query: str, *without: str) -> str:
    """The path with the caller's query, but for some of its members.

    SECURITY: a key of ours is for us, under whatever name it stands and however it is written.
    """
    ours = KEY_PREFIX in query or "%" in query
    if query and (without or ours):
        pairs = [pair for pair in query.split("&") if pair.partition("=")[0] not in without]
        query = "&".join(pair for pair in pairs if _OWN_KEY.search(unquote(pair)) is None)
    return f"{path}?{query}" if query else path


def _header_value(secret: str | None, what: str) -> str:
    """A secret as it can stand in a header.  Raises ValueError, without the secret."""
    value = (secret or "").strip()
    if not _sendable(value) and value:
        raise ValueError(f"{what} holds characters that cannot stand in a header")
    return value


def _sendable(value: str | None) -> str:
    if not value or not value.isascii() or not value.isprintable():
        return ""
    return value
