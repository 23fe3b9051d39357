"""Limits of keys and routes on the way of a request: headers, refusals, what its end settles."""

import asyncio
import hashlib
import json

import pytest
from pydantic import ValidationError

from proxy.gateway.limits import limited_names
from proxy.gateway.pipeline import serve
from proxy.model.events import BUDGET_EXCEEDED, RATE_LIMITED
from proxy.model.exchange import Json, RawHeaders
from proxy.model.observations import LimitReached, RequestFinished
from proxy.model.ports import TransportFault
from proxy.model.tenancy import ApiKey, Endpoint, Limits, Price, Route
from proxy.runtime.tasks import spawn
from proxy.wire.failures import read_error
from tests.kit.builders import BLOCK_RULE, JSON, OPENAI, SSE, World, pack, world
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.shapes import DONE, ROLE, STOP, STREAM, chunk

SECRET = "s" * 40
AS_TEAM: RawHeaders = [(b"authorization", b"Bearer ppt_team_" + SECRET.encode())]
PREFIX = "x-parapet-ratelimit-"


def asking(**more: object) -> bytes:
    said = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], **more}
    return json.dumps(said).encode()


BODY = asking()
ASKED = 6  # tokens of it, by estimate: four of the message, two of its text


def ok(prompt: int = 5, completion: int = 2) -> list[Step]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    message = {"role": "assistant", "content": "hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return [(200, JSON), json.dumps({"choices": [choice], "usage": usage}).encode(), None]


def limited(
    *scripts: list[Step],
    route: Limits | None = None,
    key: Limits | None = None,
    endpoint: Endpoint = OPENAI,
    **more: object,
) -> World:
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    keys = [ApiKey(id="team", secret_sha256=digest, limits=key)] if key is not None else []
    chat = Route(id="chat", endpoint=endpoint.id, limits=route or Limits(), **more)  # type: ignore[arg-type]
    packs = [pack(BLOCK_RULE)] if more else []
    return world([endpoint], scripts={endpoint.id: scripts}, routes=[chat], keys=keys, packs=packs)


def told(caller: RecordingDownstream, unit: str) -> tuple[str | None, ...]:
    return tuple(
        caller.header(f"{PREFIX}{part}-{unit}") for part in ("limit", "remaining", "reset")
    )


def under_way(w: World) -> list[int]:
    names = limited_names(w.gateway.rules())
    meters = [w.gateway.limiter.known(name) for name in names]
    return [meter.under_way for meter in meters if meter is not None]


# --- headers


async def test_without_limits_nothing_is_said_and_nothing_is_kept() -> None:
    w = limited(ok())
    caller = await w.ask(BODY)
    assert caller.status == 200
    assert PREFIX.encode() not in caller.head
    assert repr(w.gateway.limiter) == "<Limiter of 0 meters>"


async def test_a_whole_answer_says_what_is_left() -> None:
    w = limited(ok(), ok(), route=Limits(rpm=10, tpm=600))
    caller = await w.ask(BODY)
    assert told(caller, "requests") == ("10", "9", "6s")
    assert told(caller, "tokens") == ("600", str(600 - ASKED), "600ms")
    caller = await w.ask(BODY)
    assert told(caller, "requests") == ("10", "8", "12s")
    assert told(caller, "tokens") == ("600", str(600 - 7 - ASKED), "1.3s")


async def test_a_stream_says_it_too_and_holds_its_place_until_its_end() -> None:
    script: list[Step] = [(200, SSE), ROLE, chunk({"content": "one"})]
    w = limited(script, ok(), route=Limits(rpm=10, concurrency=1))
    caller = RecordingDownstream(request_body=STREAM)
    task = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="caller")
    for _ in range(20):
        await asyncio.sleep(0)
    assert told(caller, "requests") == ("10", "9", "6s")
    second = await w.ask(BODY)
    assert (second.status, under_way(w)) == (429, [1])
    assert b'"concurrency_exceeded"' in second.received
    assert b"route chat: 1 requests at a time" in second.received
    sink = w.upstreams["openai"].sinks[0]
    for piece in (STOP, DONE):
        sink.data(piece)
    sink.end()
    await task
    assert under_way(w) == [0]
    assert (await w.ask(BODY)).status == 200


async def test_of_key_and_route_the_tighter_is_told() -> None:
    w = limited(ok(), ok(), route=Limits(rpm=10), key=Limits(rpm=2, tpm=1000))
    for remaining in ("1", "0"):
        caller = await w.ask(BODY, headers=AS_TEAM)
        assert told(caller, "requests")[:2] == ("2", remaining)
        assert told(caller, "tokens")[0] == "1000"
    caller = await w.ask(BODY, headers=AS_TEAM)
    assert caller.status == 429
    assert b"key team: 2 requests a minute" in caller.received
    assert w.gateway.limiter.known(("route", "default", "chat")) is not None


