"""Forward proxies: CONNECT for both schemes, bounded, and the endpoint's rules go on."""

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from proxy.upstream.origin import Proxies
from tests.kit.rawserver import Gone, Peer, RawServer, Script, answering, whole
from tests.upstream.fakes import Recorder, Way, soon, way_to
from tests.upstream.test_tls import CA, tls_server

HI = whole(b"hi")
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Nowhere:
    """A resolver that must not be asked: the proxy resolves."""

    async def resolve(self, host: str) -> list[str]:
        raise AssertionError(f"asked for {host}")


def forwarding(to: RawServer, asked: list[bytes]) -> Script:
    async def script(peer: Peer) -> None:
        asked.append(await peer.request())
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port)
        await peer.send(ESTABLISHED)
        await peer.join(reader, writer)

    return script


def through(proxy: RawServer, who: str = "") -> Proxies:
    url = f"http://{who}127.0.0.1:{proxy.port}"
    return Proxies(http=url, https=url)


async def test_http_goes_through_a_tunnel_and_the_connection_is_kept() -> None:
    asked: list[bytes] = []
    async with RawServer(answering(HI)) as server, RawServer(forwarding(server, asked)) as proxy:
        url, proxies = f"http://endpoint.example:{server.port}", through(proxy, who="me:secret@")
        async with way_to(url, proxies=proxies, resolver=Nowhere()) as way:
            for _ in range(2):
                assert (await way.ask()).body == b"hi"
        authority = b"endpoint.example:%d" % server.port
        assert asked == [
            b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n" % (authority, authority)
            + b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
        ]


async def test_https_is_verified_through_the_tunnel() -> None:
    asked: list[bytes] = []
    async with tls_server() as server, RawServer(forwarding(server, asked)) as proxy:
        proxies = through(proxy)
        async with way_to(f"https://localhost.:{server.port}", proxies=proxies, ca_file=CA) as way:
            assert (await way.ask()).body == b"hi"  # loopback never goes to a proxy
            assert asked == []
        url = f"https://elsewhere.example:{server.port}"
        async with way_to(url, proxies=proxies, ca_file=CA, resolver=Nowhere()) as way:
            assert (await way.ask()).phase == "tls"
            assert len(asked) == 1
    async with (
        tls_server(name="wrong_name") as server,
        RawServer(forwarding(server, asked)) as proxy,
        way_to(
            f"https://elsewhere.example:{server.port}",
            proxies=through(proxy),
            ca_file=CA,
            resolver=Nowhere(),
        ) as way,
    ):
        for _ in range(2):
            assert (await way.ask()).body == b"hi"
        assert proxy.peers == 1


# fmt: off
REFUSALS = {
    "407":          b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
    "502":          b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
    "nonsense":     b"SSH-2.0-OpenSSH\r\n\r\n",
    "bytes behind": ESTABLISHED + b"HTTP/1.1 200 OK\r\n\r\n",
    "too much":     b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
    "close":        b"",
    "cut":          b"HTTP/1.1 200 Conn",
}
# fmt: on


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_proxy_that_refuses_or_talks_nonsense_is_a_fault(name: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(REFUSALS[name])
        if name == "too much":
            await peer.gone()

    async with RawServer(script) as proxy, _way_behind(proxy) as way:
        sink = await way.ask()
        assert (sink.told, sink.phase) == (["failed"], "refused")
        assert sink.fault is not None
        assert "forward proxy" in sink.fault.detail
        await soon(lambda: proxy.closed == 1)


async def test_a_proxy_that_is_silent_costs_the_connect_limit_and_can_be_cancelled() -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()
        raise Gone

    async with RawServer(script) as proxy, _way_behind(proxy) as way:
        assert (await way.ask(connect_s=0.05)).phase == "connect_timeout"
        await soon(lambda: proxy.closed == 1, within_s=0.1)
        sink = Recorder()
        call = way.start(sink)
        await soon(lambda: proxy.peers == 2)
        call.cancel()
        await soon(lambda: proxy.closed == 2, within_s=0.1)
        assert sink.told == []


async def test_t_ssrf_05_addresses_in_the_configuration_are_checked_behind_a_proxy_too() -> None:
    async with RawServer(answering(HI)) as proxy:
        for host in ("169.254.169.254", "0xa9fea9fe"):
            async with way_to(f"http://{host}", proxies=through(proxy)) as way:
                assert (await way.ask()).phase == "blocked_address"
        async with way_to("http://10.1", proxies=through(proxy), allow_private=False) as way:
            assert (await way.ask()).phase == "blocked_address"
        assert proxy.peers == 0


def _way_behind(proxy: RawServer) -> AbstractAsyncContextManager[Way]:
    return way_to("http://endpoint.example", proxies=through(proxy), resolver=Nowhere())
