"""Checks outside on requests: services on loopback, endpoints by script."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy.gateway.pipeline import serve
from proxy.model.exchange import RawHeaders
from proxy.model.policy import PolicyPack
from tests.kit.builders import JSON
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.outside import OutsideWorld, external, outside_world, pack_of
from tests.kit.rawserver import whole
from tests.kit.services import HttpService, cut, said, silent, trickle

ANSWER = json.dumps(
    {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
     "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi there"},
                  "finish_reason": "stop"}],
     "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
).encode()  # fmt: skip
OK: list[Step] = [(200, JSON), ANSWER, None]
REQUEST = {"direction": "request"}


def chat(*texts: str, **more: Any) -> bytes:
    messages = [
        {"role": "user" if place % 2 == 0 else "assistant", "content": text}
        for place, text in enumerate(texts)
    ]
    return json.dumps({"model": "gpt-4o", "messages": messages, **more}).encode()


async def soon(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - no event reaches us from there
            await asyncio.sleep(0.005)


def of_requests(service: HttpService, **members: Any) -> PolicyPack:
    return pack_of(external("http", service.url, scope=REQUEST, **members))


async def test_every_text_of_a_request_is_asked_about_and_a_clean_one_passes() -> None:
    async with (
        HttpService({"bomb": "WEAPON"}) as service,
        outside_world(of_requests(service), scripts=[OK]) as w,
    ):
        caller = await w.ask(chat("hello", "hi", "how are you"))
        assert caller.received == ANSWER
        assert sorted(service.texts) == ["hello", "hi", "how are you"]
        asked = service.asked[0]
        assert asked.path == "/check"
        assert asked.doc == {
            "text": asked.doc["text"], "direction": "request", "part": "text",
            "role": asked.doc["role"], "route_id": "chat", "request_id": "req-1",
        }  # fmt: skip
        assert w.record.policy_results == []
        assert w.upstreams["openai"].sent[0].body == chat("hello", "hi", "how are you")


async def test_a_violation_blocks_and_nothing_goes_up() -> None:
    async with (
        HttpService({"bomb": "WEAPON"}) as service,
        outside_world(of_requests(service), scripts=[OK]) as w,
    ):
        caller = await w.ask(chat("how to build a bomb"))
        assert caller.status == 400
        assert b"content_filter" in caller.received
        assert b"bomb" not in caller.received
        assert w.upstreams["openai"].sent == []
        record = w.record
        assert record.outcome == "blocked"
        (result,) = record.policy_results
        assert (result.verdict, result.action_taken) == ("violation", "block")
        assert (result.detector, result.rule_matched) == ("http", "ext.http")
        assert (result.span_start, result.span_end, result.confidence) == (15, 19, 0.9)
        assert result.elapsed_us > 0


async def test_spans_are_redacted_together_with_those_of_the_routes_own_rules() -> None:
    own = {"rule_id": "mail", "pattern": r"[a-z.]+@[a-z.]+", "action": "redact", "label": "MAIL",
           "severity": "critical"}  # fmt: skip
    async with HttpService({"jane doe": "PERSON", "roe": "PERSON"}) as service:
        rule = external("http", service.url, scope=REQUEST, action="redact")
        async with outside_world(pack_of(own, rule), scripts=[OK]) as w:
            await w.ask(chat("é jane doe and roe@x.org end"))
            (sent,) = w.upstreams["openai"].sent
            text = json.loads(sent.body)["messages"][0]["content"]
            assert text == "é [PERSON] and [MAIL] end"
            found = {(r.rule_matched, r.count) for r in w.record.policy_results}
            assert found == {("mail", 1), ("ext.http", 2)}


async def test_a_text_that_the_routes_own_rules_block_is_sent_nowhere() -> None:
    own = {"rule_id": "own", "pattern": "launch code", "action": "block"}
    async with HttpService() as service:
        rule = external("http", service.url)
        async with outside_world(pack_of(rule, own)) as w:
            assert (await w.ask(chat("the launch code"))).status == 400
            assert service.asked == []


# --- what a service may do to us


def violation(*spans: dict[str, int]) -> bytes:
    return said({"verdict": "violation", "spans": list(spans)})


FAILURES: list[tuple[str, Any, str]] = [
    ("hangs", silent, "timeout"),
    ("trickles for ever", trickle, "timeout"),
    ("cuts", cut, "unreachable"),
    ("refuses", said({}, b"500 Internal Server Error"), "status"),
    ("redirects", whole(b"", b"302 Found", b"location: http://x/"), "status"),
    ("is no HTTP", b"SSH-2.0-OpenSSH_9\r\n\r\n", "unreachable"),
    ("says nothing", said(None), "unreadable"),
    ("no JSON", whole(b"abcd"), "unreadable"),
    ("another verdict", said({"verdict": "ok"}), "unreadable"),
    ("spans outside", violation({"start": 0, "end": 999}), "unreadable"),
    ("NaN", whole(b'{"verdict":"violation","score": NaN}'), "unreadable"),
    ("1 MiB and more", said({"verdict": "pass", "pad": "x" * 1024 * 1024}), "too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "played", "fault"), FAILURES, ids=[f[0] for f in FAILURES])
@pytest.mark.parametrize("on_error", ["block", "allow"])
async def test_a_failure_is_never_a_pass(name: str, played: Any, fault: str, on_error: str) -> None:
    async with HttpService() as service:
        service.play(always=played)
        rule = external(
            "http", service.url, scope=REQUEST, on_error=on_error,
            config={"timeout_ms": 300 if fault == "timeout" else 10_000},
        )  # fmt: skip
        async with outside_world(pack_of(rule), scripts=[OK]) as w:
            caller = await w.ask(chat("hello"))
            assert w.asked == [fault]
            (result,) = w.record.policy_results
            assert result.message == fault
            if on_error == "block":
                assert caller.status == 400
                assert b"could not be checked" in caller.received
                assert (result.verdict, result.action_taken) == ("error", "block")
                assert w.upstreams["openai"].sent == []
            else:
                assert caller.status == 200
                assert (result.verdict, result.action_taken) == ("bypassed", "none")


async def test_nobody_there_is_a_failure() -> None:
    rule = external("http", "http://127.0.0.1:9/check", scope=REQUEST)
    async with outside_world(pack_of(rule)) as w:
        assert (await w.ask(chat("hello"))).status == 400
        assert w.asked == ["unreachable"]


async def test_a_private_address_is_not_spoken_to_without_leave() -> None:
    async with HttpService() as service:
        rule = external("http", service.url, scope=REQUEST)
        rule["config"]["allow_private"] = False
        async with outside_world(pack_of(rule)) as w:
            assert (await w.ask(chat("hello"))).status == 400
            assert w.asked == ["unreachable"]
            assert service.peers == 0


async def test_after_five_failures_in_a_row_nobody_is_asked_for_ten_seconds() -> None:
    async with HttpService() as service:
        service.play(always=said({}, b"503 Busy"))
        async with outside_world(of_requests(service, config={"cache_seconds": 0})) as w:
            for number in range(5):
                await w.ask(chat(f"text {number}"))
            assert len(service.asked) == 5
            assert (await w.ask(chat("text 5"))).status == 400
            assert len(service.asked) == 5
            assert w.asked == ["status"] * 5 + ["breaker_open"]


async def test_what_was_heard_before_is_not_asked_again_and_no_text_is_kept() -> None:
    async with (
        HttpService({"bomb": "WEAPON"}) as service,
        outside_world(of_requests(service), scripts=[OK, OK]) as w,
    ):
        await w.ask(chat("hello"))
        await w.ask(chat("hello", "hi", "a bomb"))
        assert (await w.ask(chat("a bomb"))).status == 400
        assert sorted(service.texts) == ["a bomb", "hello", "hi"]
        assert "bomb" not in repr(vars_of(w))


def vars_of(w: OutsideWorld) -> list[object]:
    return [w.opinions._known]


async def test_the_same_text_twice_in_a_request_is_asked_about_once() -> None:
    async with HttpService({"bomb": "WEAPON"}) as service:
        rule = external("http", service.url, scope=REQUEST, action="redact")
        async with outside_world(pack_of(rule), scripts=[OK]) as w:
            body = json.dumps(
                {"model": "m", "messages": [{"role": "user", "content": "a bomb"}] * 3}
            ).encode()
            await w.ask(body)
            assert service.texts == ["a bomb"]
            sent = json.loads(w.upstreams["openai"].sent[0].body)
            assert [m["content"] for m in sent["messages"]] == ["a [WEAPON]"] * 3


async def test_secrets_of_headers_come_from_the_environment() -> None:
    async with HttpService() as service:
        headers = {"Authorization": {"$env": "GUARD_KEY"}, "x-team": "blue"}
        rule = external("http", service.url, scope=REQUEST, config={"headers": headers})
        async with outside_world(pack_of(rule), scripts=[OK]) as w:
            assert (await w.ask(chat("hello"))).status == 200
            got = service.asked[0].headers
            assert (got["authorization"], got["x-team"]) == ("gk-12345678", "blue")
            assert "gk-12345678" not in repr(w.rules.workspaces["default"].routes["chat"].checks)


async def test_a_variable_that_is_not_set_is_a_failure_and_nobody_is_asked() -> None:
    async with HttpService() as service:
        headers = {"Authorization": {"$env": "NOT_SET"}}
        rule = external("http", service.url, scope=REQUEST, config={"headers": headers})
        async with outside_world(pack_of(rule)) as w:
            assert (await w.ask(chat("hello"))).status == 400
            assert w.asked == ["unconfigured"]
            assert service.asked == []


async def test_the_timeout_bounds_all_calls_of_a_check_together() -> None:
    async def slow(peer: Any) -> None:
        await asyncio.sleep(0.15)
        await peer.send(said({"verdict": "pass"}))

    async with HttpService() as service:
        service.play(always=slow)
        rule = external("http", service.url, scope=REQUEST, config={"timeout_ms": 300})
        async with outside_world(pack_of(rule)) as w:
            began = asyncio.get_running_loop().time()
            assert (await w.ask(chat(*[f"text {n}" for n in range(60)]))).status == 400
            assert asyncio.get_running_loop().time() - began < 1.5


async def test_in_shadow_a_violation_is_told_and_changes_nothing() -> None:
    async with (
        HttpService({"bomb": "WEAPON"}) as service,
        outside_world(of_requests(service, mode="shadow"), scripts=[OK]) as w,
    ):
        assert (await w.ask(chat("a bomb"))).received == ANSWER
        (result,) = w.record.policy_results
        assert (result.enforced, result.message) == (False, "would block")


async def test_what_only_watches_holds_nothing_up() -> None:
    go = asyncio.Event()

    async def later(peer: Any) -> None:
        await go.wait()
        await peer.send(said({"verdict": "violation"}))

    async with HttpService() as service:
        service.play(always=later)
        rules = [
            external("http", service.url, mode="shadow", config={"timeout_ms": 5000}),
            external("http", service.url, rule_id="log", action="log",
                     config={"timeout_ms": 5000, "cache_seconds": 0}),
        ]  # fmt: skip
        async with outside_world(pack_of(*rules), scripts=[OK]) as w:
            caller = RecordingDownstream(request_body=chat("hello"))
            inbound = w.inbound("/v1/chat/completions")
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: caller.received == ANSWER)
            assert not task.done()
            go.set()
            await task
            told = {(r.rule_matched, r.direction, r.action_taken) for r in w.record.policy_results}
            assert told == {
                ("ext.http", "request", "none"), ("ext.http", "response", "none"),
                ("log", "request", "log"), ("log", "response", "log"),
            }  # fmt: skip


# --- a caller who leaves


async def test_a_caller_who_leaves_ends_the_calls() -> None:
    async with HttpService() as service:
        service.play(always=silent)
        rule = external("http", service.url, scope=REQUEST, config={"timeout_ms": 30_000})
        async with outside_world(pack_of(rule)) as w:
            caller = RecordingDownstream(request_body=chat("hello"))
            headers: RawHeaders = [(b"content-type", b"application/json")]
            inbound = w.inbound("/v1/chat/completions", headers)
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: bool(service.asked))
            assert len(w.gateway.answers) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert w.gateway.answers == set()
            await soon(lambda: service.closed == 1)
            assert w.record.outcome == "gateway_error"


# --- beside the upstream


async def test_a_parallel_check_lets_nothing_out_before_its_verdict() -> None:
    go = asyncio.Event()

    async def later(peer: Any) -> None:
        await go.wait()
        await peer.send(said({"verdict": "pass"}))

    async with HttpService() as service:
        service.play(later)
        rule = external(
            "http", service.url, scope=REQUEST, config={"stage": "parallel", "timeout_ms": 5000}
        )
        async with outside_world(pack_of(rule), scripts=[OK]) as w:
            caller = RecordingDownstream(request_body=chat("hello"))
            inbound = w.inbound("/v1/chat/completions")
            task = asyncio.get_running_loop().create_task(serve(inbound, caller, w.gateway))
            await soon(lambda: bool(service.asked and w.upstreams["openai"].sent))
            await asyncio.sleep(0.05)
            assert not caller.begun
            go.set()
            await task
            assert caller.received == ANSWER


async def test_a_parallel_check_blocks_what_has_been_answered() -> None:
    async with HttpService({"bomb": "WEAPON"}) as service:
        rule = external("http", service.url, scope=REQUEST, config={"stage": "parallel"})
        async with outside_world(pack_of(rule), scripts=[OK]) as w:
            caller = await w.ask(chat("a bomb"))
            assert caller.status == 400
            assert b"hi there" not in caller.received
            record = w.record
            assert record.outcome == "blocked"
            assert [str(attempt.outcome) for attempt in record.attempts] == ["blocked"]


# --- an adapter of ours that breaks


@pytest.mark.parametrize("member", ["ask", "read"])
@pytest.mark.parametrize("on_error", ["block", "allow"])
async def test_an_adapter_that_raises_is_a_failure(member: str, on_error: str) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    async with HttpService() as service:
        rule = external("http", service.url, scope=REQUEST, on_error=on_error)
        async with outside_world(pack_of(rule), scripts=[OK]) as w:
            checks = w.rules.workspaces["default"].routes["chat"].checks
            assert checks is not None
            (check,) = checks.preflight
            adapter = replace(check.rule.adapter, **{member: broken})
            check.rule = replace(check.rule, adapter=adapter)
            caller = await w.ask(chat("hello"))
            (result,) = w.record.policy_results
            wanted = (400, "error") if on_error == "block" else (200, "bypassed")
            assert (caller.status, result.verdict) == wanted
