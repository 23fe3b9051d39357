"""Rate limits (T-RL), the listener's limits (T-HTTP-01..04), and the body's pace."""

import asyncio
import math
import re
import socket

import pytest

from proxy.control.body import BodyPace
from proxy.control.listener import ListenerLimits
from proxy.control.ratelimit import Streams, headers
from proxy.model.batch import LogFilter, LogPage, StoreUnavailable
from proxy.model.coord import Quota, gcra
from proxy.settings.schema import Control
from proxy.storage.coord import Buckets
from tests.control.world import ADMIN, EVENT, World, bearer, running
from tests.kit.fakes import FakeClock
from tests.kit.store import MemoryStore

EVENTS = "/v1/workspaces/default/events"
S = 1_000_000_000


# --- GCRA


def test_t_rl_04_the_vector() -> None:
    tat, seen = 0, []
    for _ in range(12):
        tat, quota = gcra(tat, 0, 10, 60 * S)
        told = headers("control-read", quota, 0)
        seen.append((quota.allowed, quota.remaining, int(told["X-RateLimit-Reset"])))
    assert seen[:10] == [(True, 9 - n, 6 * (n + 1)) for n in range(10)]
    assert seen[10:] == [(False, 0, 60)] * 2
    assert told["Retry-After"] == "6"
    assert told["RateLimit"] == '"control-read";r=0;t=6'
    assert told["RateLimit-Policy"] == '"control-read";q=10;w=60'


@pytest.mark.parametrize("limit", [1, 7, 120, 600, 6000])
def test_any_limit_admits_exactly_itself_and_then_one_per_step(limit: int) -> None:
    tat, admitted, now = 0, 0, 0
    for _ in range(limit + 5):
        tat, quota = gcra(tat, now, limit, 60 * S)
        admitted += quota.allowed
    assert admitted == limit
    now += math.ceil(60 * S / limit)
    assert gcra(tat, now, limit, 60 * S)[1].allowed
    assert gcra(tat, 10_000 * S, limit, 60 * S)[1].remaining == limit - 1


def test_reset_is_never_in_the_past_and_remaining_is_monotone() -> None:
    clock = FakeClock()
    buckets = Buckets(clock)
    last = 120
    for _ in range(125):
        quota = buckets.take("control-write", "k", 120)
        assert quota.remaining in (last - 1, last)
        last = quota.remaining
        reset = int(headers("control-write", quota, clock.now_ms())["X-RateLimit-Reset"])
        assert clock.now_ms() / 1000 <= reset <= clock.now_ms() / 1000 + 60
    assert repr(buckets) == "<Buckets 1>"


def test_buckets_are_bounded_and_apart() -> None:
    buckets = Buckets(FakeClock())
    for number in range(10_050):
        buckets.take("auth", f"10.0.{number}", 20)
    assert repr(buckets) == "<Buckets 10000>"
    assert buckets.take("ingest", "k", 5).remaining == 4
    assert buckets.take("control-read", "k", 5).remaining == 4


def test_streams_are_counted_and_given_back() -> None:
    streams = Streams()
    assert streams.take("k", 1).allowed
    assert streams.take("k", 1) == Quota(1, 0, 0, S, allowed=False)
    streams.release("k")
    assert streams.take("k", 1).allowed


async def test_t_rl_01_the_601st_read_is_refused_with_all_headers(world: World) -> None:
    control = Control.model_validate({"rate_limits": {"control_read": 3}})
    world.control = control
    for left in (2, 1, 0):
        answer = await world.get(EVENTS)
        assert answer.headers["X-RateLimit-Remaining"] == str(left)
    refused = await world.get(EVENTS)
    assert (refused.status, refused.slug) == (429, "quota-exceeded")
    assert refused.doc["violated-policies"] == ["control-read"]
    wait = int(refused.headers["Retry-After"])
    assert wait == refused.doc["retry_after_seconds"] == 20
    now_s = world.clock.now_ms() / 1000
    assert now_s < int(refused.headers["X-RateLimit-Reset"]) <= now_s + 60
    other = await world.get(EVENTS, bearer("viewer000000"))
    assert other.status == 200  # another key has its own bucket
    assert (await world.ingest_runtime(EVENT)).status == 202  # and so has another class
    world.clock.advance(wait)
    assert (await world.get(EVENTS)).status == 200


