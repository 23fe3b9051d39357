"""Conditional requests: entity tags, If-Match, If-None-Match (control-api.md §8, RFC 9110 §13)."""

import hashlib
import re
from typing import Final

from aiohttp import web

from proxy.control.problems import Problem
from proxy.model.exchange import Json
from proxy.wire import jsonbody

_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e]*"'  # may hold a comma
_TAGS: Final = re.compile(rf"[ \t]*{_TAG}[ \t]*(?:,[ \t]*{_TAG}[ \t]*)*")


def etag_of(said: Json) -> str:
    """The tag of a document of the configuration file: of its content."""
    return f'"f{hashlib.sha256(jsonbody.dumps_sorted(said)).hexdigest()[:8]}"'


def check_grammar(request: web.BaseRequest) -> None:
    """Step 12, wherever such a header is sent.  Raises Problem 400."""
    for name in ("If-Match", "If-None-Match"):
        for header in request.headers.getall(name, []):
            _tags(header, name)


def check_matching(request: web.BaseRequest, etag: str, *, required: bool = False) -> None:
    """If-Match.  Raises Problem 400, 412, or 428 where it is required and not there."""
    header = request.headers.get("If-Match")
    if header is None:
        if required:
            raise Problem("precondition-required")
        return
    tags = _tags(header, "If-Match")
    if "*" not in tags and etag not in tags:  # a weak tag matches nothing here
        raise Problem("precondition-failed", extra={"current_etag": etag})


def check_none(request: web.BaseRequest, etag: str) -> bool:
    """Whether If-None-Match says that the client has this already.  Raises Problem 400."""
    header = request.headers.get("If-None-Match")
    if header is None:
        return False
    tags = [tag.removeprefix("W/") for tag in _tags(header, "If-None-Match")]
    return "*" in tags or etag in tags


def only_if_absent(request: web.BaseRequest) -> bool:
    """`If-None-Match: *`: make it, do not find it."""
    return request.headers.get("If-None-Match", "").strip() == "*"


def _tags(header: str, name: str) -> list[str]:
    if header.strip() == "*":
        return ["*"]
    if not _TAGS.fullmatch(header):
        raise Problem("invalid-header", f"{name} is not a list of entity tags")
    return re.findall(_TAG, header)
