"""Reading a request body: bounded in bytes, in time, in pace, and after gzip (control-api.md §10).

Nothing is read before the declared length and the headers were found good.
"""

import asyncio
import zlib
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from proxy.control.problems import Problem

GUNZIPPED_BYTES: Final = 8 * 1024 * 1024
GZIP_RATIO: Final = 100
GZIP_MEMBERS: Final = 100  # what remains is copied for each
_GZIP_WBITS: Final = 31


@dataclass(slots=True, frozen=True)
class BodyPace:
    """How slowly a body may come: all of it in `total_s`, and after `grace_s` at least
    `bytes_per_s` on the whole."""

    total_s: float = 30.0
    grace_s: float = 5.0
    bytes_per_s: int = 1024

    def due_s(self, received_bytes: int) -> float:
        """Seconds after the start when the next byte must be here."""
        return min(self.total_s, self.grace_s + received_bytes / self.bytes_per_s)


def too_large(limit: int, detail: str = "") -> Problem:
    return Problem(
        "content-too-large",
        detail or f"the body is over {limit} bytes",
        extra={"limit": limit},
        close=True,
    )


def check_declared(request: web.BaseRequest, cap: int) -> None:
    """Refuse a body that says it is too long, unread."""
    declared = request.content_length
    if declared is not None and declared > cap:
        raise too_large(cap)


async def read_body(request: web.BaseRequest, cap: int, pace: BodyPace) -> bytes:
    """The whole body.  Raises Problem 413 or 408, after which the connection is not used again."""
    if not request.body_exists:
        return b""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # what was sent is not part of the answer
    if request.content.is_eof():  # it came with its head, as most do
        return _whole(request, cap)
    loop = asyncio.get_running_loop()
    started = loop.time()
    chunks: list[bytes] = []
    received = 0
    while True:
        try:
            async with asyncio.timeout_at(started + pace.due_s(received)):
                chunk = await request.content.readany()
        except TimeoutError:
            raise Problem("request-timeout", "the body came too slowly", close=True) from None
        except web.RequestPayloadError as fault:
            raise Problem("invalid-header", "the body's framing is broken", close=True) from fault
        if not chunk and request.content.at_eof():
            return b"".join(chunks)
        received += len(chunk)
        if received > cap:
            raise too_large(cap)
        chunks.append(chunk)


def _whole(request: web.BaseRequest, cap: int) -> bytes:
    try:
        body = request.content.read_nowait()
    except web.RequestPayloadError as fault:
        raise Problem("invalid-header", "the body's framing is broken", close=True) from fault
    if len(body) > cap:
        raise too_large(cap)
    return body


def gunzip(data: bytes) -> bytes:
    """Decompress, all members, within 8 MiB and a ratio of 100.  Raises Problem 400, 413."""
    allowance = min(GUNZIPPED_BYTES, GZIP_RATIO * len(data))
    pieces: list[bytes] = []
    size = 0
    rest = data
    for _ in range(GZIP_MEMBERS):
        if not rest:
            return b"".join(pieces)
        member = zlib.decompressobj(wbits=_GZIP_WBITS)
        try:
            # SECURITY: one byte over the allowance is all that a bomb may unfold.
            piece = member.decompress(rest, allowance - size + 1)
        except zlib.error as fault:
            raise Problem("malformed-json", "the body is not valid gzip") from fault
        size += len(piece)
        if size > allowance:
            raise too_large(allowance, f"the body unfolds to more than {allowance} bytes")
        if not member.eof:
            raise Problem("malformed-json", "the gzip body is cut off")
        pieces.append(piece)
        rest = member.unused_data
    if rest:
        raise Problem("malformed-json", f"the gzip body has over {GZIP_MEMBERS} members")
    return b"".join(pieces)
