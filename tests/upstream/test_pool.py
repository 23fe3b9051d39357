"""Which connection a call gets, what happens when it dies, and how a call ends."""

import asyncio

import pytest

from proxy.model.observations import UpstreamStale
from proxy.runtime import tasks
from tests.kit.rawserver import Gone, Peer, RawServer, answering, chunked, whole
from tests.upstream.fakes import Recorder, post, soon, way_to

HI = whole(b"hi")
STALE = [UpstreamStale("bedrock-claude")]


async def test_t_trap_28_the_newest_idle_connection_is_handed_out_first() -> None:
    served: list[int] = []
    together = asyncio.Barrier(3)

    async def script(peer: Peer) -> None:
        first = True
        while True:
            await peer.request()
            if first:
                await together.wait()  # three connections at once, answered in turn
                await asyncio.sleep(0.1 * peer.number)
            first = False
            served.append(peer.number)
            await peer.send(HI)

    async with RawServer(script) as server, way_to(server.url) as way:
        await asyncio.gather(way.ask(), way.ask(), way.ask())
        assert repr(way.pool) == "<Pool bedrock-claude 0 busy 3 idle>"
        for _ in range(3):
            await way.ask()
        assert served == [1, 2, 3, 3, 3, 3]


async def test_with_an_idle_connection_a_call_starts_no_task_and_no_timer() -> None:
    async with RawServer(answering(HI)) as server, way_to(server.url) as way:
        await way.ask()
        before = asyncio.all_tasks()
        sink = Recorder()
        call = way.start(sink)
        assert asyncio.all_tasks() == before
        assert repr(call) == "<PooledCall bedrock-claude carried>"
        await sink.over()
        assert repr(call) == "<PooledCall bedrock-claude over>"


async def test_no_limit_of_connections_and_no_hidden_queue() -> None:
    together = asyncio.Barrier(200)

    async def script(peer: Peer) -> None:
        await peer.request()
        await together.wait()
        await peer.send(HI)
        await peer.gone()

    async with RawServer(script) as server, way_to(server.url) as way:
        sinks = await asyncio.gather(*(way.ask() for _ in range(200)))
        assert {sink.body for sink in sinks} == {b"hi"}
        assert server.peers == 200


@pytest.mark.parametrize("death", ["close", "reset"])
async def test_r51_a_stale_connection_costs_one_retry_that_nobody_sees(death: str) -> None:
    got: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        got.append(await peer.request())
        if peer.number > 1:
            await peer.send(HI)
        elif death == "reset":
            peer.reset()

    async def fresh(peer: Peer) -> None:
        if peer.number == 1:
            await script(peer)
        else:
            got.append(await peer.request())
            await peer.send(HI)
            await peer.gone()

    async with RawServer(fresh) as server, way_to(server.url) as way:
        await way.ask(post(b"first"))
        sink = await way.ask(post(b"second"))
        assert (sink.told, sink.body) == (["head", "data", "end"], b"hi")
        assert [request[-6:] for request in got] == [b"second", b"second"]
        assert server.peers == 2
        assert way.seen == STALE


async def test_r51_the_retry_happens_once_and_on_a_fresh_connection_only() -> None:
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await peer.request()
        requests += 1
        if peer.number <= 3:
            await together.wait()
            await peer.send(HI)
            await peer.request()
            requests += 1

    together = asyncio.Barrier(3)
    async with RawServer(script) as server, way_to(server.url) as way:
        await asyncio.gather(way.ask(), way.ask(), way.ask())  # three idle, all about to die
        sink = await way.ask()
        assert (sink.told, sink.phase) == (["failed"], "eof")
        assert requests == 3 + 2
        assert server.peers == 4
        assert way.seen == STALE


async def test_r51_what_may_not_be_repeated_is_not() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()

    async with RawServer(script) as server, way_to(server.url) as way:
        await way.ask()
        sink = await way.ask(post(replayable=False))
        assert (sink.told, sink.phase) == (["failed"], "eof")
        assert (server.peers, way.seen) == (1, [])


async def test_r51_one_byte_of_an_answer_is_an_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()
        await peer.send(b"H")

    async with RawServer(script) as server, way_to(server.url) as way:
        await way.ask()
        sink = await way.ask()
        assert sink.fault is not None
        assert (sink.phase, sink.fault.response_bytes) == ("eof", 1)
        assert (server.peers, way.seen) == (1, [])