async def test_what_is_answered_here_counts_and_says_it() -> None:
    w = limited(route=Limits(rpm=1, tpm=5))
    caller = await w.ask(BODY, "/anthropic/v1/messages/count_tokens")
    assert told(caller, "requests") == ("1", "0", "1m0s")
    assert told(caller, "tokens") == ("5", "5", "0s")


# --- refusals


async def test_the_vector_of_ten_in_a_minute() -> None:
    w = limited(*[ok() for _ in range(11)], route=Limits(rpm=10))
    for number in range(10):
        caller = await w.ask(BODY)
        seconds = (number + 1) * 6
        reset = f"{seconds}s" if seconds < 60 else "1m0s"
        assert (caller.status, told(caller, "requests")) == (200, ("10", f"{9 - number}", reset))
    w.notes.seen.clear()
    for _ in range(2):
        caller = await w.ask(BODY)
        assert caller.status == 429
        assert caller.header("retry-after") == "6"
        assert told(caller, "requests") == ("10", "0", "1m0s")
    assert len(w.upstreams["openai"].sent) == 10
    w.clock.advance(6)
    assert (await w.ask(BODY)).status == 200


async def test_a_refusal_is_recorded_and_told_by_whom() -> None:
    w = limited(ok(), route=Limits(rpm=1))
    await w.ask(BODY)
    events: list[tuple[str, dict[str, Json]]] = []
    w.gateway.event = lambda workspace_id, kind, route_id, payload: events.append((kind, payload))
    w.notes.seen.clear()
    for _ in range(3):
        await w.ask(BODY)
    records = [what.record for what in w.notes.seen if isinstance(what, RequestFinished)]
    assert [(r.outcome, r.status_code, r.attempts) for r in records] == [
        ("rate_limited", 429, [])
    ] * 3
    assert (records[0].error_class, records[0].error_code) == ("rate_limit", "rate_limit_exceeded")
    assert "route chat: 1 requests a minute" in (records[0].error_message or "")
    reached = [what for what in w.notes.seen if isinstance(what, LimitReached)]
    assert reached == [LimitReached("default", "route", "rpm")] * 3
    assert events == [
        (RATE_LIMITED, {"limit": 1, "window_seconds": 60, "scope": "route",
                        "retry_after_seconds": 60, "id": "chat", "kind": "rpm"}),
    ]  # fmt: skip


async def test_a_refusal_in_the_words_of_anthropic() -> None:
    w = limited(route=Limits(rpm=1))
    await w.ask(BODY, "/anthropic/v1/messages/count_tokens")
    caller = await w.ask(asking(max_tokens=5), "/anthropic/v1/messages")
    assert caller.status == 429
    said = json.loads(caller.received)
    assert (said["type"], said["error"]["type"]) == ("error", "rate_limit_error")
    assert caller.header("retry-after") == "60"


async def test_other_proxies_of_ours_can_read_the_wait() -> None:
    w = limited(ok(), ok(), route=Limits(rpm=2))
    await w.ask(BODY)
    await w.ask(BODY)
    caller = await w.ask(BODY)
    lines = [line.split(": ", 1) for line in caller.head.decode().split("\r\n") if line]
    headers = [(name.encode(), value.encode()) for name, value in lines]
    seen = read_error("openai", caller.status, headers, caller.received, w.clock.now_ms())
    assert seen.retry_after_s == 30


# --- tokens


# fmt: off
RESERVED = [
    # what the request promises              reserved of 1000
    ({},                                       ASKED),
    ({"max_tokens": 100},                      ASKED + 100),
    ({"max_completion_tokens": 50, "max_tokens": 100}, ASKED + 50),
    ({"max_tokens": 100, "n": 2},              ASKED + 200),
    ({"max_tokens": 10**15},                   ASKED + 250),  # at most a quarter
    ({"max_tokens": 10**15, "n": 10**15},      ASKED + 250),
    ({"max_tokens": -5, "n": -1},              ASKED),
    ({"max_tokens": True},                     ASKED),
    ({"max_tokens": "many", "n": {}},          ASKED),
    ({"max_tokens": 1e300},                    ASKED),
]
# fmt: on


@pytest.mark.parametrize(("promise", "reserved"), RESERVED)
async def test_what_is_reserved(promise: dict[str, object], reserved: int) -> None:
    w = limited(ok(), route=Limits(tpm=1000))
    caller = await w.ask(asking(**promise))
    assert told(caller, "tokens")[1] == str(1000 - reserved)
    w.upstreams["openai"]._scripts.append(ok())
    caller = await w.ask(BODY)
    assert told(caller, "tokens")[1] == str(1000 - 7 - ASKED)  # what was used, and no more


