"""InvokeModel's stream of a Claude model, made into Anthropic's events (wire.md §4.2).

A frame holds base64, that holds the JSON of one Anthropic event.  Out comes a `WireEvent` whose
`raw` is what Anthropic itself would have written.  The metrics that Bedrock adds to the last event
are cut out of `raw` and stay in `data`, where the dialect's reader finds the usage.
"""

from binascii import Error as BadBase64
from binascii import a2b_base64
from typing import Final

from proxy.model.exchange import Json, WireEvent
from proxy.wire import jsonbody
from proxy.wire.eventstream import BadFrame, Frame, FrameDecoder

METRICS: Final = "amazon-bedrock-invocationMetrics"
_METRICS: Final = METRICS.encode()
_TYPE: Final = b'{"type":"'

_ERROR_TYPES: Final = {
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
    "serviceUnavailableException": "overloaded_error",
    "modelTimeoutException": "api_error",
    "modelStreamErrorException": "api_error",
    "internalServerException": "api_error",
    "accessDeniedException": "permission_error",
    "resourceNotFoundException": "not_found_error",
    "serviceQuotaExceededException": "billing_error",
}


class ClaudeFramer:
    """Frames in, Anthropic's events out.  Raises ValueError: then the stream was cut."""

    __slots__ = ("_frames", "pending")

    def __init__(self) -> None:
        self._frames = FrameDecoder()
        self.pending = 0

    def __repr__(self) -> str:
        return f"<ClaudeFramer {self.pending} pending>"

    def feed(self, data: bytes) -> list[WireEvent]:
        frames = self._frames.feed(data)
        self.pending = self._frames.pending
        return [event for frame in frames if (event := _event(frame)) is not None]

    def finish(self) -> list[WireEvent]:
        """Nothing: what is `pending` is half a frame."""
        return []


def _event(frame: Frame) -> WireEvent | None:
    kind = frame.headers.get(":message-type")
    if kind in ("exception", "error"):
        return _error(frame)
    if kind != "event" or frame.headers.get(":event-type") != "chunk":
        return None  # SDKs skip frames that they do not know
    try:
        chunk = jsonbody.loads(frame.payload)
        encoded = chunk.get("bytes") if isinstance(chunk, dict) else None
        data = a2b_base64(encoded, strict_mode=True) if isinstance(encoded, str) else b""
    except (BadBase64, ValueError):
        raise BadFrame("the payload of a frame does not read") from None
    if not data:
        raise BadFrame("a frame without bytes")
    if data.startswith(_TYPE) and b"\n" not in data and b"\r" not in data:
        name = data[9 : data.find(b'"', 9)]
        if _METRICS not in data:
            return WireEvent(
                name.decode("utf-8", "replace"),
                data,
                b"event: " + name + b"\ndata: " + data + b"\n\n",
            )
    return _reread(data)


def _reread(data: bytes) -> WireEvent:
    """An event that cannot be copied: it has metrics, line ends, or its type is not first."""
    try:
        doc = jsonbody.loads_event(data)
    except ValueError:
        return WireEvent("", data, b"")
    if not isinstance(doc, dict):
        return WireEvent("", data, b"")
    name = doc.get("type")
    shown = {member: value for member, value in doc.items() if member != METRICS}
    return _written(name if isinstance(name, str) else "", shown, jsonbody.dumps_event(doc))


def _written(name: str, doc: dict[str, Json], data: bytes) -> WireEvent:
    line = name.encode("utf-8", "replace").replace(b"\n", b" ").replace(b"\r", b" ")
    raw = b"event: " + line + b"\ndata: " + jsonbody.dumps_event(doc) + b"\n\n"
    return WireEvent(name, data, raw)


def _error(frame: Frame) -> WireEvent:
    """An exception frame, as Anthropic's `event: error`."""
    headers = frame.headers
    name = headers.get(":exception-type") or headers.get(":error-code") or ""
    message = headers.get(":error-message")
    try:
        told = jsonbody.loads(frame.payload) if frame.payload else None
    except ValueError:
        told = None
    original: Json = None
    if isinstance(told, dict):
        original = told.get("originalStatusCode")
        if not isinstance(message, str):
            found = told.get("message") or told.get("Message") or told.get("originalMessage")
            message = found if isinstance(found, str) else ""
    kind = _ERROR_TYPES.get(str(name)[:1].lower() + str(name)[1:], "api_error")
    if kind == "api_error" and isinstance(original, int) and 400 <= original < 500:
        kind = "invalid_request_error"
    text = message if isinstance(message, str) and message else str(name) or "the stream failed"
    doc: dict[str, Json] = {"type": "error", "error": {"type": kind, "message": text}}
    return _written("error", doc, jsonbody.dumps_event(doc))
