"""One function says in the seed's words why an endpoint was left (failover.md §14)."""

import pytest

from proxy.model.failover import Conditions
from proxy.routing.breaker import Reason
from proxy.routing.saying import trigger_condition

AT_MS = 1_710_513_000_000  # 2024-03-15T14:30:00Z
SAID = Conditions(latency_threshold_ms=2000, error_rate_threshold=0.1)

# fmt: off
WORDS = [
    (Reason("latency"),                    "latency > 2000ms"),
    (Reason("error_rate"),                 "error_rate > 0.1"),
    (Reason("consecutive_failures"),       "consecutive_failures >= 5"),
    (Reason("hard_failure"),               "connect_failures >= 3"),
    (Reason("rate_limited", left_s=60),    "rate_limited until 2024-03-15T14:31:00Z"),
    (Reason("rate_limited", left_s=0.2),   "rate_limited until 2024-03-15T14:30:01Z"),
    (Reason("auth"),                       "auth_failures >= 3"),
    (Reason("model_not_found"),            "model_not_found_failures >= 3"),
    (Reason("quota"),                      "quota_failures >= 3"),
    (Reason("quota", left_s=300),          "quota until 2024-03-15T14:35:00Z"),
    (Reason("misconfigured"),              "misconfigured_failures >= 3"),
    (Reason("probe_failed"),               "probe_failed"),
    (Reason("exhausted"),                  "all endpoints unavailable"),
]
# fmt: on


@pytest.mark.parametrize(("reason", "words"), WORDS, ids=[row[1] for row in WORDS])
def test_the_words_of_a_reason(reason: Reason, words: str) -> None:
    assert trigger_condition(reason, SAID, AT_MS) == words
