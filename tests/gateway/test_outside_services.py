"""The five services by their own wire formats: allow, block, redact, and what each gets to see."""

import json
from typing import Any

import pytest

from proxy.model.tenancy import Endpoint
from tests.kit.builders import JSON
from tests.kit.fakes import Step
from tests.kit.outside import external, outside_world, pack_of
from tests.kit.services import (
    BedrockGuardrailService,
    HttpService,
    LlamaGuardService,
    ModerationService,
    PresidioService,
    Service,
    said,
)
from tests.kit.shapes import MESSAGES

WORDS = {
    "http": {"bomb": "WEAPON"},
    "openai_moderation": {"bomb": "violence"},
    "bedrock_guardrail": {"bomb": "arms", "Anna": "NAME"},
    "presidio": {"Anna": "PERSON"},
    "llama_guard": {"bomb": "S9"},
}
SERVICES: dict[str, type[Service]] = {
    "http": HttpService,
    "openai_moderation": ModerationService,
    "bedrock_guardrail": BedrockGuardrailService,
    "presidio": PresidioService,
    "llama_guard": LlamaGuardService,
}
OWN: dict[str, dict[str, Any]] = {
    "bedrock_guardrail": {"guardrail_id": "gr-1", "guardrail_version": "3"},
}
REQUEST = {"direction": "request"}
EACH = pytest.mark.parametrize("adapter", list(SERVICES))


