"""The published table of evasions is what the engine does; nothing that was caught gets through."""

import pytest

from benchmarks.quality import evasion
from benchmarks.quality.evasion import CAUGHT, EXAMPLES, MISSED, NONE, PAGE, TECHNIQUES, Table
from benchmarks.quality.measure import shipped
from tests.guardrails.texts import pack

PACKS = shipped()


@pytest.fixture(scope="module")
def now() -> Table:
    return evasion.computed({name: PACKS[name] for name in PACKS.keys() & EXAMPLES.keys()})


def test_every_shipped_pack_has_an_entry() -> None:
    assert PACKS.keys() - EXAMPLES.keys() == set(), "add one to benchmarks/quality/evasion.py"


@pytest.mark.thorough
def test_nothing_that_was_caught_gets_through(now: Table) -> None:
    assert evasion.lost(evasion.published(PAGE.read_text()), now) == []


@pytest.mark.thorough
def test_the_table_is_published_as_it_is(now: Table) -> None:
    """When this fails and the test above does not: `make evasion`."""
    page = PAGE.read_text()
    assert evasion.replaced(page, now) == page


@pytest.mark.thorough
def test_each_text_is_caught_as_it_is(now: Table) -> None:
    undisguised = now["as it is"]
    assert set(undisguised.values()) <= {CAUGHT, NONE}
    assert [name for name, said in undisguised.items() if said == NONE] == [
        name for name in sorted(PACKS) if EXAMPLES[name] is None
    ]


@pytest.mark.thorough
def test_all_disguises_are_tried(now: Table) -> None:
    assert list(TECHNIQUES) == list(now)
    assert len(TECHNIQUES) == 14


BEFORE: Table = {"leet": {"a": CAUGHT, "b": MISSED}, "hex": {"a": CAUGHT, "b": NONE}}


@pytest.mark.parametrize(
    ("now", "gone"),
    [
        (BEFORE, []),
        ({**BEFORE, "leet": {"a": CAUGHT, "b": CAUGHT}}, []),
        ({**BEFORE, "leet": {"a": MISSED, "b": CAUGHT}}, ["a: leet"]),
        ({"leet": BEFORE["leet"]}, ["a: hex"]),
        ({"leet": {"b": MISSED}, "hex": {"b": NONE}}, ["a: leet", "a: hex"]),
    ],
)
def test_what_counts_as_lost(now: Table, gone: list[str]) -> None:
    assert evasion.lost(BEFORE, now) == gone


@pytest.mark.thorough
def test_a_table_is_read_as_it_was_written(now: Table) -> None:
    page = f"# Before\n\n{evasion.written(now)}\nAfter.\n"
    assert evasion.published(page) == now
    assert evasion.replaced(page, now) == page


@pytest.mark.parametrize(
    ("disguise", "fold"),
    [
        ("zero-width characters", "fold"),
        ("full-width letters", "fold"),
        ("Cyrillic look-alikes", "fold"),
        ("leet", "leet"),
    ],
)
def test_what_folding_sees_through(disguise: str, fold: str) -> None:
    one = pack({"kind": "terms", "pattern": "secret plan", "action": "block", "fold": fold})
    guard = evasion.guard_of([one])
    example = evasion.Example(lambda: "secret plan")
    assert TECHNIQUES[disguise](guard, example, "secret plan")
    plain = pack({"kind": "terms", "pattern": "secret plan", "action": "block", "fold": "none"})
    assert not TECHNIQUES[disguise](evasion.guard_of([plain]), example, "secret plan")
