"""What of a guarded stream came at once and waits to be looked at: order, ends, back-pressure."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from proxy.gateway.backlog import LONG_BYTES
from proxy.gateway.pipeline import serve
from proxy.model.ports import TransportFault
from proxy.runtime.tasks import spawn
from tests.kit.builders import BLOCK_RULE, SECRET_RULE, SSE, World, pack, world
from tests.kit.fakes import FakeClock, RecordingDownstream
from tests.kit.shapes import DONE, KEY, ROLE, STOP, STREAM, chunk, docs_of

T = TypeVar("T")
PACK = pack(SECRET_RULE, BLOCK_RULE)
HIDDEN = "[KEY]"
LONG = "word " * 20_000
RESET = TransportFault("reset", "by peer", response_bytes=100)


def said(caller: RecordingDownstream) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for doc in docs_of(caller)
        for choice in doc.get("choices", [])
    )


def tiny(count: int) -> list[bytes]:
    return [chunk({"content": f"{number} "}) for number in range(count)]


class Ticking(FakeClock):
    """Every look at it takes a while, and so does every piece."""

    def monotonic(self) -> float:
        self.advance(0.0002)
        return super().monotonic()


class Slow:
    """`OffLoop` that runs nothing before it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked = asyncio.Event()

    async def run(self, work: Callable[[], T]) -> T:
        self.asked.set()
        await self.go.wait()
        return work()


class Broken:
    async def run(self, work: Callable[[], T]) -> T:
        raise RuntimeError("no threads any more")


class Threads:
    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)


def at_once() -> World:
    """A stream that has begun; the test lets the rest come in one go."""
    w = world(scripts={"openai": [[(200, SSE), ROLE, chunk({"content": "so: "})]]}, packs=[PACK])
    w.gateway.clock = Ticking()
    return w


async def begun(w: World, caller: RecordingDownstream) -> "asyncio.Task[None]":
    caller.request_body = STREAM
    task = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="request")
    await quiet()
    return task


async def quiet() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


TEXTS: dict[str, list[bytes]] = {
    "one long event": [chunk({"content": f"{LONG}{KEY} {LONG}"})],
    "many small events in one piece": [b"".join(tiny(900))],
    "many small pieces": tiny(900),
    "a long event in small pieces": [
        chunk({"content": LONG})[at : at + 500] for at in range(0, len(LONG) + 500, 500)
    ],
}


