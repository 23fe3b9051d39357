"""What a digest is about and what stands in it: days and weeks of a time zone, counts, the worst
incidents (alerts.md §10, events.md §5.7)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from proxy.model.documents import SEVERITY_RANK, Severity
from proxy.model.events import iso

DIGEST: Final = "digest"
MAX_INCIDENTS: Final = 50
Period = Literal["daily", "weekly"]
_MS: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Summary(_Kept):
    total_incidents: int
    policy_violations: int
    failover_events: int


class DigestIncident(_Kept):
    id: str
    severity: Severity
    type: str
    route: str | None


class Window(_Kept):
    since: str
    until: str


class Digest(_Kept):
    """`partial`: a bound was met, and there was more to count."""

    digest_id: str
    period: Period
    workspace_id: str
    summary: Summary
    incidents: list[DigestIncident] = Field(default_factory=list)
    window: Window
    generated_at: str
    partial: bool = False


@dataclass(slots=True, frozen=True)
class Span:
    """A period of a calendar: its digest's id, and [since_ms, until_ms)."""

    digest_id: str
    since_ms: int
    until_ms: int


def span_of(period: Period, day: date, zone: tzinfo) -> Span:
    """The day, or the week from Monday to Sunday that the day is in.  A day on which clocks change
    has 23 or 25 hours and counts as it is.  Raises ValueError, OverflowError at the ends of time.
    """
    if period == "daily":
        return _span(f"digest-{day:%Y%m%d}", day, 1, zone)
    year, week, weekday = day.isocalendar()
    return _span(f"digest-{year:04d}-W{week:02d}", day - timedelta(days=weekday - 1), 7, zone)


def _span(digest_id: str, first: date, days: int, zone: tzinfo) -> Span:
    since, until = (
        (datetime(day.year, day.month, day.day, tzinfo=zone) - _EPOCH) // _MS
        for day in (first, first + timedelta(days=days))
    )
    return Span(digest_id, since, until)


def worst_first(began: Iterable[tuple[int, DigestIncident]], span: Span) -> list[DigestIncident]:
    """Of incidents, each with the time in ms when it began, those that began in the period: the
    worst first, then the newest."""
    found = [(at_ms, one) for at_ms, one in began if span.since_ms <= at_ms < span.until_ms]
    found.sort(key=lambda pair: (-SEVERITY_RANK[pair[1].severity], -pair[0], pair[1].id))
    return [one for _, one in found]


def built(
    workspace_id: str,
    period: Period,
    span: Span,
    incidents: list[DigestIncident],
    violations: int,
    failovers: int,
    at_ms: int,
    *,
    partial: bool = False,
) -> Digest:
    """The digest of a period.  `incidents` are all that began in it, the worst first."""
    return Digest(
        digest_id=span.digest_id,
        period=period,
        workspace_id=workspace_id,
        summary=Summary(
            total_incidents=len(incidents),
            policy_violations=violations,
            failover_events=failovers,
        ),
        incidents=incidents[:MAX_INCIDENTS],
        window=Window(since=iso(span.since_ms), until=iso(span.until_ms)),
        generated_at=iso(at_ms),
        partial=partial,
    )
