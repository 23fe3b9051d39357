"""Short cuts of a search: they find what the plain way finds, in texts made to hurt as well."""

import random
from collections.abc import Sequence
from itertools import product

import pytest

from proxy.guardrails.checks.unicode import CLASSES
from proxy.guardrails.compile import compile_guard
from proxy.guardrails.context import ContextWords, firsts_of, windows
from proxy.guardrails.engine import Guard
from proxy.guardrails.fold import _NOT_ASCII, folding
from proxy.guardrails.heads import heads
from proxy.guardrails.linear import Regex
from proxy.guardrails.parse import parse
from proxy.guardrails.redact import Hit, apart, rewrite, without_exempted
from proxy.guardrails.rules import LiveRule
from proxy.guardrails.search import found_at, search
from proxy.guardrails.signs import signs
from proxy.guardrails.view import PIECE, Face, View, standing
from proxy.model.exchange import Leaf
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import pack


def rules_of(*rules: dict[str, object]) -> list[LiveRule]:
    return compile_guard([pack(*rules)], GuardSettings())._rules


def judged(guard: Guard, text: str) -> tuple[str, list[tuple[str | None, int]]]:
    found = guard.judge([Leaf(text, "text", "user", ())], "request")
    left = found.rewrites[0][1] if found.rewrites else text
    return left, [(result.rule_matched, result.count) for result in found.results]


# ---- how matches begin


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"\bghp_[a-z]{4,}", {b"ghp_"}),
        (r"\bgh[ps]_[a-z]{4,}", {b"ghp_", b"ghs_"}),
        (r"ab(?:c|d)x", {b"abcx", b"abdx"}),
        (r"ab[a-z]*", {b"ab"}),
        (r"-{5}BEGIN(?:x*y)?", {b"-----BEGIN"}),
        (r"éa\d", {f"éa{n}".encode() for n in range(10)}),
        (r"\bey[a-z]{3,}\.ey", None),  # a text of nothing but `ey` would be read again and again
        (r"ab[a-z]*\b", None),
        (r"(?:ab|cd)x", None),  # nothing in common
        (r"a[0-9]x", None),  # too little in common
        (r"(?i)ab", None),
    ],
)
def test_what_matches_begin_with(pattern: str, words: set[bytes] | None) -> None:
    found = heads(parse(pattern))
    assert (set(found.words) if found else None) == words


@pytest.mark.parametrize("pattern", [r"\babc[ab]{2,}", r"ab[ab]\b", r"ab(?:c|d)?c{1,2}"])
def test_beginnings_find_what_the_engine_finds(pattern: str) -> None:
    (rule,) = rules_of({"rule_id": "r", "pattern": pattern, "action": "redact"})
    guard = compile_guard([pack({"rule_id": "r", "pattern": pattern})], GuardSettings())
    assert rule.pattern.heads is not None
    regex = Regex(pattern)
    for size in range(1, 6):
        for text in map("".join, product("abc é", repeat=size)):
            at, count = 0, 0
            while (found := regex.search(text.encode(), at)) is not None:
                at, count = found[0][1], count + 1
            told = judged(guard, text)[1]
            assert told == ([("r", count)] if count else []), text


# ---- characters of a class


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_nothing_belongs_behind_its_like_or_behind_ascii(name: str) -> None:
    belongs = CLASSES[name].belongs
    found = signs(parse(CLASSES[name].pattern))
    assert found is not None
    if belongs is None or not found.alone:
        return
    members = [chr(code) for code in range(0x110000) if found.runs(chr(code), 0, 1)]
    others = [*members, *map(chr, range(128))]
    after = ["", "a", "\U0001f4bb", "\u0646", "\u0937", *members]
    for before, sign, follows in product(others, members, after):
        assert not belongs(f"x{before}{sign}{follows}", 2, 3)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_runs_are_those_that_the_engine_finds(name: str) -> None:
    pattern, chance = CLASSES[name].pattern, random.Random(name)
    found, regex = signs(parse(pattern)), Regex(pattern)
    assert found is not None
    letters = "ab\x01\u200b\u200d\ufe0f\U000e0041\U000e0100\u202e\ue000\U000f0000é"
    for _ in range(300):
        text = "".join(chance.choices(letters, k=chance.randrange(30)))
        face, at, spans = Face(text), 0, []
        while (match := regex.search(face.data, at)) is not None:
            low, at = match[0]
            spans += list(range(face.char(low), face.char(at)))
        runs = found.runs(text, 0, len(text))
        pairs = zip(runs[::2], runs[1::2], strict=True)
        assert [at for low, high in pairs for at in range(low, high)] == spans


INVISIBLE = (
    {"rule_id": "zero", "kind": "unicode", "config": {"class": "zero_width"}, "action": "replace"},
    {"rule_id": "tags", "kind": "unicode", "config": {"class": "tags"}, "action": "redact"},
    {"rule_id": "again", "kind": "unicode", "config": {"class": "zero_width"}, "action": "redact"},
    {"rule_id": "a", "pattern": "a+[^b]", "action": "redact"},
    {"rule_id": "stop", "pattern": "cc", "action": "block"},
    {"rule_id": "exempt", "pattern": "[d\\x{200B}]{2,9}", "action": "allow"},
)


