"""T-FO-56, P03: a recorded stream is killed at every byte.  The caller gets the whole answer or an
error; never a success with less text, and one seam at most."""

import pytest

from tests.gateway.recovering import PAIRS, SENTENCE, Dying, Mode, Pair
from tests.kit.builders import SECRET_RULE, pack
from tests.kit.fakes import RecordingDownstream
from tests.kit.grammars import grammar_of
from tests.kit.replies import ok
from tests.kit.script import Request, Send, ToolCall

HOLDING = pack(SECRET_RULE)
PATHS: dict[Pair, str] = {
    "chat": "/v1/chat/completions", "messages": "/v1/messages", "seed": "/v1/messages",
}  # fmt: skip
ANSWER = ok(SENTENCE)
CALLING = ok(SENTENCE, tools=[ToolCall("look_up", {"what": "the fox"})])
# fmt: off
MODES: list[tuple[str, Mode, bool, bool]] = [
    # name             mode       prefill  guarded
    ("off",            "off",     True,    False),
    ("prefill",        "resume",  True,    False),
    ("restart",        "resume",  False,   False),
    ("prefill held",   "resume",  True,    True),
    ("restart held",   "resume",  False,   True),
    ("buffer",         "buffer",  True,    False),
]
# fmt: on


def size_of(pair: Pair) -> int:
    headers = (("anthropic-version", "1"),)
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    request = Request(1, 1, 0.0, "POST", PATHS[pair], headers, body)
    grammar = grammar_of(request)
    assert grammar is not None
    return sum(len(s.data) for s in ANSWER.steps(grammar, request) if isinstance(s, Send))


SOME = pytest.param(36, 74, marks=pytest.mark.thorough)
EXHAUSTIVE = [  # every byte
    pytest.param(at, 11, marks=pytest.mark.exhaustive, id=f"{at} of all") for at in range(11)
]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(("name", "mode", "prefill", "guarded"), MODES, ids=[m[0] for m in MODES])
@pytest.mark.parametrize(("start", "step"), [SOME, *EXHAUSTIVE])
async def test_whole_or_an_error(
    pair: Pair, name: str, mode: Mode, prefill: bool, guarded: bool, start: int, step: int
) -> None:
    packs = [HOLDING] if guarded else []
    for count in range(start, size_of(pair), step):
        w = Dying(pair, ANSWER.cut_bytes(count), ANSWER.continuing("exact"), mode=mode,
                  prefill=prefill, packs=packs)  # fmt: skip
        said = await w.ask()
        caller: RecordingDownstream = w.caller
        assert caller.status == 200, count
        if said.whole:
            assert said.text == SENTENCE, count
            assert not caller.cut
            assert said.usage is not None or pair == "chat"
        else:
            assert mode == "off", count
            assert said.error is not None, count
            assert caller.cut
            assert SENTENCE.startswith(said.text)
        assert sum(w.asked) <= 2


@pytest.mark.parametrize("pair", PAIRS)
async def test_p09_a_tool_call_never_ends_where_it_did_not(pair: Pair) -> None:
    for after in range(16, 22):
        w = Dying(pair, CALLING.cut(after=after), CALLING.continuing("exact"))
        said = await w.ask()
        if not said.whole:
            assert said.error is not None
            continue
        assert (said.text, len(said.tools) > 0) == (SENTENCE, True)
