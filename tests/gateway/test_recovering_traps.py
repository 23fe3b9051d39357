"""Streams that die, and what goes wrong with what goes on with them."""

import asyncio
import json

import pytest

from proxy.gateway.pipeline import serve
from proxy.model.failover import Outcome
from proxy.model.ports import TransportFault
from proxy.runtime.tasks import spawn
from tests.gateway.recovering import SENTENCE, cut_after
from tests.kit.builders import BLOCK_RULE, OPENAI, SPARE, SSE, World, pack, policy, world
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.reading import read_chat
from tests.kit.replies import Script, ok, status
from tests.kit.replying import Replying
from tests.kit.shapes import DONE, ROLE, STOP, STREAM, chunk

HELLO = chunk({"content": "Hello"})
CUT = TransportFault("eof", response_bytes=9)
DIES: list[Step] = [(200, SSE), ROLE, HELLO, CUT]
NOBODYS = SPARE.model_copy(update={"api_key": None})  # it takes no request of this caller


def alone(script: Script, *, prefill: bool) -> tuple[World, Replying]:
    """A primary whose fallback takes nothing."""
    own = OPENAI.model_copy(update={"supports_prefill": prefill})
    upstream = Replying(script)
    made = world([own, NOBODYS], failover=policy("openai", "spare"),
                 upstreams={"openai": upstream, "spare": Replying(ok())})  # fmt: skip
    return made, upstream


async def ask(w: World) -> RecordingDownstream:
    """One request to its end, while the time goes on."""
    caller = RecordingDownstream(request_body=STREAM)
    task = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="caller")
    for _ in range(100):
        for _ in range(20):
            await asyncio.sleep(0)
        w.clock.advance(0.01)
    assert task.done()
    await task
    return caller


@pytest.mark.parametrize("prefill", [True, False])
async def test_the_same_endpoint_goes_on_with_its_own_stream(prefill: bool) -> None:
    w, upstream = alone([cut_after(4), ok(SENTENCE).continuing("exact")], prefill=prefill)
    said = read_chat((await ask(w)).received)
    assert (said.text, said.whole, len(upstream.requests)) == (SENTENCE, True, 2)
    record = w.record
    assert (record.outcome, record.recovered, record.decisions) == ("success", True, [])
    assert not record.failover


async def test_it_refuses_to_go_on_with_its_own_stream_and_is_asked_again() -> None:
    """No switch was made, so there is no decision to correct."""
    w, upstream = alone([cut_after(4), status(400), ok(SENTENCE)], prefill=True)
    said = read_chat((await ask(w)).received)
    assert (said.text, said.whole, len(upstream.requests)) == (SENTENCE, True, 3)
    record = w.record
    assert (record.recovered, record.decisions) == (True, [])


@pytest.mark.parametrize("begins", ["Goodbye, ", "Hello, "])
async def test_another_text_and_a_block_in_one_piece(begins: str) -> None:
    """What the caller has ends in words of his dialect, whichever is found first."""
    pieces = [chunk({"content": text}) for text in (begins, "the launch code")]
    whole = b"".join([ROLE, *pieces, STOP, DONE])
    w = world([OPENAI, SPARE], scripts={"openai": [DIES], "spare": [[(200, SSE), whole, None]]},
              failover=policy("openai", "spare"), packs=[pack(BLOCK_RULE)])  # fmt: skip
    caller = await ask(w)
    said = read_chat(caller.received)
    diverged = begins == "Goodbye, "
    assert said.text == ("Hello" if diverged else "Hello, the ")
    assert (said.error is not None, caller.cut) == (diverged, diverged)
    assert w.record.outcome == ("interrupted" if diverged else "blocked")
    assert diverged or b"content_filter" in caller.received


async def test_a_count_of_tokens_in_every_event_shows_nothing_of_another_answer() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    told = []
    for text in ("", "Hel", "p"):
        event = chunk({"content": text}, id="c2")
        doc = json.loads(event[6:]) | {"usage": usage, "model": "another"}
        told.append(b"data: %b\n\n" % json.dumps(doc).encode())
    w = world([OPENAI, SPARE], scripts={"openai": [DIES], "spare": [[(200, SSE), *told, CUT]]},
              failover=policy("openai", "spare"))  # fmt: skip
    caller = await ask(w)
    assert read_chat(caller.received).error is not None
    assert b"another" not in caller.received


async def test_the_id_is_that_of_the_answer_not_of_what_was_found_in_the_prompt() -> None:
    before = {"id": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}
    first: list[Step] = [(200, SSE), b"data: %b\n\n" % json.dumps(before).encode(),
                         ROLE, HELLO, CUT]  # fmt: skip
    second: list[Step] = [(200, SSE), ROLE, HELLO, chunk({"content": " you"}, id="c2"),
                          STOP, DONE, None]  # fmt: skip
    w = world([OPENAI, SPARE], scripts={"openai": [first], "spare": [second]},
              failover=policy("openai", "spare"))  # fmt: skip
    caller = await ask(w)
    events = [json.loads(line[6:]) for line in caller.received.split(b"\n")
              if line.startswith(b"data: {")]  # fmt: skip
    assert {each["id"] for each in events if each["choices"]} == {events[1]["id"]}
    assert events[1]["id"]
    assert b" you" in caller.received
    assert caller.received.endswith(DONE)


async def test_a_caller_who_leaves_during_the_pause_changes_nothing_of_what_died() -> None:
    made, _ = alone(cut_after(4), prefill=False)
    caller = RecordingDownstream(request_body=STREAM)
    task = spawn(serve(made.inbound("/v1/chat/completions"), caller, made.gateway), name="caller")
    for _ in range(60):
        await asyncio.sleep(0)
    caller.gone = True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    record = made.record
    assert record.outcome == "client_cancelled"
    assert [each.outcome for each in record.attempts] == [Outcome.CUT]
    assert not made.gateway.answers
    assert not made.gateway.flights.under_way


async def test_who_does_not_read_is_not_gone_on_for_by_one_endpoint_after_the_other() -> None:
    stuck: list[Step] = [(200, SSE), ROLE, HELLO, TransportFault("caller", response_bytes=9)]
    third = SPARE.model_copy(update={"id": "third"})
    made = world([OPENAI, SPARE, third], failover=policy("openai", "spare", "third"),
                 scripts={"openai": [[(200, SSE), ROLE, HELLO, chunk({"content": " you"}), CUT]],
                          "spare": [stuck], "third": [stuck]})  # fmt: skip
    await ask(made)
    assert not made.upstreams["third"].sent
    record = made.record
    assert record.outcome == "client_cancelled"
    assert [each.outcome for each in record.attempts] == [Outcome.CUT, Outcome.CANCELLED]
