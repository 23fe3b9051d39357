"""What a guarded request measures of its guard, for the metrics."""

import json

import pytest

from proxy.model.records import HELD_BOUNDS
from tests.gateway.test_pipeline import CHAT, OK, STREAM, streamed
from tests.kit.builders import ANTHROPIC, JSON, OPENAI, SECRET_RULE, World, pack, world
from tests.kit.fakes import Step
from tests.kit.shapes import (
    MESSAGE_STREAM,
    MESSAGES,
    STOP,
    TEXT,
    begun,
    chat,
    chunk,
    ended,
    piece,
    told,
)
from tests.kit.shapes import STREAM as STREAM_CHAT


class Ticking:
    """A clock that a millisecond passes on whenever it is asked."""

    def __init__(self, clock: object) -> None:
        self._clock = clock
        self._ticks = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._clock, name)

    def monotonic(self) -> float:
        self._ticks += 1
        return self._ticks / 1000


def guarded(*packs: object, **scripts: object) -> World:
    w = world(packs=list(packs), scripts=scripts)  # type: ignore[arg-type]
    w.gateway.clock = Ticking(w.gateway.clock)  # type: ignore[assignment]
    return w


async def test_a_stream_measures_itself_and_what_it_holds() -> None:
    w = guarded(pack(SECRET_RULE), openai=[streamed("hel", "lo KE", "Y1", "2")])
    await w.ask(STREAM)
    record = w.record
    assert record.guard_request_s > 0
    assert record.guard_lane_s > 0
    assert record.guard_unary_s == 0
    assert record.held_counts is not None
    assert len(record.held_counts) == len(HELD_BOUNDS) + 2
    assert sum(record.held_counts[:-1]) > 4
    assert record.held_counts[-1] > 0, "the start of a key was held"


async def test_a_whole_answer_is_timed() -> None:
    w = guarded(pack(SECRET_RULE), openai=[OK])
    await w.ask(CHAT)
    record = w.record
    assert record.guard_unary_s > 0
    assert (record.guard_lane_s, record.held_counts) == (0, None)


async def test_without_packs_nothing_is_measured() -> None:
    w = guarded(openai=[streamed("hello")])
    await w.ask(STREAM)
    record = w.record
    assert (record.guard_request_s, record.guard_lane_s, record.held_counts) == (0, 0, None)


STRANGE = b'data: {"object":"news.flash","headline":"KEY12345"}\n\n'


@pytest.mark.parametrize(
    ("name", "events", "count"),
    [
        ("openai", chat(chunk({"content": "hi"}), STOP), 0),
        ("openai", chat(STRANGE, chunk({"content": "hi"}), STRANGE, STOP), 2),
        ("openai", chat(b"data: {}\n\n", chunk({"content": "hi"}), STOP), 1),
        ("anthropic-claude", told(*TEXT), 0),
        ("anthropic-claude", told({"type": "news", "headline": "KEY12345"}, *TEXT), 1),
        (
            "anthropic-claude",
            told(TEXT[0], piece(0, {"type": "song_delta", "song": "KEY12345"}), TEXT[-1]),
            1,
        ),
    ],
)
async def test_events_of_unknown_types_are_counted_and_judged(
    name: str, events: list[Step], count: int
) -> None:
    endpoint, target, body = {
        "openai": (OPENAI, "/v1/chat/completions", STREAM_CHAT),
        "anthropic-claude": (ANTHROPIC, MESSAGES, MESSAGE_STREAM),
    }[name]
    w = world((endpoint,), scripts={name: [events]}, packs=[pack(SECRET_RULE)])
    caller = await w.ask(body, target)
    assert w.record.unknown_events == count
    assert b"KEY1" not in b"".join(caller.pieces)
    open_route = world((endpoint,), scripts={name: [events]})
    await open_route.ask(body, target)
    assert open_route.record.unknown_events == 0, "nobody looks there"


THOUGHT = {"role": "assistant", "content": "hi", "reasoning_content": "KEY12345"}
WHOLE: list[Step] = [
    (200, JSON),
    json.dumps({"choices": [{"index": 0, "message": THOUGHT, "finish_reason": "stop"}]}).encode(),
    None,
]
SIGNED: list[Step] = told(
    begun(0, {"type": "thinking", "thinking": "", "signature": ""}),
    piece(0, {"type": "thinking_delta", "thinking": "KEY12345"}),
    piece(0, {"type": "signature_delta", "signature": "c2ln"}),
    ended(0),
)


@pytest.mark.parametrize(
    ("name", "events", "body", "target"),
    [
        ("openai", WHOLE, CHAT, "/v1/chat/completions"),
        ("openai", chat(chunk({"reasoning_content": "KEY1"}),
                        chunk({"reasoning_content": "2345"}), chunk({"content": "hi"}), STOP),
         STREAM_CHAT, "/v1/chat/completions"),
        ("anthropic-claude", SIGNED, MESSAGE_STREAM, MESSAGES),
    ],
)  # fmt: skip
async def test_reasoning_that_no_pack_scans_is_counted_under_its_own_reason(
    name: str, events: list[Step], body: bytes, target: str
) -> None:
    endpoint = OPENAI if name == "openai" else ANTHROPIC
    for mode, unread in (("off", {"reasoning_off": 8}), ("live", None)):
        w = world((endpoint,), scripts={name: [events]}, packs=[pack(SECRET_RULE, reasoning=mode)])
        caller = await w.ask(body, target)
        assert (b"KEY1" in b"".join(caller.pieces)) == (mode == "off")
        record = w.record
        assert record.unread_chars == unread
        seen = record.total_chars - record.scanned_chars
        assert seen == (8 if mode == "off" else 0)