@pytest.mark.parametrize("pieces", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("off_loop", [None, Threads], ids=["in line", "threads"])
async def test_what_comes_at_once_leaves_whole_and_in_order(
    pieces: list[bytes], off_loop: type[Threads] | None
) -> None:
    w, caller = at_once(), RecordingDownstream()
    if off_loop is not None:
        w.gateway.off_loop = off_loop()
    request = await begun(w, caller)
    sink, call = w.upstreams["openai"].sinks[-1], w.upstreams["openai"].calls[-1]
    for piece in [*pieces, STOP, DONE]:
        sink.data(piece)
    sink.end()
    assert call.paused
    await request
    came = RecordingDownstream(pieces=pieces)
    assert said(caller) == "so: " + said(came).replace(KEY, HIDDEN)
    assert caller.received.endswith(DONE)
    assert not caller.cut
    assert not call.paused
    assert w.record.outcome == "success"


async def test_a_cut_behind_a_backlog_is_told_after_it() -> None:
    w, caller = at_once(), RecordingDownstream()
    request = await begun(w, caller)
    sink = w.upstreams["openai"].sinks[-1]
    for piece in tiny(900):
        sink.data(piece)
    sink.failed(RESET)
    await request
    assert caller.cut
    assert DONE not in caller.received
    assert "899" in said(caller)
    assert w.record.outcome == "interrupted"


async def test_an_end_without_a_whole_answer_is_no_success() -> None:
    w, caller = at_once(), RecordingDownstream()
    request = await begun(w, caller)
    sink = w.upstreams["openai"].sinks[-1]
    sink.data(b"".join(tiny(900)))
    sink.end()
    await request
    assert caller.cut
    assert w.record.outcome == "interrupted"


async def test_a_block_in_a_backlog_ends_it() -> None:
    w, caller = at_once(), RecordingDownstream()
    request = await begun(w, caller)
    sink = w.upstreams["openai"].sinks[-1]
    sink.data(chunk({"content": f"{LONG} the launch code is"}))
    sink.data(chunk({"content": "never said"}))
    sink.data(DONE)
    sink.end()
    await request
    assert "launch" not in said(caller)
    assert "never" not in said(caller)
    assert w.record.outcome == "blocked"


async def test_who_leaves_while_there_is_a_backlog_ends_it() -> None:
    w, caller, slow = at_once(), RecordingDownstream(), Slow()
    w.gateway.off_loop = slow
    request = await begun(w, caller)
    sink, call = w.upstreams["openai"].sinks[-1], w.upstreams["openai"].calls[-1]
    sink.data(chunk({"content": LONG}))
    sink.data(chunk({"content": KEY}))
    await asyncio.wait_for(slow.asked.wait(), 5)
    sent = len(caller.pieces)
    caller.gone = True
    request.cancel()
    await quiet()
    assert call.cancelled
    slow.go.set()
    await asyncio.wait([request])
    assert len(caller.pieces) == sent
    assert w.record.outcome == "client_cancelled"


@pytest.mark.parametrize("rest", [[], [STOP, DONE]], ids=["cut there", "whole"])
async def test_what_breaks_beside_the_loop_lets_nothing_by(rest: list[bytes]) -> None:
    w, caller = at_once(), RecordingDownstream()
    w.gateway.off_loop = Broken()
    request = await begun(w, caller)
    sink, call = w.upstreams["openai"].sinks[-1], w.upstreams["openai"].calls[-1]
    for piece in [chunk({"content": LONG}), *rest]:
        sink.data(piece)
    await asyncio.wait_for(request, 5)
    assert call.cancelled
    assert said(caller) == "so: "
    assert caller.cut
    assert DONE not in caller.received
    assert w.record.outcome == "interrupted"


async def test_a_drain_ends_it() -> None:
    w, caller, slow = at_once(), RecordingDownstream(), Slow()
    w.gateway.off_loop = slow
    request = await begun(w, caller)
    w.upstreams["openai"].sinks[-1].data(chunk({"content": LONG}))
    await asyncio.wait_for(slow.asked.wait(), 5)
    (answer,) = w.gateway.answers
    answer.cancel()
    answer.failed(TransportFault("reset", "draining"))
    slow.go.set()
    await request
    assert caller.cut
    assert w.record.outcome == "interrupted"


async def test_the_endpoint_is_read_when_neither_the_caller_nor_the_backlog_is_against_it() -> None:
    w, caller, slow = at_once(), RecordingDownstream(), Slow()
    w.gateway.off_loop = slow
    request = await begun(w, caller)
    sink, call = w.upstreams["openai"].sinks[-1], w.upstreams["openai"].calls[-1]
    assert caller.followed is not None
    caller.followed.pause()
    assert call.paused
    sink.data(chunk({"content": LONG}))
    caller.followed.resume()
    assert call.paused, "the backlog"
    caller.followed.pause()
    slow.go.set()
    await quiet()
    for _ in range(40):
        await quiet()
    assert call.paused, "the caller"
    caller.followed.resume()
    assert not call.paused
    sink.data(STOP + DONE)
    sink.end()
    await request
    assert w.record.outcome == "success"


async def test_without_rules_nothing_waits() -> None:
    w, caller = world(scripts={"openai": [[(200, SSE), ROLE]]}), RecordingDownstream()
    request = await begun(w, caller)
    sink, call = w.upstreams["openai"].sinks[-1], w.upstreams["openai"].calls[-1]
    sink.data(chunk({"content": "x" * 10 * LONG_BYTES}))
    assert not call.paused
    sink.data(STOP + DONE)
    sink.end()
    await request
    assert caller.received.endswith(DONE)
