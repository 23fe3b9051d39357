"""A stream's plain events, read without a parser: what fits a mould means what a parser says."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.model.exchange import WireEvent
from proxy.wire.dialect import StreamReader
from proxy.wire.dialects.anthropic_stream import MessagesStream
from proxy.wire.dialects.openai_stream import ChatStream
from proxy.wire.mould import LESSONS, MAX_BYTES

LETTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\n\u2028 é🦉a{}')
TEXTS = st.lists(st.text(LETTERS, max_size=8), min_size=1, max_size=12)


def chat_event(
    text: str, *, compact: bool = True, ascii_only: bool = False, **more: object
) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    doc = {"id": "chatcmpl-1", "created": 1, "model": "m", "choices": [choice], **more}
    space = (",", ":") if compact else None
    data = json.dumps(doc, separators=space, ensure_ascii=ascii_only)
    return f"data: {data}\n\n".encode()


def chat() -> StreamReader:
    return ChatStream(hold_tools=False, want_usage=True)


def messages_event(kind: str, **members: object) -> bytes:
    doc = {"type": kind, **members}
    return f"event: {kind}\ndata: {json.dumps(doc, ensure_ascii=False)}\n\n".encode()


def piece(text: str, index: int = 0) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return messages_event("content_block_delta", index=index, delta=delta)


def messages(index: int = 0) -> StreamReader:
    reader = MessagesStream(hold_tools=False, hold_reasoning=False)
    block = {"type": "text", "text": ""}
    read(reader, messages_event("content_block_start", index=index, content_block=block))
    return reader


def read(reader: StreamReader, raw: bytes, new: str = "new") -> tuple[list[str], bytes]:
    """What a parser makes of an event: its texts, and its bytes with another text."""
    name, _, data = raw.decode().partition("data: ")
    event = WireEvent(name.removeprefix("event: ").strip(), data.strip("\n").encode(), raw)
    (seen,) = reader.read(event)
    found = [delta.text for delta in seen.deltas]
    for delta in seen.deltas:
        delta.holder[delta.member] = new
    return found, reader.render(seen)


def fitted(reader: StreamReader, raw: bytes, new: str = "new") -> tuple[list[str], bytes] | None:
    text = reader.plain(raw)
    if text is None:
        return None
    assert reader.mould is not None
    return [text], reader.mould.event(new)


@pytest.mark.thorough
@given(TEXTS, st.text(LETTERS, max_size=8), st.booleans(), st.booleans(), st.booleans())
@example(["a", "b", "b"], "c", True, True, True)
def test_a_mould_says_what_a_parser_says(
    texts: list[str], new: str, compact: bool, ascii_only: bool, padded: bool
) -> None:
    parsed, moulded = chat(), chat()
    for place, text in enumerate(["one", "two", *texts]):
        more = {"obfuscation": "x" * (place % 3 + 1)} if padded else {}
        raw = chat_event(text, compact=compact, ascii_only=ascii_only, **more)
        expected = read(parsed, raw, new)
        assert (fitted(moulded, raw, new) or read(moulded, raw, new)) == expected
        assert moulded.output_bytes == parsed.output_bytes
        assert moulded.blocked_end("No.") == parsed.blocked_end("No.")


@given(TEXTS, st.text(LETTERS, max_size=8))
def test_and_so_in_messages(texts: list[str], new: str) -> None:
    parsed, moulded = messages(), messages()
    for text in ["one", *texts]:
        raw = piece(text)
        expected = read(parsed, raw, new)
        assert (fitted(moulded, raw, new) or read(moulded, raw, new)) == expected
        assert moulded.output_bytes == parsed.output_bytes
        assert moulded.blocked_end("No.") == parsed.blocked_end("No.")


ONE = chat_event("one")
# fmt: off
CHAT = [
    # event                                                       its text
    (chat_event("two"),                                           "two"),
    (chat_event("på 🦉"),                                         "på 🦉"),
    (chat_event(""),                                              None),
    (chat_event('say "hi"'),                                      None),
    (chat_event("a\nb"),                                          None),
    (chat_event("two", user="x"),                                 None),
    (chat_event("two", compact=False),                            None),
    (ONE.replace(b'"one"', b'"t\xffo"'),                          None),
    (ONE.replace(b'"one"', b'"t\x01o"'),                          None),
    (ONE.replace(b'"one"', b'"one","content":"two"'),             None),
    (ONE.replace(b'"finish_reason":null', b'"finish_reason":"stop"'), None),
    (ONE + ONE,                                                   None),
    (ONE[:-1],                                                    None),
    (ONE[1:],                                                     None),
    (chat_event("x" * MAX_BYTES),                                 None),
    (b"",                                                         None),
]
# fmt: on


@pytest.mark.parametrize(("raw", "text"), CHAT)
def test_what_fits(raw: bytes, text: str | None) -> None:
    reader = chat()
    for before in (ONE, ONE):  # the first one teaches the lane, the second the mould
        assert reader.plain(before) is None
        read(reader, before)
    assert reader.plain(raw) == text


def test_the_text_is_never_taken_for_another_string() -> None:
    reader = chat()
    for raw in (ONE, chat_event("chatcmpl-1")):
        read(reader, raw)
    assert reader.mould is None
    read(reader, chat_event("two"))
    assert reader.plain(chat_event("chatcmpl-1")) == "chatcmpl-1"


def test_padding_may_be_anything_but_a_way_out() -> None:
    reader = chat()
    for raw in (chat_event("one", obfuscation="abc"), chat_event("two", obfuscation="de")):
        read(reader, raw)
    assert reader.plain(chat_event("three", obfuscation="f0G")) == "three"
    for padding in ('","choices":[],"a":"b', "", " ", "é"):
        assert reader.plain(chat_event("three", obfuscation=padding)) is None
    raw = chat_event("three", obfuscation="abc").replace(b"abc", b'abc","choices":"none')
    assert reader.plain(raw) is None


def test_no_mould_outlives_its_block() -> None:
    reader = messages()
    read(reader, piece("one"))
    assert reader.plain(piece("two")) == "two"
    assert reader.plain(piece("two", index=1)) is None
    read(reader, messages_event("content_block_stop", index=0))
    assert reader.plain(piece("two")) is None


def test_the_half_of_a_pair_is_waited_for() -> None:
    reader = chat()
    for raw in (ONE, ONE):
        read(reader, raw)
    assert reader.mould is not None
    half = ONE.replace(b'"one"', b'"\\ud83e"')
    reader.read(WireEvent("", half[6:-2], half))
    assert reader.plain(ONE) is None
    other = ONE.replace(b'"one"', b'"\\udd89"')
    assert read(reader, other)[0] == ["🦉"]


def test_lessons_are_bounded() -> None:
    reader = chat()
    for place in range(LESSONS + 2):
        raw = chat_event("one", created=place)
        assert reader.plain(raw) is None
        read(reader, raw)
    assert reader.plain(chat_event("one", created=LESSONS + 1)) is None
    assert reader.plain(chat_event("one", created=LESSONS)) == "one"
