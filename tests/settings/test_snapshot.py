"""The compiled view of the rules, and its files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.model.documents import FileRef
from proxy.settings.load import Loaded
from proxy.settings.snapshot import compile_snapshot, content_hash, read_snapshot, write_snapshot

Load = Callable[..., Loaded]

TEXT = """\
server: {data_auth: keys, max_in_flight: 7, max_body_bytes: 1MiB}
drain: {lb_delay_seconds: 0}
guard: {policy_header: rules}
workspaces:
  - id: team
    default_route: r
    endpoints:
      - {id: e, provider: openai, api_key: {$file: key}, ca_file: ca.pem}
      - {id: f, provider: anthropic, api_key: {$env: KEY}}
    routes:
      - {id: r, endpoint: e, policy_packs: [mine@1.0.0]}
    policies:
      - {policy_pack_id: mine, extends: base, rules: [{rule_id: one, action: block}]}
      - {policy_pack_id: unused, rules: []}
      - policy_pack_id: base
        description: the base
        lists: {names: [alpha]}
        rules:
          - {rule_id: one, pattern: alpha, action: log}
          - {rule_id: two, pattern: beta, action: redact}
    keys:
      - {id: abcd, secret_sha256: 00000000000000000000000000000000000000000000000000000000000000aa}
"""


@pytest.fixture
def loaded(load: Load) -> Loaded:
    return load(TEXT, {"KEY": "key-of-f-0123"}, files={"key": "key-of-e-0123\n"})


def test_what_a_worker_needs(loaded: Loaded) -> None:
    snapshot = compile_snapshot(loaded, 4)
    assert (snapshot.version, snapshot.data_auth) == (4, "keys")
    assert (snapshot.max_in_flight, snapshot.max_body_bytes) == (7, 1_048_576)
    assert snapshot.guard.policy_header == "rules"
    assert snapshot.drain.lb_delay_seconds == 0
    team, default = snapshot.workspaces
    assert (team.default_route, default.id) == ("r", "default")  # it always exists
    assert [key.id for key in team.keys] == ["abcd"]
    assert snapshot.prices


def test_references_stay_references_and_files_become_absolute(loaded: Loaded) -> None:
    first, second = compile_snapshot(loaded, 1).workspaces[0].endpoints
    assert first.api_key == FileRef(file=str(loaded.base / "key"))
    assert first.ca_file == str(loaded.base / "ca.pem")
    assert second is loaded.config.workspaces[0].endpoints[1]
    text = compile_snapshot(loaded, 1).model_dump_json()
    assert "key-of-e-0123" not in text
    assert "key-of-f-0123" not in text


def test_only_named_packs_travel_merged_with_what_they_extend(loaded: Loaded) -> None:
    (pack,) = compile_snapshot(loaded, 1).workspaces[0].policies
    assert (pack.policy_pack_id, pack.extends, pack.description) == ("mine", None, "the base")
    assert [(rule.rule_id, rule.pattern, rule.action) for rule in pack.rules] == [
        ("one", "alpha", "block"),
        ("two", "beta", "redact"),
    ]


def test_the_hash_is_of_the_rules_not_of_the_version(loaded: Loaded) -> None:
    first, second = compile_snapshot(loaded, 1), compile_snapshot(loaded, 2)
    assert first.sha256 == second.sha256 == content_hash(first)
    other = first.model_copy(update={"max_in_flight": 8})
    assert content_hash(other) != first.sha256


def test_it_comes_back_from_disk(loaded: Loaded, tmp_path: Path) -> None:
    snapshot = compile_snapshot(loaded, 1)
    path = write_snapshot(tmp_path / "var", snapshot)
    assert path.name == "snapshot-1.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_snapshot(tmp_path / "var") == snapshot


def test_the_last_three_are_kept_in_order_of_number(loaded: Loaded, tmp_path: Path) -> None:
    for version in (8, 9, 10, 11):
        write_snapshot(tmp_path, compile_snapshot(loaded, version))
    names = sorted(path.name for path in tmp_path.iterdir() if "snapshot" in path.name)
    assert names == ["snapshot-10.json", "snapshot-11.json", "snapshot-9.json"]
    newest = read_snapshot(tmp_path)
    assert newest is not None
    assert newest.version == 11


# fmt: off
SPOILED: list[Callable[[bytes], bytes]] = [
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: b"\x00" * len(data),
    lambda data: data.replace(b'"max_in_flight":7', b'"max_in_flight":9'),
    lambda data: data.replace(b'"format":1', b'"format":2'),
    lambda data: b"[" * 100_000,
]
# fmt: on


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_spoiled_file_is_passed_over(
    loaded: Loaded, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    write_snapshot(tmp_path, compile_snapshot(loaded, 1))
    path = write_snapshot(tmp_path, compile_snapshot(loaded, 2))
    path.write_bytes(spoil(path.read_bytes()))
    (tmp_path / "snapshot-x.json").write_text("not one of ours")
    newest = read_snapshot(tmp_path)
    assert newest is not None
    assert newest.version == 1


def test_nothing_there(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path) is None
    assert read_snapshot(tmp_path / "none") is None
