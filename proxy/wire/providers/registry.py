"""Which adapter an endpoint has."""

from collections.abc import Mapping
from typing import Final

from proxy.model.tenancy import Endpoint, Provider
from proxy.wire.providers.adapter import Adapter, Secrets
from proxy.wire.providers.anthropic import Anthropic
from proxy.wire.providers.bedrock import Bedrock
from proxy.wire.providers.openai import AzureOpenAI, OpenAI

__all__ = ["Adapter", "adapter_of"]

_ADAPTERS: Final[Mapping[Provider, type[Adapter]]] = {
    "openai": OpenAI,
    "openai-compatible": OpenAI,
    "azure-openai": AzureOpenAI,
    "anthropic": Anthropic,
    "bedrock": Bedrock,
}


def adapter_of(endpoint: Endpoint, secrets: Secrets) -> Adapter:
    """The endpoint's envelope, put together.  An adapter of a provider that nothing is written for
    yet refuses every request, with the reason.  Raises ValueError: a secret that cannot be sent.
    """
    return _ADAPTERS.get(endpoint.provider, Adapter)(endpoint, secrets)
