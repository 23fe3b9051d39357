"""Short answers, event by event, in both dialects; and what a caller read of them."""

import json

from tests.kit.builders import SSE
from tests.kit.fakes import RecordingDownstream, Step

KEY = "KEY12345"  # what `SECRET_RULE` redacts
DONE = b"data: [DONE]\n\n"
CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}).encode()
STREAM = CHAT[:-1] + b',"stream":true}'
MESSAGE = b'{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}'
MESSAGE_STREAM = MESSAGE[:-1] + b',"stream":true}'
MESSAGES = "/v1/messages"

Doc = dict[str, object]


def chunk(delta: Doc, finish: str | None = None, index: int = 0, **more: object) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    doc = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
           "choices": [choice]}  # fmt: skip
    return b"data: " + json.dumps(doc | more).encode() + b"\n\n"


ROLE = chunk({"role": "assistant", "content": ""})
STOP = chunk({}, "stop")


def chat(*events: bytes) -> list[Step]:
    """A stream that opens with the role and ends in good order."""
    return [(200, SSE), ROLE, *events, DONE, None]


def call(arguments: str, **more: object) -> Doc:
    function = {"name": "look", "arguments": arguments}
    return {"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": function}
                           | more]}  # fmt: skip


def told(*docs: Doc) -> list[Step]:
    """An Anthropic stream of these events between its start and its end."""
    message: Doc = {
        "id": "m", "type": "message", "role": "assistant", "model": "claude", "content": [],
        "stop_reason": None, "usage": {"input_tokens": 3, "output_tokens": 1},
    }  # fmt: skip
    start: Doc = {"type": "message_start", "message": message}
    ended: Doc = {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                  "usage": {"output_tokens": 5}}  # fmt: skip
    script: list[Step] = [(200, SSE)]
    last: Doc = {"type": "message_stop"}
    script += [event(doc) for doc in (start, *docs, ended, last)]
    return [*script, None]


def event(doc: Doc) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(doc["type"]).encode(), json.dumps(doc).encode())


def begun(index: int, block: Doc, **more: object) -> Doc:
    return {"type": "content_block_start", "index": index, "content_block": block} | more


def piece(index: int, delta: Doc) -> Doc:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def ended(index: int, **more: object) -> Doc:
    return {"type": "content_block_stop", "index": index} | more


TEXT: tuple[Doc, ...] = (
    begun(0, {"type": "text", "text": ""}),
    piece(0, {"type": "text_delta", "text": "hi"}),
    ended(0),
)


def docs_of(caller: RecordingDownstream) -> list[Doc]:
    """The events that the caller got."""
    lines = [line for line in caller.received.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line[6:]) for line in lines]
