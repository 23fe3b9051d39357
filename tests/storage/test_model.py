"""The engine against the model: random histories, the same answers (storage.md §9)."""

import asyncio
import hashlib
import itertools
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from proxy.model.batch import (
    ABSENT,
    ANY,
    Append,
    Batch,
    CommitResult,
    Count,
    Cursor,
    Delete,
    Fence,
    Idem,
    LogFilter,
    Op,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    OutboxRow,
    Put,
    StoreConflict,
)
from proxy.storage.redis.engine import RedisStore
from proxy.storage.redis.engine import open_store as open_redis
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.engine import SqliteStore, open_store
from tests.kit.redis import PATIENT, Cutter, RedisServer, silent
from tests.kit.store import HandClock, HandNow, MemoryStore

SMALL = Bounds(segment_entries=4)
NUMBERS = itertools.count()
EXPECT = st.sampled_from([ANY, ABSENT, 1, 2, 3])
SMALL_NUMBERS = st.integers(0, 2)
Engine = SqliteStore | RedisStore
NAMES = st.sampled_from("abc")
DUE_MS = st.sampled_from([0, 1_710_513_000_000, 1_710_513_009_000])
ROWS, TOKENS = st.integers(1, 6), st.sampled_from([ANY, 0, 1, 1, 2, 3])
NOBODY = Fence("x", 1)
AGES_MS = 1 << 43  # nobody's claim runs out but one that has no time at all
UNIQUE = st.sampled_from([(), (("name", "x"),), (("name", "y"),), (("name", "x"), ("tag", "t"))])


def _append(event_id: str, content: str, ttl_s: int, route: str | None) -> Append:
    return Append(
        "events",
        content.encode(),
        event_id,
        hashlib.sha256(content.encode()).digest(),
        ttl_s,
        at_ms=1000 + len(content),
        type=f"runtime.{content}",
        route_id=route,
    )


OPS: st.SearchStrategy[Op] = st.one_of(
    st.builds(Put, st.just("doc"), NAMES, st.binary(max_size=3), EXPECT, UNIQUE),
    st.builds(Delete, st.just("doc"), NAMES, EXPECT),
    st.builds(_append, NAMES, NAMES, st.sampled_from([0, 10]), st.sampled_from([None, "r", "s"])),
    st.builds(Idem, st.sampled_from([b"k", b"l"]), st.just(b"f"), st.just(200), st.just(b""),
              st.just(b""), st.just(10)),
    st.builds(Cursor, NAMES, SMALL_NUMBERS, SMALL_NUMBERS),
    st.builds(Count, SMALL_NUMBERS, NAMES, st.dictionaries(SMALL_NUMBERS, st.integers(1, 9))),
    st.builds(OutboxPut, NAMES, st.sampled_from(["", "g", "h"]), NAMES, st.binary(max_size=3),
              DUE_MS),
    st.builds(OutboxDone, ROWS, TOKENS),
    st.builds(OutboxRetry, ROWS, TOKENS, DUE_MS, SMALL_NUMBERS),
)  # fmt: skip
FILTERS = st.builds(
    LogFilter,
    after_seq=st.none() | st.integers(0, 8),
    before_seq=st.none() | st.integers(0, 9),
    newest_first=st.booleans(),
    offset=st.integers(0, 5),
    limit=st.integers(0, 6),
    types=st.sampled_from([None, ("runtime.a",), ("runtime.*",), ("runtime.b", "watcher.*")]),
    route_ids=st.sampled_from([None, ("r",), ("r", "s")]),
    since_ms=st.sampled_from([None, 1001, 1002]),
)


