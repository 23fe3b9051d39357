"""Where packs come from, and `extends`."""

from collections.abc import Callable

import pytest

from proxy.settings.load import Loaded
from proxy.settings.packs import BUILTIN, PackShelf, builtin_packs, read_pack, settle
from proxy.settings.problems import ConfigError

Load = Callable[..., Loaded]
ROUTE = """\
    endpoints: [{id: e, provider: openai}]
    routes: [{id: r, endpoint: e, policy_packs: [%s]}]
"""


def workspace(packs: str, named: str) -> str:
    return f"workspaces:\n  - id: default\n{packs}{ROUTE % named}"


def test_own_packs_come_before_shipped_ones(load: Load) -> None:
    own = "    policies: [{policy_pack_id: secrets-core, version: 9.0.0, rules: []}]\n"
    packs = load(workspace(own, "secrets-core")).packs["default"]
    assert packs["secrets-core"].pack.version == "9.0.0"
    assert packs["secrets-core"].location == "parapet.yaml#/workspaces/0/policies/0"
    shipped = load(workspace("", "secrets-core")).packs["default"]["secrets-core"]
    assert shipped.location == f"{BUILTIN}secrets-core.yaml"


def test_a_version_must_fit(load: Load) -> None:
    own = "    policies: [{policy_pack_id: p, version: 2.1.0, rules: []}]\n"
    assert load(workspace(own, "p@2.1.0")).packs["default"]["p"].pack.version == "2.1.0"
    with pytest.raises(ConfigError, match=r"no policy pack p@2\.0\.0; known are"):
        load(workspace(own, "p@2.0.0"))


def test_a_pack_may_extend_the_shipped_one_of_its_own_id(load: Load) -> None:
    rule = "{rule_id: mine, pattern: 'MINE-[0-9]{6}', action: block}"
    own = f"policy_pack_id: secrets-core, extends: secrets-core, rules: [{rule}]"
    own = f"    policies: [{{{own}}}]\n"
    pack = load(workspace(own, "secrets-core")).packs["default"]["secrets-core"].effective
    shipped = builtin_packs()["secrets-core"].pack
    assert [each.rule_id for each in pack.rules] == [
        *(each.rule_id for each in shipped.rules),
        "mine",
    ]
    assert pack.default_action == shipped.default_action


@pytest.mark.parametrize(
    ("members", "reversible"),
    [
        ("rules: [{rule_id: email, severity: high}]", True),
        ("rules: [{rule_id: email, action: block}]", False),
        ("rules: [{rule_id: email, scope: {direction: response}}]", False),
        ("rules: [], default_action: log", False),
        ("rules: [], scope: {direction: out}", False),
        ("rules: [], scope: {direction: request}", True),
    ],
)
def test_what_the_base_makes_reversible_is_so_where_it_has_sense(
    load: Load, members: str, reversible: bool
) -> None:
    own = f"    policies: [{{policy_pack_id: own, extends: pii-core, {members}}}]\n"
    pack = load(workspace(own, "own")).packs["default"]["own"].effective
    assert pack.rules[0].rule_id == "email"
    assert pack.rules[0].reversible == reversible


def test_a_child_that_asks_for_it_itself_is_refused(load: Load) -> None:
    rule = "{rule_id: email, action: block, reversible: true}"
    own = f"    policies: [{{policy_pack_id: own, extends: pii-core, rules: [{rule}]}}]\n"
    with pytest.raises(ConfigError, match=r"rules\[0\]\.reversible: Only what action redact"):
        load(workspace(own, "own"))


def test_a_ring_of_extends_is_refused(load: Load) -> None:
    own = """\
    policies:
      - {policy_pack_id: a, extends: b, rules: []}
      - {policy_pack_id: b, extends: a, rules: []}
"""
    with pytest.raises(ConfigError, match="extends itself in a ring"):
        load(workspace(own, "a"))


def test_a_fault_names_the_rule_where_it_was_written(load: Load) -> None:
    base = "policy_pack_id: base\nrules:\n  - {rule_id: one, pattern: x1y}\n"
    own = """\
    policy_files: [base.yaml]
    policies:
      - policy_pack_id: mine
        extends: base
        rules:
          - {rule_id: two, pattern: x2y}
          - {rule_id: one, pattern: '(x'}
"""
    with pytest.raises(ConfigError) as caught:
        load(workspace(own, "mine"), files={"base.yaml": base})
    (problem,) = caught.value.problems
    assert problem.path == ("workspaces", 0, "policies", 0, "rules", 1, "pattern")
    assert problem.line == 9


