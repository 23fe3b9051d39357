"""T-FO-56: streams that were gone on with, or that could not be, as the official SDKs read them."""

import anthropic
import httpx2 as httpx
import openai
import pytest

from tests.gateway.recovering import SENTENCE, Dying, Mode, Pair
from tests.kit.replies import ok
from tests.kit.reply import Reply
from tests.kit.script import ToolCall

pytestmark = pytest.mark.thorough
HELLO = [{"role": "user", "content": "hello"}]
# fmt: off
ROWS: list[tuple[str, Reply, Mode, bool, bool]] = [
    # name         the first answer                       mode      prefill  whole
    ("cut",        ok(SENTENCE).cut(after=6),             "resume", True,    True),
    ("restart",    ok(SENTENCE).cut(after=6),             "resume", False,   True),
    ("stall",      ok(SENTENCE).stall(after=6),           "resume", True,    True),
    ("error",      ok(SENTENCE).error_after(6),           "resume", True,    True),
    ("inside",     ok(SENTENCE).cut_inside(after=6),      "resume", True,    True),
    ("trailer",    ok(SENTENCE).without_trailer(),        "resume", True,    True),
    ("buffer",     ok(SENTENCE).cut(after=6),             "buffer", True,    True),
    ("off",        ok(SENTENCE).cut(after=6),             "off",    True,    False),
    ("thinking",   ok(SENTENCE, thinking=["hm"]).cut(after=6), "resume", True, False),
    ("tool",       ok(SENTENCE, tools=[ToolCall("look", {"a": "b"})]).cut(after=18),
                                                          "resume", True,    False),
]
# fmt: on
EVERY_ROW = pytest.mark.parametrize(
    ("name", "dies", "mode", "prefill", "whole"), ROWS, ids=[row[0] for row in ROWS]
)


def answering(body: bytes) -> httpx.Client:
    """A client whose every request is answered by that stream."""
    headers = {"content-type": "text/event-stream"}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=headers, content=body)

    return httpx.Client(transport=httpx.MockTransport(answer))


async def body_of(pair: Pair, dies: Reply, mode: Mode, prefill: bool) -> bytes:
    fallback = ok(SENTENCE).continuing("exact")
    w = Dying(pair, dies, fallback, mode=mode, prefill=prefill)
    return (await w.sent()).received


@EVERY_ROW
async def test_openai(name: str, dies: Reply, mode: Mode, prefill: bool, whole: bool) -> None:
    body = await body_of("chat", dies, mode, prefill)
    client = openai.OpenAI(api_key="k", max_retries=0, http_client=answering(body))

    def read() -> str:
        stream = client.chat.completions.stream(
            model="m", messages=HELLO, stream_options={"include_usage": True}
        )
        with stream as events:
            for _ in events:
                pass
            return events.get_final_completion().choices[0].message.content or ""

    if whole:
        assert read() == SENTENCE
        return
    with pytest.raises(openai.APIError):
        read()


@EVERY_ROW
@pytest.mark.parametrize("pair", ["messages", "seed"])
async def test_anthropic(
    pair: Pair, name: str, dies: Reply, mode: Mode, prefill: bool, whole: bool
) -> None:
    body = await body_of(pair, dies, mode, prefill)
    client = anthropic.Anthropic(api_key="k", max_retries=0, http_client=answering(body))

    def read() -> str:
        with client.messages.stream(model="m", max_tokens=9, messages=HELLO) as stream:
            return stream.get_final_text()

    if whole:
        assert read() == SENTENCE
        return
    with pytest.raises(anthropic.APIError):
        read()
