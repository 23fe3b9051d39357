"""Kind external: what a rule may say, and what is refused."""

from typing import Any

import pytest

from proxy.guardrails.compile import check_pack, compile_guard
from proxy.guardrails.external import ExternalRule
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings

URL = "https://checks.example/v1"


def pack(config: dict[str, Any], **members: Any) -> PolicyPack:
    rule = {"rule_id": "r", "kind": "external", "action": "block", "config": config, **members}
    return PolicyPack.model_validate({"policy_pack_id": "p", "rules": [rule]})


def compiled(config: dict[str, Any], **members: Any) -> ExternalRule:
    (rule,) = compile_guard([pack(config, **members)], GuardSettings()).outside
    return rule


def http(**members: Any) -> dict[str, Any]:
    return {"adapter": "http", "url": URL, **members}


REQUEST, RESPONSE = {"direction": "request"}, {"direction": "response"}
AT = "rules[0]."
FAULTS: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {}, "config.adapter", "missing"),
    ({"adapter": "magic"}, {}, "config.adapter", "unknown_value"),
    (http(color="red"), {}, "config.color", "extra_forbidden"),
    ({"adapter": "http"}, {}, "config.url", "missing"),
    ({"adapter": "presidio"}, {}, "config.url", "missing"),
    ({"adapter": "llama_guard"}, {}, "config.url", "missing"),
    ({"adapter": "bedrock_guardrail", "guardrail_id": "g"}, {}, "config.url", "missing"),
    ({"adapter": "bedrock_guardrail", "region": "eu-west-1"}, {}, "config.guardrail_id", "missing"),
    (http(endpoint="e"), {}, "config.endpoint", "extra_forbidden"),
    ({"adapter": "http", "endpoint": "e", "allow_private": True}, {}, "config.allow_private",
     "extra_forbidden"),
    ({"adapter": "http", "endpoint": "e", "headers": {"x": "y"}}, {}, "config.headers",
     "extra_forbidden"),
    (http(model="m"), {}, "config.model", "extra_forbidden"),
    (http(guardrail_id="g"), {}, "config.guardrail_id", "extra_forbidden"),
    (http(headers={"Authorization": "Bearer abc"}), {}, "config.headers.Authorization",
     "literal_secret"),
    (http(headers={"X-Api-Key": "abc"}), {}, "config.headers.X-Api-Key", "literal_secret"),
    (http(headers={"Host": "x"}), {}, "config.headers.Host", "extra_forbidden"),
    (http(timeout_ms=0), {}, "config.timeout_ms", "greater_than_equal"),
    (http(timeout_ms=30_001), {}, "config.timeout_ms", "less_than_equal"),
    (http(threshold=1.5), {}, "config.threshold", "less_than_equal"),
    (http(window={"size": 10}), {}, "config.window.size", "greater_than_equal"),
    (http(window={"size": 100, "overlap": 60}), {}, "config.window", "value_error"),
    (http(map={"x": {"action": "explode"}}), {}, "config.map.x.action", "unknown_value"),
    (http(), {"pattern": "abc"}, "pattern", "extra_forbidden"),
    (http(), {"keywords": ["abc"]}, "keywords", "extra_forbidden"),
    (http(), {"tests": {"match": ["abc"]}}, "tests", "extra_forbidden"),
    (http(), {"action": "redact", "scope": REQUEST, "reversible": True}, "reversible",
     "action_not_possible"),
    (http(), {"sample_pct": 5}, "sample_pct", "sample_on_enforcing_rule"),
    # §3.2: what may be combined
    (http(stage="preflight"), {"scope": RESPONSE}, "config.stage", "kind_not_possible"),
    (http(stage="parallel"), {"scope": RESPONSE}, "config.stage", "kind_not_possible"),
    (http(stage="buffer"), {"scope": REQUEST}, "config.stage", "kind_not_possible"),
    (http(stage="window"), {"scope": REQUEST}, "config.stage", "kind_not_possible"),
    (http(stage="post"), {"scope": REQUEST}, "config.stage", "kind_not_possible"),
    (http(stage="parallel"), {"action": "redact"}, "config.stage", "action_not_possible"),
    (http(stage="parallel", map={"x": {"action": "replace"}}), {}, "config.stage",
     "action_not_possible"),
    (http(stage="post"), {}, "config.stage", "action_not_possible"),
    (http(stage="post"), {"action": "redact"}, "config.stage", "action_not_possible"),
    (http(stage="post", map={"x": {"action": "block"}}), {"action": "log"}, "config.stage",
     "action_not_possible"),
    ({"adapter": "openai_moderation", "stage": "window"}, {"action": "redact"}, "config.stage",
     "action_not_possible"),
    ({"adapter": "llama_guard", "url": URL, "stage": "window"}, {"action": "redact"},
     "config.stage", "action_not_possible"),
    (http(), {"action": "allow"}, "action", "action_not_possible"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "members", "field", "code"), FAULTS)
def test_what_is_refused(
    config: dict[str, Any], members: dict[str, Any], field: str, code: str
) -> None:
    faults, _ = check_pack(pack(config, **members))
    assert (AT + field, code) in [(fault.field, fault.code) for fault in faults]
    assert not any("abc" in fault.message for fault in faults)


URLS = [
    "ftp://x/", "x", "http://", "http://user:password@host/", "http://h/?key=1", "http://h/#x",
    "http://h/ x", "http://h\\x", "http://h:0/", "http://h:99999/", "http://é.example/", "http://h/\n",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_an_address_is_an_address_and_holds_no_secret(url: str) -> None:
    faults, _ = check_pack(pack({"adapter": "http", "url": url}))
    assert [fault.field for fault in faults] == ["rules[0].config.url"]
    assert "password" not in faults[0].message.replace("user and password", "")


@pytest.mark.parametrize(
    ("adapter", "timeout_s"),
    [("http", 0.2), ("presidio", 1), ("openai_moderation", 2), ("bedrock_guardrail", 2),
     ("llama_guard", 5)],
)  # fmt: skip
def test_defaults(adapter: str, timeout_s: float) -> None:
    own = {"guardrail_id": "g"} if adapter == "bedrock_guardrail" else {}
    rule = compiled({"adapter": adapter, "url": URL, **own})
    assert (rule.timeout_s, rule.detector) == (timeout_s, adapter)
    assert (rule.config.cache_seconds, rule.window) == (300, (2000, 200))
    assert (rule.request_stage, rule.response_stage) == ("preflight", "buffer")


def test_the_timeout_may_stand_at_the_rule() -> None:
    assert compiled(http(), timeout_ms=700).timeout_s == 0.7


def test_a_stage_is_of_its_side_and_the_other_side_has_its_own() -> None:
    rule = compiled(http(stage="parallel"))
    assert (rule.request_stage, rule.response_stage) == ("parallel", "buffer")
    rule = compiled(http(stage="window"), scope=RESPONSE)
    assert (rule.request_stage, rule.response_stage) == (None, "window")
