"""`config/parapet.yaml` is the annotated default: every setting stands in it, with its default."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from proxy.settings.check import report_on
from proxy.settings.explain import unwrapped
from proxy.settings.load import load_config
from proxy.settings.packs import PackShelf, read_pack, settle
from proxy.settings.schema import Config

CONFIG = Path(__file__).parents[2] / "config"
ANNOTATED = CONFIG / "parapet.yaml"
PACKS = sorted((CONFIG / "packs").glob("*.yaml"))


def documents(kind: Any) -> Iterator[type[BaseModel]]:
    """Every document type that a type holds, at any depth."""
    for option in unwrapped(kind):
        if isinstance(option, type) and issubclass(option, BaseModel):
            yield option
            for field in option.model_fields.values():
                yield from documents(field.annotation)
        for inner in get_args(option):
            yield from documents(inner)


def test_every_setting_appears() -> None:
    text = ANNOTATED.read_text() + "".join(path.read_text() for path in PACKS)
    text = text.replace("extends: null", "extends: null") + "\n"
    missing = {
        f"{document.__name__}.{field.alias or name}"
        for document in set(documents(Config))
        for name, field in document.model_fields.items()
        if not re.search(rf"(?<![\w$]){re.escape(field.alias or name)}:", text)
    }
    assert missing == set()


def test_it_loads_back_to_the_defaults_its_example_workspace_aside() -> None:
    config = load_config(ANNOTATED, {}).config
    example, default = config.workspaces[0], Config().workspaces[0]
    assert config.model_copy(update={"workspaces": [default]}) == Config()
    assert example.model_copy(update={"endpoints": [], "routes": []}) == default


def test_it_serves_on_a_bare_machine() -> None:
    """No key in the environment: the callers' own go through, on guarded routes."""
    report = report_on(load_config(ANNOTATED, {}))
    (workspace,) = report.workspaces
    assert {each.credential for each in workspace.endpoints} == {"unset"}
    assert all(route.coverage is not None for route in workspace.routes)
    assert report.holes == []


def test_its_commented_examples_are_legal(tmp_path: Path) -> None:
    """Take the comment signs away: every member is one that the schema knows."""
    lines = []
    inside = False
    for line in ANNOTATED.read_text().splitlines():
        commented = re.match(r"      # ([- ] .*)$", line)
        inside = inside or line.startswith("workspaces:")
        emptied = re.match(
            r"    (failover_policies|alert_rules|deliveries|watchers|keys): \[\]", line
        )
        if inside and commented:
            lines.append(f"      {commented[1]}")
        elif inside and emptied:
            lines.append(f"    {emptied[1]}:")
        else:
            lines.append(line)
    text = "\n".join(lines).replace("[safety-v2, pii-core]", "[safety-v2]")
    text = text.replace("policy_files: []", f"policy_files: [{PACKS[0]}]")
    text = text.replace("endpoint: bedrock-claude\n", "endpoint: anthropic\n", 1)
    text = text.replace("profile: generic", "profile: generic")
    path = tmp_path / "parapet.yaml"
    path.write_text(text)
    (tmp_path / "vertex-token").write_text("token\n")
    names = re.findall(r"\$env: (\w+)", text)
    config = load_config(path, dict.fromkeys(names, "x" * 40)).config
    (workspace,) = config.workspaces
    for name in ("failover_policies", "alert_rules", "deliveries", "watchers", "keys"):
        assert len(getattr(workspace, name)) == 1, name
    assert (len(workspace.endpoints), len(workspace.routes)) == (3, 3)


def test_the_example_packs_are_legal() -> None:
    assert PACKS
    for path in PACKS:
        source = read_pack(path.read_bytes(), path.name)
        assert source.pack.policy_pack_id == path.stem
        _, problems, _ = settle(PackShelf(), [source])
        assert problems == []
