"""T-GR-01 and T-GR-03 for rules about addresses, injections and topics, sums included.

Addresses are made of pieces that are read in many ways, with checkpoints close together; families
are counted over tiny alphabets.
"""

import random

import pytest

from proxy.guardrails.compile import compile_rules
from proxy.guardrails.program import Limits
from proxy.guardrails.redact import rewrite, without_exempted
from proxy.guardrails.scoring import Score
from proxy.guardrails.view import View
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack, PolicyResult
from proxy.model.tenancy import GuardSettings
from tests.fuzz.guard_cases import Case
from tests.fuzz.test_stream_guard import seeds, some
from tests.guardrails.texts import Maker, pack

PLACES = [
    "{}", "({})", "[x]({})", "![x]({})", "![a b]( <{}> 'c')", "[r]: {}\n", "\n[{}]: {}", "`{}`",
    '<a href={}>', '<img alt="y" src="{}"> ', "<img src='{}'", "![x\\]]({})", '![a [b] c]({} "t")',
    '"{}",',
]  # fmt: skip
SCHEMES = [
    "https://", "http://", "HTTP:\\\\", "ftp://", "//", "www.", "https&colon;//", "&#104;ttps://",
    "javascript:", "java\nscript:", "data:text/html,", "data:image/png;base64,", "file:///",
    "https:",
]  # fmt: skip
HOSTS = [
    "good.example", "a.good.example.", "good.example.evil.test", "good.example@evil.test", "",
    "good.example\\.evil.test", "good.example&#64;evil.test", "192.0.2.7", "0x7f.1", "a:b@c.de",
    "[2001:db8::1]:8", "xn--80ak6aa92e.com", "b\u00fccher.example", "\u4f8b.test", "%67ood.example",
    "good\x00.example",
]  # fmt: skip
RESTS = [
    "",
    "/",
    "/l.png",
    "?q=1",
    "#f",
    "/a&amp;b",
    "/(x)",
    "/p?d=",
    ".",
    ",",
    ")",
    "\\",
    "&#9;",
    "/@u",
]


def address(make: Maker) -> str:
    r = make.r
    text = r.choice(SCHEMES) + r.choice(HOSTS) + r.choice(RESTS)
    if r.random() < 0.4:
        text += make.run(
            r.choice(["ab=&", "a", "a.-/", "a&;#1", "a()'"]), 1, r.choice([40, 120, 700])
        )
    return r.choice(PLACES).replace("{}", text)


def addresses(make: Maker) -> str:
    parts = []
    for _ in range(make.r.randint(1, 5)):
        parts += [
            make.prose(0, 4),
            make.r.choice(["", " ", "\n", "![", "[", "<img "]),
            address(make),
        ]
    return "".join(parts)


def random_aim(r: random.Random) -> dict[str, object]:
    every = [
        "authority",
        "userinfo",
        "scheme",
        "domain",
        "ip_literal",
        "punycode",
        "query",
        "image",
    ]
    rule: dict[str, object] = {
        "kind": "url",
        "action": r.choice(["redact", "redact", "redact", "block", "log"]),
        "severity": r.choice(["low", "medium", "high"]),
        "config": {
            "checks": r.sample(every, r.choice([1, 1, 2, 8])),
            "allow_domains": r.choice([[], ["good.example"]]),
            "deny_domains": r.choice([[], ["evil.test"]]),
            "schemes": r.choice([["https", "http"], ["https"], ["https", "http", "data"]]),
            "max_query_chars": r.choice([4, 64, 256]),
            "images": {"allow_domains": r.choice([[], ["good.example"]]), "max_data_chars": 16},
        },
    }
    if r.random() < 0.1:
        rule["allow"] = ["https://good[^@]*"]
    if r.random() < 0.1:
        rule["context"] = {"words": ["the", "of"], "required": True}
    return rule


