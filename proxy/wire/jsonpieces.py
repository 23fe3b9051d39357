"""A JSON text that is still being written, read piece by piece (guardrails.md §9.6).

In charge of telling what of it is the text of a string value; everything else passes as it came.
It reads no more than RFC 8259 allows: where a text stops being JSON, all that follows is `rest`, of
which nobody knows what it means.
"""

import re
from typing import Final, Literal

from proxy.wire.jsonbody import MAX_DEPTH

# raw: as it came; said: a piece of a string value; closed: its quote; last: what ends the whole;
# key, number: one that is complete, and passes as raw
Kind = Literal["raw", "said", "closed", "last", "key", "number", "rest"]
# kind, what it says, what leaves of it as it stands in the text
Piece = tuple[Kind, str, str]

MAX_NUMBER: Final = 400  # characters of a number that anybody could read
_Awaits = Literal[
    "value", "item", "member", "key", "colon", "comma", "said", "named", "number", "word", "end"
]
_PLAIN: Final = re.compile(r'[^"\\\x00-\x1f]+')
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_ESCAPE: Final = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_HALF_ESCAPE: Final = re.compile(r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?")
_LOW: Final = re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_UNPAIRED: Final = "\ufffd"
_NUMBER_CHARS: Final = re.compile(r"[-+.0-9eE]+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_NUMBER_BEGUN: Final = re.compile(
    r"-?|-?(?:0|[1-9][0-9]*)(?:\.[0-9]*|(?:\.[0-9]+)?(?:[eE][-+]?[0-9]*)?)"
)
_WORD_CHARS: Final = re.compile(r"[a-z]+")
_WORDS: Final = ("true", "false", "null")


class JsonPieces:
    """`broken`: it is no JSON.  `done`: the value is complete; only space may follow.  `kept`: an
    escape that has begun."""

    __slots__ = (
        "_at",
        "_awaits",
        "_begin",
        "_found",
        "_key",
        "_open",
        "_text",
        "_token",
        "broken",
        "kept",
    )

    def __init__(self) -> None:
        self._awaits: _Awaits = "value"
        self._open: list[str] = []  # the closing bracket of each array and object
        self._key: list[str] = []  # what the key that has begun says
        self._token = ""  # of a number or word that has begun
        self._text = ""
        self._at = self._begin = 0  # what stands from _begin to _at is raw and was not told
        self._found: list[Piece] = []
        self.broken = False
        self.kept = ""

    def __repr__(self) -> str:
        return f"<JsonPieces {self._awaits} {len(self._open)} deep>"

    @property
    def done(self) -> bool:
        return self._awaits == "end" and not self.broken

    @property
    def number(self) -> str:
        """The number with which the text ends."""
        return self._token if self._awaits == "number" else ""

    def feed(self, text: str) -> list[Piece]:
        """What the next piece of the text adds."""
        if self.broken:
            return [("rest", text, text)]
        if self.kept:
            text, self.kept = self.kept + text, ""
        self._text, self._at, self._begin = text, 0, 0
        found: list[Piece] = []
        self._found = found
        size = len(text)
        while self._at < size and not self.broken:
            self._step()
        if not self.broken:
            self._tell_raw(self._at)
        return found

    def _step(self) -> None:
        match self._awaits:
            case "said":
                self._said()
            case "named":
                self._named()
            case "number" | "word":
                self._go_on_token()
            case _:
                space = _SPACE.match(self._text, self._at)
                assert space is not None, "it may be empty"
                self._at = space.end()
                if self._at < len(self._text):
                    self._structure(self._text[self._at])

    def _tell_raw(self, upto: int) -> None:
        if upto > self._begin:
            raw = self._text[self._begin : upto]
            self._found.append(("raw", raw, raw))
        self._begin = upto

    def _break(self, at: int) -> None:
        """From there on it is no JSON."""
        self._tell_raw(at)
        self.broken = True
        rest = self._text[at:]
        self._found.append(("rest", rest, rest))

    # --- between strings

    def _structure(self, char: str) -> None:
        awaits = self._awaits
        if awaits in ("member", "item", "comma") and self._open and char == self._open[-1]:
            self._close(char)
        elif awaits in ("value", "item"):
            self._value(char)
        elif awaits in ("member", "key") and char == '"':
            self._go_on("named")
        elif awaits == "colon" and char == ":":
            self._go_on("value")
        elif awaits == "comma" and char == ",":
            self._go_on("key" if self._open[-1] == "}" else "value")
        else:
            self._break(self._at)

    def _go_on(self, awaits: _Awaits) -> None:
        self._awaits = awaits
        self._at += 1

    def _value(self, char: str) -> None:
        if char == '"':
            self._go_on("said")
            self._tell_raw(self._at)
        elif char in "{[":
            if len(self._open) >= MAX_DEPTH:
                self._break(self._at)
                return
            self._open.append("}" if char == "{" else "]")
            self._go_on("member" if char == "{" else "item")
        elif char == "-" or "0" <= char <= "9":
            self._awaits, self._token = "number", ""
        elif char in "tfn":
            self._awaits, self._token = "word", ""
        else:
            self._break(self._at)

    def _close(self, char: str) -> None:
        self._open.pop()
        if self._open:
            self._go_on("comma")
            return
        self._tell_raw(self._at)
        self._go_on("end")
        self._begin = self._at
        self._found.append(("last", char, char))

    def _go_on_token(self) -> None:
        is_number = self._awaits == "number"
        more = (_NUMBER_CHARS if is_number else _WORD_CHARS).match(self._text, self._at)
        if more is None:
            whole = _NUMBER.fullmatch(self._token) if is_number else self._token in _WORDS
            if not whole:
                self._break(self._at)
                return
            if is_number:
                self._found.append(("number", self._token, ""))
            self._awaits = "comma" if self._open else "end"
            return
        token = self._token + more.group()
        if is_number:
            begun = len(token) <= MAX_NUMBER and _NUMBER_BEGUN.fullmatch(token) is not None
        else:
            begun = any(word.startswith(token) for word in _WORDS)
        if not begun:
            self._break(self._at)
            return
        self._token, self._at = token, more.end()

    # --- strings

    def _named(self) -> None:
        """In a key: it passes as it came."""
        begin = self._at
        at = self._at = self._plain_end()
        self._key.append(self._text[begin:at])
        if at == len(self._text):
            return
        self._key.append(self._special(at, "colon"))
        if self._awaits != "named":
            self._found.append(("key", "".join(self._key), ""))
            self._key.clear()

    def _said(self) -> None:
        """In a string value."""
        begin = self._at
        at = self._at = self._begin = self._plain_end()
        if at > begin:
            plain = self._text[begin:at]
            self._found.append(("said", plain, plain))
        if at == len(self._text):
            return
        said = self._special(at, "comma" if self._open else "end")
        if said:
            raw = said if said == _UNPAIRED else self._text[at : self._at]
            self._found.append(("said", said, raw))
            self._begin = self._at
        elif self._awaits != "said":
            self._begin = self._at
            self._found.append(("closed", '"', '"'))

    def _plain_end(self) -> int:
        plain = _PLAIN.match(self._text, self._at)
        return self._at if plain is None else plain.end()

    def _special(self, at: int, behind: _Awaits) -> str:
        """A quote, an escape or what may not stand in a string; what an escape says, if whole."""
        char = self._text[at]
        if char == '"':
            self._go_on(behind)
        elif char == "\\":
            return self._escape(at)
        else:
            self._break(at)
        return ""

    def _escape(self, at: int) -> str:
        """What the escape says; empty when it is not complete, or none."""
        text = self._text
        found = _ESCAPE.match(text, at)
        if found is None:
            if _HALF_ESCAPE.fullmatch(text, at):
                self._keep(at)
            else:
                self._break(at)
            return ""
        self._at = found.end()
        char = text[at + 1]
        if char != "u":
            return _ESCAPED.get(char, char)
        code = int(text[at + 2 : self._at], 16)
        if not 0xD800 <= code < 0xE000:
            return chr(code)
        low = _LOW.match(text, self._at) if code < 0xDC00 else None
        if low is not None:
            second = int(text[self._at + 2 : low.end()], 16)
            self._at = low.end()
            return chr(0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00))
        if code < 0xDC00 and _HALF_ESCAPE.fullmatch(text, self._at):
            self._keep(at)
            return ""
        return _UNPAIRED

    def _keep(self, at: int) -> None:
        self._tell_raw(at)
        self.kept = self._text[at:]
        self._at = self._begin = len(self._text)
