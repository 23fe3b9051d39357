"""Kind `regex`: administrators' patterns, read twice (guardrails.md §4).

In charge of turning the text of a rule into a `Pattern`, or into a fault that says where.  A rule
may give several patterns; they are alternatives.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from proxy.guardrails import shape
from proxy.guardrails.checks import terms
from proxy.guardrails.fold import Folding
from proxy.guardrails.linear import INNER_MEM_BYTES, LinearError, Regex
from proxy.guardrails.parse import Alt, Node, RegexFault, parse
from proxy.guardrails.rules import Pattern

MAX_POSITIONS: Final = 20_000
MAX_PROGRAMS: Final = 700_000  # instructions of all patterns of one member: twice the largest one


class PatternFault(ValueError):
    """Why a pattern is refused; `index`: which one of several."""

    def __init__(
        self, code: str, message: str, position: int | None = None, index: int = 0
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.position, self.index = code, message, position, index


@lru_cache(512)  # a reload compiles only what changed
def compiled(texts: tuple[str, ...], ignore_case: bool, folding: Folding | None) -> Pattern:
    """One pattern, or several alternatives.  Raises PatternFault."""
    nodes: list[Node] = []
    alone: list[Regex] = []
    size = 0
    for index, text in enumerate(texts):
        node, regex = _read(text, index, ignore_case)
        nodes.append(node)
        alone.append(regex)
        size = _with(size, regex, index)
    node = nodes[0] if len(nodes) == 1 else Alt(tuple(nodes))
    if shape.positions(node) > MAX_POSITIONS:
        raise PatternFault("regex_too_large", "The pattern has too many places.")
    try:
        if len(texts) == 1:
            return Pattern(alone[0], node, folding=folding)
        whole = "|".join(f"(?:{text})" for text in texts)
        return Pattern(Regex(whole, ignore_case=ignore_case), node, folding=folding)
    except LinearError:
        raise _too_large() from None


def _with(size: int, regex: Regex, index: int) -> int:
    """The size of all programs so far.  Raises PatternFault."""
    size += regex.size
    if size > MAX_PROGRAMS:
        detail = "The patterns together are too large for RE2."
        raise PatternFault("regex_too_large", detail, None, index)
    return size


def _read(text: str, index: int, ignore_case: bool) -> tuple[Node, Regex]:
    try:
        node = parse(text, ignore_case=ignore_case)
        regex = Regex(text, ignore_case=ignore_case)
    except RegexFault as fault:
        message = f"{fault.construct[0].upper()}{fault.construct[1:]}: not in our dialect."
        raise PatternFault(fault.code, message, fault.position, index) from None
    except LinearError as fault:
        code = "regex_too_large" if fault.too_large else "regex_syntax"
        raise PatternFault(code, f"RE2: {fault}.", None, index) from None
    if shape.min_width(node) == 0:
        raise PatternFault("empty_match", "The pattern matches the empty string.", None, index)
    return node, regex


def _too_large() -> PatternFault:
    return PatternFault("regex_too_large", "The pattern is too large for RE2.")


@lru_cache(64)
def compiled_terms(
    words: tuple[str, ...], ignore_case: bool, folding: Folding | None, whole_words: bool, gaps: int
) -> Pattern:
    """A term list as one pattern.  Raises PatternFault."""
    text = terms.pattern_of(words, folding=folding, whole_words=whole_words, gaps=gaps)
    if not text:
        raise PatternFault("empty_match", "No term is left after folding.")
    keywords = terms.keywords_of(words, folding=folding, gaps=gaps)
    # What is folded is lower case already.
    ignore_case = ignore_case and folding is None
    node = parse(text, ignore_case=ignore_case)
    try:
        regex = Regex(text, ignore_case=ignore_case, max_mem=INNER_MEM_BYTES)
        return Pattern(regex, node, folding=folding, keywords=keywords)
    except LinearError:
        raise _too_large() from None


def allow_check(texts: Sequence[str]) -> list[Regex]:
    """Regexes that a span may match completely to be let alone.  Raises PatternFault."""
    checks: list[Regex] = []
    size = 0
    for index, text in enumerate(texts):
        try:
            parse(text)
            checks.append(Regex(f"\\A(?:{text})\\z"))
        except RegexFault as fault:
            message = f"{fault.construct}: not in our dialect."
            raise PatternFault(fault.code, message, fault.position, index) from None
        except LinearError as fault:
            code = "regex_too_large" if fault.too_large else "regex_syntax"
            raise PatternFault(code, f"RE2: {fault}.", None, index) from None
        size = _with(size, checks[-1], index)
    return checks
