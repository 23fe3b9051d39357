"""Law 2 (guardrails.md §7.1): every string is text unless a map calls it structural (T-GR-20)."""

import base64
import json
from collections.abc import Iterator

import pytest

from proxy.model.exchange import Json
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.dialects.openai_embeddings import EmbeddingsReader
from proxy.wire.dialects.openai_legacy import LegacyReader

Doc = dict[str, Json]
Reader = ChatReader | MessagesReader | EmbeddingsReader | LegacyReader
MARK = "what nobody has heard of"
CACHE: Json = {"type": "ephemeral", "ttl": "5m"}

CHAT_PARTS: list[Json] = [
    {"type": "text", "text": "t", "prompt_cache_breakpoint": {"mode": "auto"}},
    {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}},
    {"type": "image_url", "image_url": "https://x.example/a.png"},
    {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}},
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}},
    {"type": "refusal", "refusal": "no"},
]
CHAT_CALL: Json = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION: Json = {"name": "f", "description": "d", "strict": True, "parameters": {"type": "object"}}
CHAT: Doc = {
    "model": "m", "stream": True, "service_tier": "auto", "modalities": ["text", "audio"],
    "stream_options": {"include_usage": True}, "logit_bias": {"50256": -100},
    "prompt_cache_options": {"mode": "auto", "ttl": "5m"}, "moderation": {"model": "m"},
    "prediction": {"type": "content", "content": [{"type": "text", "text": "t"}]},
    "audio": {"voice": {"id": "v"}, "format": "wav"}, "stop": ["s"],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "web_search_options": {"user_location": {"type": "approximate"}},
    "messages": [
        {"role": "system", "content": "kind", "name": "n"}, {"role": "user", "content": "t"},
        {"role": "user", "content": CHAT_PARTS},
        {"role": "assistant", "content": None, "audio": {"id": "a"}, "tool_calls": [CHAT_CALL],
         "function_call": {"name": "f", "arguments": "{}"}, "refusal": "no", "reasoning": "hm"},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "t"}]},
    ],
}  # fmt: skip
CLAUDE_BLOCKS: list[Json] = [
    {"type": "text", "text": "t", "cache_control": CACHE,
     "citations": [{"type": "char_location", "cited_text": "q", "file_id": "f"}]},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
    {"type": "document", "title": "t", "citations": {"enabled": True}, "cache_control": CACHE,
     "source": {"type": "content", "content": [{"type": "text", "text": "t"}]}},
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "t"}},
    {"type": "document", "source": {"type": "file", "file_id": "f"}},
    {"type": "container_upload", "file_id": "f", "cache_control": CACHE},
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "b3A="},
    {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "direct"}},
    {"type": "tool_result", "tool_use_id": "t", "is_error": False,
     "content": [{"type": "text", "text": "t"}]},
    {"type": "web_search_tool_result", "tool_use_id": "t",
     "content": [{"type": "web_search_result", "title": "t", "encrypted_content": "e"}]},
    {"type": "search_result", "source": "s", "title": "t", "content": [], "cache_control": CACHE},
    {"type": "of the future", "words": {"deep": ["t"]}},
]  # fmt: skip
CLAUDE: Doc = {
    "model": "m", "stream": True, "max_tokens": 1, "thinking": {"type": "enabled", "display": "x"},
    "cache_control": CACHE, "service_tier": "auto", "anthropic_beta": ["b"],
    "system": [{"type": "text", "text": "kind", "cache_control": CACHE}],
    "metadata": {"user_id": "u"}, "stop_sequences": ["s"], "container": {"id": "c", "skills": []},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
    "tool_choice": {"type": "tool", "name": "f"},
    "tools": [{"name": "f", "input_schema": {}, "type": "custom", "cache_control": CACHE,
               "allowed_callers": ["direct"]}],
    "mcp_servers": [{"type": "url", "url": "https://m.example", "authorization_token": "t0p"}],
    "messages": [{"role": "user", "content": CLAUDE_BLOCKS}, {"role": "assistant", "content": "a"}],
}  # fmt: skip
LEGACY: Doc = {"model": "m", "prompt": "p", "stream_options": {}, "logit_bias": {}}
EMBEDDINGS: Doc = {"model": "m", "input": "i", "encoding_format": "float"}
REQUESTS = [
    (ChatReader(), CHAT),
    (MessagesReader(), CLAUDE),
    (LegacyReader(), LEGACY),
    (EmbeddingsReader(), EMBEDDINGS),
]

CHAT_ANSWER: Doc = {
    "id": "x", "model": "m", "system_fingerprint": "f", "x_groq": {"id": "r"},
    "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}},
    "prompt_filter_results": [{"content_filter_results": {"hate": {"severity": "safe"}}}],
    "choices": [
        {"index": 0, "finish_reason": "stop", "content_filter_results": {},
         "message": {"role": "assistant", "content": "a", "audio": {"id": "a", "data": "AAAA"},
                     "annotations": [{"type": "url_citation", "url_citation": {"url": "u"}}]}},
    ],
}  # fmt: skip
CLAUDE_ANSWER: Doc = {
    "id": "x", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "service_tier": "standard"}, "container": {"id": "c"},
    "content": CLAUDE_BLOCKS,
}  # fmt: skip
ANSWERS = [
    (ChatReader(), CHAT_ANSWER),
    (MessagesReader(), CLAUDE_ANSWER),
    (LegacyReader(), {"id": "x", "usage": {}, "choices": [{"text": "t", "index": 0}]}),
    (EmbeddingsReader(), {"usage": {}, "data": [{"object": "embedding", "embedding": [0.5]}]}),
]


