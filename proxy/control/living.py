"""The documents of the store that are part of the rules in force, as `settings/overlay.py` takes
them: by workspace and kind, as they were written."""

from collections.abc import Iterable
from typing import Final

from proxy.control.keys import KEY_NAME, in_force
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
    documents = ((doc_id, _in_force(kind, body)) for doc_id, _, body in rows)
    living = [(doc_id, said) for doc_id, said in documents if said is not None]
    if living:
        found[workspace_id, kind] = living


def _in_force(kind: str, body: bytes) -> Object | None:
    said, kept = parts_of(body)
    return in_force(said, kept) if kind == KEY_NAME else said