async def test_an_answer_longer_than_promised_is_owed() -> None:
    w = limited(ok(5, 1195), ok(), route=Limits(tpm=600))
    await w.ask(BODY)
    caller = await w.ask(BODY)
    assert (caller.status, caller.header("retry-after")) == (429, "61")
    assert caller.header("x-should-retry") == "false"
    assert told(caller, "tokens") == ("600", "0", "2m0s")
    w.clock.advance(61)
    assert (await w.ask(BODY)).status == 200


@pytest.mark.parametrize("member", ["rpm", "tpm", "concurrency", "daily_cost_usd"])
@pytest.mark.parametrize("value", [0, -1, 2**53 + 1, 10**30, 1e30, float("inf"), float("nan"), "x"])
def test_a_limit_that_is_none_is_refused(member: str, value: object) -> None:
    if member == "daily_cost_usd" and value in (2**53 + 1, 10**30, 1e30):
        return
    with pytest.raises(ValidationError):
        Limits.model_validate({member: value})


async def test_the_greatest_limits_hold_nobody_up() -> None:
    most = Limits(rpm=2**53, tpm=2**53, concurrency=2**53, daily_cost_usd=1e300)
    w = limited(*[ok() for _ in range(5)], route=most)
    for _ in range(5):
        assert (await w.ask(BODY)).status == 200


# --- whatever the end, nothing is kept


CUT: list[Step] = [(200, SSE), ROLE, chunk({"content": "one"}), TransportFault("reset")]
BROKEN: list[Step] = [(500, JSON), b'{"error":{"message":"oh"}}', None]
# fmt: off
ENDS = [
    # name            script       body                           status  tokens used
    ("success",       ok(),        BODY,                            200,  7),
    ("error",         BROKEN,      BODY,                            500,  0),
    ("refused",       [TransportFault("connect")], BODY,            502,  0),
    ("stream",        [(200, SSE), ROLE, chunk({"content": "one"}), STOP, DONE, None],
                                   asking(stream=True),             200,  None),
    ("cut",           CUT,         asking(stream=True),             200,  None),
    ("blocked",       ok(),        asking(messages=[{"role": "user", "content": "launch code"}]),
                                                                    400,  0),
]
# fmt: on


@pytest.mark.parametrize(
    ("name", "script", "body", "status", "used"), ENDS, ids=[row[0] for row in ENDS]
)
async def test_every_end_gives_its_place_back(
    name: str, script: list[Step], body: bytes, status: int, used: int | None
) -> None:
    w = limited(script, ok(), route=Limits(tpm=1000, concurrency=1), policy_packs=["test-pack"])
    caller = await w.ask(body)
    assert (caller.status, under_way(w)) == (status, [0])
    caller = await w.ask(BODY)
    assert caller.status == 200
    if used is not None:
        assert told(caller, "tokens")[1] == str(1000 - used - ASKED)


@pytest.mark.parametrize("steps", [0, 1, 3, 6, 20])
async def test_a_caller_who_leaves_gives_his_place_back(steps: int) -> None:
    script: list[Step] = [(200, SSE), ROLE, chunk({"content": "one"})]
    w = limited(script, route=Limits(concurrency=1, tpm=1000))
    caller = RecordingDownstream(request_body=STREAM)
    task = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="caller")
    for _ in range(steps):
        await asyncio.sleep(0)
    caller.gone = True
    task.cancel()
    while not task.done():
        await asyncio.sleep(0)
        for sink in w.upstreams["openai"].sinks:
            sink.failed(TransportFault("caller"))
    assert under_way(w) in ([], [0])


async def test_a_bug_gives_its_place_back() -> None:
    w = limited(ok(), route=Limits(concurrency=1))

    def broken(_: object) -> None:
        raise RuntimeError("oh")

    w.gateway.line_of = broken  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        await w.ask(BODY)
    assert under_way(w) == [0]


# --- a day's cost


async def test_a_budget_is_refused_until_midnight() -> None:
    priced = OPENAI.model_copy(update={"pricing": Price(input_per_mtok="10", output_per_mtok="10")})
    w = limited(ok(5, 95), ok(), ok(), route=Limits(daily_cost_usd=0.001), endpoint=priced)
    events: list[tuple[str, dict[str, Json]]] = []
    w.gateway.event = lambda workspace_id, kind, route_id, payload: events.append((kind, payload))
    assert (await w.ask(BODY)).status == 200
    caller = await w.ask(BODY)
    left_s = 86_400 - w.clock.now_ms() // 1000 % 86_400
    assert (caller.status, caller.header("retry-after")) == (429, str(left_s))
    assert caller.header("x-should-retry") == "false"
    assert json.loads(caller.received)["error"]["code"] == "daily_budget_exceeded"
    budget = {"budget_id": "route/chat", "limit": 0.001, "used": 0.001, "period": "day"}
    assert events == [(BUDGET_EXCEEDED, budget)]
    w.clock.advance(left_s)
    assert (await w.ask(BODY)).status == 200
