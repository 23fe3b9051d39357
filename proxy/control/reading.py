"""What a client sent, read as a document: its form, its members, what it names.

All that is wrong is told at once, with pointers that resolve in the body that was sent.
"""

from typing import Final

from pydantic import TypeAdapter, ValidationError

from proxy.control.config import ALL_WORKSPACES
from proxy.control.frame import ControlDeps, Passage
from proxy.control.kinds import Kind, Labelled, Object, Reference
from proxy.control.problems import FieldError, Problem, invalid
from proxy.control.references import strict
from proxy.control.secrets import refused, strayed
from proxy.control.validation import check_unique, errors_of, read_json, unfit
from proxy.model.events import SERVER_WORKSPACE
from proxy.model.exchange import Json
from proxy.wire import jsonbody

READ_ONLY: Final = frozenset(
    {"created_at", "updated_at", "revision", "origin", "warnings", "workspace_id"}
)


def read_document(kind: Kind, passage: Passage) -> Object:
    """The body as an object without what only we write.  Raises Problem 400, 422."""
    sent = read_json(passage.body)
    if not isinstance(sent, dict):
        raise invalid([FieldError("wrong_type", "must be an object", pointer="#")])
    wrong = unfit(sent)
    if wrong:
        raise invalid(wrong)
    check_unique(passage.body)
    ours = READ_ONLY | kind.read_only | kind.observed({}).keys() | kind.shown_beside({}).keys()
    return {name: value for name, value in sent.items() if name not in ours}


def validated(
    kind: Kind, doc: Object, sent: Object, passage: Passage, old: Object | None = None
) -> Object:
    """What is said now, as the kind reads it.  Raises Problem 422 with all that is wrong.

    `sent` is the body, in which pointers resolve; `old` what was said before."""
    errors: list[FieldError] = []
    replaces = passage.request.method == "PUT"
    plain = {name: value for name, value in doc.items() if name != "labels"}
    labels: Object = {"labels": doc["labels"]} if doc.get("labels") is not None else {}
    said: Object = {}
    for adapter, part in ((kind.adapter, plain), (_LABELLED, labels)):
        try:
            # strict: a text is no number, as the description says
            model = adapter.validate_json(jsonbody.dumps(part), strict=True)
        except ValidationError as fault:
            errors += map(_hinted, errors_of(fault, sent)) if replaces else errors_of(fault, sent)
        else:
            said |= adapter.dump_python(model, mode="json", by_alias=True, exclude_unset=True)
    if not errors:
        said = {name: value for name, value in said.items() if value is not None}
        errors += refused(said, (*kind.secrets, *kind.fenced), passage.config.control)
        errors += kind.check(said, old)
        errors += strayed(said, sent, old or {}, kind.bound if old is not None else ())
    if errors:
        raise invalid(errors)
    kind.permit(said, old, passage)
    return said


_LABELLED: Final = TypeAdapter(Labelled)
_HINT: Final = "PUT replaces this member whole; PATCH changes what is inside it"


def _hinted(error: FieldError) -> FieldError:
    if error.code == "missing" and "." in error.field:
        error.extra = {**(error.extra or {}), "hint": _HINT}
    return error


def alone(kind: Kind, sent: Object, passage: Passage) -> None:
    """Of a change to what is not there: what is wrong with the members that were sent."""
    try:
        new: Object = {name: value for name, value in sent.items() if value is not None}
        validated(kind, new, sent, passage)
    except Problem as problem:
        wrong = [
            error for error in problem.errors if error.code not in ("missing", "invalid_value")
        ]
        if wrong:
            raise invalid(wrong) from problem


async def warnings_of(kind: Kind, said: Object, passage: Passage, deps: ControlDeps) -> list[Json]:
    """What is legal and probably not meant.  Raises Problem 422 when references must resolve."""
    return [*await _unresolved(kind, said, passage, deps), *await kind.warn(said, passage, deps)]


async def _unresolved(kind: Kind, said: Object, passage: Passage, deps: ControlDeps) -> list[Json]:
    """Warnings for what the document names and is not there.  Raises Problem 422 when that was to
    be strict."""
    known: dict[tuple[str, tuple[str, ...] | None], frozenset[str]] = {}
    warnings: list[Json] = []
    for reference in kind.references(said):
        where = reference.kind, reference.within
        if where not in known:
            known[where] = await _ids(reference, passage, deps)
        if reference.id not in known[where]:
            warnings.append(
                {
                    "pointer": reference.pointer,
                    "code": "unknown_reference",
                    "detail": f"no {reference.noun} '{reference.id}'",
                }
            )
    if warnings and passage.request.method in ("POST", "PUT", "PATCH") and strict(passage):
        raise Problem("unknown-reference", extra={"errors": warnings})
    return warnings


async def _ids(reference: Reference, passage: Passage, deps: ControlDeps) -> frozenset[str]:
    """All that may be named there; one that is made has nothing yet."""
    config, kind = passage.config, reference.kind
    places = reference.within
    if places is None:
        places = (passage.workspace_id,) if passage.workspace_id else ()
    elif ALL_WORKSPACES in places:
        places = tuple(config.workspaces)
    found = set(config.workspaces) if places == (SERVER_WORKSPACE,) else set()
    for place in places:
        found |= {doc_id for doc_id, _, _ in await deps.store.scan(place, kind)}
        found |= {str(doc[reference.member]) for _, doc in config.declared(place, kind)}
    return frozenset(found | {str(doc[reference.member]) for _, doc in config.shipped(kind)})
