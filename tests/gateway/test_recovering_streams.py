"""Streams that die after their content went out, and what goes on with them (failover.md §10)."""

import asyncio
import json

import pytest

from proxy.gateway.pipeline import serve
from proxy.model.failover import Outcome
from proxy.model.ports import TransportFault
from proxy.runtime.tasks import spawn
from tests.gateway.recovering import PAIRS, SENTENCE, Dying, Pair, cut_after
from tests.kit.builders import OPENAI, SPARE, SSE, policy, world
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.reading import read_chat
from tests.kit.replies import ok, raw, status
from tests.kit.script import ToolCall
from tests.kit.shapes import ROLE, STREAM, chunk

EVERY_PAIR = pytest.mark.parametrize("pair", PAIRS)


@EVERY_PAIR
@pytest.mark.parametrize("after", [1, 4, 9, 15])
async def test_fo_50_prefill_says_the_whole_text(pair: Pair, after: int) -> None:
    w = Dying(pair, cut_after(after), ok(SENTENCE).continuing("exact"))
    said = await w.ask()
    assert (said.text, said.whole) == (SENTENCE, True)
    last = w.fallback.requests[0].messages[-1]
    given = " ".join(SENTENCE.split(" ")[:after])
    assert (last["role"], last["content"]) == ("assistant", given)
    record = w.world.record
    assert (record.outcome, record.recovered, record.failover) == ("success", True, True)
    (decision,) = record.decisions
    assert (decision.reason_code, decision.recovery) == ("stream_cut", "prefill")
    assert decision.resumed_at_chars == len(given)
    assert decision.trigger_condition == f"stream cut after {len(given)} chars"
    assert w.asked == (1, 1)


@EVERY_PAIR
async def test_fo_51_restart_is_silent_over_what_the_caller_has(pair: Pair) -> None:
    w = Dying(pair, cut_after(5), ok(SENTENCE), prefill=False)
    said = await w.ask()
    assert (said.text, said.whole) == (SENTENCE, True)
    assert w.recoveries == [("restart", "recovered")]
    assert w.world.record.decisions[0].recovery == "restart"


OTHERS = [
    ("first", "A" + SENTENCE[1:]),
    ("middle", SENTENCE.replace("quick", "quack")),
    ("last", SENTENCE.replace("fox", "foz")),
    ("shorter", "The quick"),
]


@EVERY_PAIR
@pytest.mark.parametrize(("where", "other"), OTHERS, ids=[row[0] for row in OTHERS])
async def test_fo_52_p06_divergence_shows_nothing_of_the_second(
    pair: Pair, where: str, other: str
) -> None:
    w = Dying(pair, cut_after(4), ok(other), prefill=False)
    said = await w.ask()
    assert said.text == "The quick brown fox"
    assert said.error is not None
    assert w.caller.cut
    record = w.world.record
    assert (record.outcome, record.recovered, record.error_class) == ("interrupted", False, "cut")


@EVERY_PAIR
async def test_s14_p08_a_refused_continuation_is_a_restart_there(pair: Pair) -> None:
    w = Dying(pair, cut_after(4), ok(SENTENCE).continuing("refused"))
    said = await w.ask()
    assert (said.text, said.whole, w.asked) == (SENTENCE, True, (1, 2))
    assert w.recoveries == [("prefill", "refused"), ("restart", "recovered")]
    record = w.world.record
    assert [each.recovery for each in record.decisions] == ["restart"]
    assert record.attempts[1].outcome is Outcome.CALLER
    said = await w.ask()
    assert (said.whole, w.asked) == (True, (2, 3)), "it is not tried again so soon"
    w.world.clock.advance(601)
    w.world.notes.seen.clear()
    await w.ask()
    assert w.asked == (3, 5)


@EVERY_PAIR
async def test_p04_an_error_inside_the_stream_is_a_cut(pair: Pair) -> None:
    dies = ok(SENTENCE).error_after(5, "rate_limit_error", status=429)
    w = Dying(pair, dies, ok(SENTENCE).continuing("exact"))
    said = await w.ask()
    assert (said.text, said.whole) == (SENTENCE, True)
    record = w.world.record
    assert [each.outcome for each in record.attempts] == [Outcome.CUT, Outcome.SUCCESS]
    assert w.world.gateway.flights.holds


@EVERY_PAIR
async def test_s09_a_stall(pair: Pair) -> None:
    w = Dying(pair, ok(SENTENCE).stall(after=5), ok(SENTENCE).continuing("exact"))
    said = await w.ask()
    assert (said.text, said.whole) == (SENTENCE, True)
    (decision,) = w.world.record.decisions
    assert decision.reason_code == "stream_stall"
    assert decision.trigger_condition == "stream idle > 15000ms"


async def test_s10_an_event_that_cannot_be_missed_is_a_cut() -> None:
    dies = ok(SENTENCE).bad_json(after=5, structural=True)
    for pair in ("messages", "seed"):
        w = Dying(pair, dies, ok(SENTENCE).continuing("exact"))
        said = await w.ask()
        assert (said.text, said.whole, w.asked) == (SENTENCE, True, (1, 1))


@EVERY_PAIR
@pytest.mark.parametrize("prefill", [True, False])
async def test_a_fallback_that_streams_nothing_has_failed(pair: Pair, prefill: bool) -> None:
    w = Dying(pair, cut_after(5), raw(b'{"choices": [], "content": []}'), prefill=prefill)
    said = await w.ask()
    assert (said.whole, w.caller.cut) == (False, True)
    assert said.error is not None
    tried = [str(each.outcome) for each in w.world.record.attempts]
    assert tried[:2] == ["cut", "bad_answer"]


