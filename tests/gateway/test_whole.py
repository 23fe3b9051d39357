"""Answers that must be JSON of a schema: whole ones, and streams, which are held to their end."""

import asyncio
import json

import pytest

from proxy.model.failover import Outcome
from proxy.model.policy import PolicyPack, Rule
from proxy.model.ports import TransportFault
from proxy.model.tenancy import Route
from tests.kit.builders import (
    ANTHROPIC,
    JSON,
    OPENAI,
    SECRET_RULE,
    SPARE,
    World,
    pack,
    policy,
    world,
)
from tests.kit.fakes import Step
from tests.kit.shapes import (
    CHAT,
    DONE,
    MESSAGE,
    MESSAGE_STREAM,
    MESSAGES,
    STOP,
    STREAM,
    Doc,
    begun,
    call,
    chat,
    chunk,
    ended,
    piece,
    told,
)

SCHEMA = {"type": "object", "required": ["berth"], "properties": {"berth": {"type": "integer"}}}
GOOD, FENCED, BAD = '{"berth": 7}', '```json\n{"berth": 7}\n```', '{"berth": "seven"}'


def rule(**members: object) -> Rule:
    said = {
        "rule_id": "shape",
        "kind": "json_schema",
        "action": "block",
        "config": {"schema": SCHEMA},
    }
    return Rule.model_validate(said | members)


def over(guard: PolicyPack, *scripts: list[Step], recovery: str = "off", claude: bool = False,
         failover: bool = False) -> World:  # fmt: skip
    first = ANTHROPIC if claude else OPENAI
    route = Route.model_validate(
        {"id": "chat", "endpoint": first.id, "policy_packs": [guard.policy_pack_id],
         "stream_recovery": recovery}
    )  # fmt: skip
    given = {first.id: scripts[:1], SPARE.id: scripts[1:]} if failover else {first.id: scripts}
    chain = policy("openai", "spare") if failover else None
    return world((first, SPARE), scripts=given, packs=[guard], routes=[route], failover=chain)


