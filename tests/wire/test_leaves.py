"""Every text of a body is found, and what is found can be put back (guardrails.md §7)."""

import json

import pytest

from proxy.model.exchange import Json, Leaf
from proxy.wire import jsonbody
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.dialects.openai_embeddings import EmbeddingsReader
from proxy.wire.dialects.openai_legacy import LegacyReader
from proxy.wire.jsonbody import BodyFault
from proxy.wire.leaves import Unscannable, apply_rewrites, json_text_leaves, rewrite_json_text


def told(leaves: list[Leaf]) -> set[tuple[str, str, str]]:
    return {(leaf.text, leaf.part, leaf.role) for leaf in leaves}


CHAT = {
    "model": "gpt-4o",
    "stream": True,
    "user": "user-1",
    "stop": ["STOP"],
    "metadata": {"team": "red"},
    "prediction": {"type": "content", "content": "maybe"},
    "future_member": {"deep": ["unknown words"]},
    "tool_choice": {"type": "function", "function": {"name": "pick"}},
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Tells the weather",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": "Which one"}},
                    "required": ["city"],
                },
            },
        }
    ],
    "messages": [
        {"role": "system", "content": "Be kind"},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief"}]},
        {"role": "user", "name": "ann", "content": "old question"},
        {
            "role": "assistant",
            "content": None,
            "refusal": "no",
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Oslo","n":[41]}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "new question"},
                {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "file", "file": {"file_data": "data:text/plain;base64,c2VjcmV0"}},
                {"type": "future", "words": "strange"},
            ],
        },
    ],
}


def test_chat_requests_t3() -> None:
    found = told(ChatReader().request_leaves(CHAT))
    assert found == {
        ("user-1", "metadata", "user"),
        ("STOP", "text", "user"),
        ("red", "metadata", "user"),
        ("maybe", "text", "user"),
        ("unknown words", "metadata", "user"),
        ("pick", "tool_name", "user"),
        ("get_weather", "tool_def", "user"),
        ("Tells the weather", "tool_def", "user"),
        ("city", "tool_def", "user"),
        ("Which one", "tool_def", "user"),
        ("Be kind", "text", "system"),
        ("Be brief", "text", "system"),
        ("ann", "text", "user"),
        ("old question", "text", "user"),
        ("no", "refusal", "assistant"),
        ("hm", "reasoning", "assistant"),
        ("get_weather", "tool_name", "assistant"),
        ("city", "tool_args", "assistant"),
        ("Oslo", "tool_args", "assistant"),
        ("n", "tool_args", "assistant"),
        ("41", "tool_args", "assistant"),
        ("rain", "tool_result", "tool"),
        ("new question", "text", "user"),
        ("https://x.example/a.png", "metadata", "user"),
        ("secret", "text", "user"),
        ("strange", "text", "user"),
    }
    gather = ChatReader().request_map(CHAT)
    assert (gather.binary, gather.remote) == (1, 0)


SHORT = [
    {"role": role, "content": content}
    for role in ("system", "user", "assistant", "tool", "nobody", 5, None)
    for content in ("a word", "", None, ["parts"] if role == "user" else "b")
] + [{"role": "user", "text": "c"}, {"content": "d", "name": "e"}, {"content": "f"}]


@pytest.mark.parametrize("reader", [ChatReader(), MessagesReader()], ids=lambda r: r.name)
def test_the_short_way_through_plain_messages_finds_the_same(
    reader: ChatReader | MessagesReader,
) -> None:
    """An `id` is no text, but with it a message is not plain."""
    messages = [m for m in SHORT if reader.name == "openai_chat" or m.get("content") != ["parts"]]
    plain = reader.request_leaves({"messages": messages})
    long = reader.request_leaves({"messages": [{**message, "id": "x"} for message in messages]})
    assert plain == long
    assert len(plain) > 10


def test_what_stands_after_the_last_answer_is_latest() -> None:
    latest = {leaf.text for leaf in ChatReader().request_leaves(CHAT) if leaf.latest}
    assert {"rain", "new question", "strange", "Tells the weather"} <= latest
    assert not {"old question", "Be kind", "Oslo", "hm"} & latest


MESSAGES = {
    "model": "claude",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "Be kind", "cache_control": {"type": "ephemeral"}}],
    "metadata": {"user_id": "user-1"},
    "stop_sequences": ["STOP"],
    "future_member": "unknown words",
    "mcp_servers": [{"type": "url", "url": "https://m.example", "authorization_token": "t0p"}],
    "tools": [{"name": "get", "description": "Gets", "input_schema": {"type": "object"}}],
    "messages": [
        {"role": "user", "content": "old question"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "signed", "signature": "c2ln"},
                {"type": "thinking", "thinking": "unsigned", "signature": ""},
                {"type": "redacted_thinking", "data": "b3BhcXVl"},
                {"type": "text", "text": "answer", "citations": [{"cited_text": "quoted"}]},
                {"type": "tool_use", "id": "t1", "name": "get", "input": {"q": ["x", 4.5]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "result"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [
                        {"type": "text", "text": "listed"},
                        {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
                    ],
                },
                {
                    "type": "document",
                    "title": "titled",
                    "context": "around",
                    "source": {"type": "text", "media_type": "text/plain", "data": "pages"},
                },
                {"type": "document", "source": {"type": "file", "file_id": "f"}},
                {"type": "search_result", "source": "s", "title": "t", "content": []},
                {"type": "future", "words": "strange"},
            ],
        },
    ],
}


