"""The judges are judged: what must not pass for a good answer does not."""

import json

import pytest

from tests.chaos.dialects import BY_NAME
from tests.chaos.play import verdict
from tests.chaos.profile import FAST
from tests.chaos.rows import Ends, Evidence, Result, Row
from tests.chaos.run import pairs
from tests.chaos.said import Said, read_chat, read_messages
from tests.chaos.scorecard import document, passed, table
from tests.chaos.words import LEADING, TEXT, TORN, TRAILING
from tests.kit.anthropic_answers import Messages
from tests.kit.httpclient import Answer, Piece
from tests.kit.openai_answers import Chat
from tests.kit.replies import ok
from tests.kit.reply import Reply
from tests.kit.script import Finish, Request, Send

ASKED = json.dumps({"model": "m", "stream": True, "stream_options": {"include_usage": True}})
REQUEST = Request(1, 1, 0.0, "POST", "/v1/chat/completions", (), ASKED.encode())


def streamed(grammar: Chat | Messages, reply: Reply) -> Answer:
    """The reply as a raw client has it."""
    steps = reply.steps(grammar, REQUEST)
    pieces = [Piece(0.0, step.data) for step in steps if isinstance(step, Send)]
    cut = any(isinstance(step, Finish) and step.how != "clean" for step in steps)
    return Answer(200, {}, (), 0.0, 0.0, pieces, "cut" if cut else "whole")


def test_the_words() -> None:
    assert len(LEADING) == len(TRAILING) == 60
    assert "".join(LEADING) == "".join(TRAILING) == "".join(TORN) == TEXT
    assert LEADING[19].endswith("tern")
    assert LEADING[39].endswith("tern")


CHAT, CLAUDE = Chat(), Messages()
ROLE = next(step.data for step in ok().steps(CHAT, REQUEST) if isinstance(step, Send))
START = next(step.data for step in ok().steps(CLAUDE, REQUEST) if isinstance(step, Send))
# fmt: off
FORMS = [
    (CHAT,   ok(),                                      ""),
    (CHAT,   ok().extra(ROLE, after=2),                 "2 × role"),
    (CHAT,   ok().extra(ROLE.replace(b"l-1", b"l-2"), after=0), "2 × role"),
    (CHAT,   ok().without_trailer(),                    "0 × [DONE]"),
    (CHAT,   ok(usage=None),                            "0 × usage"),
    (CHAT,   ok().bad_json(after=2),                    "does not parse"),
    (CHAT,   ok().cut(after=3),                         "0 × finish_reason"),
    (CHAT,   ok().error_after(3),                       "the last chunk came after an error"),
    (CLAUDE, ok(),                                      ""),
    (CLAUDE, ok().extra(START, after=2),                "2 × message_start"),
    (CLAUDE, ok().without_trailer(),                    "0 × message_stop"),
    (CLAUDE, ok().cut(after=3),                         "0 × message_delta"),
    (CLAUDE, ok().error_after(3),                       "the last chunk came after an error"),
]
# fmt: on


@pytest.mark.parametrize(("grammar", "reply", "flaw"), FORMS)
def test_a_stream_of_bad_form_is_seen(grammar: Chat | Messages, reply: Reply, flaw: str) -> None:
    read = read_chat if grammar is CHAT else read_messages
    flaws = read(streamed(grammar, reply), stream=True).flaws
    assert any(flaw in each for each in flaws) if flaw else not flaws


# fmt: off
VERDICTS = [
    # ends       text        error                            hung   flaws     level
    ("whole",    TEXT,       "",                              False, [],       "partial"),
    ("whole",    TEXT[:-9],  "",                              False, [],       "fail"),
    ("whole",    TEXT * 2,   "",                              False, [],       "fail"),
    ("whole",    TEXT[:99],  "APIError",                      False, [],       "safe"),
    ("whole",    TEXT,       "",                              True,  [],       "fail"),
    ("whole",    TEXT,       "",                              False, ["2 ×"],  "fail"),
    ("in_band",  TEXT[:99],  "",                              False, [],       "fail"),
    ("in_band",  "other",    "APIError",                      False, [],       "fail"),
    ("in_band",  TEXT[:99],  "APIError",                      False, [],       "partial"),
]
# fmt: on


@pytest.mark.parametrize(("ends", "text", "error", "hung", "flaws", "level"), VERDICTS)
def test_verdicts(
    ends: Ends, text: str, error: str, hung: bool, flaws: list[str], level: str
) -> None:
    """Nothing was asked of a provider here, so that conduct always falls short."""
    said = Said("sdk", text=text, error=error, hung=hung, flaws=flaws)
    seen = Evidence(BY_NAME["chat"], FAST, said, {"wall": [], "ok": []}, {}, [])
    found = [each for each, _ in verdict(seen, Row("S00", "a fault", ends=ends))]
    assert level in found
    assert "fail" not in found or level == "fail"


def test_rows_have_names_of_their_own_and_can_be_chosen() -> None:
    every = [row.lane(dialect, judge) for row, dialect in pairs() for judge in row.lanes]
    assert len(set(every)) == len(every)
    chosen = {(row.id, dialect.name) for row, dialect in pairs(["S08-guard-messages", "P12"])}
    assert chosen == {
        ("S08-guard", "messages"), ("S08-guard-spaced", "messages"), ("P12", "seed"),
    }  # fmt: skip
    assert not pairs(["S99"])


def test_the_card() -> None:
    good = Result("S03", "chat", "pass", "2/0", 0.4)
    poor = Result("S03", "seed", "partial", "2/1", 0.5, ("attempts 2/1, not 2/0", "no usage"))
    assert passed([good])
    assert not passed([good, poor])
    assert "2 rows: 1 pass, 1 partial" in table([good, poor])
    told = document([good, poor], "fast")
    assert json.loads(json.dumps(told))["summary"] == {"pass": 1, "partial": 1}
