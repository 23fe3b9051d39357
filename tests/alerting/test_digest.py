"""Which days a digest is about, and what stands in it (alerts.md §10)."""

from datetime import UTC, date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from proxy.alerting.alert import alert_id
from proxy.alerting.digest import MAX_INCIDENTS, DigestIncident, Span, built, span_of, worst_first
from proxy.model.events import iso

BERLIN = ZoneInfo("Europe/Berlin")

# fmt: off
SPANS = [
    # period    day                zone    id                  since                   until
    ("daily",  date(2024, 3, 15),  UTC,    "digest-20240315", "2024-03-15T00", "2024-03-16T00"),
    ("daily",  date(2024, 3, 15),  BERLIN, "digest-20240315", "2024-03-14T23", "2024-03-15T23"),
    ("daily",  date(2024, 3, 31),  BERLIN, "digest-20240331", "2024-03-30T23", "2024-03-31T22"),
    ("daily",  date(2024, 10, 27), BERLIN, "digest-20241027", "2024-10-26T22", "2024-10-27T23"),
    ("weekly", date(2024, 3, 11),  UTC,    "digest-2024-W11", "2024-03-11T00", "2024-03-18T00"),
    ("weekly", date(2024, 3, 17),  UTC,    "digest-2024-W11", "2024-03-11T00", "2024-03-18T00"),
    ("weekly", date(2024, 12, 31), UTC,    "digest-2025-W01", "2024-12-30T00", "2025-01-06T00"),
    ("weekly", date(2024, 4, 1),   BERLIN, "digest-2024-W14", "2024-03-31T22", "2024-04-07T22"),
]
# fmt: on


@pytest.mark.parametrize(("period", "day", "zone", "digest_id", "since", "until"), SPANS)
def test_days_and_weeks(
    period: Any, day: date, zone: Any, digest_id: str, since: str, until: str
) -> None:
    span = span_of(period, day, zone)
    began, ended = iso(span.since_ms), iso(span.until_ms)
    assert (span.digest_id, began, ended) == (digest_id, since + ":00:00Z", until + ":00:00Z")


def one(name: str, severity: Any) -> DigestIncident:
    return DigestIncident(id=name, severity=severity, type="failover", route=None)


def test_the_worst_first_and_only_of_the_period() -> None:
    began = [
        (99, one("before", "critical")), (100, one("a", "high")), (150, one("b", "critical")),
        (199, one("c", "high")), (200, one("after", "critical")), (120, one("d", "info")),
    ]  # fmt: skip
    found = worst_first(began, Span("digest-1", 100, 200))
    assert [each.id for each in found] == ["b", "c", "a", "d"]


def test_it_lists_50_and_counts_all() -> None:
    incidents = [one(f"i{n}", "low") for n in range(60)]
    digest = built("w", "daily", Span("digest-20240315", 0, 1000), incidents, 3, 2, 5000)
    assert digest.summary.model_dump() == {
        "total_incidents": 60, "policy_violations": 3, "failover_events": 2,
    }  # fmt: skip
    assert len(digest.incidents) == MAX_INCIDENTS


def test_the_id_of_an_alert_is_the_designs_vector() -> None:
    found = alert_id("workspace-123", "high-latency", {"route_id": "prod-chat"}, 1_710_513_000)
    assert found == "alert-fa84af3489c4"
