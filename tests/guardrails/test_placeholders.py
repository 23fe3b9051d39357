"""Placeholders: how they are made, and that they are undone alike however an answer was cut."""

import random
import re

import pytest

from proxy.guardrails import placeholders
from proxy.guardrails.compile import check_pack, compile_guard
from proxy.guardrails.placeholders import Placeholders, workspace_key
from proxy.model.exchange import Leaf
from proxy.model.tenancy import GuardSettings
from tests.guardrails.texts import Maker, pack

KEY = b"k" * 32
JANE = "jane.doe@example.com"
TOKEN = "[EMAIL_14a6de]"
MAIL = {"rule_id": "email", "pattern": r"[a-z.]+@[a-z.]+[a-z]", "action": "redact"}
CASES = 4_000
LONG_CASES = 200_000
BATCH = 2_000


def issued(*values: str, label: str = "EMAIL", key: bytes = KEY) -> Placeholders:
    found = Placeholders(key)
    for value in values:
        found.issue(label, value)
    return found


def undone(text: str, *values: str) -> str:
    return issued(*values).restoration().whole(text)


def asked(*rules: dict[str, object], text: str) -> tuple[str, Placeholders]:
    """What a request becomes, and what it has issued."""
    guard = compile_guard([pack(*rules)], GuardSettings())
    found = Placeholders(KEY)
    judged = guard.judge([Leaf(text, "text", "user", ())], "request", placeholders=found)
    return (judged.rewrites[0][1] if judged.rewrites else text), found


# --- issuing


def test_the_vector() -> None:
    assert Placeholders(KEY).issue("EMAIL", JANE) == TOKEN


def test_the_same_value_has_the_same_placeholder_in_every_turn() -> None:
    first, second = issued(JANE, "a@b.co"), issued("x@y.org", JANE)
    assert first.issue("EMAIL", JANE) == second.issue("EMAIL", JANE) == TOKEN
    assert first.issue("CARD", JANE) != TOKEN


def test_another_workspace_has_other_placeholders() -> None:
    keys = {workspace_key(KEY, name) for name in ("prod", "test", "")} | {KEY}
    assert len({Placeholders(key).issue("EMAIL", JANE) for key in keys}) == 4


def test_two_values_with_the_same_six_digits_are_told_apart() -> None:
    seen: dict[str, str] = {}
    for number in range(100_000):
        value = f"{number}@example.com"
        digits = placeholders.hmac_digits(KEY, "EMAIL", value)
        first = seen.setdefault(digits[:6], value)
        if first != value:
            break
    one, two = issued(first).issue("EMAIL", first), issued(first).issue("EMAIL", value)
    assert (one, two) == (f"[EMAIL_{digits[:6]}]", f"[EMAIL_{digits[:8]}]")
    assert undone(f"{two}{one}", first, value) == value + first
    assert issued(value).issue("EMAIL", value) == one  # without the other the short ones are free


def test_a_value_whose_digits_are_all_taken_gets_no_placeholder_of_another() -> None:
    found = Placeholders(KEY, lambda key, label, value: "0" * 64)
    assert [found.issue("X", value) for value in "abc"] == ["[X_000000]", "[X_00000000]", None]
    assert found.issue("X", "b") == "[X_00000000]"


def test_half_of_an_emoji_is_a_value_like_any_other() -> None:
    found = issued("\ud83d@x.org")
    token = found.issue("EMAIL", "\ud83d@x.org")
    assert found.restoration().whole(f"to {token}") == "to \ud83d@x.org"


def test_nothing_shows_what_stands_behind() -> None:
    found = issued(JANE)
    answer = found.restoration()
    assert JANE not in f"{found!r}{answer!r}{answer.lane()!r}"


# --- what a rule makes of a request


def test_a_reversible_rule_issues_and_another_does_not() -> None:
    text, found = asked({**MAIL, "reversible": True}, text=f"ask {JANE}, or {JANE}")
    assert text == f"ask {TOKEN}, or {TOKEN}"
    assert found.restoration().whole(text) == f"ask {JANE}, or {JANE}"
    text, found = asked(MAIL, text=f"ask {JANE}")
    assert text == "ask [EMAIL]"
    assert not found


def test_answers_and_texts_without_a_request_get_the_plain_replacement() -> None:
    guard = compile_guard([pack({**MAIL, "reversible": True})], GuardSettings())
    for direction in ("request", "response"):
        judged = guard.judge([Leaf(JANE, "text", "user", ())], direction)  # type: ignore[arg-type]
        assert judged.rewrites[0][1] == "[EMAIL]"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"rule_id": "host", "pattern": r"@[a-z.]+", "action": "redact"}, "to [EMAIL]!"),
        (
            {"rule_id": "host", "pattern": r"@[a-z.]+!", "action": "redact", "reversible": True},
            "to [EMAIL_9f0733]",
        ),
    ],
    ids=["not reversible", "reversible"],
)
def test_where_spans_overlap_all_rules_must_allow_it(other: dict[str, object], told: str) -> None:
    text, found = asked({**MAIL, "reversible": True}, other, text=f"to {JANE}!")
    assert text == told.replace("9f0733", text[10:16])
    assert found.restoration().whole(text) == (f"to {JANE}!" if found else text)


