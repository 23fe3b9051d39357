"""{w}/digests: what happened in a day or a week (control-api.md §12.9, alerts.md §10).

A digest is counted from the stored incidents and events when it is asked for, and never changes
afterwards.  It is not sent to anybody yet: `deliver` answers 501.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, tzinfo
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, TypeAdapter

from proxy.alerting.digest import (
    DIGEST,
    Digest,
    DigestIncident,
    Period,
    Span,
    built,
    span_of,
    worst_first,
)
from proxy.control.audit import changes_of
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.incidents import INCIDENTS, as_model
from proxy.control.kinds import Kind, Object, everything, stored
from proxy.control.own_events import commit_telling, own_event
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.reading import read_document
from proxy.control.wire import Instant, ListQuery, within
from proxy.model.batch import LogFilter, StoreConflict
from proxy.model.documents import Doc
from proxy.model.events import (
    DIGEST_GENERATED,
    EVENTS_LOG,
    FAILOVER_DECISION,
    POLICY_RESULT,
    iso,
    parse_time,
)
from proxy.storage.documents import document
from proxy.wire import jsonbody

STEP: Final = 500
_TOLD: Final = ("digest_id", "period", "window", "summary")
MAX_COUNTED: Final = 100_000  # events of one type; beyond it the digest is partial


class DigestsQuery(ListQuery):
    """`since` and `until` are about the beginning of the period."""

    period: list[Period] | None = None
    since: Instant | None = None
    until: Instant | None = None


def _day(value: object) -> object:
    """A day, not a moment at midnight."""
    if isinstance(value, str) and len(value) != len("2026-01-31"):
        raise ValueError("must be a day such as 2026-01-31")
    return value


class DigestOrder(Doc):
    """Which digest to make.  `date`: the day, or any day of the week."""

    period: Period
    date: Annotated[date, BeforeValidator(_day)]
    deliver: bool = False


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, DigestsQuery), "the table says so"
    window = doc["window"]
    assert isinstance(window, dict), "the model says so"
    return (query.period is None or doc["period"] in query.period) and within(
        window["since"], query.since, query.until
    )


DIGESTS: Final = Kind(
    name=DIGEST,
    noun="digest",
    parameter="digestId",
    adapter=TypeAdapter(Digest),
    id_member="digest_id",
    id_of=lambda said, _: str(said["digest_id"]),
    keep=_keep,
    sorts=("created_at", "period"),
    conditional_get=False,
    ours=True,
)


async def make_digest(passage: Passage, deps: ControlDeps) -> Reply:
    """Count a period that is over; the digest that is there already is told again."""
    asked = as_model(DigestOrder, read_document(DIGESTS, passage))
    now_ms = deps.clock.now_ms()
    span = _span(asked, await _zone(passage))
    if span.until_ms > now_ms:
        raise invalid([FieldError("not_over", "the period is not over", "date", "#/date")])
    if asked.deliver:
        raise Problem("not-implemented", "digests are not sent in this version")

    async def act(ticket: Ticket) -> Reply:
        ticket.recorded = False
        known = await _known(span, passage, deps)
        if known is not None:
            return known
        said = (await _count(asked.period, span, passage, deps, now_ms)).model_dump(mode="json")
        put = document(DIGEST, span.digest_id, said, now_ms)
        one = stored(DIGESTS, span.digest_id, 1, put.body)
        headers = {"Location": f"{passage.path.rstrip('/')}/{span.digest_id}", "ETag": one.etag}
        reply = Reply.json(201, one.told, headers)
        try:
            async with deps.audit.chain(deps.store, passage.workspace, now_ms) as chain:
                row = chain.row(
                    passage.actor, f"{DIGEST}.create", (DIGEST, one.id),
                    changes_of({}, {"period": asked.period, "window": said["window"]}),
                )  # fmt: skip
                told: Object = {name: said[name] for name in _TOLD}
                event = own_event(passage, deps, DIGEST_GENERATED, told)
                ops = (put, row, *ticket.ops(reply))
                await commit_telling(deps, passage.workspace, [event], ops)
        except StoreConflict as conflict:
            ticket.recorded = False
            known = await _known(span, passage, deps)
            if conflict.reason != "exists" or known is None:
                raise
            return known
        return reply

    return await once(passage, deps, act)


async def _known(span: Span, passage: Passage, deps: ControlDeps) -> Reply | None:
    row = await deps.store.get(passage.workspace, DIGEST, span.digest_id)
    if row is None:
        return None
    one = stored(DIGESTS, span.digest_id, *row)
    return Reply.json(200, one.told, {"ETag": one.etag})


def _span(asked: DigestOrder, zone: tzinfo) -> Span:
    try:
        span = span_of(asked.period, asked.date, zone)
        iso(span.since_ms), iso(span.until_ms)  # both can be written
        return span
    except (ValueError, OverflowError) as why:
        detail = "is out of the years that can be counted"
        raise invalid([FieldError("invalid_value", detail, "date", "#/date")]) from why


async def _zone(passage: Passage) -> tzinfo:
    """The workspace's time zone.  Raises Problem 409 when this machine does not know it."""
    name = passage.config.time_zone(passage.workspace)
    if name == "UTC":
        return UTC
    try:
        return await asyncio.to_thread(ZoneInfo, name)  # a file is read
    except (KeyError, ValueError, OSError) as why:
        raise Problem("conflict", f"no such time zone here: {name}") from why


async def _count(
    period: Period, span: Span, passage: Passage, deps: ControlDeps, now_ms: int
) -> Digest:
    workspace_id = passage.workspace
    found = await everything(INCIDENTS, passage, deps)
    began = [_begun(one.told) for one in found.values()]
    violations, all_of_them = await _matching(POLICY_RESULT, span, workspace_id, deps)
    failovers, all_of_those = await _matching(FAILOVER_DECISION, span, workspace_id, deps)
    return built(
        workspace_id,
        period,
        span,
        worst_first(began, span),
        violations,
        failovers,
        now_ms,
        partial=not (all_of_them and all_of_those),
    )


def _begun(doc: Object) -> tuple[int, DigestIncident]:
    routes = doc["route_ids"]
    told = {"id": doc["incident_id"], "severity": doc["severity"], "type": doc["type"]}
    route = routes[0] if isinstance(routes, list) and routes else None
    one = DigestIncident.model_validate({**told, "route": route})
    return parse_time(str(doc["created_at"])) or 0, one


async def _matching(
    event_type: str, span: Span, workspace_id: str, deps: ControlDeps
) -> tuple[int, bool]:
    """How many events of the type lie in the span and count; False: there were too many to tell."""
    count, read, after = 0, 0, 0
    while read < MAX_COUNTED:
        page = await deps.store.range(
            workspace_id,
            EVENTS_LOG,
            LogFilter(
                after_seq=after, newest_first=False, limit=STEP, types=(event_type,),
                since_ms=span.since_ms, until_ms=span.until_ms,
            ),
        )  # fmt: skip
        for entry in page.entries:
            event = jsonbody.loads(entry.body)
            count += isinstance(event, dict) and _counts(event_type, event)
        read += len(page.entries)
        if page.next_seq is None:
            return count, True
        after = page.next_seq
    return count, False


def _counts(event_type: str, event: Mapping[str, object]) -> bool:
    """Of policy results the violations that were enforced; of the others each."""
    if event_type != POLICY_RESULT:
        return True
    payload = event.get("payload")
    return (
        isinstance(payload, dict)
        and payload.get("verdict") == "violation"
        and payload.get("enforced") is not False
    )
