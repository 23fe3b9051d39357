"""Lives of a process that writes to a store, for tests that kill it: the tests' own launcher.

    python -m tests.storage.lives

reads a life a line – what it does, the store, a number – and forks: `pid …` when it begins, what it
was told in between, `ended …` with the status of `wait` when it is over.  A life that comes to its
end exits with HEARD.

    once       one commit of every kind of operation
    statement  the same; killed before statement number … of its database
    answer     the same; killed before answer number … of its database is heard
    work       changes and deliveries until it is killed
    lead       takes the lease for … ms and writes under its fence, whatever becomes of the lease
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from pathlib import Path
from typing import Any, Final

from proxy.control.audit import AUDIT_LOG, Actor, Audit
from proxy.model.batch import (
    ABSENT,
    Batch,
    Count,
    Cursor,
    Fence,
    Idem,
    LogFilter,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    Put,
    StoreConflict,
    StoreUnavailable,
)
from proxy.runtime.clock import SystemClock
from proxy.runtime.ids import UlidIds
from proxy.storage.chain import GENESIS, links, row_hash
from proxy.storage.choose import Engine, store_of
from proxy.storage.sqlite.engine import SqliteStore
from proxy.wire import jsonbody
from tests.kit.redis import silent

WS: Final = "workspace-123"
HEARD: Final = 7
NAMES: Final = "abcdef"
ACTOR: Final = Actor("key", "name", "admin", "127.0.0.1", "req")
CLOCK: Final = SystemClock()


@asynccontextmanager
async def opened(said: str) -> AsyncIterator[Engine]:
    """`said`: a directory, or the URL of a Redis."""
    store = store_of(said if "://" in said else "sqlite", Path(said), CLOCK, silent)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def tell(text: str) -> None:
    os.write(1, text.encode() + b"\n")


# --- a commit of everything


async def prepare(store: Engine) -> None:
    post = OutboxPut("ops", "", "alert", b"a-1", 0)
    async with Audit().chain(store, WS, 0) as chain:
        row = chain.row(ACTOR, "doc.create", ("doc", "a"), [])
        await store.commit(WS, Batch("cm-before", (Put("doc", "a", b"1", ABSENT), post, row)))


async def everything(store: Engine) -> None:
    """Claim a row, then in one commit: settle it, change a document, post another row, and what
    goes with it."""
    (sent,) = await store.claim(WS, "n", lease_ms=0, limit=1)
    async with Audit().chain(store, WS, 0) as chain:
        ops = (
            Put("doc", "a", b"2", expect=1), OutboxPut("ops", "", "alert", b"a-2", 1 << 45),
            chain.row(ACTOR, "doc.update", ("doc", "a"), []), OutboxDone(sent.id, sent.token),
            Put("sent", sent.payload.decode(), b"", ABSENT), Cursor("c", 0, 1),
            Idem(b"k" * 32, b"f" * 32, 200, b"{}", b"{}", 3600), Count(1, "sent", {0: 1}),
        )  # fmt: skip
        await store.commit(WS, Batch("cm-everything", ops))


State = tuple[int, list[bytes], list[str], int, bool, int, list[tuple[int, str, int, int]]]
BEFORE: Final[State] = (1, [b"a-1"], [], 0, False, 1, [])
AFTER: Final[State] = (2, [b"a-2"], ["a-1"], 1, True, 2, [(1, "sent", 0, 1)])


async def state(store: Engine) -> State:
    """Revision of the document, rows, what was sent, cursor, record, audit rows, counters."""
    return (
        await store.revision(WS, "doc", "a"),
        [row.payload for row in await store.outbox(WS)],
        [doc_id for doc_id, _, _ in await store.scan(WS, "sent")],
        await store.cursor(WS, "c"),
        await store.idempotency(WS, b"k" * 32) is not None,
        len(await audited(store)),
        list(await store.rollup(WS, 0, 9)),  # type: ignore[attr-defined]  # every engine has it
    )


# --- work that is never finished


async def work(store: Engine, chance: random.Random) -> None:
    """Each client changes its document again and again, two deliver."""
    audit = Audit()

    async def change(name: str) -> None:
        turn = await store.revision(WS, "doc", name)
        while True:
            turn += 1
            told = f"{name}-{turn}"
            post = OutboxPut("ops", name, "alert", told.encode(), CLOCK.now_ms())
            actor = Actor("key", "name", "admin", "127.0.0.1", told)
            async with audit.chain(store, WS, CLOCK.now_ms()) as chain:
                row = chain.row(actor, "doc.update", ("doc", name), [])
                put = Put("doc", name, b"%d" % turn, ABSENT if turn == 1 else turn - 1)
                await store.commit(WS, Batch(UlidIds().new("cm-"), (put, post, row)))
            tell(f"told {name} {turn}")
            await asyncio.sleep(chance.random() * 0.05)

    async def deliver() -> None:
        while True:
            for row in await store.claim(WS, f"{os.getpid()}", lease_ms=200, limit=4):
                settled = OutboxDone(row.id, row.token)
                sent = Put("sent", row.payload.decode(), b"", ABSENT)
                ops = (settled, sent, Count(1, "sent", {0: 1}))
                if chance.random() < 0.2:
                    due_ms = CLOCK.now_ms() + 20
                    ops = (OutboxRetry(row.id, row.token, due_ms, row.attempts + 1),)
                with contextlib.suppress(StoreConflict):  # its time was over, another has it
                    await store.commit(WS, Batch(UlidIds().new("cm-"), ops))
            await asyncio.sleep(0.005)

    await asyncio.gather(*(change(name) for name in NAMES), deliver(), deliver())


async def must_hold(store: Engine, heard: dict[str, int]) -> int:
    """A row of the outbox and of the audit for each change, and none without one; nothing was sent
    twice or out of order.  How many changes there are."""
    changes = {
        f"{name}-{turn}"
        for name, _, body in await store.scan(WS, "doc")
        for turn in range(1, int(body) + 1)
    }
    assert {f"{name}-{turn}" for name, turn in heard.items()} <= changes
    waiting = [row.payload.decode() for row in await store.outbox(WS, limit=1 << 20)]
    sent = [doc_id for doc_id, _, _ in await store.scan(WS, "sent")]
    assert sorted(waiting + sent) == sorted(changes)
    counted = await store.rollup(WS, 0, 9)  # type: ignore[attr-defined]  # every engine has it
    assert sum(row[3] for row in counted) == len(sent)
    for name in NAMES:
        turns = sorted(int(each[2:]) for each in sent if each[0] == name)
        assert turns == list(range(1, len(turns) + 1))
    assert sorted(await audited(store)) == sorted(changes)
    return len(changes)


async def audited(store: Engine) -> list[str]:
    """Which changes the audit tells of, row by row; the chain is whole."""
    head, told = GENESIS, []
    query = LogFilter(newest_first=False, limit=1000, after_seq=0)
    while True:
        page = await store.range(WS, AUDIT_LOG, query)
        for entry in page.entries:
            row = jsonbody.loads(entry.body)
            assert isinstance(row, dict)
            assert links(entry.body) == (entry.seq, head, row_hash(row))
            head = row_hash(row)
            told.append(str(row["request_id"]))
        if page.next_seq is None:
            return told
        query = LogFilter(newest_first=False, limit=1000, after_seq=page.next_seq)


# --- a leader that does not look back


async def lead(store: Engine, ttl_s: float) -> None:
    """Writes until it was refused five times, or for a while."""
    until_s = CLOCK.monotonic() + 20
    token = await store.leases.take(WS, "leader", ttl_s)
    assert token is not None
    tell(f"leads {token}")
    refused, number = 0, 0
    while refused < 5 and CLOCK.monotonic() < until_s:
        number += 1
        ops = (Put("doc", "led", b"leader"), OutboxPut("ops", "", "alert", b"leader", 0))
        try:
            await store.leases.renew(WS, "leader", token, ttl_s)
            await store.commit(WS, Batch(f"cm-{token}-{number}", ops, Fence(WS, token)))
        except StoreConflict as conflict:
            refused += conflict.reason == "fence"
        except StoreUnavailable:  # it was away for longer than it waits
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.005)


# --- the launcher


class Fuse:
    """Kills the process when it is asked once more than so often."""

    def __init__(self, times: int) -> None:
        self._left = times

    def __call__(self, *_: object) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


class Mortal(asyncio.SelectorEventLoop):
    """A loop that may die when another thread has something to say."""

    fuse: Callable[[], None] | None = None

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if self.fuse is not None:
            self.fuse()
        return super().call_soon_threadsafe(callback, *args, context=context)


async def live(what: str, said: str, number: int) -> None:
    async with opened(said) as store:
        if what == "statement":
            assert isinstance(store, SqliteStore)
            await store._ask(lambda db: db.set_trace_callback(Fuse(number)))
        if what == "answer":
            loop = asyncio.get_running_loop()
            assert isinstance(loop, Mortal)
            loop.fuse = Fuse(number)
        tell("ready")
        if what == "work":
            await work(store, random.Random(number))
        elif what == "lead":
            await lead(store, number / 1000)
        else:
            await everything(store)
            os._exit(HEARD)


def main() -> None:
    for line in sys.stdin:
        what, said, number = line.split()
        pid = os.fork()
        if pid == 0:
            with asyncio.Runner(loop_factory=Mortal) as runner:
                runner.run(live(what, said, int(number)))
            os._exit(HEARD)
        tell(f"pid {pid}")
        _, status = os.waitpid(pid, 0)
        tell(f"ended {status}")


if __name__ == "__main__":
    main()
