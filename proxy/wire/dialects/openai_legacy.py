"""OpenAI's legacy completions: `prompt` in, `choices[].text` out, at L0 only (wire.md §2.1)."""

from collections.abc import Mapping
from typing import Final

from proxy.model.errors import ProxyError
from proxy.model.exchange import Delta, Dialect, Json, Leaf, Seen, Stand, Usage, WireEvent
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows, Lane, Object
from proxy.wire.dialects import openai_events
from proxy.wire.dialects.lanes import MAX_PARTS, Halves, Strangers, paired
from proxy.wire.dialects.members import OPTION_WORDS, below
from proxy.wire.dialects.openai_chat import finish_of, is_error
from proxy.wire.dialects.openai_events import choices_of
from proxy.wire.errors import error_doc
from proxy.wire.failures import stream_error
from proxy.wire.leaves import ALL_READ, Gather, Unread, Unscannable
from proxy.wire.mould import Mould
from proxy.wire.usage import estimate_bytes, read_usage, write_usage

DONE: Final = b"data: [DONE]\n\n"
_FILTERED: Final = "content_filter"
_SETTINGS: Final = frozenset({"model", "stream", "stream_options", "logit_bias", "service_tier"})
_FRAME: Final = ("id", "object", "created", "model", "system_fingerprint")
_EVENT_WORDS: Final = frozenset({*_FRAME, "choices", "usage", "service_tier"})
_CHOICE_WORDS: Final = frozenset(
    {"index", "text", "finish_reason", "stop_reason", "logprobs", "content_filter_results"}
    | {"content_filter_offsets", "token_ids", "prompt_token_ids", "prompt_logprobs"}
)


def prompt_leaves(gather: Gather, value: Json, name: str) -> None:
    """A prompt: a text or texts.  Raises Unscannable for token ids."""
    if type(value) is list:
        if any(type(item) is not str for item in value):
            raise Unscannable(f"`{name}` holds token ids, which cannot be scanned")
        gather.walk(value, "text", (name,))
    elif type(value) is str:
        gather.text(value, "text", (name,))
    elif value is not None:
        raise ValueError(f"`{name}` is neither a text nor a list of texts")


class LegacyReader:
    """`POST …/completions`"""

    name: Dialect = "openai_chat"
    unread: Mapping[Unread, int] = ALL_READ

    def request_leaves(self, doc: Object) -> list[Leaf]:
        gather = Gather("user")
        for name, value in doc.items():
            if name == "prompt":
                prompt_leaves(gather, value, name)
            elif name == "suffix":
                gather.walk(value, "text", (name,))
            elif name == "stop":
                gather.walk(value, "text", (name,), rewritable=False)
            elif name in _SETTINGS:
                below(gather, value, "metadata", (name,), OPTION_WORDS)
            else:
                gather.walk(value, "metadata", (name,))
        return gather.leaves

    def answer_leaves(self, doc: Object) -> list[Leaf]:
        gather = Gather("assistant")
        for name, value in doc.items():
            if name not in _EVENT_WORDS:
                gather.walk(value, "metadata", (name,))
            elif name != "choices":
                below(gather, value, "metadata", (name,), OPTION_WORDS)
        for place, choice in enumerate(choices_of(doc)):
            gather.text(choice.get("text"), "text", ("choices", place, "text"))
            for name, value in choice.items():
                if name not in _CHOICE_WORDS:
                    gather.walk(value, "metadata", ("choices", place, name))
        return gather.leaves

    def answer_usage(self, doc: Object) -> Usage | None:
        return read_usage("openai_chat", doc.get("usage"))

    def answer_finish(self, doc: Object) -> str | None:
        return finish_of(doc)

    def answer_error(self, doc: Object) -> bool:
        return is_error(doc)

    def answer_block(
        self,
        message: str | None,
        request_id: str,
        model: str | None,
        *,
        usage: Usage | None = None,
        choices: int = 1,
    ) -> bytes:
        told: list[Json] = [
            {"index": at, "text": message or "", "logprobs": None, "finish_reason": _FILTERED}
            for at in range(choices)
        ]
        return jsonbody.dumps(
            {
                "id": f"cmpl-{request_id}",
                "object": "text_completion",
                "created": 0,
                "model": model or "",
                "choices": told,
                "usage": write_usage("openai_chat", usage or Usage()),
            }
        )

    def stream(
        self,
        *,
        hold_tools: bool,
        hold_reasoning: bool,
        want_usage: bool,
        choices: int = 1,
        flows: Flows | None = None,
    ) -> "LegacyStream":
        return LegacyStream(want_usage=want_usage, choices=choices)


_NO_CHOICE: Final = -1  # where lanes of members beside the choices are


