"""Two streams as one, event by event: what the caller has of the first, and how the second fits."""

import json

import pytest

from proxy.model.recovery import Asked, Seam
from proxy.routing.recovery import PrefillSeam, RestartSeam
from proxy.wire.continuing import continued_of
from tests.kit.reading import read_chat, read_messages
from tests.kit.shapes import DONE, ROLE, STOP, Doc, begun, call, chunk, ended, event, piece

CHAT, MESSAGES = continued_of("chat"), continued_of("messages")
assert CHAT is not None
assert MESSAGES is not None
START = event({"type": "message_start", "message": {"id": "m1", "type": "message", "model": "one"}})
END = event(
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
)
STOPPED = event({"type": "message_stop"})
TEXT: Doc = {"type": "text", "text": ""}
TOOL: Doc = {"type": "tool_use", "id": "t", "name": "look", "input": {}}


def says(at: int, text: str) -> bytes:
    return event(piece(at, {"type": "text_delta", "text": text}))


def block(at: int, shell: Doc, *deltas: bytes) -> bytes:
    return b"".join([event(begun(at, shell)), *deltas, event(ended(at))])


# fmt: off
CHATS = [
    # what was written                                              R        beside
    (ROLE,                                                          "",      ""),
    (ROLE + chunk({"content": "Hi"}) + chunk({"content": " you"}),  "Hi you", ""),
    (b": hb\n\n" + chunk({"content": "Hi"}),                        "Hi",    ""),
    (chunk({"content": "Hi", "refusal": None}),                     "Hi",    ""),
    (chunk({"content": "Hi"}) + chunk({"refusal": "no"}),           "Hi",    "refusal"),
    (chunk({"content": "Hi"}) + chunk(call("{")),                   "Hi",    "tool_call"),
    (chunk({"function_call": {"name": "f"}}),                       "",      "tool_call"),
    (chunk({"reasoning_content": "hm"}),                            "",      "reasoning"),
    (chunk({"audio": {"id": "a"}}),                                 "",      "audio"),
    (chunk({"content": "Hi"}, index=1),                             "Hi",    "several choices"),
    (chunk({"content": "Hi"}) + STOP,                               "Hi",    "its end"),
    (chunk({"content": ["Hi"]}),                                    "",      "content"),
]
CLAUDES = [
    # what was written                                                  R     beside      closed
    (START,                                                             "",   "",          False),
    (START + event(begun(0, TEXT)) + says(0, "Hi"),                     "Hi", "",          False),
    (START + block(0, TEXT, says(0, "Hi")),                             "Hi", "",          True),
    (START + block(0, {"type": "thinking", "thinking": ""})
           + event(begun(1, TEXT)) + says(1, "Hi"),                     "Hi", "",          False),
    (START + block(0, TEXT, says(0, "Hi")) + event(begun(1, TEXT))
           + says(1, "a"),                                              "Hia", "several texts",
                                                                                           False),
    (START + event(begun(0, {"type": "thinking", "thinking": "hm"})),   "",   "reasoning", False),
    (START + event(begun(0, TEXT)) + says(0, "Hi")
           + event(piece(0, {"type": "citations_delta"})),              "Hi", "citations_delta",
                                                                                           False),
    (START + event(begun(0, TOOL)),                                     "",   "tool_call", False),
    (START + event({"type": "news"}),                                   "",   "news",      False),
    (START + block(0, TEXT, says(0, "Hi")) + END,                       "Hi", "its end",   True),
]
# fmt: on


@pytest.mark.parametrize(("data", "text", "beside"), CHATS)
def test_what_a_chat_has_told(data: bytes, text: str, beside: str) -> None:
    assert CHAT is not None
    released = CHAT.told(data).released
    assert (released.text, released.beside) == (text, beside)


@pytest.mark.parametrize(("data", "text", "beside", "closed"), CLAUDES)
def test_what_a_message_has_told(data: bytes, text: str, beside: str, closed: bool) -> None:
    assert MESSAGES is not None
    released = MESSAGES.told(data).released
    assert (released.text, released.beside, released.closed) == (text, beside, closed)


