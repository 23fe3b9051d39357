"""The texts of a run, the same in the mock and in the generator, different in every request.

Prompts and answers are slices of one English-like corpus grown from a fixed seed.  Each carries
its number, `[000123] `, so that whoever receives it can tell which one it must be.
"""

import random
from dataclasses import dataclass
from functools import cache
from typing import Literal

Dialect = Literal["openai-chat", "anthropic-messages"]
POOL = 3_000
CORPUS_CHARS = 8_000_000
BLOCK_CHARS = 250_000  # the corpus is grown in blocks, as they are asked for
MARK_CHARS = len("[000000] ")
SEED = 7_919
COMMON = (
    "the of and to in a is that for it as was with be by on not he this are or his from at which "
    "but have an had they you were their one all we can her has there been if more when will would "
    "who so no out up into do any your what could than other time only new some them people two "
    "may then first model answer request token key secret password account customer service order "
    "please explain write summarise function return value error system user data server response"
)
ONSETS = "b br c ch cl d dr f fl g gr h j k l m n p pl pr qu r s sh sl sp st t th tr v w"
NUCLEI = "a ai e ea ee i ie o oa oo ou u"
CODAS = "b ck d ft g l ll m mp n nd ng nt p r rd rt s sh ss st t x"
ENDINGS = (". ", ". ", ". ", ", ", ", ", "? ", ": ", ".\n", ".\n\n- ")


@cache
def vocabulary() -> tuple[list[str], list[float]]:
    """Words and how often each is used."""
    rng = random.Random(SEED)
    onsets, nuclei, codas, common = (part.split() for part in (ONSETS, NUCLEI, CODAS, COMMON))
    made = {
        "".join(rng.choice(onsets) + rng.choice(nuclei) for _ in range(rng.randint(1, 2)))
        + rng.choice(codas)
        for _ in range(4_000)
    }
    words = common + sorted(made) + [str(number) for number in range(1, 400)]
    weights = [40.0 / (rank + 3) for rank in range(len(common))]
    weights += [0.03] * (len(words) - len(common))
    return words, weights


