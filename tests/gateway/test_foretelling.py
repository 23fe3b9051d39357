"""What a dry run foretells is what requests do: the same policies and states, told and asked."""

import json
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from proxy.model.failover import Conditions, FailoverPolicy
from proxy.model.tenancy import Endpoint
from proxy.routing.foretelling import Foretold, foretell
from proxy.routing.holds import Key
from proxy.routing.standing import Standing
from proxy.routing.states import Grant, Reason, State
from tests.gateway.test_tiers import OK, Draws
from tests.kit.builders import OPENAI, World, world
from tests.kit.fakes import FakeClock

ASKED = 240
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
BARE = {"c": "no_credential"}


def endpoint(name: str, number: int, weight: int = 1, *, bare: bool = False) -> Endpoint:
    return OPENAI.model_copy(
        update={
            "id": name, "base_url": f"http://127.0.0.1:{number}/v1", "weight": weight,
            "api_key": None if bare else "k",
        }
    )  # fmt: skip


def asking(
    endpoints: list[Endpoint],
    tiers: list[list[str]] | None,
    sticky: str,
    on_exhausted: str,
) -> World:
    names = [each.id for each in endpoints]
    said = FailoverPolicy.model_validate(
        {
            "id": "p", "route_id": "chat", "primary_endpoint": names[0],
            "fallback_endpoints": names[1:], "tiers": tiers, "on_exhausted": on_exhausted,
            "conditions": Conditions(latency_threshold_ms=2000).model_dump(),
            "sticky": {"enabled": bool(sticky), "key": sticky or "user"},
        }
    )  # fmt: skip
    w = world(endpoints, scripts={name: [OK] * ASKED for name in names}, failover=said)
    w.gateway.flights.chance = Draws()
    standing_of(w).balance = None
    w.gateway.flights.keep(w.gateway.rules())
    return w


def standing_of(w: World) -> Standing:
    found = w.gateway.rules().workspaces["default"].routes["chat"].standing
    assert found is not None
    return found


async def first_of(w: World, **members: str) -> str:
    """Who was asked first; "" nobody was."""
    await w.ask(json.dumps({**BODY, **members}).encode())
    attempts = w.record.attempts
    return attempts[0].endpoint_id if attempts else ""


# --- states

Do = Callable[[Standing, FakeClock], None]


def nothing(standing: Standing, clock: FakeClock) -> None:
    pass


def opened(*names: str) -> Do:
    def do(standing: Standing, clock: FakeClock) -> None:
        for name in names:
            standing.breakers[name].open(clock.monotonic(), Reason("error_rate"))

    return do


def ramps(steps: Mapping[str, int], *closed: str) -> Do:
    def do(standing: Standing, clock: FakeClock) -> None:
        opened(*closed)(standing, clock)
        for name, step in steps.items():
            breaker = standing.breakers[name]
            breaker.state, breaker.step, breaker.since = State.RAMP, step, clock.monotonic()

    return do


def probed(name: str, *closed: str, good: int = 0) -> Do:
    def do(standing: Standing, clock: FakeClock) -> None:
        opened(*closed)(standing, clock)
        breaker = standing.breakers[name]
        breaker.state, breaker.since, breaker.good_probes = State.PROBING, clock.monotonic(), good
        breaker.grants = []  # another process gives the permits

    return do


def held(name: str, *closed: str) -> Do:
    def do(standing: Standing, clock: FakeClock) -> None:
        opened(*closed)(standing, clock)
        standing.hit(Key(name, "", "m"), clock.monotonic(), 60.0, quota=False)

    return do


def forced(name: str) -> Do:
    def do(standing: Standing, clock: FakeClock) -> None:
        standing.force(name, clock.monotonic(), ttl_s=60.0)

    return do


A, B, C = endpoint("a", 3), endpoint("b", 4), endpoint("c", 5)
HEAVY, KEYLESS = endpoint("a", 3, weight=3), endpoint("c", 5, bare=True)
PLAIN = [A, B, C]
AB = [["a", "b"], ["c"]]
ONE_TIER = [["a", "b", "c"]]
QUARTER = ramps({"a": 0})
FAST, TRY = "fail_fast", "try_primary"
Tiers = list[list[str]] | None
Shares = dict[str, float | None]