def answered(*texts: str | None, **more: object) -> list[Step]:
    choices = [{"index": at, "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, **more}}
               for at, text in enumerate(texts)]  # fmt: skip
    return [(200, JSON), json.dumps({"id": "c", "choices": choices}).encode(), None]


def messaged(*texts: str, **more: object) -> list[Step]:
    blocks = [{"type": "text", "text": text} for text in texts]
    doc: Doc = {"type": "message", "role": "assistant", "content": [*blocks, *more.values()],
                "stop_reason": "end_turn"}  # fmt: skip
    return [(200, JSON), json.dumps(doc).encode(), None]


def streamed(text: str) -> list[Step]:
    return chat(*[chunk({"content": each}) for each in text], STOP)


LOOK = {"tool_calls": [{"id": "t", "type": "function",
                        "function": {"name": "look", "arguments": "{}"}}]}  # fmt: skip
WHOLE: list[tuple[list[Step], int]] = [
    (answered(GOOD), 200),
    (answered(FENCED), 200),
    (answered(BAD), 400),
    (answered("berth 7"), 400),
    (answered(""), 400),
    (answered(None), 400),
    (answered(GOOD, BAD), 400),  # every choice counts
    (answered(GOOD, GOOD), 200),
    (answered(None, **LOOK), 200),  # a call of a tool is no text
    (answered(BAD, **LOOK), 400),
    (answered(None, refusal="No."), 200),
]


@pytest.mark.parametrize(("script", "status"), WHOLE)
async def test_whole_answers(script: list[Step], status: int) -> None:
    w = over(pack(rule()), script)
    caller = await w.ask(CHAT)
    assert caller.status == status
    record = w.record
    if status == 200:
        assert caller.received == script[1]
        assert record.policy_results == []
        return
    (result,) = record.policy_results
    assert (result.rule_matched, result.detector, result.verdict, result.action_taken) == (
        "shape", "json_schema", "violation", "block",
    )  # fmt: skip
    assert (result.direction, result.applies_to, result.span_start) == ("response", "text", 0)
    assert record.outcome == "blocked"
    assert record.attempts[0].outcome is Outcome.BLOCKED
    assert b"seven" not in caller.received


MESSAGED = [
    (messaged(GOOD), 200),
    (messaged('{"berth":', "7}"), 200),  # blocks are parts of one text
    (messaged(BAD), 400),
    (messaged(tool={"type": "tool_use", "id": "t", "name": "look", "input": {}}), 200),
    (messaged(), 400),
]


@pytest.mark.parametrize(("script", "status"), MESSAGED)
async def test_whole_messages(script: list[Step], status: int) -> None:
    caller = await over(pack(rule()), script, claude=True).ask(MESSAGE, MESSAGES)
    assert caller.status == status


@pytest.mark.parametrize("text", [GOOD, FENCED])
async def test_a_stream_that_fits_leaves_whole(text: str) -> None:
    script = streamed(text)
    w = over(pack(rule()), script)
    caller = await w.ask(STREAM)
    assert caller.status == 200
    assert caller.received == b"".join(each for each in script if isinstance(each, bytes))
    assert not caller.cut
    record = w.record
    assert (record.outcome, record.policy_results) == ("success", [])


async def test_nothing_of_a_stream_leaves_before_its_end() -> None:
    *script, _, _ = streamed(GOOD)
    w = over(pack(rule()), script)
    asking = asyncio.get_running_loop().create_task(w.ask(STREAM))
    for _ in range(60):
        await asyncio.sleep(0)
    sink = w.upstreams["openai"].sinks[-1]
    assert not asking.done()
    sink.data(DONE)
    sink.end()
    caller = await asking
    assert len(caller.pieces) <= 2
    assert caller.received.endswith(DONE)


@pytest.mark.parametrize("text", [BAD, "berth 7", ""])
async def test_a_stream_that_does_not_fit_is_an_error(text: str) -> None:
    w = over(pack(rule()), streamed(text))
    caller = await w.ask(STREAM)
    assert caller.status == 400
    assert json.loads(caller.received)["error"]["code"] == "content_filter"
    record = w.record
    assert (record.outcome, record.policy_results[0].rule_matched) == ("blocked", "shape")
    assert record.truncated_by_policy is False
    assert len(record.attempts) == 1


async def test_style_finish_ends_such_a_stream_in_order() -> None:
    caller = await over(pack(rule(), block_style="finish"), streamed(BAD)).ask(STREAM)
    assert caller.status == 200
    assert b"seven" not in caller.received
    assert b'"content_filter"' in caller.received
    assert caller.received.endswith(DONE)


async def test_a_stream_of_a_tool_call_leaves() -> None:
    script = chat(chunk(call("{}")), chunk({}, "tool_calls"))
    caller = await over(pack(rule()), script).ask(STREAM)
    assert caller.status == 200
    assert b"look" in caller.received


@pytest.mark.parametrize(("pieces", "status"), [(['{"ber', 'th":7}'], 200), ([BAD], 400)])
async def test_message_streams(pieces: list[str], status: int) -> None:
    deltas = [piece(0, {"type": "text_delta", "text": text}) for text in pieces]
    script = told(begun(0, {"type": "text", "text": ""}), *deltas, ended(0))
    caller = await over(pack(rule()), script, claude=True).ask(MESSAGE_STREAM, MESSAGES)
    assert caller.status == status


async def test_what_is_judged_is_what_came_and_what_leaves_is_redacted() -> None:
    text = '{"berth": 7, "key": "KEY1234"}'
    for asked, script in ((CHAT, answered(text)), (STREAM, streamed(text))):
        caller = await over(pack(rule(), SECRET_RULE), script).ask(asked)
        assert caller.status == 200
        assert b"KEY1234" not in caller.received
        assert b"[KEY]" in caller.received


@pytest.mark.parametrize(
    ("members", "flagged", "action"),
    [
        ({"action": "flag"}, True, "flag"),
        ({"action": "log"}, False, "log"),
        ({"mode": "shadow"}, False, "none"),
    ],
)
@pytest.mark.parametrize("asked", [CHAT, STREAM])
async def test_rules_that_only_record_hold_nothing(
    asked: bytes, members: dict[str, object], flagged: bool, action: str
) -> None:
    script = answered(BAD) if asked is CHAT else streamed(BAD)
    w = over(pack(rule(**members)), script, recovery="resume")
    caller = await w.ask(asked)
    assert caller.status == 200
    if asked is STREAM:
        assert len(caller.pieces) > 3
    record = w.record
    (result,) = record.policy_results
    assert (result.action_taken, record.flagged) == (action, flagged)


# --- streams that fail


async def test_a_held_stream_that_dies_goes_on_elsewhere() -> None:
    dying: list[Step] = [*streamed(GOOD)[:4], TransportFault("read", "reset")]
    w = over(pack(rule()), dying, streamed(GOOD), failover=True)
    caller = await w.ask(STREAM)
    assert caller.status == 200
    assert caller.received.endswith(DONE)
    assert w.record.endpoint_id == "spare"


async def test_a_held_stream_that_ends_early_is_no_answer() -> None:
    short: list[Step] = [*streamed(GOOD)[:4], None]
    caller = await over(pack(rule()), short).ask(STREAM)
    assert caller.status == 502


async def test_an_answer_too_long_to_be_held_cannot_be_checked() -> None:
    long = chat(*[chunk({"content": "x" * 50_000}) for _ in range(400)], STOP)
    w = over(pack(rule()), long)
    caller = await w.ask(STREAM)
    assert caller.status == 400
    (result,) = w.record.policy_results
    assert (result.verdict, result.message) == ("error", "AnswerTooLong")


async def test_with_on_error_allow_it_passes_and_says_so() -> None:
    long = chat(*[chunk({"content": "x" * 50_000}) for _ in range(400)], STOP)
    w = over(pack(rule(on_error="allow")), long)
    caller = await w.ask(STREAM)
    assert caller.status == 200
    assert caller.received.endswith(DONE)
    (result,) = w.record.policy_results
    assert (result.verdict, result.action_taken) == ("bypassed", "none")


# --- where such a rule cannot stand


async def test_a_route_that_resumes_streams_cannot_hold_answers() -> None:
    caller = await over(pack(rule()), answered(GOOD), recovery="resume").ask(CHAT)
    assert caller.status >= 500
    assert b"stream_recovery" in caller.received
    assert (await over(pack(rule()), answered(GOOD), recovery="buffer").ask(CHAT)).status == 200


async def test_vectors_have_no_schema() -> None:
    script: list[Step] = [(200, JSON), b'{"object":"list","data":[]}', None]
    w = over(pack(rule()), script)
    caller = await w.ask(b'{"model":"m","input":"hello"}', "/v1/embeddings")
    assert caller.status == 200
