"""Who is asked and who is skipped, with which reason; what is told when nobody is left
(failover.md §6, §8.4, §8.6)."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from proxy.model.exchange import RawHeaders
from proxy.model.failover import FailoverPolicy, Recovery
from proxy.model.observations import RetryBudgetSpent
from proxy.model.ports import TransportFault
from proxy.model.tenancy import Endpoint, Timeouts
from proxy.routing.effects import Switched
from proxy.routing.standing import Standing
from proxy.routing.states import Reason, State
from proxy.runtime.tasks import spawn
from tests.kit.builders import ANTHROPIC, BEDROCK, JSON, OPENAI, SPARE, World, policy, world
from tests.kit.fakes import RecordingDownstream, Step

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}'
MESSAGE = b'{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}'
EMBED = b'{"model":"embed","input":"hello"}'
PINNED = (
    b'{"model":"gpt-4o","messages":[{"role":"user","content":'
    b'[{"type":"file","file":{"file_id":"file-1"}}]}]}'
)
OK: list[Step] = [(200, JSON), b'{"choices":[],"model":"m"}', None]
BAD: list[Step] = [(500, JSON), b'{"error":{"message":"oh"}}', None]
LONG: list[Step] = [
    (400, JSON), b'{"error":{"message":"too long","code":"context_length_exceeded"}}', None,
]  # fmt: skip
DEAD: list[Step] = [TransportFault("connect")]
SILENT: list[Step] = []
NO_KEY = {"api_key": None}


def limited(*hint: str) -> list[Step]:
    headers: RawHeaders = [*JSON, *((b"retry-after", each.encode()) for each in hint)]
    return [(429, headers), b'{"error":{"message":"slow down"}}', None]


def between(
    primary: Sequence[Sequence[Step]],
    spare: Sequence[Sequence[Step]] = (),
    endpoints: Sequence[Endpoint] = (OPENAI, SPARE),
    timeouts: Timeouts | None = None,
    said: FailoverPolicy | None = None,
    **more: object,
) -> World:
    first, *others = [each.id for each in endpoints]
    scripts = {first: primary, **dict.fromkeys(others, spare)}
    said = said or policy(first, *others, **more)
    return world(endpoints, scripts=scripts, failover=said, timeouts=timeouts)


async def asked(
    w: World, body: bytes = CHAT, path: str = "/v1/chat/completions"
) -> tuple[RecordingDownstream, float]:
    """One request, and how long it took on a clock that goes on by itself."""
    began = w.clock.monotonic()
    task = spawn(w.ask(body, path), name="caller")
    while not task.done():
        for _ in range(20):
            await asyncio.sleep(0)
        if not task.done():
            w.clock.advance(0.05)
            w.gateway.flights.sweep()
            for fake in w.upstreams.values():  # as the sweeper of the transport does it
                for call, sink in zip(fake.calls, fake.sinks, strict=True):
                    if call.due <= w.clock.monotonic() and not call.cancelled:
                        call.cancelled = True
                        sink.failed(TransportFault(call.phase))
    return await task, w.clock.monotonic() - began


def standing(w: World) -> Standing:
    found = w.gateway.rules().workspaces["default"].routes["chat"].standing
    assert found is not None
    return found


def sent(w: World) -> list[int]:
    return [len(each.sent) for each in w.upstreams.values()]


def skipped(w: World) -> list[tuple[str, str]]:
    (decision,) = w.record.decisions
    return decision.skipped


def opened(w: World, name: str, *, state: State = State.OPEN) -> None:
    """As it is after a trip, and, where told so, after its cool-down."""
    breaker, now = standing(w).breakers[name], w.clock.monotonic()
    if state is State.FORCED_OPEN:
        breaker.force(now, closed=False, ttl_s=60)
        return
    breaker.open(now, Reason("error_rate"))
    breaker.until = now + 9
    if state in (State.PROBING, State.RAMP):
        breaker.tick(now + 9)
        assert breaker.state is State.PROBING


def larger(tokens: int | None) -> Endpoint:
    return SPARE.model_copy(update={"max_context": tokens})


# --- each reason, told in the decision

THIRD = SPARE.model_copy(update={"id": "third", "base_url": "http://127.0.0.1:5/v1"})


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State.FORCED_OPEN, "forced"),
        (State.OPEN, "open"),
        (State.PROBING, "probing"),
    ],
)
async def test_who_does_not_admit_is_skipped(state: State, reason: str) -> None:
    w = between([BAD], [OK], [OPENAI, SPARE, THIRD])
    opened(w, "spare", state=state)
    standing(w).breakers["spare"].permit(w.clock.monotonic(), 10)  # somebody probes it
    caller, _ = await asked(w)
    assert (caller.status, sent(w)) == (200, [1, 0, 1])
    assert skipped(w) == [("openai", "tried"), ("spare", reason)]


async def test_one_that_ramps_takes_its_share() -> None:
    w = between([BAD] * 100, [OK] * 100, [OPENAI, SPARE, THIRD])
    opened(w, "spare")
    breaker = standing(w).breakers["spare"]
    breaker.state, breaker.since = State.RAMP, w.clock.monotonic()
    seen = set()
    for _ in range(20):
        standing(w).breakers["openai"].release(w.clock.monotonic())
        opened(w, "openai")
        caller, _ = await asked(w)
        seen.add(caller.header("x-parapet-endpoint"))
    assert seen == {"spare", "third"}


async def test_one_that_is_held_is_skipped_by_its_key_and_model() -> None:
    w = between([limited("60"), OK], [OK] * 3)
    await asked(w)
    assert skipped(w) == [("openai", "tried")]
    caller, _ = await asked(w)
    assert (caller.status, sent(w)) == (200, [1, 2])
    other = CHAT.replace(b"gpt-4o", b"gpt-4.1")
    caller, _ = await asked(w, other)  # the hold is that of a model
    assert sent(w) == [2, 2]


@pytest.mark.parametrize(
    ("endpoints", "body", "path", "reason"),
    [
        ((OPENAI, SPARE.model_copy(update=NO_KEY), THIRD), CHAT, "chat/completions",
         "no_credential"),
        ((OPENAI, BEDROCK, THIRD), CHAT, "chat/completions", "cannot express"),
        ((OPENAI, SPARE.model_copy(update={"models": {"embed": "other-embed"}}), THIRD), EMBED,
         "embeddings", "different_embedding_model"),
    ],
)  # fmt: skip
async def test_t_fo_33_who_cannot_take_it_is_skipped(
    endpoints: Sequence[Endpoint], body: bytes, path: str, reason: str
) -> None:
    embedded: list[Step] = [(200, JSON), b'{"object":"list","data":[],"model":"embed"}', None]
    w = between([BAD], [embedded if body is EMBED else OK], endpoints)
    caller, _ = await asked(w, body, f"/v1/{path}")
    assert (caller.status, sent(w)) == (200, [1, 0, 1])
    (first, second) = skipped(w)
    assert first == ("openai", "tried")
    assert second[1].startswith(reason)


async def test_embeddings_of_one_model_under_two_names() -> None:
    mapped = SPARE.model_copy(update={"models": {"embed": "openai/Text-Embedding-3"}})
    first = OPENAI.model_copy(update={"models": {"embed": "text-embedding-3"}})
    embedded: list[Step] = [(200, JSON), b'{"object":"list","data":[],"model":"e"}', None]
    w = between([BAD], [embedded], [first, mapped])
    caller, _ = await asked(w, EMBED, "/v1/embeddings")
    assert (caller.status, sent(w)) == (200, [1, 1])


async def test_t_sec_08_a_callers_key_goes_to_no_other_host() -> None:
    first = OPENAI.model_copy(update=NO_KEY)
    twin = SPARE.model_copy(update={**NO_KEY, "base_url": OPENAI.base_url})
    for fallback, attempts in ((SPARE.model_copy(update=NO_KEY), [1, 0]), (twin, [1, 1])):
        w = between([BAD], [OK], [first, fallback])
        headers: RawHeaders = [*JSON, (b"authorization", b"Bearer sk-callers")]
        caller = await w.ask(CHAT, headers=headers)
        assert sent(w) == attempts
        assert caller.status == (200 if attempts[1] else 502)


@pytest.mark.parametrize(
    ("own", "other", "attempts"),
    [
        (None, None, [1, 0]),
        (None, 100, [1, 1]),
        (100, 100, [1, 0]),
        (100, 200, [1, 1]),
        (200, 100, [1, 0]),
    ],
)
async def test_s12_too_long_goes_to_a_larger_one_only(
    own: int | None, other: int | None, attempts: list[int]
) -> None:
    first = OPENAI.model_copy(update={"max_context": own})
    w = between([LONG], [OK], [first, larger(other)])
    caller, _ = await asked(w)
    assert sent(w) == attempts
    if attempts[1]:
        (decision,) = w.record.decisions
        assert decision.reason_code == "context_window"
        assert decision.trigger_condition == "context_length_exceeded"
    else:
        assert caller.status == 400
        assert b"context_length_exceeded" in caller.received
        assert caller.header("x-should-retry") == "false"


async def test_larger_than_the_one_that_failed_though_another_was_asked_since() -> None:
    endpoints = [
        OPENAI.model_copy(update={"max_context": 100}),
        larger(300),
        THIRD.model_copy(update={"max_context": 50}),
    ]
    w = between([LONG], [BAD], endpoints)
    caller, _ = await asked(w)
    assert (caller.status, sent(w)) == (400, [1, 1, 0])


# --- what is bound to the primary


async def test_t_fo_33_pinned_goes_to_the_primary_whatever_its_breaker_says() -> None:
    w = between([BAD, BAD, OK], [OK], same_endpoint_retries=1)
    caller, _ = await asked(w, PINNED)
    assert (caller.status, sent(w)) == (502, [2, 0])
    w.notes.seen.clear()
    opened(w, "openai")
    caller, _ = await asked(w, PINNED)
    assert (caller.status, sent(w)) == (200, [3, 0])
    caller, _ = await asked(w)
    assert sent(w) == [3, 1]


@pytest.mark.parametrize("first", [BAD, limited("1")], ids=["once more", "after a hold"])
async def test_pinned_is_asked_once_more_though_it_opens_meanwhile(first: list[Step]) -> None:
    w = between([first, OK], [OK], same_endpoint_retries=1)
    caller = spawn(w.ask(PINNED), name="caller")
    for _ in range(20):
        await asyncio.sleep(0)
    opened(w, "openai")
    for _ in range(130):
        w.clock.advance(0.01)
        for _ in range(20):
            await asyncio.sleep(0)
    assert caller.done()
    assert ((await caller).status, sent(w)) == (200, [2, 0])


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/responses", "/v1/fine_tuning/x"])
async def test_a_call_that_makes_something_is_never_sent_on(path: str) -> None:
    w = between([BAD, OK], [OK])
    caller, _ = await asked(w, b"{}", path)
    assert (caller.status, sent(w)) == (502, [1, 0])
    opened(w, "openai")
    await asked(w, b"{}", path)
    assert sent(w) == [2, 0]


# --- nobody is left


async def test_a_fallback_that_nobody_has_asked_for_long_takes_all_when_it_is_the_last() -> None:
    w = between([], [SILENT] * 3)
    opened(w, "spare", state=State.PROBING)
    w.clock.advance(60)
    opened(w, "openai")
    callers = [spawn(w.ask(CHAT), name=f"caller {n}") for n in range(3)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert sent(w) == [0, 3]  # one is the probe, the others have nowhere else to go
    for sink in w.upstreams["spare"].sinks:
        sink.head(200, JSON)
        sink.data(b'{"choices":[]}')
        sink.end()
    assert [(await each).status for each in callers] == [200] * 3


async def test_one_whose_probes_have_just_failed_does_not() -> None:
    w = between([], [SILENT])
    opened(w, "spare", state=State.PROBING)
    opened(w, "openai")
    first = spawn(w.ask(CHAT), name="probe")
    for _ in range(50):
        await asyncio.sleep(0)
    caller, took_s = await asked(w)
    assert (caller.status, took_s, sent(w)) == (503, 0, [0, 1])
    first.cancel()


async def test_one_that_ramps_takes_all_when_it_is_the_last() -> None:
    w = between([], [OK] * 20)
    opened(w, "openai")
    opened(w, "spare")
    breaker = standing(w).breakers["spare"]
    breaker.state, breaker.since = State.RAMP, w.clock.monotonic()
    for _ in range(20):
        assert (await asked(w))[0].status == 200
    assert sent(w) == [0, 20]


# fmt: off
DIALECTS = [
    # endpoint  body     path                    status  words
    (OPENAI,    CHAT,    "/v1/chat/completions", 503,    b"failover_exhausted"),
    (ANTHROPIC, MESSAGE, "/v1/messages",         529,    b"overloaded_error"),
]
# fmt: on


@pytest.mark.parametrize(("primary", "body", "path", "status", "words"), DIALECTS)
async def test_r24_fail_fast_says_until_when_in_the_callers_dialect(
    primary: Endpoint, body: bytes, path: str, status: int, words: bytes
) -> None:
    other = primary.model_copy(update={"id": "other"})
    w = between([], [], [primary, other])
    opened(w, primary.id)
    opened(w, "other")
    standing(w).breakers["other"].until -= 4
    caller, took_s = await asked(w, body, path)
    assert (caller.status, took_s, sent(w)) == (status, 0, [0, 0])
    assert words in caller.received
    assert caller.header("retry-after") == "5"
    assert caller.header("x-should-retry") == "false"


async def test_that_nobody_is_left_is_told_once_and_not_for_each_request() -> None:
    w = between([DEAD] * 3, [DEAD] * 3)
    for _ in range(10):
        await asked(w)
    ends = [e for e in w.notes.effects if isinstance(e, Switched) and e.after is None]
    assert (len(ends), sent(w)) == (1, [3, 3])


async def test_try_primary_asks_it_as_if_nothing_were_known() -> None:
    said = policy("openai", "spare").model_copy(update={"on_exhausted": "try_primary"})
    w = between([OK, BAD], [], said=said)
    opened(w, "openai")
    opened(w, "spare")
    assert (await asked(w))[0].status == 200
    caller, _ = await asked(w)
    assert (caller.status, sent(w)) == (502, [2, 0])


async def test_try_primary_does_not_ask_what_an_operator_has_closed() -> None:
    said = policy("openai", "spare").model_copy(update={"on_exhausted": "try_primary"})
    w = between([OK], [], said=said)
    opened(w, "openai", state=State.FORCED_OPEN)
    opened(w, "spare")
    assert (await asked(w))[0].status == 503


async def test_all_limit_the_smallest_wait_is_told() -> None:
    w = between([limited("30")], [limited("20")])
    for attempts in ([1, 1], [1, 1]):  # first by their answers, then by their holds
        caller, _ = await asked(w)
        assert (caller.status, sent(w)) == (429, attempts)
        assert caller.header("retry-after") == "20"
        assert caller.header("x-should-retry") == "false"
    w.clock.advance(5)
    caller, _ = await asked(w)
    assert caller.header("retry-after") == "15"


async def test_without_a_hint_the_hold_is_told() -> None:
    w = between([limited()], [limited()])
    caller, _ = await asked(w)
    assert (caller.status, caller.header("retry-after")) == (429, "2")


async def test_a_credential_of_ours_that_is_refused_is_no_401() -> None:
    refused: list[Step] = [(401, JSON), b'{"error":{"message":"no such key"}}', None]
    w = between([refused], [refused])
    caller, _ = await asked(w)
    assert (caller.status, sent(w)) == (502, [1, 1])
    assert caller.header("x-should-retry") == "false"


async def test_out_of_budget_is_told_and_counted() -> None:
    w = between([BAD], [], same_endpoint_retries=1, budget_percent=0, min_concurrency=0)
    opened(w, "spare")
    caller, _ = await asked(w)
    assert (caller.status, sent(w)) == (502, [1, 0])
    assert caller.header("x-parapet-retry") == "budget"
    assert RetryBudgetSpent("test-failover") in w.notes.seen


async def test_t_fo_34_three_that_hang_end_with_the_total_deadline() -> None:
    w = between(
        [SILENT], [SILENT], [OPENAI, SPARE, THIRD],
        Timeouts(total_ms=5000, first_content_ms=2000),
    )  # fmt: skip
    streamed = json.dumps({**json.loads(CHAT), "stream": True}).encode()
    caller, took_s = await asked(w, streamed)
    assert caller.status == 504
    assert took_s <= 5.1


async def test_the_policys_own_deadline_is_told_as_it_is() -> None:
    w = between([SILENT], [OK], total_deadline_ms=1000)
    caller, took_s = await asked(w)
    assert took_s <= 1.1
    assert b"total > 1000ms" in caller.received


@pytest.mark.parametrize("first", [[BAD], [limited("2")]])
async def test_t_fo_31_nothing_more_is_sent_for_who_has_left_while_waiting(
    first: list[list[Step]],
) -> None:
    w = between(first, [OK], same_endpoint_retries=1)
    task = spawn(w.ask(CHAT), name="caller")
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    for _ in range(50):
        w.clock.advance(0.1)
        await asyncio.sleep(0)
    assert sent(w) == [1, 0]
    assert standing(w).budget.in_flight == 0


async def test_t_fo_31_a_charged_attempt_that_is_left_is_free_for_others() -> None:
    w = between([BAD, SILENT], [OK], same_endpoint_retries=1)
    task = spawn(w.ask(CHAT), name="caller")
    for _ in range(50):
        w.clock.advance(0.01)
        await asyncio.sleep(0)
    assert standing(w).budget.charged == 1
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert w.upstreams["openai"].calls[-1].cancelled
    assert (standing(w).budget.charged, standing(w).budget.in_flight) == (0, 0)


async def test_a_probe_takes_twice_the_threshold_at_most_and_is_not_repeated() -> None:
    said = policy("openai", "spare", same_endpoint_retries=1)
    said = said.model_copy(update={"recovery": Recovery(max_cooldown_seconds=5)})
    w = between([SILENT], [OK], said=said)
    opened(w, "openai", state=State.PROBING)
    caller, took_s = await asked(w)
    assert (caller.status, sent(w)) == (200, [1, 1])
    assert 3.9 <= took_s <= 4.2
    (decision,) = w.record.decisions
    assert decision.trigger_condition == "unary > 4000ms"
