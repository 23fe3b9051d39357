"""Log probabilities and token ids say a text again: of what was redacted they say nothing, not in
the event of the text and not in another one."""

import json

import pytest

from tests.kit.builders import BLOCK_RULE, JSON, OPENAI, SECRET_RULE, SSE, World, pack, world
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.shapes import CHAT, DONE, ROLE, STOP, STREAM, Doc, docs_of

PACK = pack(SECRET_RULE, BLOCK_RULE)
TOKENS = ["my ", "KE", "Y1", "234", "5", " is", " it"]
COMPLETION = b'{"model":"m","prompt":"hello","stream":true}'


def over(script: list[Step]) -> World:
    return world((OPENAI,), scripts={"openai": [script]}, packs=[PACK])


def entries(*tokens: str) -> Doc:
    told = [{"token": t, "logprob": -0.1, "bytes": [*t.encode()], "top_logprobs": []}
            for t in tokens]  # fmt: skip
    return {"content": told}


def legacy(*tokens: str) -> Doc:
    return {"tokens": list(tokens), "token_logprobs": [-0.1] * len(tokens),
            "top_logprobs": None, "text_offset": [0] * len(tokens)}  # fmt: skip


def event(choice: Doc) -> bytes:
    doc = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o",
           "choices": [{"index": 0, "finish_reason": None, **choice}]}  # fmt: skip
    return b"data: " + json.dumps(doc).encode() + b"\n\n"


def chat(tokens: list[str], **more: object) -> bytes:
    text = "".join(tokens)
    return event({"delta": {"content": text}, "logprobs": entries(*tokens), **more})


def completion(tokens: list[str], **more: object) -> bytes:
    return event({"text": "".join(tokens), "logprobs": legacy(*tokens), **more})


def repeated(caller: RecordingDownstream) -> list[str]:
    """The tokens of each event that has any."""
    found = []
    for doc in json.loads(json.dumps(docs_of(caller))):
        for choice in doc["choices"]:
            told = choice.get("logprobs") or {}
            tokens = told.get("tokens") or [e["token"] for e in told.get("content") or ()]
            found += ["".join(tokens)] if tokens else []
            assert not choice.get("token_ids")
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("legacy_too", [False, True])
async def test_the_tokens_of_a_redacted_text_do_not_leave(size: int, legacy_too: bool) -> None:
    groups = [TOKENS[at : at + size] for at in range(0, len(TOKENS), size)]
    if legacy_too:
        script = [(200, SSE), *[completion(each) for each in groups],
                  event({"text": "", "finish_reason": "stop"}), DONE, None]  # fmt: skip
        caller = await over(script).ask(COMPLETION, "/v1/completions")
    else:
        script = [(200, SSE), ROLE, *[chat(each) for each in groups], STOP, DONE, None]
        caller = await over(script).ask(STREAM)
    assert b"[KEY]" in caller.received
    left = "".join(repeated(caller))
    for piece in ("KE", "Y1", "234", "5"):
        assert piece not in left
    assert b"[75, 69]" not in caller.received  # the bytes of KE
    assert set(repeated(caller)) <= {"my ", " is", " it", " is it"}


@pytest.mark.parametrize(
    "stray",
    [
        {"delta": {}, "logprobs": entries("KEY1", "2345")},
        {"delta": {"content": "a"}, "logprobs": entries("KEY12345")},
        {
            "delta": {"content": "a"},
            "logprobs": {"content": entries("a")["content"], "x": "KEY12345"},
        },
        {"delta": {"content": "a"}, "logprobs": {"content": "KEY12345"}},
        {"delta": {"content": "a"}, "logprobs": "KEY12345"},
        {"delta": {"content": "a"}, "logprobs": {"refusal": entries("KEY12345")["content"]}},
        {"delta": {"content": "a"}, "token_ids": [75, 69]},
        {"delta": {"role": "assistant"}, "logprobs": legacy("KEY12345")},
        {"delta": {}, "finish_reason": "stop", "logprobs": entries("KEY12345")},
    ],
)
async def test_tokens_that_are_not_those_of_the_event_do_not_leave(stray: Doc) -> None:
    script = [(200, SSE), ROLE, chat(["hi"]), event(stray), STOP, DONE, None]
    caller = await over(script).ask(STREAM)
    assert caller.status == 200
    assert b"KEY1" not in caller.received
    assert b"[75, 69]" not in caller.received
    assert repeated(caller) == ["hi"]


async def test_clean_tokens_stay_byte_for_byte() -> None:
    pieces = [ROLE, *[chat([each]) for each in ("so ", "it ", "is ", "é")], STOP, DONE]
    caller = await over([(200, SSE), *pieces, None]).ask(STREAM)
    assert caller.received == b"".join(pieces)


async def test_of_a_blocked_stream_no_token_leaves_behind_its_text() -> None:
    script = [(200, SSE), ROLE, chat(["hi "]), chat(["launch "]), chat(["code"]), STOP, DONE, None]
    caller = await over(script).ask(STREAM)
    assert repeated(caller) == ["hi "]
    assert b"launch" not in caller.received


async def test_a_whole_answer_loses_those_of_the_choice_that_was_rewritten() -> None:
    choices = [
        {"index": at, "message": {"role": "assistant", "content": text},
         "logprobs": entries(*text.split()), "finish_reason": "stop"}
        for at, text in enumerate(("my KEY12345", "all is well"))
    ]  # fmt: skip
    body = json.dumps({"id": "c", "choices": choices}).encode()
    caller = await over([(200, JSON), body, None]).ask(CHAT)
    told = json.loads(caller.received)["choices"]
    assert told[0]["logprobs"] is None
    assert told[1]["logprobs"] == entries("all", "is", "well")
    assert b"KEY1" not in caller.received
