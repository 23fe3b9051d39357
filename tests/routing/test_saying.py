"""One function says in the seed's words why an endpoint was left (failover.md §14)."""

from typing import Any

import pytest

from proxy.model.failover import Conditions, Outcome
from proxy.model.records import Attempt
from proxy.routing.saying import trigger_condition, why_sent_on
from proxy.routing.states import Reason

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
    (Reason("manual"),                     "manual"),
    (Reason("manual", said="maintenance"), "manual: maintenance"),
]
# fmt: on


@pytest.mark.parametrize(("reason", "words"), WORDS, ids=[row[1] for row in WORDS])
def test_the_words_of_a_reason(reason: Reason, words: str) -> None:
    assert trigger_condition(reason, SAID, AT_MS) == words


def attempt(outcome: Outcome, why: str = "", **more: Any) -> Attempt:
    return Attempt("a", outcome, why=why, **more)


# fmt: off
SENT_ON: list[tuple[Attempt, str, str]] = [
    (attempt(Outcome.NO_ANSWER, "first_content > 10000ms", timed_out="first_content"),
     "timeout", "first_content > 10000ms"),
    (attempt(Outcome.CONNECT, "connect > 3000ms", timed_out="connect"),
     "timeout", "connect > 3000ms"),
    (attempt(Outcome.CONNECT, "connection refused"), "upstream_error", "connection refused"),
    (attempt(Outcome.UPSTREAM_5XX, "status 503"), "upstream_error", "status 503"),
    (attempt(Outcome.UPSTREAM_5XX, "status 503", retry_after_s=2.0),
     "upstream_error", "status 503"),
    (attempt(Outcome.UPSTREAM_5XX, "error overloaded_error"),
     "upstream_error", "error overloaded_error"),
    (attempt(Outcome.RATE_LIMITED, "status 429"), "rate_limited", "status 429"),
    (attempt(Outcome.RATE_LIMITED, "status 429", retry_after_s=60.0),
     "rate_limited", "rate_limited until 2024-03-15T14:31:00Z"),
    (attempt(Outcome.QUOTA, "status 402"), "quota", "status 402"),
    (attempt(Outcome.AUTH, "status 401"), "auth", "status 401"),
    (attempt(Outcome.CONTEXT_WINDOW, "status 400"), "context_window", "context_length_exceeded"),
    (attempt(Outcome.CUT, "stream cut after 214 chars"),
     "stream_cut", "stream cut after 214 chars"),
    (attempt(Outcome.STALL, "stream idle > 15000ms", timed_out="idle"),
     "stream_stall", "stream idle > 15000ms"),
]
# fmt: on


@pytest.mark.parametrize(("last", "code", "words"), SENT_ON)
def test_the_words_for_one_request(last: Attempt, code: str, words: str) -> None:
    assert why_sent_on(last, AT_MS) == (code, words)
