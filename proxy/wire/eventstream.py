"""The AWS event stream: frames out of bytes and bytes out of frames (wire.md §11.1).

A frame is `total u32 | headers_len u32 | prelude crc u32 | headers | payload | message crc u32`,
big-endian, CRC-32 as in zlib.  The prelude's checksum is verified before `total` is believed, then
the limits, then the rest is waited for.  A body that ends inside a frame (`pending`) was cut, and
so was one with a wrong checksum: it is never skipped.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from zlib import crc32

MAX_HEADERS_BYTES: Final = 128 * 1024
MAX_PAYLOAD_BYTES: Final = 24 * 1024 * 1024
_PRELUDE: Final = struct.Struct("!III")
_CRC: Final = struct.Struct("!I")
_OVERHEAD: Final = 16

HeaderValue = bool | int | str | bytes
Headers = dict[str, HeaderValue]


class BadFrame(ValueError):
    """These bytes are no event stream."""


@dataclass(slots=True)
class Frame:
    headers: Headers
    payload: bytes


class FrameDecoder:
    """Bytes in, whole frames out.  Raises BadFrame; after that it must not be fed again.

    `pending`: bytes that are not a frame yet.
    """

    __slots__ = ("_block", "_buffer", "_headers", "pending")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._block = b""  # the last headers, which nearly always come again
        self._headers: Headers = {}
        self.pending = 0

    def __repr__(self) -> str:
        return f"<FrameDecoder {self.pending} pending>"

    def feed(self, data: bytes) -> list[Frame]:
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        frames: list[Frame] = []
        start, size = 0, len(buffer)
        while size - start >= 12:
            total, headers_len, prelude_crc = _PRELUDE.unpack_from(buffer, start)
            if crc32(buffer[start : start + 8]) != prelude_crc:
                raise BadFrame("the checksum of a frame's prelude is wrong")
            if (
                total < _OVERHEAD + headers_len
                or headers_len > MAX_HEADERS_BYTES
                or total - headers_len - _OVERHEAD > MAX_PAYLOAD_BYTES
            ):
                raise BadFrame("a frame has an impossible length")
            end = start + total
            if end > size:
                break
            if crc32(buffer[start : end - 4]) != _CRC.unpack_from(buffer, end - 4)[0]:
                raise BadFrame("the checksum of a frame is wrong")
            payload_at = start + 12 + headers_len
            block = bytes(buffer[start + 12 : payload_at])
            if block != self._block:
                self._headers = _read_headers(block)
                self._block = block
            frames.append(Frame(self._headers, bytes(buffer[payload_at : end - 4])))
            start = end
        if buffer is data:
            self._buffer += data[start:]
        else:
            del self._buffer[:start]
        self.pending = size - start
        return frames


_NUMBERS: Final = {
    kind: struct.Struct(f"!{code}")
    for kind, code in ((2, "b"), (3, "h"), (4, "i"), (5, "q"), (8, "q"))
}


def _read_headers(block: bytes) -> Headers:
    headers: Headers = {}
    at = 0
    try:
        while at < len(block):
            begin = at + 1
            at = begin + block[at]
            name, kind = block[begin:at].decode("utf-8"), block[at]
            headers[name], at = _read_value(block, kind, at + 1)
    except (IndexError, struct.error, UnicodeDecodeError):
        raise BadFrame("the headers of a frame do not read") from None
    return headers


def _read_value(block: bytes, kind: int, at: int) -> tuple[HeaderValue, int]:
    if kind in (0, 1):
        return kind == 0, at
    if kind in _NUMBERS:
        number = _NUMBERS[kind]
        return number.unpack_from(block, at)[0], at + number.size
    if kind in (6, 7):
        size = int.from_bytes(block[at : at + 2], "big")
        value = block[at + 2 : at + 2 + size]
        if len(block) < at + 2 or len(value) != size:
            raise BadFrame("a header of a frame runs out")
        return value.decode("utf-8") if kind == 7 else value, at + 2 + size
    if kind == 9:
        if len(block) < at + 16:
            raise BadFrame("a header of a frame runs out")
        return block[at : at + 16], at + 16
    raise BadFrame(f"a header of a frame has the unknown type {kind}")


def encode_frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame.  Its headers are strings: nothing else is sent to or by Bedrock."""
    block = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", _OVERHEAD + len(block) + len(payload), len(block))
    frame = prelude + _CRC.pack(crc32(prelude)) + block + payload
    return frame + _CRC.pack(crc32(frame))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return bytes((len(key),)) + key + b"\x07" + struct.pack("!H", len(text)) + text
