"""The timeline stays within its bound and forgets the right things."""

from typing import Any

import pytest

from proxy.incidents.incident import Entry
from proxy.incidents.timeline import MAX_ENTRIES, extended
from proxy.model.events import iso

START_MS = 1_710_513_000_000


def entry(second: int, kind: Any = "event_added", **more: Any) -> Entry:
    return Entry(at=iso(START_MS + second * 1000), kind=kind, **more)


def test_a_repeat_raises_count_and_last_seen() -> None:
    first = extended([], [entry(0, "opened"), entry(1, fingerprint="f")])
    told = extended(first, [entry(5, fingerprint="f"), entry(3, fingerprint="f"), entry(4)])
    assert [(e.kind, e.count, e.at, e.last_seen) for e in told] == [
        ("opened", 1, iso(START_MS), None),
        ("event_added", 3, iso(START_MS + 1000), iso(START_MS + 5000)),
        ("event_added", 1, iso(START_MS + 4000), None),
    ]


def test_what_comes_late_stands_at_its_time() -> None:
    told = extended([entry(0, "opened"), entry(9)], [entry(4, message="late")])
    assert [e.message for e in told] == ["", "late", ""]
    assert [e.at for e in told] == sorted(e.at for e in told)


def test_the_system_folds_before_people() -> None:
    people = [entry(n, "note_added", actor="ann") for n in range(1, 201)]
    told = extended([entry(0, "opened")], [*people, *(entry(n) for n in range(300, 700))])
    assert len(told) <= MAX_ENTRIES
    assert told[0].kind == "opened"
    assert sum(e.kind == "note_added" for e in told) == 200
    assert sum(e.count for e in told) == 601
    assert told[-1].at == iso(START_MS + 699_000)


def test_the_opening_stays_wherever_it_stands() -> None:
    early = [entry(n, "note_added", actor=f"a{n}") for n in range(900)]
    told = extended([entry(100, "opened")], early)
    assert [e.at for e in told if e.kind == "opened"] == [iso(START_MS + 100_000)]
    assert told[-1].actor == "a899"


@pytest.mark.parametrize("size", [MAX_ENTRIES, MAX_ENTRIES + 1, 3000])
@pytest.mark.parametrize("actors", [1, 7, 3000])
def test_the_bound_holds(size: int, actors: int) -> None:
    told: list[Entry] = []
    for start in range(0, size, 250):
        new = [
            entry(n, "opened" if n == 0 else "assigned", actor=f"a{n % actors}")
            for n in range(start, min(start + 250, size))
        ]
        told = extended(told, new)
        assert len(told) <= MAX_ENTRIES
    assert told[0].kind == "opened"
    assert told[-1].last_seen or told[-1].at == iso(START_MS + (size - 1) * 1000)
    if actors < 100:
        assert sum(e.count for e in told) == size
