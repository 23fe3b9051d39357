"""Faults in each dialect's own words: kind × dialect, bodies, in-band events (wire.md §8).

SECURITY: only a fault's own message is said; it holds no secret, no text that a guardrail matched
and nothing that a provider of another family wrote.
"""

from collections.abc import Mapping
from typing import Final

from proxy.model.errors import ProxyError
from proxy.model.exchange import Dialect, Json, RawHeaders
from proxy.wire import jsonbody
from proxy.wire.headers import REQUEST_ID
from proxy.wire.jsonbody import Object

_REQUEST: Final = "invalid_request_error"
_SERVER: Final = "server_error"

# fmt: off
OPENAI: Final[Mapping[str, tuple[int, str, str | None]]] = {
    # kind             status  type                    code
    "invalid_request": (400, _REQUEST,               None),
    "unreadable":      (422, _REQUEST,               "unreadable_request"),
    "context_window":  (400, _REQUEST,               "context_length_exceeded"),
    "client_auth":     (401, "authentication_error", "invalid_api_key"),
    "forbidden":       (403, "permission_error",     None),
    "not_found":       (404, _REQUEST,               "model_not_found"),
    "too_large":       (413, _REQUEST,               "request_too_large"),
    "blocked":         (400, "policy_violation",     "content_filter"),
    "rate_limit":      (429, "rate_limit_error",     "rate_limit_exceeded"),
    "quota":           (503, _SERVER,                "overloaded"),
    "overloaded":      (503, _SERVER,                "overloaded"),
    "timeout":         (504, _SERVER,                "timeout"),
    "upstream":        (502, _SERVER,                "upstream_error"),
    "upstream_auth":   (502, _SERVER,                "upstream_error"),
    "no_endpoint":     (503, _SERVER,                "failover_exhausted"),
    "internal":        (500, _SERVER,                None),
}
ANTHROPIC: Final[Mapping[str, tuple[int, str]]] = {
    "invalid_request": (400, _REQUEST),
    "unreadable":      (422, _REQUEST),
    "context_window":  (400, _REQUEST),
    "client_auth":     (401, "authentication_error"),
    "forbidden":       (403, "permission_error"),
    "not_found":       (404, "not_found_error"),
    "too_large":       (413, "request_too_large"),
    "blocked":         (400, _REQUEST),
    "rate_limit":      (429, "rate_limit_error"),
    "quota":           (503, "api_error"),
    "overloaded":      (529, "overloaded_error"),
    "timeout":         (504, "timeout_error"),
    "upstream":        (500, "api_error"),
    "upstream_auth":   (500, "api_error"),
    "no_endpoint":     (529, "overloaded_error"),
    "internal":        (500, "api_error"),
}
BEDROCK: Final[Mapping[str, tuple[int, str]]] = {
    "invalid_request": (400, "ValidationException"),
    "unreadable":      (400, "ValidationException"),
    "context_window":  (400, "ValidationException"),
    "client_auth":     (403, "UnrecognizedClientException"),
    "forbidden":       (403, "AccessDeniedException"),
    "not_found":       (404, "ResourceNotFoundException"),
    "too_large":       (413, "ValidationException"),
    "blocked":         (400, "ValidationException"),
    "rate_limit":      (429, "ThrottlingException"),
    "quota":           (503, "ServiceUnavailableException"),
    "overloaded":      (503, "ServiceUnavailableException"),
    "timeout":         (408, "ModelTimeoutException"),
    "upstream":        (500, "InternalServerException"),
    "upstream_auth":   (500, "InternalServerException"),
    "no_endpoint":     (503, "ServiceUnavailableException"),
    "internal":        (500, "InternalServerException"),
}
GEMINI: Final[Mapping[str, tuple[int, str]]] = {
    "invalid_request": (400, "INVALID_ARGUMENT"),
    "unreadable":      (400, "INVALID_ARGUMENT"),
    "context_window":  (400, "INVALID_ARGUMENT"),
    "client_auth":     (401, "UNAUTHENTICATED"),
    "forbidden":       (403, "PERMISSION_DENIED"),
    "not_found":       (404, "NOT_FOUND"),
    "too_large":       (413, "INVALID_ARGUMENT"),
    "blocked":         (400, "INVALID_ARGUMENT"),
    "rate_limit":      (429, "RESOURCE_EXHAUSTED"),
    "quota":           (503, "UNAVAILABLE"),
    "overloaded":      (503, "UNAVAILABLE"),
    "timeout":         (504, "DEADLINE_EXCEEDED"),
    "upstream":        (500, "INTERNAL"),
    "upstream_auth":   (500, "INTERNAL"),
    "no_endpoint":     (503, "UNAVAILABLE"),
    "internal":        (500, "INTERNAL"),
}
# fmt: on
_FINAL_BEDROCK: Final = (424, "ModelErrorException")  # boto3 sends exactly one request for it
_TELLTALE: Final = {"anthropic": "prompt is too long", "bedrock": "Input is too long"}


