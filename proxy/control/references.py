"""Whether references are to be strict, and what still names a document (control-api.md §0.6)."""

from collections.abc import Sequence

from proxy.control.frame import ControlDeps, Passage
from proxy.control.kinds import Kind, Stored, everything
from proxy.control.problems import Problem
from proxy.model.exchange import Json

MAX_TOLD = 100


def strict(passage: Passage) -> bool:
    """What the caller prefers, else what the settings say."""
    if _handling(passage.request.headers.getall("Prefer", [])) == "strict":
        passage.headers["Preference-Applied"] = "handling=strict"
        return True
    return passage.config.control.references == "strict"


def _handling(headers: Sequence[str]) -> str:
    """The first preference of that name (RFC 7240 §2), its parameters left aside."""
    for part in ",".join(headers).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        if name.strip().lower() == "handling":
            return value.strip().strip('"').lower()
    return ""


async def unused(kind: Kind, one: Stored, passage: Passage, deps: ControlDeps) -> None:
    """Raises Problem 409 with what names the document, where references are strict."""
    if not kind.referrers or not strict(passage):
        return
    found: list[Json] = []
    for referrer in (*kind.referrers, kind):
        for other in (await everything(referrer, passage, deps)).values():
            found += [
                {"type": referrer.name, "id": other.id, "pointer": reference.pointer}
                for reference in referrer.references(other.said)
                if (reference.kind, reference.id) == (kind.name, one.id)
                and (referrer.name, other.id) != (kind.name, one.id)
            ]
    if found:
        detail = f"{len(found)} references name this {kind.noun}"
        raise Problem("in-use", detail, extra={"referenced_by": found[:MAX_TOLD]})
