"""Tool calls of a Chat Completions stream, put together from their fragments (wire.md §7.2).

A fragment belongs to the call of its index; without an index to the call of its id, else to the one
at its position.  A new id on an old index is a new call.  Only the first id, name and type of each
call count; they may come late, and the whole arguments may come in one piece.  Members that nobody
knows stay with their call: of each the first value counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from proxy.model.exchange import Delta, Json, Seen
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows, Object
from proxy.wire.dialects.lanes import MAX_ASSEMBLED, MAX_PARTS, Strangers, paired
from proxy.wire.dialects.openai_events import LEGACY, choices_in, written

Fragment = tuple[int, Object]  # the place of its call, and what it says
_WORDS: Final = frozenset({"index", "id", "type", "function", "custom", "function_call"})
_HOLDER_WORDS: Final = frozenset({"name", "arguments", "input"})
_OPAQUE: Final = frozenset({"signature", "thought_signature", "thoughtSignature"})


@dataclass(slots=True)
class HeldCall:
    """One call under way.  `kind`: the member that holds name and arguments.  `more`, `inner`: what
    else the call and that member hold.  `flows_at`: its place where it leaves as it comes."""

    place: int
    kind: str = "function"
    call_id: str = ""
    type: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    size: int = 0
    more: Object = field(default_factory=dict)
    inner: Object = field(default_factory=dict)
    flows_at: int | None = None


def call_places(delta: Object) -> list[tuple[int, Object]]:
    """(index, fragment) of each tool call in a delta; the old `function_call` counts as one."""
    found: list[tuple[int, Object]] = []
    calls = delta.get("tool_calls")
    for position, call in enumerate(calls if type(calls) is list else []):
        if type(call) is dict:
            index = call.get("index")
            found.append((index if type(index) is int else position, call))
    if type(delta.get("function_call")) is dict:
        found.append((LEGACY, delta))
    return found


class HeldCalls:
    """The calls of all choices; those that may flow are only followed.  `last`: the event that
    tells why the choices finished.  `too_long`: a call cannot be read to its end."""

    __slots__ = ("_calls", "_flowing", "_flows", "_released", "last", "too_long")

    def __init__(self, flows: Flows | None = None) -> None:
        self._flows = flows
        self._flowing: dict[int, int] = {}  # how many calls of a choice flow
        self.too_long = False
        self._calls: dict[int, list[HeldCall]] = {}
        self._released: dict[int, list[Seen]] = {}
        self.last: tuple[Seen, Callable[[Seen], bytes]] | None = None

    def __repr__(self) -> str:
        return f"<HeldCalls {sum(map(len, self._calls.values()))}>"

    def add(self, at: int, delta: Object, fragments: list[Fragment]) -> tuple[list[Fragment], bool]:
        """Take the fragments out of a delta, but those of calls that flow: these are returned, with
        their places; and whether the delta was changed.  Raises ValueError: a call is too long to
        hold."""
        calls = self._calls.setdefault(at, [])
        flowing: list[Fragment] = []
        changed = False
        for place, fragment in fragments:
            known = len(calls)
            call = self._call_of(calls, place, fragment)
            if len(calls) > known and self._may_flow(place, fragment):
                self._begin(at, call, fragment)
            if call.flows_at is not None:
                changed = self._follow(call, fragment) or changed
                flowing.append((call.flows_at, fragment))
                continue
            if place != LEGACY:
                _keep(call, call.more, fragment, _WORDS)
            for kind in ("function", "custom", "function_call"):
                holder = fragment.get(kind)
                if type(holder) is dict:
                    _grow(call, kind, holder)
            if call.size > MAX_ASSEMBLED or len(calls) > MAX_PARTS:
                self._refuse("tool calls too long, or too many, to be held")
        if len(calls) > MAX_PARTS:
            self._refuse("too many tool calls")
        if len(flowing) == len(fragments):
            return flowing, changed
        left: list[Json] = [call for place, call in flowing if place != LEGACY]
        legacy = delta.pop("function_call", None)
        delta.pop("tool_calls", None)
        if left:
            delta["tool_calls"] = left
        if len(left) < len(flowing):
            delta["function_call"] = legacy
        return flowing, True

    def _refuse(self, why: str) -> None:
        self.too_long = True
        raise ValueError(why)

    def _may_flow(self, place: int, fragment: Object) -> bool:
        """It tells who is called at once, in words that everybody knows, and may leave."""
        if self._flows is None:
            return False
        kind = "function_call" if place == LEGACY else "function"
        holder = fragment.get(kind)
        if type(holder) is not dict or not holder.keys() <= {"name", "arguments"}:
            return False
        name, arguments = holder.get("name"), holder.get("arguments")
        if type(name) is not str or not name or paired(name) != name:
            return False
        if arguments is not None and type(arguments) is not str:
            return False
        if place != LEGACY:
            given, known = fragment.get("id"), fragment.keys() <= {"index", "id", "type", kind}
            if not known or type(given) is not str or not given or "index" not in fragment:
                return False
        return self._flows((name,))

    def _begin(self, at: int, call: HeldCall, fragment: Object) -> None:
        known = self._flowing.get(at, 0)
        self._flowing[at] = known + 1
        call.flows_at = LEGACY if call.place == LEGACY else known

    def _follow(self, call: HeldCall, fragment: Object) -> bool:
        """One more fragment of a call that flows; whether it was changed."""
        first, changed = not call.name, False
        kind = "function_call" if call.place == LEGACY else "function"
        if any(type(fragment.get(k)) is dict for k in ("function", "custom") if k != kind):
            self._refuse("a tool call of two kinds")
        holder = fragment.get(kind)
        if type(holder) is not dict:
            changed = fragment.pop(kind, None) is not None
        else:
            if "input" in holder:
                self._refuse("a tool call of two kinds")
            name, text = holder.get("name"), holder.get("arguments")
            gone = [n for n in holder if n not in ("name", "arguments")]
            gone += ["name"] if name is not None and not first else []
            gone += ["arguments"] if text is not None and type(text) is not str else []
            for member in gone:
                del holder[member]
            changed = bool(gone)
            if first and type(name) is str:
                call.name = name
            call.size += len(text) if type(text) is str else 0
        if call.size > MAX_ASSEMBLED:
            self._refuse("a tool call too long to be followed")
        if call.place == LEGACY:
            return changed
        strange = [n for n in fragment if n not in ("index", "id", "type", kind)]
        strange += [n for n, v in (("id", call.call_id), ("type", call.type))
                    if n in fragment and fragment[n] not in (None, "", v)]  # fmt: skip
        for member in strange:
            del fragment[member]
        if fragment.get("index") != call.flows_at:
            fragment["index"], changed = call.flows_at, True
        return changed or bool(strange)

    def _call_of(self, calls: list[HeldCall], place: int, fragment: Object) -> HeldCall:
        found_id = fragment.get("id")
        call_id = found_id if type(found_id) is str else ""
        if "index" not in fragment and call_id:
            for call in calls:
                if call.call_id == call_id:
                    return call
        for call in reversed(calls):
            if call.place == place and (not call_id or call.call_id in ("", call_id)):
                break
        else:
            call = HeldCall(place)
            calls.append(call)
        call.call_id = call.call_id or call_id
        kind = fragment.get("type")
        call.type = call.type or (kind if type(kind) is str else "")
        return call

    def release(self, at: int, frame: Object) -> list[Seen]:
        """The calls of a choice, whole, in the order they began."""
        calls = [call for call in self._calls.pop(at, []) if call.flows_at is None]
        begin = self._flowing.get(at, 0)
        found = [_whole(at, number, call, frame) for number, call in enumerate(calls, begin)]
        self._released[at] = found
        self.last = None
        return list(found)

    def release_all(self, frame: Object) -> list[Seen]:
        return [seen for at in list(self._calls) for seen in self.release(at, frame)]

    def drop(self, seen: Seen) -> bool:
        """This call is not sent: later ones move up.  True: it was the last of its choice, which
        ends without a tool call now."""
        at = seen.deltas[0].lane[0]
        released = self._released.get(at, [])
        place = next((i for i, known in enumerate(released) if known is seen), None)
        if place is None:
            return False
        del released[place]
        begin = self._flowing.get(at, 0)
        for number, later in enumerate(released[place:], begin + place):
            _renumber(later, number)
        if released or begin or self.last is None:
            return False
        last, render = self.last
        if last.doc is None or not _no_calls(last.doc, at):
            return False
        last.raw = render(last)
        return True


def _keep(call: HeldCall, kept: Object, fragment: Object, known: frozenset[str]) -> None:
    for name, value in fragment.items():
        if name not in known and name not in kept and value is not None:
            kept[name] = value
            call.size += len(name) + len(jsonbody.dumps_event(value))


def _grow(call: HeldCall, kind: str, holder: Object) -> None:
    call.kind = kind
    _keep(call, call.inner, holder, _HOLDER_WORDS)
    name = holder.get("name")
    if type(name) is str and name and not call.name:
        call.name = name
    for member in ("arguments", "input"):
        text = holder.get(member)
        if type(text) is str and text:
            call.pieces.append(text)
            call.size += len(text)


def _whole(at: int, number: int, call: HeldCall, frame: Object) -> Seen:
    member = "input" if call.kind == "custom" else "arguments"
    text = paired("".join(call.pieces))
    holder: Object = {**call.inner, "name": paired(call.name), member: text}
    if call.kind == "function_call":
        shown: Object = {}
        delta: Object = {"function_call": holder}
    else:
        shown = {"index": number, "id": call.call_id, "type": call.type or call.kind}
        shown[call.kind] = holder
        shown.update(call.more)
        delta = {"tool_calls": [shown]}
    choice: Json = {"index": at, "delta": delta, "finish_reason": None}
    doc: Object = {**frame, "choices": [choice]}
    deltas = [Delta((at, "tool_args", number), text, holder, member)]
    if call.name:
        deltas.insert(0, Delta((at, "tool_name", number), paired(call.name), holder, "name"))
    strange = Strangers()
    if shown:
        deltas += strange.deltas(shown, call.more, "metadata", at, _OPAQUE, "alone")
    deltas += strange.deltas(holder, call.inner, "metadata", at, _OPAQUE, "alone")
    ends = [delta.lane for delta in deltas]
    return Seen(written(doc), "", doc, deltas, ends, content=True, carries=True, whole=True)


def _renumber(seen: Seen, number: int) -> None:
    for choice in choices_in(seen.doc):
        delta = choice.get("delta")
        calls = delta.get("tool_calls") if type(delta) is dict else None
        if type(calls) is list and calls and type(calls[0]) is dict:
            calls[0]["index"] = number
    for piece in seen.deltas:
        if piece.stands == "flowing":
            piece.lane = (piece.lane[0], piece.lane[1], number)
    seen.ends = [piece.lane for piece in seen.deltas]
    assert seen.doc is not None, "a whole call has a document"
    seen.raw = written(seen.doc)


def _no_calls(doc: Object, at: int) -> bool:
    changed = False
    for choice in choices_in(doc):
        index = choice.get("index")
        here = (index if type(index) is int and index >= 0 else 0) == at
        if here and choice.get("finish_reason") in ("tool_calls", "function_call"):
            choice["finish_reason"] = "stop"
            changed = True
    return changed
