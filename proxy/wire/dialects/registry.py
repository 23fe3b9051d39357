"""Which reader a path's bodies have, and what the gateway asks of every request body."""

from collections.abc import Callable, Mapping
from typing import Final

from proxy.model.exchange import Dialect, Operation, Surface
from proxy.wire.dialect import DialectReader, Object
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.anthropic_tools import MessagesTools
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.dialects.openai_embeddings import EmbeddingsReader
from proxy.wire.dialects.openai_legacy import LegacyReader
from proxy.wire.dialects.openai_tools import ChatTools
from proxy.wire.dialects.tools import ToolGrammar

_READERS: Final[Mapping[Operation, Callable[[], DialectReader]]] = {
    "chat": ChatReader,
    "completions": LegacyReader,
    "embeddings": EmbeddingsReader,
    "messages": MessagesReader,
    "count_tokens": MessagesReader,
}


_TOOLS: Final[Mapping[Dialect, ToolGrammar]] = {
    "openai_chat": ChatTools(),
    "anthropic_messages": MessagesTools(),
}


def tools_of(dialect: Dialect) -> ToolGrammar | None:
    """Where the tools of such bodies are; None: nobody here knows."""
    return _TOOLS.get(dialect)


def reader_of(surface: Surface) -> DialectReader | None:
    """A reader for one request.  None: nobody here understands the bodies of this path."""
    made = _READERS.get(surface.operation)
    return made() if made is not None else None


def request_view(surface: Surface, doc: Object) -> tuple[str | None, bool, bool, str | None]:
    """(model, wants a stream, wants its usage, user) of a request body.

    The path's model wins over the body's (Azure's callers send `null` there).
    """
    model = surface.model or doc.get("model")
    stream = doc.get("stream") is True
    if surface.operation in ("messages", "count_tokens"):
        metadata = doc.get("metadata")
        user = metadata.get("user_id") if type(metadata) is dict else None
        want_usage = True
    else:
        user = doc.get("safety_identifier") or doc.get("user")
        options = doc.get("stream_options")
        want_usage = type(options) is dict and options.get("include_usage") is True
    return (
        model if type(model) is str and model else None,
        stream,
        want_usage,
        user if type(user) is str and user else None,
    )
