"""Loading: every problem at once, each with path, line, and what would be right."""

from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.settings.load import Loaded, load_config
from proxy.settings.problems import ConfigError
from proxy.settings.schema import Config

Load = Callable[..., Loaded]

GOOD = """\
workspaces:
  - id: default
    default_route: prod-chat
    endpoints:
      - id: anthropic-claude
        provider: anthropic
        models: {claude: claude-3-opus-20240229}
      - {id: bedrock-claude, provider: bedrock, region: us-east-1, api_key: literal-key}
    routes:
      - id: prod-chat
        endpoint: anthropic-claude
        match: {models: ["claude*"]}
    failover_policies:
      - route_id: prod-chat
        primary_endpoint: anthropic-claude
        fallback_endpoints: [bedrock-claude]
        conditions: {latency_threshold_ms: 2000, error_rate_threshold: 0.1}
"""

SHA = "0" * 64
NO_LIMIT = "{route_id: r, primary_endpoint: p, fallback_endpoints: [f], conditions: {}}"
# fmt: off
WRONG: list[tuple[str, str]] = [
    ("sever: {}",                             ":1: sever: unknown member; did you mean server?"),
    ("server: {lissten: 127.0.0.1:1}",
     ":1: server.lissten: unknown member; did you mean listen?"),
    ("server:\n  workers: many",              ":2: server.workers: must be a whole number or auto"),
    ("server: {workers: 0}",                  "server.workers: must be at least 1 (found 0)"),
    ("server: {data_auth: none}",
     "server.data_auth: must be one of open, keys (found none)"),
    ("server: {listen: 8080}",                "server.listen: must be text (put it in quotes)"),
    ("server: {listen: ':8080'}",             "server.listen: must be host:port, for example"),
    ("server: {listen: '::1:8080'}",          "server.listen: an IPv6 address stands in brackets"),
    ("server: {public_url: ftp://x}",         "server.public_url: must be http(s)://host"),
    ("server: {max_body_bytes: 10 apples}",
     "server.max_body_bytes: must be a number of bytes, or a size"),
    ("server: {admin_key: short}",            "server.admin_key: must have at least 32 characters"),
    ("server: {admin_key: {$evn: X}}",
     "server.admin_key.$evn: unknown member; did you mean $env?"),
    ("server: {admin_key: {$env: 5}}",
     "server.admin_key.$env: must be text (put it in quotes)"),
    ("server: {admin_key: 5}",
     "server.admin_key: must be text, {$env: NAME} or {$file: PATH}"),
    ("server: {listen: 127.0.0.1:9, control_listen: 127.0.0.1:9}",
     "server.control_listen: is 127.0.0.1:9, where the data plane"),
    ("store: mysql://x",                      "store: must be sqlite, redis://"),
    ("[]",                                    ": must be a mapping"),
    ("text",                                  ": must be a mapping"),
    ("retention: {events_days: many}",        "retention.events_days: must be a whole number"),
    ("egress: {allow_cidrs: [10.0.0.0/99]}",  "egress.allow_cidrs[0]:"),
    ("smtp: {password: {$env: UNSET}}",
     "smtp.password: environment variable UNSET is not set"),
    ("smtp: {password: {$file: none}}",
     "smtp.password: file none: no such file or directory"),
    ("pricing: {file: none.json}",            "pricing.file:"),
    ("workspaces: [{id: Default}]",           "workspaces[0].id: must match ^[a-z0-9]"),
    ("workspaces: [{}]",                      "workspaces[0].id: is required"),
    ("workspaces: [{id: a}, {id: a}]",
     "workspaces[1].id: a stands twice (first at workspaces[0])"),
]
# Inside a workspace; `ONE` stands for the endpoint `e`, OpenAI's.
WRONG_INSIDE: list[tuple[str, str]] = [
    ("settings: {timezone: 'not a zone'}",    "settings.timezone: must be an IANA time zone"),
    ("default_route: r",                      "default_route: no route r"),
    ("endpoints: [{id: e, provider: opneai}]",
     "endpoints[0].provider: must be one of openai, anthropic, azure-openai"),
    ("endpoints: [{id: e, provider: openai, base_url: 'https://u:p@h'}]",
     "endpoints[0].base_url: must be http(s)://host[:port][/path], without user and password"),
    ("endpoints: [{id: e, provider: openai, pricing: {input_per_mtokk: 1}}]",
     "endpoints[0].pricing.input_per_mtokk"),
    ("endpoints: [ONE, ONE]",
     "endpoints[1].id: e stands twice (first at endpoints[0])"),
    ("endpoints: [{id: e, provider: bedrock}]",
     "endpoints[0].region: provider bedrock needs region or base_url"),
    ("endpoints: [{id: e, provider: azure-openai}]",
     "endpoints[0].base_url: is required for provider azure-openai"),
    ("endpoints: [{id: e, provider: openai-compatible}]",
     "endpoints[0].base_url: is required for provider openai-compatible"),
    ("endpoints: [{id: e, provider: vertex, project: p}]",
     "endpoints[0].location: provider vertex needs location or base_url"),
    ("endpoints: [{id: e, provider: openai, profile: vllm}]",
     "endpoints[0].profile: is only for provider openai-compatible"),
    ("endpoints: [{id: e, provider: openai, base_url: 'http://127.0.0.1:1'}]",
     "set allow_private: true to allow it"),
    ("endpoints: [{id: e, provider: openai, base_url: 'http://[::1]:1'}]",
     "is a loopback or private address"),
    ("endpoints: [{id: e, provider: openai, allow_private: true, base_url: 'http://169.254.169.254'}]",
     "is a cloud metadata address, which is never allowed"),
    ("endpoints: [{id: e, provider: openai, base_url: 'http://h:99999'}]",
     "is not a URL"),
    ("endpoints: [{id: e, provider: bedrock, region: r, access_key_id: k}]",
     "endpoints[0].secret_access_key: access_key_id and secret_access_key go together"),
    ("endpoints: [ONE], routes: [{id: r, endpoint: ee}]",
     "routes[0].endpoint: no endpoint ee; did you mean e?"),
    ("routes: [{id: r, endpoint: e}]",        "no endpoint e; this workspace has no endpoints"),
    ("routes: [{id: r, endpoint: e, timeouts: {idle_ms: 0}}]",
     "routes[0].timeouts.idle_ms: must be at least 1 (found 0)"),
    ("endpoints: [ONE], routes: [{id: r, endpoint: e, policy_packs: [no-such]}]",
     "routes[0].policy_packs[0]: no policy pack no-such; known are"),
    ("deliveries: [{name: x, type: fax, config: {}}]",
     "deliveries[0].type: must be one of 'slack', 'email', 'webhook', 'pagerduty'"),
    ("deliveries: [{name: x, type: slack, config: {webhok_url: u}}]",
     "deliveries[0].config.webhok_url: unknown member; did you mean webhook_url?"),
    ("alert_rules: [{name: x, condition: {metric: latency}}]",
     "alert_rules[0].condition: metric latency needs threshold_ms"),
    ("failover_policies: [NO_LIMIT]",
     "conditions: needs latency_threshold_ms or error_rate_threshold, or both"),
    ("keys: [{id: abcd, secret_sha256: SHA, route: r}]", "keys[0].route: no route r"),
    ("keys: [{id: abcd, secret_sha256: xyz}]",
     "keys[0].secret_sha256: must match ^[0-9a-f]{64}$"),
    ("keys: [{id: abcd, secret_sha256: SHA, expires_at: soon}]",
     "keys[0].expires_at: must be a time with an offset"),
    ("keys: [{id: abcd, secret_sha256: SHA, allowed_cidrs: [x]}]",
     "keys[0].allowed_cidrs[0]: must be an address range"),
    ("keys: [{id: abcd, secret_sha256: SHA}, {id: abcd, secret_sha256: SHA}]",
     "keys[1].id: key id abcd stands twice"),
    ("policy_files: [\"a\\0b\"]",            "policy_files[0]:"),
    ("policy_files: [none.yaml]",             "policy_files[0]:"),
    ("policies: [{policy_pack_id: p, rules: [{rule_id: r, pattern: '(a'}]}]",
     "policies[0].rules[0].pattern:"),
    ("policies: [{policy_pack_id: p, extends: none, rules: []}]",
     "policies[0].extends: no pack none; known are"),
]
# fmt: on


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_wrong_is_said(load: Load, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert said in str(caught.value)
    assert all(problem.file for problem in caught.value.problems)


@pytest.mark.parametrize(("text", "said"), WRONG_INSIDE)
def test_what_is_wrong_in_a_workspace_is_said(load: Load, text: str, said: str) -> None:
    text = (
        text.replace("ONE", "{id: e, provider: openai}")
        .replace("SHA", SHA)
        .replace("NO_LIMIT", NO_LIMIT)
    )
    with pytest.raises(ConfigError) as caught:
        load(f"workspaces: [{{id: a, {text}}}]")
    assert said in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory"):
        load_config(tmp_path / "none.yaml", {})
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path, {})


