"""Whole streams in their dialect's framing, cut at random: what the caller's SDK would put together
equals the redaction of the whole text, and nothing of a blocked span is ever written
(T-GR-01, T-GR-02 at the level of bytes).
"""

import json
import random
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from proxy.gateway.stream import Pump
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack, Rule
from proxy.model.tenancy import GuardSettings
from proxy.wire.dialect import DialectReader
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.providers.adapter import Framer
from proxy.wire.providers.bedrock_stream import ClaudeFramer
from proxy.wire.sse import SseFramer
from tests.fuzz.framed import as_events, as_frames

CASES = 10_000
BATCH = 500
BATCHES = [
    *range(4),
    *(pytest.param(number, marks=pytest.mark.thorough) for number in range(4, 8)),
    *(pytest.param(number, marks=pytest.mark.exhaustive) for number in range(8, CASES // BATCH)),
]

RULES = [
    Rule(rule_id="key", pattern=r"\bKEY[0-9A-F]{6,}", action="redact", severity="high",
         keywords=["key"]),
    Rule(rule_id="aws", pattern=r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b", action="redact",
         severity="critical", keywords=["akia", "asia"]),
    Rule(rule_id="mail", pattern=r"[a-z0-9._]{1,20}@[a-z0-9.]{1,20}\.[a-z]{2,6}\b",
         action="redact"),
    Rule(rule_id="name", kind="terms", pattern=["red falcon", "bluebird"], action="redact"),
    Rule(rule_id="launch", kind="terms", pattern=["launch code"], action="block",
         severity="critical"),
]  # fmt: skip
PACK = PolicyPack(policy_pack_id="fuzz", rules=RULES)
WORDS = ["the", "a", "key", "falcon", "red", "launch", "code", "blue", "bird", "KEY", "@", "x.y"]


@cache
def guard() -> Guard:
    return compile_guard([PACK], GuardSettings())


def token(r: random.Random) -> str:
    hexes = "".join(r.choices("0123456789ABCDEF", k=r.randint(4, 40)))
    letters = "".join(r.choices("ABCDEFG234567", k=r.randint(15, 17)))
    return r.choice(
        [
            "KEY" + hexes, "KEYS", "xKEY" + hexes, "AKIA" + letters, "ASIA" + letters,
            "jane.doe@example.org", "a@b", "red falcon", "Red_Falcon", "bluebird", "bluebirds",
            "r\u0435d falcon", "日本語" * r.randint(1, 6), "é", "\n", '"quoted" \\ back',
            "".join(r.choices("abcdef0123456789", k=r.randint(20, 90))),
            *(["launch code", "Launch-Code"] if r.random() < 0.2 else []),
        ]
    )  # fmt: skip


def text(r: random.Random) -> str:
    parts: list[str] = []
    for _ in range(r.randint(1, 5)):
        parts += [" ".join(r.choices(WORDS, k=r.randint(0, 6))), r.choice(["", " ", ". "])]
        parts += [token(r), r.choice(["", " ", ", "])]
    return "".join(parts)


def pieces(r: random.Random, whole: str, sizes: tuple[int, ...]) -> Iterator[str]:
    at = 0
    while at < len(whole):
        size = r.choice(sizes)
        yield whole[at : at + size]
        at += size


# --- the same text in each framing


def openai(deltas: list[str]) -> bytes:
    def chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
        doc = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
               "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}  # fmt: skip
        return b"data: " + json.dumps(doc).encode() + b"\n\n"

    out = [chunk({"role": "assistant", "content": ""})]
    out += [chunk({"content": delta}) for delta in deltas]
    return b"".join([*out, chunk({}, "stop"), b"data: [DONE]\n\n"])


def messages(deltas: list[str]) -> list[dict[str, object]]:
    start = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [],
             "stop_reason": None, "stop_sequence": None,
             "usage": {"input_tokens": 3, "output_tokens": 0}}  # fmt: skip
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": d}}
            for d in deltas
        ],
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]  # fmt: skip


