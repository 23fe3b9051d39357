"""The front over time: who leaves, who dawdles, who does not read; drain, overload, bugs."""

import asyncio
import json

import pytest

from proxy.gateway.downstream import HttpDownstream
from proxy.gateway.handlers import Front
from proxy.gateway.snapshot import Rules
from proxy.model.exchange import Inbound
from tests.gateway.fakes import Kitchen, Pipe, piped, quiet
from tests.kit.builders import SSE, World, world

GET = b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_who_leaves_takes_what_he_sent_ahead_with_him() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(GET.replace(b"/echo", b"/wait") + GET)
    pipe.protocol.eof_received()
    pipe.close()
    await quiet()
    assert kitchen.cancelled == ["/wait"]
    assert kitchen.targets == ["/wait"]


def later(pipe: Pipe, seconds: float) -> None:
    """What the sweep does when so much time has gone by."""
    pipe.protocol.sweep(asyncio.get_running_loop().time() + seconds)


@pytest.mark.parametrize("before", [b"", GET], ids=["fresh", "kept"])
async def test_t_http_02_a_slow_head_is_cut_within_10_s(before: bytes) -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(before, b"G", b"ET /echo HT", b"TP/1.1\r\nhost:")
    said = len(pipe.written)
    later(pipe, 8.9)
    assert not pipe.closed
    later(pipe, 9.1)
    assert pipe.ended
    assert len(pipe.written) == said
    assert len(kitchen.seen) == bool(before)


async def test_what_is_refused_lingers_for_2_s() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(b"nonsense\r\n\r\n")
    later(pipe, 1.9)
    await pipe.push(GET)  # read and thrown away
    assert (pipe.eof, pipe.ended, kitchen.seen) == (True, False, [])
    later(pipe, 2.1)
    assert pipe.ended


async def test_t_http_02_line_ends_do_not_buy_time() -> None:
    pipe, _ = piped(Kitchen().handle)
    await pipe.push(*[b"\r\n"] * 10)
    later(pipe, 9.1)
    assert pipe.ended
    assert pipe.written == b""


async def test_the_head_of_what_is_sent_ahead_is_timed_when_it_is_its_turn() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(GET.replace(b"/echo", b"/wait") + GET[:-2])
    later(pipe, 100)
    assert not pipe.closed
    kitchen.go.set()
    await quiet()
    later(pipe, 8.9)
    assert not pipe.closed
    later(pipe, 9.1)
    assert pipe.ended


async def test_an_idle_connection_is_closed_after_75_s() -> None:
    pipe, _ = piped(Kitchen().handle)
    await pipe.push(GET)
    later(pipe, 1)
    later(pipe, 75.9)
    assert not pipe.closed
    later(pipe, 76.1)
    assert pipe.ended


async def test_t_http_03_a_slow_body_is_told_after_5_s() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n")
    await pipe.push(b"x" * 2048)
    later(pipe, 6.9)
    assert await pipe.push() == b""
    later(pipe, 7.1)
    assert b"too slowly" in await pipe.push()
    assert pipe.eof


