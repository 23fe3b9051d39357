"""A Chat Completions stream, read and written (wire.md §3.4, §7.2; failover.md §9).

Nearly every event is one piece of text in one choice; it takes the short way.  Everything else goes
through `_choice`.  With `hold_tools` the fragments of tool calls are kept to the end of their
choice, because servers interleave parallel calls: then each leaves as one `whole` Seen.

What has been sent is known only up to the event before the last: a guard may stop the stream in the
middle of the last one.  `blocked_end` therefore closes what was open before it.
"""

from typing import Final

from proxy.model.errors import ProxyError
from proxy.model.exchange import Delta, Json, Part, Seen, Stand, Usage, WireEvent
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows, Lane, Object
from proxy.wire.dialects import openai_events
from proxy.wire.dialects.lanes import MAX_PARTS, Halves, Strangers, paired
from proxy.wire.dialects.openai_calls import HeldCalls, call_places
from proxy.wire.dialects.openai_events import FRAME, TEXTS
from proxy.wire.errors import error_doc
from proxy.wire.failures import stream_error
from proxy.wire.mould import LESSONS, Mould, cast
from proxy.wire.usage import estimate_bytes, read_usage, write_usage

DONE: Final = b"data: [DONE]\n\n"
_EVENT_WORDS: Final = frozenset({*FRAME, "choices", "usage", "x_groq", "obfuscation"}) | {
    "prompt_filter_results",
    "kv_transfer_params",
}
_SHORT_WORDS: Final = _EVENT_WORDS - {"x_groq"}
_CHOICE_WORDS: Final = frozenset(
    {"index", "delta", "finish_reason", "stop_reason", "logprobs", "content_filter_results"}
    | {"content_filter_offsets", "token_ids"}
)
_DELTA_WORDS: Final = frozenset({"role", "tool_calls", "function_call", "audio"})


_NO_CHOICE: Final = -1  # where lanes of members beside the choices are


