"""Long pieces where more than the rules of texts look at an answer: arguments of tools, answers
judged as a whole, checks outside; and bodies that break while something waits."""

import asyncio
import json
import zlib
from collections.abc import Callable
from typing import TypeVar

import pytest

from proxy.gateway.answer import Answer
from proxy.gateway.pipeline import serve
from proxy.model.policy import Rule
from proxy.model.ports import TransportFault
from proxy.model.tenancy import Route
from proxy.runtime.tasks import alive, spawn
from tests.kit.builders import JSON, SECRET_RULE, SSE, World, pack, world
from tests.kit.fakes import RecordingDownstream
from tests.kit.outside import external, outside_world, pack_of
from tests.kit.services import HttpService
from tests.kit.shapes import (
    CHAT,
    DONE,
    KEY,
    ROLE,
    STOP,
    STREAM,
    Doc,
    call,
    chat,
    chunk,
    docs_of,
)

T = TypeVar("T")
WORDS = "word " * 4_000
ARGUMENTS = json.dumps({"q": f"{WORDS}{KEY}"})
WEAPON = "bomb"


class Counting:
    """Runs at once what is to be run beside the loop, and counts it."""

    def __init__(self) -> None:
        self.times = 0

    async def run(self, work: Callable[[], T]) -> T:
        self.times += 1
        await asyncio.sleep(0)
        return work()


def counted(w: World) -> Counting:
    w.gateway.off_loop = found = Counting()
    return found


def said(caller: RecordingDownstream) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for doc in docs_of(caller)
        for choice in doc.get("choices", [])
    )


