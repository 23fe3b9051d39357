"""Frames as providers write them: SSE events and AWS event-stream messages, good and spoilt.

A codec of its own, so that a fault in the product's codec cannot hide behind the same fault here.
An event-stream message is `total u32 | headers_len u32 | crc of those | headers | payload | crc of
all before`, big-endian.
"""

import json
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass

_STRING = 7


def sse(data: str, event: str | None = None) -> bytes:
    """One event of `text/event-stream`; `data` holds no line end."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {data}\n\n".encode()


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One event-stream message.  Every header is a string: all that Bedrock sends."""
    block = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", 16 + len(block) + len(payload), len(block))
    whole = prelude + struct.pack("!I", zlib.crc32(prelude)) + block + payload
    return whole + struct.pack("!I", zlib.crc32(whole))


def event(name: str, payload: bytes) -> bytes:
    return message(
        {":event-type": name, ":content-type": "application/json", ":message-type": "event"},
        payload,
    )


def chunk(data: bytes) -> bytes:
    """What InvokeModel streams: the model's own event in base64, with the padding member `p`."""
    body = {"bytes": b64encode(data).decode(), "p": "abcdefg"}
    return event("chunk", json.dumps(body).encode())


def exception(name: str, payload: bytes) -> bytes:
    return message(
        {
            ":exception-type": name,
            ":content-type": "application/json",
            ":message-type": "exception",
        },
        payload,
    )


def spoilt_crc(whole: bytes) -> bytes:
    """The same message with a wrong checksum at its end."""
    return whole[:-1] + bytes([whole[-1] ^ 0xFF])


def spoilt_prelude(whole: bytes) -> bytes:
    """The same message with a length that its prelude checksum does not cover."""
    return bytes([whole[0] ^ 0x7F]) + whole[1:]


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return bytes([len(key)]) + key + bytes([_STRING]) + struct.pack("!H", len(text)) + text


@dataclass(frozen=True)
class Message:
    headers: dict[str, str]
    payload: bytes

    @property
    def inner(self) -> bytes:
        """The model's own event inside a `chunk` message."""
        return b64decode(json.loads(self.payload)["bytes"])


@dataclass(frozen=True)
class SseEvent:
    name: str | None
    data: str


def read_messages(data: bytes) -> list[Message]:
    """The messages of a whole body.  Raises ValueError when it is cut or a checksum is wrong."""
    found, at = [], 0
    while at < len(data):
        if len(data) - at < 12:
            raise ValueError(f"cut at {len(data)}, inside the prelude at {at}")
        total, headers_len, prelude_crc = struct.unpack_from("!III", data, at)
        if zlib.crc32(data[at : at + 8]) != prelude_crc:
            raise ValueError(f"prelude checksum at {at}")
        whole = data[at : at + total]
        if len(whole) < total:
            raise ValueError(f"cut at {len(data)}, inside the message at {at}")
        if zlib.crc32(whole[:-4]) != struct.unpack_from("!I", whole, total - 4)[0]:
            raise ValueError(f"message checksum at {at}")
        found.append(
            Message(_read_headers(whole[12 : 12 + headers_len]), whole[12 + headers_len : -4])
        )
        at += total
    return found


def _read_headers(block: bytes) -> dict[str, str]:
    found, at = {}, 0
    while at < len(block):
        name_end = at + 1 + block[at]
        name, kind = block[at + 1 : name_end].decode(), block[name_end]
        if kind != _STRING:
            raise ValueError(f"header {name} has type {kind}")
        (size,) = struct.unpack_from("!H", block, name_end + 1)
        found[name] = block[name_end + 3 : name_end + 3 + size].decode()
        at = name_end + 3 + size
    return found


def read_sse(data: bytes) -> list[SseEvent]:
    """The events of a whole body; comments are left out, several `data:` lines are joined."""
    text = data.decode().replace("\r\n", "\n").replace("\r", "\n")
    found = []
    for block in text.split("\n\n"):
        name, lines = None, []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                lines.append(value)
        if lines:
            found.append(SseEvent(name, "\n".join(lines)))
    return found
