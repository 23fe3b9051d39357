"""Bad input from both sides over real sockets: always a clear error in the caller's dialect, never
a hang, a stack trace, or a truncated answer that looks whole.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.httpclient import Answer, opened, post, request
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import (
    TEXT,
    empty,
    gzip_bomb,
    half_json,
    hang_up,
    html,
    huge,
    ok,
    raw,
    reset,
    silence,
    verbatim,
)
from tests.kit.reply import Reply

pytestmark = pytest.mark.process

OPENAI = "/r/openai/v1/chat/completions"
GUARDED = "/r/guarded/v1/chat/completions"
ANTHROPIC = "/r/anthropic/v1/messages"
BEDROCK = "/r/bedrock/v1/messages"
PATHS = [OPENAI, GUARDED, ANTHROPIC, BEDROCK]
LIMITS = {"connect_ms": 500, "first_content_ms": 700, "idle_ms": 700, "unary_ms": 1500}


def body(path: str, *, streamed: bool = False) -> dict[str, object]:
    asked: dict[str, object] = {
        "model": "claude", "max_tokens": 99, "messages": [{"role": "user", "content": "hello"}],
    }  # fmt: skip
    if "chat" in path:
        del asked["max_tokens"]
    return asked | ({"stream": True} if streamed else {})


@pytest.fixture
async def parapet(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Parapet]:
    config = workspace(
        [
            endpoint("openai", "openai", provider.url + "/v1"),
            endpoint("anthropic", "anthropic", provider.url),
            endpoint("bedrock", "bedrock", provider.url,
                     models={"claude": "anthropic.claude-3-opus-20240229-v1:0"}),
        ],
        [
            {"id": "openai", "endpoint": "openai", "timeouts": LIMITS},
            {"id": "guarded", "endpoint": "openai", "timeouts": LIMITS,
             "policy_packs": ["secrets-core"]},
            {"id": "anthropic", "endpoint": "anthropic", "timeouts": LIMITS},
            {"id": "bedrock", "endpoint": "bedrock", "timeouts": LIMITS},
        ],
    )  # fmt: skip
    running = Parapet(config, tmp_path / "state")
    try:
        yield await running.start()
    finally:
        await running.kill()


def check_error(answer: Answer, path: str, what: str) -> None:
    """An error of the dialect, without a trace and without HTML."""
    assert answer.whole, what
    assert answer.status >= 400, what
    assert answer.headers["content-type"].startswith("application/json"), what
    doc = answer.json
    if path in (ANTHROPIC, BEDROCK):
        assert doc["type"] == "error", what
    assert doc["error"]["message"], what
    assert b"Traceback" not in answer.body, what
    assert b"<html" not in answer.body, what


# --- what callers send


async def test_malformed_requests_get_a_clear_error(parapet: Parapet) -> None:
    bodies: list[tuple[bytes, int]] = [
        (b"", 400), (b"{", 400), (b"null", 400), (b"[1]", 400), (b"\xff\xfe\xfd", 400),
        (b'{"model": 1}', 404), (b"\x00" * 100, 400), (b"[" * 200_000, 400),
    ]  # fmt: skip
    for data, _ in bodies:
        for path in PATHS:
            answer = await post(parapet.url + path, data)
            if answer.status == 200:  # an unguarded L0 route leaves the grammar to the provider
                assert data == b'{"model": 1}', data[:20]
                continue
            check_error(answer, path, f"{path} {data[:20]!r}")
    answer = await post(parapet.url + "/nowhere", b"{}")
    check_error(answer, OPENAI, "unknown path")
    assert answer.status == 404
    assert "openai" in answer.json["error"]["message"]  # names the routes that can be used


async def test_oversized_bodies_are_refused_before_they_are_read(parapet: Parapet) -> None:
    async with opened(parapet.url) as wire:
        await wire.send(
            b"POST " + OPENAI.encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-type: application/json"
            b"\r\ncontent-length: 10000000000\r\n\r\n{"
        )
        answer = await wire.answer()
    assert answer.status == 413
    assert answer.json["error"]["code"] == "request_too_large"


HOSTILE = [
    b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nbad\x00header: 1\r\n\r\n",
    b"GET http://other/ HTTP/1.1\r\nhost: x\r\n\r\n",
    b"CONNECT other:443 HTTP/1.1\r\nhost: other\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"a%d: 1\r\n" % n for n in range(200)) + b"\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"nonsense\r\n\r\n",
]


async def test_t_http_01_what_is_no_clean_http_is_refused_and_closed(
    parapet: Parapet, provider: FakeProvider
) -> None:
    for data in HOSTILE:
        async with opened(parapet.url) as wire:
            await wire.send(data)
            answer = await wire.answer()
            assert 400 <= answer.status < 500, data[:60]
            assert await wire.closed(), data[:60]
    assert provider.journal == []


# --- what providers send

BAD_WHOLE: dict[str, Reply] = {
    "html": html(200),
    "html 502": html(502),
    "half json": half_json(),
    "empty": empty(),
    "not utf-8": raw(b'{"choices": "\xff\xfe"}'),
    "an array": raw(b"[1,2]"),
    "reset": reset(),
    "hang up": hang_up(),
    "silence": silence(),
    "nonsense": verbatim(b"SSH-2.0-OpenSSH\r\n"),
    "bomb": gzip_bomb(),
    "too short": ok().claiming_length(10_000),
    "cut": ok().cut_bytes(60),
    "5xx without a body": empty(503),
}


@pytest.mark.exhaustive
async def test_answers_that_cannot_be_used(parapet: Parapet, provider: FakeProvider) -> None:
    for name, reply in BAD_WHOLE.items():
        for path in PATHS:
            provider.play(reply)
            answer = await post(parapet.url + path, body(path), within_s=8)
            check_error(answer, path, f"{name} {path}")
            assert answer.status >= 500, f"{name} {path}"
    provider.play(ok())  # and it lives on
    assert (await post(parapet.url + OPENAI, body(OPENAI))).status == 200
    assert "Traceback" not in parapet.log


BAD_STREAMS: dict[str, Reply] = {
    "cleanly truncated": ok().truncated(after=3),
    "closed": ok().cut(after=3),
    "reset": ok().cut(after=3, how="rst"),
    "without a last chunk": ok().unterminated().truncated(after=3),
    "stalled": ok().stall(after=3, seconds=5),
    "an error inside": ok().error_after(3),
    "silent from the start": ok().stall(after=0, seconds=5),
    "pings for ever": ok().first_content_after(5).pinging(0.1),
    "a bad event that counts": ok().bad_json(after=3, structural=True).truncated(after=4),
}


@pytest.mark.exhaustive
async def test_streams_that_break_are_never_whole(parapet: Parapet, provider: FakeProvider) -> None:
    for name, reply in BAD_STREAMS.items():
        for path in PATHS:
            provider.play(reply)
            answer = await post(parapet.url + path, body(path, streamed=True), within_s=8)
            what = f"{name} {path} {answer.status} {answer.ended} {answer.body[-200:]!r}"
            if answer.status != 200:
                check_error(answer, path, what)
                continue
            assert not answer.whole, what  # ends without its last chunk
            assert b'"error"' in answer.body, what  # and is told in-band
            assert b"[DONE]" not in answer.body, what
            assert b"message_stop" not in answer.body, what


async def test_a_bad_event_is_dropped_and_the_rest_is_right(
    parapet: Parapet, provider: FakeProvider
) -> None:
    for path in PATHS:
        for reply in (ok().bad_json(after=2), ok().bad_utf8(after=2)):
            provider.play(reply)
            answer = await post(parapet.url + path, body(path, streamed=True))
            if path == BEDROCK:  # an unreadable frame does not say what it was: the stream breaks
                assert not answer.whole
                assert b"event: error" in answer.body
                continue
            assert answer.whole, path
            said = "".join(_texts(answer.body))
            assert said == TEXT, path


def _texts(data: bytes) -> list[str]:
    found = []
    for line in data.split(b"\n"):
        if line.startswith(b"data: {"):
            doc = json.loads(line[6:])
            if "choices" in doc:
                found += [c["delta"].get("content") or "" for c in doc["choices"]]
            elif doc.get("type") == "content_block_delta":
                found.append(doc["delta"].get("text", ""))
    return found


async def test_small_pieces_are_put_together(parapet: Parapet, provider: FakeProvider) -> None:
    for path in PATHS:
        provider.play(ok().in_pieces(1))
        answer = await post(parapet.url + path, body(path, streamed=True))
        assert "".join(_texts(answer.body)) == TEXT, (path, answer.status, answer.body[:300])
        answer = await post(parapet.url + path, body(path))
        assert answer.status == 200


# --- size and pace


def peak_mib(pid: int) -> float:
    """VmHWM: the most resident memory the process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


