"""The data half: one worker's gateway, its rules, its listener and its drain."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from proxy.app.claiming import Claims
from proxy.app.life import DrainLimits, settle_garbage
from proxy.app.limits import LimitsOfWorker
from proxy.app.sharing import WorkerShare
from proxy.gateway.early import Early
from proxy.gateway.flights import Flights
from proxy.gateway.handlers import Front
from proxy.gateway.limits import limited_names
from proxy.gateway.listener import FrontServer
from proxy.gateway.snapshot import Kept, Rules, SnapshotError, build_guards, build_rules, with_keys
from proxy.gateway.turn import Gateway
from proxy.guardrails.health import Health
from proxy.model.exchange import Json
from proxy.model.observations import (
    Observation,
    SnapshotApplied,
    SnapshotRejected,
    SpoolDropped,
)
from proxy.model.ports import Clock, Ids, TransportFault
from proxy.model.tenancy import SnapshotDoc
from proxy.runtime.ids import fraction
from proxy.runtime.tasks import background
from proxy.settings.secrets import SecretFault, SecretReader
from proxy.spool.record import change_line, is_critical, line_of
from proxy.spool.writer import SpoolWriter
from proxy.telemetry.metrics import Totals
from proxy.upstream.origin import Proxies
from proxy.upstream.transports import Transports

BACKLOG: Final = 4096
SWEEP_S: Final = 1.0
WATCH_S: Final = 0.1
HEARING_S: Final = 0.5
T = TypeVar("T")


class Threads:
    """`OffLoop`: long guardrail work and the building of snapshots, beside the loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="beside")

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class DataHalf:
    """One data worker, or the data half of a single process."""

    def __init__(
        self,
        slot: int,
        state_dir: Path,
        clock: Clock,
        ids: Ids,
        server_key: bytes,
        secrets: SecretReader,
        on_bug: Callable[[BaseException], None],
        tell: Callable[[Observation], None],
        proxies: Proxies | None = None,
    ) -> None:
        self._clock = clock
        self._secrets = secrets
        self._tell = tell
        self._threads = Threads()
        self.totals = Totals(f"{os.getpid()}-{clock.now_ms()}")
        self.transports = Transports(clock, self._observe, proxies=proxies)
        self.spool = SpoolWriter(state_dir, str(slot), self._observe)
        self._rules: Rules | None = None
        self._kept = Kept()
        self._newest: SnapshotDoc | None = None
        self._applying = asyncio.Lock()
        self._draining = False
        self._lag_s = 0.0
        self._health = Health()
        self._dropped: dict[str, int] = {}
        self._claims = Claims(state_dir)
        self.share = WorkerShare(clock, self._claims.of)
        self.gateway = Gateway(
            rules=self._current,
            clock=clock,
            ids=ids,
            journal=self.spool,
            line_of=line_of,
            is_critical=is_critical,
            observe=self._observe,
            off_loop=self._threads,
            server_key=server_key,
            flights=Flights(clock, fraction, self.share.tell),
            early=Early(),
            draining=lambda: self._draining,
            event=self._happened,
        )
        self.limits = LimitsOfWorker(self.gateway.limiter, self.totals.worker, clock)
        self.share.of(self.gateway.flights)
        self._front = Front(self.gateway, on_bug)
        self._server: asyncio.Server | None = None
        self._http: FrontServer | None = None
        self.ready = asyncio.Event()  # rules are in force

    def __repr__(self) -> str:
        return f"<DataHalf {self._rules!r} {self.gateway.in_flight} in flight>"

    def _current(self) -> Rules:
        assert self._rules is not None, "no snapshot is in force"
        return self._rules

    def _observe(self, what: Observation) -> None:
        self.totals.count(what)
        self._tell(what)

    # --- rules

    async def apply(self, document: dict[str, Json]) -> tuple[int, str]:
        """Build and swap a snapshot; refused whole, the old one stays."""
        try:
            snapshot = SnapshotDoc.model_validate(document)
        except ValidationError as fault:
            return self._refuse(0, f"the snapshot is not readable: {fault.error_count()} faults")
        return await self.apply_snapshot(snapshot)

    async def apply_snapshot(self, snapshot: SnapshotDoc) -> tuple[int, str]:
        """One after the other, and an older one never after a newer one.

        SECURITY: keys wait for nobody, also those of a snapshot that is refused in the end: a
        revoked one opens nothing while packs are compiled."""
        if self._newest is None or snapshot.version > self._newest.version:
            self._newest = snapshot
            if self._rules is not None:
                self._rules = with_keys(self._rules, snapshot)
        async with self._applying:
            return await self._apply_next(self._newest)

    async def _apply_next(self, snapshot: SnapshotDoc) -> tuple[int, str]:
        if self._rules is not None and snapshot.version <= self._rules.version:
            return self._rules.version, ""
        try:
            guards = await self._threads.run(lambda: build_guards(snapshot, self._kept))
            rules = build_rules(snapshot, guards, self.transports, self._secrets.optional)
            if self._newest is not None and self._newest is not snapshot:
                rules = with_keys(rules, self._newest)
        except (SnapshotError, SecretFault, ValueError) as fault:
            return self._refuse(snapshot.version, str(fault))
        self._rules = rules
        self.gateway.flights.keep(rules)
        self.gateway.limiter.keep(limited_names(rules))
        self.share.kept()
        self.totals.models = rules.known_models
        self.transports.retain(
            self.transports.key_of(workspace.id, endpoint)
            for workspace in rules.workspaces.values()
            for endpoint in workspace.places()
        )
        settle_garbage()
        self._observe(SnapshotApplied(snapshot.version))
        self.ready.set()
        return rules.version, ""

    def totals_doc(self) -> dict[str, Json]:
        """What this worker counted so far, for the control half."""
        self.totals.in_flight = self.gateway.in_flight
        self.totals.loop_lag_s = self._lag_s
        if self._rules is not None:
            spaces = self._rules.workspaces.values()
            views = (view for space in spaces for view in space.routes.values())
            guards = (view.guard for view in views if view.guard is not None)
            self.totals.automata(*self._health.look(guards))
        return self.totals.to_doc()

    def drain_settings(self) -> DrainLimits:
        drain = self._current().doc.drain
        return DrainLimits(drain.lb_delay_seconds, drain.timeout_seconds, drain.stream_seconds)

    def _refuse(self, version: int, reason: str) -> tuple[int, str]:
        self._observe(SnapshotRejected(version, reason))
        return self._rules.version if self._rules is not None else 0, reason

    # --- serving

    async def start(self, listener: socket.socket) -> None:
        """Accept callers.  Needs rules (`ready`)."""
        loop = asyncio.get_running_loop()
        self._http = FrontServer(self._front.handle, loop)
        self._server = await loop.create_server(self._http, sock=listener, backlog=BACKLOG)
        background(self.transports.sweeper.run(), name="upstream sweeper")
        background(self._sweep(), name="front sweeper")
        background(self._watch(), name="flights")

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while self._http is not None:
            before = loop.time()
            await self._clock.sleep(SWEEP_S)
            self._lag_s = max(0.0, loop.time() - before - SWEEP_S)
            if self._http is not None:
                self._http.sweep(loop.time())
            self._tell_dropped()

    async def _watch(self) -> None:
        """Look at attempts under way, and at what time has done to endpoints."""
        while self._http is not None:
            await self._clock.sleep(WATCH_S)
            self.gateway.flights.sweep()
            self.gateway.early.sweep(self._clock.monotonic())
            self.share.look()

    def _happened(
        self, workspace_id: str, kind: str, route_id: str, payload: Mapping[str, object]
    ) -> None:
        """An event that is no request."""
        event_id, now_ms = self.gateway.ids.new("evt-"), self._clock.now_ms()
        line = change_line(workspace_id, event_id, now_ms, kind, route_id, payload)
        self.spool.append(line, critical=True)

    def _tell_dropped(self) -> None:
        """What the spool's own thread dropped since the last look."""
        for line_class, lines in list(self.spool.dropped.items()):
            fresh = lines - self._dropped.get(line_class, 0)
            if fresh:
                self._dropped[line_class] = lines
                self._observe(SpoolDropped(line_class, fresh))

    async def drain(self, limits: DrainLimits) -> None:
        """Stop accepting, let what is under way end, tell the rest in-band, write everything."""
        await self._clock.sleep(limits.lb_delay_s)
        self._draining = True
        if self._server is not None:
            self._server.close()
        if self._http is not None:
            self._http.close_idle()
            await self._until_heard(self._http)
        await self._until_idle(limits.timeout_s, streams_too=False)
        await self._until_idle(limits.stream_s - limits.timeout_s, streams_too=True)
        for answer in list(self.gateway.answers):
            answer.cancel()
            answer.failed(TransportFault("reset", "draining"))
        await self._until_idle(2.0, streams_too=True)
        await self.close()

    async def _until_heard(self, http: FrontServer) -> None:
        """Who was let in just before has a moment to say what he wants."""
        due = self._clock.monotonic() + HEARING_S
        while http.expecting() and self._clock.monotonic() < due:
            await self._clock.sleep(0.02)

    async def _until_idle(self, limit_s: float, *, streams_too: bool) -> None:
        due = self._clock.monotonic() + limit_s
        while self._clock.monotonic() < due:
            waiting = self.gateway.in_flight
            if not streams_too:
                waiting -= sum(answer.begun for answer in self.gateway.answers)
            if waiting <= 0:
                return
            await self._clock.sleep(0.02)

    async def close(self) -> None:
        if self._http is not None:
            http, self._http = self._http, None
            await http.shutdown(1.0)
        await self.transports.close()
        self.spool.close()
        self._claims.close()
        self._threads.close()
