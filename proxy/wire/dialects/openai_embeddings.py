"""OpenAI embeddings: texts in, vectors out that nobody reads (wire.md §3.6)."""

from collections.abc import Mapping
from typing import Final

from proxy.model.exchange import Dialect, Leaf, Usage
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows, Object, StreamReader
from proxy.wire.dialects.members import OPTION_WORDS, below
from proxy.wire.dialects.openai_chat import is_error
from proxy.wire.dialects.openai_legacy import LegacyStream, prompt_leaves
from proxy.wire.leaves import ALL_READ, Gather, Unread
from proxy.wire.usage import read_usage

_SETTINGS: Final = frozenset({"model", "encoding_format", "dimensions"})
_ANSWER_WORDS: Final = frozenset({"object", "model", "data", "usage", "id", "created"})
_ITEM_WORDS: Final = frozenset({"object", "index", "embedding"})


class EmbeddingsReader:
    """`POST …/embeddings`"""

    name: Dialect = "openai_chat"
    unread: Mapping[Unread, int] = ALL_READ

    def request_leaves(self, doc: Object) -> list[Leaf]:
        gather = Gather("user")
        for name, value in doc.items():
            if name == "input":
                prompt_leaves(gather, value, name)
            elif name in _SETTINGS:
                below(gather, value, "metadata", (name,), OPTION_WORDS)
            else:
                gather.walk(value, "metadata", (name,))
        return gather.leaves

    def answer_leaves(self, doc: Object) -> list[Leaf]:
        gather = Gather("assistant")
        for name, value in doc.items():
            if name not in _ANSWER_WORDS:
                gather.walk(value, "metadata", (name,))
            elif name != "data":
                below(gather, value, "metadata", (name,), OPTION_WORDS)
        items = doc.get("data")
        for place, item in enumerate(items if type(items) is list else ()):
            for name, value in item.items() if type(item) is dict else ():
                if name not in _ITEM_WORDS:
                    gather.walk(value, "metadata", ("data", place, name))
        return gather.leaves

    def answer_usage(self, doc: Object) -> Usage | None:
        return read_usage("openai_chat", doc.get("usage"))

    def answer_finish(self, doc: Object) -> str | None:
        return None

    def answer_error(self, doc: Object) -> bool:
        return is_error(doc)

    def answer_block(
        self,
        message: str | None,
        request_id: str,
        model: str | None,
        *,
        usage: Usage | None = None,
        choices: int = 1,
    ) -> bytes:
        """A whole answer without vectors; nothing in it says why."""
        spent = {"prompt_tokens": usage.all_input if usage else 0, "total_tokens": 0}
        spent["total_tokens"] = spent["prompt_tokens"]
        return jsonbody.dumps({"object": "list", "data": [], "model": model or "", "usage": spent})

    def stream(
        self,
        *,
        hold_tools: bool,
        hold_reasoning: bool,
        want_usage: bool,
        choices: int = 1,
        flows: Flows | None = None,
    ) -> StreamReader:
        """Nobody streams vectors; an answer that does is watched like any other."""
        return LegacyStream(want_usage=want_usage)
