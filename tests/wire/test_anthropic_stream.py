"""Anthropic Messages, streamed: what an event means, and what is written between."""

import json

import pytest

from proxy.model.errors import UpstreamBroken
from proxy.model.exchange import Seen, Usage, WireEvent
from proxy.wire.dialect import StreamReader
from proxy.wire.dialects.anthropic_messages import MessagesReader
from tests.wire.streams import events, read_all, reader_for, recorded, texts

TEXT = "Hei på deg 🦉, all well."


def event(name: str, **members: object) -> WireEvent:
    data = json.dumps({"type": name, **members}).encode()
    return WireEvent(name, data, f"event: {name}\n".encode() + b"data: " + data + b"\n\n")


def messages(*, hold: bool = False) -> StreamReader:
    return MessagesReader().stream(hold_tools=hold, hold_reasoning=hold, want_usage=True)


def said(data: bytes) -> list[dict]:
    return [json.loads(e.data) for e in events(data) if e.data]


def one(seens: list[Seen]) -> Seen:
    (seen,) = seens
    return seen


def begun() -> StreamReader:
    """A stream with an open text block that has said "Hei"."""
    reader = messages()
    reader.read(event("message_start", message={"model": "m", "usage": {"input_tokens": 9}}))
    reader.read(event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
    reader.read(event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hei"}))
    return reader


def block(**members: object) -> WireEvent:
    return event("content_block_start", index=0, content_block=members)


def delta(**members: object) -> WireEvent:
    return event("content_block_delta", index=0, delta=members)


# fmt: off
MEANINGS = [  # failover.md §9
    # event                                                       content terminal structural
    (event("message_start", message={"content": []}),             False,  False,   True),
    (event("ping"),                                               False,  False,   False),
    (block(type="text", text=""),                                 False,  False,   True),
    (block(type="text", text="x"),                                True,   False,   True),
    (block(type="thinking", thinking="", signature=""),           False,  False,   True),
    (block(type="tool_use", id="t", name="f", input={}),          True,   False,   True),
    (block(type="redacted_thinking", data="x"),                   True,   False,   True),
    (block(type="server_tool_use", id="t", name="f", input={}),   True,   False,   True),
    (delta(type="text_delta", text=""),                           False,  False,   False),
    (delta(type="text_delta", text="x"),                          True,   False,   False),
    (delta(type="thinking_delta", thinking="x"),                  True,   False,   False),
    (delta(type="input_json_delta", partial_json="{"),            True,   False,   False),
    (delta(type="input_json_delta", partial_json=""),             False,  False,   False),
    (delta(type="signature_delta", signature="x"),                True,   False,   False),
    (event("content_block_stop", index=0),                        False,  False,   True),
    (event("message_delta", delta={"stop_reason": None}),         False,  False,   True),
    (event("message_delta", delta={"stop_reason": "end_turn"}),   False,  True,    True),
    (event("something_new", words="x"),                           False,  False,   False),
]
# fmt: on


@pytest.mark.parametrize(("seen_event", "content", "terminal", "structural"), MEANINGS)
def test_what_an_event_means(
    seen_event: WireEvent, content: bool, terminal: bool, structural: bool
) -> None:
    seen = one(messages().read(seen_event))
    assert (seen.content, seen.terminal, seen.structural) == (content, terminal, structural)
    assert seen.raw == seen_event.raw


def test_a_text_stream_is_read() -> None:
    reader = reader_for("anthropic_text.sse")
    seens = read_all(reader, recorded("anthropic_text.sse"))
    assert texts(seens) == {(0, "text", 0): TEXT}
    assert b"".join(seen.raw for seen in seens) == recorded("anthropic_text.sse")
    assert [seen.terminal for seen in seens].count(True) == 1
    assert seens[-1].done
    assert reader.usage == Usage(11, 2, 0, 0, 7)
    assert (reader.finish_reason, reader.model) == ("end_turn", "claude-3-opus-20240229")
    assert reader.output_bytes == len(TEXT.encode())
    assert reader.trailer() == b""
    (stop,) = [seen for seen in seens if (0, "text", 0) in seen.ends]
    assert stop.structural


def test_tools_and_thinking_pass_as_they_come() -> None:
    for name in ("anthropic_tools.sse", "anthropic_thinking.sse", "anthropic_search.sse"):
        seens = read_all(reader_for(name), recorded(name))
        assert b"".join(seen.raw for seen in seens) == recorded(name)
    lanes = texts(read_all(reader_for("anthropic"), recorded("anthropic_tools.sse")))
    assert lanes == {
        (0, "text", 0): "Let me look.",
        (1, "tool_name", 0): "get_weather",
        (1, "tool_args", 0): '{"city":"Oslo"}',
        (2, "tool_name", 0): "get_time",
    }


def test_what_a_search_found_is_read_and_what_is_opaque_is_not() -> None:
    seens = read_all(reader_for("anthropic"), recorded("anthropic_search.sse"))
    found = [delta.text for seen in seens for delta in seen.deltas]
    assert {"Owls", "https://owls.example/", "Owls hoot.", "web_search", '{"query":"owls"}'} <= {
        *found
    }
    assert "b3BhcXVl" not in found
    results = next(seen for seen in seens if any(d.text == "Owls" for d in seen.deltas))
    assert {delta.stands for delta in results.deltas} == {"alone"}


def test_held_tool_calls_leave_whole_t_w_02_03() -> None:
    seens = read_all(reader_for("anthropic", hold=True), recorded("anthropic_tools.sse"))
    whole = [seen for seen in seens if seen.whole]
    assert [[d.text for d in seen.deltas] for seen in whole] == [
        ["get_weather", '{"city":"Oslo"}'],
        ["get_time", "{}"],
    ]
    assert said(whole[0].raw) == [
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {
                "type": "tool_use",
                "id": "toolu_a",
                "name": "get_weather",
                "input": {},
            },
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"city":"Oslo"}'},
        },
        {"type": "content_block_stop", "index": 1},
    ]
    assert [seen.content for seen in seens].count(True) == 8  # fragments are progress, too


