"""Media types: what a body is said to be, and what the caller takes as an answer."""

import re
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from proxy.control.frame import JSON, Operation
from proxy.control.problems import Problem

_PARAMETER: Final = re.compile(r"\s*([A-Za-z0-9!#$&^_.+-]+)\s*=\s*(?:\"([^\"]*)\"|([^\s;\"]*))\s*")
UTF8: Final = ("utf-8", "utf8")


def media_of(request: web.BaseRequest, operation: Operation) -> tuple[str, bool]:
    """(media type, whether the body is gzip).  Raises Problem 415."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    gzip_allowed = operation.rate_class == "ingest"
    if encoding != "identity" and not (encoding == "gzip" and gzip_allowed):
        raise Problem("unsupported-media-type", "Content-Encoding is not one taken here")
    header = request.headers.get("Content-Type")
    if header is None:
        if not request.body_exists:
            return JSON, False  # the body is missing: step 12
        raise Problem("unsupported-media-type", "a body needs a Content-Type")
    media, _, rest = header.partition(";")
    media = media.strip().lower()
    if media not in operation.takes:
        raise Problem("unsupported-media-type", extra={"accepted": [*operation.takes]})
    for part in filter(str.strip, rest.split(";")):
        found = _PARAMETER.fullmatch(part)
        if found is None:
            raise Problem("unsupported-media-type", "Content-Type is malformed")
        if found[1].lower() == "charset" and (found[2] or found[3] or "").lower() not in UTF8:
            raise Problem("unsupported-media-type", "only UTF-8 is taken")
    return media, encoding == "gzip"


def accepts(header: str | None, offered: Sequence[str]) -> bool:
    """Whether an `Accept` lets one of the offered types through; the most specific range wins."""
    if header is None or not header.strip():
        return True
    ranges = [_range(part) for part in header.split(",") if part.strip()]
    return any(_quality(media, ranges) > 0 for media in offered)


def _range(part: str) -> tuple[str, float]:
    media, *parameters = (piece.strip() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return media.lower(), quality


def _quality(media: str, ranges: Sequence[tuple[str, float]]) -> float:
    family = media.partition("/")[0]
    for wanted in (media, f"{family}/*", "*/*"):
        found = [quality for name, quality in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0