async def test_100_mb_cross_an_unguarded_route_in_a_small_window(
    parapet: Parapet, provider: FakeProvider
) -> None:
    """At most 4 MiB held before commit, then the relay's window: kernel buffers and 64 KiB."""
    await post(parapet.url + OPENAI, body(OPENAI))
    before = peak_mib(parapet.pid)
    provider.play(huge(100_000_000))
    async with opened(parapet.url, receive_buffer=65_536) as wire:
        await wire.ask("POST", OPENAI, json.dumps(body(OPENAI)).encode(),
                       {"content-type": "application/json"})  # fmt: skip
        answer = await wire.head()
        assert answer.status == 200
        wire.stop_reading()
        await asyncio.sleep(1.0)  # nobody reads: the provider must be paused
        sent = provider.journal[0].sent_bytes
        assert sent < 50_000_000  # the kernel's own buffers: tcp_rmem and tcp_wmem of two hops
        await asyncio.sleep(0.5)
        assert provider.journal[0].sent_bytes == sent
        wire.go_on_reading()
        size = 0
        async for piece in wire._pieces(answer):
            size += len(piece)
    assert size > 100_000_000
    assert peak_mib(parapet.pid) - before < 24


async def test_a_guarded_answer_over_the_bound_is_refused(
    parapet: Parapet, provider: FakeProvider
) -> None:
    """`guard.max_answer_bytes` (16 MiB): what cannot be checked is not passed on."""
    provider.play(huge(20_000_000))
    answer = await post(parapet.url + GUARDED, body(GUARDED))
    check_error(answer, GUARDED, "too long to be checked")
    assert provider.journal[0].end == "client gone"


