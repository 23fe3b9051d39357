"""T-CHG and the vectors of events.md §4, §6: ids, times, what a change means."""

import pytest

from proxy.model.events import (
    CLASSIFICATIONS,
    change_severity,
    change_type,
    classification_of,
    derived,
    iso,
    parse_time,
    price_change_percent,
)

# fmt: off
IDS = [
    (("evt-", 20, "workspace-123", "anthropic", "anthropic-release-20240315"),
     "evt-4a7eb69e69681bf68907"),
    (("corr-", 16, "workspace-123", "policy_violation_followed_by_failover", "evt-12345",
      "evt-12346"), "corr-00b5563bf626fcb7"),
    (("inc-", 16, "workspace-123", "safety", "route:prod-chat", "evt-12345"),
     "inc-4de93b430e6fd301"),
    (("alert-", 12, "workspace-123", "high-latency", "route_id=prod-chat", "1710513000"),
     "alert-fa84af3489c4"),
]
TIMES = [
    ("2024-03-15T14:30:00Z",          1_710_513_000_000, "2024-03-15T14:30:00Z"),
    ("2024-03-15t14:30:00z",          1_710_513_000_000, "2024-03-15T14:30:00Z"),
    ("2024-03-15T15:30:00+01:00",     1_710_513_000_000, "2024-03-15T14:30:00Z"),
    ("2024-03-15T09:00:00-05:30",     1_710_513_000_000, "2024-03-15T14:30:00Z"),
    ("2024-03-15T14:30:00.5Z",        1_710_513_000_500, "2024-03-15T14:30:00.500Z"),
    ("2024-03-15T14:30:00.123456789Z", 1_710_513_000_123, "2024-03-15T14:30:00.123Z"),
    ("1969-12-31T23:59:59.999Z",      -1,                "1969-12-31T23:59:59.999Z"),
    ("2016-12-31T23:59:60Z",          1_483_228_799_000, "2016-12-31T23:59:59Z"),
    ("0001-01-01T00:00:00Z",          -62_135_596_800_000, "0001-01-01T00:00:00Z"),
]
NOT_TIMES = ["", "2024-03-15", "2024-03-15T14:30:00", "2024-03-15T14:30Z", "2024-02-30T00:00:00Z",
             "2024-03-15T24:00:00Z", "2024-03-15T14:60:00Z", "2024-03-15T14:30:61Z",
             "2024-03-15T14:30:00+24:00", "2024-03-15T14:30:00+01", "2024-03-15T14:30:00.Z",
             "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "٢024-03-15T14:30:00Z",
             "2024-03-15T14:30:00Z\n", "20240315T143000Z"]
PRICES = [
    ("$15 per 1M tokens",   "$10 per 1M tokens",    -33),
    ("$10 per 1M tokens",   "$15 per 1M tokens",     50),
    ("$1 per 1K tokens",    "$500 per 1M tokens",   -50),
    ("$8 per 1M tokens",    "$9 per 1M tokens",      13),   # 12.5: half away from zero
    ("$8 per 1M tokens",    "$7 per 1M tokens",     -13),
    ("$3 per M tokens",     "$3.00 per 1M tokens",    0),
    ("$0 per 1M tokens",    "$3 per 1M tokens",     None),
    ("free",                "$3 per 1M tokens",     None),
    ("$1 per 0M tokens",    "$3 per 1M tokens",     None),
]
# fmt: on


@pytest.mark.parametrize(("call", "found"), IDS)
def test_derived_ids(call: tuple[str, int, str], found: str) -> None:
    assert derived(*call) == found


@pytest.mark.parametrize(("text", "at_ms", "told"), TIMES)
def test_times_are_read_and_told_in_utc(text: str, at_ms: int, told: str) -> None:
    assert parse_time(text) == at_ms
    assert iso(at_ms) == told
    assert parse_time(told) == at_ms


@pytest.mark.parametrize("text", NOT_TIMES)
def test_what_is_no_time(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize("classification", CLASSIFICATIONS)
def test_t_chg_01_classification_to_type_and_back(classification: str) -> None:
    kind, severity = CLASSIFICATIONS[classification]
    assert change_type(classification) == f"watcher.{kind}.change"
    assert classification_of(change_type(classification)) == classification
    assert change_severity(classification, 0) == severity


def test_t_chg_01_an_unknown_kind_is_its_own_classification() -> None:
    assert change_type("billing_change") == "watcher.billing.change"
    assert change_type("_change") == "watcher._change.change"
    assert classification_of("watcher.billing.change") == "billing"
    assert classification_of("watcher.billing") == "billing"
    assert change_severity("billing", 0) == "info"


@pytest.mark.parametrize(("old", "new", "percent"), PRICES)
def test_t_chg_04_price_changes(old: str, new: str, percent: int | None) -> None:
    assert price_change_percent(old, new) == percent


def test_t_chg_02_severities_that_depend_on_more() -> None:
    at_ms = parse_time("2024-03-15T14:30:00Z")
    assert at_ms is not None
    for new, severity in (("$12 per 1M tokens", "high"), ("$14 per 1M tokens", "medium")):
        found = change_severity(
            "pricing_change", at_ms, old_value="$15 per 1M tokens", new_value=new
        )
        assert found == severity
    for date, severity in (("2024-04-01", "critical"), ("2024-09-01", "high")):
        assert change_severity("model_deprecation", at_ms, effective_date=date) == severity
