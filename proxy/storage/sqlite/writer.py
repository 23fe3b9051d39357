"""The one thread that writes.

It opens the database, takes batches from a bounded queue and commits them in groups: what waits,
up to 500 batches or 2 ms of work, becomes one transaction with one fsync.  It alone checkpoints.

A batch that conflicts is rolled back alone (`apply.py`).  A batch that cannot be stored at all (a
number beyond 64 bits, text that is not UTF-8) spoils its group, so the group is done again batch by
batch and only the culprit is refused.  When the disk fails, nothing of the group was applied, the
writer is read-only, and it tries again every 5 s.

Invariant: every job that was taken is answered exactly once, the thread's own death included.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.model.batch import Batch, CommitResult, StoreConflict, StoreUnavailable
from proxy.model.ports import Clock
from proxy.storage.faults import CannotOpen
from proxy.storage.leases import LeaseTable
from proxy.storage.sqlite.apply import Group
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.files import OpenDatabase, open_database
from proxy.storage.sqlite.segments import Tails

CHECKPOINT_S = 2.0
CHECKPOINT_PAGES = 1_000
PAGES_PER_GROUP, PAGES_PER_ENTRY = 12, 0.5  # measured: what a commit adds to the WAL, about
WAL_LIMIT_BYTES = 64 << 20
OLD_READER_S = 1.0
TICK_S = 0.5

_POISON = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    OverflowError,
    ValueError,
    TypeError,
)
Future = asyncio.Future[Any]


@dataclass(slots=True)
class _Job:
    """A batch that waits, and where its answer goes: a value, or the exception to raise."""

    workspace_id: str
    batch: Batch
    loop: asyncio.AbstractEventLoop
    answer: Future


@dataclass(slots=True)
class _Errand:
    """Something else for the writer's connection."""

    work: Callable[[sqlite3.Connection], object]
    loop: asyncio.AbstractEventLoop
    answer: Future


class _Stop:
    """The last thing in the queue."""


_Item = _Job | _Errand | _Stop
_Answers = Sequence[tuple[_Job | _Errand, object]]