def test_messages_requests_t3() -> None:
    found = told(MessagesReader().request_leaves(MESSAGES))
    assert found == {
        ("Be kind", "text", "system"),
        ("user-1", "metadata", "user"),
        ("STOP", "text", "user"),
        ("unknown words", "metadata", "user"),
        ("https://m.example", "metadata", "user"),
        ("get", "tool_def", "user"),
        ("Gets", "tool_def", "user"),
        ("old question", "text", "user"),
        ("unsigned", "reasoning", "assistant"),
        ("answer", "text", "assistant"),
        ("quoted", "annotation", "assistant"),
        ("get", "tool_name", "assistant"),
        ("q", "tool_args", "assistant"),
        ("x", "tool_args", "assistant"),
        ("4.5", "tool_args", "assistant"),
        ("result", "tool_result", "tool"),
        ("listed", "tool_result", "tool"),
        ("titled", "text", "user"),
        ("around", "text", "user"),
        ("pages", "text", "user"),
        ("s", "text", "user"),
        ("t", "text", "user"),
        ("strange", "text", "user"),
    }
    gather = MessagesReader().request_map(MESSAGES)
    assert (gather.binary, gather.remote, gather.opaque) == (1, 1, 2)


UNREAD: list[tuple[object, Json, dict[str, int]]] = [
    (ChatReader, {"type": "text", "text": "plain"}, {}),
    (ChatReader, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
     {"binary": 26}),
    (ChatReader, {"type": "image_url", "image_url": {"url": "https://docs.example/i.png"}}, {}),
    (ChatReader, {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
     {"binary": 4}),
    (ChatReader, {"type": "file", "file": {"file_id": "file-1"}}, {"remote": 6}),
    (ChatReader, {"type": "file", "file": {"file_data": "data:text/plain,hello"}}, {}),
    (MessagesReader, {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                                  "data": "AAAA"}}, {"binary": 4}),
    (MessagesReader, {"type": "document", "source": {"type": "file", "file_id": "file-1"}},
     {"remote": 6}),
    (MessagesReader, {"type": "container_upload", "file_id": "file-1"}, {"remote": 6}),
    (MessagesReader, {"type": "thinking", "thinking": "so then", "signature": "abc"},
     {"signed_reasoning": 7, "opaque": 3}),
    (MessagesReader, {"type": "thinking", "thinking": "unsigned"}, {}),
    (MessagesReader, {"type": "redacted_thinking", "data": "sealed"}, {"opaque": 6}),
    (MessagesReader, {"type": "web_search_tool_result", "tool_use_id": "t", "content": [
        {"type": "web_search_result", "title": "t", "encrypted_content": "12345"}]},
     {"opaque": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("made", "piece", "unread"), UNREAD)
def test_what_no_rule_can_read_is_counted_in_characters(
    made: type[ChatReader | MessagesReader], piece: Json, unread: dict[str, int]
) -> None:
    reader = made()
    assert reader.unread == {}
    reader.request_leaves({"messages": [{"role": "user", "content": [piece, piece]}]})
    assert reader.unread == {why: 2 * chars for why, chars in unread.items()}
    assert made().unread == {}


def test_answers_are_read_whole() -> None:
    message = {
        "role": "assistant",
        "content": "said",
        "annotations": [{"type": "url_citation", "url_citation": {"title": "cited", "url": "u"}}],
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
        ],
        "audio": {"id": "a", "data": "AAAA", "transcript": "spoken"},
    }
    chat = {
        "id": "x",
        "model": "m",
        "choices": [
            {"index": 0, "message": message, "finish_reason": "stop"},
            {"index": 1, "message": {"content": "other"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 1},
    }
    found = {leaf.text: leaf for leaf in ChatReader().answer_leaves(chat)}
    assert found.keys() == {"said", "cited", "u", "f", "{", "spoken", "other"}
    assert not found["{"].rewritable  # does not parse: a rewrite is a block
    claude = {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "thought", "signature": "s"},
            {"type": "text", "text": "said"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "b"}},
        ],
        "stop_reason": "tool_use",
    }
    leaves = {leaf.text: leaf for leaf in MessagesReader().answer_leaves(claude)}
    assert leaves.keys() == {"thought", "said", "f", "a", "b"}
    assert leaves["thought"].rewritable  # its block goes, or its signature does
    legacy = {"choices": [{"index": 0, "text": "said"}]}
    assert [leaf.text for leaf in LegacyReader().answer_leaves(legacy)] == ["said"]