def test_a_fault_in_a_pack_file_names_that_file(load: Load) -> None:
    text = "workspaces: [{id: default, policy_files: [p.yaml, q.yaml]}]"
    files = {
        "p.yaml": "policy_pack_id: p\nrules:\n  - rule_id: r\n    pattren: x\n",
        "q.yaml": "policy_pack_id: q\nrules:\n  - rule_id: r\n    pattern: (\n",
    }
    with pytest.raises(ConfigError) as caught:
        load(text, files=files)
    said = str(caught.value)
    assert "p.yaml:4: rules[0].pattren: unknown member; did you mean pattern?" in said
    assert "q.yaml:4: rules[0].pattern:" in said


def test_one_id_stands_for_one_pack(load: Load) -> None:
    text = """\
workspaces:
  - id: default
    policies: [{policy_pack_id: p, rules: []}]
    policy_files: [p.yaml]
"""
    with pytest.raises(ConfigError, match=r"policy_files\[0\]: pack p is there already"):
        load(text, files={"p.yaml": "policy_pack_id: p\nrules: []\n"})


def test_every_shipped_pack_compiles_and_is_named_as_its_file() -> None:
    shelf = builtin_packs()
    assert "secrets-core" in shelf
    for pack_id, source in shelf.items():
        assert source.location == f"{BUILTIN}{pack_id}.yaml"
    _, problems, _ = settle(PackShelf(builtin=shelf), list(shelf.values()))
    assert problems == []


@pytest.mark.thorough
def test_a_pack_of_the_file_has_two_seconds_to_compile_like_any_other(load: Load) -> None:
    rules = "\n".join(
        f"        - {{rule_id: r{at}, pattern: 'x{at}\\pL{{1,200}}y'}}" for at in range(500)
    )
    own = f"    policies:\n      - policy_pack_id: slow\n        rules:\n{rules}\n"
    with pytest.raises(ConfigError, match="takes too long to compile"):
        load(workspace(own, "slow"))
    file = "policy_pack_id: slow\nrules:\n" + rules.replace("        -", "  -")
    with pytest.raises(ConfigError, match=r"slow\.yaml.*takes too long to compile"):
        load(workspace("    policy_files: [slow.yaml]\n", "slow"), files={"slow.yaml": file})


def test_each_pack_has_a_time_of_its_own() -> None:
    asked: list[str] = []

    def budget() -> Callable[[], bool]:
        asked.append("begun")
        return lambda: True

    texts = [f"policy_pack_id: t{n}\nrules: [{{rule_id: r, pattern: 'T{n}'}}]" for n in (1, 2)]
    sources = [read_pack(text.encode(), "t.yaml") for text in texts]
    _, problems, _ = settle(PackShelf(), sources, budget)
    assert asked == ["begun", "begun"]
    assert ["too long" in each.message for each in problems] == [True, True]


def test_the_seeds_pack_is_legal_inert_and_warned(load: Load) -> None:
    seed = (
        '{"policy_pack_id":"safety-v2","version":"2.1.0","rules":[{"rule_id":"hate_speech",'
        '"severity":"high","pattern":"[regulated terms]","action":"block"}],"default_action":"log",'
        '"description":"Comprehensive safety policies for production chat routes"}'
    )
    loaded = load(f"workspaces: [{{id: default, policies: [{seed}]}}]")
    assert any("inert" in str(warning) for warning in loaded.warnings)


def test_a_pack_that_a_route_cannot_have_is_refused_where_the_route_names_it(load: Load) -> None:
    away = "{rule_id: r, pattern: berth, action: reroute, config: {reroute_to: gone}}"
    files = {
        "away.yaml": f"policy_pack_id: away\nrules:\n  - {away}\n",
        "shape.yaml": "policy_pack_id: shape\nextends: json-output\nrules:\n"
        "  - {rule_id: answer.schema, config: {schema: {type: object}}}\n",
    }
    own = "    policy_files: [away.yaml, shape.yaml]\n"
    for name, why in (
        ("away", "away reroutes to endpoint gone, which is not there"),
        ("shape", "shape judges whole answers and needs stream_recovery: buffer or off"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(workspace(own, name), files=files)
        (problem,) = caught.value.problems
        assert problem.path == ("workspaces", 0, "routes", 0, "policy_packs", 0)
        assert problem.message == why
