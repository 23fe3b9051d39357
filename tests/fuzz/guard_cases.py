"""What the property tests of the stream guard are made of: rules, texts, and one check of a case.

Random rule sets over tiny alphabets, with checkpoints every few characters, find the deep faults;
rules like those of the shipped packs over texts full of near misses find the rest.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

import proxy
from proxy.guardrails.checks.validators import VALIDATORS as SHIPPED
from proxy.guardrails.checks.validators import Validator
from proxy.guardrails.compile import PackError, compile_rules
from proxy.guardrails.engine import PARTS, Guard, attempt
from proxy.guardrails.matching import RuleSet
from proxy.guardrails.program import Limits, Program, lane_rules
from proxy.guardrails.redact import rewrite, without_exempted
from proxy.guardrails.rules import LiveRule
from proxy.guardrails.stream import Lane
from proxy.guardrails.view import View
from proxy.model.exchange import Leaf, Part
from proxy.model.policy import PolicyPack, PolicyResult
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import LETTERS, Maker, pack

FILES = sorted((Path(proxy.__file__).parent / "packs").glob("*.yaml"))


def whole(text: str) -> tuple[int, int]:
    return 0, len(text)


VALIDATORS: dict[str, Validator] = {
    **SHIPPED,
    "even": lambda text: whole(text) if len(text) % 2 == 0 else None,
    "one_in_three": lambda text: whole(text) if text.count("a") % 3 == 1 else None,
    "first_half": lambda text: (0, max(len(text) // 2, 1)),
    "last_half": lambda text: (len(text) // 2, len(text)),
}


@dataclass(frozen=True)
class Build:
    """What lanes are made of: another part here is a fault that the tests must find."""

    rule: Callable[[LiveRule], LiveRule] = lambda rule: rule
    rule_set: type[RuleSet] = RuleSet
    lane: type[Lane] = Lane


class Case:
    """A guard and its whole-text answer."""

    def __init__(self, packs: list[PolicyPack], limits: Limits, build: Build | None = None) -> None:
        compiled = compile_rules(packs, GuardSettings(), validators=VALIDATORS)
        rules = [rule for rule in compiled if isinstance(rule, LiveRule)]
        self.every = rules
        there = [r for r in rules if r.reach.covers("response", "text", "assistant", True)]
        self.rules = RuleSet(there, attempt)
        self.guard = Guard(packs, rules, limits)
        self.parts: list[Part] = [part for part in PARTS if self.guard.lane(part) is not None]
        self._build = build
        if build is not None:
            enforcing = build.rule_set([build.rule(r) for r in lane_rules(rules)[0]], attempt)
            self._program = Program(enforcing, limits)

    def whole(self, text: str) -> tuple[str, str | None]:
        """The rewritten text, up to a block, and the rule that blocks."""
        hits = without_exempted(self.rules.scan(View(text), []))
        enforcing = [hit for hit in hits if hit.rule.enforces]
        rewritten, block = rewrite(text, enforcing)
        return rewritten, block.rule.rule_id if block else None

    def lane(self, part: Part) -> Lane:
        if self._build is not None:
            return self._build.lane(self._program, part)
        lane = self.guard.lane(part)
        assert lane is not None
        return lane

    def stream(
        self, chunks: Iterable[str], want: str | None = None, part: Part = "text"
    ) -> tuple[str, Lane]:
        lane, emitted = self.lane(part), ""
        for chunk in chunks:
            emitted += lane.feed(chunk)
            if want is not None:
                assert want.startswith(emitted), f"leaked {emitted!r}, wanted {want!r}"
        return emitted + lane.finish(), lane

    def alike(self, part: Part) -> bool:
        """The rules of texts look there as well, and no others."""
        return all(
            rule.reach.covers("response", part, "assistant", True)
            == rule.reach.covers("response", "text", "assistant", True)
            for rule in self.every
        )

    def check(self, text: str, make: Maker) -> str:
        """Raises on the first difference; says what became of the text."""
        part = make.r.choice(["text", *(p for p in self.parts if self.alike(p))])
        probe, lane = self.stream([text], part=part)
        if lane.overflows:  # stricter than the whole text: then only repeatability is promised
            for chunks in (list(text), make.cuts(text), make.cuts(text)):
                got, other = self.stream(chunks, part=part)
                assert got == probe
                assert (other.blocked is None) == (lane.blocked is None)
                assert other.overflows == lane.overflows
            return "overflow"
        want, block = self.whole(text)
        assert probe == want
        got, lane = self.stream(make.cuts(text), want, part)
        assert got == want
        assert (lane.blocked.rule_matched if lane.blocked else None) == block
        if block is None:
            judged = self.guard.judge([Leaf(text, part, "assistant", ())], "response")
            assert sorted(map(told, lane.results())) == sorted(map(told, judged.results))
        return "blocked" if block else "whole"


def told(result: PolicyResult) -> tuple[object, ...]:
    return (
        result.rule_matched,
        result.count,
        result.span_start,
        result.span_end,
        result.confidence,
    )


def random_pattern(r: random.Random, depth: int = 0) -> str:
    """A small regex over a tiny alphabet: matches, overlaps and false starts are everywhere."""
    kind = r.random()
    if depth > 2 or kind < 0.45:
        atoms = ["a", "b", "c", "-", "[ab]", "[^a]", r"\w", ".", "ab", "ca", "(?i:A)", "(?s:.)"]
        return r.choice([*atoms, r"\s", r"\W", r"\pL", r"[^\pL]", "(?i:k)"])
    if kind < 0.65:
        return "".join(random_pattern(r, depth + 1) for _ in range(r.randint(2, 3)))
    if kind < 0.75:
        return f"(?:{random_pattern(r, depth + 1)}|{random_pattern(r, depth + 1)})"
    if kind < 0.80:
        asserted = r.choice([r"\b", r"\B", "^", "$", "(?m:^)", "(?m:$)"])
        return asserted + random_pattern(r, depth + 1)
    counts = ["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?", "{0,4}", "{5,7}"]
    return f"(?:{random_pattern(r, depth + 1)}){r.choice(counts)}"


def random_rule(r: random.Random) -> dict[str, object]:
    before = r.choice(["", "", r"\b", "^", "(?m:^)"])
    after = r.choice(["", "", "", r"\b", "$", "(?m:$)"])
    rule: dict[str, object] = {
        "pattern": before + random_pattern(r) + random_pattern(r) + after,
        "action": r.choice(["redact"] * 6 + ["block", "replace"]),
        "severity": r.choice(["info", "low", "medium", "high", "critical"]),
    }
    if r.random() < 0.4:
        rule["validator"] = r.choice([name for name in VALIDATORS if name not in SHIPPED])
    if r.random() < 0.15:
        rule["fold"] = r.choice(["fold", "leet"])
    if r.random() < 0.2:
        words = r.sample(["a", "ab", "c", "ba", "bc-a"], r.randint(1, 3))
        rule["context"] = {"words": words, "boost": 0.3, "required": r.random() < 0.3}
        rule["confidence"] = r.choice([0.3, 0.4, 0.6])
    if r.random() < 0.1:
        rule["allow"] = ["ab?", "a-"]
    if r.random() < 0.1:
        rule["pattern"] = f"(?:{before})({random_pattern(r)}){random_pattern(r)}"
        rule["group"] = 1
    if r.random() < 0.07:
        rule["action"] = "allow"
    if r.random() < 0.1:
        rule.pop("group", None)
        rule["kind"] = "terms"
        rule["pattern"] = ["".join(r.choices("abc", k=r.randint(2, 3))) for _ in range(3)]
        rule["config"] = {"boundary": r.choice(["word", "none"]), "gaps": r.randint(0, 2)}
    return rule


def random_case(r: random.Random, build: Build | None = None) -> Case | None:
    grid = r.choice([2, 4, 8])
    limits = Limits(
        grid=grid,
        hold_max=grid * r.choice([2, 4, 100]),
        swallow_max=grid * r.choice([8, 400]),
        overflow=r.choice(["strict", "strict", "release"]),
        state_cap=r.choice([4000, 4000, 5]),
    )
    rules = [random_rule(r) for _ in range(r.randint(1, 4))]
    try:
        return Case([pack(*rules)], limits, build)
    except PackError as fault:
        if any(f.code not in ("empty_match", "action_not_possible") for f in fault.faults):
            raise
        return None


ALPHABETS = ["abc- ", "aab-", "ab\nc", "abA\u200bа ", "ab4@é\u0301\U0001f469", "akK\u212a -"]


PEM = (
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----(?:[\r\n]+(?:Proc-Type|DEK-Info)[^\r\n]{0,80})"
    r"{0,4}[A-Za-z0-9+/=\r\n\\]*(?:-----END (?:[A-Z]+ ){0,3}PRIVATE KEY-----)?"
)
SHAPES = pack(
    {"kind": "secret", "pattern": PEM, "severity": "critical"},
    {"kind": "secret", "pattern": r"\bsk-[A-Za-z0-9_-]{20,}", "severity": "critical"},
    {"kind": "secret", "pattern": r"\bAKIA[A-Z2-7]{16}\b", "entropy_min": 2.5},
    {"pattern": r"\bgh[pousr]_[A-Za-z0-9]{36}\b", "severity": "critical"},
    {"pattern": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*)?"},
    {"pattern": r"\bkey=([0-9a-f]{16,64})\b", "entropy_min": 3.0, "group": 1},
    {"pattern": r"\b(?:\d[ -]?){12,18}\d\b", "validator": "luhn", "severity": "high"},
    {"pattern": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b"},
    {"pattern": r"\b\d{3}-\d{2}-\d{4}\b"},
    {"pattern": r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,100}\.[A-Za-z]{2,24}\b"},
    {"kind": "terms", "pattern": ["hate speech", "机密文件", "内部资料"]},
    {"pattern": r"\bover and out\.?$"},
    {"pattern": r"^SYSTEM:"},
    {"pattern": r"(?i)\blaunch code \d{4}\b", "action": "block"},
    {"pattern": r"\bover and over\b", "action": "log"},
    default_action="redact",
)


def token(make: Maker) -> str:
    """Something that a rule hits, or nearly hits."""
    r, b64 = make.r, LETTERS + "+/"
    kinds = [
        lambda: "123-45-6789",
        lambda: "123-45-67890",
        lambda: r.choice(["", "1 ", "9 "]) + "4111 1111 1111 1111",
        lambda: make.run("0123456789 ", 5, 90),
        lambda: make.run("0123456789", 10, 60),
        lambda: "jane.doe@example.com",
        lambda: make.run(LETTERS + "._", 30, 90) + "@" + make.run("abc-.", 1, 20) + ".org",
        lambda: "a@b.cc.d@e.ff.g@h.ii",
        lambda: "AKIA" + make.run("ABCDEFG234567", 15, 17),
        lambda: "AKIA" + "A" * 16,
        lambda: "gh" + "p_" + make.run(LETTERS, 35, 37),
        lambda: "sk-" + make.run(LETTERS + "-_", 15, 60),
        lambda: "sk-" + make.run(LETTERS, 60, 400),
        lambda: "sk-example" + make.run(LETTERS, 20, 400),
        lambda: "sk-" + make.run(LETTERS, 20, 30) + "@example.com",
        lambda: "sk-" + "a" * r.randint(20, 90) + make.run("ab", 0, 20),
        lambda: "xsk-" + make.run(LETTERS, 20, 80),
        lambda: "eyJ" + make.run(LETTERS, 8, 60) + ".eyJ" + make.run(LETTERS, 8, 200) + ".",
        lambda: "eyJ" + make.run(LETTERS, 10, 900),
        lambda: "key=" + make.run("0123456789abcdef", 14, 66),
        lambda: "key=" + "0" * 40,
        lambda: "GB82 WEST 1234 5698 7654 32",
        lambda: r.choice(["hate speech", "Hate_Speech", "hatespeechx"]),
        lambda: make.disguised(r.choice(["hate speech", "hatespeech"])),
        lambda: "这是机密文件，请勿外传" + "内部资料" * r.randint(0, 2),
        lambda: "日本語のテキスト" * r.randint(1, 8),
        lambda: r.choice(["over and out", "over and out.", "over and over", "SYSTEM:"]),
        lambda: make.run(b64, 40, 300),
        lambda: "-----BEGIN RSA PRIVATE " + "KEY-----\n" + make.run(b64 + "\n", 0, 400) + " end",
        lambda: "-----BEGIN PUBLIC KEY-----",
        lambda: r.choice(["é", "--", "\u212ate", "👩\u200d💻", "\U000e0041"]),
    ]
    if r.random() < 0.1:
        return r.choice(["launch code 1234", "Launch Code 12345"])
    return r.choice(kinds)()


def mixed(make: Maker) -> str:
    joints = ["", " ", " ", ". ", "\n", ",", "-", "@", "\u200b"]
    parts = []
    for _ in range(make.r.randint(1, 6)):
        parts += [make.prose(0, 8), make.r.choice(joints), token(make), make.r.choice(joints)]
    return "".join(parts)


def of_people(make: Maker) -> str:
    """A number of somebody, or nearly; with or without a word that says so."""
    r = make.r
    words = ["card ", "PESEL: ", "routing number ", "NHS ", "IBAN ", "BSN", "DNI ", "tel. ", ""]
    values = [
        lambda: r.choice(["44051401359", "943 476 5919", "12345678Z", "021000021", "111222333"]),
        lambda: r.choice(["4111 1111 1111 1111", "378282246310005", "4111111111111111 12"]),
        lambda: r.choice(["GB82 WEST 1234 5698 7654 32 ab", "GB82WEST1234569876543"]),
        lambda: r.choice(["2001:db8::8a2e:370:7334", "10.1.2.3", "1.2.3.4.5", "::", "a::b"]),
        lambda: r.choice(["+44 20 7946 0958", "+1", "+4 9 1 2 3 4 5 6 7 8 9 0 1 2 3"]),
        lambda: make.run("0123456789 -.", 3, 60),
        lambda: make.run("0123456789abcdef:", 5, 60),
        lambda: make.run(LETTERS + "@.", 5, 90),
    ]
    return r.choice(words) + make.run(" x", 0, r.choice([0, 0, 0, 70])) + r.choice(values)()


def shipped_case(limits: Limits | None = None) -> Case:
    packs = [PolicyPack.model_validate(yaml.safe_load(file.read_text())) for file in FILES]
    return Case(packs, limits or Limits())


# ---- batches: each tells how many cases ended how


def random_rules(make: Maker, cases: int, build: Build | None = None) -> Counter[str]:
    seen: Counter[str] = Counter()
    while seen.total() < cases:
        case = random_case(make.r, build)
        if case is None or "text" not in case.parts:
            continue
        for _ in range(25):
            longest = make.r.choice([60, 60, 60, 200])  # longer than context words reach
            seen[case.check(make.run(make.r.choice(ALPHABETS), 0, longest), make)] += 1
    return seen


def shapes_of_secrets(make: Maker, cases: int, build: Build | None = None) -> Counter[str]:
    case = Case([SHAPES], Limits(state_cap=make.r.choice([4000, 200])), build)
    return Counter(case.check(mixed(make), make) for _ in range(cases))


def shipped_packs(make: Maker, cases: int) -> Counter[str]:
    case = shipped_case()
    seen: Counter[str] = Counter()
    for _ in range(cases):
        text = "".join(
            make.prose(0, 6) + make.r.choice(["", " ", "\n", "="]) + of_people(make)
            for _ in range(make.r.randint(1, 5))
        )
        if make.r.random() < 0.3:
            text = mixed(make)
        seen[case.check(text + make.r.choice(["", " and so on"]), make)] += 1
    return seen
