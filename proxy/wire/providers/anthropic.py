"""Anthropic itself, and what offers its API unchanged (wire.md §3.7)."""

from collections.abc import Mapping
from typing import Final

from proxy.model.exchange import Exchange, Plan
from proxy.wire.providers.adapter import Adapter, CannotExpress, Draft, header_of, with_query
from proxy.wire.providers.openai import listing_path

_TAILS: Final = {"messages": "/v1/messages", "count_tokens": "/v1/messages/count_tokens"}
_VERSION: Final = b"anthropic-version"
_NOTHING: Final[frozenset[bytes]] = frozenset()
_BETA: Final = b"anthropic-beta"
DEFAULT_VERSION: Final = "2023-06-01"


class Anthropic(Adapter):
    """The version is part of the path; `x-api-key` is right for every API version."""

    key_header = b"x-api-key"
    key_prefix = b""

    def _base_path(self, path: str) -> str:
        return path.removesuffix("/v1")

    def _send(self, exchange: Exchange, draft: Draft, aliases: Mapping[str, str]) -> Plan:
        surface = exchange.surface
        if surface.dialect != "anthropic_messages":
            raise CannotExpress(surface.dialect)
        if surface.operation == "pass":
            target = self.base_path + with_query(surface.path, surface.query)
            return self._passed_on(exchange, draft, target)
        model = self._model(exchange, aliases)
        tail, body = _TAILS.get(surface.operation), b""
        if tail is None:
            tail = "/v1" + listing_path(model)
        else:
            body = self._body(exchange, model, draft)
        without, lines, other = self._versions(exchange, draft)
        target = with_query(self.base_path + tail, surface.query)
        outgoing = self._outgoing(exchange, draft, target, body, without=without, lines=lines)
        return draft.plan("L1" if other else "L0", outgoing, model)

    def _edits(self, exchange: Exchange) -> bool:
        return exchange.surface.operation != "count_tokens"

    def _versions(self, exchange: Exchange, draft: Draft) -> tuple[frozenset[bytes], bytes, bool]:
        """The headers of version and betas: (whose of the caller's do not go up, the lines that go
        instead, whether the version is another than the caller's)."""
        endpoint = self.endpoint
        asked = header_of(exchange.inbound.headers, _VERSION)
        if asked is not None and not endpoint.anthropic_version and endpoint.betas is None:
            return _NOTHING, b"", False  # what every SDK sends goes up as it is
        wanted = (endpoint.anthropic_version or "").encode("ascii")
        lines, without = b"", set()
        if wanted or asked is None:
            version = wanted or DEFAULT_VERSION.encode("ascii")
            lines = _VERSION + b": " + version + b"\r\n"
            without.add(_VERSION)
        if endpoint.betas is not None:
            without.add(_BETA)
            kept = allowed_betas(headers_betas(exchange), endpoint.betas, draft)
            if kept:
                lines += _BETA + b": " + ",".join(kept).encode("ascii") + b"\r\n"
        return frozenset(without), lines, bool(wanted and asked is not None and asked != wanted)


def headers_betas(exchange: Exchange) -> list[str]:
    """The beta flags of all `anthropic-beta` headers, in order, each once."""
    text = (header_of(exchange.inbound.headers, _BETA) or b"").decode("latin-1")
    flags = (flag.strip() for flag in text.split(","))
    return list(dict.fromkeys(flag for flag in flags if flag.isascii() and flag.isprintable()))


def allowed_betas(flags: list[str], allowed: list[str] | frozenset[str], draft: Draft) -> list[str]:
    kept = [flag for flag in flags if flag in allowed]
    draft.dropped += [f"anthropic-beta:{flag}" for flag in flags if flag and flag not in allowed]
    return kept
