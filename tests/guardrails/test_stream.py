"""Lanes: what leaves, what is held, and the traps of §9.4, each at every split point."""

import pytest

from proxy.guardrails.compile import compile_guard, compile_rules
from proxy.guardrails.engine import Guard
from proxy.guardrails.program import Limits
from proxy.guardrails.stream import Lane
from proxy.model.exchange import Leaf
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import LETTERS, Maker, pack


def guard_of(*packs: PolicyPack, **limits: object) -> Guard:
    rules = compile_rules(packs, GuardSettings())
    return Guard(packs, rules, Limits(**limits))  # type: ignore[arg-type]


def lane_of(guard: Guard) -> Lane:
    lane = guard.lane("text")
    assert lane is not None
    return lane


def streamed(guard: Guard, *chunks: str) -> str:
    lane = lane_of(guard)
    return "".join(map(lane.feed, chunks)) + lane.finish()


def every_way(guard: Guard, text: str) -> set[str]:
    """Whole, character by character, and cut in two and three at every place."""
    ways = {streamed(guard, text), streamed(guard, *text)}
    for at in range(1, len(text)):
        ways.add(streamed(guard, text[:at], text[at:]))
        ways.add(streamed(guard, text[:at], text[at : at + 1], text[at + 1 :]))
    return ways


A_KEY = "sk-" + "A1b2C3d4E5" * 6
TRAPS = [
    # what it is about, pattern, text, what becomes of it
    ("split over chunks", r"sk-\w{20,}", f"a {A_KEY} b", "a [R0] b"),
    ("a boundary spoiled by what follows", r"\bkey\b", "key keys key", "[R0] keys [R0]"),
    ("a boundary granted by what follows", r"ab\B", "abab ab", "[R0]ab ab"),
    ("the end of the lane, not of a chunk", r"over\.?$", "over. over", "over. [R0]"),
    ("the beginning of the lane only", r"^SYS", "SYS SYS", "[R0] SYS"),
    ("the end of a line", r"(?m:^)a(?m:$)", "a\nba\na", "[R0]\nba\n[R0]"),
    ("KELVIN SIGN is a k", r"(?i)key", "\u212aey Key", "[R0] [R0]"),
    ("a longer match wins", r"ab(?:abab)?", "ababab abab", "[R0] [R0][R0]"),
    ("lazy", r"ab+?", "abbb", "[R0]bb"),
]


@pytest.mark.parametrize(("about", "pattern", "text", "becomes"), TRAPS)
@pytest.mark.parametrize("grid", [2, 32])
def test_traps_at_every_split(about: str, pattern: str, text: str, becomes: str, grid: int) -> None:
    guard = guard_of(pack({"pattern": pattern, "action": "redact"}), grid=grid)
    assert every_way(guard, text) == {becomes}


def test_a_disguised_term_is_found_at_every_split() -> None:
    guard = guard_of(pack({"kind": "terms", "pattern": ["hate speech"], "action": "redact"}))
    assert every_way(guard, "x h\u200bаt\u0301e\u00ad_ｓpeech\u200b y") == {"x [R0]\u200b y"}


def test_t_gr_02_no_character_of_a_blocked_span_leaves() -> None:
    guard = guard_of(pack({"pattern": r"launch code \d{4}", "action": "block"}))
    text = "The launch code 1234 is here"
    assert every_way(guard, text) == {"The "}
    lane = lane_of(guard)
    for c in text:
        lane.feed(c)
    assert lane.blocked is not None
    assert (lane.blocked.span_start, lane.blocked.span_end) == (4, 20)
    assert lane.message == "The response was blocked by a content policy."
    assert (lane.feed("more"), lane.finish()) == ("", "")
    assert repr(lane).endswith("blocked>")


def test_what_was_redacted_before_a_block_stays_redacted() -> None:
    guard = guard_of(
        pack({"pattern": "ab+", "action": "redact"}, {"pattern": "cd", "action": "block"}), grid=2
    )
    assert every_way(guard, "xabbbb yabcd") == {"x[R0] y[R0]"}


def test_a_long_key_is_settled_before_its_end() -> None:
    guard = guard_of(pack({"pattern": r"sk-\w{20,}", "action": "redact", "label": "KEY"}))
    lane, sent = lane_of(guard), ""
    for at in range(0, 640, 5):
        sent += lane.feed(("see sk-" + "aB3" * 300)[at : at + 5])
    assert sent == "see [KEY]"
    assert lane.feed(" and on ") + lane.finish() == " and on "
    assert lane.overflows == []


def test_a_private_key_is_cut_out_whole() -> None:
    make = Maker(3)
    pem = (
        r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----[A-Za-z0-9+/=\r\n]*(?:-----END [A-Z ]+-----)?"
    )
    guard = guard_of(pack({"kind": "secret", "pattern": pem, "action": "redact"}))
    body = "\n".join(make.run(LETTERS, 64, 64) for _ in range(20))
    text = "a\n-----BEGIN RSA PRIVATE " + f"KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\nb"
    assert streamed(guard, *(text[at : at + 7] for at in range(0, len(text), 7))) == "a\n[R0]\nb"


def test_t_gr_03_overflow_is_strict_and_repeatable() -> None:
    jwt = r"\bey\w{10,}\.ey\w{10,}"
    guard = guard_of(pack({"pattern": jwt, "action": "redact", "rule_id": "jwt"}))
    text = "x ey" + "J1a" * 300 + " after"
    ways = {streamed(guard, text), streamed(guard, *text), streamed(guard, text[:700], text[700:])}
    assert ways == {"x [JWT] after"}
    lane = lane_of(guard)
    lane.feed(text)
    assert lane.overflows == [("own", "jwt")]


