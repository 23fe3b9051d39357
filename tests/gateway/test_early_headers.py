"""Streams of which the caller hears nothing for long: buffered ones, early headers, heartbeats
(failover.md §9, §10)."""

import asyncio

import pytest

from proxy.gateway.pipeline import serve
from proxy.model.failover import Outcome
from proxy.model.ports import TransportFault
from proxy.routing import window as fields
from proxy.runtime.tasks import spawn
from tests.gateway.recovering import PAIRS, SENTENCE, Dying, Pair, cut_after
from tests.kit.builders import BLOCK_RULE, OPENAI, SPARE, SSE, World, pack, policy, world
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.reading import read_chat
from tests.kit.replies import ok
from tests.kit.shapes import DONE, ROLE, STOP, chunk

EVERY_PAIR = pytest.mark.parametrize("pair", PAIRS)
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}],"stream":true}'


# --- buffer


@EVERY_PAIR
async def test_fo_57_nothing_leaves_before_the_answer_is_whole(pair: Pair) -> None:
    for dies in (cut_after(5), ok(SENTENCE).stall(after=5), ok(SENTENCE).error_after(5),
                 ok(SENTENCE, thinking=["hm"]).cut(after=5)):  # fmt: skip
        w = Dying(pair, dies, ok("Another answer, and a whole one."), mode="buffer")
        said = await w.ask()
        assert (said.text, said.whole) == ("Another answer, and a whole one.", True)
        record = w.world.record
        assert record.outcome == "success"
        assert record.recovered
        assert record.decisions[0].recovery == "buffer"
        assert record.attempts[0].outcome in (Outcome.CUT, Outcome.STALL)
        assert all(attempt.tokens is not None for attempt in record.attempts)


@EVERY_PAIR
@pytest.mark.thorough
async def test_fo_57_a_long_answer_is_released_and_goes_on_as_resume(pair: Pair) -> None:
    piece_, count = "x" * 10_000, 500  # 5 MB
    pieces = [piece_] * count
    w = Dying(pair, ok(pieces=pieces), ok(), mode="buffer")
    said = await w.ask()
    assert (len(said.text), said.whole) == (len(piece_) * count, True)
    assert len(w.caller.pieces) > 2
    w = Dying(pair, ok(pieces=pieces).cut(after=450), ok(pieces=pieces).continuing("exact"),
              mode="buffer")  # fmt: skip
    said = await w.ask()
    assert (len(said.text), said.whole) == (len(piece_) * count, True)
    assert w.recoveries == [("buffer", "released"), ("prefill", "recovered")]


@EVERY_PAIR
async def test_the_first_write_holds_the_end(pair: Pair) -> None:
    w = Dying(pair, ok(SENTENCE), ok(), mode="buffer")
    said = await w.ask()
    assert (said.text, said.whole) == (SENTENCE, True)
    assert b"end_turn" in w.caller.pieces[0] or b'"stop"' in w.caller.pieces[0]


async def test_a_block_in_a_buffered_stream_is_told_as_if_nothing_was_said() -> None:
    text = SENTENCE + " And the launch code."
    w = Dying("chat", ok(text), ok(), mode="buffer", packs=[pack(BLOCK_RULE)])
    caller = await w.sent()
    assert caller.status == 400 or b"launch" not in caller.received
    assert SENTENCE.encode()[:9] not in caller.received
    assert w.world.record.outcome == "blocked"


# --- early headers


class Waiting:
    """One request whose endpoints are played by hand."""

    def __init__(self, primary: list[Step], spare: list[Step]) -> None:
        self.world: World = world(
            [OPENAI, SPARE],
            scripts={"openai": [primary], "spare": [spare]},
            failover=policy("openai", "spare"),
        )
        self.caller = RecordingDownstream(request_body=BODY)

    async def run(self, *waits_s: float) -> RecordingDownstream:
        """The clock goes on by so much, each time; then everything is played to its end."""
        w = self.world
        inbound = w.inbound("/v1/chat/completions")
        task = spawn(serve(inbound, self.caller, w.gateway), name="caller")
        for wait_s in waits_s:
            for _ in range(30):
                await asyncio.sleep(0)
            w.clock.advance(wait_s)
            w.gateway.early.sweep(w.clock.monotonic())
        self.task = task
        for _ in range(30):
            await asyncio.sleep(0)
        return self.caller

    def goes_on(self, endpoint: str, *steps: Step) -> None:
        sink = self.world.upstreams[endpoint].sinks[-1]
        for step in steps:
            if step is None:
                sink.end()
            elif isinstance(step, bytes):
                sink.data(step)
            elif isinstance(step, TransportFault):
                sink.failed(step)
            else:
                sink.head(*step)


