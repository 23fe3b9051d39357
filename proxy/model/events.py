"""Events: derived identifiers, names of types, and the envelope (events.md §1, §6).

`derived` is deterministic: replay gives the same ids without a lock.
"""

import hashlib

SCHEMA_VERSION = "1.0"

REQUEST_COMPLETED = "runtime.request.completed"
REQUEST_FAILED = "runtime.request.failed"
REQUEST_BLOCKED = "runtime.request.blocked"
REQUEST_CANCELLED = "runtime.request.cancelled"
STREAM_INTERRUPTED = "runtime.stream.interrupted"
POLICY_RESULT = "runtime.policy.result"
FAILOVER_DECISION = "runtime.failover.decision"

TYPE_OF_OUTCOME: dict[str, str] = {
    "success": REQUEST_COMPLETED,
    "blocked": REQUEST_BLOCKED,
    "client_cancelled": REQUEST_CANCELLED,
    "interrupted": STREAM_INTERRUPTED,
    "upstream_error": REQUEST_FAILED,
    "timeout": REQUEST_FAILED,
    "rate_limited": REQUEST_FAILED,
    "gateway_error": REQUEST_FAILED,
    "invalid_request": REQUEST_FAILED,
}


def derived(prefix: str, length: int, *parts: str) -> str:
    """`prefix` and the first `length` hex digits of SHA-256 over the parts, joined by NUL."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return prefix + digest[:length]
