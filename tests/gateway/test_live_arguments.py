"""Tool arguments that leave while they are written (`tool_args: live`).

The rules: `KEY` and four or more digits go; `launch code` is a block."""

import json
from collections.abc import Iterator

import pytest

from proxy.gateway.arguments import ArgumentsLane, leaves_live
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.guardrails.placeholders import Placeholders, Restoration
from proxy.guardrails.sampling import ALL
from proxy.model.policy import PolicyPack, Rule
from proxy.model.tenancy import GuardSettings
from tests.kit.builders import (
    ANTHROPIC,
    BLOCK_RULE,
    OPENAI,
    SECRET_RULE,
    World,
    pack,
    world,
)
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.shapes import (
    KEY,
    MESSAGE_STREAM,
    MESSAGES,
    STREAM,
    Doc,
    begun,
    call,
    chat,
    chunk,
    docs_of,
    ended,
    piece,
    told,
)

LIVE = pack(SECRET_RULE, BLOCK_RULE, tool_args="live")


def lane(*rules: Rule) -> ArgumentsLane:
    guard: Guard = compile_guard([pack(*(rules or (SECRET_RULE, BLOCK_RULE)))], GuardSettings())
    return ArgumentsLane(guard, ALL)


def said(of: ArgumentsLane, *pieces: str) -> list[str]:
    """What leaves with each piece, and at the end."""
    return [of.feed(text) for text in pieces] + [of.finish()]


# fmt: off
LEAVING = [
    # pieces                                   what leaves with each, and at the end
    (['{"a":"hello ', 'you"}'],                ['{"a":"hello ', 'you"}', ""]),
    (['{"a":"it is KE', 'Y123', '45 ok"}'],    ['{"a":"it is ', "", '[KEY] ok"}', ""]),
    ([r'{"a":"\u004bE', r'Y12345"}'],          ['{"a":"', '[KEY]"}', ""]),
    ([r'{"a":"\u004', r'bilo"}'],              ['{"a":"', r'\u004bilo"}', ""]),
    ([r'{"a":"x\/y \ud83d', r'\ude00"}'],      [r'{"a":"x\/y ', r'\ud83d\ude00"}', ""]),
    (['{"a":"KEY1', '2345', '","b":"KEY9"}'],  ['{"a":"', "", '[KEY]","b":"KEY9"}', ""]),
    (['{"a":"KE', 'X","b":[1,', "2]}"],        ['{"a":"', 'KEX","b":[1,', "2]}", ""]),
    (['"KEY12345"'],                           ['"[KEY]"', ""]),
    (["{}"],                                   ["{}", ""]),
    (["12"],                                   ["12", ""]),
    (['{"a":"cut KE'],                         ['{"a":"cut ', "KE"]),
    ([r'{"a":"cut \u00'],                      [r'{"a":"cut ', r"\u00"]),
    (["no json at all"],                       ["", "no json at all"]),
    (['{"a":"b"} and', " more"],               ['{"a":"b"} ', "", "and more"]),
]
# fmt: on


@pytest.mark.parametrize(("pieces", "leaves"), LEAVING)
def test_what_leaves_of_arguments(pieces: list[str], leaves: list[str]) -> None:
    found = lane()
    got = said(found, *pieces)
    assert got == leaves
    assert found.blocked is None
    assert found.held == 0


# fmt: off
BLOCKING = [
    # pieces                                           what has left
    (['{"a":"the launch co', 'de is"}'],               '{"a":"the '),
    ([r'{"a":"launch\u0020co', 'de"}'],                '{"a":"'),
    (['{"KEY12345":1', "}"],                           '{"KEY12345":1'),       # a key
    ([r'{"K\u0045Y12345":1', "}"],                     r'{"K\u0045Y12345":1'),
    (['{"a":{"b":[1,{"launch code":""}]}', "}"],       '{"a":{"b":[1,{"launch code":""}]}'),
    (["KEY12345"],                                     ""),                    # no JSON
    (['{"a":1} KEY1', "2345"],                         '{"a":1} '),
    (['{"a":KEY', "12345}"],                           '{"a":'),
    (['{"a":"KEY12345"'],                              '{"a":"[KEY]"'),       # cut off
    (['{"a":"KEY12345","a":"x"', "}"],                 '{"a":"[KEY]","a":"x"'),   # twice
    (["[" * 100 + '"KEY12345"' + "]" * 100],     "[" * 64),              # too deep
]
# fmt: on


