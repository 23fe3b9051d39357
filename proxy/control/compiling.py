"""Packs compiled by the engine that runs them, when they are written and when they are tried.

SECURITY: one pack may take two seconds of computing (control-api.md §12.3); what takes longer is
refused, so that no tenant's pack holds up the changes of all others.
"""

import asyncio

from proxy.control.problems import FieldError, invalid
from proxy.control.validation import Where, field_of, pointer_of
from proxy.guardrails.faults import PackFault
from proxy.model.exchange import Json
from proxy.model.policy import PolicyPack
from proxy.settings.packs import PackShelf, PackSource, checked, compile_budget, path_of, settle


async def compiled(pack: PolicyPack) -> list[Json]:
    """The warnings of the engine.  Raises Problem 422 with every fault that it finds."""
    faults, odd = await asyncio.to_thread(lambda: checked(pack, compile_budget()))
    if faults:
        raise invalid([_error(each) for each in faults])
    return [_warning(each) for each in odd]


async def settled(shelf: PackShelf, source: PackSource) -> PackSource:
    """The pack with what it extends, compiled.  Raises Problem 422 with all that is wrong.

    It takes its own place on the shelf: what extends it extends what is written now."""
    own = {**shelf.own, source.pack.policy_pack_id: source}
    shelf = PackShelf(own, shelf.builtin)
    found, problems, _ = await asyncio.to_thread(settle, shelf, [source])
    if problems:
        raise invalid([_fault("invalid_value", each.message, each.path) for each in problems])
    return found[source.pack.policy_pack_id]


def _fault(
    code: str, message: str, where: Where, extra: dict[str, Json] | None = None
) -> FieldError:
    return FieldError(code, message, field_of(where), pointer_of(where), extra=extra)


def _error(fault: PackFault) -> FieldError:
    extra: dict[str, Json] | None = None
    if fault.position is not None:
        extra = {"position": fault.position}
    return _fault(fault.code, fault.message, tuple(path_of(fault.field)), extra)


def _warning(fault: PackFault) -> Json:
    where = tuple(path_of(fault.field))
    return {"pointer": pointer_of(where), "code": fault.code, "detail": fault.message}
