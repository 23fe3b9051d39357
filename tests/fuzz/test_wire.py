"""Mutated bytes never get out as anything but ValueError; any chopping gives the same events."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model.exchange import WireEvent
from proxy.wire import jsonbody
from proxy.wire.dialect import DialectReader
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.dialects.openai_embeddings import EmbeddingsReader
from proxy.wire.dialects.openai_legacy import LegacyReader
from proxy.wire.eventstream import FrameDecoder
from proxy.wire.failures import read_error, retry_hint
from proxy.wire.leaves import apply_rewrites
from proxy.wire.paths import PathFault, read_target
from proxy.wire.providers.bedrock_stream import ClaudeFramer
from proxy.wire.sse import SseFramer
from tests.wire.streams import STREAMS, as_frames, dialect_of, recorded

READERS: list[DialectReader] = [ChatReader(), LegacyReader(), EmbeddingsReader(), MessagesReader()]
names = st.sampled_from(STREAMS)
flips = st.lists(st.tuples(st.integers(0, 100_000), st.binary(max_size=3)), max_size=4)
cuts = st.lists(st.integers(0, 100_000), max_size=8)

# Words of the protocols in places where they do not belong.
WORDS = """
    type text content messages role assistant tool_calls function name arguments choices delta index
    input thinking signature tool_use content_block_start content_block_delta content_block_stop
    message_delta content_block text_delta input_json_delta stop_reason usage error id system tools
    finish_reason source image_url url data:text/plain,x message message_start custom audio logprobs
    function_call {"a":1}
"""
words = st.sampled_from(WORDS.split())
scalars = st.none() | st.booleans() | st.integers(-2, 3) | st.floats(-1e9, 1e9) | words
nonsense = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6)
)
objects = st.dictionaries(words, nonsense, max_size=8)


def mutated(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    for at, piece in changes:
        place = at % (len(data) + 1)
        data = data[:place] + piece + data[place + len(piece) :]
    return data


def chopped(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@pytest.mark.thorough
@given(names, flips, cuts, st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_mutated_stream(
    name: str, changes: list[tuple[int, bytes]], at: list[int], hold: bool
) -> None:
    framer = SseFramer()
    reader = dialect_of(name).stream(hold_tools=hold, hold_reasoning=hold, want_usage=True)
    data = mutated(recorded(name), changes)
    whole = SseFramer()
    together = whole.feed(data) + whole.finish()
    found = [event for piece in chopped(data, at) for event in framer.feed(piece)]
    found += framer.finish()
    assert found == together
    for event in found:
        try:
            seens = reader.read(event)
        except ValueError:
            assert reader.structural(event) in (True, False)
            continue
        for seen in seens:
            if seen.doc is not None and seen.deltas:
                reader.render(seen)
    assert reader.blocked_end("No.")
    reader.flush()
    reader.trailer()


@pytest.mark.thorough
@given(names.filter(lambda name: name.startswith("anthropic")), flips, cuts)
@settings(max_examples=100, deadline=None)
def test_mutated_frames(name: str, changes: list[tuple[int, bytes]], at: list[int]) -> None:
    framer = ClaudeFramer()
    try:
        for piece in chopped(mutated(as_frames(recorded(name)), changes), at):
            framer.feed(piece)
    except ValueError:
        return
    framer.finish()


@given(st.binary(max_size=200))
def test_any_bytes_as_frames(data: bytes) -> None:
    with suppress(ValueError):
        FrameDecoder().feed(data)


@pytest.mark.thorough
@given(st.lists(objects, max_size=6), st.booleans())
@settings(max_examples=100, deadline=None)
def test_events_of_nonsense(docs: list[dict], hold: bool) -> None:
    for dialect in READERS:
        reader = dialect.stream(hold_tools=hold, hold_reasoning=hold, want_usage=hold)
        for doc in docs:
            data = json.dumps(doc).encode()
            event = WireEvent("", data, b"data: " + data + b"\n\n")
            try:
                seens = reader.read(event)
            except ValueError:
                continue
            for seen in seens:
                for delta in seen.deltas:
                    delta.holder[delta.member] = "x"
                if seen.doc is not None:
                    reader.render(seen)
        reader.blocked_end("No.")


@pytest.mark.thorough
@given(objects)
@settings(max_examples=100, deadline=None)
def test_bodies_of_nonsense(doc: dict) -> None:
    body = json.dumps(doc).encode()
    for reader in READERS:
        try:
            leaves = reader.request_leaves(doc)
        except ValueError:
            leaves = []
        with suppress(ValueError):
            leaves += reader.answer_leaves(doc)
        reader.answer_usage(doc)
        reader.answer_finish(doc)
        reader.answer_error(doc)
        for leaf in leaves:
            if leaf.rewritable:
                apply_rewrites(body, doc, [(leaf, "x")])
    read_error("openai", 400, [], body)


@pytest.mark.thorough
@given(objects, words, nonsense)
def test_a_splice_is_what_changing_the_parse_would_be(doc: dict, name: str, new: object) -> None:
    body, value = json.dumps(doc, indent=1).encode(), json.dumps(new).encode()
    after = jsonbody.splice_member(body, jsonbody.read_object(body), name, value)
    assert jsonbody.loads(after) == jsonbody.loads(json.dumps({**doc, name: new}).encode())


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_as_a_body(data: bytes) -> None:
    for read in (jsonbody.strict_object, jsonbody.read_object, jsonbody.loads_event):
        with suppress(ValueError):
            read(data)


# JSON as text, so that a member may stand twice and a string be spelt in several ways.
strings = st.sampled_from(
    [r'"a"', r'"b"', r'"\u0061"', r'"\""', r'"\\"', r'"\\\""', r'"\ud83e"', '"{"', '""']
)
NUMBERS = """
    1 -0 1e3 18446744073709551615 18446744073709551616 -9223372036854775808 -9223372036854775809
    1.8446744073709552e19 1e400 NaN true null
"""
numbers = st.sampled_from(NUMBERS.split())


def members(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(strings, values).map(": ".join)
    return st.lists(pairs, max_size=4).map(lambda found: "{" + ",".join(found) + "}")


ambiguous = st.recursive(
    strings | numbers,
    lambda inner: members(inner) | st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]"),
)


@pytest.mark.thorough
@given(members(ambiguous))
@settings(max_examples=500, deadline=None)
def test_the_quick_look_at_a_body_agrees_with_the_strict_one(body: str) -> None:
    found: list[str] = []
    for read in (jsonbody.strict_value, jsonbody.strict_object):
        try:
            found.append(repr(read(body.encode(), max_depth=3)))
        except jsonbody.BodyFault as fault:
            found.append(str(fault))
    assert found[0] == found[1]


@given(st.text(st.sampled_from("/.%2fFeEr5cvmodels1chat-?&\\\r "), max_size=40))
def test_any_target(target: str) -> None:
    for method in ("GET", "POST"):
        found = read_target(method, "/" + target)
        if not isinstance(found, PathFault):
            assert "\r" not in found.path + found.query


@given(st.binary(max_size=40), st.integers(0, 2**42))
def test_any_hint(value: bytes, now_ms: int) -> None:
    for name in (b"retry-after", b"retry-after-ms"):
        hint = retry_hint([(name, value)], now_ms)
        assert hint is None or 0 <= hint <= 7 * 86_400