def anthropic(deltas: list[str]) -> bytes:
    return as_events(messages(deltas))


def bedrock(deltas: list[str]) -> bytes:
    return as_frames(messages(deltas))


def heard_openai(body: bytes) -> tuple[str, str | None]:
    said, finish = "", None
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                said += choice["delta"].get("content") or ""
                finish = choice["finish_reason"] or finish
    return said, finish


def heard_anthropic(body: bytes) -> tuple[str, str | None]:
    said, finish = "", None
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            doc = json.loads(line[6:])
            if doc["type"] == "content_block_delta":
                said += doc["delta"].get("text", "")
            if doc["type"] == "message_delta":
                finish = doc["delta"]["stop_reason"]
    return said, finish


Framing = tuple[
    Callable[[list[str]], bytes],
    Callable[[], Framer],
    DialectReader,
    Callable[[bytes], tuple[str, str | None]],
]
FRAMINGS: dict[str, Framing] = {
    "openai": (openai, SseFramer, ChatReader(), heard_openai),
    "anthropic": (anthropic, SseFramer, MessagesReader(), heard_anthropic),
    "bedrock": (bedrock, ClaudeFramer, MessagesReader(), heard_anthropic),
}


@pytest.mark.thorough
@pytest.mark.parametrize("batch", BATCHES)
def test_t_gr_01_any_chunking_equals_the_whole_text(batch: int) -> None:
    r = random.Random(7000 + batch)
    for _ in range(BATCH):
        framing = FRAMINGS[r.choice(list(FRAMINGS))]
        write, framer, dialect, heard = framing
        whole = text(r)
        judged = guard().judge([Leaf(whole, "text", "assistant", ())], "response")
        deltas = list(pieces(r, whole, r.choice([(1,), (1, 2, 3, 8), (5,), (64,), (9999,)])))
        body = write(deltas)
        reader = dialect.stream(hold_tools=True, hold_reasoning=True, want_usage=True)
        pump = Pump(framer(), reader, guard())
        cuts = [(7, 40, 90), (200,), (1460,), (99999,)] + ([(1,)] if len(body) < 2500 else [])
        sizes, sent, at = r.choice(cuts), b"", 0
        while at < len(body) and not pump.over:
            size = r.choice(sizes)
            sent += pump.feed(body[at : at + size])
            at += size
        if not pump.over:
            sent += pump.finish()
        if judged.block is None:
            want = judged.rewrites[0][1] if judged.rewrites else whole
            assert heard(sent)[0] == want
            assert pump.done
            assert pump.last
        else:
            assert pump.blocked is not None
            said = heard(sent)[0]
            start = judged.block.span_start
            prefix = guard().judge([Leaf(whole[:start], "text", "assistant", ())], "response")
            allowed = prefix.rewrites[0][1] if prefix.rewrites else whole[:start]
            assert allowed.startswith(said), (allowed, said)
            ending = pump.reader.blocked_end(None)
            assert heard(sent + ending)[1] in ("content_filter", "refusal")


@pytest.mark.thorough
@pytest.mark.parametrize("name", list(FRAMINGS))
def test_p03_a_stream_killed_at_every_byte_is_never_whole(name: str) -> None:
    write, framer, dialect, heard = FRAMINGS[name]
    body = write(["Hello ", "KEY12", "345678", " and", " bye", "."])
    whole = "Hello [KEY] and bye."
    for size in range(len(body)):
        reader = dialect.stream(hold_tools=True, hold_reasoning=True, want_usage=True)
        pump = Pump(framer(), reader, guard())
        sent = pump.feed(body[:size])
        if not pump.over:
            sent += pump.finish()
        said = heard(sent)[0]
        assert whole.startswith(said)
        if pump.terminal and not pump.broken:
            assert said == whole  # only the trailer was missing, and is written
            assert pump.last
        else:
            assert not pump.done
