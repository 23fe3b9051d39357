"""What the head of a request must be, how much may come, and how a request is refused unread.

SECURITY: the parser is strict (line ends, folded lines, characters, two lengths); here stand the
rules that it leaves to us, and the limits.
"""

from typing import Final

from proxy.gateway.downstream import STATUS_LINES
from proxy.model.exchange import RawHeaders
from proxy.wire.headers import render

LINE_LIMIT_BYTES: Final = 8190
FIELD_LIMIT_BYTES: Final = 8190
MAYBE_LONG_BYTES: Final = LINE_LIMIT_BYTES - 32  # below it no line and no field is too long
FIELDS_LIMIT: Final = 128
HEAD_LIMIT_BYTES: Final = 64 * 1024
BESIDE_BODY_BYTES: Final = 128 * 1024  # head, chunk sizes, extensions, trailers
BESIDE_BODY_RATIO: Final = 16  # and so many bytes for each byte of the body: chunks may be tiny
AHEAD_LIMIT: Final = 16


class Refused(Exception):
    """Raised inside a callback of the parser: this is not a request that we read."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def must_be_http1(version: str, marks: dict[bytes, bytes]) -> bool:
    """Whether it is HTTP/1.1, not 1.0.  One `host`, which 1.0 may leave out."""
    host = marks.get(b"host")
    if version == "1.1":
        if not host:
            raise Refused(400, "The request needs one Host header.")
        return True
    if version != "1.0":
        raise Refused(400, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if host == b"":
        raise Refused(400, "The request has an empty Host header, or several.")
    return False


def must_be_short(method: bytes, target: bytes, headers: RawHeaders) -> None:
    """For heads that came in a read long enough to break a limit (`MAYBE_LONG_BYTES`)."""
    if len(method) + len(target) + len("  HTTP/1.1") > LINE_LIMIT_BYTES:
        raise Refused(414, "The request line is too long.")
    for name, value in headers:
        if len(name) + len(value) > FIELD_LIMIT_BYTES:
            raise Refused(431, "A header field of the request is too long.")


def must_be_chunked(marks: dict[bytes, bytes], *, http11: bool) -> None:
    """SECURITY: one way to find the end of the body, or none of this is believed."""
    coding = marks[b"transfer-encoding"].lower()
    if not http11 or coding != b"chunked" or b"content-length" in marks:
        raise Refused(400, "The request body may be chunked or have one length, nothing else.")


def length_of(marks: dict[bytes, bytes]) -> int:
    value = marks.get(b"content-length")
    if value is None:
        return 0
    if not value.isdigit() or len(value) > 19:
        raise Refused(400, "The content-length of the request is not a number.")
    return int(value)


def head_without_upgrade(method: bytes, target: bytes, version: str, headers: RawHeaders) -> bytes:
    """The head once more, without the wish for another protocol."""
    kept = [pair for pair in headers if pair[0] != b"upgrade"]
    line = b"%b %b HTTP/%b\r\n" % (method, target, version.encode("ascii"))
    return line + render(kept) + b"\r\n"


def render_refusal(refused: Refused, date: bytes) -> bytes:
    """An answer in the OpenAI shape: whose dialect it would have been is not known."""
    body = (
        f'{{"error":{{"message":"{refused}","type":"invalid_request_error",'
        '"param":null,"code":null}}'
    ).encode("ascii")
    return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b" % (
        STATUS_LINES[refused.status], len(body), b"connection: close\r\n" + date, body,
    )  # fmt: skip