@pytest.mark.parametrize("picked", list(product((False, True), repeat=len(INVISIBLE))))
def test_many_finds_as_one_are_what_they_are_one_by_one(picked: Sequence[bool]) -> None:
    rules = [rule for rule, taken in zip(INVISIBLE, picked, strict=True) if taken]
    if not rules:
        return
    guard, chance = compile_guard([pack(*rules)], GuardSettings()), random.Random(5)
    (live,) = {id(found): found for found in guard._request.values()}.values()
    for _ in range(60):
        text = "".join(chance.choices("aabcd\u200b\u200b\u200d\U000e0041\U000e0042", k=24))
        hits = live.scan(View(text), [])
        singly = without_exempted(apart(hits))
        together = without_exempted(hits)
        assert sum(hit.count for hit in together) == len(singly)
        one, block = rewrite(text, singly)
        other, stop = rewrite(text, together)
        assert one == other
        assert (block and block.start) == (stop and stop.start)


def test_a_hit_for_many_is_taken_apart_as_it_was_found() -> None:
    (rule,) = rules_of(INVISIBLE[0])
    hit = Hit(rule, 0, 7, 0, 1, True, 1.0, count=4, spans=[0, 3, 6, 7])
    assert [(one.start, one.end) for one in hit.apart()] == [(0, 1), (1, 2), (2, 3), (6, 7)]


# ---- context words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("pin",), "PIN 1234"),
        (("kimlik",), "\u212aimlik 1234"),  # a Kelvin sign is a k in lower case
        (("nif",), "é N\u0130F 1234"),
        (("\u0130d",), "İD 1234"),
        (("οδος",), "ΟΔΟΣ 1234"),
        (("οδος",), "ΟΔΟΣΑ ΟΔΟς 1234"),
        (("köln",), "KÖLN 1234"),
        (("tax file",), "é tax file" + "é" * 50 + " 1234"),
        (("身份证",), "身份证 1234"),
    ],
)
def test_where_words_stand_a_match_may_begin(words: tuple[str, ...], text: str) -> None:
    context = ContextWords(tuple(word.lower() for word in words), 0.5, required=True)
    for sought in (frozenset(), frozenset(firsts_of(context.words))):
        view = View(text)
        view.seek(sought)
        found = windows(context.words, view, 4)
        for start in range(len(text) + 1):
            if context.present(text, start):
                at = len(text[:start].encode())
                assert any(low <= at <= high for low, high in found), start


WORDS = ("id", "tax id", "tax-file", "näme", "#no", "i")


@pytest.mark.parametrize("piece", [PIECE, 3])
def test_words_sought_together_stand_where_each_is_found(piece: int) -> None:
    chance = random.Random(9)
    sought = frozenset(firsts_of(WORDS))
    assert sought == {b"id", b"tax", b"i"}
    for _ in range(500):
        text = "".join(chance.choices([*WORDS, " ", "-", "X", "é", "7"], k=8))
        one, together = View(text), View(text)
        together.seek(sought)
        lowered = together.raw.lowered
        assert standing(lowered, sought, piece) == standing(lowered, sought)
        for word in WORDS:
            assert windows((word,), together, 5) == windows((word,), one, 5), (word, text)


CODES: tuple[dict[str, object], ...] = (
    {}, {"group": 1}, {"validator": "luhn"}, {"pattern": r"(ab\d{1,2})\b"},
)  # fmt: skip


@pytest.mark.parametrize("members", CODES)
def test_around_words_as_much_is_found_as_everywhere(members: dict[str, object]) -> None:
    context = {"words": ["id", "tax id", "näme"], "required": True}
    rule = {"rule_id": "r", "pattern": r"\b(\d{2,3}?)-?\d\b", "context": context, **members}
    allow = {"allow": ["11.*"]}  # a check: what it refuses is tried again one character later
    (live,) = rules_of({**rule, **allow})
    chance = random.Random(8)
    for _ in range(2_000):
        pieces = ["id", "tax id", "NÄME", " ", " ", "-", "1", "12", "12", "ab1", "é", "x" * 30]
        text = "".join(chance.choices(pieces, k=14))
        found = search(live, View(text), 0, len(text), refused=False)
        expected, at, face = [], 0, Face(text)
        while (match := live.pattern.regex.search(face.data, at, live.group)) is not None:
            hit = found_at(live, View(text), face, *match)
            at = match[0][1] if hit.valid else face.after(match[0][0])
            expected += [(hit.first, hit.last, hit.start, hit.end)] if hit.valid else []
        assert [(hit.first, hit.last, hit.start, hit.end) for hit in found] == expected, text


# ---- folding


@pytest.mark.parametrize("mode", ["fold", "leet"])
def test_few_and_many_signs_are_seen_through_alike(mode: str) -> None:
    fold, chance = folding("leet" if mode == "leet" else "fold"), random.Random(6)
    letters = "ab \u2019\u00e9\u0435\u200b\u0301\u03f2\u0441\uff41\U0001d41a漢\ufb01\ud800İſ"
    for size in (1, 3, 40):
        for _ in range(200):
            text = "".join(chance.choices(letters, k=size))
            slow = _NOT_ASCII.sub(lambda run: run.group().translate(fold._table), text)
            assert fold.seen_through(text) == slow
            if mode == "fold":
                assert fold.changes(text, View(text).raw.data) == (slow != text)
