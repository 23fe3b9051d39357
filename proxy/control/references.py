"""Whether references are to be strict, and what still names a document (control-api.md §0.6)."""

from proxy.control.frame import ControlDeps, Passage
from proxy.control.kinds import Kind, Stored, everything
from proxy.control.problems import Problem
from proxy.model.exchange import Json

MAX_TOLD = 100


def strict(passage: Passage) -> bool:
    """What the caller prefers, else what the settings say."""
    preferred = [part.strip() for part in passage.request.headers.get("Prefer", "").split(",")]
    if "handling=strict" in preferred:
        passage.headers["Preference-Applied"] = "handling=strict"
        return True
    return passage.config.control.references == "strict"


async def unused(kind: Kind, one: Stored, passage: Passage, deps: ControlDeps) -> None:
    """Raises Problem 409 with what names the document, where references are strict."""
    if not kind.referrers or not strict(passage):
        return
    found: list[Json] = []
    for referrer in kind.referrers:
        for other in (await everything(referrer, passage, deps)).values():
            found += [
                {"type": referrer.name, "id": other.id, "pointer": reference.pointer}
                for reference in referrer.references(other.said)
                if (reference.kind, reference.id) == (kind.name, one.id)
            ]
    if found:
        detail = f"{len(found)} references name this {kind.noun}"
        raise Problem("in-use", detail, extra={"referenced_by": found[:MAX_TOLD]})