def test_all_errors_at_once_from_the_top_of_the_file(load: Load) -> None:
    text = """\
server: {worker: 2}
workspaces:
  - id: default
    endpoints:
      - {id: a, provider: openai, region: US}
    routes:
      - {id: r, endpoint: b, timeouts: {idle_ms: 0}}
    policies:
      - {policy_pack_id: p, rules: [{rule_id: r, pattern: '(a'}]}
"""
    with pytest.raises(ConfigError) as caught:
        load(text)
    found = [problem.line for problem in caught.value.problems]
    assert found == [1, 5, 7, 7, 9]  # shape, references and rules in one run


def test_unknown_member_in_a_list_of_documents_names_its_path_and_line(load: Load) -> None:
    text = GOOD.replace("match:", "mtach:")
    with pytest.raises(ConfigError) as caught:
        load(text)
    said = "parapet.yaml:12: workspaces[0].routes[0].mtach: unknown member; did you mean match?"
    assert str(caught.value) == said


def test_an_empty_file_is_the_defaults(load: Load) -> None:
    assert load("").config == Config()
    assert load("{}").config == Config()


def test_json_is_accepted(load: Load) -> None:
    text = '{\n\t"server": {"workers": 3},\n\t"workspaces": [{"id": "default"}]\n}'
    assert load(text).config.server.workers == 3


