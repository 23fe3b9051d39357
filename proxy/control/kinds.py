"""What a kind of document is, and a document at hand, from the store or from the file.

What a client wrote is kept as it was written (`said`); with its defaults and what we say of it, it
is `told`.  Documents of the configuration file lie over those of the store (control-api.md §3).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, TypeAdapter

from proxy.control.conditions import etag_of
from proxy.control.config import Declared
from proxy.control.frame import ControlDeps, Passage
from proxy.control.parsed import Collection
from proxy.control.problems import FieldError, Problem
from proxy.control.secrets import Path, masked
from proxy.control.shown import Once
from proxy.control.wire import ListQuery
from proxy.model.batch import Op
from proxy.model.documents import Doc
from proxy.model.events import SERVER_WORKSPACE, iso
from proxy.model.exchange import Json
from proxy.model.ports import Ids
from proxy.wire import jsonbody

AT_ONCE: Final = 500  # documents that are read before others may run
Object = dict[str, Json]


class Labelled(Doc):
    """What every document may carry."""

    labels: dict[
        Annotated[str, StringConstraints(min_length=1, max_length=63)],
        Annotated[str, StringConstraints(max_length=256)],
    ] = Field(default_factory=dict, max_length=32)


@dataclass(slots=True, frozen=True)
class Reference:
    """A member that names another document.  `pointer` is where, `kind` what it should be, `member`
    where such a document has its id, `within` the workspaces that may have it (`*`: any)."""

    pointer: str
    kind: str
    noun: str
    id: str
    member: str = "id"
    within: tuple[str, ...] | None = None  # that of the request


def _no_references(_: Object) -> list[Reference]:
    return []


def _no_faults(_: Object, __: Object | None) -> Iterator[FieldError]:
    return iter(())


def _as_said(said: Object) -> tuple[Object, Once | None]:
    return said, None


def _unobserved(_: Object) -> Object:
    return {}


def _as_sent(sent: Object) -> Object:
    return sent


def _nothing() -> dict[str, Object]:
    return {}


def _seen(_: "Stored", __: Passage) -> bool:
    return True


def _permitted(_: Object, __: Object | None, ___: Passage) -> None:
    pass


def _as_stored(_one: "Stored", shown: Object, _: Passage, __: ControlDeps) -> Object:
    return shown


def _whole(told: Object) -> Object:
    return told


def _edition(_: Object, revision: int) -> int:
    return revision


@dataclass(slots=True, frozen=True)
class Revision:
    """What is written of a document: `beside` is ours to know, `ops` go into the same commit."""

    said: Object
    beside: Object
    ops: tuple[Op, ...] = ()


def _plain(said: Object, old: "Stored | None", _: Object, __: int) -> Revision:
    return Revision(said, old.beside if old else {})


def _alone(_: "Stored") -> tuple[Op, ...]:
    return ()


def _name(told: Object) -> tuple[tuple[str, str], ...]:
    name = told.get("name")
    return (("name", name),) if isinstance(name, str) else ()


def nothing_unique(_: Object) -> tuple[tuple[str, str], ...]:
    """Of a kind whose id is all that must not come twice."""
    return ()


async def _nothing_more(_: Object, __: Passage, ___: ControlDeps) -> list[Json]:
    return []


@dataclass(slots=True, frozen=True)
class Kind:
    """One kind of document.

    `name` in the store and in the audit, `noun` for people, `parameter` in the path.  `id_of` is
    asked where a document comes without id.  `keep` says whether a list's query wants it.  `check`
    looks at what was said beyond its model, `generated` adds what only a new one gets, `observed`
    is told with it.  `secrets` are the paths of its write-only members, `fenced` of members that
    may refer to secrets and hold none themselves; `bound` says where secrets
    are sent: (path of the destination, paths of what goes there).  `referrers` may name it.

    `prepare` puts what was sent in order before it is read, `permit` refuses (403) what the caller
    may not say, `fresh` an id (409) that a new one may not have.  `unique` are the (field, value)
    pairs that no other one may hold, `warn` finds what is legal and probably not meant.  `revise`
    makes of (what is to be said, the document before, what was sent, now) what is written, and may
    refuse it (409); `removed` are the operations that a removal needs beside its own.

    `view` adds what only a reader's moment can tell, `shown_beside` what may be told of what we
    keep beside; `listed` is what a list shows of one, `value` what it is ordered by, `edition` the
    revision that clients see.  What is not `visible` to a caller is not there for him; `read_only`
    members are shown and ignored when they come back.

    A `live` kind is part of the rules in force, or has secrets that the log must know; a
    `server_wide` one belongs to no workspace; `ours` we write, whole, and clients only read them;
    `always` are documents that are there before anybody has written them.  `told` is the model of
    the members that only answers have.  `state` are documents of what was observed of these, by
    the same ids: they change no revision.
    """

    name: str
    noun: str
    parameter: str
    adapter: TypeAdapter[Any]
    id_of: Callable[[Object, Ids], str]
    keep: Callable[[Object, ListQuery], bool]
    sorts: tuple[str, ...]
    references: Callable[[Object], list[Reference]] = _no_references
    check: Callable[[Object, Object | None], Iterator[FieldError]] = _no_faults
    generated: Callable[[Object], tuple[Object, Once | None]] = _as_said
    observed: Callable[[Object], Object] = _unobserved
    secrets: tuple[tuple[str, ...], ...] = ()
    fenced: tuple[Path, ...] = ()
    id_member: str = "id"
    conditional_get: bool = True
    bound: tuple[tuple[Path, tuple[Path, ...]], ...] = ()
    referrers: tuple["Kind", ...] = ()
    prepare: Callable[[Object], Object] = _as_sent
    permit: Callable[[Object, Object | None, Passage], None] = _permitted
    unique: Callable[[Object], tuple[tuple[str, str], ...]] = _name
    warn: Callable[[Object, Passage, ControlDeps], Awaitable[list[Json]]] = _nothing_more
    fresh: Callable[[str, Passage, ControlDeps], Awaitable[None]] | None = None
    revise: Callable[[Object, "Stored | None", Object, int], Revision] = _plain
    removed: Callable[["Stored"], tuple[Op, ...]] = _alone
    view: Callable[["Stored", Object, Passage, ControlDeps], Object] = _as_stored
    shown_beside: Callable[[Object], Object] = _unobserved
    listed: Callable[[Object], Object] = _whole
    value: Callable[[Object, str], Json] | None = None
    edition: Callable[[Object, int], int] = _edition
    visible: Callable[["Stored", Passage], bool] = _seen
    read_only: frozenset[str] = frozenset()
    live: bool = False
    server_wide: bool = False
    ours: bool = False
    always: Callable[[], dict[str, Object]] = _nothing
    told: object = None
    state: "Kind | None" = None

    def place(self, passage: Passage) -> str:
        """The workspace in whose part of the store the documents stand."""
        return SERVER_WORKSPACE if self.server_wide else passage.workspace

    @property
    def fixed(self) -> bool:
        """What a client sees depends on the document alone."""
        return self.view is _as_stored and self.visible is _seen

    def value_of(self, doc: Object, name: str) -> Json:
        """What a list is ordered by."""
        if self.value is not None and name != "id":
            return self.value(doc, name)
        return doc.get(self.id_member if name == "id" else name)


def state_of(name: str, *, server_wide: bool = False) -> Kind:
    """The kind of what is observed of documents of the kind `name` (control-api.md §3)."""
    return Kind(
        f"{name}.state", "state", "", TypeAdapter(dict[str, Any]), lambda _, ids: ids.new(""),
        lambda _, __: True, (), ours=True, server_wide=server_wide,
    )  # fmt: skip


@dataclass(slots=True)
class Stored:
    """A document at hand: `told` has the defaults, `said` only what was written, `kept` what only
    we write and show in our own words.

    `location`: where it stands in the configuration file; "" for one of the store.
    """

    id: str
    said: Object
    told: Object
    revision: int = 0
    location: str = ""
    etag: str = ""
    created_ms: int = 0
    warnings: list[Json] = field(default_factory=list)
    beside: Object = field(default_factory=dict)
    state: Object = field(default_factory=dict)  # what was observed of it

    def seen(self, kind: Kind, passage: Passage, deps: ControlDeps) -> Object:
        """What a list looks at: all that a client sees, and secrets, which it never shows."""
        return self.told if kind.fixed else kind.view(self, self.told, passage, deps)

    def representation(self, kind: Kind, passage: Passage, deps: ControlDeps) -> Object:
        """What a client sees."""
        shown = masked(self.told, kind.secrets, deps.server_key) if kind.secrets else self.told
        shown = kind.view(self, shown, passage, deps)
        return {**shown, "warnings": self.warnings} if self.warnings else shown


async def everything(kind: Kind, passage: Passage, deps: ControlDeps) -> dict[str, Stored]:
    """All documents of the kind, those of the file over those of the store."""
    collection = await collection_of(kind, passage, deps)
    found = {doc_id: one for doc_id, (_, one) in collection.documents.items()}
    whole = _unwritten(kind) | shipped(kind, passage) | found | declared(kind, passage)
    if kind.state is not None:
        seen = await collection_of(kind.state, passage, deps)
        whole |= {
            doc_id: replace(whole[doc_id], state=state.said)
            for doc_id, (_, state) in seen.documents.items()
            if doc_id in whole
        }
    return {doc_id: one for doc_id, one in whole.items() if kind.visible(one, passage)}


async def collection_of(kind: Kind, passage: Passage, deps: ControlDeps) -> Collection:
    """Those of the store.  They are shared by all requests: nobody changes one."""
    place = kind.place(passage)
    known = deps.parsed.of(place, kind.name)
    edition = deps.store.edition(place, kind.name)  # before looking, never after
    if edition is None or known.edition != edition:
        rows = await deps.store.scan(place, kind.name)
        known = Collection(edition, await _parsed(kind, rows, known.documents))
        deps.parsed.keep(place, kind.name, known)
    return known


async def _parsed(
    kind: Kind, rows: Sequence[tuple[str, int, bytes]], known: Mapping[str, tuple[int, Stored]]
) -> dict[str, tuple[int, Stored]]:
    """The documents of `rows`; a revision that is known is not parsed again."""
    found: dict[str, tuple[int, Stored]] = {}
    fresh = 0
    for doc_id, revision, body in rows:
        before = known.get(doc_id)
        if before is not None and before[0] == revision:
            found[doc_id] = before
            continue
        found[doc_id] = (revision, stored(kind, doc_id, revision, body))
        fresh += 1
        if fresh % AT_ONCE == 0:
            await asyncio.sleep(0)  # others run in between
    return found


async def one_of(kind: Kind, passage: Passage, deps: ControlDeps) -> Stored:
    """Raises Problem 404."""
    one = await _found(kind, passage, deps)
    if one is None or not kind.visible(one, passage):
        raise Problem("not-found", f"no such {kind.noun}")
    if kind.state is not None:
        row = await deps.store.get(kind.place(passage), kind.state.name, one.id)
        one.state = parts_of(row[1])[0] if row is not None else {}
    return one


async def _found(kind: Kind, passage: Passage, deps: ControlDeps) -> Stored | None:
    doc_id = passage.params[kind.parameter]
    of_file = declared(kind, passage).get(doc_id)
    if of_file is not None:
        return of_file
    row = await deps.store.get(kind.place(passage), kind.name, doc_id)
    if row is not None:
        return stored(kind, doc_id, *row)
    return (_unwritten(kind) | shipped(kind, passage)).get(doc_id)


def _unwritten(kind: Kind) -> dict[str, Stored]:
    """Those that are there before anybody has written them: whoever changes one writes it."""
    found = {}
    for doc_id, said in kind.always().items():
        told = _told(kind, said, {"revision": 0, "origin": "api"})
        found[doc_id] = Stored(doc_id, said, told, etag='"r0"')
    return found


def declared(kind: Kind, passage: Passage) -> dict[str, Stored]:
    """Those of the configuration file."""
    return _read_only(kind, passage.config.declared(kind.place(passage), kind.name))


def shipped(kind: Kind, passage: Passage) -> dict[str, Stored]:
    """Those that come with the package."""
    return _read_only(kind, passage.config.shipped(kind.name))


def _read_only(kind: Kind, documents: Sequence[Declared]) -> dict[str, Stored]:
    found = {}
    for location, said in documents:
        doc_id = str(said[kind.id_member])
        told = _told(kind, said, {"revision": None, "origin": "file"})
        told.setdefault("location", location)  # an endpoint has a member of that name
        found[doc_id] = Stored(doc_id, said, told, location=location, etag=etag_of(said))
    return found


def stored(kind: Kind, doc_id: str, revision: int, body: bytes) -> Stored:
    whole = jsonbody.loads(body)
    assert isinstance(whole, dict), "we wrote it"
    said, beside = _parts(whole)
    created_ms, updated_ms = whole["created_at"], whole["updated_at"]
    assert isinstance(created_ms, int), "we wrote it"
    assert isinstance(updated_ms, int), "we wrote it"
    edition = kind.edition(said, revision)
    ours: Object = {
        **kind.shown_beside(beside),
        "created_at": iso(created_ms),
        "updated_at": iso(updated_ms),
        "revision": edition,
        "origin": "system" if kind.ours else "api",
    }
    told = {**said, **ours} if kind.ours else _told(kind, said, ours)
    return Stored(
        doc_id, said, told, revision, etag=f'"r{edition}"', created_ms=created_ms, beside=beside
    )


def meant(kind: Kind, said: Mapping[str, Json]) -> Object:
    """What was said, with all defaults: two that mean the same are the same document."""
    plain = {name: value for name, value in said.items() if name != "labels"}
    model = kind.adapter.validate_python(plain)
    told: Object = kind.adapter.dump_python(model, mode="json", by_alias=True)
    return {**told, "labels": said.get("labels") or {}}


def _told(kind: Kind, said: Mapping[str, Json], ours: Object) -> Object:
    told = meant(kind, said)
    unknown: Object = {"created_at": None, "updated_at": None}
    return {**told, **kind.observed(told), **kind.shown_beside({}), **unknown} | ours


def parts_of(body: bytes) -> tuple[Object, Object]:
    """(what a body of the store says, what only we write beside it)"""
    whole = jsonbody.loads(body)
    assert isinstance(whole, dict), "we wrote it"
    return _parts(whole)


def _parts(whole: Object) -> tuple[Object, Object]:
    said, beside = whole["said"], whole.get("beside", {})
    assert isinstance(said, dict), "we wrote it"
    assert isinstance(beside, dict), "we wrote it"
    return said, beside


def body_of(said: Object, created_ms: int, updated_ms: int, beside: Object | None = None) -> bytes:
    whole: Object = {"said": said, "created_at": created_ms, "updated_at": updated_ms}
    return jsonbody.dumps({**whole, "beside": beside} if beside else whole)