class ChatStream:
    """`StreamReader` for Chat Completions."""

    __slots__ = (
        "_asked", "_begun", "_calls", "_choice_names", "_doc_names", "_done", "_finished",
        "_finished_before", "_frame", "_halves", "_lanes", "_lessons", "_open", "_said",
        "_strangers", "_terminal", "_text_lanes", "_want_usage", "finish_reason", "model", "mould",
        "output_bytes", "unknown_events", "usage",
    )  # fmt: skip

    def __init__(
        self,
        *,
        hold_tools: bool,
        want_usage: bool,
        choices: int = 1,
        flows: Flows | None = None,
    ) -> None:
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.output_bytes = self.unknown_events = 0
        self.mould: Mould | None = None
        self._lessons = LESSONS
        self._calls = HeldCalls(flows) if hold_tools else None
        self._want_usage = want_usage
        self._asked = choices
        self._frame: Object | None = None
        self._lanes: dict[int, set[Lane]] = {}  # what each choice has begun
        self._text_lanes: dict[int, Lane] = {}
        self._doc_names: list[str] = []
        self._choice_names: list[str] = []
        self._open: set[int] = set()  # choices without a finish reason
        self._said: set[int] = set()  # choices with content
        self._finished: set[int] = set()
        self._finished_before: frozenset[int] | set[int] = frozenset()
        self._begun = self._terminal = self._done = False
        self._halves = Halves()
        self._strangers = Strangers()

    def __repr__(self) -> str:
        state = "done" if self._done else "terminal" if self._terminal else "open"
        return f"<ChatStream {len(self._lanes)} choices {state}>"

    # --- in

    def plain(self, raw: bytes) -> str | None:
        mould = self.mould
        text = mould.text(raw) if mould is not None else None
        if text is not None:
            self._finished_before = self._finished
            self.output_bytes += len(text) if text.isascii() else len(text.encode())
        return text

    def read(self, event: WireEvent) -> list[Seen]:
        data = event.data
        if not data:
            return [Seen(event.raw)]
        if data[:1] != b"{" and data.strip() == b"[DONE]":
            return self._trailer_seen(event)
        try:
            doc = jsonbody.loads(data)
            mend = bool(self._halves)
            if len(data) > jsonbody.SHALLOW_BYTES:
                jsonbody.refuse_depth(doc, data)
        except jsonbody.JsonError:
            doc, mend = jsonbody.loads_event(data), True
        if type(doc) is not dict:
            raise ValueError("an event that is no object")
        if not mend:
            seen = self._short_way(event, doc)
            if seen is not None:
                if self._lessons:
                    self._lessons -= 1
                    self.mould = cast(seen, self.render)
                return [seen]
        return self._long_way(event, doc, mend)

    def _short_way(self, event: WireEvent, doc: Object) -> Seen | None:
        """One choice, one piece of content, nothing else."""
        choices = doc.get("choices")
        if type(choices) is not list or len(choices) != 1 or doc.get("usage"):
            return None
        choice = choices[0]
        if type(choice) is not dict or choice.get("finish_reason") is not None:
            return None
        if choice.get("logprobs") is not None or choice.get("token_ids") is not None:
            return None
        delta, at = choice.get("delta"), choice.get("index")
        if type(delta) is not dict or len(delta) != 1 or type(at) is not int:
            return None
        text, lane = delta.get("content"), self._text_lanes.get(at)
        if type(text) is not str or not text or lane is None:
            return None
        if [*doc] != self._doc_names or [*choice] != self._choice_names:
            return None
        self._finished_before = self._finished
        self.output_bytes += len(text) if text.isascii() else len(text.encode())
        return Seen(event.raw, event.name, doc, [Delta(lane, text, delta, "content")], content=True)

    def _long_way(self, event: WireEvent, doc: Object, mend: bool) -> list[Seen]:
        if doc.get("error") or doc.get("object") == "error":
            return [Seen(event.raw, event.name, doc, error=stream_error(doc), structural=True)]
        self._finished_before = set(self._finished)
        seen = Seen(event.raw, event.name, doc)
        if self._frame is None and doc.get("id"):
            self._frame = {name: doc[name] for name in FRAME if name in doc}
        model = doc.get("model")
        if self.model is None and type(model) is str and model:
            self.model = paired(model)
        usage = self._read_usage(doc)
        choices = doc.get("choices")
        whole: list[Seen] = []
        touched = False
        if type(choices) is list:
            for choice in choices:
                if type(choice) is dict:
                    touched = self._choice(seen, choice, whole) or touched
        elif not usage:
            self.unknown_events += 1
        self._stranger_texts(seen, doc)
        self._learn(doc, choices)
        if not choices and usage:
            seen.carries = True
            if not self._want_usage:
                seen.raw = b""
        elif usage:
            seen.carries = True
        if mend:
            touched = self._halves.mend_all(seen.deltas) or touched
            self.mould = None  # what follows may begin with the other half
        self.output_bytes += sum(len(d.text.encode("utf-8", "replace")) for d in seen.deltas)
        if touched:
            seen.raw = self.render(seen) if self._worth_sending(seen) else b""
        if whole and self._calls is not None:
            self._calls.last = (seen, self.render)
        if not self._open and len(self._finished) >= self._asked and not self._terminal:
            self._terminal = seen.terminal = True
        return [*whole, seen]

    def _learn(self, doc: Object, choices: Json) -> None:
        """The members of an event without strangers: the short way is for events like it."""
        if type(choices) is list and len(choices) == 1 and doc.keys() <= _SHORT_WORDS:
            choice = choices[0]
            if type(choice) is dict and choice.keys() <= _CHOICE_WORDS:
                self._doc_names, self._choice_names = [*doc], [*choice]

    def _worth_sending(self, seen: Seen) -> bool:
        return bool(seen.deltas) or seen.carries

    def _read_usage(self, doc: Object) -> bool:
        raw = doc.get("usage")
        if not raw:
            groq = doc.get("x_groq")
            raw = groq.get("usage") if type(groq) is dict else None
        usage = read_usage("openai_chat", raw)
        if usage is None:
            return False
        self.usage = usage  # the last one counts; they never add up
        return True

    def _choice(self, seen: Seen, choice: Object, whole: list[Seen]) -> bool:
        """Read one choice into `seen`.  True: its fragments of tool calls were taken out."""
        found = choice.get("index")
        at = found if type(found) is int and found >= 0 else 0
        lanes = self._lanes.get(at)
        if lanes is None:
            lanes = self._lanes[at] = set()
            self._open.add(at)
            if len(self._lanes) > MAX_PARTS:
                raise ValueError("more choices than anybody asks for")
        touched = False
        ended = at in self._finished
        delta = choice.get("delta")
        if type(delta) is dict:
            begin = len(seen.deltas)
            touched = self._delta(seen, delta, at)
            for piece in seen.deltas[begin:]:
                if ended:
                    piece.stands = "late"
                elif piece.stands == "flowing":
                    lanes.add(piece.lane)
        said = delta.get("content") if type(delta) is dict else None
        seen.repeats = seen.repeats or openai_events.repeats_other(choice, said)
        names = [name for name in choice if name not in _CHOICE_WORDS]
        if names:
            stands: Stand = "alone" if ended else "waiting"
            seen.deltas += self._strangers.deltas(choice, names, "metadata", at, (), stands)
        if len(lanes) > MAX_PARTS:
            raise ValueError("more parts than one answer has")
        reason = choice.get("finish_reason")
        if type(reason) is str and reason:
            self._finished.add(at)
            self._open.discard(at)
            if self.finish_reason is None:
                self.finish_reason = paired(reason)
            self._text_lanes.pop(at, None)
            self.mould = None
            seen.ends += [*sorted(lanes), *self._strangers.lanes_of(at)]
            lanes.clear()
            seen.carries = seen.structural = True
            if self._calls is not None:
                whole += self._calls.release(at, self._frame or {})
        return touched

    def _delta(self, seen: Seen, delta: Object, at: int) -> bool:
        if delta.get("role"):
            self._begun = seen.carries = True
            seen.structural = True
        strangers: list[str] = []
        for name, value in delta.items():
            place = TEXTS.get(name)
            if place is not None:
                if type(value) is str and value:
                    lane: Lane = (at, place[1], place[2])
                    if name == "content" and at in self._open:
                        self._text_lanes.setdefault(at, lane)
                        self._said.add(at)
                    seen.deltas.append(Delta(lane, value, delta, name))
                    seen.content = True
                elif value and type(value) is not str:
                    strangers.append(name)
            elif name not in _DELTA_WORDS:
                strangers.append(name)
        audio = delta.get("audio")
        if type(audio) is dict and audio:
            self._audio(seen, audio, at)
        for name in strangers:
            part: Part = "annotation"
            if name in TEXTS or name.startswith("reasoning"):
                part = TEXTS[name][1] if name in TEXTS else "reasoning"
            found = self._strangers.deltas(delta, [name], part, at)
            seen.deltas += found
            seen.content = seen.content or bool(found)
        return self._tool_calls(seen, delta, at)

    def _audio(self, seen: Seen, audio: Object, at: int) -> None:
        seen.content = seen.carries = True
        text = audio.get("transcript")
        if type(text) is str and text:
            seen.deltas.append(Delta((at, "text", 1), text, audio, "transcript"))

    def _tool_calls(self, seen: Seen, delta: Object, at: int) -> bool:
        """Tool calls of a delta: into lanes, or out of the event and into `_calls`."""
        calls = call_places(delta)
        if not calls:
            return False
        seen.content, touched = True, False
        if self._calls is not None:
            calls, touched = self._calls.add(at, delta, calls)
        for place, call in calls:
            seen.carries = seen.carries or "id" in call or "type" in call
            for kind in ("function", "custom", "function_call"):
                holder = call.get(kind)
                if type(holder) is dict:
                    self._call(seen, holder, at, place)
        return touched

    def _call(self, seen: Seen, holder: Object, at: int, place: int) -> None:
        name = holder.get("name")
        if type(name) is str and name:
            stands: Stand = "flowing" if self._calls is None else "alone"
            seen.deltas.append(Delta((at, "tool_name", place), name, holder, "name", stands))
        for member in ("arguments", "input"):
            text = holder.get(member)
            if type(text) is str and text:
                seen.deltas.append(Delta((at, "tool_args", place), text, holder, member))

    def _stranger_texts(self, seen: Seen, doc: Object) -> None:
        if doc.keys() <= _EVENT_WORDS:
            return
        names = [name for name in doc if name not in _EVENT_WORDS]
        found = self._strangers.deltas(doc, names, "metadata", _NO_CHOICE)
        seen.deltas += found
        if seen.ends:  # what ends a choice does not wait
            seen.ends += [delta.lane for delta in found if delta.stands == "waiting"]
        seen.carries = True

    def _trailer_seen(self, event: WireEvent) -> list[Seen]:
        self._done = True
        done = Seen(event.raw, event.name, done=True, ends_all=True)
        if self._finished and not self._open and not self._terminal:
            self._terminal = done.terminal = True  # fewer choices than were asked for
        return [*self.flush(), done]

    def structural(self, event: WireEvent) -> bool:
        """Every event of this dialect is alike, and without one of them the rest still reads; but a
        tool call without one of its fragments is another tool call."""
        return self._calls is not None and self._calls.too_long

    def flush(self) -> list[Seen]:
        return self._calls.release_all(self._frame or {}) if self._calls is not None else []

    # --- out

    def render(self, seen: Seen) -> bytes:
        return openai_events.rendered(seen)

    def cut(self, seen: Seen) -> bytes:
        return openai_events.unfinished(seen)

    def tail(self, lane: Lane, text: str) -> bytes:
        delta = openai_events.tail_delta(lane, text)
        return self._chunk(lane[0], delta) if delta is not None else b""

    def notice(self, at: int, text: str) -> bytes:
        """A text of our own where a tool call was taken out: a line of its own."""
        line = f"\n{text}" if at in self._said else text
        self._said.add(at)
        return self._chunk(at, {"content": line})

    def drop(self, seen: Seen) -> None:
        if self._calls is not None and self._calls.drop(seen) and len(self._lanes) == 1:
            self.finish_reason = "stop"

    def blocked_end(self, message: str | None) -> bytes:
        known = set(self._lanes) or set(range(self._asked))
        out = []
        for at in sorted(known - self._finished_before):
            role: Object = {} if self._begun else {"role": "assistant"}
            if message or not self._lanes:  # an answer that is all our own says who speaks
                out.append(self._chunk(at, {**role, "content": message or ""}))
                message = None
            out.append(self._chunk(at, {}, "content_filter"))
        if self._want_usage:
            usage = self.usage or Usage(output=estimate_bytes(self.output_bytes))
            frame = {**(self._frame or self._own_frame()), "choices": []}
            doc: Object = {**frame, "usage": write_usage("openai_chat", usage)}
            out.append(openai_events.written(doc))
        return b"".join(out) + DONE

    def error_end(self, fault: ProxyError, request_id: str) -> bytes:
        return b"data: " + jsonbody.dumps(error_doc("openai_chat", fault, request_id)) + b"\n\n"

    def trailer(self) -> bytes:
        return DONE if self._terminal and not self._done else b""

    def _chunk(self, at: int, delta: Object, reason: str | None = None) -> bytes:
        return openai_events.chunk(self._frame or self._own_frame(), at, delta, reason)

    def _own_frame(self) -> Object:
        return {
            "id": "chatcmpl-parapet",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self.model or "",
        }
