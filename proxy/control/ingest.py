"""POST /v1/ingest/runtime and /v1/ingest/change: events from outside, counted once (events.md §2).

One request is one commit: its events and its idempotency record.  The record keeps which items
went in; what became of them is known only in the commit, so a repetition appends them once more,
finds each of them by its id, and answers the same.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from proxy.control.body import too_large
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.incoming import EVENT_BYTES, Family, Read, Reader
from proxy.control.keeping import keep
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.validation import Where, field_of, pointer_of, read_json
from proxy.model.batch import Appended, StoreUnavailable
from proxy.model.events import Came, NewEvent, iso
from proxy.model.exchange import Json
from proxy.model.ports import IdempotencyRecord
from proxy.wire import jsonbody

MAX_EVENTS: Final = 1000
NDJSON: Final = "application/x-ndjson"
WORKSPACE_HEADER: Final = "x-parapet-workspace"
DEDUPE_DAYS: Final = 30
_RECIPE: Final = TypeAdapter(tuple[int, list[tuple[int, list[Any]]]])


@dataclass(slots=True)
class Items:
    """A body taken apart: each item with its place, and the workspaces that it names."""

    values: list[tuple[Where, Json]]
    single: bool
    named: set[str]


async def post_runtime(passage: Passage, deps: ControlDeps) -> Reply:
    """Send runtime events.

    One, a list, `{"events": […]}`, or one per line of NDJSON."""
    return await _ingest("runtime", passage, deps)


async def post_change(passage: Passage, deps: ControlDeps) -> Reply:
    """Send change events.

    One, a list, `{"events": […]}`, or one per line of NDJSON."""
    return await _ingest("change", passage, deps)


async def _ingest(family: Family, passage: Passage, deps: ControlDeps) -> Reply:
    items = _apart(passage)
    passage.workspace_id = _workspace(passage, items.named)
    settings = passage.config.ingest
    if settings.require_idempotency_key and "Idempotency-Key" not in passage.request.headers:
        raise Problem("idempotency-key-missing")
    now_ms = deps.clock.now_ms()
    reader = Reader(
        family,
        passage.workspace,
        passage.config.routes_of(passage.workspace),
        deps.server_key,
        now_ms,
    )
    read = await _read(reader, items, len(passage.body))
    if all(item.event is None for item in read):
        raise invalid([error for item in read for error in item.errors])
    # a repetition of the request must find its events, however long it is known
    known_s = passage.config.control.idempotency_ttl_hours * 3600
    ttl_s = max((settings.dedupe_days or DEDUPE_DAYS) * 86_400, known_s)
    source = f"api/{passage.caller.key_id}"

    async def accept(chosen: Sequence[Read], ticket: Ticket | None) -> list[Appended]:
        also = ticket.ops(_recipe(chosen, now_ms)) if ticket and ticket.key else ()
        return await deps.intake.accept(
            passage.workspace,
            [item.event for item in chosen if item.event is not None],
            source=source,
            dedupe_ttl_s=ttl_s,
            also=also,
            received_ms=now_ms,
        )

    async def act(ticket: Ticket) -> Reply:
        chosen = [item for item in read if item.event is not None]
        return _reply(read, await accept(chosen, ticket), items.single, now_ms, first_time=True)

    async def replay(record: IdempotencyRecord) -> Reply:
        then_ms, went_in = _read_recipe(record)
        for item in read:
            if item.index in went_in:
                item.warnings = went_in[item.index]  # as they were told
            else:
                item.event = None
        chosen = [item for item in read if item.event is not None]
        return _reply(read, await accept(chosen, None), items.single, then_ms, first_time=False)

    try:
        return await once(passage, deps, act, replay)
    except StoreUnavailable as down:
        chosen = [item for item in read if item.event is not None]
        await keep(
            down,
            passage,
            deps,
            [item.event for item in chosen if item.event is not None],
            Came(source, now_ms, ttl_s),
            _recipe(chosen, now_ms),
        )
        return _kept_reply(read, items.single, now_ms)


def _apart(passage: Passage) -> Items:
    """The items of a body in any of its four shapes.  Raises Problem 400, 413, 422."""
    named = set(passage.request.headers.getall(WORKSPACE_HEADER, []))
    if passage.media == NDJSON:
        lines = _lines(passage.body)
        _check_count(len(lines))
        values: list[tuple[Where, Json]] = [
            ((index,), read_json(line, start)) for index, (start, line) in enumerate(lines)
        ]
        return _with_names(values, single=False, named=named)
    doc = read_json(passage.body)
    if isinstance(doc, dict) and isinstance(doc.get("events"), list):
        events = doc["events"]
        assert isinstance(events, list), "just seen"
        _check_envelope(doc)
        _check_count(len(events), "events")
        if isinstance(doc.get("workspace_id"), str):
            named.add(str(doc["workspace_id"]))
        return _with_names([(("events", i), item) for i, item in enumerate(events)], False, named)
    if isinstance(doc, list):
        _check_count(len(doc))
        return _with_names([((index,), item) for index, item in enumerate(doc)], False, named)
    if not isinstance(doc, dict):
        raise invalid([FieldError("wrong_type", "must be an object or a list", "", "#")])
    if len(passage.body) > EVENT_BYTES:
        raise too_large(EVENT_BYTES, f"an event is over {EVENT_BYTES} bytes")
    return _with_names([((), doc)], True, named)


def _lines(body: bytes) -> list[tuple[int, bytes]]:
    """The lines that say something, each with its offset."""
    found, start = [], 0
    for line in body.split(b"\n"):
        if line.strip():
            found.append((start, line))
        start += len(line) + 1
    return found


def _check_envelope(doc: dict[str, Json]) -> None:
    extra = [name for name in doc if name not in ("events", "workspace_id")]
    if extra:
        raise invalid(
            [
                FieldError("extra_forbidden", "is not a known member", name, pointer_of((name,)))
                for name in extra
            ]
        )


def _check_count(count: int, field: str = "") -> None:
    pointer = f"#/{field}" if field else "#"
    if count == 0:
        raise invalid([FieldError("too_short", "must hold at least 1 event", field, pointer)])
    if count > MAX_EVENTS:
        raise invalid(
            [
                FieldError(
                    "too_long", f"must hold at most {MAX_EVENTS} events", field, pointer,
                    extra={"limit": MAX_EVENTS},
                )
            ]
        )  # fmt: skip


def _with_names(values: list[tuple[Where, Json]], single: bool, named: set[str]) -> Items:
    for _, item in values:
        if isinstance(item, dict) and isinstance(item.get("workspace_id"), str):
            named.add(str(item["workspace_id"]))
    return Items(values, single, named)


def _workspace(passage: Passage, named: set[str]) -> str:
    """The key's only workspace, or the one that the request names (steps 7 and 9)."""
    caller, known = passage.caller, passage.config.workspaces
    if len(named) > 1 or any(not caller.bound_to(name) for name in named):
        raise Problem("forbidden", extra={"reason": "workspace_mismatch"})
    if named:
        (workspace_id,) = named
    else:
        bound = known.keys() if caller.workspaces is None else caller.workspaces
        if len(bound) != 1:
            error = FieldError(
                "workspace_required",
                f"the key has several workspaces: name one by {WORKSPACE_HEADER} or workspace_id",
                "workspace_id",
                "#/workspace_id",
            )
            raise invalid([error])
        (workspace_id,) = bound
    if workspace_id not in known:
        raise Problem("not-found", "no such workspace")
    return workspace_id