def asking(content: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()


def answered(content: str) -> list[Step]:
    message = {"role": "assistant", "content": content}
    doc = {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
           "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # fmt: skip
    return [(200, JSON), json.dumps(doc).encode(), None]


def rule(adapter: str, service: Service, **members: Any) -> dict[str, Any]:
    config = {**OWN.get(adapter, {}), **members.pop("config", {})}
    return external(adapter, service.url, config=config, **members)


def went_up(w: Any) -> list[str]:
    bodies = [json.loads(sent.body) for sent in w.upstreams["openai"].sent]
    return [message["content"] for body in bodies for message in body["messages"]]


@EACH
async def test_a_clean_text_passes_both_ways(adapter: str) -> None:
    async with (
        SERVICES[adapter](WORDS[adapter]) as service,
        outside_world(pack_of(rule(adapter, service)), scripts=[answered("fine")]) as w,
    ):
        caller = await w.ask(asking("hello"))
        assert caller.status == 200
        assert service.texts == ["hello", "fine"]
        assert w.record.policy_results == []


@EACH
@pytest.mark.parametrize("side", ["request", "response"])
async def test_a_finding_blocks(adapter: str, side: str) -> None:
    word = next(iter(WORDS[adapter]))
    script = answered(f"a {word}" if side == "response" else "fine")
    async with (
        SERVICES[adapter](WORDS[adapter]) as service,
        outside_world(pack_of(rule(adapter, service)), scripts=[script]) as w,
    ):
        caller = await w.ask(asking(f"a {word}" if side == "request" else "hello"))
        assert caller.status == 400
        assert word.encode() not in caller.received
        (result,) = w.record.policy_results
        assert (result.detector, result.direction) == (adapter, side)
        assert (result.verdict, result.action_taken) == ("violation", "block")
        assert word not in repr(result)


@EACH
@pytest.mark.parametrize("on_error", ["block", "allow"])
@pytest.mark.parametrize("side", ["request", "response"])
async def test_garbage_is_never_a_pass(adapter: str, on_error: str, side: str) -> None:
    async with (
        SERVICES[adapter]() as service,
        outside_world(
            pack_of(rule(adapter, service, on_error=on_error, scope={"direction": side})),
            scripts=[answered("fine")],
        ) as w,
    ):
        service.play(always=said({"lies": [1, 2, 3]}))
        caller = await w.ask(asking("hello"))
        (result,) = w.record.policy_results
        assert result.message == "unreadable"
        wanted = (400, "error") if on_error == "block" else (200, "bypassed")
        assert (caller.status, result.verdict) == wanted


REDACTED = [
    ("http", "a [WEAPON] here"),
    ("presidio", "[PERSON] here"),
    ("bedrock_guardrail", "{NAME} here"),
    ("openai_moderation", "[violence]"),
    ("llama_guard", "[S9]"),
]


@pytest.mark.parametrize(("adapter", "left"), REDACTED)
async def test_a_finding_is_redacted_where_it_is_or_else_the_whole_text(
    adapter: str, left: str
) -> None:
    text = "Anna here" if adapter in ("presidio", "bedrock_guardrail") else "a bomb here"
    async with (
        SERVICES[adapter](WORDS[adapter]) as service,
        outside_world(
            pack_of(rule(adapter, service, action="redact", scope=REQUEST)),
            scripts=[answered("fine")],
        ) as w,
    ):
        await w.ask(asking(text))
        assert went_up(w) == [left]


async def test_bedrock_that_only_anonymises_redacts_although_the_rule_says_block() -> None:
    async with (
        BedrockGuardrailService({"Anna": "NAME"}) as service,
        outside_world(
            pack_of(rule("bedrock_guardrail", service)), scripts=[answered("Anna says hi")]
        ) as w,
    ):
        caller = await w.ask(asking("I am Anna"))
        assert went_up(w) == ["I am {NAME}"]
        assert json.loads(caller.received)["choices"][0]["message"]["content"] == "{NAME} says hi"
        assert {r.action_taken for r in w.record.policy_results} == {"redact"}


async def test_bedrock_that_blocks_and_anonymises_blocks() -> None:
    async with (
        BedrockGuardrailService({"Anna": "NAME", "bomb": "arms"}) as service,
        outside_world(pack_of(rule("bedrock_guardrail", service, action="redact"))) as w,
    ):
        assert (await w.ask(asking("Anna has a bomb"))).status == 400
        assert w.upstreams["openai"].sent == []


async def test_what_bedrock_rewrote_is_still_rewritten_by_the_routes_own_rules() -> None:
    own = {"rule_id": "key", "pattern": r"KEY[0-9]{4,}", "action": "redact"}
    async with (
        BedrockGuardrailService({"Anna": "NAME"}) as service,
        outside_world(
            pack_of(own, rule("bedrock_guardrail", service, scope=REQUEST)),
            scripts=[answered("fine")],
        ) as w,
    ):
        await w.ask(asking("Anna has KEY12345"))
        assert went_up(w) == ["{NAME} has [KEY]"]


@pytest.mark.parametrize(
    ("adapter", "calls"), [("openai_moderation", 2), ("presidio", 2), ("http", 40)]
)
async def test_texts_go_in_batches_where_the_service_takes_lists(adapter: str, calls: int) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": f"t{n}"} for n in range(40)]}
    async with (
        SERVICES[adapter]() as service,
        outside_world(
            pack_of(rule(adapter, service, scope=REQUEST, config={"timeout_ms": 5000})),
            scripts=[answered("fine")],
        ) as w,
    ):
        assert (await w.ask(json.dumps(body).encode())).status == 200
        assert len(service.asked) == calls
        assert sorted(service.texts) == sorted(f"t{n}" for n in range(40))


async def test_a_category_has_its_own_threshold_severity_and_action() -> None:
    categories = {"violence": {"action": "flag", "severity": "low"}, "hate": {"threshold": 0.99}}
    async with (
        ModerationService({"bomb": "violence", "them": "hate"}) as service,
        outside_world(
            pack_of(rule("openai_moderation", service, scope=REQUEST, config={"map": categories})),
            scripts=[answered("fine")],
        ) as w,
    ):
        assert (await w.ask(asking("a bomb for them"))).status == 200
        record = w.record
        (result,) = record.policy_results
        assert (result.action_taken, result.severity, record.flagged) == ("flag", "low", True)


# --- where a service is


async def test_an_endpoint_lends_its_address_and_its_credential() -> None:
    async with LlamaGuardService({"bomb": "S9"}) as service:
        guard = Endpoint(id="guard", provider="openai-compatible", base_url=f"{service.url}/v1",
                         api_key="guard-key", allow_private=True)  # fmt: skip
        asked = external("llama_guard", None, scope=REQUEST, config={"endpoint": "guard"})
        async with outside_world(pack_of(asked), endpoints=[guard]) as w:
            assert (await w.ask(asking("a bomb"))).status == 400
            (got,) = service.asked
            assert got.path == "/v1/chat/completions"
            assert got.headers["authorization"] == "Bearer guard-key"


async def test_a_bedrock_endpoint_signs_or_shows_its_key() -> None:
    async with BedrockGuardrailService({"bomb": "arms"}) as service:
        place: dict[str, Any] = {"provider": "bedrock", "base_url": service.url, "region":
                                 "us-east-1", "allow_private": True}  # fmt: skip
        signing = Endpoint(id="signing", access_key_id="AKID", secret_access_key="s", **place)
        bearing = Endpoint(id="bearing", api_key="bedrock-key", **place)
        for endpoint in (signing, bearing):
            config = {**OWN["bedrock_guardrail"], "endpoint": endpoint.id}
            asked = external("bedrock_guardrail", None, scope=REQUEST, config=config)
            async with outside_world(pack_of(asked), endpoints=[endpoint]) as w:
                assert (await w.ask(asking("a bomb"))).status == 400
        signed, shown = (got.headers["authorization"] for got in service.asked)
        assert signed.startswith("AWS4-HMAC-SHA256 Credential=AKID/")
        assert "/us-east-1/bedrock/aws4_request" in signed
        assert "x-amz-date" in service.asked[0].headers
        assert shown == "Bearer bedrock-key"


@pytest.mark.parametrize(("endpoint", "provider"), [("nobody", "openai"), ("guard", "anthropic")])
async def test_an_endpoint_that_is_not_there_or_cannot_makes_the_route_serve_nobody(
    endpoint: str, provider: Any
) -> None:
    guard = Endpoint(id="guard", provider=provider, base_url="http://127.0.0.1:9", api_key="k",
                     allow_private=True)  # fmt: skip
    asked = external("llama_guard", None, config={"endpoint": endpoint})
    async with outside_world(pack_of(asked), endpoints=[guard], scripts=[answered("x")]) as w:
        caller = await w.ask(asking("hello"))
        assert caller.status >= 400
        assert w.upstreams["openai"].sent == []


async def test_another_dialect_is_asked_about_by_its_own_texts() -> None:
    body = {"model": "m", "max_tokens": 9, "system": "be Anna", "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi Anna"}]}]}  # fmt: skip
    async with (
        PresidioService({"Anna": "PERSON"}) as service,
        outside_world(pack_of(rule("presidio", service, action="block", scope=REQUEST))) as w,
    ):
        caller = await w.ask(json.dumps(body).encode(), MESSAGES)
        assert caller.status == 400
        assert json.loads(caller.received)["type"] == "error"
        assert sorted(service.texts) == ["be Anna", "hi Anna"]
