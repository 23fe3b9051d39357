"""Server-sent events out of bytes (wire.md §7.1).

Lines end at LF, CR LF or CR and at nothing else; an event ends at a blank line, or where the body
ends.  Law: the same events however the bytes were cut.  An event whose last byte so far is a CR
waits for the next byte, which may be the LF that belongs to it.

A comment comes out as an event without name and data, so that it can be passed on; an event without
data is none and is swallowed (one SDK chokes on it).  `raw` begins at the event's first line and
ends with its blank line.

`bare` is an event without any line that no guardrail reads: comments, ids, unknown fields.
"""

import re
from typing import Final

from proxy.model.exchange import WireEvent

MAX_EVENT_BYTES: Final = 8 * 1024 * 1024
MAX_NAME: Final = 64
_BOM: Final = b"\xef\xbb\xbf"
_BLANK: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class SseFramer:
    """Bytes in, whole events out.  Raises ValueError when an event is too large.

    `pending`: bytes that are not an event yet.
    """

    __slots__ = ("_begun", "_buffer", "_carriage", "_limit", "_searched", "pending")

    def __init__(self, limit_bytes: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._searched = 0  # no event ends before this place
        self._begun = False
        self._carriage = False  # a CR has been seen in this body
        self._limit = limit_bytes
        self.pending = 0

    def __repr__(self) -> str:
        return f"<SseFramer {self.pending} pending>"

    def feed(self, data: bytes) -> list[WireEvent]:
        if self._begun and not self._buffer and not self._carriage and b"\r" not in data:
            size, line = len(data), data.find(b"\n")
            if size <= self._limit and data.endswith(b"\n\n"):  # one whole event: the common case
                if line == size - 2 and data.startswith(b"data: "):
                    return [WireEvent("", data[6:-2], data)]
                if (
                    data.startswith(b"event: ")
                    and data.startswith(b"data: ", line + 1)
                    and data.find(b"\n", line + 1) == size - 2
                ):
                    name = data[7:line].decode("utf-8", "replace")
                    return [WireEvent(name, data[line + 7 : -2], data)]
            if data.endswith(b"\n\n"):
                if len(data) > self._limit:
                    self._too_large(data)
                return _events(data)
        elif not self._begun and not self._begin(data):
            return []
        else:
            self._carriage = self._carriage or b"\r" in data
        self._buffer += data
        return self._cut_carriage() if self._carriage else self._cut()

    def finish(self) -> list[WireEvent]:
        """The body has ended: what has no blank line behind it counts all the same, but for data
        that had only begun to come (`data:`), on which SDKs choke."""
        rest = bytes(self._buffer).lstrip(b"\r\n")
        self._buffer.clear()
        self.pending = self._searched = 0
        if rest in (b"", _BOM[:1], _BOM[:2], _BOM):
            return []
        end = b"" if _BLANK.search(rest[-2:]) else b"\n" if rest[-1:] in b"\r\n" else b"\n\n"
        event = _event(rest.rstrip(b"\r\n"), rest + end)
        if event is None or not (event.data or event.raw.startswith(b":")):
            return []
        return [event]

    def _begin(self, data: bytes) -> bool:
        """Skip a byte order mark.  False: it may still be on its way."""
        head = bytes(self._buffer) + data[:3]
        if len(head) < 3 and _BOM.startswith(head):
            self._buffer += data
            self.pending = len(self._buffer)
            return False
        self._begun = True
        self._carriage = b"\r" in data
        if head.startswith(_BOM):
            self._searched = -3
        return True

    def _cut(self) -> list[WireEvent]:
        buffer = self._unmarked()
        end = buffer.rfind(b"\n\n", max(0, self._searched))
        if end < 0:
            return self._wait(max(0, len(buffer) - 1))
        whole = bytes(buffer[: end + 2])
        del buffer[: end + 2]
        self._wait(max(0, len(buffer) - 1))
        return _events(whole)

    def _cut_carriage(self) -> list[WireEvent]:
        buffer = self._unmarked()
        found: list[WireEvent] = []
        start = _line_ends(buffer, 0)
        at = max(start, self._searched)
        while (match := _BLANK.search(buffer, at)) is not None:
            if match.end() == len(buffer) and buffer[-1] == 0x0D:
                break
            raw = bytes(buffer[start : match.end()])
            event = _event(raw[: match.start() - start], raw)
            if event is not None:
                found.append(event)
            start = at = _line_ends(buffer, match.end())
        del buffer[:start]
        self._wait(max(0, len(buffer) - 4))
        return found

    def _unmarked(self) -> bytearray:
        if self._searched < 0:
            del self._buffer[:3]
            self._searched = 0
        return self._buffer

    def _wait(self, searched: int) -> list[WireEvent]:
        self._searched = searched
        self.pending = len(self._buffer)
        if self.pending > self._limit:
            raise ValueError(f"an event of more than {self._limit} bytes")
        return []

    def _too_large(self, data: bytes) -> None:
        if any(len(block) > self._limit for block in data.split(b"\n\n")):
            raise ValueError(f"an event of more than {self._limit} bytes")


def bare(event: WireEvent) -> bytes:
    """The bytes of an event with nothing in them but its data, its name and, of a comment, the
    colon that keeps the connection alive."""
    raw, data, name = event.raw, event.data, event.name
    if not data:
        return b":\n\n" if raw else b""
    if not name and raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2:
        return raw  # one line, which is nearly always so
    if not raw:
        return raw
    head = b""
    if name.isascii() and name.isidentifier() and name.islower() and len(name) <= MAX_NAME:
        head = b"event: " + name.encode() + b"\n"
        size = len(head)
        if (
            raw.startswith(head)
            and raw.startswith(b"data: ", size)
            and raw.find(b"\n", size) == len(raw) - 2
        ):
            return raw
    lines = data.split(b"\n")
    return head + b"".join([b"data: " + line + b"\n" for line in lines]) + b"\n"


def _line_ends(buffer: bytearray, at: int) -> int:
    """Where the line ends that begin here stop."""
    while at < len(buffer) and buffer[at] in b"\r\n":
        at += 1
    return at


def _events(whole: bytes) -> list[WireEvent]:
    """The events of bytes that end with a blank line and hold no CR."""
    if whole.find(b"\n\n") == len(whole) - 2:
        block = whole[:-2]
        if block.startswith(b"data: ") and b"\n" not in block:
            return [WireEvent("", block[6:], whole)]
        if block[:1] == b"\n":
            block = block.lstrip(b"\n")
            whole = block + b"\n\n"
        event = _event(block, whole)
        return [event] if event is not None else []
    found: list[WireEvent] = []
    for block in whole.split(b"\n\n"):
        if block[:1] == b"\n":
            block = block.lstrip(b"\n")
        if not block:
            continue
        if block.startswith(b"data: ") and b"\n" not in block:
            found.append(WireEvent("", block[6:], block + b"\n\n"))
            continue
        event = _event(block, block + b"\n\n")
        if event is not None:
            found.append(event)
    return found


def _event(block: bytes, raw: bytes) -> WireEvent | None:
    """The event of these lines.  None: there is neither data nor a comment in them."""
    if block.startswith(b"event: ") and b"\r" not in block:
        first, found, rest = block.partition(b"\n")
        if found and rest.startswith(b"data: ") and b"\n" not in rest:
            return WireEvent(first[7:].decode("utf-8", "replace"), rest[6:], raw)
    name, data, comment = b"", None, False
    for line in _LINE_END.split(block):
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            name = value
        elif not field and line:
            comment = True
    if data is not None:
        return WireEvent(name.decode("utf-8", "replace"), data, raw)
    return WireEvent("", b"", raw) if comment and not name else None
