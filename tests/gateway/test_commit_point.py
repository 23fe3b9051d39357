"""T-FO-40: up to which event of a stream another endpoint may answer in its place."""

import pytest

from proxy.model.ports import TransportFault
from tests.kit.builders import ANTHROPIC, OPENAI, SPARE, SSE, World, policy, world
from tests.kit.fakes import Step
from tests.kit.reading import read_chat, read_messages
from tests.kit.shapes import (
    DONE,
    MESSAGE_STREAM,
    MESSAGES,
    ROLE,
    STOP,
    STREAM,
    TEXT,
    Doc,
    begun,
    call,
    chunk,
    event,
    piece,
    told,
)

GONE = TransportFault("eof", response_bytes=9)
PAUSE = [b":\n\n"] * 5  # so that what has come is with the caller
CLAUDE = ANTHROPIC.model_copy(update={"id": "claude-spare", "base_url": "http://127.0.0.1:9"})
EMPTY = (
    b'data: {"id":"c1","model":"m","object":"chat.completion.chunk","created":1,"choices":[]}\n\n'
)
START = told()[1]
assert isinstance(START, bytes)
TOOL: Doc = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
# fmt: off
CHAT = [
    # event                                       held
    (b": hello\n\n",                              True),
    (ROLE,                                        True),
    (chunk({}),                                   True),
    (chunk({"content": ""}),                      True),
    (EMPTY,                                       True),
    (chunk({"content": "a"}),                     False),
    (chunk({"refusal": "no"}),                    False),
    (chunk({"reasoning_content": "hm"}),          False),
    (chunk({"reasoning": "hm"}),                  False),
    (chunk(call("{")),                            False),
    (chunk({"audio": {"id": "a"}}),               False),
]
CLAUDES = [
    (START,                                                                       True),
    (event({"type": "ping"}),                                                     True),
    (START + event(begun(0, {"type": "text", "text": ""})),                       True),
    (START + event(begun(0, {"type": "thinking", "thinking": ""})),               True),
    (START + event(begun(0, {"type": "text", "text": ""}))
           + event(piece(0, {"type": "text_delta", "text": "a"})),                False),
    (START + event(begun(0, {"type": "thinking", "thinking": ""}))
           + event(piece(0, {"type": "thinking_delta", "thinking": "a"})),        False),
    (START + event(begun(0, TOOL)),                                               False),
    (START + event(begun(0, {"type": "redacted_thinking", "data": "x"})),         False),
    (START + event(begun(0, {**TOOL, "type": "server_tool_use"})),                False),
]
# fmt: on


def over(primary: list[Step], spare: list[Step], *, claude: bool) -> World:
    first, second = (ANTHROPIC, CLAUDE) if claude else (OPENAI, SPARE)
    scripts = {first.id: [primary], second.id: [spare]}
    return world([first, second], scripts=scripts, failover=policy(first.id, second.id))


@pytest.mark.parametrize(("data", "held"), CHAT)
async def test_chat(data: bytes, held: bool) -> None:
    hello = chunk({"content": "Hello"})
    dies: list[Step] = [(200, SSE), data, *PAUSE, GONE]
    w = over(dies, [(200, SSE), ROLE, hello, STOP, DONE, None], claude=False)
    caller = await w.ask(STREAM)
    said = read_chat(caller.received)
    if held:
        assert (said.text, said.whole, w.record.recovered) == ("Hello", True, False)
        return
    assert said.error is not None
    assert "Hello" not in said.text
    assert caller.cut


@pytest.mark.parametrize(("data", "held"), CLAUDES)
async def test_messages(data: bytes, held: bool) -> None:
    w = over([(200, SSE), data, *PAUSE, GONE], told(*TEXT), claude=True)
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    said = read_messages(caller.received)
    if held:
        assert (said.text, said.whole, w.record.recovered) == ("hi", True, False)
        return
    assert said.error is not None
    assert caller.cut
