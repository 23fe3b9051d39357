"""The arguments of a tool call that leave while they are written (guardrails.md §9.6).

In charge of each string value on its own: it is unescaped, looked at by an exact lane, and escaped
again where the lane has changed it.  Keys, numbers and what two parsers could read differently are
looked at before the last bracket leaves; a finding there, which nobody can rewrite, is a block.
"""

from collections import deque
from dataclasses import replace
from typing import Final

from proxy.gateway.texts import Wrap
from proxy.gateway.waiting import LaneKey
from proxy.guardrails.engine import Guard, attempt
from proxy.guardrails.findings import MAX_RESULTS
from proxy.guardrails.matching import RuleSet
from proxy.guardrails.permits import Permits
from proxy.guardrails.placeholders import Restoration
from proxy.guardrails.program import Limits, Program
from proxy.guardrails.stream import Lane
from proxy.model.exchange import Leaf, Part
from proxy.model.policy import PolicyResult
from proxy.runtime.beside import breathe
from proxy.wire import jsonbody
from proxy.wire.dialect import Flows
from proxy.wire.jsonpieces import JsonPieces
from proxy.wire.leaves import json_text_leaves, number_text

BATCH: Final = 32  # keys and numbers that are judged together
_PART: Final[Part] = "tool_args"
_IDLE: Final = Program(RuleSet([], attempt), Limits())
_ResultKey = tuple[str, str | None, str, str, str | None]


class ArgumentsLane(Lane):
    """A JSON text; what leaves is the JSON of the guarded value, byte for byte as it came where
    nothing was rewritten."""

    __slots__ = (
        "_came",
        "_checked",
        "_differs",
        "_draw",
        "_guard",
        "_inner",
        "_noted",
        "_pieces",
        "_rest",
        "_rest_chars",
        "_scanned",
        "_told",
        "_waiting",
    )  # fmt: skip

    def __init__(self, guard: Guard, draw: float) -> None:
        super().__init__(_IDLE, _PART)
        self._guard = guard
        self._draw = draw
        self._pieces = JsonPieces()
        self._inner: Lane | None = None  # of the string that is being written
        self._waiting: deque[tuple[str, str]] = deque()  # of it: what it says, as it came
        self._differs = False  # of it something is not as it came
        self._came: list[str] = []
        self._rest: list[str] = []  # behind what is no JSON
        self._rest_chars = 0
        self._noted: list[Leaf] = []  # keys and numbers that nobody has judged
        self._checked = False
        self._told: dict[_ResultKey, PolicyResult] = {}
        self._scanned = 0

    @property
    def held(self) -> int:
        inner = self._inner.held if self._inner is not None else 0
        return inner + len(self._pieces.kept) + self._rest_chars

    @property
    def scanned_chars(self) -> int:
        return self._scanned + (self._inner.scanned_chars if self._inner is not None else 0)

    def results(self) -> list[PolicyResult]:
        told = dict(self._told)
        if self._inner is not None:
            _add(told, self._inner.results())
        return list(told.values())[:MAX_RESULTS]

    def feed(self, text: str) -> str:
        if self.blocked is not None or not text:
            return ""
        self._came.append(text)
        out: list[str] = []
        for kind, said, raw in self._pieces.feed(text):
            if kind == "raw":
                out.append(raw)
            elif kind == "said":
                if not self._say(said, raw, out):
                    break
            elif kind == "key" or kind == "number":
                self._note(said, is_number=kind == "number")
                if len(self._noted) >= BATCH and not self._allows():
                    break
            elif kind == "rest":
                self._checked = False
                self._rest.append(raw)
                self._rest_chars += len(raw)
            else:
                if not self._end_string(out) or (self._pieces.done and not self._passes()):
                    break
                out.append(raw)
        return "".join(out)

    def finish(self) -> str:
        """The call is over, though perhaps not its JSON."""
        if self.blocked is not None or not self._came:
            return ""
        out: list[str] = []
        if self._passes() and self._end_string(out):
            out += (self._pieces.kept, *self._rest)
        self._pieces.kept = ""
        self._rest.clear()
        self._rest_chars = 0
        return "".join(out)

    # --- a string

    def _say(self, said: str, raw: str, out: list[str]) -> bool:
        inner = self._inner
        if inner is None:
            inner = self._inner = self._guard.lane(_PART, self._draw)
        if inner is None:  # no rule looks
            out.append(raw)
            return True
        self._waiting.append((said, raw))
        return self._leave(inner, inner.feed(said), out)

    def _end_string(self, out: list[str]) -> bool:
        inner = self._inner
        if inner is None:
            return True
        passes = self._leave(inner, inner.finish(), out)
        self._inner = None
        self._scanned += inner.scanned_chars
        self.overflows += inner.overflows
        _add(self._told, inner.results())
        self._waiting.clear()
        self._differs = False
        return passes

    def _leave(self, inner: Lane, text: str, out: list[str]) -> bool:
        """What a lane lets out, as it came where it is what came.  False: it has blocked."""
        at, size = 0, len(text)
        while at < size and not self._differs:
            said, raw = self._waiting[0] if self._waiting else ("", "")
            if said and text.startswith(said, at):
                self._waiting.popleft()
                out.append(raw)
                at += len(said)
            elif said == raw and len(said) > size - at and said.startswith(text[at:]):
                out.append(text[at:])
                self._waiting[0] = (said[size - at :], raw[size - at :])
                at = size
            else:
                self._differs = True
                self._waiting.clear()
        if at < size:
            out.append(jsonbody.dump_text(text[at:]).decode()[1:-1])
        if self._differs:
            self._waiting.clear()
        if inner.blocked is not None:
            self.blocked, self.message = inner.blocked, inner.message
        return inner.blocked is None

    # --- the whole

    def _passes(self) -> bool:
        """Look at what no lane has looked at."""
        if self._checked:
            return True
        self._checked = True
        text = "".join(self._came)
        breathe()
        if self._pieces.number:
            self._note(self._pieces.number, is_number=True)
        if self._pieces.broken or not _is_plain(text):  # whatever others make of it
            self._noted.append(Leaf(text, _PART, "assistant", (), rewritable=False))
            for leaf in json_text_leaves(text, _PART, "assistant", ()):
                leaf.rewritable = False
                self._noted.append(leaf)
        breathe()
        passes = self._allows()
        self._scanned = min(self._scanned, len(text))
        return passes

    def _note(self, said: str, *, is_number: bool) -> None:
        """A key or a number that has left, or is about to: judged in time, and at the end."""
        if is_number:
            value = jsonbody.loads(said)
            if type(value) is int or type(value) is float:
                said = number_text(value)
        self._noted.append(Leaf(said, _PART, "assistant", (), rewritable=False))

    def _allows(self) -> bool:
        judged = self._guard.judge(self._noted, "response", self._draw)
        self._noted.clear()
        self._scanned += judged.scanned_chars
        _add(self._told, judged.results)
        if judged.block is not None:
            self.blocked, self.message = judged.block, judged.message
        return judged.block is None


