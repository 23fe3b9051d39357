"""`next_move` over tables of what was tried."""

from dataclasses import replace

import pytest

from proxy.model.failover import Conditions, FailoverPolicy, Outcome, RequestFailover
from proxy.model.records import Attempt
from proxy.routing.failover import (
    CUT_SHORT,
    Fail,
    Move,
    Now,
    Send,
    final_attempt,
    next_move,
    reason_of,
)

POLICY = FailoverPolicy(
    route_id="prod-chat",
    primary_endpoint="a",
    fallback_endpoints=["b", "c"],
    conditions=Conditions(latency_threshold_ms=2000),
)
ONE_TRY = POLICY.model_copy(update={"request_failover": RequestFailover(max_attempts=1)})
OFF = POLICY.model_copy(update={"request_failover": RequestFailover(enabled=False)})
NEVER = POLICY.model_copy(update={"request_failover": RequestFailover(same_endpoint_retries=0)})
PAUSED = POLICY.model_copy(update={"status": "paused"})


def tried(*outcomes: Outcome, on: str = "abc") -> list[Attempt]:
    return [Attempt(name, outcome) for name, outcome in zip(on, outcomes, strict=False)]


def hinted(seconds: float) -> Attempt:
    return Attempt("a", Outcome.RATE_LIMITED, retry_after_s=seconds)


DEAD, SLOW, BAD, LIMITED = (
    Outcome.CONNECT, Outcome.NO_ANSWER, Outcome.UPSTREAM_5XX, Outcome.RATE_LIMITED,
)  # fmt: skip
NOW = Now(left_s=9)
AGAIN = Send(0, 0.1, charged=True)
SHORT, LEFT = Attempt("a", Outcome.CUT, why=CUT_SHORT), "no endpoint left"
UNSTEADY, BROKE = replace(NOW, steady=False), replace(NOW, has_budget=False)
# fmt: off
MOVES: list[tuple[list[Attempt], dict[int, str], FailoverPolicy | None, Now, Move]] = [
    # tried                          refused                policy   now       move
    ([],                             {},                    POLICY,  NOW,      Send(0)),
    ([],                             {},                    None,    NOW,      Send(0)),
    ([],                             {0: "no_credential"},  POLICY,  NOW,      Send(1)),
    ([],                             {0: "open"},           POLICY,  BROKE,    Send(1)),
    # the same endpoint once more, but never after silence
    (tried(DEAD),                    {},                    POLICY,  NOW,      AGAIN),
    (tried(BAD),                     {},                    POLICY,  NOW,      AGAIN),
    (tried(Outcome.BAD_ANSWER),      {},                    POLICY,  NOW,      AGAIN),
    (tried(SLOW),                    {},                    POLICY,  NOW,      Send(1)),
    (tried(Outcome.STALL),           {},                    POLICY,  NOW,      Send(1)),
    (tried(Outcome.AUTH),            {},                    POLICY,  NOW,      Send(1)),
    ([Attempt("a", DEAD, timed_out="connect")], {},         POLICY,  NOW,      Send(1)),
    ([Attempt("a", BAD, retry_after_s=1)],      {},         POLICY,  NOW,      Send(1)),
    (tried(BAD),                     {},                    POLICY,  UNSTEADY, Send(1)),
    (tried(BAD),                     {},                    POLICY,  BROKE,    Send(1)),
    (tried(BAD),                     {},                    NEVER,   NOW,      Send(1)),
    (tried(BAD),                     {0: "open"},           POLICY,  NOW,      Send(1)),
    (tried(BAD),                     {1: "x", 2: "x"},      POLICY,  BROKE,    Fail("budget")),
    (tried(BAD, BAD, on="aa"),       {},                    POLICY,  NOW,      Send(1)),
    (tried(BAD, BAD, BAD, on="aab"), {},                    POLICY,  NOW,      Send(1, 0.1, True)),
    # a whole answer that was cut: again only where nothing else admits
    ([SHORT],                        {},                    POLICY,  NOW,      Send(1)),
    ([SHORT],                        {1: "x", 2: "x"},      POLICY,  NOW,      AGAIN),
    ([SHORT],                        {1: "x", 2: "x"},      POLICY,  BROKE,    Fail(LEFT)),
    ([SHORT, SHORT],                 {1: "x", 2: "x"},      POLICY,  NOW,      Fail(LEFT)),
    # a 429 that says when
    (tried(LIMITED),                 {},                    POLICY,  NOW,      Send(1)),
    ([hinted(2)],                    {},                    POLICY,  NOW,      Send(0, 2.0, True)),
    ([hinted(4)],                    {},                    POLICY,  NOW,      Send(1)),
    ([hinted(2)],                    {},                    POLICY,  BROKE,    Send(1)),
    ([hinted(2)],                    {},                    POLICY,  Now(1.5), Send(1)),
    ([hinted(2), hinted(2)],         {},                    POLICY,  NOW,      Send(1)),
    # then the next, and the budget
    (tried(SLOW),                    {1: "cannot express"}, POLICY,  NOW,      Send(2)),
    (tried(SLOW),                    {},                    POLICY,  BROKE,    Send(1)),
    (tried(SLOW, SLOW),              {},                    POLICY,  NOW,      Send(2, 0.0, True)),
    (tried(SLOW, SLOW),              {},                    POLICY,  BROKE,    Fail("budget")),
    (tried(SLOW),  {}, POLICY, replace(NOW, fragile=[1]),                      Send(1, 0.0, True)),
    (tried(SLOW),  {}, POLICY, replace(BROKE, fragile=[1]),                    Send(2)),
    # nothing more
    (tried(SLOW, SLOW, LIMITED),     {},                    POLICY,  NOW, Fail("no endpoint left")),
    (tried(BAD), {}, None,   NOW, Fail("no failover on this route")),
    (tried(BAD), {}, OFF,    NOW, Fail("no failover on this route")),
    (tried(BAD), {}, PAUSED, NOW, Fail("no failover on this route")),
    (tried(BAD),                     {},                    ONE_TRY, NOW, Fail("max_attempts")),
    (tried(BAD),                     {},                    POLICY,  Now(0),   Fail("deadline")),
    (tried(BAD),                     {},                    POLICY,  Now(3, 4), Fail("deadline")),
    (tried(Outcome.CALLER),          {},                    POLICY,  NOW,      Fail("caller")),
    (tried(Outcome.REFUSAL),         {},                    POLICY,  NOW,      Fail("refusal")),
    (tried(Outcome.BLOCKED),         {},                    POLICY,  NOW,      Fail("blocked")),
    (tried(Outcome.CANCELLED),       {},                    POLICY,  NOW,      Fail("cancelled")),
    (tried(Outcome.SUCCESS),         {},                    POLICY,  NOW,      Fail("success")),
    # too long for one may be right for a larger one
    (tried(Outcome.CONTEXT_WINDOW),  {1: "context_not_larger"}, POLICY, NOW,   Send(2)),
    (tried(Outcome.CONTEXT_WINDOW),  {1: "x", 2: "x"},      POLICY, NOW, Fail("no endpoint left")),
]
# fmt: on


