"""The control API on a loopback socket, with a store, a clock and keys that tests choose."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from proxy.app.standings import NodeStandings
from proxy.control.body import BodyPace
from proxy.control.config import SCOPES_OF_ROLE, ControlConfig, Declared
from proxy.control.contract import Contract
from proxy.control.frame import ControlDeps
from proxy.control.intake import EventIntake
from proxy.control.key_uses import KeyUses
from proxy.control.keys import declared_key
from proxy.control.listener import ListenerLimits
from proxy.control.living import living_documents
from proxy.control.readiness import ConfigState, NodeStatus, Readiness, WorkerState
from proxy.control.server import start_control
from proxy.model.coord import NodeBeat
from proxy.model.exchange import Json
from proxy.model.ports import Coord, Store
from proxy.model.tenancy import ApiKey, Endpoint, GuardSettings, Route, WorkspaceRules
from proxy.routing.effects import Effect
from proxy.settings.load import Loaded
from proxy.settings.overlay import InForce, overlay
from proxy.settings.schema import Config, Control, Ingest, Workspace
from proxy.settings.snapshot import compile_snapshot
from proxy.spool.keeper import Keeper
from proxy.storage.coord import LocalCoord
from proxy.telemetry.exposition import Registry
from tests.kit.fakes import CountingIds, FakeClock
from tests.kit.store import MemoryStore

ADMIN_KEY = "admin-key-of-the-tests-0123456789abcdef"
SECRET = "s" * 40
NOW = "2024-03-15T14:30:00Z"
EVENT = {"event_id": "evt-1", "route_id": "prod-chat", "timestamp": NOW}
CHANGE = {"provider": "anthropic", "change_id": "c-1", "classification": "pricing_change"}


SHIPPED: dict[str, Json] = {
    "policy_pack_id": "secrets-core",
    "version": "1.0.0",
    "rules": [{"rule_id": "word", "pattern": "shipped"}],
}


def key(key_id: str, role: str | None = "admin", secret: str = SECRET, **more: Any) -> ApiKey:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return ApiKey.model_validate({"id": key_id, "secret_sha256": digest, "role": role, **more})


def bearer(key_id: str, secret: str = SECRET) -> dict[str, str]:
    return {"Authorization": f"Bearer ppt_{key_id}_{secret}"}


ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}


def workspace(workspace_id: str, *keys: ApiKey) -> WorkspaceRules:
    return WorkspaceRules(
        id=workspace_id,
        endpoints=[Endpoint(id="anthropic-claude", provider="anthropic")],
        routes=[Route(id="prod-chat", endpoint="anthropic-claude")],
        keys=list(keys),
    )


def file_of(workspaces: Sequence[WorkspaceRules]) -> dict[tuple[str, str], list[Declared]]:
    """What the workspaces are made of, as documents of the file."""
    found: dict[tuple[str, str], list[Declared]] = {}
    for rules in workspaces:
        own: dict[str, Json] = {"id": rules.id, "name": rules.id}
        found.setdefault(("_server", "workspace"), []).append((f"parapet.yaml#/{rules.id}", own))
        for place, each_key in enumerate(rules.keys):
            shown = declared_key(each_key.model_dump(mode="json", exclude_unset=True), rules.id)
            where = f"parapet.yaml#/{rules.id}/keys/{place}"
            found.setdefault(("_server", "key"), []).append((where, shown))
        for kind, documents in (("endpoint", rules.endpoints), ("route", rules.routes)):
            for place, each in enumerate(documents):
                said = each.model_dump(mode="json", exclude_unset=True)
                where = f"parapet.yaml#/{rules.id}/{kind}s/{place}"
                found.setdefault((rules.id, kind), []).append((where, said))
    return found


WORKSPACES = (
    workspace(
        "default",
        key("admin0000000"),
        key("viewer000000", "viewer"),
        key("operator0000", "operator"),
        key("ingest000000", "ingest"),
        key("app000000000", "app"),
        key("scoped000000", None, scopes=["events:read"]),
        key("everything00", None, scopes=sorted(SCOPES_OF_ROLE["admin"]), workspaces=["*"]),
        key("keeper000000", None, scopes=["keys:read", "keys:write", "events:read"]),
        key("writer000000", None, scopes=["routes:read", "routes:write"]),
        key("expired00000", expires_at="2024-03-15T14:29:59Z"),
        key("elsewhere000", allowed_cidrs=["10.0.0.0/8"]),
        key("both00000000", workspaces=["default", "other"]),
        key("root00000000", workspaces=["*"]),
    ),
    workspace("other", key("foreign00000")),
)


@dataclass
class Status:
    """A `StatusSource` whose answers tests set."""

    ready: Readiness = field(default_factory=lambda: Readiness(True, True, True))
    lag_s: float = 0.0
    stopping: bool = False
    nodes: list[NodeBeat] = field(default_factory=list)

    def status(self) -> NodeStatus:
        return NodeStatus(
            "node-1", "0.1.0", 12.34, ConfigState("abc123"), 7, [WorkerState(0, config_version=7)],
            nodes=self.nodes, warnings=["the nodes differ"] if len(self.nodes) > 1 else [],
        )  # fmt: skip

    def readiness(self) -> Readiness:
        return self.ready

    def draining(self) -> bool:
        return self.stopping

    def loop_lag_s(self) -> float:
        return self.lag_s


@dataclass
class World:
    """Everything of one running control API that a test may look at or change."""

    store: Store
    clock: FakeClock
    status: Status = field(default_factory=Status)
    control: Control = field(default_factory=Control)
    ingest: Ingest = field(default_factory=Ingest)
    workspaces: tuple[WorkspaceRules, ...] = WORKSPACES
    rules: tuple[WorkspaceRules, ...] = ()
    declared: Mapping[tuple[str, str], Sequence[Declared]] = field(default_factory=dict)
    time_zones: Mapping[str, str] = field(default_factory=dict)
    told: list[tuple[str, dict[str, Json]]] = field(default_factory=list)
    wrong: list[Json] = field(default_factory=list)
    reloads: int = 0
    crash: Exception | None = None
    contract: Contract = field(default_factory=Contract)
    port: int = 0
    metrics: Registry = field(default_factory=lambda: Registry("0.1.0"))
    session: aiohttp.ClientSession = field(init=False)
    intake: EventIntake = field(init=False)
    coord: Coord = field(init=False)
    runner: web.ServerRunner = field(init=False)
    in_force: InForce | None = None
    key_uses: KeyUses = field(default_factory=KeyUses)
    guard: GuardSettings = field(default_factory=GuardSettings)
    keeper: Keeper | None = None
    applying: asyncio.Lock = field(default_factory=asyncio.Lock)
    standings: NodeStandings = field(init=False)
    effects: list[Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.standings = NodeStandings(
            self.clock, lambda _, effect, __: self.effects.append(effect), lambda: 0.5
        )

    def config(self) -> ControlConfig:
        return ControlConfig.of(
            self.rules or self.workspaces,
            ADMIN_KEY,
            "http://control.test",
            self.control,
            self.ingest,
            {**file_of(self.workspaces), **self.declared},
            [("builtin:packs/small.yaml", SHIPPED)],
            self.time_zones,
            self.guard,
        )

    async def apply(self) -> None:
        """One after the other, as in the process: nothing older comes after something newer."""
        async with self.applying:
            await self._apply()

    async def _apply(self) -> None:
        """What the store holds, laid under what the workspaces of this test are."""
        named = [each.id for each in self.workspaces]
        documents = await living_documents(self.store, named)
        members = {"id", "default_route", "endpoints", "routes", "failover_policies", "keys"}
        said = [w.model_dump(include=members, exclude_unset=True) for w in self.workspaces]
        file = [Workspace.model_validate(each) for each in said]
        config = Config(workspaces=file, control=self.control)
        loaded = Loaded(config, Path("parapet.yaml"), (), "")
        self.in_force = await asyncio.to_thread(overlay, loaded, documents)
        snapshot = compile_snapshot(self.in_force.loaded, 1)
        self.standings.keep(snapshot)
        self.rules = tuple(snapshot.workspaces)

    async def reload(self) -> list[Json]:
        self.reloads += 1
        if self.crash is not None:
            raise self.crash
        return self.wrong

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] = ADMIN,
        **more: Any,
    ) -> "Answer":
        sent: dict[str, Any] = {"json": body} if body is not None else {}
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, headers=headers, **sent, **more) as got:
            content = await got.read()
            doc = await got.json(content_type=None) if b"{" in content[:1] else None
            return Answer(got.status, got.headers, content, doc)

    async def get(self, path: str, headers: Mapping[str, str] = ADMIN) -> "Answer":
        return await self.call("GET", path, headers=headers)

    async def post(self, path: str, body: object, headers: Mapping[str, str] = ADMIN) -> "Answer":
        return await self.call("POST", path, body, headers)

    async def ingest_runtime(self, body: object, **headers: str) -> "Answer":
        return await self.post("/v1/ingest/runtime", body, {**bearer("admin0000000"), **headers})

    async def ingest_change(self, body: object, **headers: str) -> "Answer":
        return await self.post("/v1/ingest/change", body, {**bearer("admin0000000"), **headers})

    async def raw_or_nothing(self) -> bytes:
        """A health check on a connection of its own; nothing when it is closed at once."""
        try:
            return await self.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        except ConnectionError:
            return b""

    async def raw(self, data: bytes) -> bytes:
        """What comes back for raw bytes until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    doc: Any

    @property
    def slug(self) -> str:
        return str(self.doc["type"]).rpartition("/")[2]

    def codes(self) -> list[tuple[str, str]]:
        return [(error["field"], error["code"]) for error in self.doc["errors"]]


@asynccontextmanager
async def running(
    store: Store | None = None,
    *,
    limits: ListenerLimits | None = None,
    pace: BodyPace | None = None,
    **more: Any,
) -> AsyncIterator[World]:
    clock = more.pop("clock", None) or FakeClock()
    more_coord = more.pop("coord", None)
    world = World(store or MemoryStore(clock), clock, **more)
    ids = CountingIds()
    world.coord = more_coord or LocalCoord(clock)
    world.intake = EventIntake(world.store, clock, ids, world.metrics)
    deps = ControlDeps(
        store=world.store,
        coord=world.coord,
        clock=clock,
        ids=ids,
        intake=world.intake,
        config=world.config,
        metrics=world.metrics,
        status=world.status,
        reload=world.reload,
        apply=world.apply,
        server_key=b"k" * 32,
        contract=world.contract,
        key_uses=world.key_uses,
        keeper=world.keeper,
        standings=world.standings,
        tell=lambda event, fields, fault: world.told.append((event, fields)),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    world.port = listener.getsockname()[1]
    world.runner = await start_control(deps, listener, limits=limits, pace=pace)
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as world.session:
            yield world
    finally:
        await world.runner.cleanup()
