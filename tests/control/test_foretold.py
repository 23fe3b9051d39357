"""POST {w}/explain under a policy: tiers, ramps, what sticks, and what is not known."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.model.failover import Outcome
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import Endpoint, Route, WorkspaceRules
from proxy.routing.balance import share_of
from proxy.routing.holds import Key
from proxy.routing.standing import Standing
from proxy.routing.states import Reason, State
from tests.control.test_dry_run import told
from tests.control.test_failover import POLICIES
from tests.control.world import World, key, running

NAMES = ("east", "west", "south")
CALLER = "caller000000"
SPACE = WorkspaceRules(
    id="default",
    endpoints=[
        Endpoint.model_validate(
            {
                "id": name, "provider": "openai", "api_key": "of-the-endpoint", "weight": weight,
                "base_url": f"https://{name}.example.com/v1",
            }
        )
        for name, weight in zip(NAMES, (3, 1, 1), strict=True)
    ],
    routes=[Route.model_validate({"id": "prod-chat", "endpoint": "east"})],
    keys=[key("admin0000000"), key(CALLER, "app")],
)  # fmt: skip
TIERS = [["east", "west"], ["south"]]
BY_WEIGHT = (
    "no fixed order: two are drawn by weight (east 3 : west 1), and the second is taken if it has "
    "clearly less in flight times latency"
)
Do = Callable[[Standing, World], None]


async def asked(do: Do | None, policy: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """What is told of the route under that policy, in that state."""
    async with running(workspaces=(SPACE,)) as world:
        said = {
            "id": "p", "route_id": "prod-chat", "primary_endpoint": "east",
            "fallback_endpoints": ["west", "south"],
            "conditions": {"error_rate_threshold": 0.1}, **policy,
        }  # fmt: skip
        assert (await world.post(POLICIES, said)).status == 201
        standing = world.standings.of("default", "p")
        assert standing is not None
        if do is not None:
            do(standing, world)
        return await told(world, **{"model": "gpt", **asked})


def opened(*names: str) -> Do:
    def do(standing: Standing, world: World) -> None:
        for name in names:
            standing.breakers[name].open(world.clock.monotonic(), Reason("error_rate"))

    return do


def becomes(name: str, state: State, *closed: str) -> Do:
    def do(standing: Standing, world: World) -> None:
        opened(*closed)(standing, world)
        standing.breakers[name].state = state
        standing.breakers[name].since = world.clock.monotonic()

    return do


def held(standing: Standing, world: World) -> None:
    standing.hit(Key("east", "", "gpt"), world.clock.monotonic(), 60.0, quota=False)


def forced(standing: Standing, world: World) -> None:
    standing.force("west", world.clock.monotonic(), ttl_s=60)


RAMPS, PROBED = becomes("east", State.RAMP), becomes("east", State.PROBING)
STICKY = {"sticky": {"enabled": True, "key": "user"}}
BY_KEY = {"sticky": {"enabled": True, "key": "api_key"}}
PINNED = "pinned_state"
AT_ONCE = "the caller gets an error at once"

# fmt: off
ANSWERS: list[tuple[Do | None, dict[str, Any], str, str | None, list[str], list[str]]] = [
    #          policy                  sentence, answers, asked_first, depends_on
    (None,     {},
     "east",                                               "east",  ["east"],         [PINNED]),
    (opened("east"), {},
     "west; east is open",                                 "west",  ["west"],         [PINNED]),
    (opened(*NAMES), {},
     f"no endpoint admits ({', '.join(f'{name} is open' for name in NAMES)}): {AT_ONCE}",
                                                           None,    [],               [PINNED]),
    (forced, {},
     "west; east is kept out by an operator",              "west",  ["west"],         [PINNED]),
    (opened(*NAMES), {"on_exhausted": "try_primary"},
     "east although open: nobody admits",                  "east",  ["east"],         [PINNED]),
    (held,     {},
     "west; east is rate_limited",                         "west",  ["west"],         [PINNED]),
    (RAMPS,    {},
     "east 25 %, west 75 %",                               None,    ["east", "west"],
     ["ramping", PINNED]),
    (PROBED,   {},
     "west; one request at a time probes east",            "west",  ["east", "west"],
     ["probing", PINNED]),
    (becomes("east", State.PROBING, "west", "south"), {},
     "one request at a time probes east; the others get an error at once",
                                                           None,    ["east"],
     ["probing", PINNED]),
    (None,     {"tiers": TIERS},
     "east 75 %, west 25 %",                               None,    ["east", "west"],
     ["load", PINNED]),
    (opened("east"), {"tiers": TIERS},
     "west; east is open",                                 "west",  ["west"],         [PINNED]),
    (opened("east", "west"), {"tiers": TIERS},
     "south; east is open, west is open",                  "south", ["south"],        [PINNED]),
    (None,     {"tiers": TIERS, **STICKY},
     "east 75 %, west 25 %",                               None,    ["east", "west"],
     ["sticky", PINNED]),
    (RAMPS,    STICKY,
     "east 25 %, west 75 %",                               None,    ["east", "west"],
     ["ramping", PINNED]),
]
# fmt: on


@pytest.mark.parametrize(("do", "policy", "sentence", "answers", "first", "on"), ANSWERS)
async def test_where_it_goes_and_what_that_depends_on(
    do: Do | None,
    policy: dict[str, Any],
    sentence: str,
    answers: str | None,
    first: list[str],
    on: list[str],
) -> None:
    doc = await asked(do, policy)
    assert (doc["sentence"], doc["answers"], doc["asked_first"]) == (sentence, answers, first)
    assert [each["on"] for each in doc["depends_on"]] == on
    assert all(each["sentence"] for each in doc["depends_on"])


async def test_without_a_model_it_says_so() -> None:
    doc = await asked(held, {}, model=None, route_id="prod-chat")
    assert [each["on"] for each in doc["depends_on"]] == [PINNED, "model"]
    assert (doc["endpoints"][0]["reason"], doc["answers"]) == ("rate_limited", "west")


GHOSTS = {"primary_endpoint": "ghost", "fallback_endpoints": ["nobody"]}


@pytest.mark.parametrize("more", [{}, {"tiers": [["ghost"], ["nobody"]]}, BY_KEY])
async def test_a_policy_of_endpoints_that_are_not_there_serves_nobody(more: dict[str, Any]) -> None:
    doc = await asked(None, {**GHOSTS, **more}, key_id=CALLER)
    assert (doc["fault"], doc["answers"]) == ("endpoint ghost is not there", None)
    assert doc["sentence"] == "the route serves nobody: endpoint ghost is not there"
    told = [(each["endpoint_id"], each["reason"]) for each in doc["endpoints"]]
    assert told == [("ghost", "unknown"), ("nobody", "unknown")]


async def test_the_first_that_there_is_stands_for_a_primary_that_is_not_there() -> None:
    doc = await asked(None, {"primary_endpoint": "ghost", "fallback_endpoints": ["west", "south"]})
    assert (doc["dialect"], doc["answers"], doc["fault"]) == ("openai_chat", "west", None)


async def test_tiers_are_told_with_their_way_of_choosing() -> None:
    doc = await asked(None, {"tiers": TIERS})
    assert doc["tiers"] == [
        {"tier": 1, "endpoints": ["east", "west"], "order": "by_load", "sentence": BY_WEIGHT},
        {"tier": 2, "endpoints": ["south"], "order": "alone", "sentence": "south alone"},
    ]
    told = [(e["tier"], e["weight"], e["expected_share"]) for e in doc["endpoints"]]
    assert told == [(1, 3, 0.75), (1, 1, 0.25), (2, 1, 0.0)]
    doc = await asked(None, {})
    assert [each["tier"] for each in doc["endpoints"]] == [1, 2, 3]


async def test_the_share_that_was_seen_is_that_of_the_samples() -> None:
    def served(standing: Standing, world: World) -> None:
        now = world.clock.monotonic()
        for name, samples in (("east", 6), ("west", 2)):
            for _ in range(samples):
                standing.observe(name, now, Outcome.SUCCESS, began=now, quick=True)

    doc = await asked(served, {"tiers": TIERS})
    assert [each["observed_share"] for each in doc["endpoints"]] == [0.75, 0.25, 0.0]
    doc = await asked(None, {"tiers": TIERS})
    assert [each["observed_share"] for each in doc["endpoints"]] == [None] * 3


async def test_a_key_that_is_given_has_one_order_and_one_side_of_a_ramp() -> None:
    doc = await asked(None, {"tiers": TIERS, **BY_KEY}, key_id=CALLER)
    assert doc["sticky"] == {
        "key": "api_key", "ttl_seconds": 300, "value_given": True,
        "ramp_position": share_of(CALLER),
        "sentence": "a request keeps its member of a tier by its api_key",
    }  # fmt: skip
    (first,) = doc["asked_first"]
    assert (doc["answers"], doc["tiers"][0]["order"]) == (first, "by_key")
    assert doc["tiers"][0]["endpoints"][0] == first
    assert [each["on"] for each in doc["depends_on"]] == ["sticky", PINNED]
    assert doc["depends_on"][0]["sentence"] == (
        "whether its worker has sent it to another member: it stays there for 300 s after the last "
        "request"
    )
    doc = await asked(RAMPS, BY_KEY, key_id=CALLER)
    is_in = share_of(CALLER) < 25
    assert doc["answers"] == ("east" if is_in else "west")
    assert doc["endpoints"][0]["admits"] is is_in
    assert [each["on"] for each in doc["depends_on"]] == [PINNED]


@pytest.mark.parametrize(
    ("policy", "more"), [(STICKY, {"key_id": CALLER}), (STICKY, {}), (BY_KEY, {})]
)
async def test_a_key_that_is_not_known_is_said_to_be_so(
    policy: dict[str, Any], more: dict[str, str]
) -> None:
    doc = await asked(None, {"tiers": TIERS, **policy}, **more)
    assert (doc["sticky"]["value_given"], doc["sticky"]["ramp_position"]) == (False, None)
    assert doc["sticky"]["sentence"].endswith("which is not known here")
    assert doc["depends_on"][0]["on"] == "sticky"


async def test_how_long_until_it_may_admit() -> None:
    doc = await asked(opened("east"), {})
    assert 4500 <= doc["endpoints"][0]["admits_in_ms"] <= 5500
    doc = await asked(held, {})
    assert doc["endpoints"][0]["admits_in_ms"] == 60_000
    assert doc["endpoints"][1]["admits_in_ms"] is None


async def test_a_ramp_says_its_percent() -> None:
    doc = await asked(RAMPS, {})
    ramping, other = doc["endpoints"][:2]
    assert (ramping["admits"], ramping["reason"], ramping["ramp_percent"]) == (None, "ramping", 25)
    assert (other["admits"], other["ramp_percent"]) == (True, None)


async def test_a_caller_who_brings_the_key_may_be_held_elsewhere() -> None:
    bare = [each.model_copy(update={"api_key": None}) for each in SPACE.endpoints[:1]]
    space = SPACE.model_copy(update={"endpoints": [*bare, *SPACE.endpoints[1:]]})
    async with running(workspaces=(space,)) as world:
        said = {
            "id": "p", "route_id": "prod-chat", "primary_endpoint": "east",
            "fallback_endpoints": ["west"], "conditions": {"error_rate_threshold": 0.1},
        }  # fmt: skip
        assert (await world.post(POLICIES, said)).status == 201
        doc = await told(world, model="gpt")
        assert [each["on"] for each in doc["depends_on"]] == [PINNED, "rate_limited"]


async def test_rules_that_reroute_look_at_bodies() -> None:
    pack = PolicyPack.model_validate(
        {
            "policy_pack_id": "away",
            "rules": [
                {
                    "rule_id": "codes", "kind": "terms", "pattern": ["launch code"],
                    "action": "reroute", "config": {"reroute_to": ["south"]},
                }
            ],
        }
    )  # fmt: skip
    guarded = SPACE.routes[0].model_copy(update={"policy_packs": ["away"]})
    space = SPACE.model_copy(update={"policies": [pack], "routes": [guarded]})
    async with running(workspaces=(space,)) as world:
        doc = await told(world, model="gpt")
        assert doc["depends_on"] == [
            {"on": "reroute", "sentence": "the body: a rule of its packs may send it to south"}
        ]
