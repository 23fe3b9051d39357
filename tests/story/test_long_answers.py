"""Long answers on a guarded route over real sockets, streamed and whole: nothing is lost, and
whoever asks meanwhile is served as if nothing had come.
"""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.beside import Beside
from tests.kit.httpclient import Answer, post
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok

pytestmark = [pytest.mark.process, pytest.mark.exhaustive]

GUARDED = "/r/guarded/v1/chat/completions"
PACKS = ["secrets-core", "pii-core", "unicode-safety"]
STALLED_MS = 300  # of a small request beside it, on a machine that does other things, too
MB = 1_000_000


@pytest.fixture
async def parapet(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Parapet]:
    config = workspace(
        [endpoint("openai", "openai", provider.url + "/v1")],
        [{"id": "guarded", "endpoint": "openai", "policy_packs": PACKS}],
    )
    running = Parapet(config, tmp_path / "state")
    try:
        yield await running.start()
    finally:
        await running.kill()


async def watched(parapet: Parapet, what: str, *, streamed: bool) -> Answer:
    """The answer to a short question, while others are served."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": streamed}
    async with Beside(parapet.url + "/nowhere") as beside:
        answer = await post(parapet.url + GUARDED, asked, within_s=60)
    sys.stderr.write(f"\n{what}: {beside.longest_ms:.1f} ms at most, {beside.asked} beside it\n")
    assert beside.longest_ms < STALLED_MS, what
    return answer


PROSE = "The harbour was quiet that morning, and 12 boats lay at the long pier. "
TEXTS = {
    "letters": "x" * MB,
    "prose": PROSE * (MB // len(PROSE)),
    "nearly keys": "AKIA0 ghp_ sk_live_ " * (MB // 100),
    "digits": "4111 1111 1111 1112 " * (MB // 100),
}


@pytest.mark.parametrize("name", list(TEXTS))
async def test_long_deltas(parapet: Parapet, provider: FakeProvider, name: str) -> None:
    text = TEXTS[name]
    for size in (len(text), 100_000):
        provider.play(ok(pieces=[text[at : at + size] for at in range(0, len(text), size)]))
        answer = await watched(parapet, f"{name}, {size} a piece", streamed=True)
        assert said_in(answer) == text


async def test_a_hundred_thousand_tiny_deltas(parapet: Parapet, provider: FakeProvider) -> None:
    pieces = ["x", "1", "-"] * 33_333
    provider.play(ok(pieces=pieces))
    answer = await watched(parapet, "tiny deltas", streamed=True)
    assert said_in(answer) == "".join(pieces)


@pytest.mark.parametrize("name", list(TEXTS))
async def test_whole_answers(parapet: Parapet, provider: FakeProvider, name: str) -> None:
    provider.play(ok(pieces=[TEXTS[name]]))
    answer = await watched(parapet, f"{name}, whole", streamed=False)
    assert answer.json["choices"][0]["message"]["content"] == TEXTS[name]


def said_in(answer: Answer) -> str:
    """The text of a stream."""
    events = [json.loads(line[6:]) for line in answer.body.split(b"\n") if line[:7] == b"data: {"]
    return "".join(
        choice["delta"].get("content") or "" for event in events for choice in event["choices"]
    )
