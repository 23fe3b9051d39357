"""What holds for every dialect and every recorded stream, however it is cut (T-W-06, T-W-18)."""

import json

import pytest

from proxy.model.exchange import Seen, WireEvent
from proxy.wire import jsonbody
from proxy.wire.dialect import StreamReader
from proxy.wire.providers.bedrock_stream import ClaudeFramer
from tests.wire.streams import (
    STREAMS,
    as_frames,
    dialect_of,
    events,
    framed,
    read_all,
    reader_for,
    recorded,
    texts,
)

CLAUDE = [name for name in STREAMS if name.startswith("anthropic")]


def end_of_answer(name: str) -> int:
    """Where the event that makes the answer whole has its data complete."""
    reader, at = reader_for(name), 0
    for event in events(recorded(name)):
        if any(seen.terminal for seen in reader.read(event)):
            return at + len(event.raw.rstrip())
        at += len(event.raw)
    raise AssertionError("a recorded stream ends")


def watched(reader: StreamReader, name: str, kill_at: int) -> list[Seen]:
    found: list[Seen] = []
    for event in events(recorded(name)[:kill_at]):
        try:
            found += reader.read(event)
        except ValueError:
            continue
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_killed_anywhere_is_never_whole_t_w_06(name: str) -> None:
    whole_at = end_of_answer(name)
    for kill_at in range(whole_at):
        reader = reader_for(name)
        found = watched(reader, name, kill_at)
        assert not any(seen.terminal or seen.done for seen in found)
        assert reader.trailer() == b""
    assert any(seen.terminal for seen in watched(reader_for(name), name, whole_at))


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("hold", [False, True])
def test_what_leaves_unchanged_says_the_same(name: str, hold: bool) -> None:
    sent = b"".join(seen.raw for seen in read_all(reader_for(name, hold=hold), recorded(name)))
    again = texts(read_all(reader_for(name), sent))
    assert {lane: text for lane, text in again.items() if text != "{}"} == texts(
        read_all(reader_for(name), recorded(name))
    )


@pytest.mark.parametrize("name", STREAMS)
def test_an_event_rendered_anew_says_the_same(name: str) -> None:
    reader = reader_for(name)
    out = []
    for event in events(recorded(name)):
        out += [
            reader.render(seen) if seen.doc is not None and seen.raw else seen.raw
            for seen in reader.read(event)
        ]
    assert texts(read_all(reader_for(name), b"".join(out))) == texts(
        read_all(reader_for(name), recorded(name))
    )


@pytest.mark.parametrize("name", STREAMS)
def test_a_block_anywhere_ends_well_formed(name: str) -> None:
    """After any number of events sent, the end that is written makes the answer whole."""
    found = events(recorded(name))
    for sent in range(len(found)):
        reader = reader_for(name, hold=True)
        out = [seen.raw for event in found[:sent] for seen in reader.read(event)]
        for _ in reader.read(found[sent]):
            break  # this one was blocked
        everything = b"".join(out) + reader.blocked_end("No.")
        if b"[DONE]" in b"".join(out) or b"message_stop" in b"".join(out):
            continue
        again = reader_for(name)
        seens = read_all(again, everything)
        assert seens[-1].done, (sent, everything)
        assert any(seen.terminal for seen in seens)
        if name.startswith("anthropic"):
            assert_blocks_in_order(everything)


def assert_blocks_in_order(data: bytes) -> None:
    at, is_open = -1, False
    docs = [json.loads(event.data) for event in events(data) if event.data]
    assert [doc["type"] for doc in docs].count("message_start") == 1
    for doc in docs:
        if doc["type"] == "content_block_start":
            assert (doc["index"], is_open) == (at + 1, False)
            at, is_open = at + 1, True
        elif doc["type"] == "content_block_delta":
            assert (doc["index"], is_open) == (at, True)
        elif doc["type"] == "content_block_stop":
            assert (doc["index"], is_open) == (at, True)
            is_open = False
        elif doc["type"] == "message_delta":
            assert not is_open


@pytest.mark.parametrize("name", CLAUDE)
def test_bedrocks_frames_killed_anywhere_are_never_whole(name: str) -> None:
    data = as_frames(recorded(name))
    last = whole = len(data)
    framer, reader = ClaudeFramer(), reader_for(name)
    for at in range(len(data)):
        for event in framer.feed(data[at : at + 1]):
            if any(seen.terminal for seen in reader.read(event)):
                whole = min(whole, at + 1)
        if at + 1 < last and framer.pending == 0 and whole == last:
            assert reader.trailer() == b""
    assert whole < last
    again = reader_for(name)
    seens = [seen for event in framed(ClaudeFramer(), data) for seen in again.read(event)]
    assert texts(seens) == texts(read_all(reader_for(name), recorded(name)))


DEEP = b"[" * 900 + b'"x"' + b"]" * 900
# fmt: off
NESTED = [
    ("openai_chat",   b'{"choices":[{"index":0,"delta":{"content":"x"},"logprobs":%b}]}'),
    ("openai_chat",   b'{"choices":[{"index":0,"delta":{"new":%b}}]}'),
    ("openai_legacy", b'{"choices":[{"index":0,"text":"x","new":%b}]}'),
    ("anthropic",     b'{"type":"content_block_start","index":0,"content_block":{"new":%b}}'),
    ("anthropic",     b'{"type":"new","new":%b}'),
]
# fmt: on


@pytest.mark.parametrize(("name", "data"), NESTED)
def test_what_is_nested_absurdly_is_refused(name: str, data: bytes) -> None:
    """Nothing that was read may fail when it is written again."""
    event = WireEvent("", data % DEEP, b"")
    with pytest.raises(ValueError, match="nested too deeply"):
        reader_for(name).read(event)
    doc = jsonbody.read_object(b'{"content":[{"type":"new","new":%b}],"new":%b}' % (DEEP, DEEP))
    with pytest.raises(ValueError, match="nested too deeply"):
        dialect_of(name).answer_leaves(doc)
