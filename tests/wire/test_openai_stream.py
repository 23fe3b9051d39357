"""Chat and legacy completions, streamed: what an event means, and what is written between."""

import json

import pytest

from proxy.model.errors import UpstreamBroken
from proxy.model.exchange import Operation, Seen, Usage, WireEvent
from proxy.wire.dialect import StreamReader
from proxy.wire.dialects.lanes import choices_asked
from proxy.wire.dialects.openai_chat import ChatReader
from tests.wire.streams import events, read_all, reader_for, recorded, texts

TEXT = "Hei på deg 🦉, all well."
SAY = (0, "text", 0)


def chunk(delta: object, finish: str | None = None, at: int = 0, **more: object) -> WireEvent:
    choice = {"index": at, "delta": delta, "finish_reason": finish}
    doc = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    data = json.dumps({**doc, "choices": [choice], **more}).encode()
    return WireEvent("", data, b"data: " + data + b"\n\n")


def chat(*, hold: bool = False, want_usage: bool = True) -> StreamReader:
    return ChatReader().stream(hold_tools=hold, hold_reasoning=False, want_usage=want_usage)


def said(data: bytes) -> list[dict]:
    return [json.loads(e.data) for e in events(data) if e.data and e.data != b"[DONE]"]


def one(seens: list[Seen]) -> Seen:
    (seen,) = seens
    return seen


# fmt: off
MEANINGS = [  # failover.md §9
    # delta                                   finish  content terminal carries
    ({"role": "assistant", "content": ""},    None,   False,  False,   True),
    ({"role": "assistant"},                   None,   False,  False,   True),
    ({},                                      None,   False,  False,   False),
    ({"content": None},                       None,   False,  False,   False),
    ({"content": "x"},                        None,   True,   False,   False),
    ({"refusal": "x"},                        None,   True,   False,   False),
    ({"reasoning_content": "x"},              None,   True,   False,   False),
    ({"reasoning": "x"},                      None,   True,   False,   False),
    ({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}, None, True, False, True),
    ({"function_call": {"name": "f", "arguments": ""}}, None, True, False, False),
    ({"audio": {"id": "a"}},                  None,   True,   False,   True),
    ({},                                      "stop", False,  True,    True),
    ({"content": "x"},                        "stop", True,   True,    True),
]
# fmt: on


@pytest.mark.parametrize(("delta", "finish", "content", "terminal", "carries"), MEANINGS)
def test_what_a_chunk_means(
    delta: dict, finish: str | None, content: bool, terminal: bool, carries: bool
) -> None:
    seen = one(chat().read(chunk(delta, finish)))
    assert (seen.content, seen.terminal, seen.carries) == (content, terminal, carries)


@pytest.mark.parametrize("name", ["text", "crlf", "usage"])
def test_a_text_stream_is_read(name: str) -> None:
    reader = reader_for(f"openai_chat_{name}.sse")
    seens = read_all(reader, recorded(f"openai_chat_{name}.sse"))
    assert texts(seens) == {SAY: TEXT}
    assert b"".join(seen.raw for seen in seens) == recorded(f"openai_chat_{name}.sse")
    assert [seen.terminal for seen in seens].count(True) == 1
    assert seens[-1].done
    assert seens[-1].ends_all
    assert (reader.finish_reason, reader.model) == ("stop", "gpt-4o-2024-08-06")
    assert reader.output_bytes == len(TEXT.encode())
    assert reader.trailer() == b""


def test_usage_is_read_and_swallowed_when_nobody_asked_t_w_12() -> None:
    for want in (True, False):
        reader = reader_for("openai_chat_usage.sse", want_usage=want)
        seens = read_all(reader, recorded("openai_chat_usage.sse"))
        assert reader.usage == Usage(8, 3, 0, 0, 7)
        sent = b"".join(seen.raw for seen in seens)
        assert (b'"choices":[],' in sent) == want
        assert b"[DONE]" in sent


