"""Every reply and every fault of the scripted provider, seen from the socket."""

import asyncio
import gzip
import json

import pytest

from tests.kit.frames import read_messages
from tests.kit.httpclient import opened
from tests.kit.provider import FakeProvider
from tests.kit.replies import (
    PIECES,
    TEXT,
    empty,
    half_json,
    hang_up,
    html,
    ok,
    raw,
    reset,
    status,
    verbatim,
)
from tests.kit.reply import Reply
from tests.kit_tests.asking import CHAT, CLAUDE, INVOKE, STREAMS, VERSION, ask, text_of


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_whole_stream(kind: str) -> None:
    async with FakeProvider(ok()) as provider:
        answer = await ask(provider, kind, stream=True)
        assert (answer.status, answer.ended, text_of(kind, answer)) == (200, "whole", TEXT)
        (entry,) = provider.journal
        assert (entry.end, entry.request.connection) == ("served", 1)
        assert entry.sent_bytes > len(answer.body)


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_whole_unary_answer(kind: str) -> None:
    async with FakeProvider(ok("One two.")) as provider:
        answer = await ask(provider, kind)
        assert int(answer.headers["content-length"]) == len(answer.body)
        document = answer.json
        if kind == "chat":
            assert document["choices"][0]["message"]["content"] == "One two."
            assert document["usage"]["total_tokens"] == 18
        else:
            assert document["content"] == [{"type": "text", "text": "One two."}]
            assert document["usage"]["output_tokens"] == 7
        if kind == "invoke":
            assert answer.headers["x-amzn-bedrock-input-token-count"] == "11"


# fmt: off
BROKEN = [
    # reply                                   ended     status
    (ok().cut(after=2),                       "cut",    200),
    (ok().cut(after=2, how="rst"),            "reset",  200),
    (ok().cut_bytes(100),                     "cut",    200),
    (ok().cut_bytes(100, "rst"),              "reset",  200),
    (ok().cut_inside(after=2),                "cut",    200),
    (ok().unterminated(),                     "cut",    200),
    (ok().truncated(after=2),                 "whole",  200),
    (ok().stall(after=2, seconds=0.05),       "cut",    200),
    (ok().error_after(2, "overloaded_error"), "whole",  200),
    (status(529),                             "whole",  529),
    (html(),                                  "whole",  502),
]
# fmt: on


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize(("reply", "ended", "code"), BROKEN)
async def test_how_a_stream_ends(kind: str, reply: Reply, ended: str, code: int) -> None:
    async with FakeProvider(reply) as provider:
        answer = await ask(provider, kind, stream=True)
        assert (answer.ended, answer.status) == (ended, code)
        assert provider.journal[0].end == ("served" if ended == "whole" else "cut")


@pytest.mark.parametrize("kind", STREAMS)
async def test_faults_count_pieces_of_content(kind: str) -> None:
    async with FakeProvider(ok().cut(after=3)) as provider:
        answer = await ask(provider, kind, stream=True)
        assert text_of(kind, answer) == "".join(PIECES[:3])
        provider.script = ok().truncated(after=0)
        assert text_of(kind, await ask(provider, kind, stream=True)) == ""


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_cut_inside_an_event_leaves_half_of_it(kind: str) -> None:
    """Whole chunks are all that this client keeps; the half event is in a chunk of its own."""
    async with FakeProvider(ok().cut_inside(after=3).framed("close")) as provider:
        answer = await ask(provider, kind, stream=True)
        if kind == "invoke":
            with pytest.raises(ValueError, match="cut at"):
                read_messages(answer.body)
        else:
            assert text_of(kind, answer) == "".join(PIECES[:3])
            assert not answer.body.endswith(b"\n\n")


@pytest.mark.parametrize("kind", STREAMS)
async def test_extra_events_that_do_not_parse(kind: str) -> None:
    reply = ok().bad_json(after=1).bad_utf8(after=3)
    async with FakeProvider(reply) as provider:
        answer = await ask(provider, kind, stream=True)
        assert b"\xff\xfe" in (
            b"".join(m.inner for m in read_messages(answer.body))
            if kind == "invoke"
            else answer.body
        )
        assert answer.whole