class Histories(RuleBasedStateMachine):
    """Two stores, one history.  The clock is in the hands of the machine."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock: HandClock = HandNow()
        self.model = MemoryStore(self.clock)
        self.fences: list[tuple[Fence, Fence]] = []  # of ours and of the model
        self.stack = AsyncExitStack()
        self.store = self.runner.run(self._open())

    async def _open(self) -> Engine:
        raise NotImplementedError

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    @rule(ws=NAMES, ops=st.lists(OPS, max_size=6))
    def commit(self, ws: str, ops: list[Op]) -> None:
        batch = Batch(f"cm-{next(NUMBERS)}", tuple(ops))
        assert self._outcome(self.store, ws, batch) == self._outcome(self.model, ws, batch)

    @rule(ws=NAMES, ops=st.lists(OPS, max_size=3), which=SMALL_NUMBERS)
    def commit_as_a_leader(self, ws: str, ops: list[Op], which: int) -> None:
        """One of the last leaders, or a lease that nobody ever had."""
        ours, theirs = [*[(NOBODY, NOBODY)] * 3, *self.fences][-which - 1]
        batch = Batch(f"cm-{next(NUMBERS)}", tuple(ops))
        told = self._outcome(self.store, ws, replace(batch, fence=ours))
        assert told == self._outcome(self.model, ws, replace(batch, fence=theirs))

    @rule(name=NAMES, node=st.sampled_from(["m", "n:1"]))
    def take_a_lease(self, name: str, node: str) -> None:
        ours = self.runner.run(self.store.leases.take(name, node, 3600))
        theirs = self.runner.run(self.model.leases.take(name, node, 3600))
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            self.fences.append((Fence(name, ours), Fence(name, theirs)))

    @rule(node=st.sampled_from(["m", "n:1"]), which=SMALL_NUMBERS)
    def free_a_lease(self, node: str, which: int) -> None:
        for ours, theirs in self.fences[-which - 1 :][:1]:
            self.runner.run(self.store.leases.free(ours.lease, node, ours.token))
            self.runner.run(self.model.leases.free(theirs.lease, node, theirs.token))

    @rule(ws=NAMES, limit=SMALL_NUMBERS, owner=NAMES)
    def claim(self, ws: str, limit: int, owner: str) -> None:
        assert self._claimed(self.store, ws, limit, owner, AGES_MS) == self._claimed(
            self.model, ws, limit, owner, AGES_MS
        )

    @rule(ws=NAMES, groups=st.lists(st.sampled_from(["", "g"]), min_size=1, max_size=4), due=DUE_MS)
    def post(self, ws: str, groups: list[str], due: int) -> None:
        self.commit(ws, [OutboxPut("t", group, "k", b"p", due) for group in groups])

    @rule(ws=NAMES, which=SMALL_NUMBERS, done=st.booleans(), off=st.sampled_from([0, 0, 0, -1, 1]))
    def claim_and_settle(self, ws: str, which: int, done: bool, off: int) -> None:
        """One that is claimed, by its own token or one beside it."""
        self.claim(ws, 2, "quick")
        rows = [row for row in self.runner.run(self.model.outbox(ws)) if row.owner]
        for row in rows[which : which + 1]:
            token = row.token + off
            op = OutboxDone(row.id, token) if done else OutboxRetry(row.id, token, 0, 9)
            self.commit(ws, [op])

    @rule(ws=NAMES)
    def claim_for_no_time(self, ws: str) -> None:
        """Everything at once: in which order claims run out is a matter of whose clock it is."""
        assert self._claimed(self.store, ws, 100, "slow", 0) == self._claimed(
            self.model, ws, 100, "slow", 0
        )
        self.claim(ws, 100, "quick")

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.clock.at_ms += seconds * 1000

    @rule(days=st.integers(1, 2))
    def another_day(self, days: int) -> None:
        self.clock.at_ms += days * 86_400_000

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.stack.aclose())
        if not self.store.shared:  # the leases were within the process
            self.model.forget_leases()
            self.fences.clear()
        self.store = self.runner.run(self._open())

    @rule(ws=NAMES, query=FILTERS)
    def ask(self, ws: str, query: LogFilter) -> None:
        ours = self.runner.run(self.store.range(ws, "events", query))
        assert ours == self.runner.run(self.model.range(ws, "events", query))

    @rule(ws=NAMES, name=NAMES)
    def look_up(self, ws: str, name: str) -> None:
        for store in ("get", "scan", "event", "cursor", "idempotency"):
            arguments: tuple[object, ...] = {
                "get": (ws, "doc", name),
                "scan": (ws, "doc"),
                "idempotency": (ws, b"k"),
            }.get(store, (ws, name))
            ours = self.runner.run(getattr(self.store, store)(*arguments))
            assert ours == self.runner.run(getattr(self.model, store)(*arguments))

    @invariant()
    def counters_agree(self) -> None:
        for ws in "ab":
            ours = self.runner.run(self.store.rollup(ws, 0, 9))
            assert ours == self.runner.run(self.model.rollup(ws, 0, 9))

    @invariant()
    def outboxes_agree(self) -> None:
        for ws in "abc":
            ours = self.runner.run(self.store.outbox(ws))
            assert ours == self.runner.run(self.model.outbox(ws))

    def _claimed(
        self, store: Engine | MemoryStore, ws: str, limit: int, owner: str, lease_ms: int
    ) -> Sequence[OutboxRow]:
        return self.runner.run(store.claim(ws, owner, lease_ms=lease_ms, limit=limit))

    def _outcome(
        self, store: Engine | MemoryStore, ws: str, batch: Batch
    ) -> CommitResult | tuple[int, str]:
        try:
            return self.runner.run(store.commit(ws, batch))
        except StoreConflict as conflict:
            return conflict.op, conflict.reason


class OnSqlite(Histories):
    def __init__(self) -> None:
        self.home = tempfile.TemporaryDirectory()
        super().__init__()

    async def _open(self) -> Engine:
        path = Path(self.home.name) / "p.db"
        return await self.stack.enter_async_context(open_store(path, self.clock, SMALL))

    def teardown(self) -> None:
        super().teardown()
        self.home.cleanup()


def on_redis(server: RedisServer) -> type[Histories]:
    """A way to the server that is cut, and a server that forgets its scripts."""

    class OnRedis(Histories):
        def __init__(self) -> None:
            server.command("FLUSHALL")
            super().__init__()

        async def _open(self) -> Engine:
            self.cutter = await self.stack.enter_async_context(Cutter(server.port))
            return await self.stack.enter_async_context(
                open_redis(self.cutter.url, self.clock, silent, PATIENT)
            )

        @rule()
        def cut_after_the_script_was_sent(self) -> None:
            self.cutter.cut_next()

        @rule()
        def forget_the_scripts(self) -> None:
            server.command("SCRIPT", "FLUSH")

    return OnRedis


def check(machine: type[Histories], examples: int) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None)
    )


@pytest.mark.thorough
def test_the_engine_is_the_model() -> None:
    check(OnSqlite, 30)


@pytest.mark.redis
def test_redis_is_the_model(redis: RedisServer) -> None:
    check(on_redis(redis), 30)