async def test_r51_a_retry_that_finds_nobody_is_a_fault() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()
        server.stop_listening()

    async with RawServer(script) as server, way_to(server.url) as way:
        await way.ask()
        sink = await way.ask()
        assert (sink.told, sink.phase) == (["failed"], "refused")
        assert way.seen == STALE


async def test_r51_bursts_against_a_provider_that_closes_idle_connections() -> None:
    async def script(peer: Peer) -> None:
        with_patience = 0.05
        while True:
            try:
                async with asyncio.timeout(with_patience):
                    await peer.request()
            except TimeoutError:
                return
            await peer.send(HI)

    async with RawServer(script) as server, way_to(server.url) as way:
        for _ in range(4):
            sinks = await asyncio.gather(*(way.ask(post()) for _ in range(50)))
            assert {(sink.body, sink.phase) for sink in sinks} == {(b"hi", None)}
            await asyncio.sleep(0.049)


async def test_an_idle_connection_that_the_provider_closes_is_forgotten() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)

    async with RawServer(script) as server, way_to(server.url) as way:
        await way.ask()
        await soon(lambda: repr(way.pool) == "<Pool bedrock-claude 0 busy 0 idle>")
        assert (await way.ask()).body == b"hi"
        assert (server.peers, way.seen) == (2, [])


async def test_idle_connections_are_closed_after_30_s() -> None:
    async with RawServer(answering(HI)) as server, way_to(server.url) as way:
        await way.ask()
        way.sweep(ahead_s=29)
        assert repr(way.pool) == "<Pool bedrock-claude 0 busy 1 idle>"
        way.sweep(ahead_s=2)
        assert repr(way.pool) == "<Pool bedrock-claude 0 busy 0 idle>"
        await soon(lambda: server.closed == 1)


# ------------------------------------------------------------------------------------- cancel


async def _never(peer: Peer) -> None:
    await peer.gone()


async def _head_only(peer: Peer) -> None:
    await peer.request()
    await peer.send(chunked(b"data: x\n\n")[:-5])
    await peer.gone()


PHASES = {  # when the call is cancelled
    "connecting": (_never, lambda sink: True),
    "waiting": (_never, lambda sink: False),
    "in the body": (_head_only, lambda sink: "data" in sink.told),
}


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("phase", PHASES)
async def test_r53_cancel_closes_at_once_and_says_nothing(phase: str, reused: bool) -> None:
    play, reached = PHASES[phase]

    async def script(peer: Peer) -> None:
        if reused:
            await peer.request()
            await peer.send(HI)
        await play(peer)

    async with RawServer(script) as server, way_to(server.url) as way:
        if reused:
            await way.ask()
        sink = Recorder()
        call = way.start(sink, post(b"x" * 100_000))
        if phase == "waiting":
            await soon(lambda: server.peers > 0)
            await asyncio.sleep(0.01)
        else:
            await sink.until(lambda: reached(sink))
        told = list(sink.told)
        call.cancel()
        call.cancel()
        call.pause()
        call.resume()
        await soon(lambda: server.closed == server.peers, within_s=0.1)
        assert sink.told == told
        assert repr(way.pool) == "<Pool bedrock-claude 0 busy 0 idle>"
        assert repr(way.transports.sweeper) == "<Sweeper 0 running 0 still>"


@pytest.mark.parametrize("passes", range(8))
async def test_r53_cancel_at_every_pass_of_the_loop_while_connecting(passes: int) -> None:
    async with RawServer(_never) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink)
        for _ in range(passes):
            await asyncio.sleep(0)
        call.cancel()
        await soon(lambda: not tasks.alive())
        await asyncio.sleep(0.02)  # a connection made at the last moment reaches the server
        await soon(lambda: server.closed == server.peers, within_s=0.1)
        assert sink.told == []
        assert not way.pool._connections


