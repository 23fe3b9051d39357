"""OpenAI and what speaks like it: `openai`, `openai-compatible`, `azure-openai` (wire.md §4.1)."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from proxy.model.exchange import Exchange, Operation, Plan
from proxy.wire import jsonbody
from proxy.wire.jsonbody import Object
from proxy.wire.providers.adapter import Adapter, CannotExpress, Draft, with_query

TAILS: Final[Mapping[Operation, str]] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
_STREAMED: Final = frozenset({"chat", "completions"})
_DIALECTS: Final = frozenset({"openai_chat", "openai_responses"})
_NO_STREAM_USAGE: Final = frozenset({"mistral"})  # profiles that refuse `stream_options`
_INCLUDE: Final = b'{"include_usage":true}'


class OpenAI(Adapter):
    """A base URL that ends in the version; the key as a bearer."""

    def _may_go_without(self) -> bool:
        return self.endpoint.provider == "openai-compatible"

    def _send(self, exchange: Exchange, draft: Draft, aliases: Mapping[str, str]) -> Plan:
        surface = exchange.surface
        if surface.dialect not in _DIALECTS:
            raise CannotExpress(surface.dialect)
        if surface.operation == "pass":
            target = self.base_path + with_query(_versionless(surface.path), surface.query)
            return self._passed_on(exchange, draft, target)
        model = self._model(exchange, aliases)
        tail = TAILS.get(surface.operation)
        if tail is None:
            target = with_query(self.base_path + listing_path(model), surface.query, "api-version")
            return draft.plan("L0", self._outgoing(exchange, draft, target, b""), model)
        body = self._body(exchange, model, draft)
        target = self._target(tail, surface.query, model)
        return draft.plan("L0", self._outgoing(exchange, draft, target, body), model)

    def _target(self, tail: str, query: str, model: str | None) -> str:
        target = self.base_path + tail
        return with_query(target, query, "api-version") if query else target

    def _asked(self, exchange: Exchange, draft: Draft, body: bytes, doc: Object) -> bytes:
        """The usage of a stream, if its caller did not say whether he wants it."""
        if not draft.inject_usage or exchange.want_usage:
            return body
        if exchange.surface.operation not in _STREAMED or not self._tells_usage():
            return body
        options = doc.get("stream_options")
        if options is None or options == {}:
            value = _INCLUDE
        elif type(options) is dict and options.get("include_usage") is None:
            value = jsonbody.dumps({**options, "include_usage": True})
        else:
            return body
        draft.usage_injected = True
        return jsonbody.splice_member(body, doc, "stream_options", value)

    def _tells_usage(self) -> bool:
        said = self.endpoint.capabilities.get("supports_stream_usage")
        if isinstance(said, bool):
            return said
        return self.endpoint.profile not in _NO_STREAM_USAGE and (
            "stream_options" not in self.endpoint.drop_params
        )


class AzureOpenAI(OpenAI):
    """`azure_api: v1` is OpenAI under another path; `deployments` has the model in the path."""

    key_header = b"api-key"
    key_prefix = b""

    def _base_path(self, path: str) -> str:
        if self.endpoint.azure_api == "deployments":
            return path.removesuffix("/openai") + "/openai"
        return path if path.endswith("/v1") else path.removesuffix("/openai") + "/openai/v1"

    def _target(self, tail: str, query: str, model: str | None) -> str:
        if self.endpoint.azure_api == "v1":
            return super()._target(tail, query, model)
        if model is None:
            raise CannotExpress("a request without model")
        version = self.endpoint.api_version or "2024-10-21"
        return f"{self.base_path}/deployments/{quote(model, safe='')}{tail}?api-version={version}"

    def _send(self, exchange: Exchange, draft: Draft, aliases: Mapping[str, str]) -> Plan:
        plan = super()._send(exchange, draft, aliases)
        if self.endpoint.azure_api == "deployments" and exchange.surface.operation in TAILS:
            plan.level = "L1"
        return plan


def listing_path(model: str | None) -> str:
    """The list of models, or one of them."""
    return "/models" if model is None else "/models/" + quote(model, safe="")


def _versionless(path: str) -> str:
    """A caller's path without the version that the base URL has already."""
    parts = path.split("/", 2)
    return "/" + parts[2] if len(parts) > 2 and parts[1] == "v1" else path