async def test_t_rl_02_every_authenticated_answer_carries_the_headers(world: World) -> None:
    for answer in (
        await world.get(EVENTS),
        await world.get(EVENTS + "?limit=0"),
        await world.get(EVENTS + "/none"),
        await world.get(EVENTS, bearer("app000000000")),
    ):
        assert answer.headers["X-RateLimit-Limit"] == "600"
        for name in (
            "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy", "RateLimit",
        ):  # fmt: skip
            assert name in answer.headers
    assert "X-RateLimit-Limit" not in (await world.get("/healthz")).headers


# --- request heads


GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v1/ingest/runtime HTTP/1.1\r\nHost: x\r\n"
LENGTH, CODING = b"Content-Length: ", b"Transfer-Encoding: "
LONG = b"b" * 8300
# fmt: off
HEADS = [
    ("no HTTP",              400, b"hello\r\n\r\n"),
    ("NUL in a field",       400, GET + b"A: b\x00c\r\n\r\n"),
    ("space before colon",   400, GET + b"A : b\r\n\r\n"),
    ("obs-fold",             400, GET + b"A: b\r\n c\r\n\r\n"),
    ("bare CR",              400, GET + b"A: b\rc\r\n\r\n"),
    ("two Hosts",            400, GET + b"Host: y\r\n\r\n"),
    ("no Host",              400, b"GET /healthz HTTP/1.1\r\n\r\n"),
    ("absolute form",        400, b"GET http://x/healthz HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("authority form",       400, b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("HTTP/2",               400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("two lengths",          400, POST + LENGTH + b"1\r\n" + LENGTH + b"2\r\n\r\nab"),
    ("length and chunks",    400, POST + LENGTH + b"3\r\n" + CODING + b"chunked\r\n\r\n0\r\n\r\n"),
    ("negative length",      400, POST + LENGTH + b"-1\r\n\r\n"),
    ("signed length",        400, POST + LENGTH + b"+1\r\n\r\na"),
    ("unknown coding",       400, POST + CODING + b"xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked not last",     400, POST + CODING + b"chunked, identity\r\n\r\n0\r\n\r\n"),
    ("a line of 8300",       414, b"GET /" + LONG + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a field of 8300",      431, GET + b"A: " + LONG + b"\r\n\r\n"),
    ("a name of 8300",       431, GET + LONG + b": x\r\n\r\n"),
    ("200 fields",           431, GET + b"A: b\r\n" * 200 + b"\r\n"),
    ("TLS on a plain port",  400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03xxxx\r\n\r\n"),
]
# fmt: on


@pytest.mark.parametrize(("name", "status", "data"), HEADS)
async def test_t_http_01_and_04_heads(world: World, name: str, status: int, data: bytes) -> None:
    answer = await world.raw(data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] %d " % status, head), answer[:200]
    assert b"Content-Type: application/problem+json" in head
    assert b"keep-alive" not in head.lower()
    assert b"Server:" not in head
    assert b'"status":%d' % status in body
    assert len(re.findall(rb"HTTP/1\.[01] [0-9]", answer)) == 1


async def test_t_http_04_a_line_of_8190_bytes_is_read_and_one_more_is_not(world: World) -> None:
    for length, status in ((8190, b"404"), (8191, b"414")):
        line = b"GET /" + b"a" * (length - len("GET / HTTP/1.1")) + b" HTTP/1.1"
        assert len(line) == length
        answer = await world.raw(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer[9:12] == status
        assert len(answer) < 2000  # the path is not echoed whole


async def test_t_http_02_a_slow_head_is_answered_408_and_closed() -> None:
    async with running(limits=ListenerLimits(head_s=0.2)) as world:
        answer = await world.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ")
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"request-timeout" in answer
        assert (await world.raw(b"")).startswith(b"HTTP/1.1 408 ")  # silent from the start


async def test_t_http_02_a_trickled_head_does_not_start_the_time_anew() -> None:
    async with running(limits=ListenerLimits(head_s=0.3)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        started = asyncio.get_running_loop().time()
        # the first line alone: a byte that meets a closed socket resets what comes after it
        reading = asyncio.ensure_future(reader.readline())  # noqa: TID251
        for byte in b"GET /healthz HTTP/1.1\r\n" * 10:
            if reading.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait([reading], timeout=0.02)
        assert (await reading).startswith(b"HTTP/1.1 408 ")
        assert asyncio.get_running_loop().time() - started < 2
        writer.close()


@pytest.mark.thorough
async def test_an_idle_connection_is_kept_longer_than_a_head_may_take() -> None:
    async with running(limits=ListenerLimits(head_s=0.2)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        for _ in range(2):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r")[0]))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.4)  # not closed after 0.2 s
        writer.write(b"GET /healthz HTT")
        assert (await asyncio.wait_for(reader.read(), 2)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_trickle_behind_a_request_has_its_time_too() -> None:
    async with running(limits=ListenerLimits(head_s=0.2)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"t")
        async with asyncio.timeout(2):
            assert b"HTTP/1.1 408 " in await reader.read()
        writer.close()


async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    one = b"GET /problems/%s HTTP/1.1\r\nHost: x\r\n%s\r\n"
    answer = await world.raw(one % (b"draining", b"") + one % (b"in-use", b"Connection: close\r\n"))
    assert answer.index(b"slug: draining") < answer.index(b"slug: in-use")


@pytest.mark.thorough
async def test_t_http_03_a_slow_body_is_cut() -> None:
    pace = BodyPace(total_s=5.0, grace_s=0.2, bytes_per_s=1024)
    async with running(pace=pace) as world:
        head = f"Authorization: {ADMIN['Authorization']}\r\nContent-Type: application/json\r\n"
        answer = await world.raw(
            b"POST /v1/ingest/runtime HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
            + head.encode()
            + b"\r\n{"
        )
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close" in answer


def test_how_long_a_body_may_take() -> None:
    pace = BodyPace()
    assert pace.due_s(0) == 5
    assert pace.due_s(10 * 1024) == 15
    assert pace.due_s(10**9) == 30


async def test_a_body_that_ends_early_or_breaks_its_framing(world: World) -> None:
    head = f"POST /v1/ingest/runtime HTTP/1.1\r\nHost: x\r\nAuthorization: {ADMIN['Authorization']}"
    head += "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await world.raw(head.encode() + b"ZZ\r\n")
    assert b" 400 " in answer.split(b"\r\n")[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(head.encode() + b"5\r\n{")
    writer.close()
    assert await reader.read() in (b"",)
    assert (await world.get("/healthz")).status == 200


@pytest.mark.thorough
async def test_expect_100_continue_comes_after_the_checks(world: World) -> None:
    head = "POST /v1/ingest/runtime HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n"
    refused = await world.raw(head.encode() + b"\r\n")
    assert refused.startswith(b"HTTP/1.1 401 ")
    key = bearer("ingest000000")["Authorization"]
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(f"{head}Authorization: {key}\r\n\r\n".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.read()).startswith(b"HTTP/1.1 422 ")
    writer.close()


class StuckStore(MemoryStore):
    """Reads never end, or end by the store's own limit."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__(FakeClock())
        self.fails = fails

    async def range(self, workspace_id: str, log: str, query: LogFilter) -> LogPage:
        if self.fails:
            raise StoreUnavailable("query-timeout", "the query took more than 2 s")
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_a_handler_and_a_query_have_their_time() -> None:
    limits = ListenerLimits(handler_s=0.1)
    for fails, slug in ((False, "unavailable"), (True, "query-timeout")):
        async with running(StuckStore(fails=fails), limits=limits) as world:
            answer = await world.get(EVENTS)
            assert (answer.status, answer.slug) == (503, slug)
            assert answer.headers["Retry-After"] == "1"
            assert answer.headers["X-RateLimit-Remaining"] == "599"


async def test_connections_are_bounded_by_address_and_in_all() -> None:
    for limits in (ListenerLimits(per_address=3), ListenerLimits(connections=3)):
        async with running(limits=limits) as world:
            held = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(3)]
            for reader, writer in held:  # the server has taken them when it answers
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            assert await reader.read() == b""
            writer.close()
            held[0][1].close()
            await held[0][1].wait_closed()
            async with asyncio.timeout(2):
                while not (await world.raw_or_nothing()):
                    pass
            for _, writer in held[1:]:
                writer.close()


async def test_a_caller_that_leaves_does_not_disturb_others(world: World) -> None:
    for _ in range(20):
        sock = socket.create_connection(("127.0.0.1", world.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.send(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.close()
    assert (await world.get("/healthz")).status == 200


async def test_t9_the_production_runner_cancels_a_handler_whose_caller_left() -> None:
    async with running() as world:
        assert world.runner.server is not None
        assert world.runner.server.handler_cancellation is True