def test_usage_elsewhere_last_one_counts() -> None:
    reader = chat()
    reader.read(chunk({"content": "a"}, usage={"prompt_tokens": 1, "completion_tokens": 1}))
    seen = one(reader.read(chunk({}, "stop", x_groq={"usage": {"prompt_tokens": 9}})))
    assert seen.raw
    assert reader.usage == Usage(9)


def test_azures_first_chunk_and_its_filter_chunks_say_nothing() -> None:
    seens = read_all(reader_for("x"), recorded("openai_chat_azure.sse"))
    assert texts(seens) == {SAY: "Hi"}
    assert b"".join(seen.raw for seen in seens) == recorded("openai_chat_azure.sse")


def test_every_choice_has_to_finish() -> None:
    seens = read_all(reader_for("x"), recorded("openai_chat_two_choices.sse"))
    assert texts(seens) == {SAY: "Hei deg, all", (1, "text", 0): " på 🦉 well."}
    ends = [(seen.ends, seen.terminal) for seen in seens if seen.ends]
    assert ends == [([(1, "text", 0)], False), ([SAY], True)]


def test_reasoning_is_a_lane_of_its_own_and_comments_pass() -> None:
    seens = read_all(reader_for("x"), recorded("openai_chat_reasoning.sse"))
    assert texts(seens) == {(0, "reasoning", 0): "Think hard.", SAY: "Done."}
    assert [s.raw for s in seens if s.doc is None] == [b": hb\n\n", b"data: [DONE]\n\n"]


def test_a_split_surrogate_pair_waits_for_its_other_half() -> None:
    seens = read_all(reader_for("x"), recorded("openai_chat_split_surrogate.sse"))
    pieces = [delta.text for seen in seens for delta in seen.deltas]
    assert pieces == ["owl ", "a", "🦉b"]
    told = [
        d["choices"][0]["delta"].get("content", "") for d in said(b"".join(s.raw for s in seens))
    ]
    assert "".join(told) == "owl a🦉b"


def test_what_nobody_knows_may_go_on_in_the_next_event() -> None:
    reader = chat()
    seen = one(reader.read(chunk({"images": [{"url": "u"}, "x"], "content": "c"}, news={"t": "y"})))
    found = {delta.text: delta.lane for delta in seen.deltas}
    assert found.keys() == {"u", "x", "c", "y"}
    assert {d.text for d in seen.deltas if d.stands == "waiting"} == {"u", "x", "y"}
    again = one(reader.read(chunk({"images": [{"url": "v"}]})))
    assert [delta.lane for delta in again.deltas] == [found["u"]]
    for delta in seen.deltas:
        delta.holder[delta.member] = "-"
    assert json.loads(events(chat().render(seen))[0].data)["choices"][0]["delta"] == {
        "images": [{"url": "-"}, "-"],
        "content": "-",
    }


# fmt: off
ERRORS = [
    ({"error": {"message": "m", "type": "server_error", "code": None}}, 500, "server_error"),
    ({"error": {"message": "m", "type": "rate_limit_error"}},           429, "rate_limit_error"),
    ({"error": {"message": "m", "type": "X", "code": 400}},             400, "X"),
    ({"error": "m"},                                                    500, ""),
    ({"object": "error", "message": "m", "type": "X", "code": 404},     404, "X"),
]
# fmt: on


@pytest.mark.parametrize(("doc", "status", "kind"), ERRORS)
def test_an_error_inside_the_stream_t_w_06(doc: dict, status: int, kind: str) -> None:
    data = json.dumps(doc).encode()
    error = one(chat().read(WireEvent("", data, b"data: " + data + b"\n\n"))).error
    assert error is not None
    assert (error.status, error.type, error.message) == (status, kind, "m")


def test_what_does_not_parse_is_an_error_and_can_be_lost() -> None:
    reader = chat()
    for data in (b"{", b"[1]", b"12", b'"x"', b"[DON"):
        event = WireEvent("", data, b"data: " + data + b"\n\n")
        with pytest.raises(ValueError):  # noqa: PT011
            reader.read(event)
        assert not reader.structural(event)


