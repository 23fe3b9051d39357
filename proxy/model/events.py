"""Events: names of types, derived identifiers, times, and what a change means (events.md §1–§6).

Everything here is a function of its arguments.  `derived` is deterministic: replay gives the same
ids without a lock.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Final

from proxy.model.exchange import Json

SCHEMA_VERSION = "1.0"
EVENTS_LOG = "events"
SERVER_WORKSPACE = "_server"  # documents and denials that belong to no workspace

REQUEST_COMPLETED = "runtime.request.completed"
REQUEST_FAILED = "runtime.request.failed"
REQUEST_BLOCKED = "runtime.request.blocked"
REQUEST_CANCELLED = "runtime.request.cancelled"
STREAM_INTERRUPTED = "runtime.stream.interrupted"
POLICY_RESULT = "runtime.policy.result"
PERMISSION_DECISION = "runtime.permission.decision"
FAILOVER_DECISION = "runtime.failover.decision"
FAILOVER_RECOVERED = "runtime.failover.recovered"
ENDPOINT_STATE_CHANGED = "runtime.endpoint.state_changed"
RATE_LIMITED = "runtime.rate_limited"
BUDGET_EXCEEDED = "runtime.budget.exceeded"

RUNTIME_TYPES: Final = (
    REQUEST_COMPLETED, REQUEST_FAILED, REQUEST_BLOCKED, REQUEST_CANCELLED, STREAM_INTERRUPTED,
    POLICY_RESULT, PERMISSION_DECISION, FAILOVER_DECISION, FAILOVER_RECOVERED,
    ENDPOINT_STATE_CHANGED, RATE_LIMITED, BUDGET_EXCEEDED,
)  # fmt: skip

CONFIG_CHANGED = "control.config.changed"
POLICY_PUBLISHED = "control.policy.published"
INCIDENT_OPENED = "control.incident.opened"
INCIDENT_UPDATED = "control.incident.updated"
INCIDENT_RESOLVED = "control.incident.resolved"
INCIDENT_REOPENED = "control.incident.reopened"
DIGEST_GENERATED = "control.digest.generated"
KEY_CREATED = "control.key.created"
KEY_REVOKED = "control.key.revoked"

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

EVENT_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
ROUTE_ID = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"
RUNTIME_TYPE = r"^runtime(\.[a-z0-9_]+){1,4}$"
CHANGE_TYPE = r"^watcher(\.[a-z0-9_]+){1,3}$"

# classification -> (kind in the type, default severity)
# fmt: off
CLASSIFICATIONS: Final[dict[str, tuple[str, str]]] = {
    "pricing_change":    ("pricing",           "medium"),  # 20 % or more: high
    "release_note":      ("release_note",      "info"),
    "model_deprecation": ("model_deprecation", "high"),    # effective within 30 days: critical
    "model_launch":      ("model_launch",      "info"),
    "api_change":        ("api",               "medium"),
    "rate_limit_change": ("rate_limit",        "medium"),
    "terms_change":      ("terms",             "low"),
    "safety_change":     ("safety",            "medium"),
    "region_change":     ("region",            "medium"),
    "status_incident":   ("status_incident",   "high"),
    "config_change":     ("config",            "low"),
    "deploy":            ("deploy",            "low"),
    "other":             ("other",             "info"),
}
# fmt: on
_CLASSIFICATION_OF_KIND = {kind: name for name, (kind, _) in CLASSIFICATIONS.items()}

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_PRICE = re.compile(
    r"\s*\$([0-9]{1,9}(?:\.[0-9]{1,9})?) per ([0-9]{1,9})?\s?([MK])? ?tokens\s*", re.ASCII
)
_SCALE = {"": 1, "K": 1_000, "M": 1_000_000}


@dataclass(slots=True, frozen=True)
class Came:
    """How events came in that reach the log later: they were kept meanwhile."""

    source: str
    received_ms: int
    dedupe_ttl_s: int


@dataclass(slots=True)
class NewEvent:
    """An event on its way into the log.

    `body` is the envelope without what the store side adds (`seq`, `workspace_id`, `received_at`,
    `schema_version`, `source`).  `content_hash` is over what the sender said; empty: over `body`.
    `packed`: all that the event says, as the log keeps it; then `body` holds only what it is
    searched by.  `came`: how, when that was before it goes into the log.
    """

    body: dict[str, Json]
    at_ms: int
    content_hash: bytes = b""
    packed: bytes = b""
    came: Came | None = None


def derived(prefix: str, length: int, *parts: str) -> str:
    """`prefix` and the first `length` hex digits of SHA-256 over the parts, joined by NUL."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return prefix + digest[:length]


def iso(at_ms: int) -> str:
    """RFC 3339 in UTC: whole seconds when the fraction is zero, else milliseconds."""
    text = (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")
    return f"{text[:23]}Z" if at_ms % 1000 else f"{text[:19]}Z"


@lru_cache(maxsize=1024)  # a time that is checked is read again soon
def parse_time(text: str) -> int | None:
    """Milliseconds since 1970 of an RFC 3339 time with an offset; None: it is not one.

    A leap second counts as the second before it; a fraction is cut to milliseconds.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    offset = found[8]
    shift = 0
    if offset not in "Zz":
        hours, minutes = int(offset[1:3]), int(offset[4:6])
        if hours > 23 or minutes > 59:
            return None
        shift = (hours * 60 + minutes) * (-1 if offset[0] == "-" else 1)
    try:
        at = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
        utc_ms = (at - _EPOCH) // _MS - shift * 60_000
        if second > 60:
            return None
        iso(utc_ms)  # an offset may lead out of the years that can be written
    except (ValueError, OverflowError):
        return None
    return utc_ms + (int(found[7][1:4].ljust(3, "0")) if found[7] else 0)


def change_type(classification: str) -> str:
    """`watcher.<kind>.change`"""
    known = CLASSIFICATIONS.get(classification)
    kind = known[0] if known else classification.removesuffix("_change")
    return f"watcher.{kind or classification}.change"


def classification_of(event_type: str) -> str:
    """What a change event's type says; an unknown kind is its own classification."""
    kind = event_type.split(".")[1]
    return _CLASSIFICATION_OF_KIND.get(kind, kind)


def change_severity(
    classification: str,
    at_ms: int,
    *,
    old_value: str | None = None,
    new_value: str | None = None,
    effective_date: str | None = None,
) -> str:
    """The default severity of a change (events.md §4)."""
    if classification == "pricing_change" and old_value and new_value:
        percent = price_change_percent(old_value, new_value)
        if percent is not None and abs(percent) >= 20:
            return "high"
    if classification == "model_deprecation" and effective_date:
        effective_ms = parse_time(f"{effective_date}T00:00:00Z")
        if effective_ms is not None and effective_ms - at_ms <= 30 * 86_400_000:
            return "critical"
    return CLASSIFICATIONS.get(classification, ("", "info"))[1]


def price_change_percent(old: str, new: str) -> int | None:
    """From `$15 per 1M tokens` to `$10 per 1M tokens` is -33; half goes away from zero."""
    before, after = _usd_per_mtok(old), _usd_per_mtok(new)
    if before is None or after is None or not before:
        return None
    exact = (after - before) * 100 / before
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _usd_per_mtok(text: str) -> Decimal | None:
    found = _PRICE.fullmatch(text)
    if found is None:
        return None
    tokens = int(found[2] or 1) * _SCALE[found[3] or ""]
    return Decimal(found[1]) * 1_000_000 / tokens if tokens else None
