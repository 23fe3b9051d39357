"""The control half: configuration in force, store, control API, spooler, link to the workers."""

import asyncio
import contextlib
import platform
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from proxy.app import upkeep
from proxy.app.applying import Applying
from proxy.app.cluster import Cluster, process_of
from proxy.app.declared import declared, shipped_packs
from proxy.app.filewatch import differing, restart_only, stamps
from proxy.app.gauges import show_storage
from proxy.app.learning import Learning
from proxy.app.limits import LimitsOfNode
from proxy.app.raising import Raising
from proxy.app.report import NodeReport, RulesSeen
from proxy.app.standings import NodeStandings
from proxy.app.telling import Telling
from proxy.app.version import VERSION
from proxy.control.config import ControlConfig
from proxy.control.frame import ControlDeps
from proxy.control.intake import EventIntake
from proxy.control.key_uses import KeyUses
from proxy.control.living import Documents, living_documents
from proxy.control.readiness import (
    ConfigState,
    WorkersView,
)
from proxy.control.server import build_control
from proxy.model.batch import StoreUnavailable
from proxy.model.exchange import Json
from proxy.model.ports import Clock, Ids
from proxy.model.tenancy import SnapshotDoc
from proxy.runtime.tasks import background, spawn
from proxy.settings.known import keep_documents, known_documents, tag_of
from proxy.settings.later import not_acted_on
from proxy.settings.load import Loaded, load_config
from proxy.settings.overlay import InForce, overlay
from proxy.settings.problems import ConfigError, path_text
from proxy.settings.secrets import ensure_admin_key, ensure_server_key
from proxy.settings.snapshot import compile_snapshot, read_snapshot, write_snapshot
from proxy.spool.cursors import CursorFile
from proxy.spool.keeper import Keeper
from proxy.spool.reader import SpoolReader
from proxy.storage.choose import limits_of, standings_of, store_of
from proxy.telemetry.exposition import Registry
from proxy.telemetry.logs import Log
from proxy.workers.spooler import Spooler

WATCH_S: Final = 1.0


Publish = Callable[[SnapshotDoc], None]