# --- tool calls


@pytest.mark.parametrize("name", ["openai_chat_tools.sse", "openai_chat_tools_interleaved.sse"])
def test_tool_calls_pass_as_they_come(name: str) -> None:
    seens = read_all(reader_for(name), recorded(name))
    assert texts(seens) == {
        (0, "tool_name", 0): "get_weather",
        (0, "tool_args", 0): '{"city":"Oslo"}',
        (0, "tool_name", 1): "get_time",
        (0, "tool_args", 1): '{"zone":"CET"}',
    }
    assert b"".join(seen.raw for seen in seens) == recorded(name)


@pytest.mark.parametrize("name", ["openai_chat_tools.sse", "openai_chat_tools_interleaved.sse"])
def test_held_tool_calls_leave_whole(name: str) -> None:
    seens = read_all(reader_for(name, hold=True), recorded(name))
    whole = [seen for seen in seens if seen.whole]
    assert [[d.text for d in seen.deltas] for seen in whole] == [
        ["get_weather", '{"city":"Oslo"}'],
        ["get_time", '{"zone":"CET"}'],
    ]
    told = said(b"".join(seen.raw for seen in seens))
    calls = [d["choices"][0]["delta"]["tool_calls"] for d in told if _calls(d)]
    assert calls == [
        [tool(0, "call_a", "get_weather", '{"city":"Oslo"}')],
        [tool(1, "call_b", "get_time", '{"zone":"CET"}')],
    ]
    assert [seen.content for seen in seens].count(True) == 8  # fragments are progress, too
    order = [seen.whole or seen.terminal for seen in seens]
    assert order[-5:] == [True, True, True, False, False]  # before the finish, usage, [DONE]


def _calls(doc: dict) -> bool:
    return bool(doc["choices"]) and "tool_calls" in doc["choices"][0]["delta"]


def tool(index: int, call_id: str, name: str, args: str) -> dict:
    function = {"name": name, "arguments": args}
    return {"index": index, "id": call_id, "type": "function", "function": function}


# fmt: off
FRAGMENTS = [
    # per event, fragments (id, index, name, arguments)   calls (id, name, arguments)
    ("all at once",
     [[("a", 0, "f", "{}")]],
     [("a", "f", "{}")]),
    ("no index, by id",
     [[("a", None, "f", "1")], [("b", None, "g", "2")], [("a", None, "", "3")]],
     [("a", "f", "13"), ("b", "g", "2")]),
    ("no index, by position",
     [[("a", None, "f", "1"), ("b", None, "g", "2")], [("", None, "", "3"), ("", None, "", "4")]],
     [("a", "f", "13"), ("b", "g", "24")]),
    ("a new id on an old index",
     [[("a", 0, "f", "1")], [("b", 0, "g", "2")], [("", 0, "", "3")]],
     [("a", "f", "1"), ("b", "g", "23")]),
    ("a late name",
     [[("a", 0, "", "1")], [("", 0, "f", "2")]],
     [("a", "f", "12")]),
    ("all of it repeated",
     [[("a", 0, "f", "1")], [("a", 0, "f", "2")]],
     [("a", "f", "12")]),
    ("no arguments",
     [[("a", 0, "f", "")]],
     [("a", "f", "")]),
]
# fmt: on


@pytest.mark.parametrize(("name", "fragments", "calls"), FRAGMENTS, ids=[f[0] for f in FRAGMENTS])
def test_fragments_find_their_call_t_w_04(name: str, fragments: list, calls: list) -> None:
    reader = chat(hold=True)
    for pieces in fragments:
        delta = [
            {
                **({"index": index} if index is not None else {}),
                **({"id": call_id} if call_id else {}),
                "function": {**({"name": named} if named else {}), "arguments": args},
            }
            for call_id, index, named, args in pieces
        ]
        reader.read(chunk({"tool_calls": delta}))
    found = []
    for seen in reader.read(chunk({}, "tool_calls")):
        if seen.whole:
            shown = said(seen.raw)[0]["choices"][0]["delta"]["tool_calls"][0]
            found.append((shown["id"], *shown["function"].values()))
            assert shown["index"] == len(found) - 1
    assert found == calls