def test_the_good_one(load: Load) -> None:
    loaded = load(GOOD)
    (workspace,) = loaded.config.workspaces
    assert workspace.routes[0].endpoint == "anthropic-claude"
    assert workspace.failover_policies[0].max_attempts == 3
    assert [path.name for path in loaded.files] == ["parapet.yaml"]


def test_the_hash_covers_every_file(load: Load) -> None:
    text = "workspaces: [{id: default, policy_files: [p.yaml]}]"
    pack = "policy_pack_id: p\nrules: []\n"
    first = load(text, files={"p.yaml": pack})
    second = load(text, files={"p.yaml": pack + "# changed\n"})
    assert [path.name for path in first.files] == ["parapet.yaml", "p.yaml"]
    assert first.sha256 != second.sha256
    assert first.sha256 == load(text, files={"p.yaml": pack}).sha256


def test_r40_poison_files_are_refused(load: Load) -> None:
    rule = "{policy_pack_id: p, rules: [{rule_id: r, pattern: '%s'}]}"
    inside = f"workspaces: [{{id: a, policies: [{rule}]}}]"
    for text in (inside % "(?=x)", inside % "(a", "x" * 5_000_000, "unknown: 1"):
        with pytest.raises(ConfigError):
            load(text)


# --- secrets (rule 20)


def test_an_unset_key_of_admin_or_endpoint_counts_as_absent(load: Load) -> None:
    text = GOOD.replace(
        "provider: anthropic\n", "provider: anthropic\n        api_key: {$env: NOPE}\n"
    )
    loaded = load("server: {admin_key: {$env: NOKEY}}\n" + text)
    said = [str(warning) for warning in loaded.warnings]
    assert any("api_key: environment variable NOPE is not set" in each for each in said)
    assert any("admin_key: environment variable NOKEY is not set" in each for each in said)
    assert loaded.admin_key is None


def test_an_empty_variable_counts_as_unset(load: Load) -> None:
    assert load("", {"PARAPET_ADMIN_KEY": ""}).admin_key is None


def test_a_short_admin_key_is_refused_wherever_it_comes_from(load: Load) -> None:
    with pytest.raises(ConfigError, match="at least 32 characters"):
        load("", {"PARAPET_ADMIN_KEY": "short"})
    assert load("", {"PARAPET_ADMIN_KEY": "k" * 32}).admin_key == "k" * 32


