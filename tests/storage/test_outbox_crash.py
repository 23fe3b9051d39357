"""The outbox and its change are one, whenever the process is killed; a leader of yesterday writes
nothing (R05; T-ST-02, T-ST-13, T-DL-04)."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.model.batch import Batch, Fence, OutboxPut, Put, StoreConflict
from tests.kit.redis import RedisServer
from tests.storage.lives import (
    AFTER,
    BEFORE,
    HEARD,
    WS,
    everything,
    must_hold,
    opened,
    prepare,
    state,
)

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]


class Launcher:
    """Starts lives, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.lives"], cwd=ROOT, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def start(self, what: str, said: str, number: int = 0) -> int:
        """Its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {said} {number}\n")
        return int(self.heard("pid")[-1].split()[1])

    def heard(self, last: str) -> list[str]:
        """What it says, until a line that begins so."""
        lines: list[str] = []
        assert self._process.stdout is not None
        while not lines or not lines[-1].startswith(last):
            line = self._process.stdout.readline()
            assert line, "the launcher is gone"
            lines.append(line.strip())
        return lines

    def ended(self) -> tuple[int | None, list[str]]:
        """The exit code, None when it was killed; what it said."""
        *said, last = self.heard("ended")
        status = int(last.split()[1])
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return None, said
        return os.WEXITSTATUS(status), said

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    started = Launcher()
    try:
        yield started
    finally:
        started.stop()


async def prepared(said: str) -> None:
    async with opened(said) as store:
        await prepare(store)
        assert await state(store) == BEFORE


async def all_or_nothing(said: str, *, heard: bool) -> bool:
    """Whether it happened; in the end it has, once."""
    async with opened(said) as store:
        found = await state(store)
        assert found in (BEFORE, AFTER)
        assert found == AFTER or not heard
        if found == BEFORE:
            await everything(store)
        else:
            with pytest.raises((StoreConflict, ValueError)):  # there is nothing left to claim
                await everything(store)
        assert await state(store) == AFTER
    return found == AFTER


@pytest.mark.parametrize(
    ("what", "before", "after"), [("statement", 20, 1), ("answer", 3, 2)], ids=lambda each: each
)
def test_t_st_02_killed_between_any_two_steps_a_commit_is_all_or_nothing(
    launcher: Launcher, tmp_path: Path, what: str, before: int, after: int
) -> None:
    """At least so many lives end before it has happened, and so many after."""
    first = tmp_path / "first"
    asyncio.run(prepared(str(first)))
    outcomes = []
    for number in range(200):
        home = tmp_path / f"{number}"
        shutil.copytree(first, home)
        launcher.start(what, str(home), number)
        code, _ = launcher.ended()
        assert code in (None, HEARD)
        outcomes.append(asyncio.run(all_or_nothing(str(home), heard=code == HEARD)))
        if code == HEARD:
            break
    assert outcomes == sorted(outcomes)  # from some step on it has happened
    assert outcomes.count(False) >= before
    assert outcomes.count(True) >= after


class Guillotine:
    """Forwards to a Redis; at the n-th piece that comes by, whoever sent it or waits for it dies.
    A question is forwarded still, an answer is not."""

    def __init__(self, port: int, pieces: int) -> None:
        self._server_port = port
        self._left = pieces
        self._serving: set[asyncio.Task[None] | None] = set()
        self.pid = 0

    async def __aenter__(self) -> str:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._listener.wait_closed()
        await asyncio.gather(*filter(None, self._serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        there, onward = await asyncio.open_connection("127.0.0.1", self._server_port)

        async def pass_on(
            source: asyncio.StreamReader, target: asyncio.StreamWriter, *, question: bool
        ) -> None:
            while data := await source.read(1 << 16):
                self._left -= 1
                if self._left >= 0 or question:
                    target.write(data)
                    await target.drain()
                if self._left < 0:
                    os.kill(self.pid, signal.SIGKILL)
                    return

        passing = pass_on(reader, onward, question=True), pass_on(there, writer, question=False)
        ways = [asyncio.ensure_future(way) for way in passing]  # noqa: TID251
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.02)  # a question on its way is heard by the server
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for each in (onward, writer):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()


@pytest.mark.redis
def test_t_st_02_killed_between_any_two_messages_a_commit_on_redis_is_all_or_nothing(
    launcher: Launcher, redis: RedisServer
) -> None:
    outcomes = []

    async def live(pieces: int) -> bool:
        """True: to its end."""
        guillotine = Guillotine(redis.port, pieces)
        async with guillotine as url:
            guillotine.pid = launcher.start("once", url)
            code, _ = await asyncio.to_thread(launcher.ended)
        assert code in (None, HEARD)
        outcomes.append(await all_or_nothing(redis.url, heard=code == HEARD))
        return code == HEARD

    for pieces in range(200):
        redis.command("FLUSHALL")
        asyncio.run(prepared(redis.url))
        if asyncio.run(live(pieces)):
            break
    assert outcomes[-1]
    assert {False, True} == set(outcomes[:-1])


def killed_again_and_again(launcher: Launcher, said: str, times: int) -> int:
    """At random moments, its start included.  How many changes there were."""
    chance, heard = random.Random(times), dict[str, int]()

    async def check() -> int:
        async with opened(said) as store:
            return await must_hold(store, heard)

    for number in range(times):
        pid = launcher.start("work", said, number)
        if number % 5:
            launcher.heard("ready")
        time.sleep(chance.random() * 0.25)
        os.kill(pid, signal.SIGKILL)
        code, lines = launcher.ended()
        assert code is None
        for line in lines:
            if line.startswith("told"):
                _, name, turn = line.split()
                heard[name] = int(turn)
        if number % 10 == 9:
            asyncio.run(check())
    return asyncio.run(check())


def test_killed_again_and_again_the_outbox_is_what_was_changed(
    launcher: Launcher, tmp_path: Path
) -> None:
    assert killed_again_and_again(launcher, str(tmp_path), 8) > 8


@pytest.mark.redis
def test_killed_again_and_again_the_outbox_on_redis_is_what_was_changed(
    launcher: Launcher, redis: RedisServer
) -> None:
    assert killed_again_and_again(launcher, redis.url, 8) > 8


@pytest.mark.long
def test_after_a_hundred_kills_the_outbox_is_what_was_changed(
    launcher: Launcher, tmp_path: Path
) -> None:
    assert killed_again_and_again(launcher, str(tmp_path), 100) > 300


@pytest.mark.redis
def test_t_st_13_a_leader_that_was_frozen_writes_nothing_when_it_goes_on(
    launcher: Launcher, redis: RedisServer
) -> None:
    async def freeze(number: int) -> None:
        redis.command("FLUSHALL")
        pid = launcher.start("lead", redis.url, 400)
        token = int(launcher.heard("leads")[-1].split()[1])
        await asyncio.sleep(0.02 + 0.013 * number)
        os.kill(pid, signal.SIGSTOP)
        async with opened(redis.url) as store:
            assert await store.leases.take(WS, "next", 60) is None
            await asyncio.sleep(0.6)
            mine = await store.leases.take(WS, "next", 60)
            assert mine is not None
            assert mine > token
            ops = (Put("doc", "led", b"next"), OutboxPut("ops", "", "alert", b"next", 0))
            await store.commit(WS, Batch("cm-next", ops, Fence(WS, mine)))
            before = await store.get(WS, "doc", "led"), await store.outbox(WS, limit=1 << 20)
            os.kill(pid, signal.SIGCONT)
            code, _ = await asyncio.to_thread(launcher.ended)
            assert code == HEARD  # it was refused, and again
            assert (await store.get(WS, "doc", "led"), await store.outbox(WS, limit=1 << 20)) == (
                before
            )
            assert before[0] is not None
            assert before[0][1] == b"next"
            await store.commit(WS, Batch("cm-again", ops, Fence(WS, mine)))

    for number in range(4):
        asyncio.run(freeze(number))