async def test_a_slow_body_that_nobody_wants_ends_the_connection() -> None:
    pipe, _ = piped(Kitchen().handle)
    await pipe.push(b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\na")
    later(pipe, 4.9)
    assert not pipe.closed
    later(pipe, 5.1)
    assert pipe.ended


async def test_who_reads_nothing_is_cut() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(GET.replace(b"/echo", b"/stream"))
    pipe.unsent_bytes = 100_000
    later(pipe, 1)
    pipe.unsent_bytes = 99_000  # he reads a little: that counts
    later(pipe, 70)
    later(pipe, 140)
    assert not pipe.closed
    later(pipe, 146)
    assert pipe.ended
    await quiet()
    assert kitchen.cancelled == ["/stream"]


class HeldCall:
    due = 0.0
    phase = ""

    def __init__(self) -> None:
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        raise AssertionError("not asked for")


async def test_the_upstream_waits_for_who_does_not_read() -> None:
    call = HeldCall()
    go = asyncio.Event()

    async def handle(inbound: Inbound, caller: HttpDownstream) -> None:
        caller.follow(call)
        await go.wait()
        caller.begin(200, b"", length=0)
        caller.end()
        caller.over()

    pipe, _ = piped(handle)
    await pipe.push(GET)
    pipe.protocol.pause_writing()
    assert call.paused
    pipe.protocol.resume_writing()
    assert not call.paused
    go.set()
    await quiet()
    pipe.protocol.pause_writing()  # nobody is followed now
    assert not call.paused


# --- drain


async def test_draining_closes_idle_connections_and_ends_the_others_with_their_answer() -> None:
    kitchen = Kitchen()
    idle, server = piped(kitchen.handle)
    busy, partial, new = Pipe(server()), Pipe(server()), Pipe(server())
    await idle.push(GET)
    await busy.push(GET.replace(b"/echo", b"/wait"))
    await partial.push(GET[:20])
    server.close_idle()
    assert (idle.ended, busy.closed, partial.closed, new.closed) == (True, False, False, False)
    assert server.expecting()
    kitchen.go.set()
    await partial.push(GET[20:])
    await new.push(GET)
    assert not server.expecting()
    for pipe in (busy, partial, new):
        assert b"connection: close\r\n" in pipe.written
        assert pipe.ended


async def test_shutdown_cancels_what_does_not_end() -> None:
    kitchen = Kitchen()
    pipe, server = piped(kitchen.handle)
    await pipe.push(GET.replace(b"/echo", b"/wait"))
    await server.shutdown(0.01)
    assert kitchen.cancelled == ["/wait"]
    assert kitchen.left == [False]
    assert pipe.ended
    assert repr(server) == "<FrontServer 0 connections>"


# --- what Front adds


def fronted(w: World) -> tuple[Pipe, list[BaseException]]:
    bugs: list[BaseException] = []
    pipe, _ = piped(Front(w.gateway, bugs.append).handle)
    return pipe, bugs


CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


async def test_overload_is_told_before_the_body_is_read() -> None:
    w = world()
    pipe, _ = fronted(w)
    w.gateway.in_flight = w.gateway.rules().doc.max_in_flight
    written = await pipe.push(CHAT + b"content-length: 100\r\n\r\n{")
    assert written.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in written
    assert b"connection: close\r\n" in written
    assert pipe.closed
    assert w.gateway.in_flight == w.gateway.rules().doc.max_in_flight


async def test_a_coding_that_is_not_ours_is_refused() -> None:
    pipe, _ = fronted(world())
    written = await pipe.push(CHAT + b"content-encoding: br\r\ncontent-length: 1\r\n\r\nx")
    assert written.startswith(b"HTTP/1.1 400 ")
    assert b"content-encoding" in written
    assert not pipe.closed


async def test_while_draining_answers_end_the_connection() -> None:
    w = world()
    w.gateway.draining = lambda: True
    pipe, _ = fronted(w)
    written = await pipe.push(CHAT + b"content-length: 1\r\n\r\n{")
    assert b"connection: close\r\n" in written
    assert pipe.ended


async def test_a_bug_before_the_first_byte_is_a_500_of_the_dialect() -> None:
    w = world()
    w.gateway.rules = broken
    pipe, bugs = fronted(w)
    data = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    written = await pipe.push(data, data)
    assert written.count(b"HTTP/1.1 500 ") == 2
    assert json.loads(written.rpartition(b"\r\n\r\n")[2])["type"] == "error"
    assert b"x-parapet-request-id: req-" in written
    assert [str(bug) for bug in bugs] == ["a bug", "a bug"]


def broken() -> Rules:
    raise RuntimeError("a bug")


async def test_a_bug_after_the_first_byte_cuts_the_answer() -> None:
    w = world(scripts={"openai": [[(200, SSE), CHUNK, CHUNK, CHUNK, None]]})
    pipe, bugs = fronted(w)

    def fail(line: bytes, *, critical: bool) -> None:
        raise RuntimeError("a bug")

    w.notes.append = fail  # type: ignore[method-assign]
    ask = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
    written = await pipe.push(CHAT + b"content-length: %d\r\n\r\n" % len(ask) + ask)
    assert written.count(b"HTTP/1.1") == 1
    assert b"hello" in written
    assert not written.endswith(b"0\r\n\r\n")
    assert pipe.ended
    assert len(bugs) == 1


CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'
)
