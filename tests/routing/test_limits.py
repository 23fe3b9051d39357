"""Limits of routes and keys: buckets by GCRA, what is settled, what is counted until its end."""

import pytest

from proxy.model.coord import NS, gcra
from proxy.model.tenancy import Limits
from proxy.routing.limits import (
    DAY_MS,
    DEBT_NS,
    WINDOW_NS,
    Hold,
    Limiter,
    Moment,
    Name,
    Refusal,
    duration,
    saying,
)

ROUTE: Name = ("route", "default", "chat")
KEY: Name = ("key", "", "team")
NOON_MS = 19_797 * DAY_MS + DAY_MS // 2


def at(seconds: float) -> Moment:
    return Moment(int((1000 + seconds) * NS), NOON_MS + int(seconds * 1000))


def taken(limiter: Limiter, said: Limits, seconds: float = 0.0, tokens: int = 0) -> Hold | Refusal:
    return limiter.claim([(ROUTE, said)], at(seconds), tokens, tokens)


def held(limiter: Limiter, said: Limits, seconds: float = 0.0, tokens: int = 0) -> Hold:
    found = taken(limiter, said, seconds, tokens)
    assert isinstance(found, Hold), found
    return found


def refused(limiter: Limiter, said: Limits, seconds: float = 0.0, tokens: int = 0) -> Refusal:
    found = taken(limiter, said, seconds, tokens)
    assert isinstance(found, Refusal), found
    return found


def left(limiter: Limiter, said: Limits, seconds: float = 0.0) -> tuple[int, int]:
    """(requests, tokens) that are left; -1: no such limit."""
    requests, tokens = limiter.quotas([(ROUTE, said)], at(seconds))
    return (
        requests.remaining if requests is not None else -1,
        tokens.remaining if tokens is not None else -1,
    )


# --- requests


def test_the_vector_of_ten_in_a_minute() -> None:
    limiter, said = Limiter(), Limits(rpm=10)
    for number in range(10):
        held(limiter, said)
        quota, _ = limiter.quotas([(ROUTE, said)], at(0))
        assert quota is not None
        assert (quota.limit, quota.remaining) == (10, 9 - number)
        assert quota.full_ns == (number + 1) * 6 * NS
    for _ in range(2):
        assert refused(limiter, said).wait_ns == 6 * NS
    held(limiter, said, 6.0)
    assert refused(limiter, said, 6.0).wait_ns == 6 * NS


def test_taking_several_is_taking_one_several_times() -> None:
    one_by_one = 0
    for _ in range(7):
        one_by_one, _ = gcra(one_by_one, 50, 11, WINDOW_NS)
    assert gcra(0, 50, 11, WINDOW_NS, 7)[0] == one_by_one


def test_a_limit_edited_upward_is_more_at_once_and_one_removed_is_none() -> None:
    limiter = Limiter()
    for _ in range(2):
        held(limiter, Limits(rpm=2))
    refused(limiter, Limits(rpm=2))
    assert refused(limiter, Limits(rpm=4)).wait_ns == 15 * NS  # as much of the minute is used
    held(limiter, Limits(concurrency=9))
    limiter.keep({ROUTE})
    refused(limiter, Limits(rpm=2))
    limiter.keep(set())
    held(limiter, Limits(rpm=2))


# --- tokens


# fmt: off
SETTLED = [
    # reserved, used, left after the claim, left after the end at the same moment
    (100,  100,   900,  900),
    (100,   40,   900,  960),
    (100,    0,   900, 1000),
    (100,  400,   900,  600),
    (100, 1000,   900,    0),
    (100, 5000,   900,    0),
    (5000, 5000,    0,    0),  # more than a minute holds: let in when nothing else was
    (5000,  10,     0,  990),
    (0,     10,  1000,  990),
]
# fmt: on


@pytest.mark.parametrize(("reserved", "used", "then", "after"), SETTLED)
def test_tokens_are_settled(reserved: int, used: int, then: int, after: int) -> None:
    limiter, said = Limiter(), Limits(tpm=1000)
    hold = held(limiter, said, tokens=reserved)
    assert left(limiter, said) == (-1, then)
    hold.settle(at(0), used, 0)
    assert left(limiter, said) == (-1, after)
    hold.settle(at(0), 10**9, 0)  # once
    assert left(limiter, said) == (-1, after)


def test_a_debt_is_waited_for() -> None:
    limiter, said = Limiter(), Limits(tpm=60)
    held(limiter, said, tokens=1).settle(at(0), 90, 0)
    assert refused(limiter, said, tokens=1).wait_ns == 31 * NS
    held(limiter, said, 31.0, tokens=1)