def test_a_dropped_call_moves_the_others_up() -> None:
    reader = reader_for("x", hold=True)
    seens = read_all(reader, recorded("openai_chat_tools.sse"))
    first, second = [seen for seen in seens if seen.whole]
    (finish,) = [seen for seen in seens if seen.terminal]
    reader.drop(first)
    assert said(second.raw)[0]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert said(finish.raw)[0]["choices"][0]["finish_reason"] == "tool_calls"
    reader.drop(second)
    assert said(finish.raw)[0]["choices"][0]["finish_reason"] == "stop"
    assert said(reader.notice(0, "[gone]"))[0]["choices"][0]["delta"] == {"content": "[gone]"}


def test_the_old_function_call_and_custom_tools_are_held_too() -> None:
    reader = chat(hold=True)
    reader.read(chunk({"function_call": {"name": "f", "arguments": "{"}}))
    reader.read(chunk({"function_call": {"arguments": "}"}}))
    whole = reader.read(chunk({}, "function_call"))[0]
    assert said(whole.raw)[0]["choices"][0]["delta"] == {
        "function_call": {"name": "f", "arguments": "{}"}
    }
    reader = chat(hold=True)
    call = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    reader.read(chunk({"tool_calls": [call]}))
    whole = reader.read(chunk({}, "tool_calls"))[0]
    assert said(whole.raw)[0]["choices"][0]["delta"] == {"tool_calls": [call]}


def test_a_call_too_long_to_hold_breaks_the_stream() -> None:
    reader = chat(hold=True)
    event = chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 600_000}}]})
    reader.read(event)
    with pytest.raises(ValueError, match="too long"):
        reader.read(event)
    assert reader.structural(event)


def test_what_is_held_comes_out_at_the_end() -> None:
    reader = chat(hold=True)
    reader.read(chunk({"tool_calls": [tool(0, "a", "f", "{}")]}))
    first, done = reader.read(WireEvent("", b"[DONE]", b"data: [DONE]\n\n"))
    assert first.whole
    assert done.done
    assert reader.flush() == []


# --- what is written


def test_a_rewritten_chunk_loses_its_log_probabilities() -> None:
    reader = chat()
    data = chunk({"content": "secret"}).data
    data = data.replace(b'"finish_reason": null', b'"finish_reason": null, "logprobs": {"a": 1}')
    seen = one(reader.read(WireEvent("", data, b"data: " + data + b"\n\n")))
    seen.deltas[0].holder["content"] = "[X]"
    (choice,) = said(reader.render(seen))[0]["choices"]
    assert (choice["delta"], choice["logprobs"]) == ({"content": "[X]"}, None)


# fmt: off
TAILS = [
    ((0, "text", 0),      {"content": "x"}),
    ((1, "refusal", 0),   {"refusal": "x"}),
    ((0, "reasoning", 0), {"reasoning_content": "x"}),
    ((0, "reasoning", 1), {"reasoning": "x"}),
    ((0, "text", 1),      {"audio": {"transcript": "x"}}),
    ((0, "tool_args", 2), {"tool_calls": [{"index": 2, "function": {"arguments": "x"}}]}),
]
# fmt: on


@pytest.mark.parametrize(("lane", "delta"), TAILS)
def test_a_tail_continues_its_lane(lane: tuple, delta: dict) -> None:
    reader = chat()
    reader.read(chunk({"role": "assistant"}))
    doc = said(reader.tail(lane, "x"))[0]
    assert doc["id"] == "chatcmpl-1"
    assert doc["choices"] == [{"index": lane[0], "delta": delta, "finish_reason": None}]


