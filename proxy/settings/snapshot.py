"""The snapshot: one frozen view of all rules, and its file for a cold start.

References to secrets stay references (each process resolves them), but file names in them are made
absolute, because a worker does not know where the configuration file stands.  A file is valid when
its hash fits: a torn or edited one is passed over for the one before it.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from proxy.model.tenancy import SnapshotDoc, WorkspaceRules
from proxy.settings.files import ensure_directory, replace_file
from proxy.settings.load import Loaded
from proxy.settings.overlay import placed
from proxy.settings.packs import find_pack
from proxy.settings.schema import Workspace
from proxy.wire import jsonbody

KEPT = 3
_NAME = re.compile(r"snapshot-([0-9]{1,18})\.json")


def compile_snapshot(loaded: Loaded, version: int) -> SnapshotDoc:
    """What the workers need of a configuration, with the packs that its routes name."""
    config = loaded.config
    rules = [_rules(workspace, loaded) for workspace in config.workspaces]
    if not any(each.id == "default" for each in rules):
        rules.append(WorkspaceRules(id="default"))  # it always exists
    draft = SnapshotDoc(
        version=version,
        sha256="",
        data_auth=config.server.data_auth,
        max_in_flight=config.server.max_in_flight,
        max_body_bytes=config.server.max_body_bytes,
        guard=config.guard,
        events=config.events,
        drain=config.drain,
        prices=dict(loaded.prices),
        price_version=loaded.price_version,
        workspaces=rules,
    )
    return draft.model_copy(update={"sha256": content_hash(draft)})


def content_hash(snapshot: SnapshotDoc) -> str:
    """SHA-256 of everything but the version: equal rules have equal hashes."""
    content = snapshot.model_dump(mode="json", by_alias=True, exclude={"version", "sha256"})
    return hashlib.sha256(jsonbody.dumps_sorted(content)).hexdigest()


def write_snapshot(state_dir: Path, snapshot: SnapshotDoc) -> Path:
    """Put the snapshot on disk, whole or not at all; the last three are kept."""
    ensure_directory(state_dir)
    path = state_dir / f"snapshot-{snapshot.version}.json"
    replace_file(path, jsonbody.dumps(snapshot.model_dump(mode="json", by_alias=True)))
    for old in list(_newest_first(state_dir))[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_snapshot(state_dir: Path) -> SnapshotDoc | None:
    """The newest valid one; None when there is none."""
    for path in _newest_first(state_dir):
        try:
            snapshot = SnapshotDoc.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if snapshot.sha256 == content_hash(snapshot):
            return snapshot
    return None


def _newest_first(state_dir: Path) -> Iterator[Path]:
    found = [(match, path) for path in state_dir.glob("snapshot-*.json")
             if (match := _NAME.fullmatch(path.name))]  # fmt: skip
    for _, path in sorted(((int(match[1]), path) for match, path in found), reverse=True):
        yield path


def _rules(workspace: Workspace, loaded: Loaded) -> WorkspaceRules:
    packs = loaded.packs.get(workspace.id, {})
    unusable = dict(loaded.unusable.get(workspace.id, {}))
    named = {
        reference
        for route in workspace.routes
        if route.id not in unusable
        for reference in route.policy_packs
    }
    found = [source.effective for name in sorted(named) if (source := find_pack(packs, name))]
    chosen = {(pack.policy_pack_id, pack.version): pack for pack in found}
    active = {id(source.effective) for name, source in packs.items() if "@" not in name}
    return WorkspaceRules(
        id=workspace.id,
        default_route=workspace.default_route,
        endpoints=[placed(endpoint, loaded.base) for endpoint in workspace.endpoints],
        routes=workspace.routes,
        failover_policies=workspace.failover_policies,
        policies=sorted(chosen.values(), key=lambda pack: id(pack) in active),  # the active last
        keys=workspace.keys,
        unusable=unusable,
    )