# fmt: off
REFUSED = [
    {"action": "replace"}, {"action": "block"}, {"action": "log"}, {"action": "flag"},
    {"action": "allow"}, {"scope": {"direction": "response"}}, {"scope": {"direction": "out"}},
]
# fmt: on


@pytest.mark.parametrize("members", REFUSED, ids=str)
def test_what_cannot_be_undone_is_refused(members: dict[str, object]) -> None:
    faults, _ = check_pack(pack({**MAIL, "reversible": True, **members}))
    assert ("rules[0].reversible", "action_not_possible") in {(f.field, f.code) for f in faults}


@pytest.mark.parametrize("direction", ["request", "in", "both"])
def test_what_looks_at_requests_can_be_reversible(direction: str) -> None:
    rule = {**MAIL, "reversible": True, "scope": {"direction": direction}}
    assert check_pack(pack(rule)) == ([], [])


def test_the_direction_may_be_that_of_the_pack() -> None:
    rule = {**MAIL, "reversible": True}
    faults, _ = check_pack(pack(rule, scope={"direction": "response"}))
    assert [fault.code for fault in faults] == ["action_not_possible"]


# --- undoing


@pytest.mark.parametrize(
    ("text", "told", "unrestored"),
    [
        (f"write to {TOKEN}.", f"write to {JANE}.", 0),
        (f"{TOKEN}{TOKEN}", JANE + JANE, 0),
        (f"[{TOKEN}]", f"[{JANE}]", 0),
        (f"[EMAIL_14a6{TOKEN}", f"[EMAIL_14a6{JANE}", 0),
        ("[EMAIL_14a6de", "[EMAIL_14a6de", 1),
        ("[email_14a6de]", "[email_14a6de]", 1),
        ("[EMAIL_14A6DE]", "[EMAIL_14A6DE]", 1),
        ("[EMAIL 14a6de], EMAIL_14a6de", "[EMAIL 14a6de], EMAIL_14a6de", 2),
        (r"[EMAIL\_14a6de]", r"[EMAIL\_14a6de]", 1),
        ("[EMAIL_ffffff]", "[EMAIL_ffffff]", 0),
        ("[EMAIL]", "[EMAIL]", 0),
        ("x14a6de 14a6dex 14a6de0", "x14a6de 14a6dex 14a6de0", 0),
        ("", "", 0),
    ],
)
def test_exact_spelling_only(text: str, told: str, unrestored: int) -> None:
    answer = issued(JANE).restoration()
    assert answer.whole(text) == told
    assert answer.unrestored == unrestored
    answer = issued(JANE).restoration()
    lane = answer.lane()
    assert "".join([*map(lane.feed, text), lane.finish()]) == told
    assert answer.unrestored == unrestored


def test_what_another_request_has_issued_stays() -> None:
    assert undone(f"{TOKEN}", "someone@example.com") == TOKEN
    assert undone(f"{TOKEN}", JANE) == JANE


def test_a_value_that_looks_like_a_placeholder_is_not_undone_again() -> None:
    other = issued("[EMAIL_14a6de]").issue("EMAIL", "[EMAIL_14a6de]")
    assert undone(f"{other}", JANE, "[EMAIL_14a6de]") == TOKEN


def test_the_longest_beginning_is_held_and_no_more() -> None:
    label = "L" * 24
    found = Placeholders(KEY, lambda key, name, value: "0123456789")
    found.issue(label, "a")
    longest = found.issue(label, "b")
    assert longest is not None
    lane = found.restoration().lane()
    assert [lane.feed(c) for c in longest] == [""] * 34 + ["b"]
    assert lane.feed("[" + "L" * 40) == "[" + "L" * 40
    assert lane.held == 0


def test_a_text_that_ends_inside_a_placeholder_is_told_only_when_it_is_whole() -> None:
    lane = issued(JANE).restoration().lane()
    assert lane.feed(f"ask {TOKEN[:-1]}") == "ask "
    assert lane.held == len(TOKEN) - 1
    assert lane.finish() == TOKEN[:-1]


def test_a_short_answer_does_not_become_an_endless_one() -> None:
    value = "v" * 1_000_000
    found = issued(value)
    answer = found.restoration()
    token = found.issue("EMAIL", value)
    shown = answer.whole(f"{token}" * 100)
    assert shown.count(value) == placeholders.MAX_RESTORED_CHARS // len(value)
    assert answer.unrestored == 100 - placeholders.MAX_RESTORED_CHARS // len(value)


