"""How streams end: whole, cut, and with names that are no text."""

import json

import pytest

from proxy.model.ports import TransportFault
from tests.kit.anthropic_answers import Messages
from tests.kit.builders import ANTHROPIC, SSE, world
from tests.kit.replies import ok
from tests.kit.script import Request, Send
from tests.kit.shapes import DONE, ROLE, STOP, STREAM, chunk

RESET = TransportFault("reset", "by peer", response_bytes=100)


async def test_an_answer_cut_in_its_second_choice_is_not_whole() -> None:
    one = chunk({"role": "assistant", "content": "the second begi"}, index=1)
    script = [(200, SSE), ROLE, chunk({"content": "the first."}), STOP, one, RESET]
    w = world(scripts={"openai": [script]})
    caller = await w.ask(STREAM[:-1] + b',"n":2}')
    assert caller.cut
    assert not caller.received.endswith(DONE)
    assert w.record.outcome == "interrupted"


async def test_an_answer_cut_in_the_completion_of_its_second_prompt_is_not_whole() -> None:
    def piece(index: int, text: str, finish: str | None = None) -> bytes:
        choice = {"index": index, "text": text, "finish_reason": finish}
        return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"

    script = [(200, SSE), piece(0, "one"), piece(0, "", "stop"), piece(1, "tw"), RESET]
    w = world(scripts={"openai": [script]})
    body = b'{"model":"m","prompt":["1","2"],"stream":true}'
    caller = await w.ask(body, "/v1/completions")
    assert caller.cut
    assert not caller.received.endswith(DONE)


CLAUDE = b'{"model":"m","max_tokens":9,"stream":true,"messages":[]}'


@pytest.mark.parametrize(
    "rest", [b"", b"event: message_stop\n", b'event: message_stop\ndata: {"ty']
)
async def test_a_trailer_that_is_missing_or_broken_off_is_written(rest: bytes) -> None:
    """failover.md §9: the terminal event was seen, so the answer is whole."""
    request = Request(1, 1, 0.0, "POST", "/v1/messages", (), CLAUDE)
    steps = ok("Ahoy.").without_trailer().steps(Messages(), request)
    events = [step.data for step in steps if isinstance(step, Send)]
    w = world([ANTHROPIC], scripts={ANTHROPIC.id: [[(200, SSE), *events, rest, RESET]]})
    caller = await w.ask(CLAUDE, "/v1/messages")
    assert caller.received.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert caller.received.count(b"event: message_stop") == 1
    assert w.record.outcome == "success"


@pytest.mark.parametrize("member", ["finish_reason", "model"])
async def test_half_a_surrogate_pair_in_a_name_costs_nothing(member: str) -> None:
    first = ROLE.replace(b'"gpt-4o"', b'"\\ud800"') if member == "model" else ROLE
    last = chunk({}, "\ud800") if member == "finish_reason" else STOP
    script = [(200, SSE), first, chunk({"content": "x"}), last, DONE, None]
    w = world(scripts={"openai": [script]})
    caller = await w.ask(STREAM)
    assert caller.ended
    assert len(w.notes.lines) == 1