def objects(value: Json, path: str = "") -> Iterator[tuple[str, Doc]]:
    """Every object of a document, with its place."""
    if isinstance(value, dict):
        yield path, value
        for name, child in value.items():
            yield from objects(child, f"{path}.{name}")
    elif isinstance(value, list):
        for place, child in enumerate(value):
            yield from objects(child, f"{path}[{place}]")


def changed(doc: Doc, at: str, name: str, value: Json) -> Doc:
    copy: Doc = json.loads(json.dumps(doc))
    dict(objects(copy))[at][name] = value
    return copy


def finds(leaves: list[str]) -> bool:
    return any(MARK in text for text in leaves)


@pytest.mark.parametrize(("reader", "doc"), REQUESTS, ids=lambda v: type(v).__name__)
def test_an_unknown_member_is_found_wherever_it_stands_in_a_request(
    reader: Reader, doc: Doc
) -> None:
    for at, _ in objects(doc):
        more = changed(doc, at, "unknown_member", MARK)
        assert finds([leaf.text for leaf in reader.request_leaves(more)]), at


@pytest.mark.parametrize(("reader", "doc"), REQUESTS, ids=lambda v: type(v).__name__)
def test_an_object_under_a_structural_name_hides_nothing(reader: Reader, doc: Doc) -> None:
    for at, holder in objects(doc):
        for name in holder:
            for hidden in ({"note": MARK}, [{"note": {"deep": MARK}}]):
                more = changed(doc, at, name, hidden)
                try:
                    found = [leaf.text for leaf in reader.request_leaves(more)]
                except ValueError:
                    continue  # refused: not this dialect
                assert finds(found), (at, name)


@pytest.mark.parametrize(("reader", "doc"), ANSWERS, ids=lambda v: type(v).__name__)
def test_an_unknown_member_is_found_wherever_it_stands_in_an_answer(
    reader: Reader, doc: Doc
) -> None:
    for at, _ in objects(doc):
        more = changed(doc, at, "unknown_member", MARK)
        assert finds([leaf.text for leaf in reader.answer_leaves(more)]), at


@pytest.mark.parametrize("reader_and_doc", [REQUESTS[0], REQUESTS[1]], ids=["chat", "messages"])
def test_words_of_the_protocol_are_no_text(reader_and_doc: tuple[Reader, Doc]) -> None:
    reader, doc = reader_and_doc
    found = {leaf.text for leaf in reader.request_leaves(doc)}
    assert not found & {"text", "low", "wav", "AAAA", "ephemeral", "5m", "auto", "t0p", "direct",
                        "image/png", "enabled", "e", "b3A=", "m", "json_schema"}  # fmt: skip


# --- data URLs (guardrails.md §7.4)

TEXT = base64.b64encode(MARK.encode()).decode()


# fmt: off
URLS = [
    # url                                  read   binary
    (f"data:text/plain;base64,{TEXT}",     True,  0),
    (f"DATA:text/plain;base64,{TEXT}",     True,  0),
    (f"Data:TEXT/html;BASE64,{TEXT}",      True,  0),
    (f" \tdata:text/plain;base64,{TEXT}",  True,  0),
    (f"data:;base64,{TEXT}",               True,  0),
    (f"data:,{MARK}",                      True,  0),
    (f"https://x.example/{MARK}",          True,  0),
    (f"data:image/png;base64,{TEXT}",      False, 1),
    (f"DATA:image/png;base64,{TEXT}",      False, 1),
]
# fmt: on


@pytest.mark.parametrize(("url", "read", "binary"), URLS)
def test_the_scheme_of_a_data_url_is_read_in_any_case(url: str, read: bool, binary: int) -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
    ]
    if not url.startswith("https"):
        parts.append({"type": "file", "file": {"file_data": url}})
    blocks = [{"type": "image", "source": {"type": "url", "url": url}}]
    for reader, pieces in ((ChatReader(), parts), (MessagesReader(), blocks)):
        for piece in pieces:
            gather = reader.request_map({"messages": [{"role": "user", "content": [piece]}]})
            assert finds([leaf.text for leaf in gather.leaves]) == read
            assert gather.binary == binary


def test_what_only_says_that_it_is_a_file_is_read_and_counted() -> None:
    part: Json = {"type": "file", "file": {"file_data": MARK}}
    gather = ChatReader().request_map({"messages": [{"role": "user", "content": [part]}]})
    (leaf,) = gather.leaves
    assert (leaf.text, leaf.rewritable, gather.binary) == (MARK, False, 1)


def test_a_text_in_base64_is_read() -> None:
    source: Json = {"type": "base64", "media_type": "text/plain", "data": TEXT}
    block: Json = {"type": "document", "source": source}
    gather = MessagesReader().request_map({"messages": [{"role": "user", "content": [block]}]})
    assert [(leaf.text, leaf.rewritable) for leaf in gather.leaves] == [(MARK, False)]
    assert gather.binary == 0
