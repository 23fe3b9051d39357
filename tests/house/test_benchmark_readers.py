"""What the benchmark's generator and mock read from raw bytes, and how they judge it.

A wrong answer must never pass for a fast one, and a stall must be charged to all who waited.
"""

import asyncio
import time

import pytest

from benchmarks.load import texts
from benchmarks.load.answers import (
    StreamReader,
    UnaryReader,
    dechunked,
    judge_stream,
    judge_unary,
)
from benchmarks.load.generator import OpenLoad
from benchmarks.load.jobs import Job
from benchmarks.load.mock import body_end, chunk
from benchmarks.stats import percentile

OPENAI: texts.Dialect = "openai-chat"


def reply(body: bytes, *, chunked: bool = False, status: int = 200) -> bytes:
    if chunked:
        half = len(body) // 2
        framed = chunk(body[:half]) + chunk(body[half:]) + b"0\r\n\r\n"
        return b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status + framed
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


@pytest.mark.parametrize("chunked", [False, True])
def test_unary_answers_are_read_at_every_split(chunked: bool) -> None:
    raw = reply(b'{"text":"hello there"}', chunked=chunked)
    for at in range(1, len(raw)):
        reader = UnaryReader()
        assert not reader.feed(raw[:at])
        assert reader.feed(raw[at:])
        assert (reader.status, reader.body) == (200, b'{"text":"hello there"}')


GOOD = texts.answer(OPENAI, 1, 1024)
# fmt: off
JUDGED = [
    #  what came                                     exact   verdict
    (reply(GOOD),                                    True,   None),
    (reply(GOOD, chunked=True),                      True,   None),
    (reply(GOOD.replace(b'"usage"', b'"used"')),     True,   "answer differs"),
    (reply(GOOD.replace(b'"usage"', b'"used"')),     False,  None),
    (reply(GOOD[:300] + b"?" + GOOD[301:]),          False,  "text of the answer differs"),
    (reply(b'{"choices":[]}'),                       True,   "answer without its text"),
    (reply(b'{"error":{}}', status=502),             True,   "status 502"),
]
# fmt: on


@pytest.mark.parametrize(("raw", "exact", "verdict"), JUDGED)
def test_a_wrong_answer_is_seen(raw: bytes, exact: bool, verdict: str | None) -> None:
    reader = UnaryReader()
    assert reader.feed(raw)
    found = judge_unary(reader, [b"", GOOD], exact=exact)
    assert found is None if verdict is None else found is not None and verdict in found


SENT = texts.stream(OPENAI, 42, 20, 200)
OTHER = SENT.whole().replace(b"chatcmpl-bench", b"chatcmpl-other")
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def streamed(body: bytes, *, end: bytes = b"0\r\n\r\n") -> bytes:
    return HEAD + chunk(body) + end


# fmt: off
STREAMS = [
    (streamed(SENT.whole()),                                                 True,  None),
    (streamed(OTHER),                                                        True,  "differs"),
    (streamed(OTHER),                                                        False, None),
    (streamed(SENT.whole(), end=b""),                                        False, "cut"),
    (streamed(SENT.opening + SENT.event(1) + SENT.event(0) + SENT.closing),  False, "without its"),
    (streamed(SENT.opening + SENT.event(0) + SENT.event(1) + SENT.closing),  False, "text of"),
    (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",                         False, "status 503"),
]
# fmt: on


@pytest.mark.parametrize(("raw", "exact", "verdict"), STREAMS)
def test_a_wrong_stream_is_seen(raw: bytes, exact: bool, verdict: str | None) -> None:
    reader = StreamReader()
    reader.feed(raw)
    found = judge_stream(reader, OPENAI, 20, 200, exact=exact)
    assert found is None if verdict is None else found is not None and verdict in found


def test_a_stream_that_was_collected_on_the_way_is_seen() -> None:
    one_event = SENT.before + SENT.text + SENT.after
    reader = StreamReader()
    reader.feed(streamed(SENT.opening + one_event + SENT.closing))
    found = judge_stream(reader, OPENAI, 20, 200, exact=False)
    assert found is not None
    assert "collected" in found


def test_the_end_of_a_stream_is_seen_at_every_split() -> None:
    raw = streamed(SENT.whole())
    for at in range(len(raw) - 8, len(raw)):
        reader = StreamReader()
        reader.feed(raw[:at])
        assert not reader.ended
        reader.feed(raw[at:])
        assert reader.ended
    assert dechunked(raw.partition(b"\r\n\r\n")[2]) == SENT.whole()
    assert len(SENT.event(3)) == 200


# fmt: off
REQUESTS = [
    (b"GET / HTTP/1.1\r\n\r\n",                                            None),
    (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab",                    None),
    (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",                    "more"),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",   "more"),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", None),
]
# fmt: on


@pytest.mark.parametrize(("raw", "lacks"), REQUESTS)
def test_the_mock_finds_the_end_of_a_request(raw: bytes, lacks: str | None) -> None:
    assert body_end(raw, raw.find(b"\r\n\r\n")) == (None if lacks else len(raw))


class Freezing(asyncio.Protocol):
    """Answers at once, but for one stretch of time in which it answers nobody."""

    def __init__(self, from_s: float, until_s: float) -> None:
        self._from_s, self._until_s = from_s, until_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if self._from_s <= now < self._until_s:
            loop = asyncio.get_running_loop()
            loop.call_later(self._until_s - now, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(reply(GOOD))


@pytest.mark.process
async def test_a_stall_is_charged_to_all_who_had_to_wait() -> None:
    loop = asyncio.get_running_loop()
    texts.corpus()  # grown before the clock runs
    began = time.monotonic()
    server = await loop.create_server(lambda: Freezing(began + 0.5, began + 0.9), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    job = Job("open", "127.0.0.1", port, "/", {}, OPENAI, connections=2, requests=150, rate=100)
    load = OpenLoad(job, loop)
    load.expected = [b"", GOOD]
    await load.prepare()
    await load.run()
    load.close()
    await asyncio.sleep(0)
    server.close()
    assert not load.faults
    assert percentile(load.latencies_ms, 99) >= 360
    assert sum(ms >= 100 for ms in load.latencies_ms) >= 25  # not the two on the wire alone
