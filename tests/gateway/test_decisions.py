"""T-FO-72: what is told of each decision, byte for byte."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.gateway.changes import change_of
from proxy.model.events import FAILOVER_DECISION
from proxy.model.failover import Conditions, FailoverDecision, FailoverPolicy, Outcome
from proxy.routing.effects import Effect, Flapping
from proxy.routing.standing import Standing
from proxy.spool.expand import events_of
from proxy.spool.record import change_line, line_of
from tests.kit.spool import AT_MS, a_record

GOLDEN = Path(__file__).parents[1] / "golden" / "failover_decisions.jsonl"
SEED = Path(__file__).parents[1] / "golden" / "seeds" / "failover_decision.json"
NOW = 1000.0
SAID = Conditions(latency_threshold_ms=2000, error_rate_threshold=0.1)


def standing(**more: Any) -> Standing:
    policy = FailoverPolicy(
        id="latency-failover",
        route_id="prod-chat",
        primary_endpoint="anthropic-claude",
        fallback_endpoints=["bedrock-claude"],
        conditions=SAID,
        **more,
    )
    return Standing(policy, lambda: 0.5)


def slow(s: Standing) -> list[Effect]:
    return [effect for _ in range(10) for effect in s.mark_slow("anthropic-claude", NOW)]


def seen(s: Standing, outcome: Outcome, times: int, name: str = "anthropic-claude") -> list[Effect]:
    return [
        effect
        for _ in range(times)
        for effect in s.observe(name, NOW, outcome, began=NOW)
    ]  # fmt: skip


def exhausted(s: Standing) -> list[Effect]:
    seen(s, Outcome.CONNECT, 3, "bedrock-claude")
    return seen(s, Outcome.CONNECT, 3)


def forced(s: Standing) -> list[Effect]:
    return s.force("bedrock-claude", NOW, ttl_s=600.0, said="maintenance of the primary")


def kept(s: Standing) -> list[Effect]:
    return s.force("anthropic-claude", NOW, ttl_s=600.0, said="stay here")


def released(s: Standing) -> list[Effect]:
    forced(s)
    return s.release(NOW + 60, said="it is over")


# fmt: off
STORIES: list[tuple[str, Callable[[Standing], list[Effect]]]] = [
    ("slow",         slow),
    ("refused",      lambda s: seen(s, Outcome.CONNECT, 3)),
    ("errors",       lambda s: seen(s, Outcome.UPSTREAM_5XX, 5)),
    ("rate limited", lambda s: seen(s, Outcome.RATE_LIMITED, 10)),
    ("auth",         lambda s: seen(s, Outcome.AUTH, 3)),
    ("nobody left",  exhausted),
    ("forced",       forced),
    ("kept",         kept),
    ("released",     released),
]
# fmt: on


def told_of(story: Callable[[Standing], list[Effect]]) -> dict[str, Any]:
    s = standing()
    changes = [change_of(s, effect, AT_MS) for effect in story(s)]
    (payload,) = [said for kind, said in changes if kind == FAILOVER_DECISION]
    line = change_line("default", "evt-1", AT_MS, FAILOVER_DECISION, "prod-chat", payload)
    (event,) = events_of(line[:-1]).events
    found = event.body["payload"]
    assert isinstance(found, dict)
    return found


def of_a_request() -> dict[str, Any]:
    decision = FailoverDecision(
        "latency-failover", "stream cut after 214 chars", "anthropic-claude", "bedrock-claude",
        AT_MS, "stream_cut", resumed_at_chars=214, recovery="prefill",
    )  # fmt: skip
    _, event = events_of(line_of(a_record(decisions=[decision]))[:-1]).events
    found = event.body["payload"]
    assert isinstance(found, dict)
    return found


def test_t_fo_72_decisions_are_those_of_the_golden_file() -> None:
    lines = {name: told_of(story) for name, story in STORIES} | {"a request": of_a_request()}
    text = "".join(json.dumps({"story": name, **told}) + "\n" for name, told in lines.items())
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_t_fo_72_the_seeds_members_come_first_and_as_the_seed_has_them() -> None:
    seed = json.loads(SEED.read_text(encoding="utf-8"))
    assert json.dumps(dict(list(told_of(slow).items())[:5])) == json.dumps(seed)


def test_a_change_of_an_endpoint_that_an_edit_has_taken_out_can_still_be_told() -> None:
    """Between nodes a change waits for the server's word."""
    s = standing()
    effects = seen(s, Outcome.CONNECT, 3)
    edited = s.policy.model_copy(
        update={"primary_endpoint": "bedrock-claude", "fallback_endpoints": ["third"]}
    )
    s.edit(edited, 1000.0)
    told = [change_of(s, each, AT_MS) for each in (*effects, Flapping("anthropic-claude", 1.0))]
    assert {payload.get("endpoint_id") for _, payload in told} == {None, "anthropic-claude"}