def test_the_file_may_name_any_variable_and_any_file(load: Load) -> None:
    """T-SEC-07, the other side: what the API may not."""
    text = "server: {admin_key: {$file: sub/key}}\nsmtp: {password: {$env: HOME}}"
    loaded = load(text, {"HOME": "/home/somebody"}, files={"sub/key": "k" * 40 + "\n"})
    assert loaded.admin_key == "k" * 40
    assert set(loaded.known_secrets()) == {"k" * 40, "/home/somebody"}


def test_no_problem_shows_a_secret(load: Load) -> None:
    canary = "sk-canary-0123456789abcdef0123456789"
    texts = [
        f"server: {{admin_key: [{canary}]}}",
        f"server: {{admin_key: {{{canary}: x}}}}",
        f"smtp: {{password: {{$file: x, y: {canary}}}}}",
        f"workspaces: [{{id: a, keys: [{{id: '{canary}', secret_sha256: {canary}}}]}}]",
        f"workspaces: [{{id: a, endpoints: [{{id: e, provider: openai, api_key: [{canary}]}}]}}]",
        f"workspaces: [{{id: a, endpoints: [{{id: e, provider: {canary}}}]}}]",
    ]
    for text in texts:
        with pytest.raises(ConfigError) as caught:
            load(text)
        assert canary not in str(caught.value).replace(f"{canary}: unknown", "")


# --- T-SEC-09: a safe start

# fmt: off
EXPOSED = [
    ("listen: 0.0.0.0:8080",                          "server.listen: 0.0.0.0:8080 is reachable"),
    ("listen: '[::]:8080'",                           "server.listen: [::]:8080 is reachable"),
    ("listen: example.com:8080",
     "server.listen: example.com:8080 is reachable"),
    ("control_listen: 0.0.0.0:8081",                  "server.control_listen: 0.0.0.0:8081 is"),
    ("control_listen: 0.0.0.0:8081, data_auth: keys", "no key is configured"),
]
SAFE = [
    ("",                                                         {}),
    ("server: {listen: localhost:1, control_listen: '[::1]:2'}", {}),
    ("server: {listen: 0.0.0.0:8080, data_auth: keys}",          {}),
    ("server: {control_listen: 0.0.0.0:8081}",                   {"PARAPET_ADMIN_KEY": "k" * 32}),
    ("server: {control_listen: 0.0.0.0:8081}\nworkspaces: [{id: default, keys: [{id: abcd, "
     "secret_sha256: " + "0" * 64 + ", role: admin}]}]",         {}),
]
# fmt: on


@pytest.mark.parametrize(("server", "said"), EXPOSED)
def test_t_sec_09_exposed(load: Load, server: str, said: str) -> None:
    text = f"server: {{{server}}}"
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert said in str(caught.value)
    assert "--insecure overrides this" in str(caught.value)
    load(text, insecure=True)


@pytest.mark.parametrize(("text", "environ"), SAFE)
def test_t_sec_09_safe(load: Load, text: str, environ: dict[str, str]) -> None:
    load(text, environ)


TWO_SIGNS = "e\u0301te\u0301"  # the letters and their accents apart
NAMED = """\
workspaces:
  - id: default
    name: &name "NAME"
    endpoints: [{id: one, provider: anthropic}, {id: two, provider: anthropic}]
    routes: [{id: chat, name: *name, endpoint: one}]
    failover_policies:
      - {name: *name, route_id: chat, primary_endpoint: one, fallback_endpoints: [two],
         conditions: {latency_threshold_ms: 2000}}
    alert_rules: [{name: *name, condition: {metric: latency, threshold_ms: 1, window_seconds: 60}}]
    deliveries: [{name: *name, type: slack, config: {webhook_url: "https://hooks.slack.com/x"}}]
    keys: [{id: key000000000, name: *name, secret_sha256: "SHA"}]
"""


def test_names_are_composed_as_those_of_the_api_are(load: Load) -> None:
    """control-api.md §1: two that look alike are the same."""
    text = NAMED.replace("NAME", TWO_SIGNS).replace("SHA", SHA)
    (workspace,) = load(text).config.workspaces
    members = ("routes", "failover_policies", "alert_rules", "deliveries", "keys")
    names = [workspace.name, *(getattr(workspace, member)[0].name for member in members)]
    assert names == ["\u00e9t\u00e9"] * 6