NOT_RESUMABLE = [
    ("chat", ok(SENTENCE, tools=[ToolCall("look", {"a": 1})]).cut(after=17), {}),
    ("chat", ok(SENTENCE, thinking=["hm"]).cut(after=5), {}),
    ("chat", cut_after(5), {"n": 2}),
    ("chat", cut_after(5), {"logprobs": True}),
    ("messages", ok(SENTENCE, tools=[ToolCall("look", {"a": 1})]).cut(after=17), {}),
    ("messages", ok(SENTENCE, thinking=["hm"]).cut(after=5), {}),
]


@pytest.mark.parametrize(("pair", "dies", "more"), NOT_RESUMABLE)
async def test_fo_55_p09_what_cannot_be_resumed(pair: Pair, dies: object, more: object) -> None:
    w = Dying(pair, dies, ok(SENTENCE).continuing("exact"))  # type: ignore[arg-type]
    said = await w.ask(**more)  # type: ignore[arg-type]
    assert said.error is not None
    assert (said.whole, w.caller.cut, w.asked) == (False, True, (1, 0))
    assert w.recoveries == [("none", "not_resumable")]
    assert w.world.record.outcome == "interrupted"


@EVERY_PAIR
async def test_off_is_an_error(pair: Pair) -> None:
    w = Dying(pair, cut_after(5), ok(SENTENCE), mode="off")
    said = await w.ask()
    assert (said.whole, w.asked) == (False, (1, 0))
    assert said.error is not None


@EVERY_PAIR
async def test_it_dies_twice(pair: Pair) -> None:
    """Who has died is asked once more where nothing else admits."""
    w = Dying(pair, cut_after(4), cut_after(8), prefill=False)
    said = await w.ask()
    assert (said.text, said.whole, w.asked) == (SENTENCE[:39], False, (1, 2))
    w = Dying(pair, [cut_after(4), ok(SENTENCE)], status(503))
    said = await w.ask()
    assert (said.text, said.whole, w.asked) == (SENTENCE, True, (2, 1))


@EVERY_PAIR
async def test_fo_58_usage_belongs_to_each_attempt(pair: Pair) -> None:
    w = Dying(pair, cut_after(4), ok(SENTENCE).continuing("exact"))
    said = await w.ask()
    record = w.world.record
    first, second = record.attempts
    assert first.tokens is not None
    assert second.tokens is not None
    assert first.tokens["estimated"] is True
    assert (second.tokens["output"], "estimated" in second.tokens) == (7, False)
    assert record.usage is not None
    assert record.usage.output == first.tokens["output"] + 7
    assert said.usage is not None
    name = "completion_tokens" if pair == "chat" else "output_tokens"
    assert said.usage[name] == 7 + 5, "and the estimate of what the first one said"


async def test_the_output_limit_and_the_callers_own_prefill() -> None:
    w = Dying("messages", cut_after(4), ok(SENTENCE).continuing("exact"))
    mine = [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "So: "}]
    await w.ask(messages=mine, max_tokens=18)
    sent = json.loads(w.fallback.requests[0].body)
    assert sent["messages"][-1]["content"] == "So: The quick brown fox"
    assert sent["max_tokens"] == 16


async def test_the_model_is_that_of_the_endpoint_now_answering() -> None:
    w = Dying("chat", ok(SENTENCE, model="one").cut(after=4),
              ok(SENTENCE, model="two").continuing("exact"))  # fmt: skip
    said = await w.ask()
    assert [*dict.fromkeys(said.models)] == ["one", "two"]
    assert w.world.record.model == "two"


async def test_without_a_policy_nothing_is_kept() -> None:
    w = Dying("chat", cut_after(5), ok(SENTENCE), enabled=False)
    said = await w.ask()
    assert (said.whole, w.asked) == (False, (1, 0))


DIES: list[Step] = [(200, SSE), ROLE, chunk({"content": "Hello"}), *[b":\n\n"] * 5,
                    TransportFault("eof", response_bytes=9)]  # fmt: skip


async def test_the_caller_leaves_while_another_answer_goes_on() -> None:
    hangs: list[Step] = [(200, SSE), ROLE, chunk({"content": "Hello"}), chunk({"content": " you"})]
    w = world([OPENAI, SPARE], scripts={"openai": [DIES], "spare": [hangs]},
              failover=policy("openai", "spare"))  # fmt: skip
    caller = RecordingDownstream(request_body=STREAM)
    task = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="caller")
    for _ in range(60):
        await asyncio.sleep(0)
    assert read_chat(caller.received).text == "Hello you"
    caller.gone = True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert w.upstreams["spare"].calls[0].cancelled
    record = w.record
    assert record.outcome == "client_cancelled"
    assert [each.outcome for each in record.attempts] == [Outcome.CUT, Outcome.CANCELLED]
    assert not w.gateway.answers
    assert not w.gateway.flights.under_way


async def test_a_drain_goes_on_with_nothing() -> None:
    w = world([OPENAI, SPARE], scripts={"openai": [DIES]}, failover=policy("openai", "spare"))
    w.gateway.draining = lambda: True
    caller = await w.ask(STREAM)
    assert read_chat(caller.received).error is not None
    assert not w.upstreams["spare"].sent
