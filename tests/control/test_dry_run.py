"""POST {w}/explain: the way of a request, without one."""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.model.failover import Outcome
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import Endpoint, Route, WorkspaceRules
from proxy.routing.holds import Key
from proxy.routing.standing import Standing
from tests.control.test_failover import POLICIES, SEED, W
from tests.control.world import World, bearer, key, running

EXPLAIN = f"{W}/explain"
SPACE = WorkspaceRules(
    id="default",
    endpoints=[
        Endpoint.model_validate(
            {"id": "anthropic-claude", "provider": "anthropic", "models": {"claude": "claude-3"}}
        ),
        Endpoint.model_validate(
            {
                "id": "bedrock-claude", "provider": "bedrock", "region": "us-east-1",
                "api_key": "of-bedrock-0123", "models": {"claude": "anthropic.claude-3"},
            }
        ),
        Endpoint.model_validate({"id": "gpt", "provider": "openai", "api_key": "of-openai-0123"}),
        Endpoint.model_validate({"id": "bare", "provider": "openai"}),
    ],
    routes=[
        Route.model_validate(
            {
                "id": "prod-chat", "endpoint": "anthropic-claude",
                "match": {"models": ["claude*", "opus"]}, "timeouts": {"total_ms": 50_000},
            }
        ),
        Route.model_validate({"id": "gpt-chat", "endpoint": "gpt", "match": {"models": ["gpt-?"]}}),
    ],
    keys=[
        key("admin0000000"), key("viewer000000", "viewer"), key("ingest000000", "ingest"),
        key("bound0000000", "app", route="gpt-chat"),
    ],
)  # fmt: skip


async def told(world: World, **asked: Any) -> dict[str, Any]:
    answer = await world.post(EXPLAIN, asked, bearer("admin0000000"))
    assert answer.status == 200, answer.body
    doc: dict[str, Any] = answer.doc
    return doc


# fmt: off
MATCHED: list[tuple[dict[str, Any], str | None, str, str | None]] = [
    ({"route_id": "gpt-chat"},                           "gpt-chat",  "route_id",       None),
    ({"route_id": "gpt-chat", "model": "claude"},        "gpt-chat",  "route_id",       None),
    ({"model": "opus"},                                  "prod-chat", "model",          "opus"),
    ({"model": "claude-3-opus"},                         "prod-chat", "model",          "claude*"),
    ({"model": "gpt-4"},                                 "gpt-chat",  "model",          "gpt-?"),
    ({"model": "gpt-chat"},                              "gpt-chat",  "model_is_route", None),
    ({"model": "claude", "key_id": "bound0000000"},      "gpt-chat",  "key",            None),
    ({"model": "llama"},                                 None,        "none",           None),
]
# fmt: on


@pytest.mark.parametrize(("asked", "route_id", "by", "pattern"), MATCHED)
async def test_the_route_and_why_it_matched(
    asked: dict[str, Any], route_id: str | None, by: str, pattern: str | None
) -> None:
    async with running(workspaces=(SPACE,)) as world:
        doc = await told(world, **asked)
        assert doc["route_id"] == route_id
        assert (doc["matched"]["by"], doc["matched"]["pattern"]) == (by, pattern)
        assert doc["matched"]["sentence"]


async def test_a_default_and_an_only_route() -> None:
    with_default = SPACE.model_copy(update={"default_route": "gpt-chat"})
    async with running(workspaces=(with_default,)) as world:
        assert (await told(world, model="llama"))["matched"]["by"] == "default_route"
    only = SPACE.model_copy(update={"routes": SPACE.routes[1:]})
    async with running(workspaces=(only,)) as world:
        doc = await told(world, model="llama")
        assert (doc["route_id"], doc["matched"]["by"]) == ("gpt-chat", "only_route")


async def test_without_a_policy_there_is_one_endpoint() -> None:
    async with running(workspaces=(SPACE,)) as world:
        assert await told(world, model="claude") == {
            "route_id": "prod-chat",
            "matched": {
                "by": "model", "pattern": "claude*", "sentence": "match.models has claude*"
            },
            "dialect": "anthropic_messages",
            "fault": None,
            "sentence": "anthropic-claude",
            "answers": "anthropic-claude",
            "asked_first": ["anthropic-claude"],
            "endpoints": [
                {
                    "endpoint_id": "anthropic-claude", "provider": "anthropic",
                    "model": "claude-3", "status": "healthy", "admits": True, "reason": None,
                    "let_in": False, "admits_in_ms": None, "tier": 1, "weight": 1,
                    "ramp_percent": None, "expected_share": 1.0, "observed_share": None,
                }
            ],
            "tiers": [
                {
                    "tier": 1, "endpoints": ["anthropic-claude"], "order": "alone",
                    "sentence": "anthropic-claude alone",
                }
            ],
            "sticky": None,
            "depends_on": [],
            "policy": None,
            "timeouts": {
                "connect_ms": 3000, "first_content_ms": 10_000, "idle_ms": 15_000,
                "total_ms": 50_000, "unary_ms": 120_000,
            },
            "policy_packs": [],
            "stream_recovery": "resume",
        }  # fmt: skip


def dead(world: World, standing: Standing) -> None:
    now = world.clock.monotonic()
    for _ in range(3):
        standing.observe("anthropic-claude", now, Outcome.CONNECT, began=now)


