"""The documents of the configuration file as the control API shows them, with where they stand."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from proxy.control.alert_rules import ALERT_RULE
from proxy.control.config import Declared
from proxy.control.deliveries import DELIVERY
from proxy.control.failover import FAILOVER_POLICY
from proxy.control.keys import KEY, declared_key
from proxy.control.kinds import Kind
from proxy.control.policies import POLICY
from proxy.control.routing import ENDPOINT, ROUTE
from proxy.control.watchers import WATCHER
from proxy.control.workspaces import WORKSPACE
from proxy.model.documents import slug
from proxy.model.events import SERVER_WORKSPACE
from proxy.model.exchange import Json
from proxy.model.failover import FailoverPolicy
from proxy.settings.load import Loaded
from proxy.settings.packs import BUILTIN, PackSource, builtin_packs
from proxy.settings.schema import Workspace

Found = dict[tuple[str, str], list[Declared]]


def declared(loaded: Loaded) -> Found:
    """By workspace and kind.  What has no id of its own gets it from its name."""
    found: Found = {}
    for index, workspace in enumerate(loaded.config.declared_workspaces):
        at = f"{loaded.path.name}#/workspaces/{index}"
        found.setdefault((SERVER_WORKSPACE, WORKSPACE.name), []).append((at, _workspace(workspace)))
        for place, key in enumerate(workspace.keys):
            shown = declared_key(key.model_dump(mode="json", exclude_unset=True), workspace.id)
            found.setdefault((SERVER_WORKSPACE, KEY.name), []).append((f"{at}/keys/{place}", shown))
        for kind, member, documents in _members(workspace):
            for place, document in enumerate(documents):
                said: dict[str, Json] = document.model_dump(
                    mode="json", by_alias=True, exclude_unset=True
                )
                if not said.get(kind.id_member):
                    said[kind.id_member] = _id_of(document)
                found.setdefault((workspace.id, kind.name), []).append(
                    (f"{at}/{member}/{place}", said)
                )
        for source in loaded.packs.get(workspace.id, {}).values():
            if not source.location.startswith(BUILTIN):
                found.setdefault((workspace.id, POLICY.name), []).append(_pack(source))
    return found


def _workspace(workspace: Workspace) -> dict[str, Json]:
    said: dict[str, Json] = workspace.model_dump(
        mode="json", exclude_unset=True, include={"id", "name", "default_route", "settings"}
    )
    return {**said, "name": workspace.name or workspace.id}


def _id_of(document: BaseModel) -> str:
    """Of a document without id: the one that its name gives."""
    if isinstance(document, FailoverPolicy):
        return document.effective_id
    return slug(str(getattr(document, "name", "")))


def shipped_packs() -> list[Declared]:
    """The policy packs that come with the package."""
    return [_pack(source) for source in builtin_packs().values()]


def _pack(source: PackSource) -> Declared:
    said: dict[str, Json] = source.pack.model_dump(mode="json", exclude_unset=True)
    return source.location, {"version": source.pack.version, **said}


def _members(workspace: Workspace) -> Iterator[tuple[Kind, str, Sequence[BaseModel]]]:
    yield ENDPOINT, "endpoints", workspace.endpoints
    yield ROUTE, "routes", workspace.routes
    yield FAILOVER_POLICY, "failover_policies", workspace.failover_policies
    yield ALERT_RULE, "alert_rules", workspace.alert_rules
    yield DELIVERY, "deliveries", workspace.deliveries
    yield WATCHER, "watchers", workspace.watchers
