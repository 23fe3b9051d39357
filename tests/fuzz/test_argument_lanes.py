"""Random arguments of tool calls, cut at random, with `tool_args: live`: what the caller's SDK puts
together is the JSON with each of its strings redacted, and nothing of a blocked one is written
(T-GR-01 for the strings of arguments)."""

import json
import random
from functools import cache

import pytest

from proxy.gateway.arguments import ArgumentsLane, around_arguments
from proxy.gateway.stream import Pump
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.engine import Guard
from proxy.guardrails.sampling import ALL
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from proxy.wire.dialect import DialectReader
from proxy.wire.dialects.anthropic_messages import MessagesReader
from proxy.wire.dialects.openai_chat import ChatReader
from proxy.wire.jsonpieces import JsonPieces
from proxy.wire.providers.adapter import Framer
from proxy.wire.providers.bedrock_stream import ClaudeFramer
from proxy.wire.sse import SseFramer
from tests.fuzz.framed import as_events, as_frames
from tests.fuzz.test_stream_pump import RULES, messages, pieces, text

CASES = 4_000
BATCH = 400
BATCHES = [
    pytest.param(number, marks=[pytest.mark.thorough] if number >= 2 else [])
    for number in range(CASES // BATCH)
]
Json = dict[str, object] | list[object] | str | int | float | None


@cache
def guard() -> Guard:
    pack = PolicyPack(policy_pack_id="fuzz", rules=RULES, tool_args="live")
    return compile_guard([pack], GuardSettings())


def value(r: random.Random, depth: int = 0) -> Json:
    roll = r.random()
    if roll < 0.5 or depth > 3:
        return text(r)
    if roll < 0.6:
        return r.choice([0, -7, 1.5, 2e9, True, False, None])
    if roll < 0.7:
        return [value(r, depth + 1) for _ in range(r.randint(0, 3))]
    return {f"k{n}é": value(r, depth + 1) for n in range(r.randint(0, 3))}


def written(r: random.Random, made: Json) -> str:
    """That value as JSON, with escapes where nobody needs them."""
    plain = json.dumps(made, ensure_ascii=r.random() < 0.3, indent=r.choice([None, None, 1]))
    if r.random() < 0.5:
        return plain
    escaped, inside, skip = [], False, 0
    for at, char in enumerate(plain):
        if skip:
            skip -= 1
        elif char == '"':
            inside = not inside
        elif char == "\\":
            skip = 5 if plain[at + 1] == "u" else 1
        elif inside and r.random() < 0.1 and char.isascii():
            char = f"\\u{ord(char):04{r.choice('xX')}}"
        escaped.append(char)
    return "".join(escaped)


def guarded(made: Json, blocks: list[str]) -> Json:
    """Each string as its lane must leave it, in order; `blocks`: what left of the first block."""
    if blocks:
        return None
    if isinstance(made, str):
        left, block = guard().whole(made, "tool_args")
        if block is not None:
            blocks.append(left)
        return left
    if isinstance(made, dict):
        return {name: guarded(child, blocks) for name, child in made.items()}
    return [guarded(child, blocks) for child in made] if isinstance(made, list) else made


def open_string(left: str) -> str | None:
    """What the string says that has begun at the end of it; None: none has."""
    found: str | None = None
    for kind, said, raw in JsonPieces().feed(left):
        if kind == "said":
            found = (found or "") + said
        else:
            found = "" if kind == "raw" and raw.endswith('"') else None
    return found


def cut(r: random.Random, whole: str) -> list[str]:
    return list(pieces(r, whole, r.choice([(1,), (1, 2, 3, 8), (5,), (64,), (9999,)])))


@pytest.mark.parametrize("batch", BATCHES)
def test_any_json_in_any_pieces_is_redacted_string_by_string(batch: int) -> None:
    r = random.Random(300 + batch)
    for _ in range(BATCH):
        made = value(r)
        came = written(r, made)
        blocks: list[str] = []
        want = guarded(made, blocks)
        lane = ArgumentsLane(guard(), ALL)
        left = ""
        for piece in cut(r, came):
            left += lane.feed(piece)
            if not blocks and want == made:  # nothing to rewrite: as it came, byte for byte
                assert came.startswith(left)
        left += lane.finish()
        if blocks:
            assert lane.blocked is not None
            assert open_string(left) == blocks[0]
            continue
        assert lane.blocked is None, came
        assert json.loads(left) == want, came
        assert lane.held == 0
        if want == made:
            assert left == came


# --- in the framing of each dialect


def openai(deltas: list[str]) -> bytes:
    def chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
        doc = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
               "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}  # fmt: skip
        return b"data: " + json.dumps(doc).encode() + b"\n\n"

    first = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": delta}} for delta in deltas]
    out = [chunk({"role": "assistant", "content": None}), chunk({"tool_calls": [first]})]
    out += [chunk({"tool_calls": [entry]}) for entry in rest]
    return b"".join([*out, chunk({}, "tool_calls"), b"data: [DONE]\n\n"])


def events(deltas: list[str]) -> list[dict[str, object]]:
    start, _, *_, stop, end, last = messages([])
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    begun = {"type": "content_block_start", "index": 0, "content_block": block}
    said = [
        {"type": "content_block_delta", "index": 0,
         "delta": {"type": "input_json_delta", "partial_json": delta}}
        for delta in deltas
    ]  # fmt: skip
    return [start, begun, *said, stop, end, last]


def anthropic(deltas: list[str]) -> bytes:
    return as_events(events(deltas))


def bedrock(deltas: list[str]) -> bytes:
    return as_frames(events(deltas))


def heard(body: bytes) -> str:
    """The arguments that a caller's SDK puts together."""
    out = ""
    for line in body.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        doc = json.loads(line[6:])
        out += (doc.get("delta") or {}).get("partial_json") or ""
        for choice in doc.get("choices", []):
            for entry in choice["delta"].get("tool_calls", []):
                out += entry["function"].get("arguments") or ""
    return out


FRAMINGS = {
    "openai": (openai, SseFramer, ChatReader()),
    "anthropic": (anthropic, SseFramer, MessagesReader()),
    "bedrock": (bedrock, ClaudeFramer, MessagesReader()),
}


def pumped(
    r: random.Random, body: bytes, framer: type[SseFramer] | type[ClaudeFramer], of: DialectReader
) -> tuple[bytes, Pump]:
    reader = of.stream(
        hold_tools=True, hold_reasoning=True, want_usage=True, flows=lambda names: names == ("f",)
    )
    cutter: Framer = framer()
    pump = Pump(cutter, reader, guard(), wrap=around_arguments(guard(), ALL, None))
    sizes, sent, at = r.choice([(7, 40, 90), (200,), (1460,), (99999,)]), b"", 0
    while at < len(body) and not pump.over:
        size = r.choice(sizes)
        sent += pump.feed(body[at : at + size])
        at += size
    return sent if pump.over else sent + pump.finish(), pump


@pytest.mark.parametrize("name", FRAMINGS)
@pytest.mark.thorough
def test_what_a_caller_puts_together_is_the_redacted_json(name: str) -> None:
    write, framer, dialect = FRAMINGS[name]
    r = random.Random(900)
    for _ in range(150):
        made: Json = {"a": value(r), "b": value(r)}
        came = written(r, made)
        blocks: list[str] = []
        want = guarded(made, blocks)
        sent, pump = pumped(r, write(cut(r, came)), framer, dialect)
        if blocks:
            assert pump.blocked is not None
            assert not heard(sent).endswith("}")
        else:
            assert json.loads(heard(sent)) == want
            assert pump.done


@pytest.mark.parametrize("name", FRAMINGS)
@pytest.mark.thorough
def test_whatever_is_sent_nothing_breaks_and_no_secret_leaves(name: str) -> None:
    """Arguments spoilt at one place: cut, doubled, with a character too many."""
    write, framer, dialect = FRAMINGS[name]
    r = random.Random(77)
    for _ in range(150):
        came = json.dumps({"a": "x KEY0123456789 y", "b": [value(r)], "jane@example.org": 1})
        at = r.randrange(len(came))
        spoilt = r.choice(
            [came[:at], came[:at] + r.choice('"\\{}[],:') + came[at:], came[:at] + came]
        )
        sent, _ = pumped(r, write(cut(r, spoilt)), framer, dialect)
        assert "KEY0123456789" not in heard(sent)
