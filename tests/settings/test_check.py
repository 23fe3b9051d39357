"""The report of `parapet check`, as text and for machines."""

from collections.abc import Callable
from pathlib import Path

from proxy.control.policy_checks import RouteCovered
from proxy.settings.check import as_json, report_on
from proxy.settings.load import Loaded
from proxy.settings.problems import Problem
from proxy.settings.report import as_text, problems_as_text
from proxy.wire import jsonbody

Load = Callable[..., Loaded]

TEXT = """\
workspaces:
  - id: default
    default_route: prod-chat
    endpoints:
      - {id: anthropic-claude, provider: anthropic, api_key: {$env: ANTHROPIC}}
      - {id: bedrock-claude, provider: bedrock, region: us-east-1, api_key: {$env: BEDROCK}}
      - {id: local, provider: openai-compatible, base_url: "http://127.0.0.1:1/v1",
         allow_private: true}
    routes:
      - {id: prod-chat, endpoint: anthropic-claude, match: {models: ["claude*"]},
         policy_packs: [p, s]}
      - {id: open, endpoint: local}
    failover_policies:
      - id: latency-failover
        route_id: prod-chat
        primary_endpoint: anthropic-claude
        fallback_endpoints: [bedrock-claude]
        conditions: {latency_threshold_ms: 2000, error_rate_threshold: 0.1}
    policies:
      - policy_pack_id: p
        version: 2.1.0
        rules: [{rule_id: r, pattern: secret-x, action: redact}]
      - policy_pack_id: s
        mode: shadow
        rules: [{rule_id: r, pattern: shadow-x, action: block, scope: {roles: [tool]}}]
smtp: {host: mail}
"""

EXPECTED = """\
parapet.yaml: valid

data plane    127.0.0.1:8080   data_auth open, 1 worker
control API   127.0.0.1:8081   admin key: configured
state         ./var

workspace default   0 keys, default route prod-chat

  endpoint           provider            address                                          credential                                                 used by
  anthropic-claude   anthropic           https://api.anthropic.com                        key from $ANTHROPIC                                        route prod-chat
  bedrock-claude     bedrock             https://bedrock-runtime.us-east-1.amazonaws.com  $BEDROCK is not set: the caller's own key goes through     fallback of prod-chat
  local              openai-compatible   http://127.0.0.1:1/v1                            the caller's own key goes through                          route open

route prod-chat   packs p@2.1.0 s@1.0.0 (shadow)
  callers   /r/prod-chat/…, or a model like claude*
  goes to   anthropic-claude, then bedrock-claude   at most 3 attempts; latency > 2000ms or error_rate > 0.1
  request   text refusal tool_name tool_args tool_result metadata               enforced: p   shadow: s (tool)
            reasoning                                                           not scanned: signed reasoning
            tool_def                                                            not scanned: no rule in scope
            images, files                                                       not scanned: binary (unscannable.binary: allow)
            references                                                          not scanned: remote (unscannable.remote: allow)
  response  text refusal reasoning tool_name tool_args tool_result annotation   enforced: p   shadow: s (tool)   stream: exact
            reasoning in streams                                                held until its block is whole
  paths     /v1/chat/completions /v1/completions /v1/embeddings /v1/messages /v1/messages/count_tokens scanned
            /v1/audio/* /v1/images/* /v1/files/* /v1/batches/* /v1/realtime any other path   refused

route open   packs none
  callers   /r/open/…
  goes to   local, without failover
  guarded   not guarded: no policy packs
"""  # noqa: E501 - a terminal's lines


def squeezed(text: str) -> list[str]:
    """The lines, with every run of spaces as two: the columns' widths are not the point."""
    return ["  ".join(line.split()) for line in text.splitlines()]


def loaded(load: Load) -> Loaded:
    return load(TEXT, {"ANTHROPIC": "key-of-anthropic", "PARAPET_ADMIN_KEY": "k" * 32})


def test_the_text(load: Load) -> None:
    found = loaded(load)
    text = as_text(report_on(found)).replace(f"{found.base}/", "")
    assert squeezed(text.partition("\nwarnings")[0]) == squeezed(EXPECTED)
    assert "BEDROCK is not set" in text.partition("\nwarnings")[2]
    assert "accepted, not acted on in this version\n  smtp: " in text


def test_columns_are_aligned(load: Load) -> None:
    lines = as_text(report_on(loaded(load))).splitlines()
    table = [line for line in lines if line.startswith(("  endpoint ", "  anthropic-", "  local "))]
    for name in ("anthropic-claude", "local"):
        (row,) = [line for line in table if line.split()[0] == name]
        assert row[table[0].index("provider") - 1] == " "
        assert row[table[0].index("provider")] != " "


def test_json_says_the_same(load: Load) -> None:
    document = jsonbody.loads(as_json(report_on(loaded(load))))
    assert isinstance(document, dict)
    assert (document["valid"], document["problems"], document["holes"]) == (True, [], [])
    (workspace,) = document["workspaces"]
    route = workspace["routes"][0]
    assert route["failover"]["order"] == ["anthropic-claude", "bedrock-claude"]
    credentials = [each["credential"] for each in workspace["endpoints"]]
    assert credentials == ["own", "unset", "caller"]
    (coverage,) = document["coverage"]
    (guarded,) = [each for each in coverage["routes"] if each["guarded"]]
    assert RouteCovered.model_validate(guarded, strict=True, extra="forbid")
    assert [each["reason"] for each in guarded["not_scanned"]] == [
        "binary", "remote", "signed reasoning", "opaque"
    ]  # fmt: skip


def test_no_secret_is_in_the_report(load: Load) -> None:
    report = report_on(loaded(load))
    for text in (as_text(report), as_json(report).decode()):
        assert "key-of-anthropic" not in text
        assert "k" * 32 not in text


def test_problems_as_text() -> None:
    problems = [Problem(("a", 0), "is wrong", "f.yaml", 3), Problem((), "odd", "f.yaml")]
    assert problems_as_text("f.yaml", problems) == (
        "f.yaml: not valid, 2 problems\n  f.yaml:3: a[0]: is wrong\n  f.yaml: odd\n"
    )


def test_a_tenant_without_routes(load: Load, tmp_path: Path) -> None:
    text = as_text(report_on(load("")))
    assert "no routes: every request is answered with 404" in text


def test_a_check_by_windows_is_not_called_exact(load: Load) -> None:
    """The report names the border beside it."""
    asked = "rule_id: r, kind: external, action: block, config: {adapter: http, url: 'http://x'"
    text = TEXT.replace("rule_id: r, pattern: secret-x, action: redact", asked + ", stage: window}")
    shown = as_text(report_on(load(text, {"ANTHROPIC": "key-of-anthropic"})))
    assert "window border (config.window.overlap: 200)" in shown
    assert "stream: exact" not in shown
    assert "stream: window by window" in shown


def test_an_answer_that_must_be_whole_is_not_called_exact(load: Load) -> None:
    rule = "rule_id: r, kind: json_schema, action: block, config: {schema: {type: object}}"
    text = TEXT.replace("rule_id: r, pattern: secret-x, action: redact", rule)
    text = text.replace("policy_packs: [p", "stream_recovery: off, policy_packs: [p")
    shown = as_text(report_on(load(text, {"ANTHROPIC": "key-of-anthropic"})))
    assert "stream: held to its end" in shown
    assert "every stream" in shown
    assert "leaves at its end: p" in shown
