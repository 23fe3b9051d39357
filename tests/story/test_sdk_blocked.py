"""Blocks as the official SDKs see them: as errors, and as answers that end (guardrails.md §9.9,
§10; T-GR-07, T-GR-08).  One request goes up at most, nobody retries, and the matched text stands
nowhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anthropic
import openai
import pytest
import pytest_asyncio

from tests.kit.httpclient import request
from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

MATCHED = "hrbr48151623"
SAYING = "Ask the harbour master."
RULE = {"rule_id": "berth", "pattern": r"\bhrbr[0-9]{8}", "action": "block", "keywords": ["hrbr"]}
BEFORE = ("x", " and", " so", " on", " ")  # of a stream that is blocked on its way
PACKS = [
    {"policy_pack_id": "strict", "rules": [RULE], "message": SAYING},
    {"policy_pack_id": "silent", "rules": [RULE], "block_style": "finish"},
    {"policy_pack_id": "speaks", "rules": [RULE], "block_style": "finish", "message": SAYING},
]
STYLES = {"silent": "", "speaks": SAYING}


@dataclass
class Told:
    """What an SDK made of an answer."""

    text: str = ""
    reasons: list[str] = field(default_factory=list)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parapet(
    upstream: FakeProvider, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Parapet]:
    routes = [
        {"id": f"{where}-{pack['policy_pack_id']}", "endpoint": where,
         "policy_packs": [pack["policy_pack_id"]]}
        for where in ("openai", "anthropic", "bedrock") for pack in PACKS
    ]  # fmt: skip
    config = workspace(
        [
            endpoint("openai", "openai", upstream.url + "/v1"),
            endpoint("anthropic", "anthropic", upstream.url),
            endpoint("bedrock", "bedrock", upstream.url, region="us-east-1",
                     models={"m": "anthropic.claude-3-opus-20240229-v1:0"}),
        ],
        routes,
        policies=PACKS,
    )  # fmt: skip
    async with running(
        {**config, "guard": {"policy_header": "rules"}}, tmp_path_factory.mktemp("parapet")
    ) as parapet:
        yield parapet


class Chat:
    """`chat.completions`"""

    endpoint, path = "openai", "/v1/chat/completions"

    def __init__(self, base_url: str) -> None:
        self.client = openai.AsyncOpenAI(base_url=base_url + "/v1", api_key="k", max_retries=2)

    async def whole(self, text: str) -> Told:
        messages = [{"role": "user", "content": text}]
        answer = await self.client.chat.completions.create(model="m", messages=messages)
        (choice,) = answer.choices
        return Told(choice.message.content or "", [choice.finish_reason])

    async def stream(self, text: str) -> Told:
        told = Told()
        messages = [{"role": "user", "content": text}]
        stream = await self.client.chat.completions.create(
            model="m", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            for choice in chunk.choices:
                told.text += choice.delta.content or ""
                told.reasons += [choice.finish_reason] if choice.finish_reason else []
        assert chunk.usage is not None
        return told


class Completions(Chat):
    """`completions`"""

    path = "/v1/completions"

    async def whole(self, text: str) -> Told:
        answer = await self.client.completions.create(model="m", prompt=text)
        (choice,) = answer.choices
        return Told(choice.text, [choice.finish_reason])

    async def stream(self, text: str) -> Told:
        told = Told()
        async for chunk in await self.client.completions.create(
            model="m", prompt=text, stream=True
        ):
            for choice in chunk.choices:
                told.text += choice.text
                told.reasons += [choice.finish_reason] if choice.finish_reason else []
        return told


class Messages:
    """`messages`"""

    endpoint, path = "anthropic", "/v1/messages"

    def __init__(self, base_url: str) -> None:
        self.client = anthropic.AsyncAnthropic(base_url=base_url, api_key="k", max_retries=2)

    def _asked(self, text: str) -> dict[str, object]:
        messages = [{"role": "user", "content": text}]
        return {"model": "m", "max_tokens": 9, "messages": messages}

    async def whole(self, text: str) -> Told:
        return self._told(await self.client.messages.create(**self._asked(text)))

    async def stream(self, text: str) -> Told:
        async with self.client.messages.stream(**self._asked(text)) as stream:
            return self._told(await stream.get_final_message())

    def _told(self, message: anthropic.types.Message) -> Told:
        text = "".join(block.text for block in message.content if block.type == "text")
        return Told(text, [str(message.stop_reason)])


class Invoke(Messages):
    """`messages` at InvokeModel of Bedrock"""

    endpoint = "bedrock"


SDKS = [Chat, Completions, Messages, Invoke]
REASONS = {"openai": "content_filter", "anthropic": "refusal", "bedrock": "refusal"}
Sdk = type[Chat] | type[Messages]


@asynccontextmanager
async def at(sdk: Sdk, parapet: Parapet, pack: str) -> AsyncIterator[Chat | Messages]:
    one = sdk(f"{parapet.url}/r/{sdk.endpoint}-{pack}")
    async with one.client:
        yield one


# --- as an error


@pytest.mark.parametrize("where", ["request", "answer", "stream"])
@pytest.mark.parametrize("sdk", SDKS)
async def test_a_block_is_the_sdks_bad_request_and_is_not_repeated(
    upstream: FakeProvider, parapet: Parapet, sdk: Sdk, where: str
) -> None:
    upstream.play(ok(MATCHED))
    sent = len(upstream.journal)
    text = MATCHED if where == "request" else "hello"
    async with at(sdk, parapet, "strict") as client:
        ask = client.stream if where == "stream" else client.whole
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as told:
            await ask(text)
    assert len(upstream.journal) - sent == (0 if where == "request" else 1)
    error = told.value
    body = str(error.body)
    if sdk.endpoint == "openai":
        assert (error.type, error.code) == ("policy_violation", "content_filter")
    else:
        assert "'type': 'invalid_request_error'" in body
    assert SAYING in body
    assert MATCHED not in body + str(error.response.headers)
    assert error.response.headers["x-should-retry"] == "false"
    assert error.response.headers["x-parapet-policy"] == (
        "verdict=violation;action=block;rules=strict/berth"
    )
    assert error.request_id


# --- as an answer


@pytest.mark.parametrize("where", ["request", "answer", "asked for a stream", "stream"])
@pytest.mark.parametrize("pack", STYLES)
@pytest.mark.parametrize("sdk", SDKS)
async def test_style_finish_is_an_answer_that_ends_at_once(
    upstream: FakeProvider, parapet: Parapet, sdk: Sdk, pack: str, where: str
) -> None:
    upstream.play(ok(MATCHED))
    sent = len(upstream.journal)
    text = MATCHED if where in ("request", "asked for a stream") else "hello"
    async with at(sdk, parapet, pack) as client:
        told = await (client.stream(text) if "stream" in where else client.whole(text))
    assert told == Told(STYLES[pack], [REASONS[sdk.endpoint]])
    assert len(upstream.journal) - sent == (1 if text == "hello" else 0)


# --- on its way


@pytest.mark.parametrize("pack", ["strict", *STYLES])
@pytest.mark.parametrize("sdk", SDKS)
async def test_a_stream_that_is_blocked_on_its_way_ends_in_order(
    upstream: FakeProvider, parapet: Parapet, sdk: Sdk, pack: str
) -> None:
    upstream.play(ok(pieces=(*BEFORE, MATCHED, " and more")).paced(0.02))
    async with at(sdk, parapet, pack) as client:
        told = await client.stream("hello")
    saying = STYLES.get(pack, SAYING)
    assert told == Told("".join(BEFORE) + saying, [REASONS[sdk.endpoint]])


@pytest.mark.parametrize("sdk", SDKS)
async def test_nothing_follows_the_last_event(
    upstream: FakeProvider, parapet: Parapet, sdk: Sdk
) -> None:
    upstream.play(ok(pieces=(*BEFORE, MATCHED, " and more")).paced(0.02))
    body = (
        b'{"model":"m","stream":true,"max_tokens":9,"prompt":"hello",'
        b'"messages":[{"role":"user","content":"hello"}]}'
    )
    url = f"{parapet.url}/r/{sdk.endpoint}-strict{sdk.path}"
    answer = await request("POST", url, body, {"content-type": "application/json"})
    last = b'data: {"type":"message_stop"}' if sdk.endpoint != "openai" else b"data: [DONE]"
    assert answer.status == 200
    assert answer.body.rstrip().endswith(last)
    assert MATCHED.encode() not in answer.body


async def test_the_matched_text_stands_nowhere(upstream: FakeProvider, parapet: Parapet) -> None:
    upstream.play(ok(pieces=(*BEFORE, MATCHED)))
    async with at(Chat, parapet, "speaks") as client:
        await client.whole(MATCHED)
        await client.whole("hello")
        await client.stream("hello")
    events = await parapet.events(3)
    assert "berth" in str(events)
    assert MATCHED not in str(events)
    for path in parapet.state_dir.rglob("*"):
        if path.is_file():
            assert MATCHED.encode() not in path.read_bytes(), path.name
