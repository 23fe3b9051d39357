"""What a provider says when it refuses: read from any shape, within bounds (failover.md §4.1).

Accepted: `{"error":{…}}`, `{"error":"text"}`, `{"message"}`, `{"detail": text or list}`,
`{"object":"error",…}`, `[{"error":{…}}]`, HTML, text, nothing.  The status alone decides where the
body says nothing.
"""

import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

from proxy.model.exchange import ErrorSeen, Json, RawHeaders
from proxy.model.tenancy import Provider
from proxy.wire import jsonbody
from proxy.wire.jsonbody import Object

_READ_BYTES: Final = 64 * 1024
_MESSAGE_CHARS: Final = 2000
_MOST_WAIT_S: Final = 7 * 86_400.0

# fmt: off
STATUS_OF_TYPE: Final = {
    # Anthropic
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402,
    "permission_error": 403, "not_found_error": 404, "conflict_error": 409,
    "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "overloaded_error": 529,
    # OpenAI
    "insufficient_quota": 429, "rate_limit_exceeded": 429, "server_error": 500, "tokens": 429,
    "requests": 429, "invalid_api_key": 401, "model_not_found": 404, "overloaded": 503,
    "context_length_exceeded": 400, "content_filter": 400, "content_policy_violation": 400,
    "service_unavailable": 503, "timeout": 504, "BadRequestError": 400, "NotFoundError": 404,
    # Gemini
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429, "CANCELLED": 499,
    "INTERNAL": 500, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}
# fmt: on


def read_error(
    provider: Provider, status: int, headers: RawHeaders, body: bytes, now_ms: int = 0
) -> ErrorSeen:
    """An error answer (not 2xx), whatever it looks like.  Never raises."""
    seen = _read_body(body)
    seen.status = status
    if provider == "bedrock":
        seen.type = _aws_type(headers) or seen.type.rpartition("#")[2]
    hint = retry_hint(headers, now_ms)
    if hint is not None:
        seen.retry_after_s = hint
    return seen


def stream_error(doc: Object) -> ErrorSeen:
    """An error inside a 200 stream.  Its status is that of its type or number, else 500."""
    seen = _of_object(doc)
    seen.status = (
        STATUS_OF_TYPE.get(seen.type)
        or STATUS_OF_TYPE.get(seen.code)
        or (int(seen.code) if re.fullmatch("[45][0-9][0-9]", seen.code) else 500)
    )
    return seen


def _read_body(body: bytes) -> ErrorSeen:
    piece = body[:_READ_BYTES]
    try:
        doc = jsonbody.loads(body) if len(body) <= _READ_BYTES else None
    except ValueError:
        doc = None
    if isinstance(doc, list) and doc:
        doc = doc[0]
    if isinstance(doc, dict):
        return _of_object(doc)
    text = doc if isinstance(doc, str) else piece.decode("utf-8", "replace").strip()
    if "<html" in text[:1024].lower() or text[:1] == "<":
        text = ""  # a page of some proxy on the way: nothing that a caller could use
    return ErrorSeen(0, message=text[:_MESSAGE_CHARS])


def _of_object(doc: Object) -> ErrorSeen:
    error = doc.get("error")
    if isinstance(error, str) and error:
        return ErrorSeen(0, _text(doc.get("type")), _text(doc.get("code")), error[:_MESSAGE_CHARS])
    node = error if isinstance(error, dict) else doc
    kind = _text(node.get("status")) or _text(node.get("type")) or _text(node.get("__type"))
    if not isinstance(error, dict) and kind == "error":
        kind = ""
    message = _text(node.get("message")) or _text(node.get("Message"))
    message = message or _detail(node.get("detail"), 4)
    seen = ErrorSeen(0, kind, _code(node.get("code")), message[:_MESSAGE_CHARS])
    seen.retry_after_s = _google_delay(node.get("details"))
    return seen


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _code(value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return ""
    return str(value)[:128]


def _detail(value: Json, levels: int) -> str:
    """FastAPI's way: a text, or a list of what is wrong where."""
    if isinstance(value, list):
        found = [_detail(entry, levels - 1) for entry in value[:8]] if levels else []
        return "; ".join(text for text in found if text)
    if isinstance(value, dict):
        return _text(value.get("msg")) or _text(value.get("message"))
    return _text(value)


def _aws_type(headers: RawHeaders) -> str:
    for name, value in headers:
        if name == b"x-amzn-errortype":
            return value.decode("latin-1").partition(":")[0].rpartition("#")[2].strip()
    return ""


def _google_delay(details: Json) -> float | None:
    for entry in details if isinstance(details, list) else []:
        delay = entry.get("retryDelay") if isinstance(entry, dict) else None
        if isinstance(delay, str):
            return _span(delay)
    return None


# --- how long to wait

_SPAN: Final = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,5})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?")
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_RESETS: Final = {
    b"x-ratelimit-remaining-requests": b"x-ratelimit-reset-requests",
    b"x-ratelimit-remaining-tokens": b"x-ratelimit-reset-tokens",
    b"anthropic-ratelimit-requests-remaining": b"anthropic-ratelimit-requests-reset",
    b"anthropic-ratelimit-tokens-remaining": b"anthropic-ratelimit-tokens-reset",
    b"anthropic-ratelimit-input-tokens-remaining": b"anthropic-ratelimit-input-tokens-reset",
    b"anthropic-ratelimit-output-tokens-remaining": b"anthropic-ratelimit-output-tokens-reset",
}


def retry_hint(headers: RawHeaders, now_ms: int) -> float | None:
    """Seconds until another try makes sense, if the provider says so.

    `retry-after-ms` before `Retry-After` (seconds or a date) before the reset of whatever limit
    has nothing remaining.
    """
    found = dict(headers)
    exact = found.get(b"retry-after-ms", b"").decode("latin-1").strip()
    if _NUMBER.fullmatch(exact):
        return min(float(exact) / 1000, _MOST_WAIT_S)
    after = found.get(b"retry-after", b"").decode("latin-1").strip()
    if after:
        if _NUMBER.fullmatch(after):
            return min(float(after), _MOST_WAIT_S)
        wait = _until_http_date(after, now_ms)
        if wait is not None:
            return wait
    waits = [
        wait
        for remaining, reset in _RESETS.items()
        if found.get(remaining, b"").strip() == b"0" and reset in found
        if (wait := _reset(found[reset].decode("latin-1").strip(), now_ms)) is not None
    ]
    return max(waits) if waits else None


def _reset(text: str, now_ms: int) -> float | None:
    if text.endswith("ms") and _NUMBER.fullmatch(text[:-2]):
        return min(float(text[:-2]) / 1000, _MOST_WAIT_S)
    span = _span(text)
    if span is not None:
        return span
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        return None
    return _until(then, now_ms)


def _span(text: str) -> float | None:
    """`6m0s`, `1h2m`, `12s`, `0.5s`."""
    match = _SPAN.fullmatch(text)
    if match is None or not text:
        return None
    hours, minutes, seconds = match.groups()
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)
    return min(total, _MOST_WAIT_S)


def _until_http_date(text: str, now_ms: int) -> float | None:
    try:
        return _until(parsedate_to_datetime(text), now_ms)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _until(then: datetime, now_ms: int) -> float | None:
    if then.tzinfo is None:
        return None
    return min(max(0.0, then.timestamp() - now_ms / 1000), _MOST_WAIT_S)