FIRST = START + event(begun(0, TEXT)) + says(0, "Hello wor")
# fmt: off
SECONDS = [
    # what follows a prefill or a restart            text             tools     fault
    ("prefill", block(0, TEXT, says(0, "ld.")),      "Hello world.",  [],       ""),
    ("prefill", b"",                                 "Hello wor",     [],       ""),
    ("prefill", block(0, TOOL),                      "Hello wor",     ["look"], ""),
    ("prefill", block(0, TEXT, says(0, "ld")) + block(1, TOOL),
                                                     "Hello world",   ["look"], ""),
    ("prefill", block(0, TEXT, says(0, "ld")) + block(1, TEXT, says(1, " is")),
                                                     "Hello world is", [],      ""),
    ("restart", block(0, TEXT, says(0, "Hello"), says(0, " world.")),
                                                     "Hello world.",  [],       ""),
    ("restart", block(0, {"type": "text", "text": "Hello w"}, says(0, "orld.")),
                                                     "Hello world.",  [],       ""),
    ("restart", block(0, {"type": "thinking", "thinking": ""})
                + block(1, TEXT, says(1, "Hello world.")) + block(2, TOOL),
                                                     "Hello world.",  ["look"], ""),
    ("restart", block(0, TOOL) + block(1, TEXT, says(1, "Hello world.")),
                                                     "Hello wor",     [],       "diverged"),
    ("restart", block(0, {"type": "thinking", "thinking": ""},
                      event(piece(0, {"type": "thinking_delta", "thinking": "hm"}))),
                                                     "Hello wor",     [],       "diverged"),
    ("restart", block(0, TEXT, says(0, "Hello")),    "Hello wor",     [],       "diverged"),
    ("restart", b"",                                 "Hello wor",     [],       "diverged"),
]
# fmt: on


@pytest.mark.parametrize(("manner", "second", "text", "tools", "fault"), SECONDS)
def test_messages_as_one(
    manner: str, second: bytes, text: str, tools: list[str], fault: str
) -> None:
    assert MESSAGES is not None
    told = MESSAGES.told(FIRST)
    seam: Seam = PrefillSeam("Hello wor") if manner == "prefill" else RestartSeam("Hello wor")
    joiner = told.joiner(seam, 3)
    whole = joiner.feed(START + second + END)
    assert joiner.fault == fault
    if fault:
        assert whole == b""
        return
    said = read_messages(FIRST + whole + STOPPED)
    assert (said.text, said.tools, said.whole) == (text, tools, True)
    assert said.usage == {"output_tokens": 8}


def test_chats_as_one() -> None:
    assert CHAT is not None
    first = ROLE + chunk({"content": "Hello wor"})
    joiner = CHAT.told(first).joiner(PrefillSeam("Hello wor"), 3)
    usage: Doc = {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}
    second = [
        ROLE, b": hb\n\n", chunk({"role": "assistant", "content": "ld"}, id="c2"),
        chunk(call("{}"), id="c2"), chunk({}, "stop", id="c2"),
    ]  # fmt: skip
    last = json.loads(chunk({}, id="c2")[6:]) | {"choices": [], "usage": usage}
    second.append(b"data: " + json.dumps(last).encode() + b"\n\n")
    whole = b"".join(joiner.feed(each) for each in second)
    said = read_chat(first + whole + DONE)
    assert (said.text, len(said.tools), said.whole, said.comments) == ("Hello world", 1, True, 1)
    assert said.usage == {"prompt_tokens": 4, "completion_tokens": 8, "total_tokens": 12}


# fmt: off
ASKED = [
    ({},                                                  Asked(),                 Asked()),
    ({"n": 2},                                            Asked(choices=2),        Asked()),
    ({"logprobs": True},                                  Asked(logprobs=True),    Asked()),
    ({"reasoning_effort": "low"},                         Asked(thinks=True),      Asked()),
    ({"tool_choice": "required"},                         Asked(tool_forced=True), Asked()),
    ({"tool_choice": "auto"},                             Asked(),                 Asked()),
    ({"tool_choice": {"type": "any"}},                    Asked(tool_forced=True),
                                                          Asked(tool_forced=True)),
    ({"tool_choice": {"type": "auto"}},                   Asked(tool_forced=True), Asked()),
    ({"thinking": {"type": "enabled"}},                   Asked(),
                                                          Asked(thinks=True)),
    ({"thinking": {"type": "disabled"}},                  Asked(),                 Asked()),
]
# fmt: on


@pytest.mark.parametrize(("doc", "chat", "claude"), ASKED)
def test_what_a_request_says_of_its_answer(doc: Doc, chat: Asked, claude: Asked) -> None:
    assert CHAT is not None
    assert MESSAGES is not None
    assert CHAT.asked(doc) == chat  # type: ignore[arg-type]
    assert MESSAGES.asked(doc) == claude  # type: ignore[arg-type]


def test_a_request_that_goes_on() -> None:
    assert CHAT is not None
    doc = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
    sent = json.loads(CHAT.going_on(json.dumps(doc).encode(), doc, "Hello", 30))  # type: ignore[arg-type]
    assert sent["messages"][-1] == {"role": "assistant", "content": "Hello"}
    assert sent["max_tokens"] == 70
    parts = [{"type": "text", "text": "So: "}]
    doc["messages"] = [{"role": "assistant", "content": parts}]
    sent = json.loads(CHAT.going_on(json.dumps(doc).encode(), doc, "Hello", 99))  # type: ignore[arg-type]
    assert sent["messages"] == [
        {"role": "assistant", "content": [*parts, {"type": "text", "text": "Hello"}]}
    ]
    assert sent["max_tokens"] == 16