@pytest.mark.parametrize(("pieces", "left"), BLOCKING)
def test_what_blocks(pieces: list[str], left: str) -> None:
    found = lane()
    assert "".join(said(found, *pieces)) == left
    assert found.blocked is not None
    assert found.message
    assert [r.applies_to for r in found.results()] == ["tool_args"] * len(found.results())
    assert found.feed("more") == found.finish() == ""


def test_numbers_are_looked_at_before_the_last_bracket_leaves() -> None:
    number = Rule(rule_id="n", pattern=r"\b99[0-9]{4,}", action="redact")
    found = lane(number)
    assert said(found, '{"a":99', "1234", "}") == ['{"a":99', "1234", "", ""]
    assert found.blocked is not None


def test_one_result_per_rule_however_many_strings() -> None:
    found = lane()
    text = json.dumps({f"k{n}": f"{KEY} {n}" for n in range(300)})
    assert KEY not in "".join(said(found, text))
    assert [result.count for result in found.results()] == [300]
    assert 0 < found.scanned_chars <= len(text)


def test_arguments_leave_live_where_nothing_wants_the_whole_of_them() -> None:
    def live(*packs: PolicyPack, restoration: Restoration | None = None) -> bool:
        return leaves_live(compile_guard([*packs], GuardSettings()), restoration)

    hold = pack(SECRET_RULE).model_copy(update={"policy_pack_id": "other"})
    logs = SECRET_RULE.model_copy(update={"action": "log"})
    assert live(LIVE)
    assert not live(LIVE, hold)  # the strictest counts
    assert not live(pack(logs, tool_args="live"))  # nothing is held anyway
    assert not live(LIVE, restoration=Placeholders(b"k" * 32).restoration())


# --- in streams


def openai(script: list[Step], *packs: PolicyPack) -> World:
    return world((OPENAI,), scripts={"openai": [script]}, packs=[*(packs or (LIVE,))])


def anthropic(script: list[Step], *packs: PolicyPack) -> World:
    return world((ANTHROPIC,), scripts={"anthropic-claude": [script]}, packs=[*(packs or (LIVE,))])


def more(arguments: str, place: int = 0, **members: object) -> Doc:
    entry = {"index": place, "function": {"arguments": arguments}}
    return {"tool_calls": [entry | members]}


def deltas(caller: RecordingDownstream) -> list[Doc]:
    return [json.loads(json.dumps(doc))["choices"][0]["delta"] for doc in docs_of(caller)]


def entries(caller: RecordingDownstream) -> Iterator[Doc]:
    for delta in deltas(caller):
        calls = delta.get("tool_calls", [])
        assert isinstance(calls, list)
        yield from calls


def arguments(caller: RecordingDownstream, place: int = 0) -> list[str]:
    found = [entry for entry in entries(caller) if entry["index"] == place]
    return [json.loads(json.dumps(entry))["function"].get("arguments", "") for entry in found]


CALLS = "tool_calls"


async def test_clean_events_leave_as_they_came() -> None:
    events = [chunk(call("")), chunk(more('{"a": "or')), chunk(more('so "')), chunk(more("}"))]
    w = openai(chat(*events, chunk({}, CALLS)))
    caller = await w.ask(STREAM)
    assert b"".join(events) in caller.received


async def test_a_secret_split_over_fragments_is_taken_out() -> None:
    events = [chunk(call("")), *(chunk(more(t)) for t in ('{"a":"it is K', "EY12", '345 ok"}'))]
    w = openai(chat(*events, chunk({}, CALLS)))
    caller = await w.ask(STREAM)
    said = arguments(caller)
    assert said[1] == '{"a":"it is '
    assert KEY not in json.loads("".join(said))["a"]
    assert w.record.outcome == "success"


async def test_the_old_function_call_flows_too() -> None:
    texts = ('{"a":"it is KE', 'Y12345 ok"', "}")
    first: Doc = {"function_call": {"name": "look", "arguments": texts[0]}}
    rest = [chunk({"function_call": {"arguments": text}}) for text in texts[1:]]
    w = openai(chat(chunk(first), *rest, chunk({}, "function_call")))
    caller = await w.ask(STREAM)
    said = [d["function_call"] for d in deltas(caller) if "function_call" in d]
    texts_left = [json.loads(json.dumps(each)).get("arguments", "") for each in said]
    assert texts_left[0] == '{"a":"it is '
    assert KEY not in json.loads("".join(texts_left))["a"]