class ControlHalf:
    """Keeps the parts together, from start to stop."""

    def __init__(
        self,
        loaded: Loaded,
        state_dir: Path,
        clock: Clock,
        ids: Ids,
        log: Log,
        workers: WorkersView,
        publish: Publish,
    ) -> None:
        self._clock = clock
        self._log = log
        self._workers = workers
        self.metrics = Registry(VERSION)
        self._telling = Telling(state_dir, ids, self.metrics)
        self.standings = NodeStandings(clock, self._telling.tell)
        self._publish = self.standings.before(publish)
        self._state_dir = state_dir
        self._loaded = loaded
        self._listening = restart_only(loaded)
        self._version = 0
        self.config_state = ConfigState(loaded.sha256)
        said = loaded.reader.value(loaded.config.store)
        self.store = store_of(said, state_dir, clock, log.warning)
        server_key = ensure_server_key(state_dir)
        self._store_tag = tag_of(said, server_key)
        self.intake = EventIntake(self.store, clock, ids, self.metrics, engine=self.store.engine)
        self.node_id = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())[:64] or "node"
        self._reader = SpoolReader(state_dir)
        key_uses = KeyUses()
        self._process = process_of(state_dir, platform.node())
        self.limits = LimitsOfNode(
            self.store, clock, lambda: len(workers.states()), limits_of(self.store),
            lambda: len(self._cluster.nodes()), self._process,
        )  # fmt: skip
        self._spooler = Spooler(
            self._reader,
            self.store,
            self.intake.accept,
            clock,
            node=self.node_id,
            batch_lines=self.store.batch_lines,
            restarts=lambda: self.store.restarts,
            used=key_uses.note,
            counts=self.limits.counts,
            tell_forgotten=self.store.forgot,
            memory=CursorFile(state_dir, self._store_tag) if self.store.shared else None,
        )
        self._spooling: asyncio.Task[None] | None = None
        admin_key = loaded.admin_key
        if admin_key is None:
            path, admin_key, fresh = ensure_admin_key(state_dir)
            if fresh:
                log.info("admin_key.written", {"path": str(path)})
        self._admin_key = admin_key
        self._in_force = InForce(loaded)
        self._fresh_file = True
        self._shipped = shipped_packs()
        self._snapshot: SnapshotDoc | None = None
        self._view = self._control_config(compile_snapshot(loaded, 1), loaded)
        self._applying = Applying(self._apply)
        self._stale = False
        self._documents: Documents = {}
        self._learning = Learning(log, self.store)
        self._cluster = Cluster(
            said,
            self.store,
            clock,
            log,
            self.node_id,
            file_sha256=lambda: self.config_state.sha256,
            changed=self._applying.asked,
            process=self._process,
        )
        self._report = NodeReport(
            self.node_id, clock, self.store, workers, self._spooler, self._cluster,
            lambda: RulesSeen(self.config_state, self._version, self._in_force),
        )  # fmt: skip
        self._keeper = Keeper(state_dir, clock.monotonic) if self.store.shared else None
        self._deps = ControlDeps(
            store=self.store,
            coord=self._cluster.coord,
            clock=clock,
            ids=ids,
            intake=self.intake,
            config=lambda: self._view,
            metrics=self.metrics,
            status=self._report,
            reload=self.reload,
            apply=self._applying.asked,
            server_key=server_key,
            tell=log.tell,
            key_uses=key_uses,
            keeper=self._keeper,
            standings=self.standings,
        )
        self._runner: web.ServerRunner | None = None

    def __repr__(self) -> str:
        return f"<ControlHalf v{self._version}>"

    # --- lifetime

    async def start(self, listener: socket.socket) -> None:
        """Open the store, publish the rules, serve.  Raises CannotOpen when the store is taken."""
        await self.store.start()
        self.standings.between(standings_of(self.store, self._cluster.coord, self._process))
        await self._cluster.start()
        await self._applying.asked()
        if self._version == 0:
            await self._without_store()
        self._runner = build_control(self._deps)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        self._spooling = spawn(self._spooler.run(), name="spooler")
        background(self._beat(), name="loop lag")
        background(self.limits.run(), name="budgets")
        background(self.standings.run(), name="standings")
        background(self._watch_files(), name="reloader")
        raising = Raising(
            self.store, self.intake, self._clock, self._deps.ids,
            lambda: [
                (one.id, one.settings.incidents)
                for one in self._in_force.loaded.config.workspaces
            ],
            self.standings,
        )  # fmt: skip
        background(raising.run(), name="incidents of endpoints")
        upkeep.begin(
            self.store,
            self._clock,
            self._deps.ids,
            self.metrics,
            self._deps.key_uses,
            lambda: self._loaded.config.retention,
            lambda: self._view.workspaces,
        )

    async def stop(self) -> None:
        """Everything that was written is in the store when this returns."""
        self._report.is_draining = True
        if self._runner is not None:
            await self._runner.cleanup()
        if self._keeper is not None:
            await self._keeper.close()
        await self.standings.close()
        await asyncio.to_thread(self._telling.close)
        self._spooler.stop()
        if self._spooling is not None:
            await self._spooling
        await self._spooler.drain()
        with contextlib.suppress(StoreUnavailable):
            await self._deps.key_uses.write(self.store, self._deps.ids)
        await self._cluster.close()
        await self.store.close()

    def take_totals(self, slot: int, totals: dict[str, Json]) -> None:
        """What a worker counted so far; a malformed message changes nothing."""
        try:
            self.metrics.worker_totals(slot, totals)
        except ValueError as why:
            self._log.warning("totals.rejected", {"slot": slot, "reason": str(why)})

    def begin_drain(self) -> None:
        self._report.is_draining = True

    # --- configuration

    async def reload(self) -> list[Json]:
        """Read the file again; returns what is wrong in it, and then nothing has changed."""
        try:
            loaded = await asyncio.to_thread(load_config, self._loaded.path, insecure=True)
        except ConfigError as error:
            self.config_state.valid = False
            self.config_state.error = str(error)
            self._log.warning("config.rejected", {"problems": len(error.problems)})
            self.metrics.set("config_file_valid", (), 0)
            return [
                {"field": path_text(each.path), "code": "invalid", "detail": str(each)}
                for each in error.problems
            ]
        self._loaded = loaded
        self._fresh_file = True
        await self._applying.asked()
        return []

    async def _apply(self) -> None:
        """Bring the file and the store's documents into force; what fails is tried again."""
        loaded, before, self._stale = self._loaded, self._stale, True
        try:
            names = [workspace.id for workspace in loaded.config.workspaces]
            documents = await living_documents(self.store, names)
            if self._fresh_file or documents != self._documents:
                await self._bring(await asyncio.to_thread(overlay, loaded, documents))
                if self.store.shared:
                    await asyncio.to_thread(
                        keep_documents, self._state_dir, self._store_tag, documents
                    )
                self._documents = documents
            await self._learning.targets(self._in_force.loaded)
            self._stale = False
        except (StoreUnavailable, OSError, ValueError) as fault:
            if not before:
                self._log.warning("config.not_applied", {"reason": str(fault)})
            if self._fresh_file and self._version:  # the file waits for nobody
                await self._bring(await asyncio.to_thread(overlay, loaded, self._documents))

    async def _without_store(self) -> None:
        """The store cannot be read: the file of today over what of the store was known last.

        SECURITY: never the last snapshot itself where the file may have changed: a key that was
        taken out of the file would be back."""
        if not self.store.shared:
            previous = await asyncio.to_thread(read_snapshot, self._state_dir)
            if previous is not None:
                self._snapshot, self._version = previous, previous.version
                self._view = self._control_config(previous, self._loaded)
                self.limits.keep(previous)
                self._publish(previous)
                self._log.warning("config.from_snapshot", {"version": previous.version})
                return
        known = await asyncio.to_thread(known_documents, self._state_dir, self._store_tag)
        try:
            await self._bring(await asyncio.to_thread(overlay, self._loaded, known or {}))
        except OSError as fault:  # the file is in force here; workers follow when there is room
            self._log.warning("config.not_applied", {"reason": str(fault)})
            return
        self._documents = known or {}
        told: dict[str, Json] = {"version": self._version, "known": known is not None}
        self._log.warning("config.without_store", told)

    async def _bring(self, in_force: InForce) -> None:
        loaded = in_force.loaded
        await self._learning.rules(loaded)
        snapshot = await asyncio.to_thread(self._compiled, loaded)
        changed = self._version != snapshot.version
        self._in_force, self._snapshot, self._version = in_force, snapshot, snapshot.version
        self._view = self._control_config(snapshot, in_force.loaded)
        self.limits.keep(snapshot)
        for refused in in_force.refused:
            self._log.warning("config.document_refused", {"document": refused})
        if changed or self._fresh_file:
            self._publish(snapshot)
            self._log.info("config.applied", {"version": snapshot.version})
        if self._fresh_file:
            self._fresh_file = False
            self._tell_file(self._loaded)

    def _compiled(self, loaded: Loaded) -> SnapshotDoc:
        """The next snapshot, on disk; the last one when nothing has changed."""
        previous = self._snapshot or read_snapshot(self._state_dir)
        newest = previous.version if previous is not None else 0
        snapshot = compile_snapshot(loaded, newest + 1)
        if previous is not None and previous.sha256 == snapshot.sha256:
            return snapshot.model_copy(update={"version": previous.version})
        write_snapshot(self._state_dir, snapshot)
        return snapshot

    def _tell_file(self, loaded: Loaded) -> None:
        self.config_state = ConfigState(
            loaded.sha256,
            loaded_at_ms=self._clock.now_ms(),
            warnings=[str(warning) for warning in loaded.warnings],
            restart_required=differing(self._listening, restart_only(loaded)),
        )
        self.metrics.set("config_file_valid", (), 1)
        for each in not_acted_on(loaded.config):
            told = {"setting": path_text(each.path), "detail": each.message}
            self._log.warning("config.not_acted_on", told)

    def _control_config(self, snapshot: SnapshotDoc, loaded: Loaded) -> ControlConfig:
        return ControlConfig.of(
            snapshot.workspaces,
            self._admin_key,
            loaded.config.server.public_url,
            loaded.config.control,
            upkeep.ingest_of(self.store.engine, loaded.config.ingest),
            declared(self._loaded),
            self._shipped,
            {one.id: one.settings.timezone for one in loaded.config.workspaces},
            snapshot.guard,
        )

    async def _watch_files(self) -> None:
        """A changed file reloads."""
        seen = await asyncio.to_thread(stamps, self._loaded)
        while True:
            await self._clock.sleep(WATCH_S)
            now = await asyncio.to_thread(stamps, self._loaded)
            if now != seen:
                await self.reload()
                seen = await asyncio.to_thread(stamps, self._loaded)
            elif self._stale or self.store.shared:
                await self._applying.asked()  # another machine may have changed something

    # --- upkeep

    async def _beat(self) -> None:
        """How late the loop runs, and what the metrics show of store and spool."""
        restarts = self.store.restarts
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(0.5)
            self._report.lag_s = max(0.0, self._clock.monotonic() - before - 0.5)
            show_storage(self.metrics, self._spooler.progress(), self.store)
            if self.store.restarts != restarts:
                restarts = self.store.restarts
                self._deps.parsed.clear()
            for worker in self._workers.states():
                slot = (str(worker.slot),)
                self.metrics.set("worker_restarts_total", slot, worker.restarts)
