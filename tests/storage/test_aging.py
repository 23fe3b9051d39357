"""Which documents are forgotten, and that every engine forgets the same (storage.md §6)."""

from dataclasses import replace

import pytest

from proxy.incidents.changes import opened
from proxy.model.batch import Append, Batch, Delete, LogFilter, Retention
from proxy.model.exchange import Json
from proxy.storage.aging import STEP, Aged, Rule, forget, outlived, rules_of
from proxy.storage.documents import document
from proxy.storage.incidents import keep
from tests.kit.fakes import CountingIds
from tests.kit.store import MemoryStore
from tests.storage.test_incidents import FIRST

Store = MemoryStore  # and whatever else has its methods
WS = "workspace-123"
DAY_MS = 86_400_000
NOW = 1_710_513_000_000


def aged(said: str) -> list[Aged]:
    """`a9 b3!`: a changed nine days ago and is over, b three, and goes on."""
    return [
        Aged(each[0], 1, NOW - int(each[1:].rstrip("!")) * DAY_MS, not each.endswith("!"))
        for each in said.split()
    ]


# fmt: off
GONE = [
    # documents             days most  those that go
    ("a9 b3 c1",            5,   None, "a"),
    ("a5 b5!",              5,   None, ""),      # they have just so long
    ("a9! b6!",             5,   None, "ab"),    # nobody looked at them for so long
    ("a4 b3 c2 d1",         5,   2,    "ab"),
    ("a4! b3 c2! d1",       5,   2,    "bd"),    # those that are over first
    ("a4! b3! c2! d1",      5,   1,    "dab"),
    ("a9 b3 c2",            5,   2,    "a"),
    ("",                    5,   0,    ""),
]
# fmt: on


@pytest.mark.parametrize(("documents", "days", "most", "gone"), GONE)
def test_what_is_old_goes_and_what_is_too_many(
    documents: str, days: int, most: int | None, gone: str
) -> None:
    found = outlived(aged(documents), Rule("incident", days * DAY_MS, most), NOW)
    assert "".join(each.id for each in found) == gone


def test_how_long_each_kind_is_kept() -> None:
    kept = {rule.kind: (rule.kept_ms // DAY_MS, rule.most) for rule in rules_of(Retention())}
    assert kept == {
        "incident": (365, 50_000),
        "correlation": (365, None),
        "digest": (365, None),
        "dead_letter": (14, None),
    }
    logs = {log: kept_ms // DAY_MS for log, kept_ms in Retention().log_ms().items()}
    assert (logs["notes"], logs["diffs"], logs["audit"], logs["attempts"]) == (365, 365, 365, 30)


class Pauses:
    """Counts the commits; `meanwhile` happens in the first pause."""

    def __init__(self, store: Store | None = None, meanwhile: Batch | None = None) -> None:
        self.count = 0
        self._store, self._meanwhile = store, meanwhile

    async def __call__(self) -> None:
        self.count += 1
        if self._store is not None and self._meanwhile is not None:
            await self._store.commit(WS, self._meanwhile)
            self._meanwhile = None


async def told(store: Store) -> dict[str, list[str]]:
    kinds = ("incident", "incident.timeline", "correlation", "digest", "dead_letter")
    return {kind: [doc_id for doc_id, _, _ in await store.scan(WS, kind)] for kind in kinds}


async def test_every_engine_forgets_the_same(store: Store) -> None:
    ids = CountingIds()
    for number in (1, 2):
        incident = FIRST.model_copy(update={"incident_id": f"inc-{number}"})
        await keep(store, WS, f"made-{number}", opened(incident))
    said: Json = {"incident_id": "inc-1"}
    puts = [
        document(kind, f"{kind}-{days}", said, NOW - days * DAY_MS)
        for kind, days in (("correlation", 3), ("digest", 9), ("digest", 2), ("dead_letter", 1))
    ]
    note = Append("notes", b"{}", at_ms=NOW, incident_id="inc-1")
    await store.commit(WS, Batch("made-3", (*puts, note)))
    retention = replace(Retention(), incidents_most=1, digests_ms=5 * DAY_MS)
    pauses = Pauses()
    assert await forget(store, WS, retention, NOW, ids, pauses) == 2
    assert pauses.count == 2
    assert await told(store) == {
        "incident": ["inc-2"],
        "incident.timeline": ["inc-2"],
        "correlation": ["correlation-3"],
        "digest": ["digest-2"],
        "dead_letter": ["dead_letter-1"],
    }
    assert await forget(store, WS, retention, NOW, ids, pauses) == 0
    later = NOW + 400 * DAY_MS
    assert await forget(store, WS, retention, later, ids, pauses) == 4
    assert not any((await told(store)).values())
    assert (await store.range(WS, "notes", LogFilter())).total == 1  # logs are the engines' to trim


async def test_it_goes_in_bounded_steps_and_leaves_what_is_changed_meanwhile(store: Store) -> None:
    ids = CountingIds()
    for start in range(0, 3 * STEP, STEP):
        puts = [document("digest", f"d{n:04}", {}, NOW) for n in range(start, start + STEP)]
        await store.commit(WS, Batch(f"made-{start}", tuple(puts)))
    somebody = Batch("made-meanwhile", (Delete("digest", f"d{2 * STEP:04}"),))
    pauses, later = Pauses(store, somebody), NOW + 400 * DAY_MS
    assert await forget(store, WS, Retention(), later, ids, pauses) == 2 * STEP
    assert pauses.count == 3
    assert await forget(store, WS, Retention(), later, ids, pauses) == STEP - 1
    assert (await told(store))["digest"] == []
