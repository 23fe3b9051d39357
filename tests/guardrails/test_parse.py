"""T-GR-22, T-GR-05: what a pattern may hold, where it says what it may not, and that the automaton
sees at least what RE2 matches."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.guardrails import charset, shape
from proxy.guardrails.automaton import ENDED, Automaton
from proxy.guardrails.linear import GateSet, Regex
from proxy.guardrails.narrow import narrow
from proxy.guardrails.parse import RegexFault, parse

# fmt: off
REFUSED = [
    # pattern       construct                   position
    (r"a(?=b)",     "look-ahead",               1),
    (r"a(?!b)",     "look-ahead",               1),
    (r"(a)\1",      "back-reference",           3),
    (r"x(?<!x)a",   "look-behind",              1),
    (r"x(?<=x)a",   "look-behind",              1),
    (r"ab(?>a)",    "atomic group",             2),
    (r"(?P<n>a)(?P=n)", "back-reference",       8),
    (r"a(?#no)",    "comment group",            1),
    (r"(a)(?(1)b)", "conditional group",        3),
    (r"a++",        "possessive quantifier",    2),
    (r"a**",        "repeated quantifier",      2),
    (r"a{2}{3}",    "repeated quantifier",      4),
    (r"a{1001}",    "repetition above 1000",    1),
    (r"a{99999999999}", "repetition above 1000", 1),
    (r"x{2,1}",     "inverted repetition",      1),
    (r"[[:foo:]]",  "class [:foo:]",            1),
    (r"\bkey\Z",    r"escape \Z",               5),
    (r"\Qa.b\E",    r"escape \Q",               0),
    (r"a\C",        r"escape \C",               1),
    ("\\u0041",     r"escape \u",               0),
    (r"(?U)a*",     "group (?U",                0),
    (r"ab)",        "unbalanced )",             2),
    (r"a(b",        "missing )",                1),
    (r"a[b",        "missing ]",                1),
    (r"*a",         "quantifier without a target", 0),
    (r"[b-a]",      "inverted range",           1),
    ("ab\\",        "backslash at the end",     2),
    (r"\x{110000}", r"escape \x",               0),
    (r"\xZZ",       r"escape \x",               0),
    (r"\pL{",       None,                       None),
    (r"\p{Greek",   "class name without end",   0),
    (r"(?P<n",      "group name without end",   0),
    ("(" * 60 + "a" + ")" * 60, "nesting deeper than 50", 50),
]
ACCEPTED = [
    "a{,3}", "a{", "{a}", "a{1,2,3}", r"[]a]+", r"[^]a]", r"[a-]", r"[\d-]", r"[\]\\]", r"a|b|",
    r"(?i)a(?-i)b", r"(?s:.)", r"(?m)^a$", r"\A\x41\x{1F600}\z", r"[[:alpha:][:^digit:]]",
    r"\pL\p{Greek}\PN", r"(?P<name>a)(?<other>b)", r"a{0}b", r"\t\n\r\f\v\a\-", "()a", r"a*?b+?c??",
]
# fmt: on


@pytest.mark.parametrize(("pattern", "construct", "position"), REFUSED)
def test_t_gr_22_a_refused_pattern_says_where(
    pattern: str, construct: str | None, position: int | None
) -> None:
    if construct is None:
        parse(pattern)
        return
    with pytest.raises(RegexFault) as told:
        parse(pattern)
    assert (told.value.construct, told.value.position) == (construct, position)


@pytest.mark.parametrize("pattern", ACCEPTED)
def test_both_parsers_accept(pattern: str) -> None:
    parse(pattern)
    Regex(pattern)


# fmt: off
WIDTHS = [
    # pattern            least  most   late assertion
    (r"\ba*",            0,     None,  False),
    (r"ab?c{2,3}",       3,     5,     False),
    (r"\bkey\b",         3,     3,     True),
    (r"(?:^|a)b",        1,     2,     False),
    (r"(?:a|\bb)c",      2,     2,     False),
    (r"a(?:\b|x)",       1,     2,     True),
    (r"(?:\ba)+",        1,     None,  True),
    (r"(?:\b){3}a",      1,     1,     True),   # said too often, never too seldom
]
LITERALS = [
    (r"\bgh[pousr]_[A-Za-z0-9]{36,}", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    (r"(?i)secret\s*=",               ("secret",)),
    (r"abc|de",                       ("abc", "de")),
    (r"[a-z]+\.eyJ",                  (".eyj",)),
    (r"a|bc",                         ()),
    (r"(?:foo)?[0-9]+",               ()),
    (r"(?:foo){2,}",                  ("foo",)),
]
# fmt: on


@pytest.mark.parametrize(("pattern", "least", "most", "late"), WIDTHS)
def test_widths(pattern: str, least: int, most: int | None, late: bool) -> None:
    node = parse(pattern)
    assert (shape.min_width(node), shape.max_width(node)) == (least, most)
    assert shape.late_assertion(node) is late


@pytest.mark.parametrize(("pattern", "words"), LITERALS)
def test_literals_that_every_match_contains(pattern: str, words: tuple[str, ...]) -> None:
    assert sorted(shape.literals(parse(pattern))) == sorted(words)


# fmt: off
GATES = [
    # pattern, texts that hold a match, texts that hold its literals and none
    (r"(?i)\b(?:secret|token)[\"']?\s{0,3}[=:]\s{0,3}([a-z0-9]{8,})",
     ["secret=abcdefgh", "TOKEN' : 12345678"],  ["the secret is out", "a token of thanks: x"]),
    (r"\bghp_[A-Za-z0-9]{36,}",  ["xx ghp_" + "a" * 40],           ["the prefix ghp_ marks"]),
    (r"(?i)aws_?secret_?key\s?=", ["AWSSECRETKEY =", "aws_secret_key="], ["aws_secret_key is"]),
    (r"a-b(?:c|d)?[0-9]{2}",      ["a-b12", "a-bc12"],               ["a-b c", "a-bx"]),
    (r"(?:foo|bar)baz",           ["xfoobaz", "barbaz"],             ["foo baz"]),
    (r"x-(?:key|id)-[^\s]{3,9}",  ["X-KEY-!!!", "x-id-abc"],         ["x-key- ", "x-id"]),
]
# fmt: on


@pytest.mark.parametrize(("pattern", "matches", "others"), GATES)
def test_a_gate_lets_every_match_through(
    pattern: str, matches: list[str], others: list[str]
) -> None:
    node = parse(pattern)
    gate = GateSet([shape.gate(node)])
    assert all(gate.present(text.encode()) for text in matches)
    assert not any(gate.present(text.encode()) for text in others)


@pytest.mark.parametrize("pattern", [r"[a-z]{5}", r"\d+", r"a|[bc]"])
def test_what_holds_no_literal_has_no_gate(pattern: str) -> None:
    assert shape.gate(parse(pattern)) == ""


@pytest.mark.thorough
@given(st.data())
def test_no_match_of_any_pattern_is_kept_out(data: st.DataObject) -> None:
    pattern = data.draw(st.sampled_from([pattern for pattern, _, _ in GATES]))
    text = data.draw(st.from_regex(re.compile(pattern, re.ASCII)))
    if Regex(pattern).search(text.encode()) is not None:
        assert GateSet([shape.gate(parse(pattern))]).present(text.encode())


NUMBERS = [
    # pattern, the shortest run of digits that its gate asks for (0: another kind of gate)
    (r"\b[2-6]\d(?:[ -]?\d){10,17}\b", 12),
    (r"\b\d{3}[- ]\d{2}[- ]\d{4}\b", 9),
    (r"\d{2}(?:\.?\d{2}){1,3}-?\d{3}", 7),
    (r"(?:\d{4}|\d\.\d{5})x?\d{2}", 0),
    (r"\d{5}[ .]{0,3}\d{5}", 5),
    (r"\d{3}[ -]*\d{3}", 0),
    (r"(?:\d[0-9 ]){4}\d{5}", 9),
    (r"(?:\d?-){3}\d{6}", 6),
    (r"\+[1-9]\d{0,2}(?:[ .()-]{0,2}\d){6,13}\b", 0),
]


@pytest.mark.parametrize(("pattern", "digits"), NUMBERS)
def test_long_numbers_are_asked_for_by_their_digits(pattern: str, digits: int) -> None:
    gate = narrow(parse(pattern))
    assert gate.endswith(f"{{{digits - 1}}}[0-9]" if digits else "")
    assert digits or not gate.startswith("(?:[0-9]")


@pytest.mark.thorough
@settings(deadline=None)
@given(st.data())
def test_no_number_of_any_pattern_is_kept_out(data: st.DataObject) -> None:
    pattern = data.draw(st.sampled_from([pattern for pattern, _ in NUMBERS]))
    text = data.draw(st.from_regex(re.compile(pattern, re.ASCII)))
    if Regex(pattern).search(text.encode()) is not None:
        assert GateSet([narrow(parse(pattern))]).present(text.encode())


def test_keywords_are_proven_or_not() -> None:
    node = parse(r"\b(?:sk|rk)_live_[a-z]+")
    assert shape.implies(node, ("_LIVE_",))
    assert shape.implies(node, ("sk_", "rk_"))
    assert not shape.implies(node, ("sk_",))


CONSTRUCTS = [
    "a", ".", "[^a]", r"\d", r"\W", r"\s", r"\S", "(?i)k", "(?i)s", "(?i)[^k]", "(?i)[a-z]", r"\pL",
    r"[^\p{Greek}]", r"[^\PL]", "[[:punct:]]", "[[:^space:]]", r"\x{212A}", "(?i)ß", "(?i)σ",
    "(?s:.)",     r"[\x{100}-\x{FFFF}]", "(?i)[k-m]", "(?i)ǆ", "(?i)µ",
]  # fmt: skip


@pytest.mark.parametrize("pattern", CONSTRUCTS)
def test_t_gr_05_single_characters(pattern: str) -> None:
    automaton, regex = Automaton([(parse(pattern), None)]), Regex(pattern)
    codes = [*range(0x600), 0x1C88, 0x1E9E, 0x2028, *range(0x2100, 0x2180), 0x10FFFF, 0x1F600]
    for code in codes:
        c = chr(code)
        if regex.search(c.encode()) is not None:
            (cls,) = automaton.classify(c)
            assert automaton.step(automaton.empty, cls).flag & ENDED, hex(code)


def test_t_gr_05_case_orbits_hold_those_of_re2() -> None:
    """For every cased code point: whatever RE2 takes for it without case, the orbit has."""
    cased = sorted(charset.case_orbits())
    everything = "".join(map(chr, cased)).encode()
    for code in cased[::23]:
        regex = Regex(f"\\x{{{code:x}}}", ignore_case=True)
        ranges, at = charset.ignore_case(((code, code),)), 0
        while (found := regex.search(everything, at)) is not None:
            (low, high), _ = found
            assert charset.holds(ranges, ord(everything[low:high].decode()))
            at = high


def test_t_gr_05_random_strings() -> None:
    chance = random.Random(5)
    patterns = [r"(?:ab|c)+\d{2,3}", r"(?i)k[a-c]{5,9}x?", r"\b[a-c]{2}-(?:a|bc){0,2}$", r"a.{6}b"]
    for pattern in patterns:
        automaton, regex = Automaton([(parse(pattern), None)], state_cap=50), Regex(pattern)
        for _ in range(300):
            text = "".join(chance.choices("abck-1\u212a ", k=chance.randint(1, 25)))
            row, ends = automaton.empty, set()
            for at, cls in enumerate(automaton.classify(text)):
                row = row.next[cls] or automaton.step(row, cls)
                if row.flag & ENDED:
                    ends.add(at + 1)
            found = regex.search(text.encode())
            if found is not None:
                assert len(text.encode()[: found[0][1]].decode()) in ends, (pattern, text)


def test_a_long_literal_does_not_nest_deeper_than_re2_allows() -> None:
    Regex(f"(?:{shape.beginnings(parse('ab' * 2_000))})\\z", max_mem=64 << 20)
