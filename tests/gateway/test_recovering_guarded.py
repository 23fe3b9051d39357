"""Streams that die on guarded routes: what is held is thrown away, what has left stays judged."""

import asyncio
import random
from typing import Any

import pytest

from proxy.gateway.pipeline import serve
from proxy.model.policy import Rule
from proxy.model.ports import TransportFault
from proxy.runtime.tasks import spawn
from tests.gateway.recovering import PAIRS, SENTENCE, Dying, Pair
from tests.kit.builders import BLOCK_RULE, SECRET_RULE, SPARE, SSE, pack, policy
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.outside import external, outside_world, pack_of
from tests.kit.provider import FakeProvider
from tests.kit.reading import read_chat
from tests.kit.replies import ok
from tests.kit.reply import Prefill
from tests.kit.services import HttpService
from tests.kit.shapes import ROLE, STREAM, chunk

EVERY_PAIR = pytest.mark.parametrize("pair", PAIRS)
LONG_RULE = SECRET_RULE.model_copy(update={"replacement": "<hidden-it>"})  # as long as the secret
HOLDING = pack(LONG_RULE, Rule(rule_id="wise", kind="terms", pattern=["red falcon lands"],
                                 action="redact"))  # fmt: skip
REVERSIBLE = pack(
    Rule(
        rule_id="mail", pattern=r"[a-z]+@example\.org", action="redact", label="EMAIL",
        reversible=True,
    )
)  # fmt: skip
SIZES = [
    pytest.param(7, marks=pytest.mark.thorough),
    *(pytest.param(size, marks=pytest.mark.exhaustive) for size in (1, 3)),
]
SECRET = "The spare code is KEY12345678 and the red falcon stays where the KEY is."
HIDDEN = "The spare code is <hidden-it> and the red falcon stays where the KEY is."


def by(size: int, text: str = SECRET) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@EVERY_PAIR
@pytest.mark.parametrize("manner", ["exact", "spaced", "ignored"])
@pytest.mark.parametrize("prefill", [True, False])
@pytest.mark.parametrize("size", SIZES)
async def test_p05_fo_53_54_at_every_place(
    pair: Pair, manner: Prefill, prefill: bool, size: int
) -> None:
    """Whole text, or a clean error where the second answer cannot be fitted; never the secret, and
    never a character twice or missing."""
    whole = 0
    pieces = by(size)
    for after in range(1, len(pieces)):
        fallback = ok(pieces=by(5)).continuing(manner)
        w = Dying(pair, ok(pieces=pieces).cut(after=after), fallback, prefill=prefill,
                      packs=[HOLDING])  # fmt: skip
        said = await w.ask()
        assert "KEY1" not in said.text
        if said.whole and manner != "spaced" and not (prefill and manner == "ignored"):
            assert said.text == HIDDEN, (size, after)
        whole += said.whole
        if not said.whole:
            assert said.error is not None or not said.text
    assert whole


@EVERY_PAIR
async def test_p05_cut_inside_a_word_while_the_guard_holds_it(pair: Pair) -> None:
    """`red falcon` is held: the continuation must begin with it again."""
    text = "It is late and the red falcon sleeps."
    for manner in ("exact", "spaced"):
        w = Dying(pair, ok(pieces=["It is late and the ", "red fal"]).cut(after=2),
                  ok(text).continuing(manner), packs=[HOLDING])  # fmt: skip
        said = await w.ask()
        assert (said.text, said.whole) == (text, True)
        assert w.fallback.requests[0].messages[-1]["content"] == "It is late and the"
        assert w.world.record.decisions[0].resumed_at_chars == len("It is late and the ")


@EVERY_PAIR
async def test_fo_53_a_continuation_that_begins_another_word(pair: Pair) -> None:
    text = "Take the xKEY home and then sleep for long."
    dies = ok(pieces=["Take the x", "KE"]).cut(after=2)
    w = Dying(pair, dies, ok(text).continuing("spaced"), packs=[HOLDING])
    said = await w.ask()
    assert (said.text, said.whole) == (text, True)
    assert w.recoveries == [("prefill", "misfit"), ("restart", "recovered")]


