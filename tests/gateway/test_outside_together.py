"""Checks outside beside everything else that a route may have: the order, and what each sees."""

import json
from typing import Any

import pytest

from proxy.guardrails.placeholders import Placeholders, workspace_key
from proxy.model.policy import PolicyPack
from tests.gateway.test_outside_answers import streamed, text_of
from tests.gateway.test_outside_answers import whole as answered
from tests.gateway.test_outside_requests import OK, REQUEST, chat
from tests.kit.builders import SPARE
from tests.kit.outside import OutsideWorld, external, outside_world, pack_of
from tests.kit.services import HttpService

RESPONSE = {"direction": "response"}
JANE = "jane@x.org"
MAIL = {"rule_id": "email", "pattern": r"[a-z.]+@[a-z.]+[a-z]", "action": "redact",
        "reversible": True, "scope": REQUEST}  # fmt: skip
SCHEMA = {"rule_id": "shape", "kind": "json_schema", "action": "block", "scope": RESPONSE,
          "config": {"schema": {"type": "object"}}}  # fmt: skip
TOOLS = {"rule_id": "tools", "kind": "tool_permission", "action": "block",
         "config": {"default": "deny", "on_declared": "block"}}  # fmt: skip
UNRESUMED = {"stream_recovery": "off"}
OFFERED = [{"type": "function", "function": {"name": "shell", "parameters": {}}}]


def token_of(value: str) -> str:
    found = Placeholders(workspace_key(b"k" * 32, "default")).issue("EMAIL", value)
    assert found is not None
    return found


def sent_text(w: OutsideWorld) -> str:
    (sent,) = w.upstreams["openai"].sent
    text = json.loads(sent.body)["messages"][0]["content"]
    assert isinstance(text, str)
    return text


def asking(service: HttpService, *more: dict[str, Any], **members: Any) -> PolicyPack:
    told = {"style": members.pop("block_style", None), "said": members.pop("message", None)}
    pack = {"block_style": told["style"], "message": told["said"]}
    rule = external("http", service.url, **members)
    return pack_of(rule, *more, **{name: said for name, said in pack.items() if said})


# --- requests


async def test_a_gate_that_blocks_stops_before_anybody_is_asked() -> None:
    async with (
        HttpService() as service,
        outside_world(asking(service, TOOLS, scope=REQUEST)) as w,
    ):
        await w.ask(chat("hello", tools=OFFERED))
        assert w.record.outcome == "blocked"
        assert service.asked == []


async def test_what_can_be_undone_stays_so_beside_what_a_service_takes_out() -> None:
    """The service sees the text as it came; what is taken out is one union."""
    said = f"jane doe wrote to {JANE} today"
    async with HttpService({"jane doe": "PERSON"}) as service:
        pack = asking(service, MAIL, scope=REQUEST, action="redact")
        token = token_of(JANE)
        async with outside_world(pack, scripts=[answered(f"mailed {token}")]) as w:
            caller = await w.ask(chat(said))
            assert service.texts == [said]
            assert sent_text(w) == f"[PERSON] wrote to {token} today"
            assert text_of(caller) == f"mailed {JANE}"


async def test_what_a_service_takes_out_of_a_value_is_never_put_back() -> None:
    """The spans overlap: a placeholder for both would give back what the service found."""
    async with HttpService({"x.org": "HOST"}) as service:
        pack = asking(service, MAIL, scope=REQUEST, action="redact")
        async with outside_world(pack, scripts=[answered(token_of(JANE))]) as w:
            await w.ask(chat(f"write to {JANE} today"))
            assert sent_text(w) == "write to [EMAIL] today"


@pytest.mark.parametrize("stage", ["preflight", "parallel"])
async def test_a_block_is_told_as_its_pack_wants(stage: str) -> None:
    async with HttpService({"bomb": "WEAPON"}) as service:
        pack = asking(
            service, scope=REQUEST, config={"stage": stage}, block_style="finish", message="No."
        )
        async with outside_world(pack, scripts=[OK]) as w:
            caller = await w.ask(chat("a bomb"))
            assert caller.status == 200
            assert text_of(caller) == "No."
            assert w.record.outcome == "blocked"


async def test_what_is_rerouted_is_asked_about_before_it_goes_there() -> None:
    there = {"rule_id": "there", "pattern": "secret", "action": "reroute",
             "config": {"reroute_to": "spare"}}  # fmt: skip
    async with HttpService({"jane doe": "PERSON", "bomb": "WEAPON"}) as service:
        pack = asking(service, there, scope=REQUEST, action="redact")
        spare = SPARE.model_copy(update={"base_url": "http://127.0.0.1:9", "allow_private": True})
        async with outside_world(pack, scripts=[OK], endpoints=[spare]) as w:
            await w.ask(chat("the secret of jane doe"))
            assert w.upstreams["openai"].sent == []
            assert [a.endpoint_id for a in w.record.attempts] == ["spare"]
            assert service.texts == ["the secret of jane doe"]


# --- answers


@pytest.mark.parametrize("stage", ["buffer", "window"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_asked_about_before_values_return(stage: str, *, stream: bool) -> None:
    """SECURITY: what a placeholder stands for is told to the caller alone."""
    token = token_of(JANE)
    said = f"jane doe has {token} too"
    script = streamed(*(said[at : at + 3] for at in range(0, len(said), 3)))
    config = {"stage": stage, "window": {"size": 50, "overlap": 20}}
    async with HttpService({"jane doe": "PERSON"}) as service:
        pack = asking(service, MAIL, scope=RESPONSE, action="redact", config=config)
        async with outside_world(pack, scripts=[script if stream else answered(said)]) as w:
            caller = await w.ask(chat(f"write to {JANE}", stream=stream))
            assert text_of(caller) == f"[PERSON] has {JANE} too"
            assert service.texts == [said]
            assert w.record.outcome == "success"


async def test_an_answer_of_another_shape_is_asked_about_by_nobody() -> None:
    async with HttpService() as service:
        pack = asking(service, SCHEMA, scope=RESPONSE)
        async with outside_world(pack, scripts=[answered("no object")], route=UNRESUMED) as w:
            assert (await w.ask(chat("hello"))).status == 400
            assert service.asked == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("said", "passes"),
    [('{"a": "fine"}', True), ('{"a": "bomb"}', False), ("no object", False)],
)
async def test_both_must_let_an_answer_go(said: str, *, passes: bool, stream: bool) -> None:
    script = streamed(said[:4], said[4:]) if stream else answered(said)
    async with HttpService({"bomb": "WEAPON"}) as service:
        pack = asking(service, SCHEMA, scope=RESPONSE)
        async with outside_world(pack, scripts=[script], route=UNRESUMED) as w:
            caller = await w.ask(chat("hello", stream=stream))
            if passes:
                assert text_of(caller) == said
            else:
                assert caller.status == 400
                assert b"bomb" not in caller.received
            assert w.record.outcome == ("success" if passes else "blocked")


# --- samples


@pytest.mark.parametrize(("percent", "asked"), [(0, 0), (100, 2)])
async def test_a_rule_in_shadow_asks_about_its_sample_only(percent: int, asked: int) -> None:
    async with HttpService({"bomb": "WEAPON"}) as service:
        pack = asking(service, mode="shadow", sample_pct=percent)
        async with outside_world(pack, scripts=[answered("a bomb")]) as w:
            caller = await w.ask(chat("which bomb"))
            assert text_of(caller) == "a bomb"
            assert len(service.asked) == asked
            assert len(w.record.policy_results) == asked
