"""`next_move` over tables of what was tried."""

import pytest

from proxy.model.failover import Attempt, Conditions, FailoverPolicy, Outcome, RequestFailover
from proxy.routing.failover import Fail, Move, Send, final_attempt, next_move, reason_of

POLICY = FailoverPolicy(
    route_id="prod-chat",
    primary_endpoint="a",
    fallback_endpoints=["b", "c"],
    conditions=Conditions(latency_threshold_ms=2000),
)
ONE_TRY = POLICY.model_copy(update={"request_failover": RequestFailover(max_attempts=1)})
OFF = POLICY.model_copy(update={"request_failover": RequestFailover(enabled=False)})
PAUSED = POLICY.model_copy(update={"status": "paused"})


def tried(*outcomes: Outcome) -> list[Attempt]:
    return [Attempt(name, outcome) for name, outcome in zip("abc", outcomes, strict=False)]


DEAD, SLOW, BAD, LIMITED = (
    Outcome.CONNECT, Outcome.NO_ANSWER, Outcome.UPSTREAM_5XX, Outcome.RATE_LIMITED,
)  # fmt: skip
# fmt: off
MOVES: list[tuple[list[Attempt], dict[int, str], FailoverPolicy | None, float, Move]] = [
    # tried                          skipped                policy   left  move
    ([],                             {},                    POLICY,  9,    Send(0)),
    ([],                             {},                    None,    9,    Send(0)),
    ([],                             {0: "no_credential"},  POLICY,  9,    Send(1)),
    (tried(DEAD),                    {},                    POLICY,  9,    Send(1)),
    (tried(SLOW),                    {},                    POLICY,  9,    Send(1)),
    (tried(BAD),                     {1: "cannot express"}, POLICY,  9,    Send(2)),
    (tried(BAD, DEAD),               {},                    POLICY,  9,    Send(2)),
    (tried(BAD, DEAD, LIMITED), {}, POLICY, 9, Fail("no endpoint left")),
    (tried(BAD), {}, None, 9, Fail("no failover on this route")),
    (tried(BAD), {}, OFF, 9, Fail("no failover on this route")),
    (tried(BAD), {}, PAUSED, 9, Fail("no failover on this route")),
    (tried(BAD),                     {},                    ONE_TRY, 9,    Fail("max_attempts")),
    (tried(BAD),                     {},                    POLICY,  0,    Fail("deadline")),
    (tried(Outcome.CALLER),          {},                    POLICY,  9,    Fail("caller")),
    (tried(Outcome.REFUSAL),         {},                    POLICY,  9,    Fail("refusal")),
    (tried(Outcome.BLOCKED),         {},                    POLICY,  9,    Fail("blocked")),
    (tried(Outcome.SUCCESS),         {},                    POLICY,  9,    Fail("success")),
]
# fmt: on


@pytest.mark.parametrize(("before", "skipped", "policy", "left_s", "move"), MOVES)
def test_next_move(
    before: list[Attempt],
    skipped: dict[int, str],
    policy: FailoverPolicy | None,
    left_s: float,
    move: Move,
) -> None:
    assert next_move(3, before, skipped, policy, left_s=left_s) == move


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
