"""Hostile texts on a guarded route over real sockets: a clear answer, nothing lost, and whoever
asks meanwhile is served as if nothing had come.
"""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.beside import Beside
from tests.kit.httpclient import Answer, post
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.provider import Entry, FakeProvider
from tests.kit.replies import ok

pytestmark = pytest.mark.process

GUARDED = "/r/guarded/v1/chat/completions"
PACKS = ["secrets-core", "pii-core", "unicode-safety", "hostile"]
TEN_MB = 10_000_000
STALLED_MS = 500  # of a small request beside it
PLAYS = 3  # a machine that does other things stalls everybody now and then, but not each time


@pytest.fixture
async def parapet(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Parapet]:
    rules = [
        {"rule_id": "nested", "pattern": "(a+)+$", "action": "flag"},
        {"rule_id": "many", "pattern": "(x+x+)+y", "action": "block"},
        {"rule_id": "wide", "pattern": "(?:[a-z0-9]{1,60}=){1,9}[;]", "action": "block"},
    ]
    config = workspace(
        [endpoint("openai", "openai", provider.url + "/v1")],
        [
            {"id": "guarded", "endpoint": "openai", "policy_packs": PACKS},
        ],
        policy_files=[str(tmp_path / "hostile.json")],
    )
    (tmp_path / "hostile.json").write_text(
        json.dumps({"policy_pack_id": "hostile", "rules": rules})
    )
    running = Parapet(config, tmp_path / "state")
    try:
        yield await running.start()
    finally:
        await running.kill()


def asked(*contents: object, streamed: bool = False) -> dict[str, object]:
    messages = [{"role": "user", "content": content} for content in contents]
    return {"model": "m", "messages": messages, "stream": streamed}


async def watched(parapet: Parapet, body: bytes | dict[str, object]) -> Answer:
    """The answer to `body`, while others are served."""
    longest_ms: list[float] = []
    for _ in range(PLAYS):
        async with Beside(parapet.url + "/nowhere") as beside:
            answer = await post(parapet.url + GUARDED, body, within_s=60)
        longest_ms.append(beside.longest_ms)
        sys.stderr.write(f"\n{beside.asked} asked beside it, {longest_ms[-1]:.0f} ms at most\n")
        if 0 < longest_ms[-1] < STALLED_MS:
            return answer
    raise AssertionError(f"others waited for {longest_ms} ms")


BIG = {
    "letters": "x" * TEN_MB,
    "what is taken out": "\u200d" * (TEN_MB // 3),
    "nearly keys": "AKIA0 ghp_ sk_live_ " * (TEN_MB // 20),
}


async def test_very_much_of_the_same(parapet: Parapet, provider: FakeProvider) -> None:
    for text in BIG.values():
        answer = await watched(parapet, asked(text))
        assert answer.status == 200
        came = came_to(provider)[-1].json["messages"][0]["content"]
        assert came == text.replace("\u200d", "")


async def test_tiny_parts(parapet: Parapet, provider: FakeProvider) -> None:
    """`guard.max_leaves` (50,000): more cannot be looked at, and says so."""
    parts = [{"type": "text", "text": "x"}] * 40_000
    answer = await watched(parapet, asked(parts))
    assert answer.status == 200
    (came,) = [entry.json["messages"][0]["content"] for entry in came_to(provider)]
    assert came == parts
    answer = await watched(parapet, asked(parts * 2))
    assert answer.status == 413
    assert answer.json["error"]["code"] == "request_too_large"
    assert len(came_to(provider)) == 1


NO_TEXT: list[tuple[bytes, str]] = [
    (b'{"model":"m","messages":[{"role":"user","content":"\xff\xfe"}]}', "invalid UTF-8"),
    (
        b'{"model":"m","messages":[{"role":"user","content":"\xed\xa0\xbd"}]}',
        "a surrogate in UTF-8",
    ),
    (b'{"model":"m","messages":[{"role":"user","content":"\\ud83d"}]}', "half a pair"),
    (b'{"model":"m","messages":[{"role":"user","content":"\\ude00\\ud83d"}]}', "a pair reversed"),
    (b'{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}', "a member twice"),
]


async def test_what_two_readers_could_read_differently(
    parapet: Parapet, provider: FakeProvider
) -> None:
    for body, why in NO_TEXT:
        answer = await post(parapet.url + GUARDED, body)
        assert answer.status == 400, why
        assert "cannot be read" in answer.json["error"]["message"]
    assert provider.journal == []


async def test_ten_megabytes_come_back(parapet: Parapet, provider: FakeProvider) -> None:
    text = "a" * TEN_MB
    provider.play(ok(pieces=[text]))
    answer = await watched(parapet, asked("hello"))
    assert answer.json["choices"][0]["message"]["content"] == text


def came_to(provider: FakeProvider) -> list[Entry]:
    """The requests that came, but those of `Beside`."""
    return provider.of("m")
