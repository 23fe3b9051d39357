"""What we write ourselves, judged by the types of the official SDKs."""

import json

import pytest
from anthropic.types import Message, ModelInfo, RawMessageStreamEvent
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from proxy.model.exchange import Usage
from proxy.wire.dialect import StreamReader
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.dialects.openai_embeddings import EmbeddingsReader
from proxy.wire.dialects.openai_legacy import LegacyReader
from proxy.wire.listing import list_models, one_model
from tests.wire.streams import STREAMS, events, reader_for, recorded

pytestmark = pytest.mark.thorough
CLAUDE_EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def judged(name: str, data: bytes) -> int:
    """Every event of `data` is one of the SDK's; returns how many."""
    found = [e for e in events(data) if e.data and e.data != b"[DONE]" and e.name != "ping"]
    for event in found:
        doc = json.loads(event.data)
        if name.startswith("anthropic"):
            CLAUDE_EVENT.validate_python(doc)
        elif name.startswith("openai_legacy"):
            Completion.model_validate(
                {**doc, "choices": [_judged_choice(c) for c in doc["choices"]]}
            )
        else:
            ChatCompletionChunk.model_validate(doc)
    return len(found)


def _judged_choice(choice: dict) -> dict:
    """The SDK's type knows whole answers only, which always have a reason."""
    return {**choice, "finish_reason": choice["finish_reason"] or "stop"}


def after(reader: StreamReader, name: str, count: int) -> bytes:
    return b"".join(
        seen.raw for event in events(recorded(name))[:count] for seen in reader.read(event)
    )


OURS = [name for name in STREAMS if "azure" not in name and "search" not in name]


@pytest.mark.parametrize("name", OURS)
def test_what_is_written_into_a_stream(name: str) -> None:
    count = len(events(recorded(name)))
    for sent in (0, 1, 3, count // 2, count - 3):
        reader = reader_for(name, hold=True)
        after(reader, name, sent)
        assert judged(name, reader.blocked_end("No."))
        assert judged(name, reader.tail((0, "text", 0), "held"))
    assert judged(name, after(reader_for(name, hold=True), name, count))


def test_whole_answers_that_were_blocked() -> None:
    for message in ("No.", None):
        chat = ChatReader().answer_block(message, "req-1", "m")
        ChatCompletion.model_validate_json(chat)
        legacy = LegacyReader().answer_block(message, "req-1", None)
        Completion.model_validate_json(legacy)
        Message.model_validate_json(MessagesReader().answer_block(message, "req-1", "m"))
    several = ChatReader().answer_block(None, "req-1", "m", usage=Usage(input=7), choices=2)
    told = ChatCompletion.model_validate_json(several)
    assert [(c.index, c.finish_reason, c.message.content) for c in told.choices] == [
        (0, "content_filter", ""),
        (1, "content_filter", ""),
    ]
    assert told.usage is not None
    assert told.usage.prompt_tokens == 7
    empty = EmbeddingsReader().answer_block("No.", "req-1", "m")
    CreateEmbeddingResponse.model_validate_json(empty)


def test_listings() -> None:
    Model.model_validate_json(one_model("openai_chat", "a"))
    ModelInfo.model_validate_json(one_model("anthropic_messages", "a"))
    for entry in json.loads(list_models("anthropic_messages", ["a"]))["data"]:
        ModelInfo.model_validate(entry)
