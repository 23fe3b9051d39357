"""What an event of a stream costs inside the gateway, without sockets.

    .venv/bin/python -m benchmarks.micro.events

One event comes per chunk, as a provider sends them.  `frame` is the framer alone, `bare` and `pack`
the whole pump without and with secrets-core.  For comparing two versions
of the code on one machine; the figure of record is `python -m benchmarks`.
"""

import gc
import json
import random
from collections.abc import Callable
from time import perf_counter_ns as now_ns

from proxy.gateway.stream import Pump
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.model.tenancy import GuardSettings
from proxy.settings.packs import builtin_packs
from proxy.wire.dialect import StreamReader
from proxy.wire.dialects.anthropic_stream import MessagesStream
from proxy.wire.dialects.openai_stream import ChatStream
from proxy.wire.providers.adapter import Framer
from proxy.wire.providers.bedrock_stream import ClaudeFramer
from proxy.wire.sse import SseFramer
from tests.guardrails.texts import WORDS
from tests.kit import frames

ROUNDS, STREAMS, EVENTS = 15, 10, 200
Json = dict[str, object]


def openai(words: list[str]) -> list[bytes]:
    """What OpenAI sends: a role, then one piece of text per event, padded to 200 bytes or so."""
    frame: Json = {
        "id": "chatcmpl-CZx1ZpbX0BmG7YwVQ4Lk2tHn8RfSd", "object": "chat.completion.chunk",
        "created": 1760000000, "model": "gpt-4o-mini-2024-07-18", "system_fingerprint": "fp_5f3a1",
    }  # fmt: skip

    def event(delta: Json) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        text = json.dumps({**frame, "choices": [choice]}, separators=(",", ":"))
        return f"data: {text}\n\n".encode()

    first = event({"role": "assistant", "content": "", "refusal": None})
    return [first, *(event({"content": word}) for word in words)]


def anthropic(words: list[str]) -> list[bytes]:
    return [f"event: {doc['type']}\ndata: {json.dumps(doc)}\n\n".encode() for doc in _docs(words)]


def bedrock(words: list[str]) -> list[bytes]:
    """The same inside AWS frames."""
    return [frames.chunk(json.dumps(doc, separators=(",", ":")).encode()) for doc in _docs(words)]


def _docs(words: list[str]) -> list[Json]:
    usage: Json = {"input_tokens": 9, "output_tokens": 1}
    message: Json = {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
                     "model": "claude", "usage": usage}  # fmt: skip
    block: Json = {"type": "text", "text": ""}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {"type": "content_block_delta", "index": 0,
             "delta": {"type": "text_delta", "text": word}}
            for word in words
        ),
    ]  # fmt: skip


Way = tuple[
    str, Callable[[list[str]], list[bytes]], Callable[[], Framer], Callable[[], StreamReader]
]
WAYS: list[Way] = [
    ("OpenAI", openai, SseFramer, lambda: ChatStream(hold_tools=False, want_usage=True)),
    ("Anthropic", anthropic, SseFramer,
     lambda: MessagesStream(hold_tools=False, hold_reasoning=False)),
    ("Bedrock", bedrock, ClaudeFramer,
     lambda: MessagesStream(hold_tools=False, hold_reasoning=False)),
]  # fmt: skip


def feeder(kind: str, way: Way, guard: Guard) -> Callable[[bytes], object]:
    """What takes the chunks of one stream."""
    framer, reader = way[2](), way[3]()
    if kind == "frame":
        return framer.feed
    return Pump(framer, reader, guard if kind == "pack" else None).feed


def measure(kind: str, way: Way, guard: Guard) -> float:
    """Microseconds per event, best round."""
    chance, best = random.Random(7), float("inf")
    for _ in range(ROUNDS):
        spent = 0
        for _ in range(STREAMS):
            chunks = way[1]([word + " " for word in chance.choices(WORDS, k=EVENTS)])
            feed = feeder(kind, way, guard)
            begin = now_ns()
            for chunk in chunks:
                feed(chunk)
            spent += now_ns() - begin
        best = min(best, spent / STREAMS / EVENTS / 1000)
    return best


def main() -> None:
    guard = compile_guard([builtin_packs()["secrets-core"].effective], GuardSettings())
    guard.warm()
    gc.collect()
    gc.freeze()
    kinds = ("frame", "bare", "pack")
    print("µs per event" + "".join(f"{kind:>8}" for kind in kinds))
    for way in WAYS:
        print(f"{way[0]:12}" + "".join(f"{measure(kind, way, guard):8.2f}" for kind in kinds))


if __name__ == "__main__":
    main()