async def _read(reader: Reader, items: Items, body_bytes: int) -> list[Read]:
    """Read every item.  A large body lets others run in between, so that none waits for it."""
    found: list[Read] = []
    read_bytes = 0
    for index, (where, value) in enumerate(items.values):
        if body_bytes > EVENT_BYTES:
            size = len(jsonbody.dumps(value))
            if size > EVENT_BYTES:
                found.append(Read(index, where, errors=[_too_large(where)]))
                continue
            read_bytes += size
            if read_bytes > EVENT_BYTES:
                read_bytes = 0
                await asyncio.sleep(0)
        found.append(reader.read(index, value, where))
    return found


def _too_large(where: Where) -> FieldError:
    return FieldError(
        "too_large",
        f"is over {EVENT_BYTES} bytes",
        field_of(where),
        pointer_of(where),
        extra={"limit": EVENT_BYTES},
    )


def _recipe(chosen: Iterable[Read], now_ms: int) -> Reply:
    """What a repetition needs: when it was, which items went in, and with which warnings."""
    went_in: Json = [[item.index, item.warnings] for item in chosen]
    return Reply.json(202, [now_ms, went_in])


def _read_recipe(record: IdempotencyRecord) -> tuple[int, dict[int, list[Json]]]:
    then_ms, went_in = _RECIPE.validate_json(record.body)
    return then_ms, dict(went_in)


