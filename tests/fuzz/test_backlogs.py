"""What leaves a guarded stream is the same, to the byte, whether it trickles in or comes at once,
is looked at on the loop or beside it; and so are the account of it and the outcome.
"""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from proxy.gateway.pipeline import serve
from proxy.gateway.stream import Pump
from proxy.model.ports import TransportFault
from proxy.model.tenancy import Endpoint
from proxy.runtime.tasks import spawn
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.sse import SseFramer
from tests.fuzz.test_stream_pump import PACK, guard, pieces, text
from tests.kit.builders import ANTHROPIC, OPENAI, SSE, world
from tests.kit.fakes import FakeClock, RecordingDownstream
from tests.kit.shapes import (
    DONE,
    MESSAGE_STREAM,
    MESSAGES,
    ROLE,
    STOP,
    STREAM,
    Doc,
    call,
    chunk,
    told,
)

CASES = 60
T = TypeVar("T")


class Ticking(FakeClock):
    def monotonic(self) -> float:
        self.advance(0.0002)
        return super().monotonic()


class Threads:
    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)


class Later:
    """Others have a few turns before it is done."""

    def __init__(self, r: random.Random) -> None:
        self._r = r

    async def run(self, work: Callable[[], T]) -> T:
        for _ in range(self._r.randint(0, 3)):
            await asyncio.sleep(0)
        return work()


def openai(r: random.Random, deltas: list[str], arguments: str) -> bytes:
    events = [ROLE, *(chunk({"content": delta}) for delta in deltas)]
    if arguments:
        cut = list(pieces(r, arguments, (3, 50, 9_000)))
        events += [chunk(call("")), *(chunk(_more(part)) for part in cut)]
    return b"".join([*events, STOP, DONE])


def _more(part: str) -> Doc:
    return {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}


def anthropic(r: random.Random, deltas: list[str], arguments: str) -> bytes:
    docs: list[Doc] = [_block(0, {"type": "text", "text": ""})]
    docs += [_delta(0, {"type": "text_delta", "text": delta}) for delta in deltas]
    docs.append({"type": "content_block_stop", "index": 0})
    if arguments:
        docs.append(_block(1, {"type": "tool_use", "id": "t1", "name": "look", "input": {}}))
        docs += [
            _delta(1, {"type": "input_json_delta", "partial_json": part})
            for part in pieces(r, arguments, (3, 50, 9_000))
        ]
        docs.append({"type": "content_block_stop", "index": 1})
    return b"".join(step for step in told(*docs) if isinstance(step, bytes))


def _block(index: int, block: Doc) -> Doc:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, delta: Doc) -> Doc:
    return {"type": "content_block_delta", "index": index, "delta": delta}


@dataclass(frozen=True)
class Way:
    endpoint: Endpoint
    path: str
    asked: bytes
    write: Callable[[random.Random, list[str], str], bytes]
    dialect: ChatReader | MessagesReader


WAYS = {
    "openai": Way(OPENAI, "/v1/chat/completions", STREAM, openai, ChatReader()),
    "anthropic": Way(ANTHROPIC, MESSAGES, MESSAGE_STREAM, anthropic, MessagesReader()),
}


def long_text(r: random.Random) -> str:
    """Mostly harmless, sometimes hostile, sometimes of many kilobytes."""
    said = [text(r) for _ in range(r.choice([1, 3, 30]))]
    if r.random() < 0.5:
        said.insert(r.randint(0, len(said)), "word " * r.choice([300, 4_000]))
    if r.random() < 0.3:
        said.insert(r.randint(0, len(said)), "KEY" + "0123456789ABCDEF" * r.choice([50, 600]))
    return "".join(said)


def pumped(way: Way, body: bytes, died: bool) -> tuple[Pump, bytes]:
    """The stream without a gateway: its pump, and all that leaves; of one that died before its
    ending."""
    reader = way.dialect.stream(hold_tools=True, hold_reasoning=False, want_usage=False)
    pump = Pump(SseFramer(), reader, guard())
    sent = pump.feed(body)
    if not pump.over and not died:
        sent += pump.finish()
    ending = pump.reader.blocked_end(None) if pump.blocked is not None else pump.last
    return pump, sent + ending


@pytest.mark.parametrize("name", list(WAYS))
@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(0, marks=pytest.mark.thorough),
        *(pytest.param(n, marks=pytest.mark.exhaustive) for n in range(1, 15)),
    ],
)
async def test_a_backlog_changes_nothing(name: str, batch: int) -> None:
    r, way = random.Random(9_000 + batch), WAYS[name]
    seen = {"success": 0, "blocked": 0, "interrupted": 0, "upstream_error": 0}
    for _ in range(CASES if batch else CASES // 3):
        arguments = json.dumps({"q": long_text(r), "n": [text(r)] * 3}) if r.random() < 0.4 else ""
        deltas = list(pieces(r, long_text(r), r.choice([(1, 2, 8), (5,), (64,), (99_999,)])))
        body = way.write(r, deltas, arguments)
        died = r.random() < 0.15
        if died:
            body = body[: r.randint(0, len(body) - 40)]
        pump, whole = pumped(way, body, died)
        if died and (pump.terminal or pump.blocked is not None or not pump.released):
            continue  # it was whole all the same, or nothing of it had left
        received, outcome, status = await served(r, way, body, died)
        seen[outcome] += 1
        if died and outcome == "upstream_error":
            assert status >= 500  # the fault came before anything had left
        elif died:
            assert outcome == "interrupted"
            assert received.startswith(whole)
        elif pump.blocked is not None and not pump.released:
            assert (status, outcome) == (400, "blocked")
        else:
            assert outcome == ("success" if pump.blocked is None else "blocked")
            assert received == whole
    assert seen["success"] > 3, seen


async def served(r: random.Random, way: Way, body: bytes, died: bool) -> tuple[bytes, str, int]:
    w = world([way.endpoint], scripts={way.endpoint.id: [[(200, SSE)]]}, packs=[PACK])
    w.gateway.clock = r.choice([Ticking(), FakeClock()])
    w.gateway.off_loop = r.choice([Threads(), Later(r), w.gateway.off_loop])
    caller = RecordingDownstream(request_body=way.asked)
    request = spawn(serve(w.inbound(way.path), caller, w.gateway), name="request")
    upstream = w.upstreams[way.endpoint.id]
    for _ in range(12):
        await asyncio.sleep(0)
    sink = upstream.sinks[-1]
    sizes, at = r.choice([(7, 40, 90), (500, 1460), (4_000, 70_000), (999_999,)]), 0
    rests = r.choice([0.0, 0.1, 1.0])  # how often others have a turn
    while at < len(body) and not upstream.calls[-1].cancelled:
        size = r.choice(sizes)
        sink.data(body[at : at + size])
        at += size
        if r.random() < rests:
            await asyncio.sleep(0)
    if not upstream.calls[-1].cancelled:
        if died:
            sink.failed(TransportFault("reset", response_bytes=len(body)))
        else:
            sink.end()
    await asyncio.wait_for(request, 30)
    assert not upstream.calls[-1].paused
    return caller.received, w.record.outcome, caller.status
