"""The demo's two providers: a made-up Claude at "Anthropic" and the same Claude at "Bedrock".

Both speak the real wire (Messages over SSE; InvokeModel over AWS event-stream messages) on
loopback ports, in a thread of their own, so that a busy proxy and a slow provider do not wait for
each other.  The words of the prompt choose what happens:

    secret   the answer holds a key, streamed in pieces of a few characters
    slow     Anthropic takes its time before it answers; Bedrock does not
"""

import asyncio
import threading
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from aiohttp import web

from proxy.wire import jsonbody
from proxy.wire.eventstream import encode_frame

SLOW_S = 3.0
PACE_S = 0.02
PIECE_CHARS = 5
HOST = "127.0.0.1"
# SECURITY: nobody's key, put together here so that no scanner of code takes it for one
MADE_UP_KEY = "AK" + "IA" + "Z3V7Q2MNXK5RJTLW"

Kind = Literal["Anthropic", "Bedrock"]
Body = dict[str, object]


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the two listen."""

    anthropic: str
    bedrock: str


class DemoProviders(AbstractContextManager["DemoProviders"]):
    """Both providers, from `with` to the end of it."""

    urls: Urls

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo-providers")
        self._runners: list[web.AppRunner] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.urls = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> Urls:
        return Urls(await self._listen(_anthropic()), await self._listen(_bedrock()))

    async def _listen(self, app: web.Application) -> str:
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, HOST, 0).start()
        return f"http://{HOST}:{runner.addresses[0][1]}"

    async def _close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()


def _anthropic() -> web.Application:
    app = web.Application(client_max_size=1 << 25)
    app.router.add_post("/v1/messages", _messages)
    return app


def _bedrock() -> web.Application:
    app = web.Application(client_max_size=1 << 25)
    app.router.add_post("/model/{model}/invoke", _invoke)
    app.router.add_post("/model/{model}/invoke-with-response-stream", _invoke_stream)
    return app


async def _messages(request: web.Request) -> web.StreamResponse:
    body, prompt = await _read(request)
    model = str(body.get("model", "claude"))
    if "slow" in prompt or "slow" in model:
        await asyncio.sleep(SLOW_S)
    text = answer_text(prompt, "Anthropic")
    if not body.get("stream"):
        return _json(message(model, text))
    out = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await out.prepare(request)
    async for event in events(model, text):
        name = str(event["type"]).encode()
        await out.write(b"event: " + name + b"\ndata: " + jsonbody.dumps(event) + b"\n\n")
    return out


async def _invoke(request: web.Request) -> web.StreamResponse:
    _, prompt = await _read(request)
    whole = message(request.match_info["model"], answer_text(prompt, "Bedrock"))
    answer = _json(whole)
    answer.headers["x-amzn-bedrock-input-token-count"] = "12"
    answer.headers["x-amzn-bedrock-output-token-count"] = "24"
    return answer


async def _invoke_stream(request: web.Request) -> web.StreamResponse:
    _, prompt = await _read(request)
    out = web.StreamResponse(headers={"content-type": "application/vnd.amazon.eventstream"})
    await out.prepare(request)
    text = answer_text(prompt, "Bedrock")
    named = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    async for event in events(request.match_info["model"], text):
        payload = jsonbody.dumps({"bytes": b64encode(jsonbody.dumps(event)).decode()})
        await out.write(encode_frame(named, payload))
    return out


def answer_text(prompt: str, kind: Kind) -> str:
    """What the made-up Claude says."""
    if "secret" in prompt:
        return f"The access key is {MADE_UP_KEY} and the region is us-east-1."
    return f"Hello! This is a made-up Claude, answering from {kind}."


def message(model: str, text: str) -> Body:
    """A whole answer of the Messages API."""
    return _shell(model, [{"type": "text", "text": text}], 24) | {"stop_reason": "end_turn"}


async def events(model: str, text: str) -> AsyncIterator[Body]:
    """The same as a stream, a few characters at a time."""
    yield {"type": "message_start", "message": _shell(model, [], 1)}
    yield {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    for start in range(0, len(text), PIECE_CHARS):
        await asyncio.sleep(PACE_S)
        delta = {"type": "text_delta", "text": text[start : start + PIECE_CHARS]}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"input_tokens": 12, "output_tokens": 24},
    }
    yield {"type": "message_stop"}


def _shell(model: str, content: list[Body], output_tokens: int) -> Body:
    return {
        "id": "msg_demo",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": output_tokens},
    }


async def _read(request: web.Request) -> tuple[Body, str]:
    """The body and, in one string, all that its messages say."""
    try:
        body = jsonbody.loads(await request.read())
    except jsonbody.JsonError:
        body = None
    if not isinstance(body, dict):
        error = {"type": "invalid_request_error", "message": "the body is no JSON object"}
        raise web.HTTPBadRequest(
            text=jsonbody.dumps({"type": "error", "error": error}).decode(),
            content_type="application/json",
        )
    return dict(body), jsonbody.dumps(body.get("messages")).decode().lower()


def _json(body: Body) -> web.Response:
    return web.Response(body=jsonbody.dumps(body), content_type="application/json")