async def test_a_broken_message_of_an_event_stream() -> None:
    async with FakeProvider(ok().bad_json(after=1, structural=True)) as provider:
        answer = await ask(provider, "invoke", stream=True)
        with pytest.raises(ValueError, match="message checksum"):
            read_messages(answer.body)


async def test_the_trailer_left_out() -> None:
    async with FakeProvider(ok().without_trailer()) as provider:
        chat = await ask(provider, "chat", stream=True)
        assert (chat.whole, b"[DONE]" in chat.body, b'"stop"' in chat.body) == (True, False, True)
        claude = await ask(provider, "messages", stream=True)
        assert [event.name for event in claude.events][-1] == "message_delta"


async def test_before_the_headers() -> None:
    async with FakeProvider([reset(), hang_up(), verbatim(b"HTTP/1.1 20")]) as provider:
        for kind in (ConnectionResetError, asyncio.IncompleteReadError):
            with pytest.raises(kind):
                await ask(provider)
        with pytest.raises(asyncio.IncompleteReadError):
            await ask(provider)
        assert [entry.end for entry in provider.journal] == ["cut"] * 3


async def test_waits() -> None:
    async with FakeProvider(ok().after(0.1).first_content_after(0.1).paced(0.02)) as provider:
        answer = await ask(provider, stream=True)
        assert answer.head_at - answer.asked_at >= 0.1
        first, last = answer.reached_at(b"Hello"), answer.reached_at(b'"."')
        assert first - answer.head_at >= 0.09
        assert last - first >= 0.09
        assert answer.reached_at(b"assistant") - answer.head_at < 0.05


@pytest.mark.parametrize("kind", STREAMS)
async def test_keep_alives_for_ever(kind: str) -> None:
    async with FakeProvider(ok().keepalives(0.01)) as provider, opened(provider.url) as wire:
        body = json.dumps(CHAT | CLAUDE | {"stream": True}).encode()
        path = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}.get(kind)
        if path is None:
            path, body = "/model/m/invoke-with-response-stream", json.dumps(INVOKE).encode()
        await wire.ask("POST", path, body, VERSION)
        await wire.body(await wire.head(), enough=100)
        left_at = wire.leave()
        entry = (await provider.settled())[0]
        assert entry.end == "client gone"
        assert entry.end_at is not None
        assert entry.end_at - left_at < 0.05


async def test_pings_fill_the_waits() -> None:
    async with FakeProvider(ok().first_content_after(0.1).pinging(0.02)) as provider:
        answer = await ask(provider, "messages", stream=True)
        names = [event.name for event in answer.events]
        assert names.count("ping") >= 4
        assert text_of("messages", answer) == TEXT


async def test_bodies_that_are_no_answer() -> None:
    async with FakeProvider([empty(), half_json(), raw(b"[1]", code=201)]) as provider:
        assert (await ask(provider)).body == b""
        with pytest.raises(ValueError, match="Unterminated"):
            _ = (await ask(provider)).json
        assert (await ask(provider)).status == 201


async def test_wrong_lengths_and_garbage_behind() -> None:
    replies = [ok().claiming_length(5000).closing(), ok().followed_by(b"garbage")]
    async with FakeProvider(replies) as provider:
        assert (await ask(provider)).ended == "cut"
        async with opened(provider.url) as wire:
            await wire.ask("POST", "/v1/chat/completions", json.dumps(CHAT).encode())
            assert (await wire.answer()).whole
            assert await wire.reader.readexactly(7) == b"garbage"


async def test_pieces_of_one_byte() -> None:
    async with FakeProvider(ok().in_pieces(1)) as provider:
        answer = await ask(provider, "messages", stream=True)
        assert max(len(piece.data) for piece in answer.pieces) == 1
        assert text_of("messages", answer) == TEXT


@pytest.mark.parametrize("stream", [True, False])
async def test_gzip_that_nobody_asked_for(stream: bool) -> None:
    async with FakeProvider(ok().gzipped()) as provider:
        answer = await ask(provider, stream=stream)
        assert answer.headers["content-encoding"] == "gzip"
        assert b"Hello" in gzip.decompress(answer.body)


async def test_framing_and_interim_answers() -> None:
    async with FakeProvider(ok().framed("close").interim()) as provider:
        answer = await ask(provider, stream=True)
        assert answer.headers["connection"] == "close"
        assert "transfer-encoding" not in answer.headers
        assert text_of("chat", answer) == TEXT
