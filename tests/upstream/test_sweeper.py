"""The limits of a call, with a clock that is moved and one that really runs."""

import asyncio

import pytest

from tests.kit.rawserver import Peer, RawServer, answering, whole
from tests.upstream.fakes import Recorder, Way, soon, way_to

PHASES = ["first_content", "idle", "total", "unary"]


async def _silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def _trickling(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\n12345")
    await peer.gone()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_call_past_its_limit_ends_with_the_limits_name(phase: str) -> None:
    async with RawServer(_trickling) as server, way_to(server.url) as way:
        sink = Recorder()
        way.start(sink, limit_s=10, phase=phase)
        await sink.until(lambda: sink.body == b"12345")
        way.sweep(ahead_s=9.8)
        assert sink.fault is None
        way.sweep(ahead_s=0.3)
        assert sink.fault is not None
        assert (sink.phase, sink.fault.response_bytes) == (phase, 24)
        assert sink.told == ["head", "data", "failed"]
        await soon(lambda: server.closed == 1, within_s=0.1)
        assert repr(way.pool) == "<Pool bedrock-claude 0 busy 0 idle>"


async def test_the_owner_moves_the_limit() -> None:
    async with RawServer(_trickling) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink, limit_s=10, phase="first_content")
        await sink.until(lambda: bool(sink.chunks))
        call.due, call.phase = way.clock.monotonic() + 30, "idle"
        way.sweep(ahead_s=20)
        assert sink.fault is None
        way.sweep(ahead_s=11)
        assert sink.phase == "idle"


async def test_the_real_sweeper_is_100_ms_late_at_most() -> None:
    async with RawServer(_silent) as server, way_to(server.url, sweeping=True) as way:
        started = way.clock.monotonic()
        sink = await way.ask(limit_s=0.15, phase="total")  # type: ignore[arg-type]
        late = way.clock.monotonic() - started - 0.15
        assert sink.phase == "total"
        assert 0 <= late <= 0.2  # a busy machine has 100 ms of its own


@pytest.mark.parametrize("phase", PHASES)
async def test_t_fo_43_while_paused_the_clocks_of_the_endpoint_stand_still(phase: str) -> None:
    async with RawServer(_trickling) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink, limit_s=10, phase=phase)
        await sink.until(lambda: bool(sink.chunks))
        call.pause()
        way.sweep(ahead_s=30)
        if phase in ("total", "unary"):
            assert sink.phase == phase
            return
        assert sink.fault is None
        call.resume()
        way.sweep(ahead_s=9.5)
        assert sink.fault is None
        way.sweep(ahead_s=1)
        assert sink.phase == phase


async def test_r52_a_caller_that_reads_nothing_for_60_s_is_cut() -> None:
    async with RawServer(_trickling) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink, limit_s=10, phase="idle")
        await sink.until(lambda: bool(sink.chunks))
        call.pause()
        way.sweep(ahead_s=59)
        assert sink.fault is None
        way.sweep(ahead_s=1.1)
        assert sink.phase == "caller"
        await soon(lambda: server.closed == 1, within_s=0.1)


async def test_a_pause_of_50_s_and_another_of_50_s_are_not_one_of_100_s() -> None:
    async with RawServer(_trickling) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink, limit_s=10, phase="idle")
        await sink.until(lambda: bool(sink.chunks))
        for _ in range(2):
            call.pause()
            way.sweep(ahead_s=50)
            call.resume()
        way.sweep(ahead_s=9)
        assert sink.fault is None


# ------------------------------------------------------------------------- while connecting


class Waiting:
    """A resolver that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def resolve(self, host: str) -> list[str]:
        await self.go.wait()
        return ["127.0.0.1"]


async def _named(server: RawServer) -> tuple[str, Waiting]:
    return server.url.replace("127.0.0.1", "provider.example"), Waiting()


async def test_first_content_counts_from_the_request_not_from_the_dialling() -> None:
    async with RawServer(_silent) as server:
        url, resolver = await _named(server)
        async with way_to(url, resolver=resolver) as way:
            sink = Recorder()
            call = way.start(sink, connect_s=60, limit_s=2, phase="first_content")
            assert repr(call) == "<PooledCall bedrock-claude connecting>"
            way.sweep(ahead_s=5)
            assert sink.fault is None
            resolver.go.set()
            await soon(lambda: repr(call) == "<PooledCall bedrock-claude carried>")
            way.sweep(ahead_s=1.5)
            assert sink.fault is None
            way.sweep(ahead_s=1)
            assert sink.phase == "first_content"


@pytest.mark.parametrize("phase", ["total", "unary"])
async def test_the_whole_counts_the_dialling_too(phase: str) -> None:
    async with RawServer(_silent) as server:
        url, resolver = await _named(server)
        async with way_to(url, resolver=resolver) as way:
            sink = Recorder()
            way.start(sink, connect_s=60, limit_s=2, phase=phase)
            way.sweep(ahead_s=3)
            assert (sink.told, sink.phase) == (["failed"], phase)
            resolver.go.set()
            await asyncio.sleep(0.02)
            assert server.peers == 0


async def test_connecting_has_a_limit_of_its_own() -> None:
    async with RawServer(_silent) as server:
        url, resolver = await _named(server)
        async with way_to(url, resolver=resolver) as way:
            sink = await way.ask(connect_s=0.05)
            assert (sink.told, sink.phase) == (["failed"], "connect_timeout")


async def test_a_sink_that_raises_does_not_stop_the_sweeper() -> None:
    said: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: said.append(context.get("exception")))

    class Raising(Recorder):
        def failed(self, fault: Exception) -> None:  # type: ignore[override]
            raise ZeroDivisionError

    async with RawServer(_silent) as server, way_to(server.url, sweeping=True) as way:
        way.start(Raising(), limit_s=0.01, phase="total")
        await soon(lambda: len(said) == 1)
        assert (await way.ask(limit_s=0.01)).phase == "unary"


async def _paced(way: Way) -> None:
    for _ in range(3):
        assert (await way.ask()).body == b"hi"


async def test_finished_calls_are_not_swept() -> None:
    async with RawServer(answering(whole(b"hi"))) as server, way_to(server.url) as way:
        await _paced(way)
        assert repr(way.transports.sweeper) == "<Sweeper 0 running 0 still>"
        way.sweep(ahead_s=3600)
        await _paced(way)