class LegacyStream:
    """`StreamReader` for completions: every event holds a piece of text per choice."""

    __slots__ = (
        "_asked",
        "_done",
        "_finished",
        "_finished_before",
        "_frame",
        "_halves",
        "_seen",
        "_strangers",
        "_terminal",
        "_want_usage",
        "finish_reason",
        "model",
        "mould",
        "output_bytes",
        "unknown_events",
        "usage",
    )

    def __init__(self, *, want_usage: bool, choices: int = 1) -> None:
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.output_bytes = self.unknown_events = 0
        self.mould: Mould | None = None  # nobody streams so much of this that it would pay
        self._want_usage = want_usage
        self._asked = choices
        self._frame: Object | None = None
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._finished_before: set[int] = set()
        self._terminal = self._done = False
        self._halves = Halves()
        self._strangers = Strangers()

    def __repr__(self) -> str:
        state = "done" if self._done else "terminal" if self._terminal else "open"
        return f"<LegacyStream {len(self._seen)} choices {state}>"

    def plain(self, raw: bytes) -> str | None:
        return None

    def read(self, event: WireEvent) -> list[Seen]:
        if not event.data:
            return [Seen(event.raw)]
        if event.data.strip() == b"[DONE]":
            self._done = True
            done = Seen(event.raw, event.name, done=True, ends_all=True)
            if self._finished and self._finished == self._seen and not self._terminal:
                self._terminal = done.terminal = True  # fewer choices than were asked for
            return [done]
        doc = jsonbody.loads_event(event.data)
        if type(doc) is not dict:
            raise ValueError("an event that is no object")
        if is_error(doc):
            return [Seen(event.raw, event.name, doc, error=stream_error(doc), structural=True)]
        self._finished_before = set(self._finished)
        if self._frame is None and doc.get("id"):
            self._frame = {name: doc[name] for name in _FRAME if name in doc}
        model = doc.get("model")
        if self.model is None and type(model) is str and model:
            self.model = paired(model)
        return [self._see(event, doc)]

    def _see(self, event: WireEvent, doc: Object) -> Seen:
        seen = Seen(event.raw, event.name, doc)
        choices = choices_of(doc)
        for choice in choices:
            self._choice(seen, choice)
        names = [name for name in doc if name not in _EVENT_WORDS]
        if names:
            self._strange(seen, doc, names, _NO_CHOICE)
            if seen.ends:  # what ends a choice does not wait
                seen.ends += self._strangers.lanes_of(_NO_CHOICE)
        usage = read_usage("openai_chat", doc.get("usage"))
        if usage is not None:
            self.usage = usage
            seen.carries = True
            if not choices and not self._want_usage:
                seen.raw = b""
        elif type(doc.get("choices")) is not list:
            self.unknown_events += 1
        mended = False
        for delta in seen.deltas:
            if self._halves or not delta.text.isascii():
                mended = self._halves.mend(delta) or mended
            self.output_bytes += len(delta.text.encode("utf-8", "replace"))
        if mended:
            seen.raw = self.render(seen)
        whole = len(self._finished) >= self._asked and self._finished == self._seen
        if whole and not self._terminal:
            self._terminal = seen.terminal = True
        return seen

    def _choice(self, seen: Seen, choice: Object) -> None:
        found = choice.get("index")
        at = found if type(found) is int and found >= 0 else 0
        self._seen.add(at)
        if len(self._seen) > MAX_PARTS:
            raise ValueError("more choices than anybody asks for")
        lane: Lane = (at, "text", 0)
        text = choice.get("text")
        if type(text) is str and text:
            stands: Stand = "late" if at in self._finished else "flowing"
            seen.deltas.append(Delta(lane, text, choice, "text", stands))
            seen.content = True
        seen.repeats = seen.repeats or openai_events.repeats_other(choice, text)
        names = [name for name in choice if name not in _CHOICE_WORDS]
        if names:
            self._strange(seen, choice, names, at)
        reason = choice.get("finish_reason")
        if type(reason) is str and reason:
            self._finished.add(at)
            self.finish_reason = self.finish_reason or paired(reason)
            seen.ends += [lane, *self._strangers.lanes_of(at)]
            seen.carries = seen.structural = True

    def _strange(self, seen: Seen, holder: Object, names: list[str], at: int) -> None:
        stands: Stand = "late" if at in self._finished else "waiting"
        seen.deltas += self._strangers.deltas(holder, names, "metadata", at, (), stands)
        seen.carries = True

    def structural(self, event: WireEvent) -> bool:
        return False

    def flush(self) -> list[Seen]:
        return []

    def drop(self, seen: Seen) -> None:
        """Nothing is assembled here."""

    def render(self, seen: Seen) -> bytes:
        return openai_events.rendered(seen)

    def cut(self, seen: Seen) -> bytes:
        return openai_events.unfinished(seen)

    def tail(self, lane: Lane, text: str) -> bytes:
        return self._chunk(lane[0], text) if lane[1] == "text" else b""

    def notice(self, at: int, text: str) -> bytes:
        return self._chunk(at, text)

    def blocked_end(self, message: str | None) -> bytes:
        left = sorted((self._seen or set(range(self._asked))) - self._finished_before)
        out = []
        for at in left:
            out.append(self._chunk(at, message or "", _FILTERED))
            message = None
        if self._want_usage:
            usage = self.usage or Usage(output=estimate_bytes(self.output_bytes))
            doc: Object = {**self._head(), "choices": []}
            doc["usage"] = write_usage("openai_chat", usage)
            out.append(b"data: " + jsonbody.dumps(doc) + b"\n\n")
        return b"".join(out) + DONE

    def error_end(self, fault: ProxyError, request_id: str) -> bytes:
        return b"data: " + jsonbody.dumps(error_doc("openai_chat", fault, request_id)) + b"\n\n"

    def trailer(self) -> bytes:
        return DONE if self._terminal and not self._done else b""

    def _head(self) -> Object:
        own: Object = {"id": "cmpl-parapet", "object": "text_completion", "created": 0}
        return self._frame or {**own, "model": self.model or ""}

    def _chunk(self, at: int, text: str, reason: str | None = None) -> bytes:
        choice: Json = {"index": at, "text": text, "finish_reason": reason, "logprobs": None}
        return b"data: " + jsonbody.dumps_event({**self._head(), "choices": [choice]}) + b"\n\n"
