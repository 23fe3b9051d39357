"""Endpoints that share a tier: who takes a request, who comes next, and who always gets the same
callers (failover.md §6; `routing/balance.py`)."""

import json
from collections import Counter
from collections.abc import Sequence

import pytest

from proxy.model.exchange import RawHeaders
from proxy.model.failover import FailoverPolicy
from proxy.model.tenancy import Endpoint
from proxy.routing.standing import Standing
from proxy.routing.states import Reason, State
from tests.kit.builders import JSON, OPENAI, SPARE, World, policy, world
from tests.kit.fakes import Step

OK: list[Step] = [(200, JSON), b'{"choices":[],"model":"m"}', None]
BAD: list[Step] = [(500, JSON), b'{"error":{"message":"oh"}}', None]
THIRD = SPARE.model_copy(update={"id": "third", "base_url": "http://127.0.0.1:5/v1"})
THREE = (OPENAI, SPARE, THIRD)
PAIR = [["openai", "spare"], ["third"]]


def tiered(
    scripts: dict[str, Sequence[Sequence[Step]]] | None = None,
    endpoints: Sequence[Endpoint] = THREE,
    tiers: list[list[str]] = PAIR,
    **members: object,
) -> World:
    said: FailoverPolicy = policy(*[each.id for each in endpoints])
    said = FailoverPolicy.model_validate({**said.model_dump(), "tiers": tiers, **members})
    fair = {each.id: [OK] * 500 for each in endpoints}
    w = world(endpoints, scripts={**fair, **(scripts or {})}, failover=said)
    w.gateway.flights.chance = Draws()
    standing(w).balance = None
    w.gateway.flights.keep(w.gateway.rules())
    return w


class Draws:
    """Chance that goes round evenly, so that shares are exact."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self) -> float:
        self._next += 1
        return self._next * 0.6180339887 % 1


def standing(w: World) -> Standing:
    found = w.gateway.rules().workspaces["default"].routes["chat"].standing
    assert found is not None
    return found


async def asked(w: World, headers: RawHeaders | None = None, **members: object) -> str:
    """Who has answered."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **members}
    caller = await w.ask(json.dumps(body).encode(), headers=headers)
    assert caller.status == 200, caller.received
    return caller.header("x-parapet-endpoint") or ""


async def test_members_of_a_tier_share_and_the_next_tier_waits() -> None:
    w = tiered()
    told = Counter([await asked(w) for _ in range(100)])
    assert told["openai"] == pytest.approx(50, abs=3)
    assert told["third"] == 0
    assert not w.notes.records


async def test_members_share_by_weight() -> None:
    heavy = OPENAI.model_copy(update={"weight": 3})
    w = tiered(endpoints=(heavy, SPARE, THIRD))
    told = Counter([await asked(w) for _ in range(200)])
    assert told["openai"] == pytest.approx(150, abs=6)


async def test_who_fails_is_followed_by_its_tier_then_by_the_next() -> None:
    w = tiered({"openai": [BAD] * 9, "spare": [BAD] * 9})
    assert await asked(w) == "third"
    record = w.record
    tried = [attempt.endpoint_id for attempt in record.attempts]
    assert (set(tried[:2]), tried[2]) == ({"openai", "spare"}, "third")
    assert record.failover
    assert record.original_endpoint == tried[0]
    assert record.decisions[-1].skipped == [(tried[0], "tried"), (tried[1], "tried")]


async def test_an_answer_of_the_first_tier_is_no_failover() -> None:
    w = tiered()
    for _ in range(10):
        name = await asked(w)
        record = w.record
        assert (record.failover, record.original_endpoint) == (False, name)


async def test_who_does_not_admit_gets_nothing() -> None:
    w = tiered()
    standing(w).breakers["openai"].open(w.clock.monotonic(), Reason("error_rate"))
    assert {await asked(w) for _ in range(20)} == {"spare"}
    standing(w).breakers["spare"].open(w.clock.monotonic(), Reason("error_rate"))
    assert {await asked(w) for _ in range(20)} == {"third"}


async def test_what_is_bound_to_the_primary_is_not_balanced() -> None:
    w = tiered()
    told = {await asked(w, conversation="conv_1") for _ in range(20)}
    assert told == {"openai"}


# --- sticky

STICKY: list[tuple[str, dict[str, object]]] = [
    ("user", {"user": "u{n}"}),
    ("user", {"safety_identifier": "u{n}"}),
    ("conversation", {"prompt_cache_key": "c{n}"}),
    ("conversation", {"metadata": {"conversation_id": "c{n}"}}),
]


def numbered(members: dict[str, object], number: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(json.dumps(members).replace("{n}", str(number)))
    return found


@pytest.mark.parametrize(("key", "members"), STICKY)
async def test_a_key_stays_with_its_endpoint(key: str, members: dict[str, object]) -> None:
    w = tiered(sticky={"enabled": True, "key": key})
    homes = [await asked(w, **numbered(members, n)) for n in range(60)]
    assert [await asked(w, **numbered(members, n)) for n in range(60)] == homes
    assert 15 < Counter(homes)["openai"] < 45


async def test_a_callers_own_key_may_be_what_sticks() -> None:
    endpoints = [each.model_copy(update={"api_key": None}) for each in THREE]
    endpoints = [each.model_copy(update={"base_url": OPENAI.base_url}) for each in endpoints]
    w = tiered(endpoints=endpoints, sticky={"enabled": True, "key": "api_key"})
    homes = set()
    for number in range(12):
        headers: RawHeaders = [*JSON, (b"authorization", b"Bearer sk-caller-%d" % number)]
        (home,) = {await asked(w, headers=headers) for _ in range(5)}
        homes.add(home)
    assert homes == {"openai", "spare"}


async def test_a_key_moves_when_its_endpoint_does_not_admit_and_stays_for_its_time() -> None:
    w = tiered(sticky={"enabled": True, "key": "user", "ttl_seconds": 60})
    users = [f"u{n}" for n in range(40)]
    home = {user: await asked(w, user=user) for user in users}
    breaker = standing(w).breakers["openai"]
    breaker.open(w.clock.monotonic(), Reason("error_rate"))
    assert {await asked(w, user=user) for user in users} == {"spare"}
    breaker.state = State.CLOSED
    assert {await asked(w, user=user) for user in users} == {"spare"}
    w.clock.advance(61)
    assert {user: await asked(w, user=user) for user in users} == home


async def test_a_key_stays_on_its_side_of_a_ramp() -> None:
    said = policy("openai", "spare").model_dump()
    said = {**said, "sticky": {"enabled": True, "key": "user"}}
    w = world(
        (OPENAI, SPARE),
        scripts={"openai": [OK] * 500, "spare": [OK] * 500},
        failover=FailoverPolicy.model_validate(said),
    )
    breaker = standing(w).breakers["openai"]
    breaker.state, breaker.since, breaker.step = State.RAMP, w.clock.monotonic(), 1
    sides = {f"u{n}": await asked(w, user=f"u{n}") for n in range(60)}
    assert {user: await asked(w, user=user) for user in sides} == sides
    assert 15 < Counter(sides.values())["openai"] < 45


async def test_loads_are_free_again_when_all_is_over() -> None:
    w = tiered({"openai": [BAD, OK] * 40})
    for _ in range(60):
        await asked(w)
    balance = standing(w).balance
    assert balance is not None
    assert [load.in_flight for load in balance.loads.values()] == [0, 0, 0]
    assert all(load.known for name, load in balance.loads.items() if name != "third")
