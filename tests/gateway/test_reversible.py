"""Placeholders through the whole gateway: out of the request, and back into the answer.

The rule hides mail addresses in both directions; what it took out of a request is undone in the
answer, what the provider makes up itself is not.
"""

import json
import random
from collections.abc import Callable, Iterable

import pytest

from proxy.gateway.stream import Pump
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.placeholders import Placeholders, workspace_key
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack, Rule
from proxy.model.ports import TransportFault
from proxy.model.tenancy import GuardSettings
from proxy.spool.expand import events_of
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.sse import SseFramer
from tests.kit.builders import (
    ANTHROPIC,
    BLOCK_RULE,
    JSON,
    OPENAI,
    SECRET_RULE,
    SPARE,
    SSE,
    World,
    pack,
    policy,
    world,
)
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.shapes import (
    DONE,
    MESSAGES,
    ROLE,
    STOP,
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

JANE = "jane.doe@example.com"
QUOTED = 'jane "jd" doe@example.com'
MAIL = Rule(
    rule_id="email", pattern=r"[a-z.]+@[a-z.]+[a-z]", action="redact", reversible=True
)  # fmt: skip
ODD = Rule(
    rule_id="quoted", pattern=r'jane "jd" [a-z]+@[a-z.]+[a-z]', action="redact", reversible=True,
    label="EMAIL",
)  # fmt: skip
PACK = pack(MAIL, BLOCK_RULE)
ASKING = pack(MAIL, ODD, scope={"direction": "request"})
COMPLETIONS = "/v1/completions"
RESET = TransportFault("reset", "by peer", response_bytes=100)


def token_of(value: str) -> str:
    """What a value becomes in the workspace of these tests."""
    found = Placeholders(workspace_key(b"k" * 32, "default")).issue("EMAIL", value)
    assert found is not None
    return found


TOKEN = token_of(JANE)


def asking(text: str = f"write to {JANE}", **more: object) -> bytes:
    message = {"role": "user", "content": text}
    return json.dumps({"model": "m", "messages": [message], "max_tokens": 9} | more).encode()


ASKED = asking()
STREAMED = asking(stream=True)


def openai(*scripts: list[Step], guard: PolicyPack = PACK) -> World:
    return world((OPENAI,), scripts={"openai": scripts}, packs=[guard])


def anthropic(script: list[Step], guard: PolicyPack = PACK) -> World:
    return world((ANTHROPIC,), scripts={"anthropic-claude": [script]}, packs=[guard])


def whole(doc: Doc) -> list[Step]:
    return [(200, JSON), json.dumps(doc).encode(), None]


def answered(message: Doc, **more: object) -> list[Step]:
    return whole({"id": "c", "choices": [{"index": 0, "message": message, **more}]})


def sent_by(w: World) -> bytes:
    """The last body that the provider got."""
    (upstream,) = w.upstreams.values()
    return upstream.sent[-1].body


def said(caller: RecordingDownstream, member: str = "content") -> str:
    """A streamed answer, put together: of the first choice."""
    out = ""
    for doc in docs_of(caller):
        for choice in json.loads(json.dumps(doc)).get("choices", []):
            if choice["index"] == 0:
                out += choice.get("delta", choice).get(member) or ""
    return out


def text_of(caller: RecordingDownstream) -> str:
    """The same for Anthropic."""
    out = ""
    for doc in json.loads(json.dumps(docs_of(caller))):
        block = doc.get("delta", doc.get("content_block", {}))
        out += block.get("text", "") + block.get("thinking", "") + block.get("partial_json", "")
    return out


# --- whole answers


async def test_the_provider_sees_the_placeholder_and_the_caller_the_address() -> None:
    w = openai(answered({"role": "assistant", "content": f"I wrote to {TOKEN}."}))
    caller = await w.ask(ASKED)
    assert sent_by(w) == ASKED.replace(JANE.encode(), TOKEN.encode())
    assert f"I wrote to {JANE}." in caller.received.decode()
    assert caller.length == len(caller.received)
    assert JANE.encode() not in b"".join(line for line, _ in w.notes.lines)
    assert w.record.placeholders_unrestored == 0


async def test_a_request_in_which_nothing_was_found_is_answered_byte_for_byte() -> None:
    w = openai(answered({"content": f" {TOKEN} "}), guard=ASKING)
    caller = await w.ask(asking("hello"))
    assert caller.received == whole({"id": "c", "choices": [
        {"index": 0, "message": {"content": f" {TOKEN} "}}]})[1]  # fmt: skip
    assert w.record.total_chars == len("hello")  # nobody has looked at the answer


async def test_what_another_request_has_issued_is_not_restored() -> None:
    reply = answered({"content": f"{TOKEN} and {token_of('a@b.co')}"})
    w = openai(reply, reply)
    await w.ask(ASKED)
    caller = await w.ask(asking("a@b.co"))
    assert f"{TOKEN} and a@b.co" in caller.received.decode()


async def test_the_rules_judge_what_the_provider_wrote() -> None:
    """Its own addresses are redacted for good; a restored one is not taken out again."""
    w = openai(answered({"content": f"{TOKEN} knows john@example.com"}))
    caller = await w.ask(ASKED)
    assert f"{JANE} knows [EMAIL]" in caller.received.decode()
    (asked, replied) = w.record.policy_results
    assert {(r.direction, r.count) for r in (asked, replied)} == {("request", 1), ("response", 1)}


async def test_a_blocked_answer_says_nothing() -> None:
    w = openai(answered({"content": f"{TOKEN}: the launch code"}))
    caller = await w.ask(ASKED)
    assert caller.status == 400
    assert JANE.encode() not in caller.received


async def test_log_probabilities_of_a_restored_text_are_null() -> None:
    probs = {"content": [{"token": TOKEN, "logprob": -1}]}
    w = openai(answered({"content": TOKEN}, logprobs=probs, token_ids=[1]), guard=ASKING)
    caller = await w.ask(ASKED)
    (choice,) = json.loads(caller.received)["choices"]
    assert choice["message"]["content"] == JANE
    assert (choice["logprobs"], choice["token_ids"]) == (None, None)


async def test_reasoning_and_annotations_keep_the_placeholder() -> None:
    notes = [{"type": "url_citation", "url_citation": {"title": TOKEN}}]
    message: Doc = {"content": TOKEN, "reasoning_content": TOKEN, "annotations": notes}
    w = openai(answered({**message, "refusal": TOKEN}), guard=ASKING)
    (choice,) = json.loads((await w.ask(ASKED)).received)["choices"]
    assert choice["message"] == {**message, "content": JANE, "refusal": JANE}


# fmt: off
SPELLED = [
    # what the model says                 what the caller reads                       unrestored
    (f"{TOKEN} {TOKEN}",                  f"{JANE} {JANE}",                           0),
    (TOKEN.lower() + TOKEN,               TOKEN.lower() + JANE,                       1),
    (TOKEN[1:-1] + " or " + TOKEN[:-1],   TOKEN[1:-1] + " or " + TOKEN[:-1],          2),
    ("[EMAIL_000000] [EMAIL]",            "[EMAIL_000000] [EMAIL]",                   0),
]
# fmt: on


@pytest.mark.parametrize(("answer", "read", "unrestored"), SPELLED)
async def test_exact_spelling_only_whole(answer: str, read: str, unrestored: int) -> None:
    w = openai(answered({"content": answer}))
    caller = await w.ask(ASKED)
    assert json.loads(caller.received)["choices"][0]["message"]["content"] == read
    assert told_unrestored(w) == unrestored


@pytest.mark.parametrize(("answer", "read", "unrestored"), SPELLED)
async def test_exact_spelling_only_streamed(answer: str, read: str, unrestored: int) -> None:
    w = openai(chat(*[chunk({"content": c}) for c in answer], STOP))
    assert said(await w.ask(STREAMED)) == read
    assert told_unrestored(w) == unrestored


def told_unrestored(w: World) -> int:
    """What the event says."""
    (line, _) = w.notes.lines[-1]
    payload = json.loads(json.dumps(events_of(line[:-1]).events[0].body))["payload"]
    found = payload.get("placeholders_unrestored", 0)
    assert found == w.record.placeholders_unrestored
    return int(found)


async def test_an_answer_of_another_attempt_is_restored_too() -> None:
    w = world(
        (OPENAI, SPARE), packs=[PACK], failover=policy("openai", "spare"),
        scripts={"openai": [[(503, JSON), b"{}", None]], "spare": [answered({"content": TOKEN})]},
    )  # fmt: skip
    caller = await w.ask(ASKED)
    assert JANE in caller.received.decode()
    assert JANE.encode() not in w.upstreams["spare"].sent[0].body


async def test_embeddings_have_no_words_to_restore() -> None:
    big = b'{"data":[' + b"1," * 9_000_000 + b"1]}"
    w = openai([(200, JSON), big, None], guard=ASKING)
    caller = await w.ask(json.dumps({"model": "m", "input": JANE}).encode(), "/v1/embeddings")
    assert JANE.encode() not in sent_by(w)
    assert (caller.status, caller.received) == (200, big)


async def test_legacy_completions() -> None:
    choice = {"index": 0, "text": f"hi {TOKEN}", "logprobs": {"tokens": [TOKEN]}}
    body = json.dumps({"model": "m", "prompt": f"for {JANE}"}).encode()
    w = openai(whole({"id": "c", "choices": [choice]}))
    (got,) = json.loads((await w.ask(body, COMPLETIONS)).received)["choices"]
    assert (got["text"], got["logprobs"]) == (f"hi {JANE}", None)
    assert JANE.encode() not in sent_by(w)


# --- streams


def legacy(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


TALK = f"I wrote to {TOKEN}, [sic] {TOKEN}!"
HEARD = TALK.replace(TOKEN, JANE)
Cut = Callable[[str], Iterable[str]]
CUTS: dict[str, Cut] = {
    "after every character": lambda text: text,
    "whole": lambda text: [text],
    "in threes": lambda text: [text[at : at + 3] for at in range(0, len(text), 3)],
    "inside the first": lambda text: [text[:15], text[15:]],
}


@pytest.mark.parametrize("guard", [PACK, ASKING], ids=["both", "request"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_a_chat_stream(cut: Cut, guard: PolicyPack) -> None:
    w = openai(chat(*[chunk({"content": c}) for c in cut(TALK)], STOP), guard=guard)
    caller = await w.ask(STREAMED)
    assert said(caller) == HEARD
    assert caller.received.endswith(DONE)
    assert JANE.encode() not in sent_by(w)


@pytest.mark.parametrize("guard", [PACK, ASKING], ids=["both", "request"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_a_message_stream(cut: Cut, guard: PolicyPack) -> None:
    deltas = [piece(0, {"type": "text_delta", "text": c}) for c in cut(TALK)]
    w = anthropic(told(begun(0, {"type": "text", "text": ""}), *deltas, ended(0)), guard)
    caller = await w.ask(STREAMED, MESSAGES)
    assert text_of(caller) == HEARD
    assert [doc["type"] for doc in docs_of(caller)][-3:] == [
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert JANE.encode() not in sent_by(w)


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_a_stream_of_legacy_completions(cut: Cut) -> None:
    script: list[Step] = [(200, SSE), *[legacy(c) for c in cut(TALK)], legacy("", "stop"), DONE]
    w = openai([*script, None])
    body = json.dumps({"model": "m", "prompt": JANE, "stream": True}).encode()
    assert said(await w.ask(body, COMPLETIONS), "text") == HEARD


async def test_two_choices_are_not_joined() -> None:
    half, rest = TOKEN[:7], TOKEN[7:]
    events = [
        chunk({"content": half}), chunk({"role": "assistant", "content": half}, index=1),
        chunk({"content": rest}), chunk({"content": "!"}, index=1), STOP, chunk({}, "stop", 1),
    ]  # fmt: skip
    caller = await openai(chat(*events)).ask(asking(stream=True, n=2))
    assert said(caller) == JANE
    docs = json.loads(json.dumps(docs_of(caller)))
    other = [d["choices"][0]["delta"].get("content", "") for d in docs if d["choices"][0]["index"]]
    assert "".join(other) == half + "!"


async def test_the_last_piece_may_carry_the_finish_reason() -> None:
    script = chat(chunk({"content": f"hi {TOKEN[:4]}"}), chunk({"content": TOKEN[4:]}, "stop"))
    caller = await openai(script).ask(STREAMED)
    assert said(caller) == f"hi {JANE}"
    assert b'"finish_reason":"stop"' in caller.received.replace(b": ", b":")


async def test_rules_that_only_watch_an_answer_see_the_placeholder() -> None:
    watching = Rule(rule_id="w", pattern=r"EMAIL_[0-9a-f]{6}|jane", action="block", mode="shadow")
    guard = pack(MAIL, watching, scope={"direction": "both"})
    w = openai(chat(*[chunk({"content": c}) for c in TALK], STOP), guard=guard)
    assert said(await w.ask(STREAMED)) == HEARD
    seen = [r for r in w.record.policy_results if r.direction == "response"]
    assert [(r.rule_matched, r.count, r.enforced) for r in seen] == [("w", 2, False)]


async def test_what_is_held_leaves_before_the_finish_reason() -> None:
    caller = await openai(chat(chunk({"content": f"hi {TOKEN[:-1]}"}), STOP)).ask(STREAMED)
    docs = json.loads(json.dumps(docs_of(caller)))
    assert said(caller) == f"hi {TOKEN[:-1]}"
    assert docs[-1]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}


async def test_a_part_of_a_placeholder_is_discarded_when_the_upstream_dies() -> None:
    script = chat(chunk({"content": f"hi {TOKEN} and {TOKEN[:-1]}"}))[:-2]
    caller = await openai([*script, RESET]).ask(STREAMED)
    assert caller.cut
    assert said(caller) == f"hi {JANE} and "


async def test_a_part_of_a_placeholder_is_told_before_a_block() -> None:
    script = chat(*[chunk({"content": c}) for c in f"hi {TOKEN} {TOKEN[:5]} the launch code"], STOP)
    caller = await openai(script).ask(STREAMED)
    assert said(caller) == f"hi {JANE} {TOKEN[:5]} the "
    assert b"content_filter" in caller.received


async def test_log_probabilities_go_with_the_piece_that_was_restored() -> None:
    def with_probs(text: str) -> bytes:
        choice = {
            "index": 0,
            "delta": {"content": text},
            "logprobs": {"content": [{"token": text}]},
        }
        return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"

    script = chat(*map(with_probs, ["hi ", TOKEN[:7], TOKEN[7:], "."]), STOP)
    caller = await openai(script, guard=ASKING).ask(STREAMED)
    assert said(caller) == f"hi {JANE}."
    assert TOKEN[:7].encode() not in caller.received
    assert TOKEN[7:].encode() not in caller.received


async def test_streamed_reasoning_and_refusals() -> None:
    events = [
        chunk({"reasoning_content": TOKEN}), chunk({"reasoning": TOKEN}),
        *[chunk({"refusal": c}) for c in TOKEN], STOP,
    ]  # fmt: skip
    caller = await openai(chat(*events)).ask(STREAMED)
    assert said(caller, "reasoning_content") == said(caller, "reasoning") == TOKEN
    assert said(caller, "refusal") == JANE


async def test_a_signed_thinking_block_leaves_as_it_came() -> None:
    thinking = (
        begun(0, {"type": "thinking", "thinking": "", "signature": ""}),
        piece(0, {"type": "thinking_delta", "thinking": f"to {TOKEN}"}),
        piece(0, {"type": "signature_delta", "signature": "c2ln"}),
        ended(0),
    )
    script = told(*thinking)
    caller = await anthropic(script).ask(STREAMED, MESSAGES)
    for came in script[2:6]:
        assert isinstance(came, bytes)
        assert came in caller.received


async def test_a_whole_piece_under_a_name_that_nobody_knows() -> None:
    delta = piece(0, {"type": "compaction_delta", "content": f"for {TOKEN}"})
    docs = (begun(0, {"type": "compaction", "content": None}), delta, ended(0))
    caller = await anthropic(told(*docs)).ask(STREAMED, MESSAGES)
    assert f"for {JANE}" in caller.received.decode()


# --- tool calls

ODDLY = token_of(QUOTED)
ARGUMENTS = json.dumps({"to": ODDLY, "cc": [f"<{ODDLY}>"], "n": 1.50})
CALLED = {"to": QUOTED, "cc": [f"<{QUOTED}>"], "n": 1.5}
ASKS_ODDLY = asking(QUOTED, stream=True)


def arguments_in(caller: RecordingDownstream) -> str:
    out = ""
    for doc in json.loads(json.dumps(docs_of(caller))):
        for entry in doc["choices"][0]["delta"].get("tool_calls", []):
            held = entry.get("function", entry.get("custom"))
            out += held.get("arguments", held.get("input", ""))
    return out


@pytest.mark.parametrize("size", [1, 4, 999])
async def test_streamed_tool_arguments_are_escaped(size: int) -> None:
    cuts = [ARGUMENTS[at : at + size] for at in range(0, len(ARGUMENTS), size)]
    deltas = [{"tool_calls": [{"index": 0, "function": {"arguments": c}}]} for c in cuts]
    events = [chunk(call("")), *map(chunk, deltas), chunk({}, "tool_calls")]
    w = openai(chat(*events), guard=ASKING)
    assert json.loads(arguments_in(await w.ask(ASKS_ODDLY))) == CALLED
    assert QUOTED.encode() not in sent_by(w)
    assert w.record.placeholders_unrestored == 0


@pytest.mark.parametrize("size", [1, 4, 999])
async def test_streamed_tool_input_is_escaped(size: int) -> None:
    cuts = [ARGUMENTS[at : at + size] for at in range(0, len(ARGUMENTS), size)]
    deltas = [piece(0, {"type": "input_json_delta", "partial_json": c}) for c in cuts]
    block: Doc = {"type": "tool_use", "id": "t", "name": "send", "input": {}}
    w = anthropic(told(begun(0, block), *deltas, ended(0)), ASKING)
    assert json.loads(text_of(await w.ask(ASKS_ODDLY, MESSAGES))) == CALLED


async def test_whole_tool_calls_are_escaped() -> None:
    w = openai(answered({"content": None, **call(ARGUMENTS)}), guard=ASKING)
    message = json.loads((await w.ask(asking(QUOTED))).received)["choices"][0]["message"]
    text = message["tool_calls"][0]["function"]["arguments"]
    assert json.loads(text) == CALLED
    assert "1.5" in text
    block = {"type": "tool_use", "id": "t", "name": "send", "input": json.loads(ARGUMENTS)}
    reply = whole({"id": "m", "type": "message", "role": "assistant", "content": [block]})
    got = (await anthropic(reply, ASKING).ask(asking(QUOTED), MESSAGES)).received
    assert json.loads(got)["content"][0]["input"] == CALLED


NO_PLACE = {
    "a key": json.dumps({TOKEN: 1}),
    "a truncated call": json.dumps({"to": TOKEN})[:-2],
    "a member that stands twice": f'{{"to":"{TOKEN}","to":"x"}}',
}


@pytest.mark.parametrize("arguments", NO_PLACE.values(), ids=NO_PLACE)
@pytest.mark.parametrize("streamed", [True, False])
async def test_where_nothing_can_be_put_it_stays_and_is_counted(
    arguments: str, streamed: bool
) -> None:
    script = chat(chunk(call(arguments)), chunk({}, "tool_calls"))
    w = openai(script if streamed else answered(call(arguments)), guard=ASKING)
    caller = await w.ask(STREAMED if streamed else ASKED)
    if streamed:
        assert arguments_in(caller) == arguments
    else:
        assert json.dumps(arguments).encode() in caller.received
    assert told_unrestored(w) == 1


@pytest.mark.parametrize("given", [f'say "{TOKEN}"', f'{{"to":"{TOKEN}"}}'])
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_input_of_a_custom_tool_is_any_text(given: str, streamed: bool) -> None:
    one: Doc = {"index": 0, "id": "t", "type": "custom", "custom": {"name": "f", "input": given}}
    calls: Doc = {"tool_calls": [one]}
    script = chat(chunk(calls), chunk({}, "tool_calls")) if streamed else answered(calls)
    caller = await openai(script, guard=ASKING).ask(STREAMED if streamed else ASKED)
    assert json.dumps(given.replace(TOKEN, JANE)).encode() in caller.received


async def test_what_a_rule_rewrites_beside_a_placeholder() -> None:
    arguments = json.dumps({"to": TOKEN, "key": "KEY12345", "cc": "x@y.org"})
    w = openai(chat(chunk(call(arguments)), chunk({}, "tool_calls")), guard=pack(MAIL, SECRET_RULE))
    caller = await w.ask(STREAMED)
    assert json.loads(arguments_in(caller)) == {"to": JANE, "key": "[KEY]", "cc": "[EMAIL]"}


# --- any cut, with the rules in front

BATCH = 300
BATCHES = [pytest.param(number, marks=[pytest.mark.long] if number else []) for number in range(40)]


@pytest.mark.parametrize("batch", BATCHES)
def test_any_chunking_of_a_guarded_stream_is_the_restored_whole(batch: int) -> None:
    r = random.Random(4400 + batch)
    guard = compile_guard([pack(MAIL, SECRET_RULE)], GuardSettings())
    for _ in range(BATCH):
        found = Placeholders(b"k" * 32)
        tokens = [found.issue("EMAIL", f"{r.choice('ab')}{n}@x.org") or "" for n in range(3)]
        parts = ["KEY1234567", "KEY12", "q@z.org", "[EMAIL]", "[", "]", " hi ", "é", *tokens * 2]
        parts += [token[: r.randint(1, 13)] for token in tokens]
        text = "".join(r.choices(parts, k=r.randint(1, 9)))
        judged = guard.judge([Leaf(text, "text", "assistant", ())], "response")
        left = judged.rewrites[0][1] if judged.rewrites else text
        body, at = ROLE, 0
        while at < len(text):
            size = r.choice([1, 1, 2, 5, 30])
            body, at = body + chunk({"content": text[at : at + size]}), at + size
        body += STOP + DONE
        reader = ChatReader().stream(hold_tools=True, hold_reasoning=True, want_usage=True)
        pump = Pump(SseFramer(), reader, guard, restoration=found.restoration())
        size = r.choice([7, 150, 99999])
        sent = [pump.feed(body[at : at + size]) for at in range(0, len(body), size)]
        caller = RecordingDownstream(pieces=[*sent, pump.finish(), pump.last])
        assert said(caller) == found.restoration().whole(left), text
