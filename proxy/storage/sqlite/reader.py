"""The threads that read: four connections that cannot write, each for one question at a time.

A question reads a bounded number of rows and closes at once, since a long reader keeps the WAL from
being checkpointed; after 2 s it is aborted.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from proxy.model.batch import StoreUnavailable
from proxy.model.ports import Clock
from proxy.storage.sqlite.bounds import Bounds
from proxy.storage.sqlite.files import connect_reader

READERS = 4
STEPS_BETWEEN_LOOKS = 20_000  # of SQLite's machine: below a millisecond

_UNASKABLE = (OverflowError, ValueError, TypeError)  # beyond 64 bits, not UTF-8
T = TypeVar("T")


@dataclass(slots=True)
class _Question:
    work: Callable[[sqlite3.Connection], object]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[object]"


class Readers:
    """`ask` is for the event loop."""

    def __init__(self, path: Path, clock: Clock, bounds: Bounds) -> None:
        self._path = path
        self._clock = clock
        self._bounds = bounds
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._since: list[float] = [0.0] * READERS  # 0: idle
        self._threads = [
            threading.Thread(target=self._run, args=(i,), name=f"store-reader-{i}", daemon=True)
            for i in range(READERS)
        ]
        self._closed = False

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Blocks until the questions that were taken are answered."""
        self._closed = True
        for _ in self._threads:
            self._questions.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def oldest_s(self) -> float:
        """For how long the oldest question has been read."""
        now = self._clock.monotonic()
        return max((now - since for since in self._since if since), default=0.0)

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Raises StoreUnavailable; ValueError for what no database could be asked."""
        if self._closed:
            raise StoreUnavailable("storage-unavailable", "the store is closed")
        if self._questions.qsize() >= self._bounds.queue_questions:
            raise StoreUnavailable("overloaded", "too many reads are waiting")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        self._questions.put(_Question(work, loop, answer))
        found = await answer
        if isinstance(found, StoreUnavailable | ValueError):
            raise found
        return found  # type: ignore[return-value]  # what `work` gave

    def _run(self, index: int) -> None:
        connection: sqlite3.Connection | None = None
        while (question := self._questions.get()) is not None:
            if question.answer.cancelled():
                continue
            started = self._since[index] = self._clock.monotonic()
            try:
                if connection is None:
                    connection = connect_reader(self._path)
                found = self._answer(connection, question, started)
            except sqlite3.Error as fault:
                found = StoreUnavailable("storage-unavailable", f"the database: {fault}")
            except _UNASKABLE as fault:
                found = ValueError(f"this cannot be asked: {fault}")
            finally:
                self._since[index] = 0.0
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits
                question.loop.call_soon_threadsafe(_settle, question.answer, found)
        if connection is not None:
            connection.close()

    def _answer(
        self, connection: sqlite3.Connection, question: _Question, started: float
    ) -> object:
        due = started + self._bounds.query_s
        connection.set_progress_handler(lambda: self._clock.monotonic() > due, STEPS_BETWEEN_LOOKS)
        try:
            connection.execute("BEGIN")
            return question.work(connection)
        except sqlite3.OperationalError as fault:
            if self._clock.monotonic() > due:
                detail = f"the question took more than {self._bounds.query_s:g} s"
                return StoreUnavailable("query-timeout", detail)
            return StoreUnavailable("storage-unavailable", f"the database: {fault}")
        finally:
            connection.set_progress_handler(None, 0)
            if connection.in_transaction:
                connection.execute("COMMIT")


def _settle(answer: "asyncio.Future[object]", found: object) -> None:
    if not answer.done():
        answer.set_result(found)