@pytest.mark.thorough
@pytest.mark.parametrize("seed", seeds(4))
def test_addresses(seed: int) -> None:
    make = Maker(300 + seed)
    seen: dict[str, int] = {}
    for _ in range(some(seed, 45)):
        grid = make.r.choice([4, 32])
        limits = Limits(grid=grid, hold_max=grid * 16, swallow_max=grid * make.r.choice([64, 2048]))
        rules = [random_aim(make.r) for _ in range(make.r.randint(1, 3))]
        rules.append({"pattern": r"[a-z.]{1,64}@[a-z.]{1,60}\b", "action": "redact"})
        case = Case([pack(*rules)], limits)
        for _ in range(12):
            end = case.check(addresses(make), make)
            seen[end] = seen.get(end, 0) + 1
    assert min(seen.get(end, 0) for end in ("whole", "blocked", "overflow")) > 0, seen
    assert seen["whole"] > seen["overflow"], seen


class Counted(Case):
    """A case whose hits are counted; every rule of it may block or rewrite."""

    def whole(self, text: str) -> tuple[str, str | None]:
        hits = without_exempted(self.rules.scan(View(text), []))
        Score(lane=True).count(hits)
        rewritten, block = rewrite(text, [hit for hit in hits if hit.rule.enforces])
        return rewritten, block.rule.rule_id if block else None

    def check(self, text: str, make: Maker) -> str:
        """Also what the record says was done."""
        end = Case.check(self, text, make)
        if end == "whole":
            _, lane = self.stream(list(make.cuts(text)))
            judged = self.guard.judge([Leaf(text, "text", "assistant", ())], "response")
            assert done(lane.results()) == done(judged.results)
        return end


def done(results: list[PolicyResult]) -> list[tuple[str | None, str, str | None]]:
    return sorted((one.rule_matched, one.action_taken, one.message) for one in results)


def random_families(r: random.Random) -> PolicyPack:
    rules: list[dict[str, object]] = []
    for _ in range(r.randint(2, 5)):
        words = ["ab", "b+c", "a-?c", r"\bca", "c.{0,6}a", "[ab]{2,5}c", r"b\b"]
        rule: dict[str, object] = {
            "kind": "injection",
            "pattern": r.choice(words),
            "action": r.choice(["block", "block", "block", "log", "flag"]),
            "severity": r.choice(["low", "high"]),
            "config": {"family": r.choice("xyz")},
        }
        if r.random() < 0.4:
            rule["fold"] = r.choice(["none", "leet"])
        if r.random() < 0.1:
            rule["mode"] = "shadow"
        rules.append(rule)
    if r.random() < 0.5:
        rules.append({"pattern": r.choice(["aa", "b{2,}", "-c?"]), "action": "redact"})
    if r.random() < 0.3:
        rules.append({"kind": "topic", "pattern": ["abc", "ca"], "action": "redact"})
    if r.random() < 0.1:
        rules.append({"pattern": "ab?c", "action": "allow"})
    return pack(*rules, scoring={"mode": "sum", "block_at": r.randint(1, 3)})


@pytest.mark.thorough
@pytest.mark.parametrize("seed", seeds(4))
def test_families_are_counted_along_a_lane_as_in_the_whole(seed: int) -> None:
    make = Maker(400 + seed)
    seen: dict[str, int] = {}
    for _ in range(some(seed, 150)):
        grid = make.r.choice([2, 4, 8])
        limits = Limits(grid=grid, hold_max=grid * make.r.choice([4, 100]), swallow_max=grid * 400)
        case = Counted([random_families(make.r)], limits)
        for _ in range(8):
            alphabet = make.r.choice(["abc- ", "aab-", "abA\u200b\u0430 ", "ab\nc"])
            end = case.check(make.run(alphabet, 0, make.r.choice([12, 60])), make)
            seen[end] = seen.get(end, 0) + 1
    assert min(seen.get(end, 0) for end in ("whole", "blocked")) > 20, seen


def test_words_of_topics_are_exact_in_streams() -> None:
    make = Maker(500)
    words = ["hate speech", "contraband", "abc", "\u673a\u5bc6"]
    own = pack({"kind": "topic", "pattern": words, "action": "redact", "config": {"category": "x"}})
    assert [rule.detector for rule in compile_rules([own], GuardSettings())] == ["topic"]
    case = Case([own], Limits(grid=8))
    for _ in range(200):
        parts = [
            make.disguised(make.r.choice(words)) + make.r.choice(["", " ", "x"]) for _ in range(4)
        ]
        assert case.check(" ".join([make.prose(0, 3), *parts]), make) in ("whole", "overflow")
