"""What of a snapshot cannot be built makes its own routes unusable, and holds up nobody else."""

from proxy.gateway.snapshot import Kept, Rules, build_guards, build_rules
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import ApiKey, Endpoint, Route, SnapshotDoc, WorkspaceRules
from tests.kit.fakes import ScriptedUpstream, ScriptedUpstreams

GOOD = Endpoint(id="good", provider="openai", api_key="sk-0123456789")
KEY = ApiKey(id="abcd", secret_sha256="0" * 64)


def built(*workspaces: WorkspaceRules) -> Rules:
    document = SnapshotDoc(version=1, sha256="", workspaces=list(workspaces))
    fakes = {each.id: ScriptedUpstream() for w in workspaces for each in w.endpoints}
    return build_rules(
        document,
        build_guards(document),
        ScriptedUpstreams(fakes),
        lambda secret: secret if isinstance(secret, str) else None,
    )


def faults(rules: Rules, workspace: str) -> dict[str, str]:
    return {name: each.fault for name, each in rules.workspaces[workspace].routes.items()}


def test_a_credential_that_cannot_be_sent_costs_its_own_routes() -> None:
    bad = Endpoint(id="bad", provider="openai", api_key="sk-é-abcdef")
    theirs = WorkspaceRules(
        id="theirs",
        endpoints=[bad, GOOD],
        routes=[Route(id="a", endpoint="bad"), Route(id="b", endpoint="good")],
    )
    ours = WorkspaceRules(
        id="ours", endpoints=[GOOD], routes=[Route(id="c", endpoint="good")], keys=[KEY]
    )
    rules = built(theirs, ours)
    assert faults(rules, "theirs") == {"a": "endpoint bad cannot be used", "b": ""}
    assert faults(rules, "ours") == {"c": ""}
    assert set(rules.keys) == {"abcd"}


def test_a_pack_that_does_not_compile_costs_its_own_routes() -> None:
    """SECURITY: they are not served without it."""
    pack = PolicyPack.model_validate(
        {
            "policy_pack_id": "p",
            "rules": [{"rule_id": "x", "kind": "regex", "pattern": "(?<=a)b", "action": "block"}],
        }
    )
    route = Route(id="guarded", endpoint="good", policy_packs=["p"])
    lost = Route(id="lost", endpoint="good", policy_packs=["gone"])
    open_route = Route(id="open", endpoint="good")
    only = WorkspaceRules(
        id="default", endpoints=[GOOD], routes=[route, lost, open_route], policies=[pack]
    )
    found = faults(built(only), "default")
    assert found["guarded"].startswith("its packs cannot be used: ")
    assert found["lost"].startswith("its packs cannot be used: ")
    assert found["open"] == ""


def test_only_the_packs_that_changed_are_compiled_again() -> None:
    def snapshot(pattern: str) -> SnapshotDoc:
        packs = [
            {
                "policy_pack_id": name,
                "rules": [{"rule_id": "x", "pattern": text, "action": "block"}],
            }
            for name, text in (("same", "forbidden"), ("other", pattern))
        ]
        routes = [
            Route(id=each, endpoint="good", policy_packs=[each]) for each in ("same", "other")
        ]
        rules = WorkspaceRules(
            id="default",
            endpoints=[GOOD],
            routes=routes,
            policies=[PolicyPack.model_validate(each) for each in packs],
        )
        return SnapshotDoc(version=1, sha256="", workspaces=[rules])

    kept = Kept()
    same, other = ("default", ("same",)), ("default", ("other",))
    first = build_guards(snapshot("secret"), kept)
    second = build_guards(snapshot("secrets"), kept)
    assert second[same] is first[same]
    assert second[other] is not first[other]
    build_guards(SnapshotDoc(version=3, sha256=""), kept)
    assert repr(kept) == "<Kept 0 guards>"