def render_error(
    dialect: Dialect, fault: ProxyError, request_id: str
) -> tuple[int, RawHeaders, bytes]:
    """Status, headers and body of an answer that says `fault`."""
    kind = fault.kind if fault.kind in OPENAI else "internal"
    headers: RawHeaders = [(b"content-type", b"application/json")]
    if dialect in REQUEST_ID:
        headers.append((REQUEST_ID[dialect], request_id.encode("latin-1", "replace")))
    if fault.final or kind == "blocked":
        headers.append((b"x-should-retry", b"false"))
    if fault.retry_after_s is not None:
        milliseconds = max(0, round(fault.retry_after_s * 1000))
        headers.append((b"retry-after", b"%d" % -(-milliseconds // 1000)))
        headers.append((b"retry-after-ms", b"%d" % milliseconds))
    doc = error_doc(dialect, fault, request_id)
    if dialect == "anthropic_messages":
        doc["request_id"] = request_id
        status = ANTHROPIC[kind][0]
    elif dialect == "bedrock_converse":
        status, name = BEDROCK[kind]
        if fault.final and status in (408, 500, 503):
            status, name = _FINAL_BEDROCK
        headers.append((b"x-amzn-errortype", name.encode()))
    elif dialect == "gemini":
        status = GEMINI[kind][0]
    else:
        status = OPENAI[kind][0]
    return status, headers, jsonbody.dumps(doc)


def error_doc(dialect: Dialect, fault: ProxyError, request_id: str) -> Object:
    """What a body or an in-band error event says; the dialect's reader frames the event."""
    kind = fault.kind if fault.kind in OPENAI else "internal"
    message = _message(dialect, fault, request_id)
    if dialect == "anthropic_messages":
        return {"type": "error", "error": {"type": ANTHROPIC[kind][1], "message": message}}
    if dialect == "bedrock_converse":
        return {"message": message}
    if dialect == "gemini":
        return _gemini(kind, fault, message)
    _, name, code = OPENAI[kind]
    if fault.public_code != type(fault).code:  # one that this fault was given
        code = fault.public_code
    return {"error": {"message": message, "type": name, "param": None, "code": code}}


def _message(dialect: Dialect, fault: ProxyError, request_id: str) -> str:
    if fault.kind == "blocked":
        return f"{fault.message} (request {request_id})"
    if fault.kind == "context_window":  # clients look for these words
        words = _TELLTALE.get(dialect.partition("_")[0], "")
        if words and words.lower() not in fault.message.lower():
            return f"{words}: {fault.message}"
    return fault.message


def _gemini(kind: str, fault: ProxyError, message: str) -> Object:
    details: list[Json] = []
    if fault.kind == "blocked":
        details.append(
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "POLICY_VIOLATION",
                "domain": "parapet",
            }
        )
    if fault.retry_after_s is not None:
        details.append(
            {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{fault.retry_after_s:g}s",
            }
        )
    status, name = GEMINI[kind]
    error: Object = {"code": status, "message": message, "status": name}
    if details:
        error["details"] = details
    return {"error": error}