@cache
def block(number: int) -> str:
    """Text with words of uneven frequency, sentences, list items, line ends and small numbers."""
    rng = random.Random(SEED + 1 + number)
    drawn = iter(rng.choices(*vocabulary(), k=BLOCK_CHARS // 3))
    pieces: list[str] = []
    chars = 0
    while chars < BLOCK_CHARS:
        count = rng.randint(5, 16)
        sentence = " ".join(next(drawn) for _ in range(count)) + rng.choice(ENDINGS)
        pieces.append(sentence[0].upper() + sentence[1:])
        chars += len(sentence)
    return "".join(pieces)[:BLOCK_CHARS]


def corpus(start: int = 0, chars: int = CORPUS_CHARS) -> str:
    """That much of the corpus, from there."""
    first, last = start // BLOCK_CHARS, (start + chars) // BLOCK_CHARS
    grown = "".join(map(block, range(first, last + 1)))
    return grown[start - first * BLOCK_CHARS :][:chars]


def text(number: int, chars: int) -> str:
    """Text `number` of exactly `chars` characters; numbers far apart start far apart."""
    room = chars - MARK_CHARS
    start = (number * 104_729) % (CORPUS_CHARS - max(room, 1))
    return f"[{number:06d}] " + corpus(start, max(room, 0))


def escaped(plain: str, size: int) -> bytes:
    """JSON string content of exactly `size` bytes: line ends escaped, the tail cut to fit."""
    raw = plain.replace("\n", "\\n").encode()[:size]
    if raw.endswith(b"\\"):
        raw = raw[:-1] + b"."
    return raw


@dataclass(frozen=True, slots=True)
class Shape:
    """What one workload asks for: the dialect, the size of the body, whether it streams."""

    dialect: Dialect
    body_bytes: int
    stream: bool
    model: str

    def body(self, number: int) -> bytes:
        """Request body `number`, exactly `body_bytes` long where that leaves room for a text."""
        before, after = self._frame()
        room = max(self.body_bytes - len(before) - len(after), MARK_CHARS)
        return before + escaped(text(number, room), room) + after

    def _frame(self) -> tuple[bytes, bytes]:
        model = self.model.encode()
        stream = b""
        if self.dialect == "openai-chat":
            if self.stream:
                stream = b',"stream":true,"stream_options":{"include_usage":true}'
            return (
                b'{"model":"' + model + b'","messages":[{"role":"system","content":'
                b'"You are a careful assistant."},{"role":"user","content":"',
                b'"}],"max_tokens":256,"temperature":0.2' + stream + b"}",
            )
        if self.stream:
            stream = b',"stream":true'
        return (
            b'{"model":"' + model + b'","max_tokens":256,"messages":[{"role":"user","content":"',
            b'"}]' + stream + b"}",
        )


CHAT_BEFORE = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,'
    b'"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"'
)
CHAT_AFTER = (
    b'"},"finish_reason":"stop"}],"usage":{"prompt_tokens":180,"completion_tokens":160,'
    b'"total_tokens":340}}'
)
MESSAGE_BEFORE = (
    b'{"id":"msg_bench","type":"message","role":"assistant","model":"claude-3-opus-20240229",'
    b'"content":[{"type":"text","text":"'
)
MESSAGE_AFTER = (
    b'"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":180,"output_tokens":160}}'
)
ANSWER_FRAMES: dict[Dialect, tuple[bytes, bytes]] = {
    "openai-chat": (CHAT_BEFORE, CHAT_AFTER),
    "anthropic-messages": (MESSAGE_BEFORE, MESSAGE_AFTER),
}


def answer_text(number: int, chars: int) -> bytes:
    """Text of answer `number`: no character that JSON would escape, so any slice of it stands."""
    return text(number, chars).replace("\n", " ").encode()


def answer(dialect: Dialect, number: int, answer_bytes: int) -> bytes:
    """A whole answer, not streamed."""
    before, after = ANSWER_FRAMES[dialect]
    room = max(answer_bytes - len(before) - len(after), MARK_CHARS)
    return before + answer_text(number, room) + after


DELTA_CHARS = 5
CHUNK_ID = b'data: {"id":"chatcmpl-bench'
CHUNK_REST = b'","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini"'
CHOICE = b',"choices":[{"index":0,"delta":'
CHUNK_END = b'"},"finish_reason":null}]}\n\n'
CHUNK_USAGE = (
    b',"choices":[],"usage":{"prompt_tokens":180,"completion_tokens":160,"total_tokens":340}}\n\n'
)
MESSAGE_OPENING = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_bench",'
    b'"type":"message","role":"assistant","model":"claude-3-opus-20240229","content":[],'
    b'"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":180,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)
MESSAGE_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"'
)
MESSAGE_CLOSING = (
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn",'
    b'"stop_sequence":null},"usage":{"output_tokens":160}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed answer: an opening, `events` deltas of five characters each, a closing."""

    opening: bytes
    before: bytes
    after: bytes
    closing: bytes
    text: bytes
    events: int

    def event(self, index: int) -> bytes:
        at = index * DELTA_CHARS
        return self.before + self.text[at : at + DELTA_CHARS] + self.after

    def whole(self) -> bytes:
        deltas = b"".join(self.event(index) for index in range(self.events))
        return self.opening + deltas + self.closing


def stream(dialect: Dialect, number: int, events: int, event_bytes: int) -> Stream:
    """Streamed answer `number`; its delta events are `event_bytes` long where the frame allows."""
    words = answer_text(number, events * DELTA_CHARS)
    if dialect == "anthropic-messages":
        return Stream(MESSAGE_OPENING, MESSAGE_DELTA, b'"}}\n\n', MESSAGE_CLOSING, words, events)
    content = CHOICE + b'{"content":"'
    least = len(CHUNK_ID) + len(CHUNK_REST) + len(content) + DELTA_CHARS + len(CHUNK_END)
    head = CHUNK_ID + b"0" * (event_bytes - least) + CHUNK_REST
    opening = head + CHOICE + b'{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
    closing = (
        head
        + CHOICE
        + b'{},"finish_reason":"stop"}]}\n\n'
        + head
        + CHUNK_USAGE
        + b"data: [DONE]\n\n"
    )
    return Stream(opening, head + content, CHUNK_END, closing, words, events)


def numbered(raw: bytes) -> int | None:
    """The number that the first text in `raw` carries."""
    at = raw.find(b'"[')
    digits = raw[at + 2 : at + 8]
    return int(digits) if at >= 0 and digits.isdigit() else None
