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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from proxy.model.exchange import Leaf, Part

Digest = Callable[[bytes, str, str], str]  # key, label, value -> hex digits

RESTORED: Final[frozenset[Part]] = frozenset({"text", "refusal", "tool_args"})
DIGITS: Final = (6, 8)  # the longer where another value of the request has the shorter ones
MAX_HELD: Final = 34  # the longest proper beginning: `[`, a label of 24, `_` and 8 digits
MAX_RESTORED_CHARS: Final = 16 * 1024 * 1024  # in one answer: a short one must not become endless
_CONTEXT: Final = b"parapet placeholders\0"
_BRACKET: Final = re.compile(r"\[[A-Z0-9_]{2,25}[0-9a-f]{6,8}\]")
_WORD: Final = re.compile(r"[0-9A-Za-z]+")


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

    __slots__ = ("_digest", "_issued", "_key", "_values")

    def __init__(self, key: bytes, digest: Digest = hmac_digits) -> None:
        self._key = key
        self._digest = digest
        self._issued: dict[tuple[str, str], str] = {}
        self._values: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def __repr__(self) -> str:
        return f"<Placeholders {len(self._values)} issued>"

    def issue(self, label: str, value: str) -> str | None:
        """The placeholder of a value.  None: other values have all that it could have."""
        known = self._issued.get((label, value))
        if known is not None:
            return known
        digits = self._digest(self._key, label, value)
        for count in DIGITS:
            placeholder = f"[{label}_{digits[:count]}]"
            if placeholder not in self._values:
                self._issued[label, value] = placeholder
                self._values[placeholder] = value
                return placeholder
        return None

    def restoration(self) -> "Restoration":
        """For one answer to the request, once the request has been judged."""
        return Restoration(self._values)


class Restoration:
    """Undoes the placeholders in the texts of one answer.

    `unrestored`: how often the digits of a placeholder stood there in another spelling, or where
    nothing can be restored.
    """

    __slots__ = ("_digits", "_left_chars", "_sorted", "_values", "unrestored")

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._sorted = sorted(values)
        self._digits = {placeholder[placeholder.rindex("_") + 1 : -1] for placeholder in values}
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
                    self._count(text)
            if text != leaf.text:
                found.append((leaf, text))
        return found

    def _count(self, text: str) -> None:
        for found in _WORD.finditer(text):
            self.look(found[0])

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

    def look(self, word: str) -> None:
        """A whole word of letters and digits that stays."""
        if word.lower() in self._digits:
            self.unrestored += 1


class Restorer:
    """One growing text: feed() what the rules let out, emit what it returns, finish() once."""

    __slots__ = ("_answer", "_held", "_word")

    def __init__(self, answer: Restoration) -> None:
        self._answer = answer
        self._held = ""  # how a placeholder begins
        self._word = ""  # the last word so far, which may go on; its first nine characters

    def __repr__(self) -> str:
        return f"<Restorer {len(self._held)} held>"

    @property
    def held(self) -> int:
        return len(self._held)

    def feed(self, text: str) -> str:
        """Take the next piece; return what may leave now."""
        if self._held:
            text, self._held = self._held + text, ""
        begun = text.rfind("[")
        if begun < 0:
            self._look(text)
            return text
        if len(text) - begun <= MAX_HELD and self._answer.begins(text[begun:]):
            text, self._held = text[:begun], text[begun:]
        out: list[str] = []
        at = 0
        for found in _BRACKET.finditer(text):
            value = self._answer.value_of(found[0])
            if value is not None:
                self._look(text[at : found.start()])
                self._end_of_word()
                out += (text[at : found.start()], value)
                at = found.end()
        self._look(text[at:])
        out.append(text[at:])
        return "".join(out)

    def finish(self) -> str:
        """The text is whole: what was begun is no placeholder."""
        text, self._held = self._held, ""
        self._look(text)
        self._end_of_word()
        return text

    def _look(self, text: str) -> None:
        """Count what is left of placeholders in a text that stays."""
        if self._word:
            text, self._word = self._word + text, ""
        for found in _WORD.finditer(text):
            if found.end() == len(text):
                self._word = found[0][: DIGITS[-1] + 1]
            else:
                self._answer.look(found[0])

    def _end_of_word(self) -> None:
        word, self._word = self._word, ""
        if word:
            self._answer.look(word)