async def test_r52_a_caller_who_pauses_loses_nothing(
    parapet: Parapet, provider: FakeProvider
) -> None:
    """Clocks stand still meanwhile: three seconds are longer than every limit of the route."""
    provider.play(ok(pieces=["x" * 4000] * 2000))
    async with opened(parapet.url, receive_buffer=65_536) as wire:
        asked = json.dumps(body(OPENAI, streamed=True)).encode()
        await wire.ask("POST", OPENAI, asked, {"content-type": "application/json"})
        answer = await wire.head()
        wire.stop_reading()
        await asyncio.sleep(3)
        wire.go_on_reading()
        answer = await wire.body(answer)
    assert answer.whole
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert len("".join(_texts(answer.body))) == 8_000_000


async def test_r26_callers_who_leave_close_the_upstream_within_100_ms(
    parapet: Parapet, provider: FakeProvider
) -> None:
    late = []
    for path, streamed, reply in [
        (OPENAI, True, ok(pieces=[" word"] * 500).paced(0.01)),
        (GUARDED, True, ok(pieces=[" word"] * 500).paced(0.01)),
        (OPENAI, False, ok().after(5)),
        (OPENAI, True, ok().first_content_after(5)),
        (BEDROCK, True, ok(pieces=[" word"] * 500).paced(0.01)),
    ]:
        provider.play(reply)
        async with opened(parapet.url) as wire:
            asked = json.dumps(body(path, streamed=streamed)).encode()
            await wire.ask("POST", path, asked, {"content-type": "application/json"})
            await asyncio.sleep(0.3)
            left_at = wire.leave()
        (entry,) = provider.journal
        await asyncio.wait_for(entry.over.wait(), 2)
        assert entry.end == "client gone"
        assert entry.end_at is not None
        late.append(entry.end_at - left_at)
    assert max(late) < 0.1, late
    events = await parapet.events(5, type="runtime.request.cancelled")
    assert {event["payload"]["outcome"] for event in events} == {"client_cancelled"}


async def test_overload_is_refused_before_the_body_is_read(
    provider: FakeProvider, tmp_path: Path
) -> None:
    config = workspace(
        [endpoint("openai", "openai", provider.url + "/v1")],
        [{"id": "openai", "endpoint": "openai"}],
    )
    config["server"] = {"max_in_flight": 2}
    provider.play(ok().after(1))
    running = Parapet(config, tmp_path / "state")
    try:
        await running.start()
        asks = [
            asyncio.ensure_future(post(running.url + OPENAI, body(OPENAI)))  # noqa: TID251
            for _ in range(6)
        ]
        answers = await asyncio.gather(*asks)
    finally:
        await running.kill()
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.headers["retry-after"] == "1"


async def test_head_and_options_do_not_hang(parapet: Parapet) -> None:
    for method in ("HEAD", "OPTIONS", "GET", "DELETE"):
        answer = await request(method, parapet.url + OPENAI, within_s=5)
        assert answer.status, method