class Writer:
    """Owns the read-write connection.  `submit` and `ask` are for the event loop."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        leases: LeaseTable,
        oldest_reader_s: Callable[[], float],
        bounds: Bounds,
    ) -> None:
        self._path = path
        self._leases = leases
        self._bounds = bounds
        self._clock = clock
        self._oldest_reader_s = oldest_reader_s
        self._items: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._held: _Item | None = None
        self._in_hand: Sequence[_Job | _Errand] = ()
        self._dirty_pages = 0.0
        self._checked_at = 0.0
        self._failed_at = 0.0
        self._closed = False
        self.opened: OpenDatabase | None = None
        self.open_fault: BaseException | None = None
        self.ready = threading.Event()
        self.failure: str | None = None  # why it is read-only, None when it can write
        self.commits = 0
        self.groups = 0

    def start(self) -> None:
        """Open the database in the writer's thread and wait for it.  Blocks."""
        self._thread.start()
        self.ready.wait()
        if self.open_fault is not None:
            raise self.open_fault

    def stop(self) -> None:
        """Write what was taken, checkpoint, close.  Blocks."""
        self._closed = True
        self._items.put(_Stop())
        self._thread.join()

    def writable(self) -> bool:
        return self.failure is None and not self._closed

    def depth(self) -> int:
        return self._items.qsize()

    def submit(self, workspace_id: str, batch: Batch) -> Future:
        """Raises StoreUnavailable at once when the batch cannot be taken."""
        self._refuse_if_closed()
        if self._items.qsize() >= self._bounds.queue_batches:
            raise StoreUnavailable("storage-unavailable", "too many writes are waiting")
        loop = asyncio.get_running_loop()
        answer: Future = loop.create_future()
        self._put(_Job(workspace_id, batch, loop, answer))
        return answer

    def ask(self, work: Callable[[sqlite3.Connection], object]) -> Future:
        """Do something between two groups."""
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        answer: Future = loop.create_future()
        self._put(_Errand(work, loop, answer))
        return answer

    def _put(self, item: _Item) -> None:
        self._items.put(item)
        if not self._thread.is_alive():  # it ended in between: nobody else would answer
            self._abandon()

    def _refuse_if_closed(self) -> None:
        if self.failure is not None:
            raise StoreUnavailable("storage-unavailable", self.failure)
        if self._closed:
            raise StoreUnavailable("storage-unavailable", "the store is closed")

    # -- the thread

    def _run(self) -> None:
        try:
            self.opened = open_database(self._path, self._clock.now_ms())
            self._db = self.opened.connection
            self._tails = Tails(self._db, self._bounds.segment_entries)
            self._tails.load()
            self.failure = self.opened.trouble
        except (CannotOpen, sqlite3.Error, OSError) as fault:
            self.open_fault = fault
            return
        finally:
            self.ready.set()
        try:
            self._serve()
            with contextlib.suppress(sqlite3.Error, OSError):
                self.opened.close()
        finally:
            self._closed = True
            self._abandon()

    def _serve(self) -> None:
        while True:
            item = self._take(TICK_S)
            if isinstance(item, _Stop):
                return
            try:
                if isinstance(item, _Job):
                    self._write(item)
                elif isinstance(item, _Errand):
                    self._do(item)
                self._upkeep()
            except sqlite3.Error as fault:  # while another fault was being settled
                self._fail(self._in_hand, fault)

    def _take(self, wait_s: float) -> _Item | None:
        if self._held is not None:
            item, self._held = self._held, None
            return item
        try:
            return self._items.get(timeout=wait_s) if wait_s else self._items.get_nowait()
        except queue.Empty:
            return None

    def _write(self, first: _Job) -> None:
        """Commit the first job and what waits behind it."""
        jobs = [first]
        self._in_hand = jobs
        if self.failure is not None:
            self._refuse([first], self.failure)
            return
        started = self._clock.monotonic()
        try:
            group = self._begin()
            answers = [(first, self._apply(group, first))]
            while (job := self._next_job(len(jobs), started)) is not None:
                jobs.append(job)
                answers.append((job, self._apply(group, job)))
            self._commit(group)
        except _POISON as fault:
            self._roll_back()
            self._one_by_one(jobs, fault)
        except sqlite3.Error as fault:
            self._fail(jobs, fault)
        else:
            self.commits += len(jobs)
            self._deliver(answers)

    def _next_job(self, done: int, started: float) -> _Job | None:
        if done >= self._bounds.group_batches:
            return None
        if self._clock.monotonic() - started > self._bounds.group_s:
            return None
        item = self._take(0)
        if isinstance(item, _Job):
            return item
        self._held = item
        return None

    def _begin(self) -> Group:
        self._db.execute("BEGIN IMMEDIATE")
        return Group(self._db, self._tails, self._leases, self._clock.now_ms())

    def _apply(self, group: Group, job: _Job) -> CommitResult | StoreConflict:
        try:
            return group.apply(job.workspace_id, job.batch)
        except StoreConflict as conflict:
            return conflict

    def _commit(self, group: Group) -> None:
        entries = group.finish()
        self._db.execute("COMMIT")
        self.groups += 1
        self._dirty_pages += PAGES_PER_GROUP + PAGES_PER_ENTRY * entries

    def _one_by_one(self, jobs: Sequence[_Job], fault: Exception) -> None:
        if len(jobs) == 1:
            self._deliver([(jobs[0], ValueError(f"this batch cannot be stored: {fault}"))])
            return
        for position, job in enumerate(jobs):
            try:
                group = self._begin()
                answer: object = self._apply(group, job)
                self._commit(group)
            except _POISON as own:
                self._roll_back()
                answer = ValueError(f"this batch cannot be stored: {own}")
            except sqlite3.Error as broken:
                self._fail(jobs[position:], broken)
                return
            self._deliver([(job, answer)])

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._tails.load()

    def _fail(self, jobs: Sequence[_Job | _Errand], fault: sqlite3.Error) -> None:
        """The disk gave up: nothing of these was applied, and we are read-only for a while."""
        with contextlib.suppress(sqlite3.Error):
            self._roll_back()
        self.failure = f"the database cannot be written: {fault}"
        self._failed_at = self._clock.monotonic()
        self._refuse(jobs, self.failure)

    def _refuse(self, jobs: Sequence[_Job | _Errand], why: str) -> None:
        self._deliver([(job, StoreUnavailable("storage-unavailable", why)) for job in jobs])

    def _do(self, errand: _Errand) -> None:
        self._in_hand = [errand]
        if self.failure is not None:
            self._refuse([errand], self.failure)
            return
        try:
            answer = errand.work(self._db)
        except _POISON as fault:
            self._roll_back()
            self._deliver([(errand, ValueError(f"this cannot be done: {fault}"))])
        except StoreConflict as conflict:
            self._deliver([(errand, conflict)])
        except sqlite3.Error as fault:
            self._fail([errand], fault)
        else:
            self._dirty_pages += PAGES_PER_GROUP
            self._deliver([(errand, answer)])

    # -- upkeep

    def _upkeep(self) -> None:
        now = self._clock.monotonic()
        if self.failure is not None:
            damaged = self.opened is None or self.opened.trouble is not None
            if not damaged and now - self._failed_at >= self._bounds.retry_s:
                self._retry(now)
            return
        due = self._dirty_pages and now - self._checked_at >= CHECKPOINT_S
        if due or self._dirty_pages >= CHECKPOINT_PAGES:
            try:
                self._checkpoint()
            except sqlite3.Error as fault:
                self._fail([], fault)
            self._checked_at = self._clock.monotonic()
            self._dirty_pages = 0

    def _retry(self, now: float) -> None:
        """Is there room again?  A write of a few pages, and the memory is loaded anew."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES('probe', zeroblob(65536))")
            self._db.execute("COMMIT")
            self._tails.load()
        except sqlite3.Error as fault:
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            self.failure = f"the database cannot be written: {fault}"
            self._failed_at = now
        else:
            self.failure = None

    def _checkpoint(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        wal = self._path.with_name(self._path.name + "-wal")
        try:
            large = wal.stat().st_size > WAL_LIMIT_BYTES
        except OSError:
            return
        if large and self._oldest_reader_s() <= OLD_READER_S:
            # a reader that begins now must not hold the writer for the whole busy time-out
            self._db.execute("PRAGMA busy_timeout=100")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._db.execute("PRAGMA busy_timeout=5000")

    # -- answers

    def _deliver(self, answers: _Answers) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Future, object]]] = {}
        for job, answer in answers:
            by_loop.setdefault(job.loop, []).append((job.answer, answer))
        for loop, pairs in by_loop.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits
                loop.call_soon_threadsafe(_settle, pairs)

    def _abandon(self) -> None:
        """Nobody will answer these any more; what has its answer keeps it."""
        self._refuse(self._in_hand, "the store is closed")
        while (item := self._take(0)) is not None:
            if not isinstance(item, _Stop):
                self._refuse([item], "the store is closed")


def _settle(pairs: Sequence[tuple[Future, object]]) -> None:
    for future, answer in pairs:
        if not future.done():
            future.set_result(answer)
