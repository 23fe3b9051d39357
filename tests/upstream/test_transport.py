"""The answer leg over real sockets: what is understood, what is refused, what is kept."""

import asyncio
import socket

import pytest

from proxy.model.exchange import Outgoing
from tests.kit.rawserver import Peer, RawServer, answering, chunked, whole
from tests.upstream.fakes import GET, Recorder, post, soon, way_to

OK = b"HTTP/1.1 200 OK"


def said(*fields: bytes, body: bytes = b"", first: bytes = OK) -> bytes:
    return b"\r\n".join([first, *fields, b"", body])


CHUNKED = b"Transfer-Encoding: chunked"
HI = said(b"content-length: 2", body=b"hi")
HINT = said(b"link: x", first=b"HTTP/1.1 103 Early Hints")
BIG = b"y" * 10_000

# fmt: off
UNDERSTOOD = {
    # name           status, body, reused, answer
    "length":        (200, b"hello", True,  said(b"Content-Length: 5", body=b"hello")),
    "length 0":      (200, b"",      True,  said(b"Content-Length: 0")),
    "chunks":        (200, b"hello", True,  chunked(b"hel", b"lo")),
    "no chunk":      (200, b"",      True,  chunked()),
    "coding's case": (200, b"hello", True,  said(b"Transfer-Encoding: Chunked",
                                                 body=b"5\r\nhello\r\n0\r\n\r\n")),
    "extensions":    (200, b"hello", True,  said(CHUNKED, body=b"5;a=b\r\nhello\r\n0;c\r\n\r\n")),
    "trailers":      (200, b"hello", True,  said(CHUNKED, body=b"5\r\nhello\r\n0\r\nx: y\r\n"
                                                               b"etag: z\r\n\r\n")),
    "204":           (204, b"",      True,  said(first=b"HTTP/1.1 204 No Content")),
    "204 + chunks":  (204, b"",      True,  said(CHUNKED, first=b"HTTP/1.1 204 No Content")),
    "304 + length":  (304, b"",      True,  said(b"content-length: 9", first=b"HTTP/1.1 304 Same")),
    "100":           (200, b"hi",    True,  said(first=b"HTTP/1.1 100 Continue") + HI),
    "10 x 103":      (200, b"hi",    True,  HINT * 10 + HI),
    "close said":    (200, b"hi",    False, said(b"Connection: close", b"Content-Length: 2",
                                                 body=b"hi")),
    "HTTP/1.0":      (200, b"hi",    False, said(b"Content-Length: 2", body=b"hi",
                                                 first=b"HTTP/1.0 200 OK")),
    "1.0, kept":     (200, b"hi",    True,  said(b"Connection: keep-alive", b"Content-Length: 2",
                                                 body=b"hi", first=b"HTTP/1.0 200 OK")),
    "error":         (529, b"{}",    True,  said(b"Content-Length: 2", body=b"{}",
                                                 first=b"HTTP/1.1 529 Overloaded")),
    "no reason":     (200, b"hi",    True,  said(b"Content-Length: 2", body=b"hi",
                                                 first=b"HTTP/1.1 200")),
    "h2c offered":   (200, b"hi",    True,  said(b"Upgrade: h2c", b"Connection: upgrade",
                                                 b"Content-Length: 2", body=b"hi")),
}
REFUSED = {
    "length and chunks":  said(b"Content-Length: 2", CHUNKED, body=b"0\r\n\r\n"),
    "chunks and length":  said(CHUNKED, b"Content-Length: 2", body=b"0\r\n\r\n"),
    "two lengths":        said(b"Content-Length: 2", b"Content-Length: 3", body=b"hi"),
    "list of lengths":    said(b"Content-Length: 2, 3", body=b"hi"),
    "signed length":      said(b"Content-Length: +2", body=b"hi"),
    "huge length":        said(b"Content-Length: 99999999999999999999999", body=b"hi"),
    "empty length":       said(b"Content-Length:", body=b"hi"),
    "gzip, chunked":      said(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "gzip":               said(b"Transfer-Encoding: gzip", body=b"hi"),
    "chunked twice":      said(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "xchunked":           said(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunks in 1.0":      said(CHUNKED, body=b"0\r\n\r\n", first=b"HTTP/1.0 200 OK"),
    "bad chunk size":     said(CHUNKED, body=b"zz\r\n\r\n"),
    "huge chunk size":    said(CHUNKED, body=b"f" * 17 + b"\r\n\r\n"),
    "negative chunk":     said(CHUNKED, body=b"-2\r\n\r\n"),
    "0x chunk":           said(CHUNKED, body=b"0x2\r\nhi\r\n0\r\n\r\n"),
    "chunk overrun":      said(CHUNKED, body=b"2\r\nhiX\r\n0\r\n\r\n"),
    "bytes after":        HI + b"X",
    "an answer after":    HI + HI,
    "bytes after chunks": chunked(b"hi") + b"HTTP",
    "bytes after close":  said(b"Connection: close", b"Content-Length: 2", body=b"hi") + HI,
    "body of a 204":      said(b"content-length: 2", body=b"hi", first=b"HTTP/1.1 204 None"),
    "101":                said(b"Upgrade: x", b"Connection: upgrade", first=b"HTTP/1.1 101 Switch"),
    "101, bare":          said(first=b"HTTP/1.1 101 Switching"),
    "11 x 103":           HINT * 11 + HI,
    "100 x 103":          HINT * 100 + HI,
    "body of a 103":      said(b"content-length: 2", body=b"hi", first=b"HTTP/1.1 103 Hints") + HI,
    "NUL in a value":     said(b"X: a\0b", b"Content-Length: 2", body=b"hi"),
    "NUL in a name":      said(b"X\0: ab", b"Content-Length: 2", body=b"hi"),
    "folded field":       said(b"X: a", b" b", b"Content-Length: 2", body=b"hi"),
    "bare CR":            said(b"X: a\rb", b"Content-Length: 2", body=b"hi"),
    "bare LF":            b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "space before colon": said(b"Content-Length : 2", body=b"hi"),
    "HTTP/2.0":           said(b"Content-Length: 2", body=b"hi", first=b"HTTP/2.0 200 OK"),
    "HTTP/0.9":           said(b"Content-Length: 2", body=b"hi", first=b"HTTP/0.9 200 OK"),
    "another protocol":   b"SSH-2.0-OpenSSH_9.6\r\n",
    "status 99":          said(b"Content-Length: 2", body=b"hi", first=b"HTTP/1.1 99 Low"),
    "status 000":         said(b"Content-Length: 2", body=b"hi", first=b"HTTP/1.1 000 None"),
    "status 700":         said(b"Content-Length: 2", body=b"hi", first=b"HTTP/1.1 700 High"),
    "129 fields":         said(*[b"x: y"] * 129),
    "head of 70 KB":      said(b"x: " + BIG * 7, b"Content-Length: 2", body=b"hi"),
    "head of 1 MB":       said(b"x: " + BIG * 100, b"Content-Length: 2", body=b"hi"),
    "hints of 70 KB":     said(b"x: " + BIG, first=b"HTTP/1.1 103 Hints") * 7,
    "length in trailers": said(CHUNKED, body=b"0\r\ncontent-length: 9\r\n\r\n"),
    "endless extension":  said(CHUNKED, body=b"2;" + BIG * 40),
    "endless trailer":    said(CHUNKED, body=b"0\r\nx: " + BIG * 40),
}
# fmt: on


@pytest.mark.parametrize("name", UNDERSTOOD)
async def test_an_answer_is_understood(name: str) -> None:
    status, body, reused, answer = UNDERSTOOD[name]
    async with RawServer(answering(answer)) as server, way_to(server.url) as way:
        for _ in range(2):
            sink = await way.ask()
            assert (sink.status, sink.body, sink.phase) == (status, body, None)
            assert sink.told in (["head", "data", "end"], ["head", "end"])
        assert server.peers == (1 if reused else 2)
        assert way.seen == []


@pytest.mark.parametrize("name", REFUSED)
async def test_t_http_09_an_answer_is_refused(name: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(REFUSED[name] if peer.number == 1 else HI)
        await peer.gone()

    async with RawServer(script) as server, way_to(server.url) as way:
        first = await way.ask()
        assert first.phase == "bad_http"
        assert first.told.count("failed") == 1
        assert first.fault is not None
        assert first.fault.response_bytes > 0
        second = await way.ask()
        assert (second.body, second.told) == (b"hi", ["head", "data", "end"])
        assert server.peers == 2
        await soon(lambda: server.closed >= 1)


async def test_header_names_come_in_lower_case_and_values_without_the_space_around() -> None:
    answer = said(b"X-Request-ID:  a b \t ", b"Empty:", b"Content-Length: 0")
    async with RawServer(answering(answer)) as server, way_to(server.url) as way:
        sink = await way.ask()
    assert sink.headers == [
        (b"x-request-id", b"a b"),
        (b"empty", b""),
        (b"content-length", b"0"),
    ]


SPLIT = ("length", "chunks", "trailers", "100", "304 + length")


@pytest.mark.parametrize("name", SPLIT)
async def test_an_answer_may_come_in_any_two_pieces_or_byte_by_byte(name: str) -> None:
    status, body, _, answer = UNDERSTOOD[name]
    cuts = list(range(1, len(answer)))

    async def script(peer: Peer) -> None:
        for cut in cuts:
            await peer.request()
            await peer.send(answer[:cut])
            await asyncio.sleep(0)
            await peer.send(answer[cut:])
        await peer.request()
        for at in range(len(answer)):
            await peer.send(answer[at : at + 1])
            await asyncio.sleep(0)

    async with RawServer(script) as server, way_to(server.url) as way:
        for _ in range(len(cuts) + 1):
            sink = await way.ask()
            assert (sink.status, sink.body, sink.phase) == (status, body, None)
        assert server.peers == 1


async def test_a_body_may_last_until_the_close_however_it_is_cut() -> None:
    answer = said(b"content-type: text/event-stream", body=b"data: hello\n\n")

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer[: peer.number])
        await asyncio.sleep(0)
        await peer.send(answer[peer.number :])

    async with RawServer(script) as server, way_to(server.url) as way:
        for _ in range(len(answer)):
            sink = await way.ask()
            assert (sink.status, sink.body, sink.phase) == (200, b"data: hello\n\n", None)
        assert server.peers == len(answer)


CUT = {
    "in the head": OK + b"\r\ncontent-le",
    "in a length": said(b"content-length: 5", body=b"hel"),
    "in a chunk": said(CHUNKED, body=b"5\r\nhel"),
    "before the last chunk": said(CHUNKED, body=b"5\r\nhello\r\n"),
    "in the last chunk": said(CHUNKED, body=b"5\r\nhello\r\n0\r\n"),
    "after a 100": said(first=b"HTTP/1.1 100 Continue"),
}


@pytest.mark.parametrize("end", ["eof", "reset"])
@pytest.mark.parametrize("name", CUT)
async def test_a_cut_answer_is_a_fault_that_says_how_much_had_come(name: str, end: str) -> None:
    told = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CUT[name])
        if end == "reset":
            await told.wait()
            peer.reset()

    async with RawServer(script) as server, way_to(server.url) as way:
        sink = Recorder()
        way.start(sink)
        if end == "reset":  # only once the bytes are read: RST discards the rest
            connection = next(iter(way.pool._connections)) if way.pool._connections else None
            while connection is None or connection.answer_bytes < len(CUT[name]):
                await asyncio.sleep(0.001)
                connection = next(iter(way.pool._connections), None)
            told.set()
        await sink.over()
        assert sink.fault is not None
        assert (sink.phase, sink.fault.response_bytes) == (end, len(CUT[name]))


async def test_a_reset_cuts_a_body_that_lasts_until_the_close() -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(said(body=b"hel"))
        await read.wait()
        peer.reset()

    async with RawServer(script) as server, way_to(server.url) as way:
        sink = Recorder()
        sink.on_data = read.set
        way.start(sink)
        assert (await sink.over()).phase == "reset"


@pytest.mark.parametrize("close", [True, False])
async def test_a_fresh_connection_that_dies_unanswered_is_a_fault(close: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if not close:
            peer.reset()

    async with RawServer(script) as server, way_to(server.url) as way:
        sink = await way.ask()
        assert sink.told == ["failed"]
        assert sink.phase == ("eof" if close else "reset")
        assert sink.fault is not None
        assert sink.fault.response_bytes == 0
        assert server.peers == 1
        assert way.seen == []


async def test_head_has_no_body_whatever_its_head_says() -> None:
    head = Outgoing(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", b"")
    answer = said(b"content-length: 5")
    async with RawServer(answering(answer)) as server, way_to(server.url) as way:
        sink = await way.ask(head)
        assert (sink.told, sink.status) == (["head", "end"], 200)


async def test_head_and_body_leave_as_they_are_small_or_large() -> None:
    got: list[bytes] = []
    async with RawServer(answering(whole(), requests=got)) as server, way_to(server.url) as way:
        sent = [GET, post(b"x"), post(b"y" * 65_536), post(b"z" * 65_537), post(b"w" * 3_000_000)]
        for outgoing in sent:
            assert (await way.ask(outgoing)).body == b"hello"
        assert got == [outgoing.head + outgoing.body for outgoing in sent]
        assert server.peers == 1


async def test_an_early_answer_counts_but_its_connection_is_not_used_again() -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:  # answers without reading the body
            await peer.send(whole(b"too large", b"413 Payload Too Large"))
            await asyncio.sleep(0.2)
        else:
            await peer.request()
            await peer.send(HI)

    async with RawServer(script) as server, way_to(server.url) as way:
        sink = await way.ask(post(b"x" * 20_000_000))
        assert (sink.status, sink.body, sink.phase) == (413, b"too large", None)
        assert (await way.ask()).body == b"hi"
        assert server.peers == 2


async def test_t_http_09_what_comes_unasked_on_an_idle_connection_reaches_nobody() -> None:
    stray = whole(b"stray")

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        if peer.number == 1:
            await asyncio.sleep(0.02)
            await peer.send(stray)
        await peer.gone()

    async with RawServer(script) as server, way_to(server.url) as way:
        assert (await way.ask()).body == b"hi"
        await soon(lambda: repr(way.pool) == "<Pool bedrock-claude 0 busy 0 idle>")
        assert (await way.ask()).body == b"hi"
        assert server.peers == 2


async def test_t_http_09_not_even_what_the_loop_has_not_read_yet() -> None:
    strays = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HI)
        if peer.number == 1:
            await strays.wait()
            await peer.send(whole(b"stray"))
            strays.clear()
        await peer.gone()

    async with RawServer(script) as server, way_to(server.url) as way:
        await way.ask()
        sinks: list[Recorder] = []

        def ask_again() -> None:  # in the same pass of the loop in which the bytes arrive
            if strays.is_set():
                asyncio.get_running_loop().call_soon(ask_again)
            else:
                sinks.append(Recorder())
                way.start(sinks[0])

        strays.set()
        ask_again()
        await soon(lambda: bool(sinks))
        assert (await sinks[0].over()).body == b"hi"


async def test_the_sink_may_start_the_next_call_from_the_end_of_the_last() -> None:
    async with RawServer(answering(HI)) as server, way_to(server.url) as way:
        first, second = Recorder(), Recorder()
        first.on_end = lambda: void(way.start(second))
        way.start(first)
        assert (await second.over()).body == b"hi"
        assert server.peers == 1


async def test_r57_both_ways_are_without_delay() -> None:
    async with RawServer(answering(HI)) as server, way_to(server.url) as way:
        await way.ask()
        (connection,) = way.pool._connections
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def void(_: object) -> None:
    return None
