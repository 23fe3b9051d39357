"""Bedrock: Claude by InvokeModel with a bearer key, the envelope changed and nothing translated
(wire.md §4.2).
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from proxy.model.exchange import Exchange, Json, Plan
from proxy.wire import jsonbody
from proxy.wire.providers.adapter import Adapter, CannotExpress, Draft, Framer, with_query
from proxy.wire.providers.anthropic import allowed_betas, headers_betas
from proxy.wire.providers.bedrock_stream import ClaudeFramer

VERSION: Final = "bedrock-2023-05-31"
# InvokeModel refuses every other member of a body (`extraneous key`).
MEMBERS: Final = frozenset(
    {"anthropic_version", "max_tokens", "messages", "anthropic_beta", "system", "stop_sequences"}
    | {"temperature", "top_p", "top_k", "tools", "tool_choice", "thinking", "metadata"}
    | {"output_config", "safeguards", "context_management"}
)
_ENVELOPE: Final = frozenset({"model", "stream", "anthropic_version", "anthropic_beta"})
# It refuses every other beta flag too (`invalid beta flag`).
BETAS: Final = frozenset(
    {
        "computer-use-2024-10-22",
        "computer-use-2025-01-24",
        "context-1m-2025-08-07",
        "context-management-2025-06-27",
        "dev-full-thinking-2025-05-14",
        "effort-2025-11-24",
        "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "output-128k-2025-02-19",
        "token-efficient-tools-2025-02-19",
        "tool-examples-2025-10-29",
        "tool-search-tool-2025-10-19",
    }
)
_NOT_UP: Final = frozenset({b"anthropic-version", b"anthropic-beta", b"accept"})
_LINES: Final = b"accept: application/json\r\n"


class Bedrock(Adapter):
    """The key as a bearer; the model in the path."""

    def framer(self) -> Framer:
        return ClaudeFramer()

    def _send(self, exchange: Exchange, draft: Draft, aliases: Mapping[str, str]) -> Plan:
        surface, endpoint = exchange.surface, self.endpoint
        if not self._key and (endpoint.access_key_id or endpoint.secret_access_key):
            raise CannotExpress("a signature: this version calls Bedrock with an api_key")
        if surface.dialect == "bedrock_converse" and surface.operation == "pass":
            target = self.base_path + with_query(surface.path, surface.query)
            return self._passed_on(exchange, draft, target)
        if surface.operation != "messages":
            raise CannotExpress(
                surface.operation if surface.dialect == "anthropic_messages" else surface.dialect
            )
        model = self._model(exchange, aliases)
        if model is None:
            raise CannotExpress("a request without model")
        if endpoint.bedrock_api != "invoke" and (
            endpoint.bedrock_api != "auto" or "anthropic." not in model
        ):
            raise CannotExpress(f"{surface.dialect} to the model {model[:64]}")
        verb = "invoke-with-response-stream" if exchange.stream else "invoke"
        target = f"{self.base_path}/model/{quote(model, safe='')}/{verb}"
        body = self._invoke_body(exchange, draft)
        outgoing = self._outgoing(exchange, draft, target, body, without=_NOT_UP, lines=_LINES)
        plan = draft.plan("L1", outgoing, model)
        if exchange.stream:
            plan.framing = "claude_frames"
        return plan

    def _invoke_body(self, exchange: Exchange, draft: Draft) -> bytes:
        """The caller's members that InvokeModel knows, each with the bytes it came with."""
        body = self._body(exchange, None, draft)
        version = self.endpoint.anthropic_version or VERSION
        members: dict[str, bytes] = {"anthropic_version": jsonbody.dumps(version)}
        flags = headers_betas(exchange)
        for name, value in jsonbody.top_members(body):
            if name == "anthropic_beta":
                listed = jsonbody.loads(value)
                flags += [f for f in listed if type(f) is str] if type(listed) is list else []
            elif name in MEMBERS and name not in _ENVELOPE:
                members[name] = self._plain(name, value, draft)
            elif name not in _ENVELOPE:
                draft.dropped.append(name)
        allowed = BETAS if self.endpoint.betas is None else self.endpoint.betas
        kept = allowed_betas(list(dict.fromkeys(flags)), allowed, draft)
        if kept:
            members["anthropic_beta"] = jsonbody.dumps(kept)
        return jsonbody.join_members(list(members.items()))

    def _plain(self, name: str, value: bytes, draft: Draft) -> bytes:
        """A member without the cache hints that InvokeModel refuses."""
        if b'"cache_control"' not in value or (b'"scope"' not in value and b'"ttl"' not in value):
            return value
        doc = jsonbody.loads(value)
        refused = (
            {"scope"} if self.endpoint.capabilities.get("ttl_1h") is True else {"scope", "ttl"}
        )
        gone = _strip(doc, refused)
        draft.dropped += sorted(f"cache_control.{hint}" for hint in gone if _new(draft, hint))
        return jsonbody.dumps(doc) if gone else value


def _new(draft: Draft, hint: str) -> bool:
    return f"cache_control.{hint}" not in draft.dropped


def _strip(value: Json, refused: set[str]) -> set[str]:
    """Take these members out of every `cache_control`; returns what was there."""
    gone: set[str] = set()
    todo: list[Json] = [value]
    while todo:
        node = todo.pop()
        if type(node) is list:
            todo += node
        elif type(node) is dict:
            control = node.get("cache_control")
            if type(control) is dict:
                for hint in refused & control.keys():
                    del control[hint]
                    gone.add(hint)
            todo += node.values()
    return gone
