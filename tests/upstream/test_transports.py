"""The pools of a worker: what they survive, and how they end."""

import asyncio

import pytest

from proxy.runtime import tasks
from proxy.upstream.origin import Proxies
from proxy.upstream.transports import Transports
from tests.kit.rawserver import Peer, RawServer, whole
from tests.upstream.fakes import GET, Clock, Recorder, endpoint, soon, way_to

HI = whole(b"hi")
URL = "http://127.0.0.1:1"


@pytest.fixture
def transports() -> Transports:
    return Transports(Clock(), lambda observation: None)


# fmt: off
CHANGES = [
    # what changed                           the same pool
    ({},                                     True),
    ({"api_key": "other"},                   True),   # credentials travel in each request
    ({"weight": 7},                          True),
    ({"models": {"a": "b"}},                 True),
    ({"base_url": "http://127.0.0.1:2"},     False),
    ({"allow_private": False},               False),
    ({"ca_file": "/ca.pem"},                 False),
    ({"client_cert_file": "/me.pem"},        False),
    ({"client_key_file": "/me.key"},         False),
    ({"id": "other"},                        False),
]
# fmt: on


@pytest.mark.parametrize(("change", "same"), CHANGES)
def test_a_pool_outlives_what_does_not_matter_to_it(
    transports: Transports, change: dict[str, object], same: bool
) -> None:
    before = transports.of("default", endpoint(URL))
    members = {"base_url": URL} | change
    after = transports.of("default", endpoint(str(members.pop("base_url")), **members))
    assert (after is before) == same
    assert transports.of("another", endpoint(URL)) is not before


def test_the_panels(transports: Transports) -> None:
    transports.of("default", endpoint(URL))
    assert repr(transports) == "<Transports 1 pools <Sweeper 0 running 0 still>>"


def test_a_url_may_come_from_elsewhere() -> None:
    transports = Transports(Clock(), lambda observation: None, url_of=lambda endpoint: "http://x")
    assert transports.key_of("default", endpoint(URL)).url == "http://x"


def test_what_cannot_be_a_proxy_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match="forward proxy"):
        Transports(Clock(), lambda observation: None, proxies=Proxies(https="socks5://x"))


async def test_retain_retires_the_others_in_peace() -> None:
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await finish.wait()
        await peer.send(HI)
        await peer.gone()

    async with RawServer(script) as server, way_to(server.url) as way:
        slow = Recorder()
        way.start(slow)
        await soon(lambda: server.peers == 1)
        await way.ask()
        assert repr(way.pool) == "<Pool bedrock-claude 1 busy 1 idle>"

        kept = way.transports.key_of("default", endpoint(server.url))
        way.transports.retain([kept])
        assert way.transports.of("default", endpoint(server.url)) is way.pool

        way.transports.retain([])
        await soon(lambda: server.closed == 1)  # the idle one
        assert repr(way.pool) == "<Pool bedrock-claude 1 busy 0 idle>"
        finish.set()
        assert (await slow.over()).body == b"hi"
        await soon(lambda: server.closed == 2)
        assert way.transports.of("default", endpoint(server.url)) is not way.pool

        assert (await way.ask()).body == b"hi"  # a request that began with the old snapshot
        await soon(lambda: server.closed == 3)


async def test_close_ends_everything() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.send(HI)
        await peer.gone()

    class Never:
        async def resolve(self, host: str) -> list[str]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async with RawServer(script) as server, way_to(server.url, resolver=Never()) as way:
        await way.ask()
        waiting, connecting = Recorder(), Recorder()
        way.start(Recorder()).cancel()
        way.start(waiting)
        nowhere = way.transports.of("default", endpoint("http://provider.example"))
        nowhere.start(GET, connecting, connect_s=9, due=float("inf"), phase="total")
        await soon(lambda: server.peers == 2)
        await way.transports.close()
        assert (waiting.told, waiting.phase) == (["failed"], "reset")
        assert (connecting.told, connecting.phase) == (["failed"], "reset")
        await soon(lambda: server.closed == server.peers, within_s=0.1)
        await soon(lambda: not tasks.alive(), within_s=0.1)
