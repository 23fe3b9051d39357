"""The front in memory: what is read, what is refused, what is answered, and in which order."""

import json

import pytest

from proxy.gateway.heads import AHEAD_LIMIT, HEAD_LIMIT_BYTES
from tests.gateway.fakes import Kitchen, piped, quiet

HOST = b"host: x\r\n"
GET = b"GET /echo HTTP/1.1\r\n" + HOST
POST = b"POST /echo HTTP/1.1\r\n" + HOST


def post(path: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n%b" % (
        path, more, len(body), body,
    )  # fmt: skip


def chunked(path: bytes, chunks: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%b" % (path, chunks)


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """(status, body) of each whole answer that stands in `data`."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        if status == 100:
            data = rest
            continue
        length = next(
            int(li[16:]) for li in head.split(b"\r\n") if li.startswith(b"content-length")
        )
        found.append((status, rest[:length]))
        data = rest[length:]
    return found


# --- T-HTTP-01: what two parsers could understand differently

CHUNKED = b"transfer-encoding: chunked\r\n"
NONE = b"0\r\n\r\n"

# fmt: off
REFUSED = {
    "length and chunks":        (400, POST + b"content-length: 4\r\n" + CHUNKED + b"\r\n" + NONE),
    "chunks and length":        (400, POST + CHUNKED + b"content-length: 4\r\n\r\n" + NONE),
    "two lengths":              (400, POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
    "one length twice":         (400, POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab"),
    "a list of lengths":        (400, POST + b"content-length: 2, 2\r\n\r\nab"),
    "a signed length":          (400, POST + b"content-length: +2\r\n\r\nab"),
    "a length of hex":          (400, POST + b"content-length: 0x2\r\n\r\nab"),
    "an empty length":          (400, POST + b"content-length:\r\n\r\nab"),
    "an absurd length":         (400, POST + b"content-length: 99999999999999999999\r\n\r\nab"),
    "chunked, identity":        (400, POST + CHUNKED[:-2] + b", identity\r\n\r\n" + NONE),
    "identity":                 (400, POST + b"transfer-encoding: identity\r\n\r\n"),
    "gzip, chunked":            (400, POST + b"transfer-encoding: gzip, chunked\r\n\r\n" + NONE),
    "xchunked":                 (400, POST + b"transfer-encoding: xchunked\r\n\r\n" + NONE),
    "chunked twice":            (400, POST + CHUNKED + CHUNKED + b"\r\n" + NONE),
    "chunks in HTTP/1.0":       (400, b"POST /echo HTTP/1.0\r\n" + CHUNKED + b"\r\n" + NONE),
    "a folded line":            (400, GET + b"x: a\r\n b\r\n\r\n"),
    "a space before the names": (400, b"GET /echo HTTP/1.1\r\n host: x\r\n\r\n"),
    "a bare LF in the line":    (400, b"GET /echo HTTP/1.1\nhost: x\r\n\r\n"),
    "a bare LF in a field":     (400, GET + b"x: 1\n\r\n"),
    "a bare LF at the end":     (400, GET + b"\n"),
    "a bare CR":                (400, GET + b"x: a\rb\r\n\r\n"),
    "NUL in a name":            (400, GET + b"x\x00: 1\r\n\r\n"),
    "NUL in a value":           (400, GET + b"x: 1\x00\r\n\r\n"),
    "a space before the colon": (400, GET + b"x : 1\r\n\r\n"),
    "no colon":                 (400, GET + b"nonsense\r\n\r\n"),
    "no name":                  (400, GET + b": 1\r\n\r\n"),
    "two hosts":                (400, GET + b"host: y\r\n\r\n"),
    "one host twice":           (400, GET + HOST + b"\r\n"),
    "an empty host":            (400, b"GET /echo HTTP/1.1\r\nhost:\r\n\r\n"),
    "no host":                  (400, b"GET /echo HTTP/1.1\r\n\r\n"),
    "two hosts in HTTP/1.0":    (400, b"GET /echo HTTP/1.0\r\nhost: x\r\nhost: x\r\n\r\n"),
    "absolute form":            (400, b"GET http://other/ HTTP/1.1\r\nhost: x\r\n\r\n"),
    "asterisk form":            (400, b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a tunnel":                 (400, b"CONNECT other:443 HTTP/1.1\r\nhost: x\r\n\r\n"),
    "HTTP/0.9":                 (400, b"GET /echo\r\n\r\n"),
    "HTTP/1.2":                 (400, b"GET /echo HTTP/1.2\r\nhost: x\r\n\r\n"),
    "HTTP/2":                   (400, b"GET /echo HTTP/2.0\r\nhost: x\r\n\r\n"),
    "HTTP/2's preface":         (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "TLS":                      (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "an unknown method":        (400, b"get /echo HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a raw target":             (400, b"GET /\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a long line":              (414, b"GET /" + b"a" * 8177 + b" HTTP/1.1\r\nhost: x\r\n\r\n"),
    "an endless line":          (414, b"GET /" + b"a" * 20_000),
    "a long field":             (431, GET + b"x: " + b"a" * 8190 + b"\r\n\r\n"),
    "an endless field":         (431, GET + b"x: " + b"a" * HEAD_LIMIT_BYTES),
    "129 fields":               (431, GET + b"x: 1\r\n" * 128 + b"\r\n"),
}
# fmt: on


@pytest.mark.parametrize("name", REFUSED)
async def test_t_http_01_04_is_refused_and_closed(name: str) -> None:
    status, data = REFUSED[name]
    for size in (len(data), 1 if len(data) < 500 else 1000):
        kitchen = Kitchen()
        pipe, _ = piped(kitchen.handle)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        written = await pipe.push(*pieces, GET + b"\r\n")
        ((told, body),) = answers(written)
        assert told == status
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
        assert b"connection: close\r\n" in written
        assert pipe.closed
        assert kitchen.seen == []


async def test_the_longest_line_field_and_head_that_are_read() -> None:
    for data in (
        b"GET /" + b"a" * 8176 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        GET + b"x: " + b"a" * 8189 + b"\r\n\r\n",
        GET + b"x: 1\r\n" * 127 + b"\r\n",
    ):
        kitchen = Kitchen()
        pipe, _ = piped(kitchen.handle)
        ((status, _),) = answers(await pipe.push(data))
        assert status == 200


BAD_BODIES = {
    "a size that is none": b"x\r\n",
    "a negative size": b"-1\r\na\r\n",
    "an overflowing size": b"fffffffffffffffff\r\n",
    "a size with a space": b"1 \r\na\r\n",
    "a bare LF after the size": b"1\na\r\n0\r\n\r\n",
    "more than the size": b"1\r\nab\r\n0\r\n\r\n",
    "NUL in an extension": b"1;\x00\r\na\r\n0\r\n\r\n",
    "a bad trailer": b"0\r\nx : 1\r\n\r\n",
    "a length in a trailer": b"0\r\ncontent-length: 1\r\n\r\n",
    "a flood of extensions": b"1;" + b"a" * 300_000,
    "a flood of trailers": b"0\r\n" + b"x: 1\r\n" * 200,
    "an endless trailer": b"0\r\nx: " + b"a" * 300_000,
}


@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_body_that_is_no_http_is_told_and_closed(name: str) -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    written = await pipe.push(chunked(b"/echo", b""), BAD_BODIES[name], GET + b"\r\n")
    assert answers(written) == [(400, b"The request body is not valid HTTP.")]
    assert pipe.closed
    assert kitchen.targets == ["/echo"]


# --- what is read, however it is cut

SPLIT = [
    post(b"/echo?a=%2F", b'{"a": 1}', b"X-Mine:  v \t\r\nEmpty:\r\n"),
    chunked(b"/echo", b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
    chunked(b"/echo", b"3\r\nabc\r\n0\r\nhost: evil\r\nx: 9\r\n\r\n") + GET + b"\r\n",
    GET + b"\r\n" + post(b"/echo", b"two") + post(b"/echo", b"three"),
    b"\r\n" + GET + b"connection: upgrade, x\r\nupgrade: h2c\r\n\r\n" + GET + b"\r\n",
    post(b"/echo", b"abc", b"connection: upgrade\r\nupgrade: websocket\r\n") + GET + b"\r\n",
    b"POST /echo HTTP/1.0\r\ncontent-length: 2\r\n\r\nab",
    GET + b"connection: close\r\n\r\n",
]


async def outcome(pieces: list[bytes]) -> object:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    written = await pipe.push(*pieces)
    read = [(i.method, i.target, i.headers, i.marks, i.body, i.peer) for i in kitchen.seen]
    return read, answers(written), pipe.closed, pipe.paused


@pytest.mark.parametrize("data", SPLIT)
async def test_every_split_is_read_the_same(data: bytes) -> None:
    whole = await outcome([data])
    for at in range(1, len(data)):
        assert await outcome([data[:at], data[at:]]) == whole, at
    assert await outcome([data[at : at + 1] for at in range(len(data))]) == whole


async def test_the_head_comes_as_it_was_sent() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(SPLIT[0])
    (inbound,) = kitchen.seen
    assert (inbound.method, inbound.target, inbound.peer) == ("POST", "/echo?a=%2F", "127.0.0.1")
    assert inbound.headers == [
        (b"host", b"x"), (b"x-mine", b"v"), (b"empty", b""), (b"content-length", b"8"),
    ]  # fmt: skip
    assert inbound.marks == {b"host": b"x", b"content-length": b"8"}
    assert inbound.body == b'{"a": 1}'


async def test_trailers_are_no_headers_of_anything() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(SPLIT[2])
    assert [len(inbound.headers) for inbound in kitchen.seen] == [2, 1]


async def test_an_upgrade_is_an_ordinary_request() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    written = await pipe.push(SPLIT[5])
    assert answers(written) == [(200, b"abc"), (200, b"/echo")]


# --- one after the other


async def test_pipelined_requests_are_answered_in_order() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(post(b"/wait", b"1") + post(b"/echo", b"2") + post(b"/echo", b"3") + b"GE")
    assert kitchen.targets == ["/wait"]
    assert pipe.paused
    kitchen.go.set()
    await quiet(20)
    assert answers(bytes(pipe.written)) == [(200, b"1"), (200, b"2"), (200, b"3")]
    assert not pipe.paused
    written = await pipe.push(b"T /echo HTTP/1.1\r\nhost: x\r\n\r\n")
    assert len(answers(written)) == 4


async def test_a_bad_request_sent_ahead_is_refused_in_its_turn() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    assert await pipe.push(post(b"/wait", b"1") + GET + HOST + b"\r\n") == b""
    kitchen.go.set()
    await quiet()
    assert [status for status, _ in answers(bytes(pipe.written))] == [200, 400]
    assert pipe.closed


async def test_too_many_requests_sent_ahead_are_refused() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push((GET + b"\r\n") * 100)
    await quiet(100)
    told = [status for status, _ in answers(bytes(pipe.written))]
    assert told == [200] * (AHEAD_LIMIT + 1) + [400]
    assert pipe.closed


async def test_what_follows_a_last_request_is_no_request() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    written = await pipe.push(GET + b"connection: close\r\n\r\n" + GET + b"\r\n")
    assert len(answers(written)) == 1
    assert pipe.closed
    assert len(kitchen.seen) == 1


# --- bodies that nobody reads


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_the_rest_of_a_short_unread_body_is_read_on() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    whole = post(b"/unread", SMUGGLED)
    await pipe.push(whole[:-20])
    written = await pipe.push(whole[-20:] + GET + b"\r\n")
    assert [status for status, _ in answers(written)] == [401, 200]
    assert kitchen.targets == ["/unread", "/echo"]


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 100000\r\n",
        b"transfer-encoding: chunked\r\n",
        b"content-length: 35\r\nexpect: 100-continue\r\n",
    ],
)
async def test_the_rest_of_another_unread_body_ends_the_connection(head: bytes) -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    written = await pipe.push(
        b"POST /unread HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n", SMUGGLED, SMUGGLED
    )
    assert [status for status, _ in answers(written)] == [401]
    assert b"connection: close\r\n" in written
    assert b"100 Continue" not in written
    assert pipe.eof  # our half only: what he still sends would reset the connection
    assert not pipe.ended
    assert kitchen.targets == ["/unread"]


async def test_t_http_04_a_declared_length_over_the_limit_is_refused_unread() -> None:
    kitchen = Kitchen(limit_bytes=100)
    pipe, _ = piped(kitchen.handle)
    written = await pipe.push(POST + b"content-length: 10000000000\r\n\r\n{")
    assert [status for status, _ in answers(written)] == [413]
    assert pipe.eof


async def test_t_http_04_chunks_over_the_limit_are_refused_as_they_come() -> None:
    kitchen = Kitchen(limit_bytes=100)
    pipe, _ = piped(kitchen.handle)
    written = await pipe.push(chunked(b"/echo", b""), *[b"a\r\n0123456789\r\n"] * 20)
    assert [status for status, _ in answers(written)] == [413]
    assert pipe.eof


async def test_a_body_that_nobody_takes_yet_stops_the_reading() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    body = b"x" * 200_000
    data = post(b"/late", body)
    await pipe.push(data[:50_000])
    assert not pipe.paused
    await pipe.push(data[50_000:100_000])
    assert pipe.paused
    kitchen.go.set()
    await quiet()
    assert not pipe.paused
    assert answers(await pipe.push(data[100_000:])) == [(200, body)]


async def test_100_continue_is_said_when_the_body_is_wanted() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    head = post(b"/echo", b"", b"expect: 100-Continue\r\n").replace(b"length: 0", b"length: 3")
    assert await pipe.push(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answers(await pipe.push(b"abc")) == [(200, b"abc")]
    pipe.written.clear()
    assert b" 100 " not in await pipe.push(head + b"abc")  # it is there already
    pipe.written.clear()
    assert b" 100 " not in await pipe.push(head.replace(b"HTTP/1.1", b"HTTP/1.0"), b"abc")


# --- forms of the answer


async def test_head_has_no_body() -> None:
    pipe, _ = piped(Kitchen().handle)
    written = await pipe.push(GET.replace(b"GET", b"HEAD") + b"\r\n")
    assert b"content-length: 5\r\n" in written
    assert written.endswith(b"\r\n\r\n")
    assert not pipe.closed


@pytest.mark.parametrize(
    ("head", "said", "closed"),
    [
        (GET, None, False),
        (GET + b"connection: close\r\n", b"connection: close\r\n", True),
        (b"GET /echo HTTP/1.0\r\n", b"connection: close\r\n", True),
        (b"GET /echo HTTP/1.0\r\nconnection: keep-alive\r\n", b"connection: keep-alive\r\n", False),
        (b"GET /echo HTTP/1.0\r\nhost: x\r\n", b"connection: close\r\n", True),
    ],
)
async def test_whether_the_connection_is_kept(
    head: bytes, said: bytes | None, closed: bool
) -> None:
    pipe, _ = piped(Kitchen().handle)
    written = await pipe.push(head + b"\r\n")
    assert written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (said in written) if said else (b"connection" not in written)
    assert pipe.closed == closed


async def test_an_answer_of_unknown_length_to_http_10_ends_with_the_connection() -> None:
    kitchen = Kitchen()
    kitchen.go.set()
    pipe, _ = piped(kitchen.handle)
    written = await pipe.push(b"GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert written.endswith(b"\r\n\r\nfirstsecond")
    assert b"transfer-encoding" not in written
    assert pipe.closed


async def test_errors_keep_the_connection() -> None:
    kitchen = Kitchen()
    pipe, _ = piped(kitchen.handle)
    await pipe.push(post(b"/echo", b"not gzip"), post(b"/unread", b"x"), post(b"/echo", b"y"))
    assert [status for status, _ in answers(bytes(pipe.written))] == [200, 401, 200]