@pytest.mark.parametrize("moment", ["head", "data", "end"])
async def test_the_sink_may_cancel_from_within(moment: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(chunked(b"one", b"two") if moment != "end" else HI)
        await peer.gone()

    async with RawServer(script) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink)
        setattr(sink, f"on_{moment}", call.cancel)
        await sink.until(lambda: moment in sink.told)
        await asyncio.sleep(0.01)
        assert sink.told[-1] == moment
        assert b"two" not in sink.body
        if moment != "end":
            await soon(lambda: server.closed == 1, within_s=0.1)


async def test_a_sink_that_raises_breaks_its_own_call_only() -> None:
    said: list[str] = []

    def complain(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        said.append(repr(context.get("exception")))

    def explode() -> None:
        raise ZeroDivisionError

    asyncio.get_running_loop().set_exception_handler(complain)
    async with RawServer(answering(HI)) as server, way_to(server.url) as way:
        sink = Recorder()
        sink.on_head = explode
        way.start(sink)
        assert (await sink.over()).told == ["head", "failed"]
        assert (await way.ask()).body == b"hi"
    assert said == ["ZeroDivisionError()"]


# -------------------------------------------------------------------------- pause and resume


async def test_r52_a_paused_call_takes_256_kib_at_most_and_goes_on_where_it_stood() -> None:
    piece, total = b"x" * 16_384, 0
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal total
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while not finish.is_set():
            await peer.send(piece)
            total += len(piece)

    async with RawServer(script) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink)
        await sink.until(lambda: len(sink.chunks) > 3)
        at_pause = len(sink.body)
        call.pause()
        call.pause()
        await asyncio.sleep(0.1)
        assert len(sink.body) - at_pause <= 262_144
        assert repr(call) == "<PooledCall bedrock-claude carried, paused>"
        finish.set()
        call.resume()
        call.resume()
        await sink.over()
        assert sink.phase is None
        assert len(sink.body) == total


async def test_a_call_paused_from_within_gets_the_rest_of_one_read_at_most() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(whole(b"y" * 2_000_000))
        await peer.gone()

    async with RawServer(script) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink)
        sink.on_data = call.pause
        await sink.until(lambda: bool(sink.chunks))
        await asyncio.sleep(0.05)
        assert len(sink.body) <= 262_144
        sink.on_data = None
        call.resume()
        assert len((await sink.over()).body) == 2_000_000


async def test_a_connection_that_was_paused_at_its_end_reads_again() -> None:
    async with RawServer(answering(HI)) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink)
        sink.on_data = call.pause  # the end is in the same read
        assert (await sink.over()).told == ["head", "data", "end"]
        call.resume()
        assert (await way.ask()).body == b"hi"
        assert server.peers == 1


async def test_pause_before_there_is_a_connection_holds() -> None:
    async with RawServer(answering(HI)) as server, way_to(server.url) as way:
        sink = Recorder()
        call = way.start(sink)
        call.pause()
        await soon(lambda: server.peers == 1)
        await asyncio.sleep(0.02)
        assert sink.told == []
        call.resume()
        assert (await sink.over()).body == b"hi"


# -------------------------------------------------------------------------------- connecting


async def test_a_closed_port_is_refused() -> None:
    async with RawServer(_never) as server:
        url = server.url
    async with way_to(url) as way:
        sink = await way.ask()
        assert (sink.told, sink.phase) == (["failed"], "refused")


async def test_a_server_that_closes_at_once_is_a_fault_not_a_retry() -> None:
    async def script(peer: Peer) -> None:
        raise Gone

    async with RawServer(script) as server, way_to(server.url) as way:
        sink = await way.ask()
        assert sink.phase in ("eof", "reset")
        assert (server.peers, way.seen) == (1, [])


async def test_t_ssrf_05_loopback_needs_allow_private() -> None:
    async with RawServer(_never) as server, way_to(server.url, allow_private=False) as way:
        sink = await way.ask()
        assert (sink.told, sink.phase) == (["failed"], "blocked_address")
        assert server.peers == 0


@pytest.mark.parametrize("url", ["http://169.254.169.254", "http://[fd00:ec2::254]/x"])
async def test_t_ssrf_05_metadata_services_are_for_nobody(url: str) -> None:
    async with way_to(url, allow_private=True) as way:
        assert (await way.ask()).phase == "blocked_address"


async def test_an_endpoint_without_a_url_is_a_fault() -> None:
    async with way_to("http://host:99999") as way:
        assert (await way.ask()).phase == "dns"