def test_prompts_and_inputs_are_text_and_token_ids_cannot_be_read() -> None:
    assert [leaf.text for leaf in LegacyReader().request_leaves({"prompt": ["a", "b"]})] == [
        "a",
        "b",
    ]
    assert [leaf.text for leaf in EmbeddingsReader().request_leaves({"input": "a"})] == ["a"]
    for value in ([1, 2], [[1], [2]], ["a", 1]):
        with pytest.raises(Unscannable):
            LegacyReader().request_leaves({"prompt": value})
        with pytest.raises(Unscannable):
            EmbeddingsReader().request_leaves({"input": value})


# fmt: off
FOREIGN = [
    (ChatReader(),     {}),
    (ChatReader(),     {"messages": "hi"}),
    (ChatReader(),     {"messages": ["hi"]}),
    (ChatReader(),     {"messages": [{"role": "user", "content": 5}]}),
    (ChatReader(),     {"messages": [{"role": "user", "content": [5]}]}),
    (ChatReader(),     {"messages": [], "tools": 5}),
    (ChatReader(),     {"messages": [{"tool_calls": [5]}]}),
    (MessagesReader(), {"messages": {}}),
    (MessagesReader(), {"messages": [{"role": "user", "content": 5}]}),
    (MessagesReader(), {"messages": [{"role": "user", "content": ["x"]}]}),
    (MessagesReader(), {"messages": [], "system": 5}),
    (LegacyReader(),   {"prompt": 5}),
]
# fmt: on


@pytest.mark.parametrize(("reader", "doc"), FOREIGN)
def test_what_is_not_the_dialect_is_an_error(reader: ChatReader, doc: dict) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        reader.request_leaves(doc)


@pytest.mark.parametrize("doc", [CHAT, MESSAGES], ids=["chat", "messages"])
def test_every_leaf_that_may_be_rewritten_can_be(doc: dict) -> None:
    """Law 5: the strings change and nothing else."""
    reader = ChatReader() if doc is CHAT else MessagesReader()
    body = json.dumps(doc, indent=1).encode()
    for leaf in reader.request_leaves(doc):
        if not leaf.rewritable:
            with pytest.raises(BodyFault):
                apply_rewrites(body, doc, [(leaf, "NEW")])
            continue
        after = apply_rewrites(body, doc, [(leaf, 'N"W')])
        changed = jsonbody.read_object(after)
        old, new = {*_words(doc)}, {*_words(changed)}
        if leaf.inner is None:
            assert 'N"W' in new
        else:
            assert any('"N\\"W"' in word for word in new)
        assert len(old ^ new) <= 2
        assert len(after.splitlines()) == len(body.splitlines())


def _words(value: object) -> list[str]:
    if isinstance(value, dict):
        return [word for child in value.values() for word in _words(child)]
    if isinstance(value, list):
        return [word for child in value for word in _words(child)]
    return [value] if isinstance(value, str) else []


def test_log_probabilities_of_a_rewritten_choice_become_null() -> None:
    body = (
        b'{"choices": [{"message":{"content":"a"},"logprobs": {"x": 1}},'
        b' {"message":{"content":"b"},"logprobs":{"y":1}}]}'
    )
    doc = jsonbody.read_object(body)
    leaf = ChatReader().answer_leaves(doc)[0]
    assert apply_rewrites(body, doc, [(leaf, "-")]) == (
        b'{"choices": [{"message":{"content":"-"},"logprobs": null},'
        b' {"message":{"content":"b"},"logprobs":{"y":1}}]}'
    )


# fmt: off
INNER = [
    # text                      leaves
    ('{"a":"b"}',               [("a", False), ("b", True)]),
    ('"just a text"',           [("just a text", True)]),
    ('{"n":1e17,"m":4.0}', [("n", False), ("m", False), ("1" + "0" * 17, False), ("4", False)]),
    ('{"a":1,"a":2}',           [('{"a":1,"a":2}', False)]),
    ('{"a":',                   [('{"a":', False)]),
    ('[true,null,""]',          []),
]
# fmt: on


@pytest.mark.parametrize(("text", "leaves"), INNER)
def test_strings_that_hold_json(text: str, leaves: list) -> None:
    found = json_text_leaves(text, "tool_args", "assistant", ("x",))
    assert [(leaf.text, leaf.rewritable) for leaf in found] == leaves
    for leaf in found:
        if leaf.rewritable:
            after = rewrite_json_text(text, [(leaf, "é")])
            assert after == text.replace(leaf.text, "é")
