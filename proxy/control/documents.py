"""Documents of a workspace: made, read, changed and removed alike, whatever their kind.

In charge of control-api.md §8: a change is one commit with its audit row and its idempotency
record, whatever kind of document it is (`kinds.py`).  What was observed about a document is not
kept with it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from proxy.control.audit import Chain, changes_of
from proxy.control.conditions import check_matching, check_none, only_if_absent
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.kinds import (
    Kind,
    Object,
    Revision,
    Stored,
    body_of,
    declared,
    meant,
    one_of,
    stored,
)
from proxy.control.ordering import Seen, in_order
from proxy.control.own_events import commit_telling, of_document
from proxy.control.problems import Problem
from proxy.control.reading import alone, read_document, validated, warnings_of
from proxy.control.references import unused
from proxy.control.secrets import MASK, masked, unmasked
from proxy.control.shown import SHOWN_ONCE, Once, show
from proxy.control.wire import ListQuery, Order, page_reply, read_sort
from proxy.model.batch import ABSENT, Append, Batch, Delete, Op, Put, StoreConflict
from proxy.model.exchange import Json

TRIES: Final = 3  # of a change that met another one
NEWEST: Final = Order("created_at", descending=True)
Allow = Callable[[Stored, Object, Passage, ControlDeps], Awaitable[None]]  # what it is to say


# --- operations


async def list_documents(kind: Kind, passage: Passage, deps: ControlDeps) -> Reply:
    """A page of them, narrowed and ordered."""
    query = passage.query
    assert isinstance(query, ListQuery), "the table says so"
    orders = read_sort(query.sort, kind.sorts, NEWEST)
    ordered = await in_order(kind, passage, deps, orders)

    def shown(each: Seen) -> Object:
        return kind.listed(each[1].representation(kind, passage, deps))

    return page_reply(
        passage, query, [each for each in ordered if kind.keep(each[0], query)], shown
    )


async def get_document(kind: Kind, passage: Passage, deps: ControlDeps) -> Reply:
    """One of them."""
    one = await one_of(kind, passage, deps)
    one.warnings = await warnings_of(kind, one.said, passage, deps)
    headers = {"ETag": one.etag}
    if kind.conditional_get and check_none(passage.request, one.etag):
        return Reply(304, media="", headers=headers)
    return Reply.json(200, one.representation(kind, passage, deps), headers)


async def create(kind: Kind, passage: Passage, deps: ControlDeps) -> Reply:
    """Make one."""
    sent = read_document(kind, passage)
    said, once_shown = kind.generated(validated(kind, kind.prepare(sent), sent, passage))
    warnings = await warnings_of(kind, said, passage, deps)

    async def act(ticket: Ticket) -> Reply:
        doc_id = kind.id_of(said, deps.ids)
        if doc_id in declared(kind, passage):
            raise _taken(kind, passage, "id", doc_id)
        if kind.fresh is not None:
            await kind.fresh(doc_id, passage, deps)
        now_ms = deps.clock.now_ms()
        revision = kind.revise({**said, kind.id_member: doc_id}, None, sent, now_ms)
        body = body_of(revision.said, now_ms, now_ms, revision.beside)
        async with deps.audit.chain(deps.store, kind.place(passage), now_ms) as chain:
            last = await deps.store.revision(kind.place(passage), kind.name, doc_id)
            one = stored(kind, doc_id, last + 1, body)
            one.warnings = warnings
            _free(kind, passage, one, None)
            headers = {"Location": f"{passage.path.rstrip('/')}/{doc_id}", "ETag": one.etag}
            shown = one.representation(kind, passage, deps)
            if once_shown is not None:
                show(shown, Once(once_shown.path, MASK))
            kept = {**shown, "warnings": [*warnings, SHOWN_ONCE]} if once_shown else shown
            edit = _Edit("create", {}, one.said)
            row = _row(kind, passage, deps, chain, one, edit)
            put = Put(kind.name, doc_id, body, ABSENT, kind.unique(one.told))
            ops = (put, row, *revision.ops, *ticket.ops(Reply.json(201, kept, headers)))
            await _commit(kind, passage, deps, one, edit, ops)
        await _lives(kind, passage, deps, one)
        await _in_force(kind, deps)
        if once_shown is not None:
            show(shown, once_shown)
        return Reply.json(201, shown, headers)

    return await once(passage, deps, act)


async def replace(kind: Kind, passage: Passage, deps: ControlDeps) -> Reply:
    """PUT: each member that is sent replaces that member whole; null is the default again."""
    sent = kind.prepare(read_document(kind, passage))

    def merged(old: Object) -> Object:
        kept = {name: value for name, value in old.items() if name not in sent}
        new: Object = {name: value for name, value in sent.items() if value is not None}
        return kept | unmasked(new, old, kind.secrets)

    return await _change(kind, passage, deps, sent, merged)


async def patch(
    kind: Kind, passage: Passage, deps: ControlDeps, allow: Allow | None = None
) -> Reply:
    """PATCH: a merge patch (RFC 7396).  `allow` is asked last, and may refuse (409)."""
    sent = kind.prepare(read_document(kind, passage))

    def merged(old: Object) -> Object:
        new = _patched(old, unmasked(sent, old, kind.secrets))
        assert isinstance(new, dict), "a patch of two objects"
        return new

    return await _change(kind, passage, deps, sent, merged, allow)


async def remove(kind: Kind, passage: Passage, deps: ControlDeps) -> Reply:
    """Remove it."""

    async def step() -> Reply:
        one = await one_of(kind, passage, deps)
        may_change(one, passage)
        await unused(kind, one, passage, deps)
        await removed_with(kind, passage, deps, one)
        return Reply(204, media="")

    return await insistent(step)


async def removed_with(kind: Kind, passage: Passage, deps: ControlDeps, one: Stored) -> None:
    """Remove a document that is at hand.  Raises StoreConflict when it has changed."""
    now_ms = deps.clock.now_ms()
    async with deps.audit.chain(deps.store, kind.place(passage), now_ms) as chain:
        edit = _Edit("delete", kind.listed(one.said), {})
        row = _row(kind, passage, deps, chain, one, edit)
        delete = Delete(kind.name, one.id, one.revision)
        await _commit(kind, passage, deps, one, edit, (delete, row, *kind.removed(one)))
    await _in_force(kind, deps)


async def not_yet(kind: Kind, why: str, passage: Passage, deps: ControlDeps) -> Reply:
    """An operation on a document whose machinery is not there; a document that is not is a 404."""
    await one_of(kind, passage, deps)
    raise Problem("not-implemented", why)


# --- changing


async def _change(
    kind: Kind,
    passage: Passage,
    deps: ControlDeps,
    sent: Object,
    merged: Callable[[Object], Object],
    allow: Allow | None = None,
) -> Reply:
    async def step() -> Reply:
        try:
            one = await one_of(kind, passage, deps)
        except Problem:
            alone(kind, sent, passage)
            raise
        new = merged(one.said) | {kind.id_member: one.id}
        said = validated(kind, new, sent, passage, one.said)
        warnings = await warnings_of(kind, said, passage, deps)
        may_change(one, passage)
        if allow is not None:
            await allow(one, said, passage, deps)
        revision = kind.revise(said, one, sent, deps.clock.now_ms())
        if meant(kind, revision.said) != meant(kind, one.said):
            one = await write(kind, passage, deps, one, revision)
        one.warnings = warnings
        return Reply.json(200, one.representation(kind, passage, deps), {"ETag": one.etag})

    return await insistent(step)


async def insistent(step: Callable[[], Awaitable[Reply]]) -> Reply:
    """Once more when somebody was faster; what the client asked for is looked at anew."""
    for _ in range(TRIES):
        try:
            return await step()
        except StoreConflict as conflict:
            if conflict.reason not in ("revision", "missing"):
                raise
    raise Problem("conflict", "the document was changed meanwhile")


async def write(
    kind: Kind,
    passage: Passage,
    deps: ControlDeps,
    one: Stored,
    revision: Revision,
    verb: str = "update",
    more: Callable[[Stored], tuple[Op, ...]] | None = None,
) -> Stored:
    """Commit a change with its audit row; `more` makes further operations of what is then there.

    Raises Problem 409, StoreConflict."""
    now_ms = deps.clock.now_ms()
    body = body_of(revision.said, one.created_ms or now_ms, now_ms, revision.beside)
    changed = stored(kind, one.id, one.revision + 1, body)
    changed.state = one.state
    _free(kind, passage, changed, one.told)
    async with deps.audit.chain(deps.store, kind.place(passage), now_ms) as chain:
        edit = _Edit(verb, one.said, revision.said)
        row = _row(kind, passage, deps, chain, one, edit)
        expect = one.revision or ABSENT
        put = Put(kind.name, one.id, body, expect, kind.unique(changed.told))
        ops = (put, row, *revision.ops, *(more(changed) if more is not None else ()))
        await _commit(kind, passage, deps, changed, edit, ops)
    await _in_force(kind, deps)
    return changed


async def _in_force(kind: Kind, deps: ControlDeps) -> None:
    """Who was answered finds his change in force."""
    if kind.live:
        await deps.coord.notify()
        await deps.apply()


async def _lives(kind: Kind, passage: Passage, deps: ControlDeps, one: Stored) -> None:
    """A document of a workspace that was removed meanwhile goes after it.  Raises Problem 404."""
    if kind.server_wide or passage.workspace in deps.config().workspaces:
        return
    ops = (Delete(kind.name, one.id), *kind.removed(one))
    await deps.store.commit(kind.place(passage), Batch(deps.ids.new("cm-"), ops))
    raise Problem("not-found", "the workspace was removed meanwhile")


def may_change(one: Stored, passage: Passage) -> None:
    """Steps 16 and 17.  Raises Problem 412, 428, 409."""
    check_matching(passage.request, one.etag, required=passage.config.control.require_if_match)
    if one.location:
        raise Problem("managed-by-file", extra={"location": one.location})


@dataclass(slots=True, frozen=True)
class _Edit:
    """What is done to a document, and what it said and says."""

    verb: str
    old: Object
    new: Object


async def _commit(
    kind: Kind, passage: Passage, deps: ControlDeps, one: Stored, edit: _Edit, ops: tuple[Op, ...]
) -> None:
    """Raises Problem 409 for an id or a name that is taken, StoreConflict."""
    events = of_document(kind, passage, deps, edit.verb, one.id, edit.old, edit.new)
    try:
        await commit_telling(deps, kind.place(passage), events, ops)
    except StoreConflict as conflict:
        if conflict.reason == "exists":
            raise _taken(kind, passage, "id", one.id) from conflict
        if conflict.reason == "unique":
            raise _held(kind, passage, one) from conflict
        raise


def _row(
    kind: Kind, passage: Passage, deps: ControlDeps, chain: Chain, one: Stored, edit: _Edit
) -> Append:
    """The audit row of a change.  SECURITY: secrets stand in it as masks with fingerprints."""
    before, after = (masked(doc, kind.secrets, deps.server_key) for doc in (edit.old, edit.new))
    action = f"{kind.name}.{edit.verb}"
    return chain.row(passage.actor, action, (kind.name, one.id), changes_of(before, after))


def _free(kind: Kind, passage: Passage, one: Stored, before: Object | None) -> None:
    """Raises Problem 409 when a document of the file holds what is new and only one may hold."""
    new = set(kind.unique(one.told)) - set(kind.unique(before) if before is not None else ())
    for other in declared(kind, passage).values() if new else ():
        if other.id != one.id and not new.isdisjoint(kind.unique(other.told)):
            raise _held(kind, passage, one)


def _held(kind: Kind, passage: Passage, one: Stored) -> Problem:
    """Another document holds what only one may."""
    member, value = next(iter(kind.unique(one.told)))
    if member in ("id", "name"):
        return _taken(kind, passage, member, value)
    return Problem("conflict", f"another {kind.noun} holds {member} {value}")


def _taken(kind: Kind, passage: Passage, member: str, value: str) -> Problem:
    if member == "id" and only_if_absent(passage.request):
        return Problem("precondition-failed", f"there is such a {kind.noun}")
    detail = f"another {kind.noun} has this {member}"
    return Problem("already-exists", detail, extra={"existing": value})


def _patched(old: Json, change: Json) -> Json:
    if not isinstance(change, dict):
        return change
    new: Object = dict(old) if isinstance(old, dict) else {}
    for name, value in change.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = _patched(new.get(name), value)
    return new