def fragments(arguments: str) -> list[bytes]:
    parts = [arguments[at : at + 40] for at in range(0, len(arguments), 40)]
    more: list[Doc] = [
        {"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts
    ]
    return [chunk(call("")), *map(chunk, more)]


async def test_long_arguments_are_judged_beside_the_loop_and_leave_in_their_turn() -> None:
    script = chat(chunk({"content": "so"}), *fragments(ARGUMENTS), chunk({}, "tool_calls"))
    w = world(scripts={"openai": [script]}, packs=[pack(SECRET_RULE)])
    off_loop = counted(w)
    caller = await w.ask(STREAM)
    assert off_loop.times == 1, "the fragments are small"
    docs = [choice for doc in docs_of(caller) for choice in doc["choices"]]
    calls = [doc["delta"]["tool_calls"] for doc in docs if "tool_calls" in doc["delta"]]
    (found,) = [json.loads(each[0]["function"]["arguments"]) for each in calls]
    assert found == {"q": f"{WORDS}[KEY]"}
    assert docs[-1]["finish_reason"] == "tool_calls"
    assert caller.received.endswith(DONE)
    assert w.record.outcome == "success"


async def test_short_arguments_are_judged_where_they_come() -> None:
    script = chat(*fragments('{"q": "KEY12345"}'), chunk({}, "tool_calls"))
    w = world(scripts={"openai": [script]}, packs=[pack(SECRET_RULE)])
    off_loop = counted(w)
    await w.ask(STREAM)
    assert off_loop.times == 0


SHAPE = {"rule_id": "shape", "kind": "json_schema", "action": "block"}


@pytest.mark.parametrize("ending", [[STOP, DONE], [STOP]], ids=["its trailer", "no trailer"])
@pytest.mark.parametrize("good", [True, False])
async def test_long_answers_as_a_whole(good: bool, ending: list[bytes]) -> None:
    schema = {"type": "object", "required": ["q" if good else "z"]}
    rule = Rule.model_validate(SHAPE | {"config": {"schema": schema}})
    text = json.dumps({"q": WORDS})
    pieces = [chunk({"content": text[at : at + 100]}) for at in range(0, len(text), 100)]
    guard = pack(rule)
    route = Route(
        id="chat", endpoint="openai", policy_packs=[guard.policy_pack_id], stream_recovery="off"
    )
    script = [(200, SSE), ROLE, *pieces, *ending, None]
    w = world(scripts={"openai": [script]}, packs=[guard], routes=[route])
    off_loop = counted(w)
    caller = await w.ask(STREAM)
    assert off_loop.times > 0
    if good:
        assert said(caller) == text
        assert w.record.outcome == "success"
    else:
        assert caller.status == 400
        assert w.record.outcome == "blocked"


def whole(text: str) -> list[object]:
    message = {"role": "assistant", "content": text}
    doc = {"id": "c", "object": "chat.completion", "model": "m",
           "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # fmt: skip
    return [(200, JSON), json.dumps(doc).encode(), None]


async def test_a_long_whole_answer_is_read_judged_and_rewritten_beside_the_loop() -> None:
    w = world(scripts={"openai": [whole(f"{WORDS * 4}{KEY}")]}, packs=[pack(SECRET_RULE)])
    off_loop = counted(w)
    caller = await w.ask(CHAT)
    assert json.loads(caller.received)["choices"][0]["message"]["content"] == f"{WORDS * 4}[KEY]"
    assert off_loop.times == 4  # parse, texts, rules, splice


@pytest.mark.parametrize("body", [b"{" + b" " * 100_000, b'{"a":1,"a":2' + b" " * 99_999 + b"}"])
async def test_a_long_whole_answer_that_cannot_be_read(body: bytes) -> None:
    w = world(scripts={"openai": [[(200, JSON), body, None]]}, packs=[pack(SECRET_RULE)])
    caller = await w.ask(CHAT)
    assert caller.status == 502
    assert w.record.attempts[-1].why == "unreadable answer"


@pytest.mark.parametrize("stage", ["buffer", "window"])
@pytest.mark.parametrize("violates", [False, True])
async def test_a_check_outside_and_a_long_answer(stage: str, violates: bool) -> None:
    """What is let go at once is looked at in turns; a block outside stops what still waits."""
    last = f" a {WEAPON}" if violates else " the end"
    pieces = [f"{WORDS}{KEY} ", *["tiny "] * 3_000, last]
    script = chat(*[chunk({"content": piece}) for piece in pieces], STOP)
    own = {"rule_id": "key", "pattern": r"KEY[0-9]{4,}", "action": "redact", "severity": "high"}
    async with HttpService({WEAPON: "WEAPON"}) as service:
        rule = external(
            "http", service.url, scope={"direction": "response"}, config={"stage": stage}
        )
        async with outside_world(pack_of(own, rule), scripts=[script]) as w:
            off_loop = counted(w)
            caller = await w.ask(STREAM)
            assert off_loop.times > 0
            record = w.record
            text = "".join(pieces).replace(KEY, "[KEY]")
            if violates:
                assert record.outcome == "blocked"
                assert WEAPON not in caller.received.decode()
                assert stage == "window" or caller.status == 400
            else:
                assert record.outcome == "success"
                assert said(caller) == text
                assert caller.received.endswith(DONE)


@pytest.mark.parametrize("stage", ["buffer", "window"])
@pytest.mark.parametrize("violates", [False, True])
async def test_a_check_outside_and_long_arguments(stage: str, violates: bool) -> None:
    """They are heard beside the loop, and none leaves before all of them were asked about."""
    arguments = json.dumps({"q": WORDS, "z": WEAPON if violates else "the end"})
    script = chat(chunk({"content": "so"}), *fragments(arguments), chunk({}, "tool_calls"))
    own = {"rule_id": "key", "pattern": r"KEY[0-9]{4,}", "action": "redact", "severity": "high",
           "scope": {"parts": ["tool_args"]}}  # fmt: skip
    async with HttpService({WEAPON: "WEAPON"}) as service:
        scope = {"direction": "response", "parts": ["text", "tool_args"]}
        rule = external("http", service.url, scope=scope, config={"stage": stage})
        async with outside_world(pack_of(own, rule), scripts=[script]) as w:
            off_loop = counted(w)
            caller = await w.ask(STREAM)
            assert off_loop.times == (1 if violates else 2), "the ear, and the pump"
            assert w.record.outcome == ("blocked" if violates else "success")
            asked = [text for text in service.texts if text.strip() in (WEAPON, "the end")]
            assert len(asked) == 1
            assert (b"tool_calls" in caller.received) is not violates


async def begun(w: World, caller: RecordingDownstream) -> "asyncio.Task[None]":
    caller.request_body = STREAM
    task = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="request")
    for _ in range(12):
        await asyncio.sleep(0)
    return task


async def test_a_body_that_does_not_decode_behind_a_backlog() -> None:
    packed = zlib.compressobj(wbits=31)
    first = packed.compress(ROLE + chunk({"content": "so"})) + packed.flush(zlib.Z_SYNC_FLUSH)
    second = packed.compress(chunk({"content": WORDS})) + packed.flush(zlib.Z_SYNC_FLUSH)
    gzipped = [*SSE, (b"content-encoding", b"gzip")]
    w = world(scripts={"openai": [[(200, gzipped)]]}, packs=[pack(SECRET_RULE)])
    caller = RecordingDownstream()
    request = await begun(w, caller)
    sink = w.upstreams["openai"].sinks[-1]
    sink.data(first)
    sink.data(second)
    sink.data(b"no gzip at all")
    await asyncio.wait_for(request, 5)
    assert caller.status == 502
    for _ in range(5):
        await asyncio.sleep(0)
    assert not [name for name in alive() if "backlog" in name]


async def test_a_gate_that_is_shut_by_a_drain_ends_the_answer() -> None:
    async with HttpService() as service:
        rule = external("http", service.url, scope={"direction": "response"})
        script = [(200, SSE), ROLE, chunk({"content": WORDS})]
        async with outside_world(pack_of(rule), scripts=[script]) as w:
            caller = RecordingDownstream()
            request = await begun(w, caller)
            (answer,) = w.gateway.answers
            assert isinstance(answer, Answer)
            answer.data(STOP)
            answer.cancel()
            answer.failed(TransportFault("reset", "draining"))
            await asyncio.wait_for(request, 5)
            assert w.record.outcome != "success"
            assert not [name for name in alive() if "backlog" in name]
