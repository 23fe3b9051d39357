"""When a configuration comes into force: what logs hide and say, and how long a stop may take."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.app.control import ControlHalf
from proxy.app.data import DataHalf
from proxy.app.life import DrainLimits
from proxy.app.worker_process import learning
from proxy.control.kinds import body_of
from proxy.control.readiness import ProcessState, WorkerState
from proxy.model.batch import Batch, Put
from proxy.model.events import SERVER_WORKSPACE, NewEvent, iso
from proxy.model.exchange import Json
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import ApiKey, Endpoint, Route, SnapshotDoc, WorkspaceRules
from proxy.runtime.clock import SystemClock
from proxy.settings.known import Known, keep_documents, tag_of
from proxy.settings.load import Loaded, load_config
from proxy.settings.secrets import SecretReader, ensure_server_key
from proxy.settings.snapshot import compile_snapshot
from proxy.telemetry.logs import Log
from tests.kit.fakes import CountingIds
from tests.kit.processes import free_ports

FIRST, SECOND, THIRD = "first-secret-of-a-provider", "second-secret-of-it", "third-secret-of-it"


def config(state_dir: Path, **more: Json) -> str:
    own: Json = {"id": "e", "provider": "openai", "api_key": {"$file": "key"}}
    route: Json = {"id": "r", "endpoint": "e"}
    return json.dumps(
        {
            "server": {"listen": "127.0.0.1:0", "control_listen": "127.0.0.1:0",
                       "state_dir": str(state_dir)},
            "workspaces": [{"id": "default", "endpoints": [own], "routes": [route], **more}],
            "drain": {"lb_delay_seconds": 0, "timeout_seconds": 7, "stream_seconds": 9},
        }
    )  # fmt: skip


@dataclass
class Told:
    """A log that is kept, and what was published; also a `WorkersView` of nobody."""

    stream: io.StringIO = field(default_factory=io.StringIO)
    published: list[SnapshotDoc] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = Log(self.stream)

    def states(self) -> Sequence[WorkerState]:
        return []

    def processes(self) -> Sequence[ProcessState]:
        return []

    def lines(self, event: str) -> list[dict[str, Json]]:
        found = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in found if line["event"] == event]

    def hides(self, *secrets: str) -> list[bool]:
        """Whether each stays unsaid in the text of an exception."""
        hidden = []
        for secret in secrets:
            before = len(self.stream.getvalue())
            self.log.bug(RuntimeError(f"refused: {secret}"))
            said = self.stream.getvalue()[before:]
            assert "refused: " in said
            hidden.append(secret not in said)
        return hidden


async def loaded_from(directory: Path) -> Loaded:
    return await asyncio.to_thread(load_config, directory / "parapet.yaml", insecure=True)


@asynccontextmanager
async def control(tmp_path: Path, told: Told) -> AsyncIterator[ControlHalf]:
    """A control half over the file that stands in `tmp_path`."""
    loaded = await loaded_from(tmp_path)

    def build() -> ControlHalf:
        return ControlHalf(
            loaded, tmp_path, SystemClock(), CountingIds(), told.log, told, told.published.append
        )

    half = await asyncio.to_thread(build)
    await half.start(socket.create_server(("127.0.0.1", 0)))
    try:
        yield half
    finally:
        await half.stop()


async def test_a_reload_teaches_the_log_new_secrets(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(FIRST)
    (tmp_path / "parapet.yaml").write_text(config(tmp_path))
    told = Told()
    async with control(tmp_path, told) as half:
        assert told.hides(FIRST, SECOND) == [True, False]
        (tmp_path / "key").write_text(SECOND)
        assert await half.reload() == []
        assert told.hides(FIRST, SECOND) == [True, True]  # what began before may still fail
        (tmp_path / "key").write_text(THIRD)
        assert await half.reload() == []
        assert told.hides(FIRST, SECOND, THIRD) == [False, True, True]


async def test_a_worker_learns_the_secrets_of_its_rules_before_they_hold(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(FIRST)
    (tmp_path / "parapet.yaml").write_text(config(tmp_path))
    snapshot = compile_snapshot(await loaded_from(tmp_path), 1)
    told = Told()
    hidden: list[bool] = []

    async def crashing(document: dict[str, Json]) -> tuple[int, str]:
        hidden.extend(told.hides(FIRST))
        return 1, ""

    apply = learning(told.log, SecretReader({}), crashing)
    assert await apply({"unreadable": True}) == (1, "")
    assert await apply(snapshot.model_dump(mode="json", by_alias=True)) == (1, "")
    assert hidden == [False, True]


async def test_settings_that_are_not_acted_on_are_told_at_start_and_at_each_reload(
    tmp_path: Path,
) -> None:
    (tmp_path / "key").write_text(FIRST)
    (tmp_path / "parapet.yaml").write_text(config(tmp_path))
    told = Told()
    async with control(tmp_path, told) as half:
        assert told.lines("config.not_acted_on") == []
        settings: Json = {"alerts": {"tick_seconds": 3}}
        whole = json.loads(config(tmp_path)) | settings
        (tmp_path / "parapet.yaml").write_text(json.dumps(whole))
        assert await half.reload() == []
        lines = told.lines("config.not_acted_on")  # two, if the change was seen meanwhile
        said = {(line["level"], line["setting"]) for line in lines}
        assert said == {("warning", "alerts")}
        assert lines[0]["detail"]
    before = len(told.lines("config.not_acted_on"))
    async with control(tmp_path, told):
        assert len(told.lines("config.not_acted_on")) > before


async def test_endpoints_raise_incidents_in_a_workspace_of_the_control_api(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(FIRST)
    (tmp_path / "parapet.yaml").write_text(config(tmp_path))
    async with control(tmp_path, Told()) as half:
        body = body_of({"id": "team"}, 1, 1)
        await half.store.commit(SERVER_WORKSPACE, Batch("cm", (Put("workspace", "team", body),)))
        assert await half.reload() == []
        said: dict[str, Json] = {
            "event_id": "evt-1", "type": "runtime.endpoint.state_changed",
            "timestamp": iso(SystemClock().now_ms()), "route_id": "r",
            "payload": {"failover_policy_id": "p", "endpoint_id": "e", "from": "closed",
                        "to": "open", "reason": "auth"},
        }  # fmt: skip
        event = NewEvent(said, SystemClock().now_ms())
        await half.intake.accept("team", [event], source="control")
        for _ in range(40):
            await asyncio.sleep(0.1)
            if await half.store.scan("team", "incident"):
                break
        assert len(await half.store.scan("team", "incident")) == 1


def data_half(state_dir: Path, told: Told) -> DataHalf:
    return DataHalf(
        0, state_dir, SystemClock(), CountingIds(), b"k" * 32, SecretReader({}),
        told.log.bug, told.log.observe,
    )  # fmt: skip


@pytest.mark.thorough
async def test_a_worker_stops_as_its_configuration_says(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(FIRST)
    (tmp_path / "parapet.yaml").write_text(config(tmp_path))
    told = Told()
    async with control(tmp_path, told):
        (snapshot,) = told.published

    data = await asyncio.to_thread(data_half, tmp_path, told)
    try:
        await asyncio.to_thread(lambda: asyncio.run(data.apply_snapshot(snapshot)))
        assert data.drain_settings() == DrainLimits(0, 7, 9)
    finally:
        await asyncio.to_thread(data.spool.close)


# --- a start while the store is away


def away(state_dir: Path, *routes: str) -> str:
    """A file with these routes, over a Redis that is not there."""
    said = json.loads(config(state_dir))
    (port,) = free_ports(1)
    said["store"] = f"redis://127.0.0.1:{port}/0"
    said["workspaces"][0]["routes"] = [{"id": route, "endpoint": "e"} for route in routes]
    return json.dumps(said)


async def routes_in_force(tmp_path: Path) -> list[str]:
    told = Told()
    async with control(tmp_path, told):
        snapshot = told.published[-1]
    assert len(told.lines("config.without_store")) == 1
    return [route.id for rules in snapshot.workspaces for route in rules.routes]


@pytest.mark.parametrize("known", [True, False], ids=["known", "nothing known"])
async def test_a_start_without_the_store_is_of_the_file_of_today(
    tmp_path: Path, known: bool
) -> None:
    """And of what was known of the store, never of what was in force."""
    (tmp_path / "key").write_text(FIRST)
    (tmp_path / "parapet.yaml").write_text(away(tmp_path, "stays", "leaves"))
    assert await routes_in_force(tmp_path) == ["stays", "leaves"]
    text = away(tmp_path, "stays")
    (tmp_path / "parapet.yaml").write_text(text)
    documents: Known = {("default", "route"): [("made", {"id": "made", "endpoint": "e"})]}
    server_key = await asyncio.to_thread(ensure_server_key, tmp_path)
    tag = tag_of(json.loads(text)["store"], server_key)
    if known:
        await asyncio.to_thread(keep_documents, tmp_path, tag, documents)
    assert await routes_in_force(tmp_path) == (["stays", "made"] if known else ["stays"])


def snapshot_of(version: int, keys: Sequence[str], *packs: PolicyPack) -> SnapshotDoc:
    rules = WorkspaceRules(
        id="default",
        endpoints=[Endpoint(id="e", provider="openai")],
        routes=[Route(id="r", endpoint="e", policy_packs=[each.policy_pack_id for each in packs])],
        policies=list(packs),
        keys=[ApiKey(id=each, secret_sha256="0" * 64) for each in keys],
    )
    return SnapshotDoc(version=version, sha256="", workspaces=[rules])


async def test_a_key_is_revoked_while_packs_are_compiled(tmp_path: Path) -> None:
    """SECURITY: it opens nothing from the moment the worker hears of it."""
    rules: list[Json] = [
        {"rule_id": f"r{place}", "pattern": f"x{place}[a-z0-9]{{1,900}}y", "action": "log"}
        for place in range(20)
    ]
    slow = PolicyPack.model_validate({"policy_pack_id": "slow", "rules": rules})
    data = await asyncio.to_thread(data_half, tmp_path, Told())

    def in_force() -> tuple[int, list[str]]:
        now = data.gateway.rules()
        return now.version, sorted(now.keys)

    async def history() -> list[tuple[int, list[str]]]:
        await data.apply_snapshot(snapshot_of(1, ["aaaa", "bbbb"]))
        seen = [in_force()]
        later = asyncio.gather(
            data.apply_snapshot(snapshot_of(2, ["aaaa", "bbbb"], slow)),
            data.apply_snapshot(snapshot_of(3, ["bbbb"], slow)),
        )
        await asyncio.sleep(0)
        seen.append(in_force())
        await later
        return [*seen, in_force()]

    try:
        assert await asyncio.to_thread(lambda: asyncio.run(history())) == [
            (1, ["aaaa", "bbbb"]), (1, ["bbbb"]), (3, ["bbbb"])
        ]  # fmt: skip
    finally:
        await asyncio.to_thread(data.spool.close)
