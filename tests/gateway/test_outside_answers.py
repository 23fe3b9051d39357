"""Checks outside on answers, whole and streamed."""

import asyncio
import json
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from proxy.gateway.pipeline import serve
from proxy.model.ports import TransportFault
from tests.kit.builders import JSON, SSE
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.outside import external, outside_world, pack_of
from tests.kit.rawserver import Peer
from tests.kit.services import HttpService, PresidioService, said, silent
from tests.kit.shapes import CHAT, DONE, ROLE, STOP, STREAM, call, chat, chunk

ANSWERS = {"direction": "response"}


async def soon(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - no event reaches us from there
            await asyncio.sleep(0.005)


def whole(text: str) -> list[Step]:
    message = {"role": "assistant", "content": text}
    doc = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
           "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}  # fmt: skip
    return [(200, JSON), json.dumps(doc).encode(), None]


def streamed(*pieces: str) -> list[Step]:
    return chat(*[chunk({"content": piece}) for piece in pieces], STOP)


def rule_for(service: HttpService | PresidioService, **members: Any) -> dict[str, Any]:
    adapter = "http" if isinstance(service, HttpService) else "presidio"
    return external(adapter, service.url, scope=ANSWERS, **members)


def text_of(caller: RecordingDownstream) -> str:
    """The text that a caller put together, of an answer or of a stream."""
    if caller.received.startswith(b"{"):
        doc = json.loads(caller.received)
        return "".join(choice["message"]["content"] for choice in doc.get("choices", []))
    docs = [json.loads(line[6:]) for line in caller.received.split(b"\n")
            if line.startswith(b"data: ") and line != b"data: [DONE]"]  # fmt: skip
    choices = [choice for doc in docs for choice in doc.get("choices", [])]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def finish_of(caller: RecordingDownstream) -> list[str]:
    docs = [json.loads(line[6:]) for line in caller.received.split(b"\n")
            if line.startswith(b"data: ") and line != b"data: [DONE]"]  # fmt: skip
    found = [choice["finish_reason"] for doc in docs for choice in doc.get("choices", [])]
    return [reason for reason in found if reason]


BOTH = [(CHAT, whole), (STREAM, streamed)]


@pytest.mark.parametrize(("body", "answer"), BOTH, ids=["whole", "stream"])
async def test_a_clean_answer_passes(body: bytes, answer: Any) -> None:
    async with (
        HttpService() as service,
        outside_world(pack_of(rule_for(service)), scripts=[answer("all is well")]) as w,
    ):
        caller = await w.ask(body)
        assert (caller.status, text_of(caller)) == (200, "all is well")
        assert service.texts == ["all is well"]
        assert service.asked[0].doc["direction"] == "response"
        assert w.record.outcome == "success"


@pytest.mark.parametrize(("body", "answer"), BOTH, ids=["whole", "stream"])
async def test_a_violation_blocks_before_anything_has_left(body: bytes, answer: Any) -> None:
    async with (
        HttpService({"bomb": "WEAPON"}) as service,
        outside_world(pack_of(rule_for(service)), scripts=[answer("a bomb")]) as w,
    ):
        caller = await w.ask(body)
        assert caller.status == 400
        assert b"bomb" not in caller.received
        record = w.record
        assert record.outcome == "blocked"
        assert [r.rule_matched for r in record.policy_results] == ["ext.http"]
        assert [str(a.outcome) for a in record.attempts] == ["blocked"]


@pytest.mark.parametrize(("body", "answer"), BOTH, ids=["whole", "stream"])
async def test_spans_are_redacted_with_those_of_the_routes_own_rules(
    body: bytes, answer: Any
) -> None:
    own = {"rule_id": "key", "pattern": r"KEY[0-9]{4,}", "action": "redact", "severity": "critical"}
    async with PresidioService({"Anna": "PERSON", "12345 or": "ODD"}) as service:
        rule = rule_for(service, action="redact")
        text = "é Anna has KEY12345 or none, KEY9999"
        async with outside_world(pack_of(own, rule), scripts=[answer(text)]) as w:
            caller = await w.ask(body)
            got = text_of(caller)
            assert got.startswith("é [PERSON] has [")
            assert got.endswith("] none, [KEY]")
            assert "12345" not in got
            assert "Anna" not in got
            assert w.record.outcome == "success"


CUTS = [1, 2, 3, 5, 8, 100]


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("stage", ["buffer", "window"])
async def test_a_stream_is_redacted_alike_however_it_is_cut(size: int, stage: str) -> None:
    text = "Anna met Bob and Anna at the river, and Bob said that Anna was right about it. " * 3
    wanted = text.replace("Anna", "[PERSON]")
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    config = {"stage": stage, "window": {"size": 60, "overlap": 20}}

    class Everywhere(PresidioService):
        def found(self, text: str) -> list[tuple[int, int, str]]:
            places = range(len(text))
            return [(at, at + 4, "PERSON") for at in places if text.startswith("Anna", at)]

    async with Everywhere() as service:
        rule = rule_for(service, action="redact", config=config)
        async with outside_world(pack_of(rule), scripts=[streamed(*pieces)]) as w:
            caller = await w.ask(STREAM)
            assert text_of(caller) == wanted
            assert caller.received.endswith(DONE)
            (result,) = w.record.policy_results
            assert result.count == text.count("Anna")


async def test_a_window_leaves_after_its_verdict_and_a_block_ends_the_stream() -> None:
    config = {"stage": "window", "window": {"size": 60, "overlap": 20}}
    harmless = [chunk({"content": "x" * 10})] * 13
    async with HttpService({"bomb": "WEAPON"}) as service:
        rule = rule_for(service, config=config)
        async with outside_world(pack_of(rule), scripts=[[(200, SSE), ROLE, *harmless]]) as w:
            caller = RecordingDownstream(request_body=STREAM)
            inbound = w.inbound("/v1/chat/completions")
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: len(text_of(caller)) >= 60)
            (sink,) = w.upstreams["openai"].sinks
            sink.data(chunk({"content": " a bomb "}) + chunk({"content": "y" * 100}) + STOP + DONE)
            sink.end()
            await task
            assert caller.status == 200
            left = text_of(caller)
            assert left == "x" * len(left)
            assert 60 <= len(left) <= 130
            assert finish_of(caller) == ["content_filter"]
            record = w.record
            assert (record.outcome, record.truncated_by_policy) == ("blocked", True)
            assert max(map(len, service.texts)) <= 60