def test_a_blocked_stream_ends_every_open_choice() -> None:
    reader = chat()
    reader.read(chunk({"role": "assistant", "content": ""}, at=0))
    reader.read(chunk({"role": "assistant", "content": ""}, at=1))
    reader.read(chunk({}, "stop", at=0))
    reader.read(chunk({"content": "x"}, at=1))
    end = reader.blocked_end("No.")
    assert end.endswith(b"data: [DONE]\n\n")
    text, finish, usage = said(end)
    assert text["choices"] == [{"index": 1, "delta": {"content": "No."}, "finish_reason": None}]
    assert finish["choices"] == [{"index": 1, "delta": {}, "finish_reason": "content_filter"}]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 1


def test_a_block_at_the_finish_still_finishes() -> None:
    reader = chat(want_usage=False)
    reader.read(chunk({"content": "x"}))
    reader.read(chunk({}, "stop"))  # the tail that it closes was blocked: it has not been sent
    (finish,) = said(reader.blocked_end(None))
    assert finish["choices"][0]["finish_reason"] == "content_filter"


def test_a_block_before_anything_came_is_a_whole_stream() -> None:
    text, finish = said(chat(want_usage=False).blocked_end("No."))
    assert text["choices"][0]["delta"] == {"role": "assistant", "content": "No."}
    assert finish["choices"][0]["finish_reason"] == "content_filter"


def test_a_failed_stream_says_so_and_has_no_trailer() -> None:
    end = chat().error_end(UpstreamBroken("It broke."), "req-1")
    assert said(end) == [
        {
            "error": {
                "message": "It broke.",
                "type": "server_error",
                "param": None,
                "code": "upstream_error",
            }
        }
    ]
    assert b"[DONE]" not in end


def test_a_missing_trailer_is_written() -> None:
    reader = chat()
    assert reader.trailer() == b""
    reader.read(chunk({"content": "x"}, "stop"))
    assert reader.trailer() == b"data: [DONE]\n\n"


def test_legacy_completions() -> None:
    reader = reader_for("openai_legacy_text.sse")
    seens = read_all(reader, recorded("openai_legacy_text.sse"))
    assert texts(seens) == {SAY: TEXT}
    assert [seen.terminal for seen in seens].count(True) == 1
    assert seens[-1].done
    tail, finish = (
        said(reader.tail(SAY, "x"))[0],
        said(reader_for("openai_legacy_x").blocked_end("No.")),
    )
    assert tail["choices"][0]["text"] == "x"
    assert (finish[0]["choices"][0]["text"], finish[0]["choices"][0]["finish_reason"]) == (
        "No.",
        "content_filter",
    )


def test_an_answer_is_whole_when_as_many_choices_have_ended_as_were_asked_for() -> None:
    reader = ChatReader().stream(hold_tools=False, hold_reasoning=False, want_usage=True, choices=2)
    assert not one(reader.read(chunk({}, "stop"))).terminal
    assert one(reader.read(chunk({}, "stop", at=1))).terminal


def test_a_provider_that_sends_fewer_choices_says_so_by_its_trailer() -> None:
    reader = ChatReader().stream(hold_tools=False, hold_reasoning=False, want_usage=True, choices=2)
    reader.read(chunk({}, "stop"))
    assert one(reader.read(WireEvent("", b"[DONE]", b"data: [DONE]\n\n"))).terminal


# fmt: off
ASKED = [
    # operation      request                              choices
    ("chat",         {},                                  1),
    ("chat",         {"n": 3},                            3),
    ("chat",         {"n": 0},                            1),
    ("chat",         {"n": True},                         1),
    ("chat",         {"n": 10**9},                        256),
    ("chat",         {"n": 2, "prompt": ["a", "b"]},      2),
    ("completions",  {"prompt": "a"},                     1),
    ("completions",  {"prompt": ["a", "b"], "n": 2},      4),
    ("completions",  {"prompt": [1, 2, 3]},               1),
    ("completions",  {"prompt": []},                      1),
    ("messages",     {"n": 3},                            1),
]
# fmt: on


@pytest.mark.parametrize(("operation", "doc", "choices"), ASKED)
def test_how_many_choices_were_asked_for(operation: Operation, doc: dict, choices: int) -> None:
    assert choices_asked(operation, doc) == choices
