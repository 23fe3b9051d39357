"""The engine against the model: random histories, the same answers (storage.md §9)."""

import asyncio
import hashlib
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

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
    Idem,
    LogFilter,
    Op,
    Put,
    StoreConflict,
)
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.engine import SqliteStore, open_store
from tests.kit.store import HandClock, MemoryStore

SMALL = Bounds(segment_entries=4)
EXPECT = st.sampled_from([ANY, ABSENT, 1, 2, 3])
SMALL_NUMBERS = st.integers(0, 2)
NAMES = st.sampled_from("abc")
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
        self.home = tempfile.TemporaryDirectory()
        self.clock = HandClock()
        self.model = MemoryStore(self.clock)
        self.stack = AsyncExitStack()
        self.store = self.runner.run(self._open())

    async def _open(self) -> SqliteStore:
        path = Path(self.home.name) / "p.db"
        return await self.stack.enter_async_context(open_store(path, self.clock, SMALL))

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.home.cleanup()

    @rule(ws=NAMES, ops=st.lists(OPS, max_size=6))
    def commit(self, ws: str, ops: list[Op]) -> None:
        batch = Batch("cm", tuple(ops))
        assert self._outcome(self.store, ws, batch) == self._outcome(self.model, ws, batch)

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        self.clock.at_ms += seconds * 1000

    @rule(days=st.integers(1, 2))
    def another_day(self, days: int) -> None:
        self.clock.at_ms += days * 86_400_000

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.stack.aclose())
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

    def _outcome(
        self, store: SqliteStore | MemoryStore, ws: str, batch: Batch
    ) -> CommitResult | tuple[int, str]:
        try:
            return self.runner.run(store.commit(ws, batch))
        except StoreConflict as conflict:
            return conflict.op, conflict.reason


def test_the_engine_is_the_model() -> None:
    run_state_machine_as_test(
        Histories, settings=settings(max_examples=30, stateful_step_count=25, deadline=None)
    )