def limited(world: World, standing: Standing) -> None:
    held = Key("anthropic-claude", "", "claude-3")
    standing.hit(held, world.clock.monotonic(), 60.0, quota=False)


def forced(world: World, standing: Standing) -> None:
    standing.force("bedrock-claude", world.clock.monotonic(), ttl_s=60.0)


def well(world: World, standing: Standing) -> None:
    pass


# fmt: off
STORIES: list[tuple[Callable[[World, Standing], None], dict[str, Any], list[str | None]]] = [
    #        asked                             anthropic       bedrock  gpt
    (well,    {"model": "claude"},             [None,          None,
     "cannot express anthropic_messages", "no_credential", "unknown"]),
    (well,    {"model": "opus"},               [None,
     "cannot express anthropic_messages to the model opus",
     "cannot express anthropic_messages", "no_credential", "unknown"]),
    (well,    {"model": "claude", "dialect": "openai_chat"},
     ["cannot express openai_chat", "cannot express openai_chat", None, "no_credential",
      "unknown"]),
    (dead,    {"model": "claude"},             ["open",        None,
     "cannot express anthropic_messages", "no_credential", "unknown"]),
    (limited, {"model": "claude"},             ["rate_limited", None,
     "cannot express anthropic_messages", "no_credential", "unknown"]),
    (forced,  {"model": "claude"},             ["forced", None, "forced", "forced", "unknown"]),
]
# fmt: on


@pytest.mark.parametrize(("story", "asked", "reasons"), STORIES)
async def test_endpoints_in_order_with_why_they_are_skipped(
    story: Callable[[World, Standing], None], asked: dict[str, Any], reasons: list[str | None]
) -> None:
    async with running(workspaces=(SPACE,)) as world:
        fallbacks = ["bedrock-claude", "gpt", "bare", "nobody"]
        policy = {**SEED, "id": "p", "fallback_endpoints": fallbacks}
        assert (await world.post(POLICIES, policy)).status == 201
        standing = world.standings.of("default", "p")
        assert standing is not None
        story(world, standing)
        doc = await told(world, **asked)
        assert [each["endpoint_id"] for each in doc["endpoints"]] == [
            "anthropic-claude", *fallbacks
        ]  # fmt: skip
        assert [each["reason"] for each in doc["endpoints"]] == reasons
        first = next((e["endpoint_id"] for e in doc["endpoints"] if e["admits"]), None)
        assert doc["answers"] == first
        assert doc["policy"]["failover_policy_id"] == "p"


# fmt: off
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({},                                                  "",         "invalid_value"),
    ({"route_id": "nobody"},                              "route_id", "unknown_reference"),
    ({"model": "claude", "key_id": "nobody"},             "key_id",   "unknown_reference"),
    ({"route_id": "prod-chat", "key_id": "bound0000000"}, "key_id",   "unknown_reference"),
    ({"model": "claude", "dialect": "klingon"},           "dialect",  "unknown_value"),
    ({"model": ""},                                       "model",    "too_short"),
    ({"model": "claude", "prompt": "x"},                  "prompt",   "extra_forbidden"),
]
# fmt: on


@pytest.mark.parametrize(("asked", "field", "code"), WRONG)
async def test_what_cannot_be_explained(asked: dict[str, Any], field: str, code: str) -> None:
    async with running(workspaces=(SPACE,)) as world:
        answer = await world.post(EXPLAIN, asked)
        assert (answer.status, answer.codes()[0]) == (422, (field, code))


async def test_endpoints_whose_model_a_pack_forbids() -> None:
    """A pack allows a model by the name that its provider has for it."""
    pack = PolicyPack.model_validate(
        {
            "policy_pack_id": "access",
            "rules": [
                {
                    "rule_id": "models", "kind": "model_access", "action": "block",
                    "config": {"allow": ["claude", "claude-3"]},
                }
            ],
        }
    )  # fmt: skip
    guarded = SPACE.routes[0].model_copy(update={"policy_packs": ["access"]})
    space = SPACE.model_copy(update={"policies": [pack], "routes": [guarded]})
    async with running(workspaces=(space,)) as world:
        doc = await told(world, model="claude")
        assert (doc["answers"], doc["fault"]) == ("anthropic-claude", None)
        doc = await told(world, model="opus")
        assert (doc["answers"], doc["endpoints"][0]["reason"]) == (None, "forbidden")
        assert doc["fault"].startswith("its packs refuse the request: ")
        doc = await told(world, route_id="prod-chat")
        assert (doc["answers"], doc["fault"]) == ("anthropic-claude", None)
        assert [each["on"] for each in doc["depends_on"]] == ["model"]


async def test_who_may_ask_and_how_often() -> None:
    async with running(workspaces=(SPACE,)) as world:
        asked = {"model": "claude"}
        assert (await world.post(EXPLAIN, asked, bearer("ingest000000"))).status == 403
        answers = [await world.post(EXPLAIN, asked, bearer("viewer000000")) for _ in range(11)]
        assert [each.status for each in answers] == [200] * 10 + [429]


async def test_a_route_that_serves_nobody_says_why() -> None:
    broken = SPACE.model_copy(update={"unusable": {"prod-chat": "policy pack x is not there"}})
    async with running(workspaces=(broken,)) as world:
        assert (await told(world, model="claude"))["fault"] == "policy pack x is not there"
