"""What a worker keeps of checks outside: opinions, breakers; and what outlives a snapshot."""

import asyncio
import json
import random
from typing import Any

import pytest

from proxy.gateway.opinions import MAX_OPINIONS, OPEN_S, Breaker, Opinions
from proxy.guardrails.checks.external.words import FINE, Opinion, Spot
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.spans import SpanLane
from proxy.model.tenancy import GuardSettings
from tests.kit.builders import ANTHROPIC, SECRET_RULE, pack
from tests.kit.outside import external, outside_world, pack_of
from tests.kit.services import HttpService, PresidioService, said
from tests.kit.shapes import MESSAGE_STREAM, MESSAGES, begun, ended, piece, told


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_the_least_used_opinions_are_forgotten() -> None:
    opinions = Opinions()
    for number in range(MAX_OPINIONS):
        opinions.put(key(number), FINE, 10)
    assert opinions.get(key(0), 0) is FINE  # used: it stays
    opinions.put(key(MAX_OPINIONS), FINE, 10)
    assert opinions.get(key(0), 0) is FINE
    assert opinions.get(key(1), 0) is None


def test_an_opinion_is_kept_for_its_time() -> None:
    opinions = Opinions()
    opinions.put(key(1), FINE, 10)
    assert opinions.get(key(1), 9.9) is FINE
    assert opinions.get(key(1), 10) is None


@pytest.mark.parametrize(
    "opinion", [Opinion((Spot(0, 1),), "a text"), Opinion((Spot(0, 1, replacement="a text"),))]
)
def test_an_opinion_that_holds_a_text_is_not_kept(opinion: Opinion) -> None:
    opinions = Opinions()
    opinions.put(key(1), opinion, 10)
    assert opinions.get(key(1), 0) is None


def test_a_breaker_opens_after_five_failures_in_a_row_for_ten_seconds() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.failed(100)
    breaker.succeeded()
    for _ in range(4):
        breaker.failed(100)
    assert not breaker.is_open(100)
    breaker.failed(100)
    assert breaker.is_open(100 + OPEN_S - 0.1)
    assert not breaker.is_open(100 + OPEN_S)
    breaker.failed(111)  # the next one that fails opens it again
    assert breaker.is_open(112)
    breaker.succeeded()
    assert not breaker.is_open(112)


def test_breakers_are_bounded() -> None:
    opinions = Opinions()
    first = opinions.breaker(key(0))
    for number in range(2000):
        opinions.breaker(key(number))
    assert opinions.breaker(key(0)) is not first


def asking(content: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()


async def test_a_check_under_way_ends_in_peace_when_its_address_is_gone() -> None:
    """A new snapshot retires the pool; the request keeps the rules that it began with."""
    go = asyncio.Event()

    async def later(peer: Any) -> None:
        await go.wait()
        await peer.send(said({"verdict": "violation"}))

    async with HttpService() as service:
        service.play(later)
        rule = external("http", service.url, config={"timeout_ms": 5000})
        async with outside_world(pack_of(rule)) as w:
            task = asyncio.get_running_loop().create_task(w.ask(asking("hello")))
            async with asyncio.timeout(5):
                while not service.asked:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            w.transports.retain([])
            go.set()
            assert (await task).status == 400
            assert w.asked == ["violation"]


async def test_the_address_of_a_check_is_kept_with_its_rules() -> None:
    rule = external("http", "http://127.0.0.1:9/check")
    async with outside_world(pack_of(rule)) as w:
        places = [place.id for place in w.rules.workspaces["default"].places()]
        assert places[0] == "openai"
        assert any(place.startswith("guard.") for place in places)


async def test_an_anthropic_stream_is_asked_about_block_by_block() -> None:
    blocks = [
        begun(0, {"type": "text", "text": ""}),
        piece(0, {"type": "text_delta", "text": "I am An"}),
        piece(0, {"type": "text_delta", "text": "na."}),
        ended(0),
        begun(1, {"type": "text", "text": ""}),
        piece(1, {"type": "text_delta", "text": "And you?"}),
        ended(1),
    ]
    async with PresidioService({"Anna": "PERSON"}) as service:
        rule = external("presidio", service.url, action="redact", scope={"direction": "response"})
        script = told(*blocks)
        async with outside_world(pack_of(rule), primary=ANTHROPIC, scripts=[script]) as w:
            caller = await w.ask(MESSAGE_STREAM, MESSAGES)
            assert service.texts == ["I am Anna.", "And you?"]
            assert b"[PERSON]" in caller.received
            assert b"Anna" not in caller.received
            assert b"message_stop" in caller.received


# --- spans in a lane


def test_a_lane_is_cut_alike_however_its_text_comes() -> None:
    """Random texts, spans and pieces: what leaves is the union of the spans taken out."""
    chance = random.Random(7)
    guard = compile_guard([pack(SECRET_RULE)], GuardSettings())
    for _ in range(500):
        text = "".join(chance.choice("ab KEY1234é") for _ in range(chance.randrange(1, 80)))
        cuts = []
        for _ in range(chance.randrange(4)):
            start = chance.randrange(len(text))
            cuts.append((start, min(start + chance.randrange(1, 20), len(text)), "#"))
        lane = guard.span_lane("text")
        lane.around(guard.lane("text"))
        assert isinstance(lane, SpanLane)
        for start, end, words in cuts:
            lane.cut(start, end, words)
        out, at = [], 0
        while at < len(text):
            size = chance.randrange(1, 9)
            out.append(lane.feed(text[at : at + size]))
            at += size
        out.append(lane.finish())
        whole = guard.span_lane("text")
        whole.around(guard.lane("text"))
        for start, end, words in cuts:
            whole.cut(start, end, words)
        assert "".join(out) == whole.feed(text) + whole.finish()
        kept = [c for at, c in enumerate(text) if not any(s <= at < e for s, e, _ in cuts)]
        if "KEY" not in text:
            assert "".join(out).replace("#", "") == "".join(kept)