def test_a_debt_has_a_bound_whatever_a_provider_says() -> None:
    limiter, said = Limiter(), Limits(tpm=60)
    for _ in range(5):
        hold = taken(limiter, said, tokens=1)
        if isinstance(hold, Hold):
            hold.settle(at(0), 2**53, 0)
    assert refused(limiter, said, tokens=1).wait_ns <= DEBT_NS


def test_what_time_has_paid_for_is_not_given_back() -> None:
    limiter, said = Limiter(), Limits(tpm=60)
    first = held(limiter, said, 0.0, tokens=60)
    held(limiter, said, 60.0, tokens=60)
    first.settle(at(61.0), 0, 0)  # its minute is over: the second one's is not for sale
    assert left(limiter, said, 61.0) == (-1, 1)


# --- requests under way


def test_concurrency_counts_until_the_end_and_ends_once() -> None:
    limiter, said = Limiter(), Limits(concurrency=2)
    first, second = held(limiter, said), held(limiter, said)
    refusal = refused(limiter, said)
    assert (refusal.limit, refusal.used) == ("concurrency", 2)
    first.release()
    first.release()
    held(limiter, said)
    refused(limiter, said)
    second.release()
    held(limiter, said)


# --- a day's cost


def test_a_budget_is_used_up_until_midnight() -> None:
    limiter, said = Limiter(), Limits(daily_cost_usd=0.5)
    held(limiter, said).settle(at(0), 0, 400_000_000)
    held(limiter, said).settle(at(0), 0, 100_000_000)
    refusal = refused(limiter, said)
    assert (refusal.limit, refusal.wait_ns, refusal.used) == ("daily_cost_usd", 43_200 * NS, 0.5)
    refused(limiter, said, 43_199.9)
    held(limiter, said, 43_200)


def test_what_ends_after_midnight_counts_for_the_new_day() -> None:
    limiter, said = Limiter(), Limits(daily_cost_usd=0.5)
    hold = held(limiter, said)
    hold.settle(at(43_201), 0, 600_000_000)
    refused(limiter, said, 43_202)


# --- both


def test_of_key_and_route_both_hold_and_the_tighter_is_told() -> None:
    limiter = Limiter()
    both = [(KEY, Limits(rpm=2, tpm=1000)), (ROUTE, Limits(rpm=60, tpm=100))]
    for number in range(2):
        assert isinstance(limiter.claim(both, at(0), 10, 10), Hold)
        requests, tokens = limiter.quotas(both, at(0))
        assert requests is not None
        assert tokens is not None
        assert (requests.limit, requests.remaining) == (2, 1 - number)
        assert (tokens.limit, tokens.remaining) == (100, 90 - 10 * number)
    refusal = limiter.claim(both, at(0), 10, 10)
    assert isinstance(refusal, Refusal)
    assert saying(refusal) == "key team: 2 requests a minute"
    assert left(limiter, Limits(rpm=60, tpm=100)) == (58, 80)  # a refusal takes nothing elsewhere


def test_the_longest_wait_is_told() -> None:
    limiter = Limiter()
    said = Limits(rpm=1, tpm=60, concurrency=1)
    held(limiter, said, tokens=6).settle(at(0), 120, 0)
    refusal = refused(limiter, said, tokens=1)
    assert (refusal.limit, refusal.wait_ns) == ("tpm", 61 * NS)


def test_the_least_recently_used_is_forgotten_unless_it_is_in_use() -> None:
    limiter, said = Limiter(most=3), Limits(concurrency=1)
    names: list[Name] = [("key", "", f"k{n}") for n in range(5)]
    holds = [limiter.claim([(name, said)], at(0), 0, 0) for name in names[:2]]
    first, second = holds
    assert isinstance(first, Hold)
    assert isinstance(second, Hold)
    second.release()
    for name in names[2:]:
        limiter.claim([(name, said)], at(0), 0, 0)
    assert [limiter.known(name) is not None for name in names] == [True, False, True, True, True]
    assert isinstance(limiter.claim([(names[0], said)], at(0), 0, 0), Refusal)


def test_alone_each_has_a_part_and_never_none() -> None:
    limiter, said = Limiter(), Limits(rpm=8, concurrency=1)
    limiter.divisor = 4
    for _ in range(2):
        held(limiter, said).release()
    refused(limiter, said)


# fmt: off
DURATIONS = [
    (0, "0s"), (1, "1ms"), (12_000_000, "12ms"), (999_000_000, "999ms"), (999_000_001, "1s"),
    (NS, "1s"), (1_500_000_000, "1.5s"), (60 * NS, "1m0s"), (360 * NS, "6m0s"),
    (3600 * NS, "1h0m0s"), (43_199 * NS, "11h59m59s"),
]
# fmt: on


@pytest.mark.parametrize(("span_ns", "said"), DURATIONS)
def test_durations(span_ns: int, said: str) -> None:
    assert duration(span_ns) == said
