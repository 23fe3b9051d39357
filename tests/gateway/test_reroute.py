"""`action: reroute`: the request goes to the rule's endpoints, in order, and to no other."""

import json

import pytest

from proxy.model.failover import Outcome
from proxy.model.policy import PolicyPack, Rule
from proxy.model.tenancy import Endpoint
from tests.kit.builders import (
    BLOCK_RULE,
    JSON,
    OPENAI,
    SECRET_RULE,
    SPARE,
    World,
    pack,
    policy,
    world,
)
from tests.kit.fakes import Step
from tests.kit.shapes import chat, chunk

THIRD = Endpoint(
    id="third", provider="openai", base_url="http://127.0.0.1:5/v1", api_key="k5",
    allow_private=True,
)  # fmt: skip
ANSWER = json.dumps(
    {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
     "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"},
                  "finish_reason": "stop"}]}
).encode()  # fmt: skip
OK: list[Step] = [(200, JSON), ANSWER, None]
BROKEN: list[Step] = [(503, JSON), b'{"error":{"message":"away"}}', None]
ALL = (OPENAI, SPARE, THIRD)


def rule(*targets: str, **members: object) -> Rule:
    said: dict[str, object] = {
        "rule_id": "berth", "pattern": r"\bberth\b", "action": "reroute",
        "config": {"reroute_to": list(targets)},
    }  # fmt: skip
    return Rule.model_validate(said | members)


def asked(text: str, **more: object) -> bytes:
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    ).encode()


def over(guard: PolicyPack, failover: bool = False, **scripts: list[list[Step]]) -> World:
    chain = policy("openai", "spare") if failover else None
    return world(ALL, scripts=scripts, packs=[guard], failover=chain)


def sent(w: World) -> dict[str, int]:
    return {name: len(each.sent) for name, each in w.upstreams.items()}


@pytest.mark.parametrize("failover", [True, False])
async def test_the_request_goes_there_and_nowhere_else(failover: bool) -> None:
    w = over(pack(rule("third")), failover, third=[OK])
    caller = await w.ask(asked("the berth"))
    assert (caller.status, caller.received) == (200, ANSWER)
    assert sent(w) == {"openai": 0, "spare": 0, "third": 1}
    assert caller.header("x-parapet-endpoint") == "third"
    record = w.record
    assert (record.original_endpoint, record.endpoint_id) == ("openai", "third")
    assert [result.action_taken for result in record.policy_results] == ["reroute"]
    assert (record.failover, record.decisions, record.outcome) == (False, [], "success")


async def test_other_requests_go_their_way() -> None:
    w = over(pack(rule("third")), openai=[OK])
    await w.ask(asked("hello"))
    assert sent(w) == {"openai": 1, "spare": 0, "third": 0}


async def test_one_endpoint_may_stand_for_its_list() -> None:
    w = over(pack(rule(config={"reroute_to": "third"})), third=[OK])
    assert (await w.ask(asked("berth"))).status == 200


@pytest.mark.parametrize("failover", [True, False])
async def test_each_gets_one_attempt_in_order(failover: bool) -> None:
    w = over(pack(rule("third", "spare")), failover, third=[BROKEN], spare=[OK])
    caller = await w.ask(asked("berth"))
    assert caller.status == 200
    record = w.record
    assert [a.endpoint_id for a in record.attempts] == ["third", "spare"]
    assert [a.outcome for a in record.attempts] == [Outcome.UPSTREAM_5XX, Outcome.SUCCESS]
    assert (record.failover, record.decisions) == (True, [])


async def test_when_all_of_them_fail_nobody_else_is_asked() -> None:
    w = over(pack(rule("third", "spare")), True, third=[BROKEN], spare=[BROKEN], openai=[OK])
    caller = await w.ask(asked("berth"))
    assert caller.status >= 500
    assert caller.header("x-should-retry") == "false"
    assert sent(w) == {"openai": 0, "spare": 1, "third": 1}


async def test_what_is_the_callers_fault_ends_it() -> None:
    refused: list[Step] = [(400, JSON), b'{"error":{"message":"no such tool"}}', None]
    w = over(pack(rule("third", "spare")), third=[refused], spare=[OK])
    caller = await w.ask(asked("berth"))
    assert caller.status == 400
    assert sent(w)["spare"] == 0


async def test_a_stream_is_rerouted_as_well() -> None:
    w = over(pack(rule("third")), third=[chat(chunk({"content": "hi"}), chunk({}, "stop"))])
    caller = await w.ask(asked("berth", stream=True))
    assert caller.received.endswith(b"data: [DONE]\n\n")
    assert w.record.endpoint_id == "third"


# --- among other actions


async def test_a_block_is_stronger() -> None:
    w = over(pack(rule("third"), BLOCK_RULE), third=[OK])
    assert (await w.ask(asked("berth launch code"))).status == 400
    assert sent(w) == {"openai": 0, "spare": 0, "third": 0}
    assert {r.rule_matched for r in w.record.policy_results} == {"berth", "launch"}


async def test_what_is_redacted_stays_redacted() -> None:
    """SECURITY: no rule weakens another one."""
    w = over(pack(SECRET_RULE, rule("third")), third=[OK])
    await w.ask(asked("berth KEY1234"))
    assert b"KEY1234" not in w.upstreams["third"].sent[0].body
    results = w.record.policy_results
    assert {(r.rule_matched, r.action_taken) for r in results} == {
        ("berth", "reroute"),
        ("test.key", "redact"),
    }


async def test_the_strongest_rule_says_where() -> None:
    strong = rule("spare", rule_id="strong", severity="critical")
    w = over(pack(rule("third", severity="low"), strong), spare=[OK])
    await w.ask(asked("berth"))
    assert sent(w) == {"openai": 0, "spare": 1, "third": 0}


async def test_in_shadow_it_only_tells() -> None:
    w = over(pack(rule("third", mode="shadow")), openai=[OK])
    await w.ask(asked("berth"))
    (result,) = w.record.policy_results
    assert (result.action_taken, result.enforced, result.message) == (
        "none",
        False,
        "would reroute",
    )
    assert sent(w)["openai"] == 1


# --- endpoints that are not there


async def test_a_route_whose_rule_names_nobody_serves_nobody() -> None:
    w = over(pack(rule("gone")), openai=[OK])
    caller = await w.ask(asked("hello"))
    assert caller.status >= 500
    assert b"gone" in caller.received
    assert sent(w)["openai"] == 0


async def test_an_endpoint_that_cannot_be_used_is_no_reason_to_go_elsewhere() -> None:
    bad = THIRD.model_copy(update={"api_key": "sk-\xe9"})
    guard = pack(rule("third"))
    w = world((OPENAI, bad), scripts={"openai": [OK]}, packs=[guard])
    caller = await w.ask(asked("berth"))
    assert caller.status == 503
    assert sent(w)["openai"] == 0