async def test_text_leaves_while_the_stream_goes_on() -> None:
    """The first windows have left before the upstream has said its last."""
    first = [chunk({"content": "x" * 100})] * 3
    async with HttpService() as service:
        rule = rule_for(service, config={"stage": "window", "window": {"size": 60, "overlap": 0}})
        async with outside_world(pack_of(rule), scripts=[[(200, SSE), ROLE, *first]]) as w:
            caller = RecordingDownstream(request_body=STREAM)
            inbound = w.inbound("/v1/chat/completions")
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: len(text_of(caller)) >= 200)
            (sink,) = w.upstreams["openai"].sinks
            sink.data(STOP + DONE)
            sink.end()
            await task
            assert text_of(caller) == "x" * 300


async def test_of_a_held_stream_nothing_leaves_before_the_verdict() -> None:
    go = asyncio.Event()

    async def later(peer: Peer) -> None:
        await go.wait()
        await peer.send(said({"verdict": "pass"}))

    async with HttpService() as service:
        service.play(later)
        rule = rule_for(service, config={"timeout_ms": 5000})
        async with outside_world(pack_of(rule), scripts=[streamed("a", "b")]) as w:
            caller = RecordingDownstream(request_body=STREAM)
            inbound = w.inbound("/v1/chat/completions")
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: bool(service.asked))
            await asyncio.sleep(0.05)
            assert not caller.begun
            go.set()
            await task
            assert text_of(caller) == "ab"


async def test_a_tool_call_is_asked_about_as_parsed_json_and_a_rewrite_of_it_is_a_block() -> None:
    rest = {"tool_calls": [{"index": 0, "function": {"arguments": '"An\\u006ea"}'}}]}
    script = chat(chunk(call('{"to":')), chunk(rest), chunk({}, "tool_calls"))
    async with (
        PresidioService({"Anna": "PERSON"}) as service,
        outside_world(pack_of(rule_for(service, action="redact")), scripts=[script]) as w,
    ):
        caller = await w.ask(STREAM)
        assert "Anna" in service.texts
        assert caller.status == 400
        assert w.record.outcome == "blocked"


# --- failures


@pytest.mark.parametrize("on_error", ["block", "allow"])
@pytest.mark.parametrize("stage", ["buffer", "window"])
@pytest.mark.parametrize(
    ("played", "fault"), [(silent, "timeout"), (said({}), "unreadable")], ids=["hangs", "garbage"]
)
async def test_a_failure_on_a_stream_is_never_a_pass(
    played: Any, fault: str, stage: str, on_error: str
) -> None:
    timeout_ms = 200 if fault == "timeout" else 10_000
    config = {"stage": stage, "timeout_ms": timeout_ms, "window": {"size": 60, "overlap": 0}}
    async with HttpService() as service:
        service.play(always=played)
        rule = rule_for(service, on_error=on_error, config=config)
        async with outside_world(pack_of(rule), scripts=[streamed("x" * 50, "y" * 50)]) as w:
            caller = await w.ask(STREAM)
            record = w.record
            (result,) = record.policy_results
            assert result.message == fault
            if on_error == "block":
                assert (caller.status, result.verdict) == (400, "error")
                assert b"xx" not in caller.received
            else:
                assert (text_of(caller), result.verdict) == ("x" * 50 + "y" * 50, "bypassed")


