"""The dialect of patterns (guardrails.md §4.1): a recursive descent over one pattern.

In charge of the tree that the stream automaton is built from, and of telling *where* a pattern says
what RE2 cannot do.  A pattern must please both parsers, this one and RE2's.  Invariant: for every
accepted pattern the tree describes at least the strings that RE2 matches; greedy and lazy, capture
and name make no difference to it.
"""

from dataclasses import dataclass
from typing import Final, Literal

from proxy.guardrails import charset
from proxy.guardrails.charset import ANY, Ranges

MAX_COUNT: Final = 1000
MAX_DEPTH: Final = 50

FaultCode = Literal["unsupported_regex", "regex_syntax", "regex_too_large"]


@dataclass(frozen=True, slots=True)
class Set:
    """One character of these."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Cat:
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Alt:
    branches: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Rep:
    """`high` None: without end."""

    item: "Node"
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Assert:
    """A test of the place, such as `\\b`, written as RE2 reads it on its own."""

    text: str


Node = Set | Cat | Alt | Rep | Assert


class RegexFault(ValueError):
    """The pattern is refused.  `position` counts characters from 0."""

    def __init__(
        self, construct: str, position: int, code: FaultCode = "unsupported_regex"
    ) -> None:
        reason = "is not supported" if code == "unsupported_regex" else "is not allowed"
        super().__init__(f"{construct} {reason} (position {position})")
        self.construct = construct
        self.position = position
        self.code = code


_REFUSED_GROUPS: Final = {
    "?=": "look-ahead",
    "?!": "look-ahead",
    "?<=": "look-behind",
    "?<!": "look-behind",
    "?>": "atomic group",
    "?#": "comment group",
    "?P=": "back-reference",
    "?P>": "recursion",
    "?R": "recursion",
    "?(": "conditional group",
    "?|": "branch reset",
}


def parse(pattern: str, *, ignore_case: bool = False) -> Node:
    """The tree of a pattern.  Raises RegexFault."""
    return _Parser(pattern, ignore_case).parse()


class _Parser:
    def __init__(self, pattern: str, ignore_case: bool) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0
        self._ignore_case, self._dot_all, self._multiline = ignore_case, False, False

    def parse(self) -> Node:
        node = self._alternation()
        if self._at < len(self._text):
            raise RegexFault("unbalanced )", self._at, "regex_syntax")
        return node

    def _ahead(self, count: int = 1) -> str:
        return self._text[self._at : self._at + count]

    def _alternation(self) -> Node:
        branches = [self._sequence()]
        while self._ahead() == "|":
            self._at += 1
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def _sequence(self) -> Node:
        items: list[Node] = []
        while self._at < len(self._text) and self._ahead() not in "|)":
            atom = self._atom()
            if atom is not None:
                items.append(self._repeated(atom))
        return items[0] if len(items) == 1 else Cat(tuple(items))

    # ---- repetition

    def _repeated(self, atom: Node) -> Node:
        start = self._at
        bounds = self._quantifier()
        if bounds is None:
            return atom
        if self._ahead() == "+":
            raise RegexFault("possessive quantifier", self._at)
        if self._ahead() == "?":
            self._at += 1  # lazy: the same language
        again = self._at
        if self._quantifier() is not None:
            raise RegexFault("repeated quantifier", again)
        low, high = bounds
        if max(low, high or 0) > MAX_COUNT:
            raise RegexFault(f"repetition above {MAX_COUNT}", start)
        return Rep(atom, low, high)

    def _quantifier(self) -> tuple[int, int | None] | None:
        """Read `* + ? {n} {n,} {n,m}`; None, and nothing read, when none stands here."""
        c = self._ahead()
        if c == "{":
            return self._counts()
        if not c or c not in "*+?":
            return None
        self._at += 1
        return (0, None) if c == "*" else (1, None) if c == "+" else (0, 1)

    def _counts(self) -> tuple[int, int | None] | None:
        """`{n}`, `{n,}`, `{n,m}`; any other brace is a literal, as RE2 reads it."""
        end = self._text.find("}", self._at)
        low_text, comma, high_text = self._text[self._at + 1 : max(end, 0)].partition(",")
        if not _is_number(low_text) or not (high_text == "" or _is_number(high_text)):
            return None
        if len(low_text) > 9 or len(high_text) > 9:
            raise RegexFault(f"repetition above {MAX_COUNT}", self._at)
        low = int(low_text)
        high = low if not comma else int(high_text) if high_text else None
        if high is not None and high < low:
            raise RegexFault("inverted repetition", self._at)
        self._at = end + 1
        return low, high

    # ---- atoms

    def _atom(self) -> Node | None:
        """One atom; None for a group that only sets flags."""
        at, c = self._at, self._ahead()
        self._at += 1
        match c:
            case "(":
                return self._group(at)
            case "[":
                return self._set(self._char_class(at))
            case ".":
                return Set(ANY if self._dot_all else charset.negate(charset.of("\n")))
            case "^" | "$":
                return Assert(f"(?m:{c})" if self._multiline else c)
            case "*" | "+" | "?":
                raise RegexFault("quantifier without a target", at, "regex_syntax")
            case "\\":
                if self._ahead() and self._ahead() in "bBAz":
                    self._at += 1
                    return Assert(self._text[at : self._at])
                return self._set(self._escape(at)[0])
            case _:
                return self._set(charset.of(c))

    def _set(self, ranges: Ranges) -> Set:
        return Set(charset.ignore_case(ranges) if self._ignore_case else ranges)

    def _group(self, at: int) -> Node | None:
        for opening, name in _REFUSED_GROUPS.items():
            if self._text.startswith(opening, self._at):
                raise RegexFault(name, at)
        if self._depth == MAX_DEPTH:
            raise RegexFault(f"nesting deeper than {MAX_DEPTH}", at, "regex_too_large")
        saved = self._ignore_case, self._dot_all, self._multiline
        if self._ahead() == "?" and not self._opened(at):
            return None  # (?i) holds until the enclosing group ends
        self._depth += 1
        node = self._alternation()
        self._depth -= 1
        if self._ahead() != ")":
            raise RegexFault("missing )", at, "regex_syntax")
        self._at += 1
        self._ignore_case, self._dot_all, self._multiline = saved
        return node

    def _opened(self, at: int) -> bool:
        """Read from `?` to the body; False when there is none, as in `(?i)`."""
        for opening in ("?P<", "?<"):
            if self._text.startswith(opening, self._at):
                end = self._text.find(">", self._at)
                if end < 0:
                    raise RegexFault("group name without end", at, "regex_syntax")
                self._at = end + 1
                return True
        self._at += 1
        value = True
        while (c := self._ahead()) and c in "ims-":
            self._at += 1
            match c:
                case "-":
                    value = False
                case "i":
                    self._ignore_case = value
                case "m":
                    self._multiline = value
                case _:
                    self._dot_all = value
        if c not in (":", ")"):
            raise RegexFault(f"group (?{c}", at)
        self._at += 1
        return c == ":"

    def _escape(self, at: int) -> tuple[Ranges, bool]:
        """What a backslash means, and whether that is exact (a Unicode class is read as ANY)."""
        c = self._ahead()
        self._at += 1
        if c in charset.CLASS_ESCAPES:
            return charset.CLASS_ESCAPES[c], True
        if c in charset.CONTROL_ESCAPES:
            code = charset.CONTROL_ESCAPES[c]
            return ((code, code),), True
        if c == "x":
            return self._hex(at), True
        if c and c in "pP":
            self._skip_name(at)
            return ANY, False
        if c and c.isascii() and not c.isalnum():
            return charset.of(c), True
        if not c:
            raise RegexFault("backslash at the end", at, "regex_syntax")
        raise RegexFault("back-reference" if c.isdigit() else f"escape \\{c}", at)

    def _hex(self, at: int) -> Ranges:
        if self._ahead() == "{":
            end = self._text.find("}", self._at)
            digits, self._at = self._text[self._at + 1 : max(end, 0)], end + 1
        else:
            digits = self._ahead(2)
            self._at += 2
            if len(digits) != 2:
                digits = ""
        if not 1 <= len(digits) <= 8 or any(c not in "0123456789abcdefABCDEF" for c in digits):
            raise RegexFault("escape \\x", at, "regex_syntax")
        code = int(digits, 16)
        if code > charset.LAST:
            raise RegexFault("escape \\x", at, "regex_syntax")
        return ((code, code),)

    def _skip_name(self, at: int) -> None:
        """Pass over the name of a Unicode class; whether it exists is RE2's affair."""
        if self._ahead() != "{":
            self._at += 1
            return
        end = self._text.find("}", self._at)
        if end < 0:
            raise RegexFault("class name without end", at, "regex_syntax")
        self._at = end + 1

    def _char_class(self, at: int) -> Ranges:
        inverted = self._ahead() == "^"
        self._at += inverted
        ranges: list[tuple[int, int]] = []
        exact, first = True, True
        while self._ahead() != "]" or first:
            if not self._ahead():
                raise RegexFault("missing ]", at, "regex_syntax")
            first = False
            if self._ahead(2) == "[:":
                ranges += self._posix()
                continue
            item, item_exact = self._class_item()
            exact = exact and item_exact
            ranges += item
        self._at += 1
        if not exact:
            return ANY  # the complement of a larger set would be a smaller one
        merged = charset.merge(ranges)
        return charset.negate(merged) if inverted else merged

    def _posix(self) -> Ranges:
        start = self._at
        end = self._text.find(":]", start)
        name = self._text[start + 2 : max(end, 0)]
        ranges = charset.POSIX.get(name.removeprefix("^"))
        if ranges is None:
            raise RegexFault(f"class [:{name}:]", start)
        self._at = end + 2
        return charset.negate(ranges) if name.startswith("^") else ranges

    def _class_item(self) -> tuple[Ranges, bool]:
        """One character, escape or range inside brackets."""
        start = self._at
        low, exact = self._class_char()
        single = len(low) == 1 and low[0][0] == low[0][1]
        if not single or self._ahead() != "-" or self._ahead(2)[1:] in ("]", ""):
            return low, exact
        self._at += 1
        high, high_exact = self._class_char()
        if high[0][1] < low[0][0]:
            raise RegexFault("inverted range", start, "regex_syntax")
        return ((low[0][0], high[0][1]),), exact and high_exact

    def _class_char(self) -> tuple[Ranges, bool]:
        at, c = self._at, self._ahead()
        self._at += 1
        return self._escape(at) if c == "\\" else (charset.of(c), True)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
