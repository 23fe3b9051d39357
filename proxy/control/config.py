"""What the control API knows of the configuration in force: workspaces, keys, settings.

Built whole when a configuration is applied and never changed afterwards, so that one request sees
one configuration.  What cannot be read (an expiry, a network) closes the key and opens nothing.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proxy.model.events import parse_time
from proxy.model.exchange import Json
from proxy.model.tenancy import ApiKey, GuardSettings, WorkspaceRules
from proxy.settings.schema import Control, Ingest

READS: Final = frozenset(
    f"{noun}:read"
    for noun in (
        "events", "policies", "alerts", "deliveries", "failover", "incidents", "routes",
        "watchers", "digests", "workspaces",
    )
)  # fmt: skip
OPERATES: Final = frozenset(
    {"incidents:write", "alerts:write", "deliveries:write", "failover:write"}
)
ADMINISTERS: Final = frozenset(
    {
        "policies:write", "routes:write", "watchers:write", "digests:write", "workspaces:write",
        "keys:read", "keys:write", "audit:read", "ingest:write", "proxy:invoke",
    }
)  # fmt: skip
SCOPES_OF_ROLE: Final[Mapping[str, frozenset[str]]] = {
    "viewer": READS,
    "operator": READS | OPERATES,
    "admin": READS | OPERATES | ADMINISTERS,
    "ingest": frozenset({"ingest:write"}),
    "app": frozenset({"proxy:invoke"}),
}
ALL_WORKSPACES: Final = "*"
Declared = tuple[str, dict[str, Json]]  # where it stands in the file, and what it says
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True, frozen=True)
class Principal:
    """Who is calling.  `workspaces` None: all of them.  `networks` None: from anywhere."""

    key_id: str
    name: str
    role: str | None
    scopes: frozenset[str]
    workspaces: frozenset[str] | None
    networks: tuple[Network, ...] | None = None
    expires_ms: int | None = None

    @property
    def server_admin(self) -> bool:
        return self.role == "admin" and self.workspaces is None

    def bound_to(self, workspace_id: str) -> bool:
        return self.workspaces is None or workspace_id in self.workspaces

    def admits(self, address: str) -> bool:
        if self.networks is None:
            return True
        try:
            caller = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(caller in network for network in self.networks)


ADMIN: Final = Principal("admin", "admin", "admin", SCOPES_OF_ROLE["admin"], None)


class KnownKey(NamedTuple):
    """`digest` is the SHA-256 of the secret; `previous` that of the one before a rotation, which is
    taken until `previous_until_ms`."""

    digest: bytes
    principal: Principal
    previous: bytes | None = None
    previous_until_ms: int = 0


@dataclass(slots=True, frozen=True)
class ControlConfig:
    """`keys` are those that may call, by id.  `documents`: what the file declares, by
    workspace and kind.  `packs`: the policy packs that are shipped.  `time_zones`: IANA names by
    workspace."""

    workspaces: Mapping[str, WorkspaceRules]
    keys: Mapping[str, KnownKey]
    admin_digest: bytes | None
    public_url: str
    control: Control = field(default_factory=Control)
    ingest: Ingest = field(default_factory=Ingest)
    documents: Mapping[tuple[str, str], Sequence[Declared]] = field(default_factory=dict)
    packs: Sequence[Declared] = ()
    time_zones: Mapping[str, str] = field(default_factory=dict)
    guard: GuardSettings = field(default_factory=GuardSettings)

    @classmethod
    def of(
        cls,
        workspaces: Sequence[WorkspaceRules],
        admin_key: str | None,
        public_url: str,
        control: Control | None = None,
        ingest: Ingest | None = None,
        documents: Mapping[tuple[str, str], Sequence[Declared]] | None = None,
        packs: Sequence[Declared] = (),
        time_zones: Mapping[str, str] | None = None,
        guard: GuardSettings | None = None,
    ) -> "ControlConfig":
        keys: dict[str, KnownKey] = {}
        for workspace in workspaces:
            for key in workspace.keys:
                keys.setdefault(key.id, _known(key, workspace.id))
        return cls(
            workspaces={workspace.id: workspace for workspace in workspaces},
            keys=keys,
            admin_digest=hashlib.sha256(admin_key.encode()).digest() if admin_key else None,
            public_url=public_url.rstrip("/"),
            control=control or Control(),
            ingest=ingest or Ingest(),
            documents=documents or {},
            packs=packs,
            time_zones=time_zones or {},
            guard=guard or GuardSettings(),
        )

    def shipped(self, kind: str) -> Sequence[Declared]:
        """What every workspace has without saying so, unless it says something of its own."""
        return self.packs if kind == "policy" else ()

    def declared(self, workspace_id: str, kind: str) -> Sequence[Declared]:
        """Documents of that kind in the configuration file."""
        return self.documents.get((workspace_id, kind), ())

    def time_zone(self, workspace_id: str) -> str:
        """Where a workspace's days begin."""
        return self.time_zones.get(workspace_id, "UTC")

    def routes_of(self, workspace_id: str) -> frozenset[str]:
        workspace = self.workspaces.get(workspace_id)
        return frozenset(route.id for route in workspace.routes) if workspace else frozenset()


def _known(key: ApiKey, home: str) -> KnownKey:
    digest, principal = bytes.fromhex(key.secret_sha256), _principal(key, home)
    if key.previous_sha256 is None or key.previous_expires_at is None:
        return KnownKey(digest, principal)
    until_ms = parse_time(key.previous_expires_at) or 0
    return KnownKey(digest, principal, bytes.fromhex(key.previous_sha256), until_ms)


def _principal(key: ApiKey, home: str) -> Principal:
    everywhere = ALL_WORKSPACES in key.workspaces
    expires_ms = None
    if key.expires_at is not None:
        read = parse_time(key.expires_at)
        expires_ms = 0 if read is None else read
    return Principal(
        key_id=key.id,
        name=key.name or key.id,
        role=key.role,
        scopes=SCOPES_OF_ROLE.get(key.role or "", frozenset()) | frozenset(key.scopes),
        workspaces=None if everywhere else frozenset(key.workspaces or [home]),
        networks=tuple(_networks(key.allowed_cidrs)) if key.allowed_cidrs else None,
        expires_ms=expires_ms,
    )


def _networks(cidrs: Iterable[str]) -> Iterable[Network]:
    for cidr in cidrs:
        try:
            yield ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            continue  # admits nobody
