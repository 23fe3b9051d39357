"""Packs and the routes that they stand on, looked at together (guardrails.md §3.2).

A rule that could not be enforced on a route is refused when the pack is written or the route that
would have it, never left out when a request comes.  What got into the store all the same is told as
a warning to whoever reads it, and its route serves nobody.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydantic import ValidationError

from proxy.control.frame import ControlDeps, Passage
from proxy.control.kinds import Object, parts_of
from proxy.control.problems import FieldError, invalid
from proxy.control.validation import field_of, pointer_of
from proxy.model.exchange import Json
from proxy.model.policy import PolicyPack, Rule
from proxy.model.tenancy import Route
from proxy.settings import overlay
from proxy.settings.explain import step_into
from proxy.settings.packs import PackShelf, PackSource, builtin_packs, clashes, whole_pack
from proxy.wire import jsonbody

VERSION_NAME: Final = "policy_version"
BESIDE: Final = ("status", "route_ids", "labels")  # of a policy, no part of a version
_RESUMES: Final = Route(id="any", endpoint="any")  # what a route is unless it says otherwise
_WRITES: Final = ("POST", "PUT", "PATCH")


def content_of(said: Object) -> Object:
    """What a version is made of."""
    return {name: value for name, value in said.items() if name not in BESIDE}


def source_of(said: Object) -> PackSource:
    return overlay.source_of(PolicyPack.model_validate(content_of(said)))


async def shelf_of(passage: Passage, deps: ControlDeps) -> PackShelf:
    """The packs that others may extend."""
    return await _shelf(await _every("policy", passage, deps))


async def _shelf(policies: Mapping[str, Object]) -> PackShelf:
    own: dict[str, PackSource] = {}
    for name, said in policies.items():
        with suppress(ValidationError):  # of another version: left out, as in what is in force
            own[name] = source_of(said)
    return PackShelf(own, await asyncio.to_thread(_shipped))


@cache
def _shipped() -> dict[str, PackSource]:
    """They are part of the program: one look is enough.  Nobody changes them."""
    return builtin_packs()


async def fits_packs(said: Object, passage: Passage, deps: ControlDeps) -> list[Json]:
    """Warnings for packs that a stored route cannot have.  Raises Problem 422 when it is written
    now."""
    route = Route.model_validate(_plain(said))
    if route.stream_recovery != "resume":
        return []
    policies = await _every("policy", passage, deps)
    named = [*route.policy_packs, *_attached(route, policies)]
    if not named:
        return []
    shelf = await _shelf(policies)
    found = []
    for place, reference in enumerate(named):
        source = await _published(reference, shelf, passage, deps)
        for each in _clashes(reference, source, policies, shelf, route) if source else ():
            listed = place < len(route.policy_packs)
            where = ("policy_packs", place) if listed else ("stream_recovery",)
            found.append(each.error(_written(passage, where, ("stream_recovery",))))
    return _told(found, passage)


async def fits_routes(said: Object, passage: Passage, deps: ControlDeps) -> list[Json]:
    """Warnings for routes that cannot have the stored pack, or one that rests on it.  Raises
    Problem 422 when the pack is written now."""
    written = source_of(said)
    pack_id = written.pack.policy_pack_id
    policies = await _every("policy", passage, deps) | {pack_id: said}
    shelf = await _shelf(policies)
    resting = [each for each in shelf.own.values() if _rests_on(each, pack_id, shelf)]
    if not any(_clashes("", each, policies, shelf, _RESUMES) for each in resting):
        return []  # so it is with nearly all: no route needs to be looked at
    pinned = f"{pack_id}@{written.pack.version}"
    known = await deps.store.get(passage.workspace, VERSION_NAME, pinned) is not None
    found = []
    for doc in (await _every("route", passage, deps)).values():
        route = Route.model_validate(_plain(doc))
        for reference in (*route.policy_packs, *_attached(route, policies)):
            source = shelf.find(reference)
            if source is None or (known and reference == pinned):
                continue  # a published version never changes
            if not _rests_on(source, pack_id, shelf):
                continue
            for each in _clashes(reference, source, policies, shelf, route):
                places = [rule.rule_id for rule in written.pack.rules]
                where: tuple[str | int, ...] = ("extends",)
                if each.rule.rule_id in places:
                    where = ("rules", places.index(each.rule.rule_id))
                found.append(each.error(_written(passage, where, ("version",))))
    return _told(found, passage)


@dataclass(slots=True, frozen=True)
class _Clash:
    """A rule of a pack that a route cannot have."""

    route_id: str
    pack_id: str
    rule: Rule
    why: str

    def error(self, where: tuple[str | int, ...]) -> FieldError:
        detail = f"rule {self.rule.rule_id} of pack {self.pack_id} {self.why} on route "
        extra: dict[str, Json] = {
            "policy_pack_id": self.pack_id,
            "rule_id": self.rule.rule_id,
            "route_id": self.route_id,
        }
        return FieldError(
            "kind_not_possible",
            detail + self.route_id,
            field_of(where),
            pointer_of(where),
            extra=extra,
        )


def _clashes(
    reference: str,
    source: PackSource,
    policies: Mapping[str, Object],
    shelf: PackShelf,
    route: Route,
) -> list[_Clash]:
    pack = whole_pack(source, shelf)
    pack_id = source.pack.policy_pack_id
    paused = policies.get(pack_id, {}).get("status") == "paused" and "@" not in reference
    if pack is None or paused:
        return []  # what is not valid has faults of its own, and what is paused does nothing
    return [_Clash(route.id, pack_id, rule, why) for rule, why in clashes(pack, route)]


def _rests_on(source: PackSource, pack_id: str, shelf: PackShelf) -> bool:
    """It is that pack, or extends it in the end."""
    seen: set[str] = set()
    at: PackSource | None = source
    while at is not None and at.pack.policy_pack_id not in seen:
        if at.pack.policy_pack_id == pack_id:
            return True
        seen.add(at.pack.policy_pack_id)
        at = shelf.find(at.pack.extends) if at.pack.extends is not None else None
    return False


async def _published(
    reference: str, shelf: PackShelf, passage: Passage, deps: ControlDeps
) -> PackSource | None:
    """What `id` or `id@version` means: a version that is not in force is kept beside."""
    found = shelf.find(reference)
    if found is not None or "@" not in reference:
        return found
    row = await deps.store.get(passage.workspace, VERSION_NAME, reference)
    return source_of(parts_of(row[1])[0]) if row is not None else None


async def _every(kind: str, passage: Passage, deps: ControlDeps) -> dict[str, Object]:
    """What is said by all documents of the kind, by id; those of the file over the others."""
    rows = await deps.store.scan(passage.workspace, kind)
    found = {doc_id: parts_of(body)[0] for doc_id, _, body in rows}
    member = "policy_pack_id" if kind == "policy" else "id"
    for _, said in passage.config.declared(passage.workspace, kind):
        found[str(said[member])] = dict(said)
    return found


def _attached(route: Route, policies: Mapping[str, Object]) -> list[str]:
    """The policies that name the route and that it does not name itself."""
    listed = {reference.partition("@")[0] for reference in route.policy_packs}
    found = []
    for name, said in sorted(policies.items()):
        routes = said.get("route_ids")
        if name not in listed and isinstance(routes, list) and route.id in routes:
            found.append(name)
    return found


def _plain(said: Object) -> Object:
    return {name: value for name, value in said.items() if name != "labels"}


def _written(passage: Passage, *places: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The first place that the body has: pointers resolve in what was sent."""
    if passage.request.method not in _WRITES:
        return places[0]
    sent: Json = jsonbody.loads(passage.body)
    for where in places:
        there, here = True, sent
        for part in where:
            there, here = step_into(here, part) if there else (False, here)
        if there:
            return where
    return ()


def _told(found: list[FieldError], passage: Passage) -> list[Json]:
    if found and passage.request.method in _WRITES:
        raise invalid(found)
    return [each.doc() for each in found]
