"""What is alike in every dialect when a request goes on with an answer."""

from abc import ABC, abstractmethod
from typing import Final

from proxy.model.exchange import Json, WireEvent
from proxy.model.recovery import Misfit, Seam
from proxy.wire import jsonbody
from proxy.wire.dialect import Object
from proxy.wire.sse import SseFramer

LEAST_TOKENS: Final = 16  # that a continuation may always say


def with_answer(body: bytes, doc: Object, text: str) -> bytes:
    """The request with a trailing message of the assistant that says `text`, behind what the
    caller has put there himself."""
    found = doc.get("messages")
    messages: list[Json] = [*found] if type(found) is list else []
    last = messages[-1] if messages else None
    if type(last) is dict and last.get("role") == "assistant":
        messages[-1] = {**last, "content": _longer(last.get("content"), text)}
    else:
        messages.append({"role": "assistant", "content": text})
    return jsonbody.splice_member(body, doc, "messages", jsonbody.dumps_event(messages))


def _longer(said: Json, text: str) -> Json:
    if type(said) is list:
        return [*said, {"type": "text", "text": text}]
    return (said if type(said) is str else "") + text


def with_less(body: bytes, names: tuple[str, ...], less: int) -> bytes:
    """The request with its output limits reduced by so many tokens."""
    doc = jsonbody.read_object(body)
    for name in names:
        limit = doc.get(name)
        if type(limit) is int and limit > LEAST_TOKENS:
            value = jsonbody.dumps(max(LEAST_TOKENS, limit - less))
            body = jsonbody.splice_member(body, doc, name, value)
            doc = jsonbody.read_object(body)
    return body


class SseJoiner(ABC):
    """`wire.continuing.Joiner` for server-sent events with an object in each: the dialect says by
    `_join` what of one leaves."""

    __slots__ = ("_framer", "_seam")

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._framer = SseFramer()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._seam!r}>"

    @property
    def fault(self) -> Misfit:
        return self._seam.fault

    def release(self) -> None:
        self._seam.passed = True

    def feed(self, data: bytes) -> bytes:
        out: list[bytes] = []
        for event in self._framer.feed(data):
            if event.data[:1] != b"{":
                out.append(event.raw)
                continue
            doc = jsonbody.loads_event(event.data)
            if type(doc) is dict:
                self._join(doc, event, out)
            if self._seam.fault:
                return b""
        return b"".join(out)

    @abstractmethod
    def _join(self, doc: Object, event: WireEvent, out: list[bytes]) -> None: ...
