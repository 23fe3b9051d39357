"""The documents of the store that are part of the rules in force, as `settings/overlay.py` takes
them: by workspace and kind, as they were written."""

from collections.abc import Iterable
from typing import Final

from proxy.control.kinds import Object, parts_of
from proxy.model.events import SERVER_WORKSPACE
from proxy.model.ports import Store

OF_A_WORKSPACE: Final = ("endpoint", "route", "failover_policy", "policy", "policy_version")
OF_THE_SERVER: Final = ("workspace", "key")
Documents = dict[tuple[str, str], list[tuple[str, Object]]]


async def living_documents(store: Store, workspaces: Iterable[str]) -> Documents:
    """All of them, of these workspaces and of those in the store.  Raises StoreUnavailable."""
    found: Documents = {}
    for kind in OF_THE_SERVER:
        await _read(store, SERVER_WORKSPACE, kind, found)
    named = [doc_id for doc_id, _ in found.get((SERVER_WORKSPACE, "workspace"), ())]
    for workspace_id in dict.fromkeys([*workspaces, "default", *named]):
        for kind in OF_A_WORKSPACE:
            await _read(store, workspace_id, kind, found)
    return found


async def _read(store: Store, workspace_id: str, kind: str, found: Documents) -> None:
    rows = await store.scan(workspace_id, kind)
    if rows:
        found[workspace_id, kind] = [(doc_id, parts_of(body)[0]) for doc_id, _, body in rows]