async def test_a_cut_legacy_call_keeps_its_member() -> None:
    first: Doc = {"function_call": {"name": "look", "arguments": '{"a":"KE'}}
    w = openai(chat(chunk(first), chunk({}, "length")))
    caller = await w.ask(STREAM)
    said = [
        json.loads(json.dumps(d["function_call"])) for d in deltas(caller) if "function_call" in d
    ]
    assert "".join(each["arguments"] for each in said) == '{"a":"KE'
    assert not list(entries(caller))


async def test_a_block_ends_the_stream() -> None:
    w = openai(chat(chunk(call('{"a":"the launch co')), chunk(more('de is"}')), chunk({}, CALLS)))
    caller = await w.ask(STREAM)
    assert "".join(arguments(caller)) == '{"a":"the '
    last = json.loads(json.dumps(docs_of(caller)[-1]))
    assert last["choices"][0]["finish_reason"] == "content_filter"
    record = w.record
    assert (record.outcome, record.truncated_by_policy) == ("blocked", True)


async def test_calls_in_parallel_do_not_mix() -> None:
    second = call('{"b":"KEY1', index=1, id="t2")
    events = [call('{"a":"KE'), second, more('Y12345"}'), more('2345"}', 1)]
    w = openai(chat(*map(chunk, events), chunk({}, CALLS)))
    caller = await w.ask(STREAM)
    for place, name in enumerate("ab"):
        assert json.loads("".join(arguments(caller, place))) == {name: "[KEY]"}


# fmt: off
HELD: dict[str, list[Doc]] = {
    "no name yet": [call("", function={"arguments": "{"}),
                    more("", function={"name": "look", "arguments": '"a":1}'})],
    "a custom tool": [call("", type="custom", custom={"name": "f", "input": "a"}, function=None)],
    "a member that nobody knows": [call("{}", note=KEY)],
}
# fmt: on


@pytest.mark.parametrize("events", HELD.values(), ids=HELD)
async def test_a_call_that_does_not_tell_at_once_what_it_is_is_held(events: list[Doc]) -> None:
    w = openai(chat(*map(chunk, events), chunk({}, CALLS)))
    caller = await w.ask(STREAM)
    assert len(list(entries(caller))) == 1
    assert KEY not in caller.received.decode()


# fmt: off
SMUGGLED: dict[str, Doc] = {
    "an unknown member": more("", note=KEY),
    "a second name": {"tool_calls": [{"index": 0, "function": {"name": KEY, "arguments": ""}}]},
    "in the function": {"tool_calls": [{"index": 0, "function": {"arguments": "", "note": KEY}}]},
    "a type": more("", type=KEY),
    "a type that is no string": more("", type=[KEY]),
    "a function that is no object": more("", function=KEY),
    "arguments that are no string": more("", function={"arguments": {"a": KEY}}),
}
# fmt: on


@pytest.mark.parametrize("event", SMUGGLED.values(), ids=SMUGGLED)
async def test_later_fragments_bring_arguments_and_nothing_else(event: Doc) -> None:
    w = openai(chat(chunk(call('{"a":"b')), chunk(event), chunk(more('"}')), chunk({}, CALLS)))
    caller = await w.ask(STREAM)
    assert KEY not in caller.received.decode()
    assert "".join(arguments(caller)) == '{"a":"b"}'


@pytest.mark.parametrize("kind", ["custom", "input"])
async def test_a_call_of_two_kinds_breaks_the_stream(kind: str) -> None:
    strange = {"custom": {"input": KEY}} if kind == "custom" else {"function": {"input": KEY}}
    w = openai(chat(chunk(call('{"a":"b')), chunk(more("", **strange)), chunk({}, CALLS)))
    caller = await w.ask(STREAM)
    assert KEY not in caller.received.decode()
    assert w.record.outcome == "interrupted"


async def test_too_long_a_call_breaks_the_stream() -> None:
    pieces = [chunk(more("x" * 65_536)) for _ in range(17)]
    w = openai(chat(chunk(call('{"a":"')), *pieces, chunk({}, CALLS)))
    await w.ask(STREAM)
    assert w.record.outcome == "interrupted"