@pytest.mark.parametrize("on_error", ["block", "allow"])
async def test_more_than_may_wait_is_a_failure(on_error: str) -> None:
    async with HttpService() as service:
        rule = rule_for(service, on_error=on_error)
        script = streamed(*["z" * 500] * 5)
        async with outside_world(
            pack_of(rule), scripts=[script], guard={"max_answer_bytes": 1024}
        ) as w:
            caller = await w.ask(STREAM)
            (result,) = w.record.policy_results
            assert result.message == "too_large"
            assert (caller.status, result.verdict) == (
                (400, "error") if on_error == "block" else (200, "bypassed")
            )
            if on_error == "allow":
                assert text_of(caller) == "z" * 2500
            assert service.asked == []


async def test_an_upstream_that_dies_takes_what_waits_with_it() -> None:
    script: list[Step] = [(200, SSE), ROLE, chunk({"content": "half"}), TransportFault("reset")]
    async with (
        HttpService() as service,
        outside_world(pack_of(rule_for(service)), scripts=[script]) as w,
    ):
        caller = await w.ask(STREAM)
        assert caller.status in (502, 503)
        assert b"half" not in caller.received
        assert service.asked == []


async def test_a_caller_who_leaves_ends_the_calls_of_a_stream() -> None:
    async with HttpService() as service:
        service.play(always=silent)
        rule = rule_for(service, config={"timeout_ms": 30_000})
        async with outside_world(pack_of(rule), scripts=[streamed("hello")]) as w:
            caller = RecordingDownstream(request_body=STREAM)
            inbound = w.inbound("/v1/chat/completions")
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: bool(service.asked))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await soon(lambda: service.closed == 1)
            assert w.gateway.answers == set()


async def test_the_drain_ends_what_is_asked_and_the_failure_is_a_verdict() -> None:
    async with HttpService() as service:
        service.play(always=silent)
        rule = rule_for(service, config={"timeout_ms": 30_000})
        async with outside_world(pack_of(rule), scripts=[whole("hello")]) as w:
            caller = RecordingDownstream(request_body=CHAT)
            inbound = w.inbound("/v1/chat/completions")
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: bool(service.asked))
            for answer in list(w.gateway.answers):  # what `DataHalf.drain` does at its end
                answer.cancel()
                answer.failed(TransportFault("reset", "draining"))
            await asyncio.wait_for(task, 2)
            assert caller.status == 400
            assert b"could not be checked" in caller.received


# --- afterwards


@pytest.mark.parametrize(("body", "answer"), BOTH, ids=["whole", "stream"])
async def test_post_lets_everything_leave_and_tells_afterwards(body: bytes, answer: Any) -> None:
    go = asyncio.Event()

    async def later(peer: Peer) -> None:
        await go.wait()
        await peer.send(said({"verdict": "violation", "label": "WEAPON"}))

    async with HttpService() as service:
        service.play(later)
        rule = rule_for(service, action="flag", config={"stage": "post", "timeout_ms": 5000})
        async with outside_world(pack_of(rule), scripts=[answer("a bomb")]) as w:
            caller = RecordingDownstream(request_body=body)
            inbound = w.inbound("/v1/chat/completions")
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: bool(service.asked))
            assert text_of(caller) == "a bomb"
            go.set()
            await task
            record = w.record
            assert (record.outcome, record.flagged) == ("success", True)
            (result,) = record.policy_results
            assert (result.verdict, result.action_taken) == ("violation", "flag")


async def test_post_that_fails_says_bypassed() -> None:
    async with HttpService() as service:
        service.play(always=said({}, b"500 No"))
        rule = rule_for(service, action="log", config={"stage": "post"})
        async with outside_world(pack_of(rule), scripts=[whole("a bomb")]) as w:
            assert text_of(await w.ask(CHAT)) == "a bomb"
            (result,) = w.record.policy_results
            assert (result.verdict, result.message) == ("bypassed", "status")


async def test_a_held_stream_says_what_a_whole_answer_says() -> None:
    """Random texts with finds of the service and of the route's own rule, over and beside each
    other, cut at random."""
    chance = random.Random(11)

    class Wild(PresidioService):
        def found(self, text: str) -> list[tuple[int, int, str]]:
            spots = random.Random(text)
            places = [spots.randrange(len(text)) for _ in range(spots.randrange(4))]
            return [(at, min(at + spots.randrange(1, 12), len(text)), "WILD") for at in places]

    own = {"rule_id": "key", "pattern": r"KEY[0-9]{4,}", "action": "redact", "severity": "critical"}
    words = ["KEY12345", "Anna", "é", "KEY", "9999", " ", "river", "KEY00001"]
    texts = ["".join(chance.choice(words) for _ in range(12)) for _ in range(40)]
    scripts: list[list[Step]] = []
    for text in texts:
        cuts = sorted(chance.randrange(len(text)) for _ in range(chance.randrange(9)))
        pieces = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
        scripts += [whole(text), streamed(*[piece for piece in pieces if piece])]
    async with Wild() as service:
        rule = rule_for(service, action="redact", config={"timeout_ms": 5000})
        async with outside_world(pack_of(own, rule), scripts=scripts) as w:
            for text in texts:
                at_once = text_of(await w.ask(CHAT))
                assert text_of(await w.ask(STREAM)) == at_once, text
