"""T-TLS-01: verification is on, and what an endpoint's files say counts."""

import asyncio
import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.kit.rawserver import Peer, RawServer, Script, answering, whole
from tests.upstream.fakes import Recorder, Way, post, soon, way_to

CERTS = Path(__file__).parents[1] / "kit" / "certs"
CA = str(CERTS / "ca.pem")
HI = whole(b"hi")


def serving(name: str = "server", *, asks_for_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / f"{name}.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(CA)
    return context


def tls_server(script: Script | None = None, **how: object) -> RawServer:
    return RawServer(script or answering(HI), context=serving(**how))  # type: ignore[arg-type]


def _tls_way(server: RawServer) -> AbstractAsyncContextManager[Way]:
    """To a server that knows nothing of TLS."""
    return way_to(server.url.replace("http:", "https:"), ca_file=CA)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_custom_authority_works_by_address_and_by_name(host: str) -> None:
    async with tls_server() as server:
        url = server.url.replace("127.0.0.1", host)
        async with way_to(url, ca_file=CA) as way:
            for outgoing in (post(), post(b"x" * 300_000)):
                sink = await way.ask(outgoing)
                assert (sink.told, sink.body) == (["head", "data", "end"], b"hi")
            assert server.peers == 1


# fmt: off
REFUSED = [
    # certificate   the endpoint's settings               says
    ("server",      {},                                   "local issuer"),
    ("server",      {"ca_file": str(CERTS / "other_ca.pem")}, "verify|issuer"),
    ("expired",     {"ca_file": CA},                      "expired"),
    ("wrong_name",  {"ca_file": CA},                      "not valid for"),
    ("server",      {"ca_file": "/nowhere/ca.pem"},       "certificate files: No such file"),
    ("server",      {"ca_file": str(CERTS / "make.sh")},  "certificate files"),
    ("server",      {"ca_file": CA, "client_cert_file": CA}, "certificate files"),
]
# fmt: on


@pytest.mark.parametrize(("certificate", "settings", "says"), REFUSED)
async def test_what_is_not_verified_is_not_used(
    certificate: str, settings: dict[str, object], says: str
) -> None:
    async with tls_server(name=certificate) as server, way_to(server.url, **settings) as way:
        sink = await way.ask(connect_s=2.0)
        assert (sink.told, sink.phase) == (["failed"], "tls")
        assert sink.fault is not None
        assert any(word in sink.fault.detail for word in says.split("|"))
        assert not way.pool._connections


async def test_a_client_certificate_is_shown_where_it_is_asked_for() -> None:
    async with tls_server(asks_for_certificate=True) as server:
        mine = str(CERTS / "client.pem")
        async with way_to(server.url, ca_file=CA, client_cert_file=mine) as way:
            assert (await way.ask()).body == b"hi"
        async with way_to(server.url, ca_file=CA) as way:
            sink = await way.ask()
            assert sink.told == ["failed"]
            # With TLS 1.3 the refusal comes after the handshake; not every server says why.
            assert sink.phase in ("tls", "eof", "reset")


async def test_a_server_without_tls_is_a_tls_fault() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with RawServer(script) as server, _tls_way(server) as way:
        assert (await way.ask()).phase == "tls"


async def test_a_server_that_hangs_up_in_the_handshake_is_a_tls_fault() -> None:
    async def script(peer: Peer) -> None:
        return

    async with RawServer(script) as server, _tls_way(server) as way:
        assert (await way.ask()).phase == "tls"


async def test_a_handshake_that_stalls_ends_with_the_connect_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()

    async with RawServer(script) as server, _tls_way(server) as way:
        sink = await way.ask(connect_s=0.1)
        assert (sink.told, sink.phase) == (["failed"], "connect_timeout")
        await soon(lambda: server.closed == 1, within_s=0.1)


async def test_r53_cancel_in_the_handshake_closes_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()

    async with RawServer(script) as server, _tls_way(server) as way:
        sink = Recorder()
        call = way.start(sink)
        await soon(lambda: server.peers == 1)
        await asyncio.sleep(0.01)
        call.cancel()
        await soon(lambda: server.closed == 1, within_s=0.1)
        assert sink.told == []


async def test_r53_cancel_in_the_body_closes_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await peer.gone()

    async with tls_server(script) as server, way_to(server.url, ca_file=CA) as way:
        sink = Recorder()
        call = way.start(sink)
        await sink.until(lambda: sink.body == b"hel")
        call.cancel()
        await soon(lambda: server.closed == 1, within_s=0.1)
        assert sink.told == ["head", "data"]


async def test_r51_stale_connections_are_replaced_under_tls_too() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        await peer.request()
        if peer.number > 1:
            await peer.send(HI)

    async with tls_server(script) as server, way_to(server.url, ca_file=CA) as way:
        await way.ask()
        assert (await way.ask()).body == b"hi"
        assert (server.peers, len(way.seen)) == (2, 1)


async def test_r52_a_paused_call_is_bounded_under_tls_too() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(whole(b"y" * 3_000_000))
        await peer.gone()

    async with tls_server(script) as server, way_to(server.url, ca_file=CA) as way:
        sink = Recorder()
        call = way.start(sink)
        sink.on_data = call.pause
        await sink.until(lambda: bool(sink.chunks))
        await asyncio.sleep(0.05)
        assert len(sink.body) <= 262_144 + 16_384  # one read, and the record it ends in
        sink.on_data = None
        call.resume()
        assert len((await sink.over()).body) == 3_000_000