def test_the_whole_input_in_the_start_t_w_04() -> None:
    reader = messages(hold=True)
    reader.read(block(type="tool_use", id="t", name="f", input={"a": 1}))
    whole = one(reader.read(event("content_block_stop", index=0)))
    assert whole.deltas[1].text == '{"a":1}'
    assert said(whole.raw)[0]["content_block"]["input"] == {}


def test_a_rewritten_call_is_rendered() -> None:
    reader = reader_for("anthropic", hold=True)
    whole = next(s for s in read_all(reader, recorded("anthropic_tools.sse")) if s.whole)
    whole.deltas[1].holder["arguments"] = '{"city":"[X]"}'
    assert said(reader.render(whole))[1]["delta"]["partial_json"] == '{"city":"[X]"}'


def test_held_thinking_leaves_unchanged_t_w_09() -> None:
    seens = read_all(reader_for("anthropic", hold=True), recorded("anthropic_thinking.sse"))
    (whole,) = [seen for seen in seens if seen.whole]
    assert [delta.text for delta in whole.deltas] == ["Let me think."]
    assert b"".join(seen.raw for seen in seens) == recorded("anthropic_thinking.sse")


def test_a_dropped_block_moves_the_others_up() -> None:
    reader = reader_for("anthropic", hold=True)
    out = []
    for wire_event in events(recorded("anthropic_thinking.sse")):
        for seen in reader.read(wire_event):
            if seen.whole:
                reader.drop(seen)
            else:
                out.append(seen.raw)
    told = said(b"".join(out))
    starts = [d["index"] for d in told if d["type"] == "content_block_start"]
    assert starts == [0, 1]
    assert {d["index"] for d in told if d["type"] == "content_block_delta"} == {1}
    assert [d["index"] for d in told if d["type"] == "content_block_stop"] == [0, 1]


def test_without_its_calls_an_answer_did_not_stop_for_them_t_w_05() -> None:
    reader = reader_for("anthropic", hold=True)
    out = []
    for wire_event in events(recorded("anthropic_tools.sse")):
        for seen in reader.read(wire_event):
            if seen.whole:
                reader.drop(seen)
                out.append(reader.notice(0, "[tool call denied]"))
            else:
                out.append(seen.raw)
    told = said(b"".join(out))
    assert [d["index"] for d in told if d["type"] == "content_block_start"] == [0, 1, 2]
    assert told[-2]["delta"]["stop_reason"] == "end_turn"
    assert reader.finish_reason == "end_turn"


def test_rewritten_reasoning_loses_its_signature() -> None:
    reader = messages()
    reader.read(block(type="thinking", thinking="", signature=""))
    seen = one(reader.read(delta(type="thinking_delta", thinking="x")))
    seen.deltas[0].holder["thinking"] = "[X]"
    reader.render(seen)
    assert one(reader.read(delta(type="signature_delta", signature="s"))).raw == b""


