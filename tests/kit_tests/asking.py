"""How these tests ask the scripted provider, and what its streams say."""

import json

from tests.kit.httpclient import Answer, post
from tests.kit.provider import FakeProvider

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "m", "messages": HELLO}
CLAUDE = {"model": "claude", "max_tokens": 99, "messages": HELLO}
INVOKE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": HELLO}
VERSION = {"anthropic-version": "2023-06-01"}
STREAMS = ["chat", "messages", "invoke"]


async def ask(provider: FakeProvider, kind: str = "chat", *, stream: bool = False) -> Answer:
    """One request in the dialect `kind`."""
    if kind == "chat":
        return await post(provider.url + "/v1/chat/completions", CHAT | {"stream": stream})
    if kind == "messages":
        return await post(provider.url + "/v1/messages", CLAUDE | {"stream": stream}, VERSION)
    tail = "invoke-with-response-stream" if stream else "invoke"
    return await post(f"{provider.url}/model/anthropic.claude%3A0/{tail}", INVOKE)


def text_of(kind: str, answer: Answer) -> str:
    """The text that a streamed answer says, whatever the dialect; events that do not parse say
    nothing."""
    raw_events = (
        [message.inner.decode(errors="replace") for message in answer.messages]
        if kind == "invoke"
        else [event.data for event in answer.events if event.data != "[DONE]"]
    )
    said = ""
    for data in raw_events:
        try:
            event = json.loads(data)
        except ValueError:
            continue
        if kind == "chat":
            said += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        elif event["type"] == "content_block_delta":
            said += event["delta"].get("text", "")
    return said