@EVERY_PAIR
async def test_fo_54_what_was_redacted_stays_so_in_a_restart(pair: Pair) -> None:
    pieces = by(6)
    w = Dying(pair, ok(pieces=pieces).cut(after=8), ok(pieces=by(4)), prefill=False,
              packs=[HOLDING])  # fmt: skip
    said = await w.ask()
    assert (said.text, said.whole) == (HIDDEN, True)
    record = w.world.record
    (found,) = [each for each in record.policy_results if each.rule_matched == "test.key"]
    assert found.count == 1, "what was covered is not told twice"


@EVERY_PAIR
async def test_a_block_in_the_second_answer_is_final(pair: Pair) -> None:
    text = SENTENCE + " And here is the launch code of it."
    for prefill in (True, False):
        w = Dying(pair, ok(text).cut(after=6), ok(text).continuing("exact"), prefill=prefill,
                  packs=[pack(BLOCK_RULE)])  # fmt: skip
        said = await w.ask()
        assert said.text.startswith(SENTENCE)
        assert "launch" not in said.text
        assert w.world.record.outcome == "blocked"


@EVERY_PAIR
async def test_placeholders_are_not_restored_for_the_next_provider(pair: Pair) -> None:
    mail = "jane@example.org"
    messages = [{"role": "user", "content": f"Write to {mail}, please."}]
    seen = Dying(pair, ok("Fine."), ok("Fine."), packs=[REVERSIBLE])
    await seen.ask(messages=messages)
    hidden = seen.primary.requests[0].messages[0]["content"].split()[2].rstrip(",")
    assert hidden.startswith("[EMAIL_")
    text = f"I wrote to {hidden} today and {hidden} has answered me."
    for prefill in (True, False):
        dies = ok(pieces=by(5, text)).cut(after=7)
        w = Dying(pair, dies, ok(text).continuing("exact"), prefill=prefill, packs=[REVERSIBLE])
        said = await w.ask(messages=messages)
        assert (said.text, said.whole) == (text.replace(hidden, mail), True)
        assert mail.encode() not in w.fallback.requests[0].body
        assert hidden.encode() in w.fallback.requests[0].body
    assert w.fallback.requests[0].prefill is None


@EVERY_PAIR
@pytest.mark.thorough
async def test_fo_59_characters_of_several_bytes(pair: Pair) -> None:
    text = "Grüße 😀 an alle 価格は一千 und 👩‍👩‍👧 dazu."
    r = random.Random(7)
    for packs in ([], [HOLDING]):
        for after in range(1, len(text)):
            size = r.choice([1, 2, 3])
            dies = ok(pieces=by(size, text)).cut(after=after)
            w = Dying(pair, dies, ok(text).continuing("exact"), packs=packs)
            said = await w.ask()
            assert (said.text, said.whole) == (text, True), (after, size)


LONG = " ".join([SENTENCE] * 4)
CHECKS = [
    ("block", {"stage": "window", "window": {"size": 60, "overlap": 20}}),
    ("flag", {"stage": "post"}),
]


@pytest.mark.parametrize(("action", "config"), CHECKS, ids=["window", "post"])
async def test_where_a_check_outside_looks_there_is_only_a_restart(
    action: str, config: dict[str, Any]
) -> None:
    """It is asked about all of the second answer."""
    async with HttpService() as service, FakeProvider(ok(LONG)) as spare:
        rule = external(
            "http", service.url, scope={"direction": "response"}, action=action, config=config
        )
        second = SPARE.model_copy(update={"base_url": spare.url + "/v1", "supports_prefill": True})
        pieces = [f"{word} " for word in LONG.split(" ")[:40]]
        script: list[Step] = [(200, SSE), ROLE, *[chunk({"content": each}) for each in pieces]]
        async with outside_world(
            pack_of(rule), scripts=[script], endpoints=[second], failover=policy("openai", "spare")
        ) as w:
            caller = RecordingDownstream(request_body=STREAM)
            task = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="caller")
            async with asyncio.timeout(5):
                while b"quick" not in caller.received:  # noqa: ASYNC110 - nobody tells us
                    await asyncio.sleep(0.005)
            w.upstreams["openai"].sinks[0].failed(TransportFault("eof", response_bytes=9))
            await task
            record = w.record
    text = read_chat(caller.received)
    assert (text.text, text.whole, record.recovered) == (LONG, True, True)
    assert spare.journal[0].request.prefill is None
    # What was asked about the first answer may arrive after the end of the second.
    assert any(text.endswith("for a while.") for text in service.texts)
