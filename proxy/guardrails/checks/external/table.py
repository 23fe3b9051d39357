"""Every adapter by its name."""

from collections.abc import Mapping
from typing import Final

from proxy.guardrails.checks.external.bedrock import BEDROCK
from proxy.guardrails.checks.external.http import HTTP
from proxy.guardrails.checks.external.llama_guard import LLAMA_GUARD
from proxy.guardrails.checks.external.moderation import MODERATION
from proxy.guardrails.checks.external.presidio import PRESIDIO
from proxy.guardrails.checks.external.words import Adapter, AdapterName

ADAPTERS: Final[Mapping[AdapterName, Adapter]] = {
    adapter.name: adapter for adapter in (HTTP, MODERATION, BEDROCK, PRESIDIO, LLAMA_GUARD)
}
