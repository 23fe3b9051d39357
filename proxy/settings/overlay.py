"""The documents of the store laid under those of the file: together they are what is in force.

The file wins where both say something; what it hides is named and visible again when the file
drops it (control-api.md §3).  A document of the store may name what is not there: its route is then
marked as unusable and serves nobody, and everything else is in force.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from proxy.model.documents import Doc
from proxy.model.events import SERVER_WORKSPACE
from proxy.model.exchange import Json
from proxy.model.failover import FailoverPolicy
from proxy.model.policy import Policy, PolicyPack
from proxy.model.tenancy import ApiKey, Endpoint, Route
from proxy.settings.crosscheck import endpoint_faults
from proxy.settings.load import Loaded
from proxy.settings.packs import (
    PackShelf,
    PackSource,
    builtin_packs,
    find_pack,
    misfit,
    settle,
    unbounded,
)
from proxy.settings.problems import ConfigError
from proxy.settings.schema import Workspace
from proxy.settings.secrets import Fence, SecretFault, SecretReader, secrets_in
from proxy.settings.yamlfile import Tree
from proxy.wire.providers.registry import adapter_of

DEFAULT: Final = "default"
FILE_MEMBERS: Final = ("ca_file", "client_cert_file", "client_key_file")
Object = dict[str, Json]
Documents = Mapping[tuple[str, str], Sequence[tuple[str, Object]]]
Model = TypeVar("Model", bound=Doc)


@dataclass(slots=True, frozen=True)
class InForce:
    """`shadowed`: `workspace/kind/id` of what the file hides.  `refused`: documents of the store
    that are left out, each with the reason."""

    loaded: Loaded
    shadowed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def overlay(loaded: Loaded, documents: Documents) -> InForce:
    """What is in force.  `documents` are those of the store by (workspace, kind), as they were
    written; keys and workspaces stand under `_server`."""
    return _Overlay(loaded, documents).laid()


class _Overlay:
    """One run: what was laid together so far."""

    def __init__(self, loaded: Loaded, documents: Documents) -> None:
        control = loaded.config.control
        self._loaded = loaded
        self._documents = documents
        self._directory = Path(control.secrets_dir)
        self._reader = SecretReader(
            loaded.reader.environ, fence=Fence(control.secret_env_prefix, self._directory)
        )
        self._builtin: dict[str, PackSource] | None = None
        self._shadowed: list[str] = []
        self._refused: list[str] = []
        self._unusable: dict[str, dict[str, str]] = {}
        self._packs: dict[str, Mapping[str, PackSource]] = {}

    def laid(self) -> InForce:
        if not any(self._documents.values()):
            return InForce(self._loaded)
        workspaces = [self._workspace(each) for each in self._workspaces()]
        config = self._loaded.config.model_copy(update={"workspaces": workspaces})
        loaded = dataclasses.replace(
            self._loaded, config=config, packs=self._packs, unusable=self._unusable
        )
        return InForce(loaded, self._shadowed, self._refused)

    def _workspaces(self) -> list[Workspace]:
        """Those of the file, then those of the store; the default always exists."""
        found = list(self._loaded.config.declared_workspaces)
        own = {each.id for each in found}
        found += self._stored(SERVER_WORKSPACE, "workspace", Workspace, own)
        if all(each.id != DEFAULT for each in found):
            found.append(Workspace(id=DEFAULT))
        return found

    def _workspace(self, file: Workspace) -> Workspace:
        endpoints = self._endpoints(file)
        policies = self._failover(file)
        packs, attached = self._shelf(file)
        own = {each.id for each in file.routes}
        routes = [*file.routes, *self._stored(file.id, "route", Route, own)]
        routes = [_with_packs(route, attached.get(route.id, ())) for route in routes]
        known = frozenset(each.id for each in endpoints)
        served = {each.route_id: each for each in policies if each.status == "active"}
        self._packs[file.id] = packs
        self._unusable[file.id] = {
            route.id: why
            for route in routes
            if (why := _unusable(route, served.get(route.id), known, packs))
        }
        keys = list(file.keys)
        if file.id == DEFAULT:
            taken = {key.id for each in self._loaded.config.workspaces for key in each.keys}
            keys += self._stored(SERVER_WORKSPACE, "key", ApiKey, taken)
        return file.model_copy(
            update={
                "endpoints": endpoints,
                "routes": routes,
                "failover_policies": policies,
                "keys": keys,
            }
        )

    def _endpoints(self, file: Workspace) -> list[Endpoint]:
        own = {each.id for each in file.endpoints}
        found = self._stored(file.id, "endpoint", Endpoint, own, self._endpoint_fault)
        return [*file.endpoints, *(placed(each, self._directory) for each in found)]

    def _endpoint_fault(self, endpoint: Endpoint) -> str:
        for problem in endpoint_faults(endpoint, ()):
            return str(problem)
        for path, secret in secrets_in(endpoint):
            try:
                self._reader.value(secret)
            except SecretFault as fault:
                if not (fault.unset and path == ("api_key",)):  # then the caller's own key goes on
                    return f"{'.'.join(str(part) for part in path)}: {fault}"
        try:
            adapter_of(placed(endpoint, self._directory), self._reader.optional)
        except ValueError as fault:
            return str(fault)
        return ""

    def _failover(self, file: Workspace) -> list[FailoverPolicy]:
        """SECURITY: of two active policies on a route the file's stays, and the other is told."""
        own = {each.id for each in file.failover_policies if each.id}
        taken = {each.route_id for each in file.failover_policies if each.status == "active"}

        def fault(policy: FailoverPolicy) -> str:
            if policy.status == "active" and policy.route_id in taken:
                return f"route {policy.route_id} has an active policy in the file"
            return ""

        stored = self._stored(file.id, "failover_policy", FailoverPolicy, own, fault)
        return [*file.failover_policies, *stored]

    def _shelf(self, file: Workspace) -> tuple[dict[str, PackSource], dict[str, list[str]]]:
        """The packs that routes of the workspace may name, and those that attach themselves.

        A pack stands under its id (the active version) and, when a route pins it, under
        `id@version`."""
        packs = dict(self._loaded.packs.get(file.id, {}))
        own = {each.policy_pack_id for each in file.policies} | {
            name for name, source in packs.items() if not source.location.startswith("builtin:")
        }
        active = self._stored(file.id, "policy", Policy, own)
        pinned = _pinned(self._documents.get((file.id, "route"), ()))
        newest = {each.policy_pack_id: source_of(each) for each in active}
        wanted = dict(newest)
        for name, said in self._documents.get((file.id, "policy_version"), ()):
            document = self._valid(file.id, f"policy/{name}", Policy, said)
            if document is not None and name in pinned and document.policy_pack_id not in own:
                wanted[name] = source_of(document)
        shelf = PackShelf(
            {name: packs[name] for name in own if name in packs} | newest,
            self._builtin_packs() if wanted or pinned else {},
        )
        for name, source in wanted.items():
            settled, problems, _ = settle(shelf, [source], unbounded)
            if problems:
                self._refused.append(f"{file.id}/policy/{name}: {problems[0]}")
                packs.pop(name, None)
            else:
                packs[name] = settled[source.pack.policy_pack_id]
        for each in active:
            if each.status == "paused" and each.policy_pack_id in packs:
                packs[each.policy_pack_id] = _paused(packs[each.policy_pack_id])
        named = {name.partition("@")[0] for name in pinned}
        for name in sorted(named & shelf.builtin.keys() - packs.keys() - newest.keys()):
            packs |= settle(shelf, [shelf.builtin[name]], unbounded)[0]
        return packs, self._attached(file)

    def _attached(self, file: Workspace) -> dict[str, list[str]]:
        """Per route the packs of the store that name it.

        SECURITY: also those that were refused (a route that lacks its pack serves nobody) and those
        that the file hides (then the file's pack of that name stands there)."""
        attached: dict[str, list[str]] = {}
        for name, said in sorted(self._documents.get((file.id, "policy"), ()), key=itemgetter(0)):
            routes = said.get("route_ids")
            for route_id in routes if isinstance(routes, list) else ():
                attached.setdefault(str(route_id), []).append(name)
        return attached

    def _valid(
        self, workspace_id: str, name: str, model: type[Model], said: Object
    ) -> Model | None:
        plain = {member: value for member, value in said.items() if member != "labels"}
        try:
            return model.model_validate(plain)
        except ValidationError:
            self._refused.append(f"{workspace_id}/{name}: not valid in this version")
            return None

    def _builtin_packs(self) -> dict[str, PackSource]:
        if self._builtin is None:
            try:
                self._builtin = builtin_packs()
            except ConfigError as error:
                self._builtin = {}
                self._refused.append(f"shipped packs: {error}")
        return self._builtin

    def _stored(
        self,
        workspace_id: str,
        kind: str,
        model: type[Model],
        own: Iterable[str],
        fault: Callable[[Model], str] | None = None,
    ) -> list[Model]:
        """Those of the store that the file does not hide and that are valid."""
        hidden = frozenset(own)
        found: list[Model] = []
        for name, said in self._documents.get((workspace_id, kind), ()):
            if name in hidden:
                self._shadowed.append(f"{workspace_id}/{kind}/{name}")
                continue
            document = self._valid(workspace_id, f"{kind}/{name}", model, said)
            why = fault(document) if fault is not None and document is not None else ""
            if why:
                self._refused.append(f"{workspace_id}/{kind}/{name}: {why}")
            elif document is not None:
                found.append(document)
        return found