HELLO = chunk({"content": "Hello"})
ANSWER: list[Step] = [(200, SSE), ROLE, HELLO, STOP, DONE, None]


async def test_headers_after_fifteen_seconds_and_a_beat_every_ten() -> None:
    w = Waiting([(200, SSE), b": ping\n\n"], [])
    caller = await w.run(14.9)
    assert caller.head == b""
    w.world.clock.advance(0.2)
    w.world.gateway.early.sweep(w.world.clock.monotonic())
    assert caller.status == 200
    assert caller.header("content-type") == "text/event-stream"
    assert caller.header("x-parapet-request-id")
    for name in ("endpoint", "attempts", "failover"):
        assert caller.header(f"x-parapet-{name}") is None
    assert caller.received == b":\n\n"
    for _ in range(2):
        w.world.clock.advance(10)
        w.world.gateway.early.sweep(w.world.clock.monotonic())
    assert caller.received == b":\n\n" * 3
    w.goes_on("openai", ROLE, HELLO, STOP, DONE, None)
    await w.task
    said = read_chat(caller.received)
    assert (said.text, said.whole, said.comments) == ("Hello", True, 3 + 1)
    w.world.clock.advance(100)
    w.world.gateway.early.sweep(w.world.clock.monotonic())
    assert caller.received.count(b":\n\n") == 3


async def test_the_endpoint_may_still_change() -> None:
    w = Waiting([], ANSWER)
    caller = await w.run(16)
    assert caller.status == 200
    w.goes_on("openai", TransportFault("first_content"))
    await w.task
    said = read_chat(caller.received)
    assert (said.text, said.whole) == ("Hello", True)
    assert w.world.record.failover


FAILURES: list[tuple[str, list[Step]]] = [
    ("transport", [TransportFault("first_content")]),
    ("status", [(503, SSE), None]),
    ("caller", [(400, [(b"content-type", b"application/json")]), b'{"error":{}}', None]),
    ("unary", [(200, [(b"content-type", b"application/json")]), b'{"choices":[]}', None]),
]


@pytest.mark.parametrize(("name", "fails"), FAILURES, ids=[row[0] for row in FAILURES])
async def test_fo_44_a_failure_is_told_in_band(name: str, fails: list[Step]) -> None:
    w = Waiting([], fails)
    caller = await w.run(16)
    w.goes_on("openai", TransportFault("first_content"))
    await w.task
    said = read_chat(caller.received)
    assert said.error is not None
    assert (said.whole, caller.cut, caller.status) == (False, True, 200)
    assert w.world.record.status_code == 200


async def test_whoever_wants_no_stream_waits_in_silence() -> None:
    w = Waiting([], [])
    w.caller.request_body = BODY.replace(b',"stream":true', b"")
    caller = await w.run(60)
    assert caller.head == b""
    w.task.cancel()


# --- limits


@pytest.mark.parametrize("noise", [b": ping\n\n", ROLE])
async def test_fo_42_pings_and_empty_events_extend_nothing(noise: bytes) -> None:
    w = Waiting([(200, SSE)], [])
    await w.run()
    call = w.world.upstreams["openai"].calls[0]
    due = call.due
    for _ in range(5):
        w.world.clock.advance(1)
        w.goes_on("openai", noise)
    assert (call.due, call.phase) == (due, "first_content")
    w.goes_on("openai", HELLO)
    due = call.due
    for _ in range(5):
        w.world.clock.advance(1)
        w.goes_on("openai", b": ping\n\n")
    assert (call.due, call.phase) == (due, "idle")
    w.task.cancel()


async def test_fo_43_who_reads_nothing_is_cut_and_blames_nobody() -> None:
    w = Waiting([(200, SSE), ROLE, HELLO], [])
    await w.run()
    w.goes_on("openai", TransportFault("caller", response_bytes=10))
    await w.task
    record = w.world.record
    assert record.outcome == "client_cancelled"
    assert [each.outcome for each in record.attempts] == [Outcome.CANCELLED]
    assert len(w.world.upstreams["spare"].sent) == 0
    standing = w.world.gateway.rules().workspaces["default"].routes["chat"].standing
    assert standing is not None
    n = standing.breakers["openai"].window.totals
    assert (n[fields.OUTCOMES], n[fields.ERRORS], n[fields.SLOW]) == (0, 0, 0)


@EVERY_PAIR
async def test_fo_41_a_first_answer_that_was_held_whole_leaves_no_trace(pair: Pair) -> None:
    dies = ok(pieces=["launch", " cod"]).cut(after=2)
    w = Dying(pair, dies, ok("All is well."), packs=[pack(BLOCK_RULE)], prefill=False)
    said = await w.ask()
    assert (said.text, said.whole, w.asked) == ("All is well.", True, (1, 1))
    assert w.recoveries == []
