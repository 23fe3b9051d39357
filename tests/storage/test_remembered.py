"""What a reader gets while Redis is away, and how old it is told to be (storage.md §4)."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

from proxy.model.batch import Batch, CommitResult, Delete, Put, StoreUnavailable
from proxy.runtime.aging import Aged, may_be_old
from proxy.storage.redis.remembered import Remembered, Row
from tests.kit.store import HandClock

WS = "workspace-123"
AWAY = StoreUnavailable("storage-unavailable", "Redis does not answer")


class Asked:
    """A server with some documents: `scan` and `get`, until it is `away`."""

    def __init__(self, clock: HandClock, limit_bytes: int = 1 << 20) -> None:
        self.memory = Remembered(clock, limit_bytes)
        self.rows: dict[str, list[Row]] = {}
        self.away: StoreUnavailable | None = None
        self.asked = 0

    def _answer(self, kind: str) -> Callable[[], Awaitable[list[Row]]]:
        async def ask() -> list[Row]:
            self.asked += 1
            if self.away is not None:
                raise self.away
            return list(self.rows.get(kind, []))

        return ask

    async def scan(self, kind: str = "doc") -> list[Row]:
        return await self.memory.scan(WS, kind, self._answer(kind))

    async def get(self, doc_id: str, kind: str = "doc") -> tuple[int, bytes] | None:
        async def ask() -> tuple[int, bytes] | None:
            rows = await self._answer(kind)()
            return next((row[1:] for row in rows if row[0] == doc_id), None)

        return await self.memory.get(WS, kind, doc_id, ask)

    def write(self, op: Put | Delete, revision: int = 2) -> None:
        done = CommitResult({(op.kind, op.id): revision}) if isinstance(op, Put) else CommitResult()
        self.memory.committed(WS, Batch("cm-1", (op,)), done)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def asked(clock: HandClock) -> Asked:
    made = Asked(clock)
    made.rows["doc"] = [("a", 1, b"A"), ("b", 1, b"B")]
    return made


async def test_a_collection_that_was_read_is_known_with_its_age(
    asked: Asked, clock: HandClock
) -> None:
    await asked.scan()
    await clock.sleep(7)
    asked.away = AWAY
    with may_be_old() as aged:
        assert await asked.scan() == [("a", 1, b"A"), ("b", 1, b"B")]
        assert aged.seconds == 7
        assert await asked.get("b") == (1, b"B")
        assert await asked.get("c") is None  # it was not there
    assert asked.asked == 2  # who was told once that it is away waits no more


async def test_what_was_not_read_is_not_known(asked: Asked) -> None:
    asked.away = AWAY
    with may_be_old() as aged:
        for ask in (asked.scan(), asked.get("a")):
            with pytest.raises(StoreUnavailable):
                await ask
        assert aged.seconds is None


async def test_one_document_that_was_read_is_known_and_no_other(asked: Asked) -> None:
    await asked.get("a")
    await asked.get("nobody")
    asked.away = AWAY
    with may_be_old():
        assert await asked.get("a") == (1, b"A")
        for doc_id in ("b", "nobody"):
            with pytest.raises(StoreUnavailable):
                await asked.get(doc_id)


@pytest.mark.parametrize(
    ("how", "away"),
    [
        (nullcontext(Aged()), AWAY),
        (may_be_old(), StoreUnavailable("overloaded", "too many questions")),
    ],
    ids=["who changes something", "our own connections are all taken"],
)
async def test_who_gets_no_old_documents(
    asked: Asked, how: AbstractContextManager[Aged], away: StoreUnavailable
) -> None:
    await asked.scan()
    asked.away = away
    with how as aged, pytest.raises(StoreUnavailable):
        await asked.scan()
    assert aged.seconds is None


async def test_what_this_process_wrote_is_known(asked: Asked, clock: HandClock) -> None:
    await asked.scan()
    await clock.sleep(5)
    asked.write(Put("doc", "a", b"A2"))
    asked.write(Put("doc", "c", b"C"), revision=1)
    asked.write(Delete("doc", "b"))
    asked.write(Put("other", "x", b"X"))
    asked.away = AWAY
    with may_be_old() as aged:
        assert await asked.scan() == [("a", 2, b"A2"), ("c", 1, b"C")]
        assert aged.seconds == 5  # what others wrote since then is not known
        assert await asked.get("a") == (2, b"A2")
        assert await asked.get("b") is None
        assert await asked.get("x", "other") == (2, b"X")
        with pytest.raises(StoreUnavailable):
            await asked.scan("other")


async def test_the_newest_is_given_and_the_oldest_is_told(asked: Asked, clock: HandClock) -> None:
    await asked.scan()
    await clock.sleep(3)
    asked.rows["doc"][0] = ("a", 2, b"A2")
    asked.rows["other"] = [("x", 1, b"X")]
    await asked.get("a")
    await asked.scan("other")
    await clock.sleep(4)
    asked.away = AWAY
    with may_be_old() as aged:
        assert await asked.get("a") == (2, b"A2")
        assert aged.seconds == 4
        await asked.scan()
        await asked.scan("other")
        assert aged.seconds == 7
    asked.away = None
    with may_be_old() as aged:
        await asked.scan()
        assert aged.seconds is None


async def test_what_was_asked_for_least_recently_goes(clock: HandClock) -> None:
    asked = Asked(clock, limit_bytes=5_000)
    for kind in ("one", "two", "three", "large"):
        asked.rows[kind] = [(kind, 1, bytes(9_000 if kind == "large" else 2_000))]
    for kind in ("one", "two", "one", "three"):
        await asked.scan(kind)
    asked.away = AWAY
    with may_be_old():
        for kind, known in (("one", True), ("two", False), ("three", True)):
            if known:
                assert await asked.scan(kind)
            else:
                with pytest.raises(StoreUnavailable):
                    await asked.scan(kind)
    asked.away = None
    await asked.scan("large")
    assert repr(asked.memory) == "<Remembered 0 places, 0 bytes>"