# fmt: off
TABLE: list[tuple[list[Endpoint], Tiers, str, str, Do, Shares]] = [
    # endpoints       tiers     sticky  exhausted  state              shares
    (PLAIN,           None,     "",     FAST, nothing,                 {"a": 1}),
    (PLAIN,           None,     "",     FAST, opened("a"),             {"b": 1}),
    (PLAIN,           None,     "",     FAST, opened("a", "b"),        {"c": 1}),
    (PLAIN,           None,     "",     FAST, opened("a", "b", "c"),   {}),
    (PLAIN,           None,     "",     TRY,  opened("a", "b", "c"),   {"a": 1}),
    (PLAIN,           AB,       "",     TRY,  opened("a", "b", "c"),   {"a": 1}),
    (PLAIN,           None,     "",     FAST, QUARTER,                 {"a": .25, "b": .75}),
    (PLAIN,           None,     "user", FAST, QUARTER,                 {"a": .25, "b": .75}),
    (PLAIN,           None,     "",     FAST, ramps({"a": 1, "b": 0}), {"a": .5, "c": .5}),
    (PLAIN,           None,     "",     FAST, ramps({"a": 0, "b": 1}),
     {"a": .25, "b": .25, "c": .5}),
    (PLAIN,           None,     "",     FAST, ramps({"a": 0}, "b", "c"), {"a": 1}),
    (PLAIN,           None,     "",     FAST, held("a"),               {"b": 1}),
    (PLAIN,           None,     "",     FAST, held("c", "a", "b"),     {}),
    (PLAIN,           None,     "",     TRY,  held("a", "b", "c"),     {}),
    (PLAIN,           None,     "",     FAST, forced("c"),             {"c": 1}),
    (PLAIN,           AB,       "",     FAST, forced("c"),             {"c": 1}),
    ([A, B, KEYLESS], None,     "",     FAST, opened("a", "b"),        {}),
    ([A, B, KEYLESS], None,     "",     TRY,  opened("a", "b"),        {"a": 1}),
    ([A, B, KEYLESS], [["c"], ["a", "b"]], "", FAST, nothing,            {"a": .5, "b": .5}),
    ([A, B, KEYLESS], ONE_TIER, "",     FAST, nothing,                 {"a": None, "b": None}),
    ([A, B, KEYLESS], ONE_TIER, "",     FAST, opened("a"),             {"b": 1}),
    (PLAIN,           AB,       "",     FAST, nothing,                 {"a": .5, "b": .5}),
    ([HEAVY, B, C],   AB,       "",     FAST, nothing,                 {"a": .75, "b": .25}),
    ([HEAVY, B, C],   AB,       "user", FAST, nothing,                 {"a": .75, "b": .25}),
    ([A, B, KEYLESS], ONE_TIER, "user", FAST, nothing,                 {"a": .5, "b": .5}),
    (PLAIN,           AB,       "",     FAST, opened("a"),             {"b": 1}),
    (PLAIN,           AB,       "",     FAST, opened("a", "b"),        {"c": 1}),
    (PLAIN,           AB,       "",     FAST, QUARTER,                 {"a": .125, "b": .875}),
    (PLAIN,           [["a"], ["b", "c"]], "", FAST, QUARTER,
     {"a": .25, "b": .375, "c": .375}),
    (PLAIN,           AB,       "",     FAST, probed("a", "b", "c", good=1), {"a": 1}),
    (PLAIN,           AB,       "",     FAST, ramps({"a": 0, "b": 0}, "c"),
     {"a": None, "b": None}),
    (PLAIN,           None,     "",     FAST, probed("c", "a", "b", good=1), {"c": 1}),
]
# fmt: on


def told_of(w: World, endpoints: list[Endpoint], key: str = "") -> Foretold:
    now, standing = w.clock.monotonic(), standing_of(w)
    weights = {each.id: each.weight for each in endpoints}
    unfit = {each.id: "no_credential" for each in endpoints if each.api_key is None}
    for name in ("a", "b", "c"):
        if not standing.holds.admits(Key(name, "", "m"), now):
            unfit.setdefault(name, "rate_limited")
    return foretell(standing, weights, unfit, now, key)


@pytest.mark.parametrize(("endpoints", "tiers", "sticky", "on_exhausted", "do", "shares"), TABLE)
async def test_requests_go_where_it_is_foretold(
    endpoints: list[Endpoint],
    tiers: list[list[str]] | None,
    sticky: str,
    on_exhausted: str,
    do: Do,
    shares: dict[str, float | None],
) -> None:
    w = asking(endpoints, tiers, sticky, on_exhausted)
    do(standing_of(w), w.clock)
    told = told_of(w, endpoints)
    assert {place.name: place.share for place in told.places if place.share != 0} == shares
    assert set(told.first) == set(shares)
    went = Counter(
        [await first_of(w, **({"user": f"u{n}"} if sticky else {})) for n in range(ASKED)]
    )
    assert set(went) == (set(shares) or {""})
    for name, share in shares.items():
        if share is not None:
            assert went[name] / ASKED == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("do", [nothing, opened("a"), QUARTER, ramps({"a": 1, "b": 0}), held("b")])
@pytest.mark.parametrize("tiers", [None, AB, ONE_TIER, [["c"], ["a", "b"]]])
async def test_a_known_key_goes_exactly_where_it_is_foretold(
    do: Do, tiers: list[list[str]] | None
) -> None:
    for number in range(25):
        w = asking([HEAVY, B, C], tiers, "user", "fail_fast")
        do(standing_of(w), w.clock)
        told = told_of(w, [HEAVY, B, C], f"u{number}")
        assert told.first == (await first_of(w, user=f"u{number}"),)
        assert [place.share for place in told.places if place.share] == [1.0]


@pytest.mark.parametrize(
    ("do", "without", "probe"),
    [
        (probed("a"), "b", "a"),
        (probed("b", "a"), "c", "b"),
        (probed("a", "b", "c"), "", "a"),
        (probed("c"), "a", ""),
    ],
)
async def test_only_who_has_the_permit_probes(do: Do, without: str, probe: str) -> None:
    w = asking(PLAIN, None, "", "fail_fast")
    do(standing_of(w), w.clock)
    told = told_of(w, PLAIN)
    assert set(told.first) == {name for name in (without, probe) if name}
    (place,) = [each for each in told.places if each.reason == "probing"]
    assert (place.admits, place.share) == (None, 0)
    assert await first_of(w) == without
    breaker = standing_of(w).breakers[place.name]
    breaker.grants = [Grant(1, w.clock.monotonic() + 2)]
    assert await first_of(w) == (probe or without)