def _is_plain(text: str) -> bool:
    """JSON that every parser reads alike."""
    try:
        jsonbody.strict_value(text)
    except jsonbody.BodyFault:
        return False
    return True


def leaves_live(guard: Guard, restoration: Restoration | None) -> bool:
    """Whether arguments may leave as they are written.  They may not where something wants the
    whole of them: placeholders that are undone, checks outside that act on them."""
    acting = [rule for rule in guard.outside if rule.enforces]
    return (
        guard.tool_args == "live"
        and restoration is None
        and guard.enforces("response", _PART)
        and not any(rule.reach.covers("response", _PART, "assistant", True) for rule in acting)
    )


def may_flow(permits: Permits | None) -> Flows:
    """Which tools' calls: those whose permission is settled before the arguments are known."""
    return _all_flow if permits is None else permits.may_flow


def _all_flow(_names: tuple[str, ...]) -> bool:
    return True


def around_arguments(guard: Guard, draw: float, wrap: Wrap | None) -> Wrap:
    """Lanes of arguments read their JSON; those of other texts are wrapped as before."""

    def wrapped(key: LaneKey, lane: Lane | None) -> Lane | None:
        if key[1] == _PART:
            return None if lane is None else ArgumentsLane(guard, draw)
        return lane if wrap is None else wrap(key, lane)

    return wrapped


def _add(told: dict[_ResultKey, PolicyResult], results: list[PolicyResult]) -> None:
    """One result per rule and what became of it, with a count."""
    for result in results:
        key = (
            result.policy_id, result.rule_matched, result.verdict, result.action_taken,
            result.message,
        )  # fmt: skip
        known = told.get(key)
        if known is None:
            told[key] = replace(result)
        else:
            told[key] = replace(known, count=known.count + result.count)