@pytest.mark.parametrize("size", [1, 7, 600, 5000])
def test_what_is_left_of_placeholders_is_counted_in_long_texts_too(size: int) -> None:
    text = ("word " * 50 + "EMAIL_14a6de " + "x" * 300 + "14a6de" + TOKEN + "14a6de ") * 20
    answer = issued(JANE).restoration()
    lane = answer.lane()
    for at in range(0, len(text), size):
        lane.feed(text[at : at + size])
    lane.finish()
    assert answer.unrestored == 40


HOSTILE = ["[" * 300_000, ("[" + "0" * 33) * 9_000, "[EMAIL_" * 40_000, "0" * 300_000, "]" * 9_000]


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:8] for text in HOSTILE])
def test_a_hostile_answer_leaves_as_it_came(text: str) -> None:
    answer = issued(JANE).restoration()
    assert answer.whole(text) == text
    lane = answer.lane()
    said = [lane.feed(text[at : at + 7]) for at in range(0, len(text), 7)]
    assert "".join([*said, lane.finish()]) == text
    assert answer.unrestored == 0


def test_leaves_are_restored_after_the_rules_and_where_a_text_can_be_put() -> None:
    answer = issued(JANE).restoration()
    rewritten = Leaf(f"KEY {TOKEN}", "text", "assistant", ("a",))
    leaves = [
        rewritten,
        Leaf(TOKEN, "refusal", "assistant", ("b",)),
        Leaf(TOKEN, "tool_args", "assistant", ("c",), ("to",)),
        Leaf(TOKEN, "tool_args", "assistant", ("c",), (TOKEN,), rewritable=False),
        Leaf(TOKEN, "reasoning", "assistant", ("d",)),
        Leaf(TOKEN, "annotation", "assistant", ("e",)),
        Leaf("plain", "text", "assistant", ("f",)),
    ]
    found = answer.leaves(leaves, [(rewritten, f"[KEY] {TOKEN}")])
    told = [(leaf.path[0], text) for leaf, text in found]
    assert told == [("a", f"[KEY] {JANE}"), ("b", JANE), ("c", JANE)]
    assert answer.unrestored == 1  # the key


# --- any chunking


def near(r: random.Random) -> Placeholders:
    """Placeholders that are much alike, so that beginnings of one are beginnings of others."""
    digits = ["".join(r.choices("ab", k=8)) for _ in range(3)]
    found = Placeholders(KEY, lambda key, label, value: r.choice(digits))
    for number in range(r.randint(1, 6)):
        value = r.choice(["", "x", '"q"', "[E_aaaaaa]", "é\n", "[", "aaaaaa"]) + str(number)
        found.issue(r.choice(["E", "EA", "E_A", "E" * 24]), value)
    return found


def mangled(r: random.Random, token: str) -> str:
    at = r.randint(0, len(token))
    return r.choice(
        [
            token, token, token, token[:at], token[at:],
            token[:at] + r.choice("[]ab_E") + token[at:],
            token.lower(), token.upper(), token[1:-1], token.replace("_", " "), token * 2,
        ]
    )  # fmt: skip


def differs(r: random.Random, maker: Maker) -> str | None:
    """One random answer, cut at random; what was wrong with it."""
    found = near(r)
    values = found.values
    parts = [
        r.choice([mangled(r, r.choice([*values])), maker.run("[]_EAab 0é", 0, 9)])
        for _ in range(r.randint(1, 7))
    ]
    text = "".join(parts)
    exact = re.compile("|".join(map(re.escape, values)))
    want = exact.sub(lambda hit: values[hit[0]], text)
    digits = {token[1:-1].rpartition("_")[2] for token in values}
    stays = re.findall("[0-9A-Za-z]+", exact.sub("\0", text))
    answer = found.restoration()
    lane, said = answer.lane(), ""
    for piece in maker.cuts(text):
        said += lane.feed(piece)
        if not want.startswith(said) or lane.held > placeholders.MAX_HELD:
            return f"{text!r} {said!r}"
    said += lane.finish()
    counted = sum(word.lower() in digits for word in stays)
    if said != want or answer.unrestored != counted:
        return f"{text!r} {said!r} {answer.unrestored} {counted}"
    return None if found.restoration().whole(text) == want else f"{text!r} whole"


BATCHES = [
    pytest.param(number, marks=[pytest.mark.long] if number >= CASES // BATCH else [])
    for number in range(LONG_CASES // BATCH)
]


@pytest.mark.parametrize("batch", BATCHES)
def test_any_chunking_restores_what_the_whole_restores(batch: int) -> None:
    maker = Maker(9000 + batch)
    wrong = [differs(maker.r, maker) for _ in range(BATCH)]
    assert not [each for each in wrong if each is not None]
