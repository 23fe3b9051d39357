"""The timeline of an incident: at most 500 entries, in order of time (control-api.md §12.8).

A repeat of what a timeline tells already raises that entry's `count` and `last_seen`.  Above the
bound older entries of the same kind and actor are folded into the first of them; what people did
stands longer than what was observed, and the opening stands always.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from proxy.incidents.incident import SYSTEM, Entry
from proxy.model.events import parse_time

MAX_ENTRIES: Final = 500
FOLDED_TO: Final = 450  # room, so that not every entry above the bound folds anew
Timeline = Sequence[Entry]


def extended(timeline: Timeline, entries: Iterable[Entry]) -> list[Entry]:
    """With new entries, repeats counted, within the bound."""
    told = list(timeline)
    places = {entry.fingerprint: place for place, entry in enumerate(told) if entry.fingerprint}
    for entry in entries:
        place = places.get(entry.fingerprint) if entry.fingerprint else None
        if place is not None:
            told[place] = _repeated(told[place], entry)
            continue
        if entry.fingerprint:
            places[entry.fingerprint] = len(told)
        told.append(entry)
    told.sort(key=lambda entry: parse_time(entry.at) or 0)
    return told if len(told) <= MAX_ENTRIES else _folded(told)


def _repeated(first: Entry, again: Entry) -> Entry:
    seen = [entry.last_seen or entry.at for entry in (first, again)]
    last = max(seen, key=lambda at: parse_time(at) or 0)
    return first.model_copy(update={"count": first.count + again.count, "last_seen": last})


def _folded(told: list[Entry]) -> list[Entry]:
    surplus = len(told) - FOLDED_TO
    for of_system in (True, False):
        surplus -= _fold(told, surplus, of_system=of_system)
    if len(told) <= MAX_ENTRIES:
        return told
    # as many actors as entries: nothing repeats any more, so the oldest go
    opening = [entry for entry in told if entry.kind == "opened"][:1]
    others = [entry for entry in told if entry.kind != "opened"]
    return opening + others[1 - FOLDED_TO :]


def _fold(told: list[Entry], surplus: int, *, of_system: bool) -> int:
    """Fold the oldest repeats, in place; how many went."""
    firsts: dict[tuple[str, str], int] = {}
    gone: set[int] = set()
    for place, entry in enumerate(told):
        if len(gone) >= surplus:
            break
        if entry.kind == "opened" or (entry.actor == SYSTEM) != of_system:
            continue
        first = firsts.setdefault((entry.kind, entry.actor), place)
        if first != place:
            told[first] = _repeated(told[first], entry)
            gone.add(place)
    told[:] = [entry for place, entry in enumerate(told) if place not in gone]
    return len(gone)