@pytest.mark.parametrize(("before", "refused", "policy", "now", "move"), MOVES)
def test_next_move(
    before: list[Attempt],
    refused: dict[int, str],
    policy: FailoverPolicy | None,
    now: Now,
    move: Move,
) -> None:
    assert next_move("abc", before, refused, policy, now) == move


def test_a_request_may_have_an_order_of_its_own() -> None:
    assert next_move("abc", [], {}, POLICY, NOW, places=[2, 0, 1]) == Send(2)
    assert next_move("abc", tried(SLOW), {}, POLICY, NOW, places=[0, 2, 1]) == Send(2)
    assert next_move("abc", [], {2: "open"}, POLICY, NOW, places=[2, 0]) == Send(0)


def test_an_order_of_a_rule_needs_no_policy() -> None:
    assert next_move("abc", tried(BAD), {}, None, NOW, each=True) == Send(1)
    assert next_move("abc", tried(BAD), {}, None, Now(0), each=True) == Fail("deadline")


def attempt(outcome: Outcome, why: str, timed_out: str = "") -> Attempt:
    return Attempt("a", outcome, why=why, timed_out=timed_out)


# fmt: off
REASONS = [
    (
        attempt(Outcome.NO_ANSWER, "first_content > 10000ms", "first_content"),
        ("timeout", "first_content > 10000ms"),
    ),
    (attempt(Outcome.CONNECT, "connect > 3000ms", "connect"), ("timeout", "connect > 3000ms")),
    (attempt(Outcome.CONNECT, "connection refused"), ("upstream_error", "connection refused")),
    (attempt(Outcome.UPSTREAM_5XX, "status 503"), ("upstream_error", "status 503")),
    (
        attempt(Outcome.UPSTREAM_5XX, "error overloaded_error"),
        ("upstream_error", "error overloaded_error"),
    ),
    (attempt(Outcome.RATE_LIMITED, "status 429"), ("rate_limited", "status 429")),
    (attempt(Outcome.QUOTA, "status 402"), ("quota", "status 402")),
    (attempt(Outcome.AUTH, "status 401"), ("auth", "status 401")),
    (attempt(Outcome.MODEL_MISSING, "status 404"), ("model_not_found", "status 404")),
    (attempt(Outcome.MISCONFIGURED, "status 400"), ("misconfigured", "status 400")),
    (
        attempt(Outcome.CONTEXT_WINDOW, "status 400"),
        ("context_window", "context_length_exceeded"),
    ),
]
# fmt: on


@pytest.mark.parametrize(("failed", "told"), REASONS)
def test_a_switch_says_why(failed: Attempt, told: tuple[str, str]) -> None:
    assert reason_of(failed) == told


# fmt: off
FINALS = [
    # chain                                          index of the one that is told
    ([BAD, DEAD],                                    1),
    ([BAD, LIMITED],                                 1),
    ([BAD, Outcome.CALLER],                          1),
    ([Outcome.CONTEXT_WINDOW, BAD],                  0),
    ([LIMITED, Outcome.AUTH],                        0),
    ([BAD, Outcome.MODEL_MISSING],                   0),
    ([Outcome.QUOTA, Outcome.AUTH],                  1),
]
# fmt: on


@pytest.mark.parametrize(("chain", "index"), FINALS)
def test_the_most_useful_class_is_told(chain: list[Outcome], index: int) -> None:
    assert final_attempt(tried(*chain)) == index


def test_of_several_429_the_smallest_hint_is_told() -> None:
    chain = tried(LIMITED, LIMITED, LIMITED)
    chain[0].retry_after_s, chain[1].retry_after_s = 30, 2
    assert final_attempt(chain) == 1


def test_attempts_are_bounded_by_the_number_of_fallbacks() -> None:
    assert POLICY.max_attempts == 4
    assert ONE_TRY.max_attempts == 1
