"""One effect per Idempotency-Key (control-api.md §6).

The record of a finished request is an operation of the same commit as its effect, so it exists if
and only if the effect does.  A mark (the `Coord` port) holds back a concurrent duplicate, one on
another machine, too; losing it lets the duplicate execute, its commit is refused (`idem`), and it
replays.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from proxy.control.frame import JSON, PROBLEM, ControlDeps, Passage, Reply
from proxy.control.problems import Problem, retry_later
from proxy.model.batch import Batch, Idem, Op, StoreConflict
from proxy.model.events import SERVER_WORKSPACE
from proxy.model.ports import IdempotencyRecord
from proxy.wire import jsonbody

WAIT_S: Final = 2.0
_BARE: Final = re.compile(r"[\x21-\x7e]{1,255}")
_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')
KEPT_HEADERS: Final = ("Location", "ETag")
_SETTLED: Final = (404, 409, 412)  # outcomes of steps 15 to 17


def read_key(header: str) -> str:
    """The text of an Idempotency-Key: `abc` and `"abc"` are the same.  Raises Problem 400."""
    quoted = _STRING.fullmatch(header)
    if quoted is not None:
        text = re.sub(r"\\(.)", r"\1", quoted[1])
        if _BARE.fullmatch(text):
            return text
    elif _BARE.fullmatch(header) and '"' not in header:
        return header
    raise Problem("invalid-idempotency-key")


def fingerprint_of(passage: Passage) -> bytes:
    """What must be equal for a request to count as a repetition."""
    query = sorted(passage.request.rel_url.query.items())
    digest = hashlib.sha256(passage.path.encode())
    digest.update(b"\0" + jsonbody.dumps([list(pair) for pair in query]) + b"\0" + passage.body)
    return digest.digest()


@dataclass(slots=True)
class Ticket:
    """The right to act once.  An act that commits puts `ops(reply)` into that commit."""

    key: bytes
    fingerprint: bytes
    ttl_s: int
    recorded: bool = False

    def ops(self, reply: Reply) -> tuple[Op, ...]:
        if not self.key:
            return ()
        self.recorded = True
        kept = {name: reply.headers[name] for name in KEPT_HEADERS if name in reply.headers}
        return (
            Idem(
                self.key, self.fingerprint, reply.status, jsonbody.dumps(kept), reply.body,
                self.ttl_s,
            ),
        )  # fmt: skip


Act = Callable[[Ticket], Awaitable[Reply]]
Replay = Callable[[IdempotencyRecord], Awaitable[Reply]]


async def as_stored(record: IdempotencyRecord) -> Reply:
    headers = jsonbody.loads(record.headers)
    assert isinstance(headers, dict), "we wrote it"
    kept = {name: str(value) for name, value in headers.items()}
    media = JSON if record.status < 400 else PROBLEM
    return Reply(record.status, record.body, media, kept)


async def once(passage: Passage, deps: ControlDeps, act: Act, replay: Replay = as_stored) -> Reply:
    """Act, or answer as the first request with this key was answered."""
    ticket = ticket_of(passage)
    key, fingerprint = ticket.key, ticket.fingerprint
    if not key:
        return await act(ticket)
    workspace_id = passage.workspace_id or SERVER_WORKSPACE
    found = await _waited(deps, workspace_id, key, fingerprint)
    if found is None:
        try:
            found = await _stored(deps, workspace_id, key, fingerprint)
            if found is None:
                return await _act(passage, deps, workspace_id, ticket, act)
        except StoreConflict as conflict:
            if conflict.reason != "idem":
                raise
            found = await _stored(deps, workspace_id, key, fingerprint)
            if found is None:
                raise
        finally:
            await deps.coord.end(workspace_id, key)
    reply = await replay(found)
    reply.headers["Idempotent-Replayed"] = "true"
    deps.metrics.add("idempotent_replays_total")
    return reply


def ticket_of(passage: Passage) -> Ticket:
    """What this request may be recognised by; without a key when it names none."""
    header = passage.request.headers.get("Idempotency-Key")
    ttl_s = passage.config.control.idempotency_ttl_hours * 3600
    if header is None:
        return Ticket(b"", b"", ttl_s)
    assert passage.operation is not None, "step 14 comes after step 4"
    template = f"{passage.operation.method}\0{passage.operation.template}\0{read_key(header)}"
    if passage.workspace_id is None:  # SECURITY: no tenant meets the replies of another
        bound = passage.caller.workspaces
        template += "\0" + ("*" if bound is None else ",".join(sorted(bound)))
    return Ticket(hashlib.sha256(template.encode()).digest(), fingerprint_of(passage), ttl_s)


async def _act(
    passage: Passage, deps: ControlDeps, workspace_id: str, ticket: Ticket, act: Act
) -> Reply:
    try:
        reply = await act(ticket)
    except Problem as problem:
        if problem.kind.status in _SETTLED:  # it would be refused again, and so it is told again
            told = problem.doc(passage.config.public_url, passage.path, passage.request_id)
            refusal = Reply(problem.kind.status, jsonbody.dumps(told), PROBLEM)
            await _record(deps, workspace_id, ticket, refusal)
        raise
    if reply.status < 300 and not ticket.recorded:
        await _record(deps, workspace_id, ticket, reply)
    return reply


async def _record(deps: ControlDeps, workspace_id: str, ticket: Ticket, reply: Reply) -> None:
    await deps.store.commit(workspace_id, Batch(deps.ids.new("cm-"), ticket.ops(reply)))


async def _waited(
    deps: ControlDeps, workspace_id: str, key: bytes, fingerprint: bytes
) -> IdempotencyRecord | None:
    """The record of the request that was under way; None: none is, and this one is marked now."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + WAIT_S
    while True:
        running = await deps.coord.begin(workspace_id, key, fingerprint)
        if running is None:
            return None
        if running != fingerprint:
            raise Problem("idempotency-key-reused")
        found = await _stored(deps, workspace_id, key, fingerprint)
        if found is not None:
            return found
        if not await deps.coord.ended(workspace_id, key, until_s - loop.time()):
            raise retry_later("idempotency-in-progress")


async def _stored(
    deps: ControlDeps, workspace_id: str, key: bytes, fingerprint: bytes
) -> IdempotencyRecord | None:
    record = await deps.store.idempotency(workspace_id, key)
    if record is not None and record.fingerprint != fingerprint:
        raise Problem("idempotency-key-reused")
    return record
