"""What of the store is laid under the file, what is hidden, left out, or serves nobody."""

from pathlib import Path
from typing import Any

from proxy.settings.load import Loaded
from proxy.settings.overlay import InForce, overlay
from proxy.settings.schema import Config
from proxy.settings.secrets import SecretReader
from proxy.settings.snapshot import compile_snapshot

E = {"id": "e", "provider": "openai"}
R = {"id": "r", "endpoint": "e"}
PACK = {"policy_pack_id": "mine", "rules": [{"rule_id": "word", "pattern": "forbidden"}]}
FAILOVER = {
    "route_id": "r",
    "primary_endpoint": "e",
    "fallback_endpoints": ["f"],
    "conditions": {"error_rate_threshold": 0.5},
}


def laid(file: dict[str, Any], stored: dict[str, list[dict[str, Any]]], **server: Any) -> InForce:
    """`stored` by kind, of workspace `default`."""
    config = Config.model_validate({"workspaces": [{"id": "default", **file}]})
    reader = SecretReader({"PARAPET_SECRET_KEY": "from the environment"})
    loaded = Loaded(config, Path("/etc/parapet.yaml"), (), "", reader=reader)
    documents: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for kind, said in stored.items():
        documents["default", kind] = [(name_of(kind, each), each) for each in said]
    for kind, said in server.items():
        documents["_server", kind] = [(str(each["id"]), each) for each in said]
    return overlay(loaded, documents)


def name_of(kind: str, said: dict[str, Any]) -> str:
    if kind == "policy_version":
        return f"{said['policy_pack_id']}@{said['version']}"
    return str(said.get("id") or said["policy_pack_id"])


def rules(in_force: InForce, workspace: str = "default") -> Any:
    found = compile_snapshot(in_force.loaded, 1).workspaces
    return next(each for each in found if each.id == workspace)


def test_nothing_stored_changes_nothing() -> None:
    found = laid({"endpoints": [E], "routes": [R]}, {})
    assert (found.shadowed, found.refused) == ([], [])
    assert [each.id for each in rules(found).routes] == ["r"]


def test_what_is_stored_stands_beside_the_file() -> None:
    found = laid(
        {"endpoints": [E], "routes": [R]},
        {
            "endpoint": [{"id": "f", "provider": "anthropic", "labels": {"team": "a"}}],
            "route": [{"id": "s", "endpoint": "f"}],
        },
    )
    assert [each.id for each in rules(found).endpoints] == ["e", "f"]
    assert [each.id for each in rules(found).routes] == ["r", "s"]
    assert rules(found).unusable == {}


def test_the_file_hides_what_has_its_id() -> None:
    found = laid(
        {"endpoints": [E], "routes": [R]},
        {
            "endpoint": [{"id": "e", "provider": "gemini"}],
            "route": [{"id": "r", "endpoint": "nowhere"}],
        },
    )
    assert found.shadowed == ["default/endpoint/e", "default/route/r"]
    assert [each.provider for each in rules(found).endpoints] == ["openai"]
    assert rules(found).unusable == {}


def test_a_document_that_is_not_valid_any_more_is_left_out_alone() -> None:
    found = laid({}, {"endpoint": [{"id": "e", "provider": "gone"}, {**E, "id": "f"}]})
    assert found.refused == ["default/endpoint/e: not valid in this version"]
    assert [each.id for each in rules(found).endpoints] == ["f"]


def test_a_route_that_lacks_something_is_unusable_and_says_why() -> None:
    found = laid(
        {"endpoints": [E]},
        {
            "route": [
                {"id": "a", "endpoint": "gone"},
                {**R, "id": "b", "policy_packs": ["gone"]},
                {**R, "id": "c", "policy_packs": ["secrets-core@9.9.9"]},
                {**R, "id": "d", "policy_packs": ["secrets-core"]},
            ]
        },
    )
    assert rules(found).unusable == {
        "a": "endpoint gone is not there",
        "b": "policy pack gone is not there",
        "c": "policy pack secrets-core@9.9.9 is not there",
    }
    assert [each.policy_pack_id for each in rules(found).policies] == ["secrets-core"]


def test_a_failover_policy_lends_its_route_an_endpoint() -> None:
    stored = {
        "route": [{"id": "r", "endpoint": "gone"}],
        "endpoint": [{**E, "id": "f"}],
        "failover_policy": [{"id": "p", **FAILOVER}],
    }
    assert rules(laid({}, stored)).unusable == {}
    paused = {**stored, "failover_policy": [{"id": "p", **FAILOVER, "status": "paused"}]}
    assert rules(laid({}, paused)).unusable == {"r": "endpoint gone is not there"}


def test_of_two_active_policies_on_a_route_the_files_stays() -> None:
    own = {"endpoints": [E, {**E, "id": "f"}], "routes": [R], "failover_policies": [FAILOVER]}
    found = laid(own, {"failover_policy": [{"id": "p", **FAILOVER}]})
    assert found.refused == ["default/failover_policy/p: route r has an active policy in the file"]


