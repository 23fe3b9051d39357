"""What an endpoint would say to a request, without one: for warnings and dry runs.

The adapter plans a request as small as its dialect allows; nothing is sent and no secret is read.
"""

from typing import Final
from urllib.parse import urlsplit

from proxy.model.exchange import Credential, Dialect, Exchange, Inbound, Operation, Refused, Surface
from proxy.model.tenancy import Endpoint, Provider
from proxy.wire.jsonbody import Object, dumps
from proxy.wire.providers.registry import adapter_of

ASKED: Final[dict[Dialect, tuple[Operation, str, Object]]] = {
    "openai_chat": (
        "chat",
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hello"}]},
    ),
    "anthropic_messages": (
        "messages",
        "/v1/messages",
        {"max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}]},
    ),
    "openai_responses": ("pass", "/v1/responses", {"input": "Hello"}),
    "gemini": ("pass", "/v1beta/models/m:generateContent", {"contents": []}),
    "bedrock_converse": ("pass", "/model/m/converse", {"messages": []}),
}
SPOKEN: Final[dict[Provider, Dialect]] = {
    "openai": "openai_chat",
    "openai-compatible": "openai_chat",
    "azure-openai": "openai_chat",
    "anthropic": "anthropic_messages",
    "bedrock": "anthropic_messages",
    "gemini": "gemini",
    "vertex": "gemini",
}
_SAID: Final = "said"


def host(endpoint: Endpoint) -> str:
    return urlsplit(endpoint.url).netloc.lower()


def same_origin(primary: Endpoint, endpoint: Endpoint) -> bool:
    """The caller's own key may go there, too (wire.md §2.3)."""
    return endpoint.provider == primary.provider and host(endpoint) == host(primary)


def refusal_of(endpoint: Endpoint, primary: Endpoint, dialect: Dialect, model: str) -> str:
    """Why a request in that dialect for that model would not be sent there: `no_credential`,
    `cannot express <field>`; "" when it would.  A caller comes with a key for the primary."""
    try:
        adapter = adapter_of(endpoint, lambda secret: None if secret is None else _SAID)
    except ValueError as why:
        return f"cannot be used: {why}"
    operation, path, body = ASKED[dialect]
    said = dumps({"model": model, **body})
    surface = Surface(dialect, operation, path)
    inbound = Inbound("rehearsal", "POST", path, [], said)
    plan = adapter.plan(
        Exchange(surface, inbound, said, None, model),
        Credential(provider_key=_SAID),
        same_origin=same_origin(primary, endpoint),
        inject_usage=False,
        aliases=primary.models,
    )
    return plan.reason if isinstance(plan, Refused) else ""


def speaks_of(endpoint: Endpoint, primary: Endpoint) -> str:
    """Why that endpoint cannot be asked what the primary is asked; "" when it can."""
    dialect = SPOKEN.get(primary.provider)
    if dialect is None:
        return ""
    names = [*primary.models] or ["anthropic.claude"]
    said = [refusal_of(endpoint, primary, dialect, name) for name in names]
    return said[0] if all(each.startswith("cannot express") for each in said) else ""