def tools(action: str, **members: object) -> PolicyPack:
    config = {"tools": [{"resource": "denied", "decision": "deny"},
                        {"resource": "look", "args": [{"path": "$.limit", "max": 9}]}]}  # fmt: skip
    rule = {"rule_id": "tools", "kind": "tool_permission", "action": action,
            "config": {"default": "allow", **config}}  # fmt: skip
    return PolicyPack.model_validate(
        {"policy_pack_id": "tools", "tool_args": "live", "rules": [rule]}
    )


def named(name: str, text: str, place: int = 0) -> Doc:
    return call(text, index=place, id=f"t{place}", function={"name": name, "arguments": text})


async def test_nothing_of_a_denied_call_leaves() -> None:
    events = [
        named("denied", '{"s":"s3cr', 0),
        named("free", '{"a":"b', 1),
        more('et"}', 0),
        more('"}', 1),
    ]
    w = openai(chat(*map(chunk, events), chunk({}, CALLS)), tools("redact"), LIVE)
    caller = await w.ask(STREAM)
    assert b"s3cr" not in caller.received
    assert b"[tool call denied denied]" in caller.received
    assert [e["id"] for e in entries(caller) if "id" in e] == ["t1"]
    assert arguments(caller) == ['{"a":"b', '"}']  # it moved up, and left as it came


async def test_a_call_whose_permission_hangs_on_its_arguments_is_held() -> None:
    events = [named("look", '{"limit":'), more("100}")]
    w = openai(chat(*map(chunk, events), chunk({}, CALLS)), tools("block"), LIVE)
    caller = await w.ask(STREAM)
    assert b"limit" not in caller.received
    assert w.record.outcome == "blocked"


# --- Anthropic


def using(*pieces: str, name: str = "free", **members: object) -> list[Doc]:
    block = {"type": "tool_use", "id": "t", "name": name, "input": {}} | members
    texts = [piece(0, {"type": "input_json_delta", "partial_json": text}) for text in pieces]
    return [begun(0, block), *texts, ended(0)]


def inputs(caller: RecordingDownstream) -> list[str]:
    found = [json.loads(json.dumps(doc)) for doc in docs_of(caller)]
    return [d["delta"]["partial_json"] for d in found if "partial_json" in d.get("delta", {})]


async def test_clean_input_leaves_as_it_came() -> None:
    script = told(*using("", '{"a": "or', 'so"}'))
    w = anthropic(script)
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    assert b"".join(s for s in script if isinstance(s, bytes)) == caller.received


async def test_a_secret_split_over_input_is_taken_out() -> None:
    w = anthropic(told(*using('{"a":"it is KE', r"Y1\u0032", '345 ok"}')))
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    assert inputs(caller)[0] == '{"a":"it is '
    assert "345" not in json.loads("".join(inputs(caller)))["a"]


async def test_a_block_in_input_ends_the_message() -> None:
    w = anthropic(told(*using('{"launch code":"x', '"}')))
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    kinds = [doc["type"] for doc in docs_of(caller)]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "}" not in "".join(inputs(caller))
    assert b'"refusal"' in caller.received
    assert w.record.outcome == "blocked"


async def test_cut_input_is_looked_at_before_its_end_leaves() -> None:
    w = anthropic(told(*using('{"a":"x","KEY12345":"KE')))
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    assert "".join(inputs(caller)) == '{"a":"x","KEY12345":"'
    assert w.record.outcome == "blocked"


async def test_input_that_comes_with_the_block_is_held() -> None:
    w = anthropic(told(*using(input={"a": KEY})))
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    assert KEY not in caller.received.decode()
    assert len(inputs(caller)) == 1


async def test_nothing_of_a_denied_block_leaves() -> None:
    docs = [*using('{"s":"s3cret"}', name="denied")]
    w = anthropic(told(*docs), tools("redact"), LIVE)
    caller = await w.ask(MESSAGE_STREAM, MESSAGES)
    assert b"s3cret" not in caller.received
    assert b"[tool call denied denied]" in caller.received


async def test_too_long_an_input_breaks_the_stream() -> None:
    w = anthropic(told(*using('{"a":"', *["x" * 65_536] * 17)))
    await w.ask(MESSAGE_STREAM, MESSAGES)
    assert w.record.outcome == "interrupted"


async def test_a_lost_piece_of_input_breaks_the_stream() -> None:
    script = told(*using('{"a":"', "b", '"}'))
    script[4] = b"event: content_block_delta\ndata: {nonsense\n\n"
    w = anthropic(script)
    await w.ask(MESSAGE_STREAM, MESSAGES)
    assert w.record.outcome == "interrupted"