def test_overflow_release_lets_go_and_says_bypassed() -> None:
    jwt = {"pattern": r"\bey\w{10,}\.ey\w{10,}", "action": "block", "rule_id": "jwt"}
    guard = guard_of(pack(jwt), overflow="release")
    text = "x ey" + "J1a" * 300 + " after"
    assert streamed(guard, text) == streamed(guard, *text) == text
    lane = lane_of(guard)
    lane.feed(text)
    assert [(r.verdict, r.action_taken) for r in lane.results()] == [("bypassed", "none")]


def test_a_committed_match_is_held_to_a_limit() -> None:
    guard = guard_of(pack({"pattern": r"sk-\w{4,}", "action": "redact"}), grid=8, swallow_max=64)
    text = "a sk-" + "x" * 500 + " b"
    assert streamed(guard, text) == streamed(guard, *text) == "a [R0] b"
    lane = lane_of(guard)
    for c in text:
        lane.feed(c)
        assert lane.held <= 64 + 8


def test_t_gr_24_watching_rules_hold_nothing_back() -> None:
    guard = guard_of(
        pack(
            {"pattern": r"sk-\w{20,}", "action": "block", "mode": "shadow"},
            {"pattern": "ab", "action": "log"},
            {"pattern": "cd", "action": "flag"},
        )
    )
    text = f"ab {A_KEY} cd ab" + "-" * 20_000 + "ab"
    lane = lane_of(guard)
    for at in range(0, len(text), 7):
        assert lane.feed(text[at : at + 7]) == text[at : at + 7]
        assert lane.held == 0
    assert lane.finish() == ""
    told = [(r.rule_matched, r.action_taken, r.count, r.span_start) for r in lane.results()]
    assert told == [("r2", "flag", 1, 67), ("r1", "log", 3, 0), ("r0", "none", 1, 3)]
    assert lane.scanned_chars == len(text)


def test_watching_and_enforcing_rules_side_by_side() -> None:
    guard = guard_of(
        pack({"pattern": "ab", "action": "redact"}, {"pattern": "abc", "action": "log"})
    )
    lane = lane_of(guard)
    assert lane.feed("xa") + lane.feed("bcx") + lane.finish() == "x[R0]cx"
    assert [(r.rule_matched, r.action_taken) for r in lane.results()] == [
        ("r0", "redact"),
        ("r1", "log"),
    ]
    assert lane.blocked is None


def test_the_watch_counts_alike_however_the_text_was_cut() -> None:
    make = Maker(9)
    guard = guard_of(pack({"pattern": r"\bab{1,9}\b", "action": "log"}))
    text = make.run("ab ", 30_000, 30_000)
    counts = set()
    for size in (1, 13, 4_000, 30_000):
        lane = lane_of(guard)
        for at in range(0, len(text), size):
            lane.feed(text[at : at + size])
        lane.finish()
        counts.add(lane.results()[0].count)
    whole = guard.judge([Leaf(text, "text", "assistant", ())], "response")
    assert counts == {whole.results[0].count}


def test_surrogate_halves_wait_for_each_other() -> None:
    guard = guard_of(pack({"pattern": "\U0001f600b", "action": "redact"}))
    assert streamed(guard, "a\ud83d", "\ude00", "b") == "a[R0]"
    assert streamed(guard, "a\ud83d", "b") == "a\ufffdb"
    assert streamed(guard, "a\ud83d") == "a\ufffd"
    assert streamed(guard, "\ude00a") == "\ufffda"


def test_t_gr_06_a_small_state_cap_changes_nothing() -> None:
    make = Maker(6)
    own = pack({"pattern": r"[ab]{2}\d{2,3}x?", "action": "redact"})
    small, large = guard_of(own, state_cap=3), guard_of(own)
    for _ in range(50):
        text = make.run("ab12x ", 1, 200)
        assert streamed(small, *make.cuts(text)) == streamed(large, text)


def test_t_gr_06_hostile_streams_build_no_more_states_than_the_cap() -> None:
    make = Maker(66)
    own = pack({"pattern": r"\b[a-z]{2}\d{2}(?:[ -]?\w){4,9}z", "action": "redact"})
    guard = guard_of(own, state_cap=8)
    automaton = lane_of(guard)._auto
    for _ in range(100):
        streamed(guard, *make.cuts(make.run("ab12 -z", 100, 200)))
        assert automaton.states <= 8
    assert automaton.flushes > 100


@pytest.mark.thorough
def test_many_characters_that_no_rule_tells_apart_and_many_that_it_does() -> None:
    words = [chr(0x4E00 + 2 * at) + chr(0x4E01 + 2 * at) for at in range(400)]
    guard = guard_of(pack({"kind": "terms", "pattern": words[:200], "action": "redact"}))
    lists = pack({"kind": "terms", "config": {"list": "w"}, "action": "redact"}, lists={"w": words})
    assert streamed(guard, *f"a{words[0]}b{words[199]}") == "a[R0]b[R0]"
    assert every_way(guard_of(lists), f"好{words[7]}好{words[399]}") == {"好[R0]好[R0]"}


def test_prose_is_hardly_held() -> None:
    guard = compile_guard(
        [pack({"pattern": r"\bgh[pousr]_\w{36,}", "action": "redact"})], GuardSettings()
    )
    lane = lane_of(guard)
    assert lane.feed("good evening, g") == "good evening, "
    assert lane.held == 1
    assert lane.feed("oing home") == "going home"
    assert repr(lane) == "<Lane text 0 held>"
