"""The recorded streams, and the shortest way from their bytes to what they mean."""

import json
from base64 import b64encode
from pathlib import Path

from proxy.model.exchange import Seen, WireEvent
from proxy.wire.dialect import DialectReader, StreamReader
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.dialects.openai_legacy import LegacyReader
from proxy.wire.eventstream import encode_frame
from proxy.wire.providers.bedrock_stream import ClaudeFramer
from proxy.wire.sse import SseFramer

GOLDEN = Path(__file__).parents[1] / "golden" / "wire"
STREAMS = sorted(path.name for path in (GOLDEN / "streams").glob("*.sse"))
CHUNK = {
    ":event-type": "chunk",
    ":content-type": "application/json",
    ":message-type": "event",
}


def recorded(name: str) -> bytes:
    return (GOLDEN / "streams" / name).read_bytes()


def dialect_of(name: str) -> DialectReader:
    if name.startswith("anthropic"):
        return MessagesReader()
    return LegacyReader() if name.startswith("openai_legacy") else ChatReader()


def reader_for(name: str, *, hold: bool = False, want_usage: bool = True) -> StreamReader:
    return dialect_of(name).stream(hold_tools=hold, hold_reasoning=hold, want_usage=want_usage)


def events(data: bytes, *cuts: int) -> list[WireEvent]:
    return framed(SseFramer(), data, *cuts)


def framed(framer: SseFramer | ClaudeFramer, data: bytes, *cuts: int) -> list[WireEvent]:
    found, at = [], 0
    for cut in (*cuts, len(data)):
        found += framer.feed(data[at:cut])
        at = cut
    return found + framer.finish()


def read_all(reader: StreamReader, data: bytes) -> list[Seen]:
    return [seen for event in events(data) for seen in reader.read(event)]


def texts(seens: list[Seen]) -> dict[tuple[int, str, int], str]:
    """What each lane says, joined."""
    lanes: dict[tuple[int, str, int], str] = {}
    for seen in seens:
        for delta in seen.deltas:
            lanes[delta.lane] = lanes.get(delta.lane, "") + delta.text
    return lanes


def frame(event: dict[str, object]) -> bytes:
    data = b64encode(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode())
    return encode_frame(CHUNK, json.dumps({"bytes": data.decode(), "p": "abc"}).encode())


def as_frames(data: bytes) -> bytes:
    """An Anthropic stream as Bedrock sends it, with its metrics on the last event."""
    docs = [json.loads(event.data) for event in events(data)]
    docs = [doc for doc in docs if doc["type"] != "ping"]
    docs[-1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 13, "outputTokenCount": 7}
    return b"".join(frame(doc) for doc in docs)
