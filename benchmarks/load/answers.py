"""Reading answers from raw bytes, and judging whether they are the ones that were sent.

The readers do the least that HTTP/1.1 asks for, since they share a core with the mock.  Streams
are only collected while time runs; they are judged afterwards.
"""

import time

import orjson

from benchmarks.load import texts


class UnaryReader:
    """One answer after the other on one connection; `body` holds the last one."""

    def __init__(self) -> None:
        self._buffer = b""
        self._end: int | None = None
        self._head_end = 0
        self._chunked = False
        self.status = 0
        self.head = b""
        self.body = b""

    def feed(self, data: bytes) -> bool:
        """Take bytes in; True when an answer is whole."""
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if self._end is None and not self._read_head(buffer):
            return False
        if self._chunked:
            if not buffer.endswith(b"0\r\n\r\n"):
                return False
            self.body = dechunked(buffer[self._head_end :])
            self._buffer = b""
        else:
            assert self._end is not None
            if len(buffer) < self._end:
                return False
            self.body = buffer[self._head_end : self._end]
            self._buffer = buffer[self._end :]
        self._end = None
        return True

    def _read_head(self, buffer: bytes) -> bool:
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self.head = buffer[:end].lower()
        self.status = int(head[9:12])
        self._head_end = end + 4
        at = head.find(b"\r\ncontent-length:")
        self._chunked = at < 0 and b"chunked" in head
        size = 0
        if at >= 0:
            stop = head.find(b"\r\n", at + 2)
            size = int(head[at + 17 : stop if stop >= 0 else end])
        self._end = end + 4 + size
        return True


def dechunked(raw: bytes) -> bytes:
    """The payload of a chunked body."""
    parts: list[bytes] = []
    at = 0
    while True:
        stop = raw.find(b"\r\n", at)
        if stop < 0:
            break
        size = int(raw[at:stop].split(b";")[0], 16)
        if not size:
            break
        parts.append(raw[stop + 2 : stop + 2 + size])
        at = stop + 2 + size + 2
    return b"".join(parts)


def judge_unary(reader: UnaryReader, expected: list[bytes], *, exact: bool) -> str | None:
    """What is wrong with the answer; None: it is the one that was sent.

    `exact`: byte for byte; else only the text must be there, for peers that write bodies anew.
    """
    if reader.status != 200:
        return f"status {reader.status}: {reader.body[:120].decode(errors='replace')}"
    number = texts.numbered(reader.body)
    if number is None or number >= len(expected):
        return "answer without its text"
    if exact:
        return None if reader.body == expected[number] else "answer differs from what was sent"
    return None if text_of(expected[number]) in reader.body else "text of the answer differs"


def text_of(body: bytes) -> bytes:
    """The marked text within a body of ours."""
    start = body.find(b'"[') + 1
    return body[start : body.find(b'"', start)]


class StreamReader:
    """One streamed answer: what came and when."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.arrivals: list[tuple[int, int]] = []  # (monotonic ns, events that ended in this read)
        self.ended = False
        self._tail = b""

    def feed(self, data: bytes) -> None:
        count = data.count(b"\n\n")
        if count:
            self.arrivals.append((time.monotonic_ns(), count))
        self.raw.append(data)
        self._tail = (self._tail + data)[-5:] if len(data) < 5 else data[-5:]
        self.ended = self._tail == b"0\r\n\r\n"

    @property
    def refused(self) -> bool:
        return bool(self.raw) and self.raw[0][9:12] != b"200"

    def first_ns(self) -> int | None:
        return self.arrivals[0][0] if self.arrivals else None

    def gaps_ms(self) -> list[float]:
        """Time between one event and the next, as the client sees it."""
        gaps: list[float] = []
        for (before, _), (now, count) in zip(self.arrivals, self.arrivals[1:], strict=False):
            gaps.append((now - before) / 1e6)
            gaps.extend([0.0] * (count - 1))
        return gaps


def judge_stream(
    reader: StreamReader, dialect: texts.Dialect, events: int, event_bytes: int, *, exact: bool
) -> str | None:
    """What is wrong with the stream; None: all text, in order, and its proper end."""
    raw = b"".join(reader.raw)
    head, _, rest = raw.partition(b"\r\n\r\n")
    if head[9:12] != b"200":
        return f"status {head[9:12].decode(errors='replace')}: {rest[:120]!r}"
    body = dechunked(rest)
    if not reader.ended:
        return "stream cut"
    number = first_number(body, dialect)
    if number is None:
        return "stream without its text"
    sent = texts.stream(dialect, number, events, event_bytes)
    if exact:
        return None if body == sent.whole() else "stream differs from what was sent"
    deltas = contents(body, dialect)
    if "".join(deltas).encode() != sent.text:
        return "text of the stream differs"
    if len(deltas) < events // 2:
        return f"{len(deltas)} events of {events}: collected on the way"
    return None


def first_number(body: bytes, dialect: texts.Dialect) -> int | None:
    digits = "".join(contents(body[:4096].rpartition(b"\n\n")[0], dialect))[1:7]
    return int(digits) if digits.isdigit() else None


def contents(body: bytes, dialect: texts.Dialect) -> list[str]:
    """The pieces of text of a stream, in order, empty ones left out."""
    found: list[str] = []
    for line in body.replace(b"\r\n", b"\n").split(b"\n"):
        if not line.startswith(b"data:") or line.endswith(b"[DONE]"):
            continue
        event = orjson.loads(line[5:])
        piece = None
        if dialect == "openai-chat":
            for choice in event.get("choices") or []:
                piece = (choice.get("delta") or {}).get("content")
        elif event.get("type") == "content_block_delta":
            piece = event["delta"].get("text")
        if piece:
            found.append(piece)
    return found