def test_references_are_fenced_and_files_lie_in_their_directory() -> None:
    found = laid(
        {},
        {
            "endpoint": [
                {**E, "id": "a", "api_key": {"$env": "PARAPET_SECRET_KEY"}},
                {**E, "id": "b", "api_key": {"$env": "PARAPET_SECRET_UNSET"}},
                {**E, "id": "c", "api_key": {"$env": "HOME"}},
                {**E, "id": "d", "api_key": {"$file": "no/such/secret"}},
                {**E, "id": "e", "ca_file": "ca.pem"},
            ]
        },
    )
    assert [each.id for each in rules(found).endpoints] == ["a", "b", "e"]
    assert rules(found).endpoints[2].ca_file == "/run/secrets/ca.pem"
    assert [each.partition(":")[0] for each in found.refused] == [
        "default/endpoint/c", "default/endpoint/d"
    ]  # fmt: skip


def test_a_pack_of_the_store_runs_where_a_route_names_it_or_it_names_the_route() -> None:
    found = laid(
        {"endpoints": [E], "routes": [R]},
        {
            "policy": [{**PACK, "version": "2.0.0", "route_ids": ["r"], "status": "active"}],
            "policy_version": [{**PACK, "version": "1.0.0"}],
            "route": [{**R, "id": "s", "policy_packs": ["mine@1.0.0"]}],
        },
    )
    assert [(each.id, each.policy_packs) for each in rules(found).routes] == [
        ("r", ["mine"]), ("s", ["mine@1.0.0"])
    ]  # fmt: skip
    assert [each.version for each in rules(found).policies] == ["1.0.0", "2.0.0"]  # active: last
    assert rules(found).unusable == {}


def test_a_paused_pack_runs_no_rule() -> None:
    route = {**R, "policy_packs": ["mine"]}
    found = laid({"endpoints": [E]}, {"policy": [{**PACK, "status": "paused"}], "route": [route]})
    assert [each.enabled for each in rules(found).policies] == [False]


def test_a_pack_that_does_not_compile_makes_its_routes_unusable() -> None:
    bad = {**PACK, "rules": [{"rule_id": "x", "kind": "regex", "pattern": "(?<=a)b"}]}
    found = laid(
        {"endpoints": [E]},
        {"policy": [bad], "route": [{**R, "policy_packs": ["mine"]}]},
    )
    assert rules(found).unusable == {"r": "policy pack mine is not there"}
    assert found.refused[0].startswith("default/policy/mine:")


def test_a_route_that_lacks_the_pack_that_attached_itself_is_unusable() -> None:
    bad = {**PACK, "route_ids": ["r"], "from_the_future": True}
    found = laid({"endpoints": [E], "routes": [R]}, {"policy": [bad]})
    assert found.refused == ["default/policy/mine: not valid in this version"]
    assert rules(found).unusable == {"r": "policy pack mine is not there"}


def test_workspaces_and_keys_of_the_store() -> None:
    key = {"id": "abcd", "secret_sha256": "0" * 64, "workspaces": ["team"], "role": "app"}
    found = laid(
        {"endpoints": [E]},
        {},
        workspace=[{"id": "team", "name": "Team", "default_route": "x"}, {"id": "default"}],
        key=[key],
    )
    assert found.shadowed == ["_server/workspace/default"]
    assert rules(found, "team").default_route == "x"
    assert [each.id for each in rules(found).keys] == ["abcd"]


def test_a_pack_of_the_file_takes_over_the_routes_of_the_one_that_it_hides() -> None:
    found = laid({"endpoints": [E], "routes": [R]}, {"policy": [{**PACK, "route_ids": ["r"]}]})
    assert rules(found).routes[0].policy_packs == ["mine"]
    hidden = laid(
        {"endpoints": [E], "routes": [R], "policies": [PACK]},
        {"policy": [{**PACK, "route_ids": ["r"]}]},
    )
    assert hidden.shadowed == ["default/policy/mine"]
    assert rules(hidden).routes[0].policy_packs == ["mine"]


def test_a_paused_base_switches_off_nothing_that_extends_it() -> None:
    child = {"policy_pack_id": "child", "extends": "mine", "rules": []}
    found = laid(
        {"endpoints": [E]},
        {
            "policy": [{**PACK, "status": "paused"}, child],
            "route": [{**R, "policy_packs": ["child", "mine"]}],
        },
    )
    told = {each.policy_pack_id: each.enabled for each in rules(found).policies}
    assert told == {"child": True, "mine": False}


def test_a_refused_pack_is_not_replaced_by_a_shipped_one_of_its_name() -> None:
    own = {**PACK, "policy_pack_id": "secrets-core"}
    own["rules"] = [{"rule_id": "x", "kind": "regex", "pattern": "(?<=a)b"}]
    found = laid(
        {"endpoints": [E]},
        {"policy": [own], "route": [{**R, "policy_packs": ["secrets-core"]}]},
    )
    assert rules(found).unusable == {"r": "policy pack secrets-core is not there"}


def test_an_endpoint_whose_credential_cannot_be_sent_is_left_out() -> None:
    found = laid({}, {"endpoint": [{**E, "api_key": "sk-é-abcdef"}], "route": [R]})
    assert found.refused[0].startswith("default/endpoint/e: ")
    assert rules(found).unusable == {"r": "endpoint e is not there"}


def test_the_default_workspace_is_the_stores_when_the_file_declares_none() -> None:
    loaded = Loaded(Config(), Path("/etc/parapet.yaml"), (), "")
    said: Any = {"id": "default", "name": "Main", "settings": {"timezone": "Europe/Berlin"}}
    found = overlay(loaded, {("_server", "workspace"): [("default", said)]})
    assert found.shadowed == []
    (only,) = found.loaded.config.workspaces
    assert (only.id, only.name, only.settings.timezone) == ("default", "Main", "Europe/Berlin")