# fmt: off
ERRORS = [
    ("overloaded_error", 529), ("rate_limit_error", 429), ("invalid_request_error", 400),
    ("api_error", 500), ("timeout_error", 504), ("something_new", 500),
]
# fmt: on


@pytest.mark.parametrize(("kind", "status"), ERRORS)
def test_an_error_inside_the_stream_t_w_08(kind: str, status: int) -> None:
    error = one(messages().read(event("error", error={"type": kind, "message": "m"}))).error
    assert error is not None
    assert (error.status, error.type, error.message) == (status, kind, "m")


def test_what_does_not_parse_may_be_lost_only_if_it_was_a_delta() -> None:
    reader = messages()
    for name, losable in (("content_block_delta", True), ("ping", True), ("message_delta", False)):
        broken = WireEvent(name, b"{", b"")
        with pytest.raises(ValueError):  # noqa: PT011
            reader.read(broken)
        assert reader.structural(broken) != losable
    held = messages(hold=True)
    held.read(block(type="tool_use", id="t", name="f", input={}))
    assert held.structural(WireEvent("content_block_delta", b"{", b""))


def test_bedrocks_metrics_are_the_usage_of_last_resort() -> None:
    reader = messages()
    metrics = {"inputTokenCount": 13, "outputTokenCount": 7}
    reader.read(event("message_stop", **{"amazon-bedrock-invocationMetrics": metrics}))
    assert reader.usage == Usage(13, output=7)


# --- what is written


def test_tails_continue_their_lane() -> None:
    reader = messages()
    assert said(reader.tail((3, "text", 0), "x")) == [
        {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}}
    ]
    (told,) = said(reader.tail((3, "reasoning", 0), "x"))
    assert told["delta"] == {"type": "thinking_delta", "thinking": "x"}
    (told,) = said(reader.tail((3, "tool_args", 0), "x"))
    assert told["delta"] == {"type": "input_json_delta", "partial_json": "x"}


def ends(data: bytes) -> list[tuple]:
    return [(d["type"], d.get("index")) for d in said(data)]


def test_a_blocked_stream_closes_its_block() -> None:
    reader = begun()
    reader.read(delta(type="text_delta", text="x"))
    end = reader.blocked_end("No.")
    assert ends(end) == [
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("message_delta", None),
        ("message_stop", None),
    ]
    told = said(end)
    assert told[0]["delta"]["text"] == "No."
    assert told[2]["delta"] == {"stop_reason": "refusal", "stop_sequence": None}
    assert (told[2]["usage"]["input_tokens"], told[2]["usage"]["output_tokens"]) == (9, 1)


def test_a_block_at_the_stop_of_a_block_still_stops_it() -> None:
    reader = begun()
    reader.read(event("content_block_stop", index=0))  # its tail was blocked: it has not been sent
    assert ends(reader.blocked_end(None))[0] == ("content_block_stop", 0)


def test_a_block_between_blocks_says_it_in_a_new_one() -> None:
    reader = begun()
    reader.read(event("content_block_stop", index=0))
    reader.read(event("ping"))
    assert ends(reader.blocked_end("No."))[:3] == [
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
    ]


def test_a_block_of_a_held_call_leaves_nothing_open() -> None:
    reader = messages(hold=True)
    reader.read(event("message_start", message={}))
    reader.read(block(type="tool_use", id="t", name="f", input={}))
    reader.read(event("content_block_stop", index=0))
    assert ends(reader.blocked_end(None)) == [("message_delta", None), ("message_stop", None)]


def test_a_block_before_anything_came_is_a_whole_stream() -> None:
    end = messages().blocked_end("No.")
    assert ends(end)[:2] == [("message_start", None), ("content_block_start", 0)]
    assert said(end)[0]["message"]["usage"]["input_tokens"] > 0


def test_a_failed_stream_says_so() -> None:
    end = messages().error_end(UpstreamBroken("It broke."), "req-1")
    assert end.startswith(b"event: error\ndata: ")
    assert said(end)[0]["error"] == {"type": "api_error", "message": "It broke."}


def test_a_missing_trailer_is_written() -> None:
    reader = messages()
    assert reader.trailer() == b""
    reader.read(event("message_delta", delta={"stop_reason": "end_turn"}))
    assert reader.trailer() == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
