"""Placeholders that are undone on the way back (guardrails.md §6.1).

A value of a request becomes `[EMAIL_14a6de]`: a label, and the first digits of an HMAC.  The same
value has the same placeholder in every turn, so nothing has to be stored; what a placeholder stands
for is known as long as the request lives, and to no other.

Laws.  Only what this request has issued is restored, and only in its exact spelling.  However an
answer was cut, what comes out, joined, is the restored whole.
"""

import hmac
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from proxy.model.exchange import Leaf, Part

Digest = Callable[[bytes, str, str], str]  # key, label, value -> hex digits

RESTORED: Final[frozenset[Part]] = frozenset({"text", "refusal", "tool_args"})
DIGITS: Final = (6, 8)  # the longer where another value of the request has the shorter ones
MAX_HELD: Final = 34  # the longest proper beginning: `[`, a label of 24, `_` and 8 digits
MAX_RESTORED_CHARS: Final = 16 * 1024 * 1024  # in one answer: a short one must not become endless
_CONTEXT: Final = b"parapet placeholders\0"
_BRACKET: Final = re.compile(r"\[[A-Z0-9_]{2,25}[0-9a-f]{6,8}\]")
_ALNUM: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SUSPECT: Final = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{6,8}(?![0-9A-Za-z])")
_LOOK_CHARS: Final = 512  # what has left is looked at in pieces of this size


def workspace_key(server_key: bytes, workspace_id: str) -> bytes:
    """The secret of a workspace, out of the server's own."""
    return hmac.digest(server_key, _CONTEXT + workspace_id.encode(), "sha256")


def hmac_digits(key: bytes, label: str, value: str) -> str:
    said = f"{label}\0{value}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, said, "sha256").hex()


def undoable(action: str, direction: str) -> bool:
    """What such a rule takes out can be put back (`reversible`)."""
    return action == "redact" and direction not in ("response", "out")


class Placeholders:
    """What one request has issued.  True when there is any."""

    __slots__ = ("_digest", "_issued", "_key", "_sorted", "digits", "values")

    def __init__(self, key: bytes, digest: Digest = hmac_digits) -> None:
        self._key = key
        self._digest = digest
        self._issued: dict[tuple[str, str], str] = {}
        self._sorted: list[str] = []
        self.values: dict[str, str] = {}
        self.digits: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.values)

    def __repr__(self) -> str:
        return f"<Placeholders {len(self.values)} issued>"

    def issue(self, label: str, value: str) -> str | None:
        """The placeholder of a value.  None: other values have all that it could have."""
        known = self._issued.get((label, value))
        if known is not None:
            return known
        digits = self._digest(self._key, label, value)
        for count in DIGITS:
            placeholder = f"[{label}_{digits[:count]}]"
            if placeholder not in self.values:
                self._issued[label, value] = placeholder
                self.values[placeholder] = value
                self.digits.add(digits[:count])
                return placeholder
        return None

    def in_order(self) -> list[str]:
        """All that were issued, sorted once: where there are many, that takes its time."""
        if len(self._sorted) != len(self.values):
            self._sorted = sorted(self.values)
        return self._sorted

    def restoration(self) -> "Restoration":
        """For one answer to the request, once the request has been judged."""
        return Restoration(self)


