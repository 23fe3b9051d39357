"""Documents that nobody keeps for ever: incidents with their timelines, correlations, digests, dead
letters (storage.md §6).  What changed least recently goes first, a bounded number in one commit.

It stands on the `Store` port alone, so every engine forgets the same.  Logs and the rest are the
engines' own to trim.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from proxy.alerting.digest import DIGEST
from proxy.model.batch import ANY, Batch, Delete, Op, Retention, StoreConflict
from proxy.model.exchange import Json
from proxy.model.ports import Ids, Store
from proxy.storage.incidents import CORRELATION, INCIDENT, TIMELINE
from proxy.wire import jsonbody

DEAD_LETTER: Final = "dead_letter"
STEP: Final = 500  # documents of one commit: with their timelines 1,000 rows
Pause = Callable[[], Awaitable[None]]


@dataclass(slots=True, frozen=True)
class Rule:
    """How long the documents of a kind are kept since they changed, and how many of a workspace.
    `beside` are kinds whose documents of the same id go with them."""

    kind: str
    kept_ms: int
    most: int | None = None
    beside: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Aged:
    """`over`: what it tells of has ended."""

    id: str
    revision: int
    updated_ms: int
    over: bool


def rules_of(retention: Retention) -> tuple[Rule, ...]:
    return (
        Rule(INCIDENT, retention.incidents_ms, retention.incidents_most, (TIMELINE,)),
        Rule(CORRELATION, retention.incidents_ms),
        Rule(DIGEST, retention.digests_ms),
        Rule(DEAD_LETTER, retention.dead_ms),
    )


def outlived(documents: Sequence[Aged], rule: Rule, now_ms: int) -> list[Aged]:
    """Those that go: the old ones, and of too many those that are over and changed longest ago."""
    before_ms = now_ms - rule.kept_ms
    gone = [each for each in documents if each.updated_ms < before_ms]
    too_many = len(documents) - len(gone) - rule.most if rule.most is not None else 0
    if too_many > 0:
        rest = [each for each in documents if each.updated_ms >= before_ms]
        gone += sorted(rest, key=lambda each: (not each.over, each.updated_ms, each.id))[:too_many]
    return gone


async def forget(
    store: Store, workspace_id: str, retention: Retention, now_ms: int, ids: Ids, pause: Pause
) -> int:
    """Remove what one workspace need not keep; how many documents went.

    `pause` comes after each commit.  A document that is changed meanwhile stays until the next
    time, and so do those of the same commit.  Raises StoreUnavailable."""
    count = 0
    for rule in rules_of(retention):
        gone = outlived(await _aged(store, workspace_id, rule.kind), rule, now_ms)
        for start in range(0, len(gone), STEP):
            some = gone[start : start + STEP]
            with suppress(StoreConflict):
                await store.commit(workspace_id, Batch(ids.new("cm-"), _deletions(some, rule)))
                count += len(some)
            await pause()
    return count


def _deletions(documents: Sequence[Aged], rule: Rule) -> tuple[Op, ...]:
    return tuple(
        deletion
        for each in documents
        for deletion in (
            Delete(rule.kind, each.id, each.revision),
            *(Delete(kind, each.id, ANY) for kind in rule.beside),
        )
    )


async def _aged(store: Store, workspace_id: str, kind: str) -> list[Aged]:
    found = []
    for number, (doc_id, revision, body) in enumerate(await store.scan(workspace_id, kind), 1):
        kept = jsonbody.loads(body)
        assert isinstance(kept, dict), "we wrote it"
        updated_ms = kept["updated_at"]
        assert isinstance(updated_ms, int), "we wrote it"
        found.append(Aged(doc_id, revision, updated_ms, _over(kept["said"])))
        if number % STEP == 0:
            await asyncio.sleep(0)  # others run in between
    return found


def _over(said: Json) -> bool:
    return isinstance(said, dict) and said.get("status") == "resolved"