def source_of(document: PolicyPack) -> PackSource:
    """A pack of the store, as those of files are known."""
    said = document.model_dump(mode="json", exclude_unset=True, exclude={"status", "route_ids"})
    pack = PolicyPack.model_validate(said)
    location = f"policies/{pack.policy_pack_id}"
    return PackSource(pack, location, Tree(location, said))


def _paused(source: PackSource) -> PackSource:
    """Switched off itself, while the packs that extend it run on."""
    off = source.effective.model_copy(update={"enabled": False})
    return dataclasses.replace(source, extended=off)


def _pinned(routes: Iterable[tuple[str, Object]]) -> frozenset[str]:
    """Every pack that a route of the store names."""
    named: set[str] = set()
    for _, said in routes:
        packs = said.get("policy_packs")
        named |= {str(each) for each in packs} if isinstance(packs, list) else set()
    return frozenset(named)


def _with_packs(route: Route, attached: Sequence[str]) -> Route:
    """The route with the packs that name it, after those that it names."""
    listed = {reference.partition("@")[0] for reference in route.policy_packs}
    more = [name for name in attached if name not in listed]
    if not more:
        return route
    return route.model_copy(update={"policy_packs": [*route.policy_packs, *more]})


def _unusable(
    route: Route,
    policy: FailoverPolicy | None,
    endpoints: frozenset[str],
    packs: Mapping[str, PackSource],
) -> str:
    """Why a route can serve nobody; empty when it can."""
    wanted = [route.endpoint]
    if policy is not None:
        wanted = [policy.primary_endpoint, *policy.fallback_endpoints]
    if not endpoints & set(wanted):
        return f"endpoint {wanted[0]} is not there"
    for reference in route.policy_packs:
        source = find_pack(packs, reference)
        if source is None:
            return f"policy pack {reference} is not there"
        why = misfit(source.effective, route, endpoints)
        if why:
            return f"policy pack {reference} {why}"
    return ""


def placed(endpoint: Endpoint, directory: Path) -> Endpoint:
    """The same endpoint with absolute file names.

    SECURITY: files that the API names lie in `control.secrets_dir`, wherever that is."""
    document: Object = endpoint.model_dump(mode="json", by_alias=True)
    changed = False
    for name, value in document.items():
        if isinstance(value, dict) and isinstance(value.get("$file"), str):
            document[name] = {"$file": str(directory / str(value["$file"]))}
            changed = True
        elif name in FILE_MEMBERS and isinstance(value, str):
            document[name] = str(directory / value)
            changed = True
    return Endpoint.model_validate(document) if changed else endpoint