class Restoration:
    """Undoes the placeholders in the texts of one answer.

    `unrestored`: how often the digits of a placeholder stood there in another spelling, or where
    nothing can be restored.
    """

    __slots__ = ("_digits", "_left_chars", "_sorted", "_values", "unrestored")

    def __init__(self, placeholders: Placeholders) -> None:
        self._values = placeholders.values
        self._sorted = placeholders.in_order()
        self._digits = placeholders.digits
        self._left_chars = MAX_RESTORED_CHARS
        self.unrestored = 0

    def __repr__(self) -> str:
        return f"<Restoration {len(self._values)} issued, {self.unrestored} unrestored>"

    def lane(self) -> "Restorer":
        """For one growing text."""
        return Restorer(self)

    def whole(self, text: str) -> str:
        """A text that is complete."""
        lane = Restorer(self)
        return lane.feed(text) + lane.finish()

    def leaves(
        self, leaves: Sequence[Leaf], rewrites: Iterable[tuple[Leaf, str]]
    ) -> list[tuple[Leaf, str]]:
        """The new texts of an answer's leaves, after those that the rules have rewritten."""
        rewritten = {id(leaf): text for leaf, text in rewrites}
        found: list[tuple[Leaf, str]] = []
        for leaf in leaves:
            text = rewritten.get(id(leaf), leaf.text)
            if leaf.part in RESTORED:
                if leaf.rewritable:
                    text = self.whole(text)
                else:  # a key, or no JSON where there should be: nothing can be put there
                    self.count(text)
            if text != leaf.text:
                found.append((leaf, text))
        return found

    # --- for its lanes

    def value_of(self, placeholder: str) -> str | None:
        value = self._values.get(placeholder)
        if value is None or len(value) > self._left_chars:
            return None
        self._left_chars -= len(value)
        return value

    def begins(self, text: str) -> bool:
        """A placeholder begins like this, and goes on."""
        at = bisect_left(self._sorted, text)
        if at == len(self._sorted):
            return False
        return len(self._sorted[at]) > len(text) and self._sorted[at].startswith(text)

    def count(self, text: str) -> None:
        """Count what is left of placeholders in a text that stays: their digits, as a word."""
        for word in _SUSPECT.findall(text):
            if word.lower() in self._digits:
                self.unrestored += 1


class Restorer:
    """One growing text: feed() what the rules let out, emit what it returns, finish() once."""

    __slots__ = ("_answer", "_chars", "_held", "_left", "_undone")

    def __init__(self, answer: Restoration) -> None:
        self._answer = answer
        self._chars = 0  # that have left
        self._undone: list[tuple[int, str, int]] = []  # place, placeholder, characters of its value
        self._held = ""  # how a placeholder begins
        self._left = ""  # what has left as it came and was not looked at

    def __repr__(self) -> str:
        return f"<Restorer {len(self._held)} held>"

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def held_text(self) -> str:
        return self._held

    def rewind(self) -> None:
        """Forget what is held."""
        self._held = ""

    def as_judged(self, left: str) -> str | None:
        """The text that has left with its placeholders back in it.  None: `left` is not all that
        has left."""
        if len(left) != self._chars:
            return None
        out: list[str] = []
        done = 0
        for place, placeholder, size in self._undone:
            out += (left[done:place], placeholder)
            done = place + size
        return "".join([*out, left[done:]])

    def feed(self, text: str) -> str:
        """Take the next piece; return what may leave now."""
        if self._held:
            text, self._held = self._held + text, ""
        begun = text.rfind("[")
        if begun < 0:
            self._leave(text)
            self._chars += len(text)
            return text
        if len(text) - begun <= MAX_HELD and self._answer.begins(text[begun:]):
            text, self._held = text[:begun], text[begun:]
        out: list[str] = []
        at = 0
        for found in _BRACKET.finditer(text):
            value = self._answer.value_of(found[0])
            if value is not None:
                before = text[at : found.start()]
                self._leave(before + "[")
                self._undone.append((self._chars + len(before), found[0], len(value)))
                self._chars += len(before) + len(value)
                out += (before, value)
                at = found.end()
        self._leave(text[at:])
        self._chars += len(text) - at
        out.append(text[at:])
        return "".join(out)

    def finish(self) -> str:
        """The text is whole: what was begun is no placeholder."""
        text, self._held = self._held, ""
        self._answer.count(self._left + text)
        self._left = ""
        self._chars += len(text)
        return text

    def _leave(self, text: str) -> None:
        self._left += text
        if len(self._left) >= _LOOK_CHARS:
            whole = len(self._left.rstrip(_ALNUM))  # the last word may go on
            self._answer.count(self._left[:whole])
            self._left = self._left[whole:][: DIGITS[-1] + 1]  # too long to be counted stays so
