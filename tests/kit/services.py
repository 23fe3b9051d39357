"""The services that checks outside ask, on loopback, speaking their own wire format.

Each looks for words in the texts that it gets and answers as the real one does; what it got stands
in `asked`.  `play` puts anything else in its place, for a while or for good: a status, bytes, a
silence, a cut.

    async with PresidioService({"Anna": "PERSON"}) as service:
        ...
        assert service.texts == ["my name is Anna"]
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.kit.rawserver import Peer, RawServer, whole

JSON_TYPE = b"content-type: application/json"


@dataclass
class Asked:
    """One request that a service got."""

    path: str
    headers: dict[str, str]
    doc: Any
    raw: bytes = field(repr=False, default=b"")


Played = bytes | Callable[[Peer], Any]


class Service:
    """A server of one wire format: `answer` makes the document for what was asked."""

    path = "/"

    def __init__(self, words: Mapping[str, str] | None = None) -> None:
        self.words = dict(words or {})
        self.asked: list[Asked] = []
        self._played: list[Played] = []
        self._always: Played | None = None
        self._server = RawServer(self._serve)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.__aexit__(kind, fault, trace)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def peers(self) -> int:
        return self._server.peers

    @property
    def closed(self) -> int:
        return self._server.closed

    @property
    def texts(self) -> list[str]:
        return [text for asked in self.asked for text in self.texts_of(asked.doc)]

    def play(self, *played: Played, always: Played | None = None) -> None:
        """What the next requests get; then `always`, or again what the service says."""
        self._played, self._always = list(played), always

    async def _serve(self, peer: Peer) -> None:
        while True:
            raw = await peer.request()
            head, _, body = raw.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            asked = Asked(first.split(" ")[1], headers, json.loads(body), raw)
            self.asked.append(asked)
            played = self._played.pop(0) if self._played else self._always
            if played is None:
                assert asked.path == self.path, asked.path
                await peer.send(said(self.answer(asked.doc)))
            elif isinstance(played, bytes):
                await peer.send(played)
            else:
                await played(peer)
                return

    def texts_of(self, doc: Any) -> list[str]:
        raise NotImplementedError

    def answer(self, doc: Any) -> Any:
        raise NotImplementedError

    def found(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, name) of each word that stands in the text."""
        places = ((text.find(word), word, name) for word, name in self.words.items())
        return [(at, at + len(word), name) for at, word, name in places if at >= 0]


def said(doc: Any, status: bytes = b"200 OK") -> bytes:
    return whole(json.dumps(doc).encode(), status, JSON_TYPE)


async def silent(peer: Peer) -> None:
    """Hang until the other side goes."""
    await peer.gone()


async def cut(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    peer.reset()


async def trickle(peer: Peer) -> None:
    """A head and then a byte now and then, for ever."""
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        await peer.send(b" ")
        await asyncio.sleep(0.01)


class HttpService(Service):
    """Our own contract: one text, a verdict, spans in code points."""

    path = "/check"

    @property
    def url(self) -> str:
        return super().url + self.path

    def texts_of(self, doc: Any) -> list[str]:
        return [doc["text"]]

    def answer(self, doc: Any) -> Any:
        found = self.found(doc["text"])
        if not found:
            return {"verdict": "pass"}
        spans = [{"start": start, "end": end, "label": name} for start, end, name in found]
        return {"verdict": "violation", "score": 0.9, "label": found[0][2], "spans": spans}


class ModerationService(Service):
    """OpenAI's `POST /v1/moderations`."""

    path = "/v1/moderations"
    names = (
        "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit",
        "illicit/violent", "self-harm", "self-harm/intent", "self-harm/instructions", "sexual",
        "sexual/minors", "violence", "violence/graphic",
    )  # fmt: skip

    def texts_of(self, doc: Any) -> list[str]:
        return list(doc["input"])

    def answer(self, doc: Any) -> Any:
        results = []
        for text in doc["input"]:
            hit = {name for _, _, name in self.found(text)}
            results.append(
                {
                    "flagged": bool(hit),
                    "categories": {name: name in hit for name in self.names},
                    "category_scores": {n: 0.97 if n in hit else 0.0004 for n in self.names},
                    "category_applied_input_types": {n: ["text"] for n in self.names},
                }
            )
        return {"id": "modr-1", "model": doc["model"], "results": results}


class BedrockGuardrailService(Service):
    """ApplyGuardrail.  A name in capitals is anonymised, any other blocks as a topic."""

    path = "/guardrail/gr-1/version/3/apply"

    def texts_of(self, doc: Any) -> list[str]:
        return [part["text"]["text"] for part in doc["content"]]

    def answer(self, doc: Any) -> Any:
        (text,) = self.texts_of(doc)
        found = self.found(text)
        topics = [
            {"name": name, "type": "DENY", "action": "BLOCKED"}
            for _, _, name in found
            if not name.isupper()
        ]
        entities = [
            {"match": text[start:end], "type": name, "action": "ANONYMIZED"}
            for start, end, name in found
            if name.isupper()
        ]
        changed = text
        for start, end, name in sorted(found, reverse=True):
            changed = changed[:start] + "{" + name + "}" + changed[end:]
        outputs = [{"text": "Sorry, blocked." if topics else changed}] if found else []
        assessment: dict[str, Any] = {"invocationMetrics": {"guardrailProcessingLatency": 12}}
        if topics:
            assessment["topicPolicy"] = {"topics": topics}
        if entities:
            assessment["sensitiveInformationPolicy"] = {"piiEntities": entities, "regexes": []}
        counted = {"guarded": len(text), "total": len(text)}
        return {
            "usage": {"topicPolicyUnits": 1},
            "action": "GUARDRAIL_INTERVENED" if found else "NONE",
            "outputs": outputs,
            "assessments": [assessment],
            "guardrailCoverage": {"textCharacters": counted},
        }


class PresidioService(Service):
    """The analyzer's `POST /analyze`: a list for a text, a list of lists for a list."""

    path = "/analyze"

    def texts_of(self, doc: Any) -> list[str]:
        return [doc["text"]] if isinstance(doc["text"], str) else list(doc["text"])

    def answer(self, doc: Any) -> Any:
        lists = [
            [
                {"start": start, "end": end, "score": 0.85, "entity_type": name,
                 "analysis_explanation": None}
                for start, end, name in self.found(text)
            ]
            for text in self.texts_of(doc)
        ]  # fmt: skip
        return lists[0] if isinstance(doc["text"], str) else lists


class LlamaGuardService(Service):
    """A chat completion: `safe`, or `unsafe` and the categories."""

    path = "/v1/chat/completions"

    def texts_of(self, doc: Any) -> list[str]:
        return [doc["messages"][-1]["content"]]

    def answer(self, doc: Any) -> Any:
        (text,) = self.texts_of(doc)
        names = [name for _, _, name in self.found(text)]
        content = f"\n\nunsafe\n{','.join(names)}" if names else "\n\nsafe"
        message = {"role": "assistant", "content": content}
        return {
            "id": "chatcmpl-g", "object": "chat.completion", "created": 1, "model": doc["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 5, "total_tokens": 205},
        }  # fmt: skip
