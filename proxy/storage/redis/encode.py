"""A batch as the script wants it, and the script's answer as a result.

A batch of more than 100 appends goes in pieces, so that no script holds the server for long, but
only when each append would be recognised if it came again: then a crash between two pieces shows
as duplicates in the answer to the retry, never as a second effect.  All other operations, rows of
chains too, are in the last piece; the pieces before it look whether they would be refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.model.batch import (
    ANY,
    OUTBOX,
    WHOLE_BATCH,
    Append,
    Appended,
    Batch,
    CommitResult,
    Count,
    Cursor,
    Delete,
    Fence,
    Idem,
    Op,
    OutboxDone,
    OutboxPut,
    OutboxRetry,
    Put,
)
from proxy.model.events import EVENTS_LOG
from proxy.storage.chain import links
from proxy.storage.recognition import event_key
from proxy.storage.redis.keys import COMMIT_MS, Keys
from proxy.wire import jsonbody

PIECE_APPENDS: Final = 100
_INT64: Final = 1 << 63
_EXACT: Final = 1 << 53  # what a number of the script holds exactly
_LETTERS: Final[dict[str, Literal["accepted", "duplicate", "conflict"]]] = {
    "a": "accepted",
    "d": "duplicate",
    "c": "conflict",
}
Indexed = tuple[int, Op]
Argument = bytes | str | int


@dataclass(slots=True)
class Call:
    """One run of the script.  `appends`: which operations of the batch its answers are of; `log`:
    the one that the last of them went to."""

    keys: list[bytes]
    arguments: list[Argument]
    appends: list[int] = field(default_factory=list)
    log: str | None = None


def pieces_of(batch: Batch) -> list[list[Indexed]]:
    """The operations of each run, the last one with all that is not an append."""
    indexed = list(enumerate(batch.ops))
    appends = [each for each in indexed if isinstance(each[1], Append) and not each[1].chained]
    if len(appends) <= PIECE_APPENDS or not all(_recognised(op) for _, op in appends):
        return [indexed]
    others = [each for each in indexed if not isinstance(each[1], Append | Count)]
    cuts = range(0, len(appends) - PIECE_APPENDS, PIECE_APPENDS)
    pieces = [[*others, *appends[cut : cut + PIECE_APPENDS]] for cut in cuts]
    done = {index for cut in cuts for index, _ in appends[cut : cut + PIECE_APPENDS]}
    return [*pieces, [each for each in indexed if each[0] not in done]]


def call_of(
    keys: Keys,
    commit_id: str,
    piece: Sequence[Indexed],
    now_ms: int,
    *,
    whole: bool,
    fence: Fence | None = None,
) -> Call:
    """Raises ValueError for what cannot be stored."""
    call = Call([keys.commit(commit_id)], [now_ms, COMMIT_MS, "whole" if whole else "piece"])
    if fence is not None:
        call.keys.append(Keys(fence.lease).lease())
        call.arguments += ["F", WHOLE_BATCH, fence.token]
    for index, op in piece:
        match op:
            case Append():
                _append(call, keys, index, op, now_ms)
            case Put():
                _put(call, keys, index, op)
            case Delete():
                _delete(call, keys, index, op)
            case Idem():
                _idem(call, keys, index, op, now_ms)
            case Cursor():
                _int64(op.old, op.new)
                call.keys.append(keys.cursors())
                call.arguments += ["C", index, op.name, op.old, op.new]
            case Count():
                _count(call, keys, index, op)
            case OutboxPut():
                _post(call, keys, index, op)
            case OutboxDone():
                call.keys += [keys.waiting(), keys.claimed(), keys.rows()]
                call.arguments += ["E", index, op.id, "any" if op.token == ANY else op.token]
            case OutboxRetry():
                _exact(op.due_ms, op.attempts)
                call.keys += [keys.waiting(), keys.claimed(), keys.rows()]
                call.arguments += ["B", index, op.id, op.token, op.due_ms, op.attempts]
    return call


def result_of(batch: Batch, told: Sequence[tuple[Call, bytes]]) -> CommitResult:
    """What the runs of all pieces answered, in the order of the batch."""
    outcomes: dict[int, Appended] = {}
    revisions: Iterator[int] = iter(())
    posted: list[int] = []
    for call, answer in told:
        first, second, third = (*answer.decode().split("|"), "")[:3]
        revisions = map(int, first.split())  # those of the last piece count
        posted = [int(number) for number in third.split()]
        outcomes |= zip(call.appends, map(_appended, second.split()), strict=True)
    puts = [op for op in batch.ops if isinstance(op, Put)]
    numbers = dict(zip([(put.kind, put.id) for put in puts], revisions, strict=True))
    return CommitResult(numbers, [outcomes[index] for index in sorted(outcomes)], posted)


def entry_fields(op: Append, received_ms: int) -> tuple[bytes, bytes, bytes]:
    """(event key or nothing, what the entry is searched by, body)"""
    known = event_key(op.log, op.event_id) if op.event_id else b""
    searched = jsonbody.dumps(
        [
            op.at_ms or received_ms, op.type, op.event_id, op.route_id, op.provider, op.model,
            op.severity, op.outcome, op.request_id, op.incident_id,
        ]
    )  # fmt: skip
    return known, searched, op.body


def _appended(text: str) -> Appended:
    seq, letter, received = text.split(":")
    return Appended(int(seq), _LETTERS[letter], int(received))


def _recognised(op: Op) -> bool:
    return isinstance(op, Append) and bool(op.event_id) and op.dedupe_ttl_s > 0


def _append(call: Call, keys: Keys, index: int, op: Append, now_ms: int) -> None:
    received = op.received_ms or now_ms
    _exact(received, op.at_ms, op.dedupe_ttl_s * 1000)
    if op.log != call.log:
        call.log = op.log
        call.keys += [keys.log(op.log), keys.seq(op.log), keys.tip(op.log), keys.logs()]
        call.keys.append(keys.by_id(op.log))
        call.arguments += ["L", index, op.log, int(op.log == EVENTS_LOG)]
    known, searched, body = entry_fields(op, received)
    call.appends.append(index)
    if op.chained:
        if op.dedupe_ttl_s:
            raise ValueError("a row of a chain cannot be recognised")
        call.arguments += ["H", index, received, known, searched, body, *links(op.body)]
    elif op.event_id and op.dedupe_ttl_s > 0:
        ttl_ms = op.dedupe_ttl_s * 1000
        call.keys.append(keys.dedupe(known))
        call.arguments += ["R", index, received, known, searched, body]
        call.arguments += [op.content_hash[:16].hex(), ttl_ms, now_ms + ttl_ms]
    else:
        call.arguments += ["A", index, received, known, searched, body]


def _put(call: Call, keys: Keys, index: int, op: Put) -> None:
    call.keys += [keys.documents(op.kind), keys.kinds(), keys.gone(), keys.gone_at()]
    call.keys += [keys.unique(op.kind), keys.held(op.kind)]
    call.arguments += ["P", index, op.kind, op.id, member_of(op.kind, op.id), op.body, op.expect]
    call.arguments += [len(op.unique), *(pair_of(*pair) for pair in op.unique)]


def _delete(call: Call, keys: Keys, index: int, op: Delete) -> None:
    call.keys += [keys.documents(op.kind), keys.gone(), keys.gone_at()]
    call.keys += [keys.unique(op.kind), keys.held(op.kind)]
    call.arguments += ["D", index, op.id, member_of(op.kind, op.id), op.expect]


def _idem(call: Call, keys: Keys, index: int, op: Idem, now_ms: int) -> None:
    ttl_ms = op.ttl_s * 1000
    _exact(ttl_ms)
    call.keys.append(keys.idempotency(op.key))
    call.arguments += ["I", index, op.fingerprint, op.status, op.headers, op.body]
    call.arguments += [max(1, ttl_ms), max(0, now_ms + ttl_ms)]


def _count(call: Call, keys: Keys, index: int, op: Count) -> None:
    hour = op.minute // 60
    _exact(op.minute, *op.counters.values())
    call.keys += [keys.rollup(hour), keys.rollups()]
    call.arguments += ["N", index, hour, len(op.counters)]
    for counter, n in op.counters.items():
        call.arguments += [counter_of(op.minute, counter, op.series), n]


def _post(call: Call, keys: Keys, index: int, op: OutboxPut) -> None:
    _exact(op.due_ms, op.attempts)
    call.keys += [keys.waiting(), keys.rows(), keys.seq(OUTBOX), keys.logs()]
    call.arguments += ["O", index, OUTBOX, op.target, op.group, op.kind, op.payload]
    call.arguments += [op.due_ms, op.attempts]


def member_of(kind: str, doc_id: str) -> str:
    return f"{kind}\0{doc_id}"


def pair_of(name: str, value: str) -> str:
    return f"{name}\0{value}"


def counter_of(minute: int, counter: int, series: str) -> str:
    return f"{minute}/{counter}/{series}"


def _int64(*numbers: int) -> None:
    if any(not -_INT64 <= number < _INT64 for number in numbers):
        raise ValueError("this batch cannot be stored: a number beyond 64 bits")


def _exact(*numbers: int) -> None:
    if any(abs(number) > _EXACT for number in numbers):
        raise ValueError("this batch cannot be stored: a number beyond 53 bits")
