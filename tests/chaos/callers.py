"""Who asks: the official SDKs, as applications use them, and a raw client in the same dialect.

Another dialect joins as a class with the same three members and a row in `dialects.py`.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import anthropic
import openai

from tests.chaos.said import Said, read_chat, read_messages
from tests.kit.httpclient import Answer, post
from tests.kit.lanes import prompt

CALLERS_KEY = "sk-the-callers-own"
_TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}


@dataclass(frozen=True)
class Ask:
    """One request.  `within_s`: when its caller calls it a hang.  `mark`: what it is known by."""

    lane: str
    stream: bool = True
    tools: bool = False
    within_s: float = 100.0
    mark: str = ""

    @property
    def messages(self) -> list[dict[str, object]]:
        return [{"role": "user", "content": prompt(self.lane, self.mark)}]

    @property
    def headers(self) -> dict[str, str]:
        return {"x-parapet-route": self.lane}


class Caller(Protocol):
    """One client dialect at one Parapet."""

    def __init__(self, url: str) -> None: ...
    async def sdk(self, ask: Ask) -> Said: ...
    async def raw(self, ask: Ask) -> Said: ...
    async def close(self) -> None: ...


class OpenAIChat:
    """`openai`, and raw chat completions."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = openai.AsyncOpenAI(base_url=url + "/v1", api_key=CALLERS_KEY)

    async def sdk(self, ask: Ask) -> Said:
        async with _judged(ask, openai.APIError, openai.APIConnectionError) as said:
            made: Any = await self._client.chat.completions.create(
                **self._body(ask), extra_headers=ask.headers
            )
            if not ask.stream:
                said.text, said.model = made.choices[0].message.content or "", made.model
                said.usage, said.stop = made.usage is not None, made.choices[0].finish_reason
                return said
            async for chunk in made:
                said.usage |= chunk.usage is not None
                said.model = chunk.model
                for choice in chunk.choices:
                    said.text += choice.delta.content or ""
                    said.stop = choice.finish_reason or said.stop
        return said

    async def raw(self, ask: Ask) -> Said:
        answer = await _posted(self._url + "/v1/chat/completions", self._body(ask), ask)
        return answer if isinstance(answer, Said) else read_chat(answer, stream=ask.stream)

    async def close(self) -> None:
        await self._client.close()

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {"model": ask.lane, "messages": ask.messages, "stream": ask.stream}
        if ask.stream:
            body["stream_options"] = {"include_usage": True}
        if ask.tools:
            function = {"name": "weather", "parameters": _TOOL}
            body["tools"] = [{"type": "function", "function": function}]
        return body


class AnthropicMessages:
    """`anthropic`, and raw Messages."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = anthropic.AsyncAnthropic(base_url=url, api_key=CALLERS_KEY)

    async def sdk(self, ask: Ask) -> Said:
        async with _judged(ask, anthropic.APIError, anthropic.APIConnectionError) as said:
            body = self._body(ask)
            streamed = body.pop("stream")
            if streamed:
                events = self._client.messages.stream(**body, extra_headers=ask.headers)
                async with events as stream:
                    async for piece in stream.text_stream:
                        said.text += piece
                    made: Any = await stream.get_final_message()
            else:
                made = await self._client.messages.create(**body, extra_headers=ask.headers)
                said.text = "".join(part.text for part in made.content)
            said.model, said.stop = made.model, made.stop_reason or ""
            said.usage = made.usage.output_tokens > 0
        return said

    async def raw(self, ask: Ask) -> Said:
        named = {"anthropic-version": "2023-06-01"}
        answer = await _posted(self._url + "/v1/messages", self._body(ask), ask, **named)
        return answer if isinstance(answer, Said) else read_messages(answer, stream=ask.stream)

    async def close(self) -> None:
        await self._client.close()

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": ask.lane, "messages": ask.messages, "stream": ask.stream, "max_tokens": 400,
        }  # fmt: skip
        if ask.tools:
            body["tools"] = [{"name": "weather", "input_schema": _TOOL}]
        return body


@asynccontextmanager
async def _judged(
    ask: Ask, errors: type[Exception], no_answer: type[Exception]
) -> AsyncIterator[Said]:
    """What the SDK does between the first line and the last.  Whatever it raises is its verdict."""
    said = Said("sdk", began=time.monotonic())
    try:
        async with asyncio.timeout(ask.within_s):
            yield said
    except TimeoutError:
        said.hung = True
    except Exception as fault:  # noqa: BLE001 - an SDK may raise anything, and that is judged
        said.error = type(fault).__name__
        said.message = f"{getattr(fault, 'code', None) or ''} {fault}".strip()
        said.proper = isinstance(fault, errors) and not isinstance(fault, no_answer)
        said.status = getattr(fault, "status_code", 0)
    said.ended = time.monotonic()


async def _posted(url: str, body: dict[str, Any], ask: Ask, **headers: str) -> Answer | Said:
    named = {**ask.headers, "authorization": f"Bearer {CALLERS_KEY}", **headers}
    began = time.monotonic()
    try:
        return await post(url, body, named, within_s=ask.within_s)
    except (OSError, EOFError, TimeoutError) as fault:
        hung = isinstance(fault, TimeoutError)
        said = Said("raw", error=type(fault).__name__, proper=False, began=began, hung=hung)
        said.ended = time.monotonic()
        return said