def _reply(
    read: Sequence[Read],
    outcomes: Sequence[Appended],
    single: bool,
    at_ms: int,
    *,
    first_time: bool,
) -> Reply:
    """Say what became of each item.

    In a repetition every item is known by now; those that this request brought in are the ones
    that were received when it was.
    """
    results: list[dict[str, Json]] = []
    counts = {"accepted": 0, "duplicate": 0, "rejected": 0}
    seen: set[str] = set()
    told = iter(outcomes)
    for item in read:
        if item.event is None:
            counts["rejected"] += 1
            results.append(_rejected(item, item.errors))
            continue
        outcome, event_id = next(told), _event_id(item.event)
        if outcome.status == "conflict":
            counts["rejected"] += 1
            results.append(_rejected(item, [_conflict(item)]))
            continue
        new = outcome.status == "accepted"
        if not first_time:
            new = outcome.received_ms == at_ms and event_id not in seen
        seen.add(event_id)
        status = "accepted" if new else "duplicate"
        counts[status] += 1
        result: dict[str, Json] = {
            "event_id": event_id,
            "status": status,
            "duplicate": not new,
            "seq": outcome.seq,
            "received_at": iso(at_ms if new else outcome.received_ms or at_ms),
        }
        if item.warnings:
            result["warnings"] = item.warnings
        results.append(result)
    return _whole(read, results, counts, single)


def _kept_reply(read: Sequence[Read], single: bool, at_ms: int) -> Reply:
    """What is not stored yet has no number, and whether it is a repetition will be seen then."""
    results: list[dict[str, Json]] = []
    counts = {"accepted": 0, "duplicate": 0, "rejected": 0}
    for item in read:
        if item.event is None:
            counts["rejected"] += 1
            results.append(_rejected(item, item.errors))
            continue
        counts["accepted"] += 1
        result: dict[str, Json] = {
            "event_id": _event_id(item.event),
            "status": "accepted",
            "duplicate": None,
            "seq": None,
            "received_at": iso(at_ms),
            "durability": "local",
        }
        results.append({**result, "warnings": item.warnings} if item.warnings else result)
    return _whole(read, results, counts, single)


def _whole(
    read: Sequence[Read],
    results: Sequence[dict[str, Json]],
    counts: dict[str, int],
    single: bool,
) -> Reply:
    if single:
        if counts["rejected"]:
            raise Problem("event-id-conflict", extra={"existing": read[0].event_id})
        return Reply.json(202, results[0])
    if counts["rejected"] == len(results):
        raise invalid([error for item in read for error in item.errors or [_conflict(item)]])
    listed: list[Json] = [
        {"index": item.index, **result} for item, result in zip(read, results, strict=True)
    ]
    return Reply.json(
        202,
        {
            "accepted": counts["accepted"],
            "duplicates": counts["duplicate"],
            "rejected": counts["rejected"],
            "results": listed,
        },
    )


def _event_id(event: NewEvent) -> str:
    return str(event.body["event_id"])


def _rejected(item: Read, errors: Sequence[FieldError]) -> dict[str, Json]:
    told: list[Json] = [error.doc() for error in errors]
    result: dict[str, Json] = {"status": "rejected", "errors": told}
    return {"event_id": item.event_id, **result} if item.event_id else result


def _conflict(item: Read) -> FieldError:
    where = (*item.where, "event_id")
    return FieldError(
        "event_id_conflict", "was used for another event", field_of(where), pointer_of(where)
    )
