"""Changes come into force one run at a time, and nobody is answered before his is."""

import asyncio

from proxy.app.applying import Applying
from proxy.runtime.tasks import spawn


async def test_who_asks_while_a_run_is_under_way_shares_the_next() -> None:
    runs: list[int] = []
    written, go = 0, asyncio.Event()

    async def act() -> None:
        runs.append(written)
        await go.wait()

    applying = Applying(act)
    first = spawn(applying.asked(), name="asked")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    written = 1
    others = [spawn(applying.asked(), name="asked") for _ in range(100)]
    await asyncio.sleep(0)
    assert not first.done()
    go.set()
    await asyncio.gather(first, *others)
    assert runs == [0, 1]


async def test_a_run_that_fails_is_told_to_him_who_asked_and_the_next_one_runs() -> None:
    runs = 0

    async def act() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise OSError("disk full")

    applying = Applying(act)
    try:
        await applying.asked()
    except OSError:
        await applying.asked()
    assert runs == 2


async def test_a_run_goes_on_when_nobody_waits_for_it_any_more() -> None:
    ended, go = asyncio.Event(), asyncio.Event()

    async def act() -> None:
        await go.wait()
        ended.set()

    applying = Applying(act)
    waiting = spawn(applying.asked(), name="asked")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    go.set()
    async with asyncio.timeout(1):
        await ended.wait()
        await applying.asked()
