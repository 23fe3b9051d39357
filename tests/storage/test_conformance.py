"""What every engine must do: each operation, each conflict, each question (storage.md §2, §9)."""

import asyncio
import hashlib
import itertools
from dataclasses import replace

import pytest

from proxy.model.batch import (
    ABSENT,
    ANY,
    Append,
    Batch,
    Count,
    Cursor,
    Delete,
    FinishedIdem,
    Idem,
    LogFilter,
    Op,
    Put,
    StoreConflict,
)
from tests.kit.store import HandClock, MemoryStore

Store = MemoryStore  # and whatever else has its methods
WS = "workspace-123"
DAY_S = 86_400


NUMBERS = itertools.count()


def batch(*ops: Op) -> Batch:
    return Batch(f"cm-{next(NUMBERS)}", ops)


def said(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def event(number: int, **changes: object) -> Append:
    """A request event, three seconds after the one before."""
    made = Append(
        "events",
        b'{"n":%d}' % number,
        event_id=f"evt-{number}",
        content_hash=said(str(number)),
        dedupe_ttl_s=DAY_S,
        at_ms=1_710_513_000_000 + 3000 * number,
        type="runtime.request.completed",
        route_id="prod-chat",
        provider="anthropic",
        model="claude-3-opus",
        outcome="success",
        request_id=f"req-{number}",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_a_document_is_put_read_changed_and_deleted(store: Store) -> None:
    result = await store.commit(WS, batch(Put("policy", "safety-v2", b"1", ABSENT)))
    assert result.revisions == {("policy", "safety-v2"): 1}
    assert await store.get(WS, "policy", "safety-v2") == (1, b"1")
    await store.commit(WS, batch(Put("policy", "safety-v2", b"2", expect=1)))
    assert await store.get(WS, "policy", "safety-v2") == (2, b"2")
    await store.commit(WS, batch(Delete("policy", "safety-v2", expect=2)))
    assert await store.get(WS, "policy", "safety-v2") is None
    assert list(await store.scan(WS, "policy")) == []


async def test_an_old_revision_never_fits_a_document_that_came_again(store: Store) -> None:
    await store.commit(WS, batch(Put("policy", "p", b"old")))
    await store.commit(WS, batch(Delete("policy", "p")))
    await store.commit(WS, batch(Put("policy", "p", b"new", ABSENT)))
    with pytest.raises(StoreConflict):
        await store.commit(WS, batch(Put("policy", "p", b"late", expect=1)))
    assert await store.get(WS, "policy", "p") == (3, b"new")


async def test_the_edition_of_a_kind_changes_with_its_documents_alone(store: Store) -> None:
    """An engine that does not know says None, always."""
    before = store.edition(WS, "policy")
    assert store.edition(WS, "policy") == before
    await store.commit(WS, batch(event(1), Put("route", "r", b"1"), Cursor("c", 0, 1)))
    assert store.edition(WS, "policy") == before
    await store.commit(WS, batch(Put("policy", "p", b"1")))
    after = store.edition(WS, "policy")
    assert (before is None) == (after is None) == (after == before)
    await store.commit(WS, batch(Delete("policy", "p")))
    assert after is None or store.edition(WS, "policy") not in (before, after)
    assert store.edition("elsewhere", "policy") == before


async def test_scan_is_by_id_and_of_one_kind_and_workspace(store: Store) -> None:
    ops = [Put("rule", name, name.encode()) for name in ("b", "a", "c")]
    await store.commit(WS, batch(*ops, Put("target", "x", b"x")))
    await store.commit("other", batch(Put("rule", "z", b"z")))
    assert [row[0] for row in await store.scan(WS, "rule")] == ["a", "b", "c"]
    assert list(await store.scan("other", "rule")) == [("z", 1, b"z")]


# fmt: off
CONFLICTS: list[tuple[str, Op, str]] = [
    ("create what is there",        Put("doc", "a", b"x", ABSENT),                      "exists"),
    ("change what is not there",    Put("doc", "b", b"x", 1),                           "missing"),
    ("change an older revision",    Put("doc", "a", b"x", 7),                           "revision"),
    ("delete what is not there",    Delete("doc", "b", 1),                              "missing"),
    ("delete an older revision",    Delete("doc", "a", 7),                              "revision"),
    ("take a name that is held",    Put("doc", "b", b"x", unique=(("name", "A"),)),     "unique"),
    ("finish twice",                Idem(b"k", b"f", 201, b"", b"", DAY_S),             "idem"),
    ("move a cursor from elsewhere", Cursor("c", 3, 9),                                 "cursor"),
]
# fmt: on


@pytest.mark.parametrize(
    ("op", "reason"), [row[1:] for row in CONFLICTS], ids=[row[0] for row in CONFLICTS]
)
async def test_a_conflict_leaves_no_trace(store: Store, op: Op, reason: str) -> None:
    await store.commit(
        WS,
        batch(
            Put("doc", "a", b"a", unique=(("name", "A"),)),
            Idem(b"k", b"f", 200, b"h", b"b", DAY_S),
            Cursor("c", 0, 5),
            event(1),
        ),
    )
    others: list[Op] = [
        Put("doc", "new", b"n", unique=(("name", "N"),)),
        Idem(b"k2", b"f", 200, b"", b"", DAY_S),
        Cursor("c2", 0, 1),
        Count(1, "s", {1: 1}),
        event(2),
    ]
    for position in (0, len(others)):
        ops = [*others]
        ops.insert(position, op)
        with pytest.raises(StoreConflict) as caught:
            await store.commit(WS, batch(*ops))
        assert (caught.value.op, caught.value.reason) == (position, reason)
        assert await store.get(WS, "doc", "a") == (1, b"a")
        assert await store.get(WS, "doc", "new") is None
        assert await store.idempotency(WS, b"k2") is None
        assert (await store.cursor(WS, "c"), await store.cursor(WS, "c2")) == (5, 0)
        assert list(await store.rollup(WS, 0, 10)) == []
        assert await store.head(WS, "events") == 1
        assert await store.event(WS, "evt-2") is None
    # nothing that was taken back is remembered
    done = await store.commit(WS, batch(*others))
    assert [(one.seq, one.status) for one in done.appended] == [(2, "accepted")]


async def test_a_unique_value_is_free_when_its_document_lets_go(store: Store) -> None:
    named = (("name", "High Latency"),)
    await store.commit(WS, batch(Put("rule", "a", b"", unique=named)))
    await store.commit(WS, batch(Put("rule", "a", b"", unique=named)))  # its own
    await store.commit(WS, batch(Put("rule", "a", b""), Put("rule", "b", b"", unique=named)))
    await store.commit(WS, batch(Delete("rule", "b"), Put("rule", "c", b"", unique=named)))
    await store.commit("other", batch(Put("rule", "d", b"", unique=named)))
    await store.commit(WS, batch(Put("target", "e", b"", unique=named)))


async def test_t_ing_01_the_same_event_twice_is_one(store: Store, clock: HandClock) -> None:
    first = (await store.commit(WS, batch(event(1)))).appended[0]
    clock.at_ms += 60_000
    again = (await store.commit(WS, batch(event(1), event(2), event(2)))).appended
    assert first.status == "accepted"
    assert [(one.seq, one.status) for one in again] == [
        (1, "duplicate"),
        (2, "accepted"),
        (2, "duplicate"),
    ]
    assert again[0].received_ms == first.received_ms
    assert await store.head(WS, "events") == 2


async def test_t_ing_02_other_content_is_a_conflict_of_that_item_alone(store: Store) -> None:
    await store.commit(WS, batch(event(1)))
    other = event(1, content_hash=said("other"), body=b"{}")
    done = await store.commit(WS, batch(other, event(2)))
    assert [(one.seq, one.status) for one in done.appended] == [(1, "conflict"), (2, "accepted")]
    kept = await store.event(WS, "evt-1")
    assert kept is not None
    assert kept.body == b'{"n":1}'


async def test_recognition_ends_with_its_time(store: Store, clock: HandClock) -> None:
    await store.commit(WS, batch(event(1, dedupe_ttl_s=7200)))
    clock.at_ms += 7_199_000
    late = await store.commit(WS, batch(event(1, dedupe_ttl_s=7200)))
    assert late.appended[0].status == "duplicate"
    clock.at_ms += 1_000
    new = await store.commit(WS, batch(event(1, dedupe_ttl_s=7200)))
    assert (new.appended[0].seq, new.appended[0].status) == (2, "accepted")


async def test_workspaces_and_logs_are_apart(store: Store) -> None:
    await store.commit(WS, batch(event(1), event(1, log="audit"), event(2)))
    await store.commit("other", batch(event(1)))
    heads = [await store.head(ws, log) for ws in (WS, "other") for log in ("events", "audit")]
    assert heads == [2, 1, 1, 0]


async def test_an_event_without_an_id_is_never_recognised(store: Store) -> None:
    nameless = Append("audit", b"{}", at_ms=1)
    done = await store.commit(WS, batch(nameless, nameless))
    assert [one.seq for one in done.appended] == [1, 2]


async def test_a_finished_idempotency_record_lasts_its_time(store: Store, clock: HandClock) -> None:
    await store.commit(WS, batch(Idem(b"key", b"fp", 201, b"[]", b"{}", 60)))
    found = await store.idempotency(WS, b"key")
    assert isinstance(found, FinishedIdem)
    assert found == FinishedIdem(b"fp", 201, b"[]", b"{}")
    clock.at_ms += 60_000
    assert await store.idempotency(WS, b"key") is None
    await store.commit(WS, batch(Idem(b"key", b"fp2", 200, b"[]", b"{}", 60)))


async def test_counters_add_up(store: Store) -> None:
    await store.commit(WS, batch(Count(5, "route:a", {0: 1, 3: 250}), Count(6, "route:a", {0: 1})))
    await store.commit(WS, batch(Count(5, "route:a", {0: 2}), Count(5, "route:b", {0: 7})))
    assert [tuple(row) for row in await store.rollup(WS, 5, 6)] == [
        (5, "route:a", 0, 3),
        (5, "route:a", 3, 250),
        (5, "route:b", 0, 7),
    ]


async def test_one_winner_per_revision(store: Store) -> None:
    await store.commit(WS, batch(Put("doc", "a", b"0")))
    for revision in range(1, 6):
        tries = [
            store.commit(
                WS, batch(Put("doc", "a", b"%d" % client, revision), Count(1, "w", {0: 1}))
            )
            for client in range(8)
        ]
        done = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(one, StoreConflict) for one in done) == 7
    found = await store.get(WS, "doc", "a")
    assert found is not None
    assert found[0] == 6
    assert [row[3] for row in await store.rollup(WS, 1, 2)] == [5]


# fmt: off
QUESTIONS: list[tuple[str, LogFilter, list[int]]] = [
    ("newest first",     LogFilter(limit=3),                                      [12, 11, 10]),
    ("oldest first",     LogFilter(limit=3, newest_first=False),                  [1, 2, 3]),
    ("a later page",     LogFilter(limit=3, offset=3),                            [9, 8, 7]),
    ("beyond the end",   LogFilter(limit=3, offset=30),                           []),
    ("tail",             LogFilter(after_seq=9, newest_first=False),              [10, 11, 12]),
    ("going on",         LogFilter(before_seq=4),                                 [3, 2, 1]),
    ("between",          LogFilter(after_seq=3, before_seq=7),                    [6, 5, 4]),
    ("one type",         LogFilter(types=("runtime.policy.result",)),             [12, 9, 6, 3]),
    ("types below",      LogFilter(types=("runtime.policy.*",)),                  [12, 9, 6, 3]),
    ("two types",  LogFilter(types=("watcher.*", "runtime.policy.result")), [12, 10, 9, 6, 3]),
    ("no such type",     LogFilter(types=("runtime.polic.*",)),                   []),
    ("a route",          LogFilter(route_ids=("prod-summary",)),                  [12, 8, 4]),
    ("two routes",       LogFilter(route_ids=("prod-summary", "nowhere")),        [12, 8, 4]),
    ("a model",          LogFilter(models=("titan",)),                            [10, 5]),
    ("a provider",       LogFilter(providers=("bedrock",)),                       [10, 5]),
    ("severities",       LogFilter(severities=(3, 4)),                            [12, 9, 6, 3]),
    ("an outcome",       LogFilter(outcomes=("blocked",)),                        [7]),
    ("a request",        LogFilter(request_ids=("req-7",)),                       [7]),
    ("an incident",      LogFilter(incident_ids=("inc-1",)),                      [12, 11]),
    ("route and type",   LogFilter(route_ids=("prod-summary",), types=("runtime.policy.*",)), [12]),
    ("nothing fits",     LogFilter(route_ids=("prod-summary",), outcomes=("blocked",)), []),
    ("no values at all", LogFilter(route_ids=()),                                 []),
    ("since",            LogFilter(since_ms=1_710_513_033_000),                   [12, 11]),
    ("until",            LogFilter(until_ms=1_710_513_009_000),                   [2, 1]),
    ("half-open",        LogFilter(since_ms=1_710_513_009_000, until_ms=1_710_513_015_000), [4, 3]),
    ("limit nothing",    LogFilter(limit=0),                                      []),
]
# fmt: on


def twelve() -> list[Append]:
    events = []
    for number in range(1, 13):
        made = event(number)
        if number % 3 == 0:
            made = replace(made, type="runtime.policy.result", severity=3)
        if number % 4 == 0:
            made = replace(made, route_id="prod-summary")
        if number % 5 == 0:
            made = replace(made, model="titan", provider="bedrock")
        if number == 7:
            made = replace(made, outcome="blocked")
        if number == 10:
            made = replace(made, type="watcher.pricing.change", route_id=None)
        if number > 10:
            made = replace(made, incident_id="inc-1")
        events.append(made)
    return events


@pytest.mark.parametrize(
    ("query", "seqs"), [row[1:] for row in QUESTIONS], ids=[row[0] for row in QUESTIONS]
)
async def test_questions_to_a_log(store: Store, query: LogFilter, seqs: list[int]) -> None:
    await store.commit(WS, batch(*twelve()))
    await store.commit("other", batch(*twelve()))
    page = await store.range(WS, "events", query)
    assert [entry.seq for entry in page.entries] == seqs
    assert not page.partial
    everything = await store.range(WS, "events", replace(query, limit=100, offset=0))
    assert page.total == everything.total == len(everything.entries)
    assert all(entry.body == b'{"n":%d}' % entry.seq for entry in page.entries)


async def test_following_next_seq_reads_everything_once(store: Store) -> None:
    await store.commit(WS, batch(*twelve()))
    seen: list[int] = []
    query = LogFilter(limit=5, types=("runtime.*",))
    while True:
        page = await store.range(WS, "events", query)
        seen += [entry.seq for entry in page.entries]
        if page.next_seq is None:
            break
        query = replace(query, before_seq=page.next_seq)
    assert seen == [12, 11, 9, 8, 7, 6, 5, 4, 3, 2, 1]


async def test_the_newest_event_of_an_id_is_found(store: Store, clock: HandClock) -> None:
    await store.commit(WS, batch(event(1, dedupe_ttl_s=1), event(2)))
    clock.at_ms += 2_000
    await store.commit(WS, batch(event(1, body=b"again")))
    found = await store.event(WS, "evt-1")
    assert found is not None
    assert (found.seq, found.body) == (3, b"again")
    assert await store.event(WS, "evt-9") is None
    assert await store.event("other", "evt-1") is None


async def test_nothing_is_there_at_first(store: Store) -> None:
    page = await store.range(WS, "events", LogFilter())
    assert (page.entries, page.total, page.next_seq, page.partial) == ([], 0, None, False)
    assert await store.head(WS, "events") == 0
    assert await store.cursor(WS, "c") == 0
    assert store.writable()


async def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert (await store.commit(WS, batch())).appended == []
    await store.commit(WS, batch(Delete("doc", "never", ANY)))
