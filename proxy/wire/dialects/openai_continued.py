"""Two Chat Completions streams as one (failover.md §10.3).

Of the first stay its `id` and `created`; of the second the role goes, and `model` is told as it is:
that of the endpoint now answering.
"""

from typing import Final

from proxy.model.exchange import Json, WireEvent
from proxy.model.recovery import Asked, Released, Seam
from proxy.wire import jsonbody
from proxy.wire.dialect import Object
from proxy.wire.dialects.continued import SseJoiner, with_answer, with_less
from proxy.wire.dialects.openai_events import choices_in, written
from proxy.wire.sse import SseFramer

_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_KEPT: Final = ("id", "created")
_NO_CONTENT: Final = frozenset({"role", "content"})


class ChatContinued:
    """`wire.continuing.Continued` for Chat Completions."""

    def asked(self, doc: Object) -> Asked:
        count, choice = doc.get("n"), doc.get("tool_choice")
        return Asked(
            choices=count if type(count) is int else 1,
            logprobs=bool(doc.get("logprobs")),
            thinks=doc.get("reasoning_effort") not in (None, "none"),
            tool_forced=choice == "required" or type(choice) is dict,
        )

    def told(self, data: bytes) -> "ChatTold":
        return ChatTold(data)

    def going_on(self, body: bytes, doc: Object, text: str, limit_less: int) -> bytes:
        return with_less(with_answer(body, doc, text), _LIMITS, limit_less)


class ChatTold:
    """`wire.continuing.Told` for Chat Completions."""

    __slots__ = ("_kept", "released")

    def __init__(self, data: bytes) -> None:
        self._kept: Object = {}
        pieces: list[str] = []
        beside = ""
        framer = SseFramer()
        for event in [*framer.feed(data), *framer.finish()]:
            doc = jsonbody.loads_event(event.data) if event.data[:1] == b"{" else None
            if type(doc) is not dict:
                continue
            choices = choices_in(doc)
            if choices and not self._kept:  # before them some say only what they found in a prompt
                self._kept = {name: doc[name] for name in _KEPT if name in doc}
            for choice in choices:
                delta = choice.get("delta")
                text = delta.get("content") if type(delta) is dict else None
                if type(text) is str:
                    pieces.append(text)
                beside = beside or _beside(choice)
        self.released = Released("".join(pieces), beside)

    def __repr__(self) -> str:
        return f"<ChatTold {len(self.released.text)} characters>"

    def joiner(self, seam: Seam, more_tokens: int) -> "ChatJoiner":
        return ChatJoiner(self._kept, seam, more_tokens)


def _beside(choice: Object) -> str:
    """What a choice says besides text."""
    if choice.get("index") not in (None, 0):
        return "several choices"
    if choice.get("logprobs"):
        return "logprobs"
    if choice.get("finish_reason") is not None:
        return "its end"
    delta = choice.get("delta")
    if type(delta) is not dict:
        return ""
    if delta.get("tool_calls") or delta.get("function_call"):
        return "tool_call"
    names = [name for name, value in delta.items() if name not in _NO_CONTENT and value]
    if type(delta.get("content")) not in (str, type(None)):
        names.append("content")
    if any(name.startswith("reasoning") for name in names):
        return "reasoning"
    return names[0][:32] if names else ""


class ChatJoiner(SseJoiner):
    """`wire.continuing.Joiner` for Chat Completions."""

    __slots__ = ("_kept", "_more")

    def __init__(self, kept: Object, seam: Seam, more_tokens: int) -> None:
        self._kept = kept
        super().__init__(seam)
        self._more = more_tokens

    def _join(self, doc: Object, event: WireEvent, out: list[bytes]) -> None:
        if self._leaves(doc):
            out.append(written({**doc, **self._kept}, event.name))

    def _leaves(self, doc: Object) -> bool:
        """Whether the event leaves, less what the caller has."""
        choices, usage = choices_in(doc), doc.get("usage")
        if type(usage) is dict and usage:
            self._count(usage)
        leaves = bool(usage)
        for choice in choices:
            leaves = self._choice(choice) or leaves
        return leaves and self._seam.passed

    def _choice(self, choice: Object) -> bool:
        seam, delta = self._seam, choice.get("delta")
        rest: Json = None
        if type(delta) is dict:
            delta.pop("role", None)
            text = delta.get("content")
            if type(text) is str and text:
                delta["content"] = rest = seam.take(text)
        ended = choice.get("finish_reason") is not None
        more = ended or bool(_beside({**choice, "logprobs": None}))
        if more and not seam.passed:
            seam.ends()
        return bool(rest) or more

    def _count(self, usage: Object) -> None:
        for name in ("completion_tokens", "total_tokens"):
            count = usage.get(name)
            if type(count) is int:
                usage[name] = count + self._more
